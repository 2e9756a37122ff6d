"""The second verifier against the same known answers as the library."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from verifier.history import Refused, merkle_root, open_checkpoint, open_entry, open_envelope, open_roster
from verifier.sums import (
    ReplayedSum,
    Shape,
    commitment,
    derive,
    is_tagged,
    mask,
    rebuild,
    signed,
    unpack,
    words,
)

FOLDER = Path(__file__).parents[1] / "vectors"
PRIMITIVES, SUMS, PARTIES = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in ("secagg_primitives", "secagg", "parties")
)
unhex = bytes.fromhex


@pytest.mark.parametrize("known", PRIMITIVES["derive"], ids=lambda known: "-".join(known["parts"]))
def test_keys_are_derived(known):
    assert derive(unhex(known["key"]), *known["parts"], size=known["size"]).hex() == known["okm"]


def test_commitments_are_made():
    known = PRIMITIVES["commit"]
    made = commitment(known["label"], PRIMITIVES["plan"]["digest"], unhex(known["value"]))
    assert made.hex() == known["digest"]


@pytest.mark.parametrize("known", PRIMITIVES["mask"], ids=lambda known: str(known["ring_bits"]))
def test_masks_are_streamed(known):
    count = len(known["words"])
    stream = mask(unhex(known["seed"]), Shape(known["ring_bits"], count, 0)).tolist()
    assert [word % 2 ** known["ring_bits"] for word in stream] == [
        word % 2 ** known["ring_bits"] for word in known["words"]
    ]


def test_secrets_are_rebuilt_from_the_last_shares():
    known = PRIMITIVES["shamir"]
    points = dict(enumerate(map(unhex, known["shares"]), start=1))
    chosen = dict(list(points.items())[-known["threshold"] :])
    assert rebuild(chosen).hex() == known["secret"]
    with pytest.raises(Refused, match="do not give"):
        rebuild(dict(list(points.items())[: known["threshold"] - 1]))


def test_uploads_in_a_small_ring_add_up_to_the_known_sum():
    """With all sites there, the pair masks cancel, and each own mask is of a known seed."""
    known = SUMS["small_ring"]
    plan = json.loads(unhex(known["plan"]["bytes"]))
    shape = Shape(plan["ring_bits"], plan["length"], plan["lanes"])
    total = np.zeros(shape.length + shape.lanes, dtype=np.uint64)
    for site, upload in known["uploads"].items():
        total += words(unhex(upload), shape) - mask(unhex(SUMS["secrets"][site])[:32], shape)
    vector, lanes = signed(total, shape)
    assert (vector.tolist(), lanes.tolist()) == (known["sum"], known["lanes_sum"])


def test_exact_uploads_add_up_to_the_known_sum_with_its_tag():
    plan = json.loads(unhex(SUMS["plan"]["bytes"]))
    shape = Shape(plan["ring_bits"], plan["length"], 2)
    total = np.zeros(shape.length + 2, dtype=np.uint64)
    for site, upload in SUMS["uploads"].items():
        total += words(unhex(upload), shape) - mask(unhex(SUMS["secrets"][site])[:32], shape)
    opened = ReplayedSum(*signed(total, shape), tuple(SUMS["uploads"]), ())
    assert opened.vector.tolist() == SUMS["sum"]
    assert is_tagged(opened, bytes(range(32)), SUMS["plan"]["digest"])
    assert not is_tagged(opened, bytes(range(1, 33)), SUMS["plan"]["digest"])


def test_signed_objects_are_opened():
    roster = open_roster(PARTIES["roster"]["signed"].encode(), digest=PARTIES["roster"]["digest"])
    known = PARTIES["envelope"]
    head, payload = open_envelope(base64.b64decode(known["data"]), roster)
    assert (head["key"], head["sender"], payload.hex()) == (known["key"], known["sender"], known["payload"])
    entry = PARTIES["entry"]["data"].encode()
    assert open_entry(entry, roster)["predicate"] == {"run": "run-1", "round": 0}
    for which, signer in (("checkpoint", "coordinator"), ("cosignature", "site-a")):
        note = PARTIES[which].encode()
        assert open_checkpoint(note, roster, roster.parties[signer]) == (1, merkle_root([entry]))
        with pytest.raises(Refused):
            open_checkpoint(note, roster, roster.parties["site-b"])
    with pytest.raises(Refused, match="another one"):
        open_roster(PARTIES["roster"]["signed"].encode(), digest="ab" * 32)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x81\xa1a\xc4\x02xy", {"a": b"xy"}),
        (b"\xde\x00\x01\xd9\x01a\x92\xa0\xc5\x00\x00", {"a": ["", b""]}),
        (b"\xdc\x00\x01\xda\x00\x01z", ["z"]),
    ],
)
def test_messages_are_unpacked(data, value):
    assert unpack(data) == value
    with pytest.raises((Refused, IndexError)):
        unpack(data[:-1])
    with pytest.raises(Refused, match="left over"):
        unpack(data + b"\0")
