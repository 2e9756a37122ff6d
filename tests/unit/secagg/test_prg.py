import ast
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedhealth.secagg.prg import apply_mask, apply_masks, commit, derive, ring_dtype

PACKAGE = Path(__file__).parents[3] / "fedhealth"
SEED = bytes(range(32))


@pytest.mark.parametrize("length", [1, 1000, 100_003])
@pytest.mark.parametrize("bits", [4, 8, 9, 16, 32, 64])
def test_a_mask_is_aes_256_ctr_from_counter_zero_in_little_endian_words(bits, length):
    dtype = ring_dtype(bits)
    vector = np.zeros(length, dtype=dtype)
    apply_mask(vector, SEED, sign=1)
    cipher = Cipher(algorithms.AES(derive(SEED, "vector")), modes.CTR(bytes(16))).encryptor()
    stream = cipher.update(bytes(length * dtype.itemsize))
    assert vector.tobytes() == stream


def test_adding_and_subtracting_cancel_over_chunk_borders():
    size = 3 * (1 << 20) // 8 + 7
    before = np.arange(size, dtype=np.uint64)
    vector = before.copy()
    apply_mask(vector, SEED, sign=1)
    assert (vector != before).mean() > 0.99
    apply_mask(vector, SEED, sign=-1)
    assert (vector == before).all()


def test_many_masks_at_once_are_the_masks_one_by_one():
    signed = [(bytes([number] * 32), 1 if number % 3 else -1) for number in range(1, 8)]
    together, apart = (np.arange(60_001, dtype=np.uint32) for _ in range(2))
    apply_masks(together, signed)
    for seed, sign in signed:
        apply_mask(apart, seed, sign=sign)
    assert (together == apart).all()


def test_a_longer_vector_begins_with_the_same_mask():
    short, long = np.zeros(5, dtype=np.uint32), np.zeros(600_000, dtype=np.uint32)
    apply_mask(short, SEED, sign=1)
    apply_mask(long, SEED, sign=1)
    assert (long[:5] == short).all()


def test_lanes_have_masks_of_their_own():
    vector, lanes = np.zeros(1000, dtype=np.uint64), np.zeros(1000, dtype=np.uint64)
    apply_masks(vector, [(SEED, 1)])
    apply_masks(lanes, [(SEED, 1)], use="lanes")
    assert (vector != lanes).all()


@pytest.mark.parametrize(
    ("bits", "size"), [(4, 1), (8, 1), (9, 2), (16, 2), (17, 4), (32, 4), (33, 8), (64, 8)]
)
def test_a_ring_has_the_smallest_word_that_holds_it(bits, size):
    assert ring_dtype(bits).itemsize == size


def test_labels_are_joined_unambiguously():
    assert derive(SEED, "ab", "c") != derive(SEED, "a", "bc")
    assert derive(SEED, "a") != derive(SEED, "a", "")


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="256 bits"):
        derive(bytes(31), "mask")


def test_a_commitment_binds_label_plan_and_value():
    seen = {
        commit(label, digest, value)
        for label in ("mask seed", "wrap key")
        for digest in ("a" * 64, "b" * 64)
        for value in (bytes(32), SEED)
    }
    assert len(seen) == 8


def generators_in(source):
    """Every name in ``source`` by which a generator that is not cryptographic could be reached."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return found & {"random", "numpy.random", "np.random", "torch.rand", "torch.randn", "torch.normal"}


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from random import randbytes",
        "import numpy.random as safe",
        "from numpy import random",
        "from numpy.random import default_rng",
        "import numpy as np\nnp.random.bytes(32)",
    ],
)
def test_the_search_finds_every_way_to_another_generator(source):
    assert generators_in(source)


@pytest.mark.parametrize("package", ["secagg", "identity", "privacy", "compression"])
def test_no_module_near_a_key_or_a_mask_reaches_another_generator(package):
    paths = sorted((PACKAGE / package).rglob("*.py"))
    assert len(paths) > 1
    assert {path.name: found for path in paths if (found := generators_in(path.read_text()))} == {}
