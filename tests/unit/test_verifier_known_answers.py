"""The second verifier against the same known answers as the library."""

import base64
import json
from pathlib import Path

import pytest
from verifier.exchange import (
    Refused,
    ReplayedSum,
    Shape,
    commitment,
    derive,
    merkle_root,
    open_checkpoint,
    open_entry,
    open_object,
    open_roster,
    rebuild,
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
    stream = Shape(known["ring_bits"], count, 0).mask(unhex(known["seed"]))[:count].tolist()
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


def _opened(shape, uploads):
    own = {site: unhex(SUMS["secrets"][site])[:32] for site in uploads}
    return sum(shape.words(unhex(upload)) - shape.mask(own[site]) for site, upload in uploads.items())


def test_uploads_in_a_small_ring_add_up_to_the_known_sum():
    """With all sites there, the pair masks cancel, and each own mask is of a known seed."""
    known = SUMS["small_ring"]
    plan = json.loads(unhex(known["plan"]["bytes"]))
    shape = Shape(plan["ring_bits"], plan["length"], plan["lanes"])
    vector, lanes, _ = shape.signed(_opened(shape, known["uploads"]))
    assert (vector.tolist(), lanes.tolist()) == (known["sum"], known["lanes_sum"])


def test_exact_uploads_add_up_to_the_known_sum_with_its_tag():
    plan = json.loads(unhex(SUMS["plan"]["bytes"]))
    shape = Shape(plan["ring_bits"], plan["length"], 0)
    signed = shape.signed(_opened(shape, SUMS["uploads"]))
    opened = ReplayedSum(*signed, tuple(SUMS["uploads"]), ())
    assert opened.vector.tolist() == SUMS["sum"]
    assert opened.is_tagged(bytes(range(32)), SUMS["plan"]["digest"])
    assert not opened.is_tagged(bytes(range(1, 33)), SUMS["plan"]["digest"])


def test_signed_objects_are_opened(tmp_path):
    roster = open_roster(PARTIES["roster"]["signed"].encode(), digest=PARTIES["roster"]["digest"])
    known = PARTIES["envelope"]
    for key in (known["key"], f"elsewhere/{known['sender']}"):
        (tmp_path / key).parent.mkdir(parents=True)
        (tmp_path / key).write_bytes(base64.b64decode(known["data"]))
    head, payload = open_object(tmp_path, known["key"], roster)
    assert (head["key"], head["sender"], payload.hex()) == (known["key"], known["sender"], known["payload"])
    with pytest.raises(Refused, match="not its sender's"):
        open_object(tmp_path, f"elsewhere/{known['sender']}", roster)
    entry = PARTIES["entry"]["data"].encode()
    assert open_entry(entry, roster)["predicate"] == {"run": "run-1", "round": 0}
    for which, signers in (("checkpoint", ("coordinator",)), ("cosignature", ("coordinator", "site-a"))):
        note = PARTIES[which].encode()
        assert open_checkpoint(note, roster, *signers) == (1, merkle_root([entry]))
        for others in (("site-b",), ("coordinator", "site-b"), ("site-a",)):
            with pytest.raises(Refused):
                open_checkpoint(note, roster, *others)
    with pytest.raises(Refused, match="another one"):
        open_roster(PARTIES["roster"]["signed"].encode(), digest="ab" * 32)
