"""Known answers of keys, seals, signatures and the log, which tests/vectors/regenerate_parties.py computes without fedhealth."""

import base64
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedhealth.audit.checkpoints import (
    Checkpoint,
    cosign,
    open_checkpoint,
    open_cosignature,
    sign_checkpoint,
)
from fedhealth.audit.merkle import MerkleTree
from fedhealth.audit.statements import make_statement, open_statement, sign_statement
from fedhealth.errors import ProtocolError
from fedhealth.exchange.envelope import seal, unseal
from fedhealth.identity import SignedRoster, pair_keys
from fedhealth.identity.agreement import Encapsulation, encapsulate
from fedhealth.identity.encoding import decode, encode
from fedhealth.identity.keys import PartyKeys, _KeyFile
from fedhealth.identity.tag_key import open_sealed, seal_for_all
from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.prg import commit
from fedhealth.secagg.site import SiteSum

KNOWN = json.loads((Path(__file__).parents[1] / "vectors" / "parties.json").read_text())
FIRST, SECOND = "site-a", "site-b"
unhex = bytes.fromhex


@pytest.fixture(scope="module")
def roster():
    return SignedRoster.from_bytes(KNOWN["roster"]["signed"].encode()).verify(
        expected_digest=KNOWN["roster"]["digest"]
    )


def keys_of(name):
    seeds = {kind: encode(unhex(seed)) for kind, seed in KNOWN["private"][name].items()}
    role = "coordinator" if name == "coordinator" else "site"
    return PartyKeys._from_file(_KeyFile(name=name, role=role, public_digest="", **seeds))


@pytest.mark.parametrize("name", sorted(KNOWN["private"]))
def test_seeds_give_the_public_keys_of_the_roster(roster, name):
    assert keys_of(name).public == roster.party(name)


@pytest.mark.parametrize("own", [FIRST, SECOND])
def test_both_ends_agree_on_the_pair_key_written_down(roster, own):
    """Of the first its secret is known; the second opens the ciphertext."""
    known, keys = KNOWN["pair_key"], keys_of(own)
    drawn = json.loads(encapsulate(keys_of(FIRST), roster).payload)
    drawn["ciphertexts"][SECOND] = known["ciphertext"]
    payload = json.dumps(drawn, sort_keys=True, separators=(",", ":")).encode()
    mine = (
        Encapsulation(payload, {SECOND: unhex(known["secret"])})
        if own == FIRST
        else encapsulate(keys, roster)
    )
    peer = SECOND if own == FIRST else FIRST
    agreed = pair_keys(keys, roster, mine, {FIRST: payload}, peers=[peer])
    assert agreed[peer].hex() == known["key"]


def test_the_tag_key_is_sealed_and_opened_as_written_down(roster):
    known, pair = KNOWN["tag_key"], unhex(KNOWN["pair_key"]["key"])
    assert seal_for_all(unhex(known["key"]), roster, {SECOND: pair}).decode() == known["payload"]
    opened = open_sealed(known["payload"].encode(), roster, site=SECOND, pair_key=pair)
    assert opened.hex() == known["key"]


def site_with(plan, name, peer):
    """A site as far as its seals need one: a plan's digest and cohort, and one pair key."""
    site = SiteSum.__new__(SiteSum)
    site._plan, site._site = SimpleNamespace(digest=plan, cohort=(FIRST, SECOND)), name
    site._pair_keys = {peer: unhex(KNOWN["pair_key"]["key"])}
    return site


def test_shares_are_sealed_opened_and_committed_to_as_written_down():
    known = KNOWN["seal"]
    plan, sealed = known["plan"], unhex(known["sealed"])
    both = unhex(known["mask_share"] + known["key_share"])
    assert site_with(plan, FIRST, SECOND)._seal(SECOND, both) == sealed
    receiver = site_with(plan, SECOND, FIRST)
    receiver._pair_seeds = {FIRST: bytes(32)}
    message = SimpleNamespace(
        sealed={SECOND: sealed},
        mask_shares={SECOND: unhex(known["mask_share_commitment"])},
        key_shares={SECOND: unhex(known["key_share_commitment"])},
        pair_seeds={SECOND: commit("pair seed", plan, bytes(32))},
    )
    assert b"".join(receiver._open_sealed(FIRST, message)) == both


def test_wrapped_seeds_are_unwrapped_as_written_down():
    known = KNOWN["wrap"]
    machine = CoordinatorSum(SimpleNamespace(digest=known["plan"], cohort=("site-a", "site-b", "site-c")))
    machine._shares = {"site-b": SimpleNamespace(wrapped=unhex(known["wrapped"]))}
    seeds = machine._unwrap("site-b", unhex(known["key"]))
    assert b"".join(seeds[name] for name in ("site-a", "site-c")).hex() == known["seeds"]


def test_an_envelope_is_the_bytes_written_down(roster):
    known = KNOWN["envelope"]
    data = base64.b64decode(known["data"])
    opened = unseal(data, roster=roster)
    assert (opened.header.key, opened.header.sender, opened.payload.hex()) == (
        known["key"],
        known["sender"],
        known["payload"],
    )
    made = seal(opened.payload, opened.header, keys=keys_of(FIRST))
    assert made[:-3309] == data[:-3309]  # ML-DSA signatures are drawn anew


def test_a_log_entry_is_the_bytes_written_down(roster):
    data = KNOWN["entry"]["data"].encode()
    statement = open_statement(data, roster=roster)
    assert statement.predicate == {"run": "run-1", "round": 0}
    again = make_statement("round", statement.predicate, statement.subjects)
    made, known = (json.loads(each) for each in (sign_statement(again, keys=keys_of("coordinator")), data))
    assert made["payload"] == known["payload"]
    assert made["signatures"][0] == known["signatures"][0]
    assert MerkleTree([data]).root().hex() == KNOWN["entry"]["root"]


def test_a_checkpoint_and_its_co_signature_are_the_notes_written_down(roster):
    note, both = KNOWN["checkpoint"].encode(), KNOWN["cosignature"].encode()
    checkpoint = open_checkpoint(note, roster=roster)
    assert checkpoint == Checkpoint(1, KNOWN["entry"]["root"])
    assert open_cosignature(both, roster=roster, site=FIRST) == checkpoint
    made = sign_checkpoint(checkpoint, keys=keys_of("coordinator"), roster=roster)
    assert made.splitlines()[:5] == note.splitlines()[:5]  # the last line is of ML-DSA
    assert cosign(note, keys=keys_of(FIRST)).splitlines()[:-1] == both.splitlines()[:-1]
    for site, data in ((SECOND, both), (FIRST, note), ("coordinator", both)):
        with pytest.raises(ProtocolError):
            open_cosignature(data, roster=roster, site=site)
    with pytest.raises(ProtocolError):
        open_checkpoint(both, roster=roster)


def test_the_known_ciphertext_has_the_size_of_its_kind():
    assert len(decode(KNOWN["pair_key"]["ciphertext"])) == 1088
