"""Known answers, computed by tests/vectors/regenerate_secagg_primitives.py without fedhealth's code."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from simulator.sums import TAG_KEY, make_sites

from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.prg import apply_mask, commit, derive, ring_dtype
from fedhealth.secagg.shamir import rebuild, split
from fedhealth.secagg.site import SiteSum, SumSecrets
from fedhealth.secagg.tags import tag_of

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "secagg_primitives.json").read_text())
unhex = bytes.fromhex


def known_plan():
    return SumPlan.model_validate_json(json.dumps(VECTORS["plan"]["fields"]))


def test_the_cipher_is_the_standards_one():
    known = VECTORS["aes_256_ctr"]
    cipher = Cipher(algorithms.AES(unhex(known["key"])), modes.CTR(unhex(known["counter"]))).encryptor()
    assert cipher.update(unhex(known["plain"])).hex() == known["cipher"]


@pytest.mark.parametrize("known", VECTORS["derive"], ids=lambda known: "-".join(known["parts"]))
def test_keys_are_derived_as_written_down(known):
    assert derive(unhex(known["key"]), *known["parts"], size=known["size"]).hex() == known["okm"]


@pytest.mark.parametrize("known", VECTORS["mask"], ids=lambda known: str(known["ring_bits"]))
def test_a_mask_has_the_words_written_down(known):
    vector = np.zeros(len(known["words"]), dtype=ring_dtype(known["ring_bits"]))
    apply_mask(vector, unhex(known["seed"]), sign=1)
    assert vector.tolist() == known["words"]


def test_shares_are_the_ones_written_down_and_any_of_them_rebuild():
    known = VECTORS["shamir"]
    shares = split(
        unhex(known["secret"]),
        threshold=known["threshold"],
        holders=len(known["shares"]),
        polynomial_seed=unhex(known["polynomial_seed"]),
    )
    assert [share.hex() for share in shares] == known["shares"]
    by_point = {point: unhex(share) for point, share in enumerate(known["shares"], start=1)}
    for points in combinations(by_point, known["threshold"]):
        assert rebuild({point: by_point[point] for point in points}, size=32).hex() == known["secret"]


def test_a_plan_has_the_bytes_and_the_digest_written_down():
    known = VECTORS["plan"]
    assert known_plan().to_bytes().decode() == known["canonical"]
    assert known_plan().digest == known["digest"]


def test_a_commitment_has_the_digest_written_down():
    known = VECTORS["commit"]
    found = commit(known["label"], VECTORS["plan"]["digest"], unhex(known["value"]))
    assert found.hex() == known["digest"]


def test_a_masked_vector_has_the_words_written_down():
    known, plan = VECTORS["upload"], known_plan()
    secrets = SumSecrets(unhex(known["mask_seed"]), *(bytes([part] * 32) for part in (1, 2, 3, 4)))
    pair_keys = {peer: unhex(key) for peer, key in known["pair_keys"].items()}
    site = SiteSum(
        plan, site=known["site"], pair_keys=pair_keys, tag_key=unhex(known["tag_key"]), secrets=secrets
    )
    peers = [_peer(plan, name, known["site"], key) for name, key in pair_keys.items()]
    shares = {name: message.share() for name, message in peers} | {known["site"]: site.share()}
    upload = site.mask(shares, np.array(known["vector"], dtype=np.int64))
    assert np.frombuffer(upload[:24], dtype="<u4").tolist() == known["words"]
    assert int.from_bytes(upload[24:], "little") == known["masked_tag"]


def test_a_tag_is_the_one_written_down():
    known, plan = VECTORS["upload"], known_plan()
    vector, key = np.array(known["vector"], dtype=np.int64), unhex(known["tag_key"])
    assert tag_of(vector, key=key, plan=plan, site=known["site"]) == known["tag"]


def _peer(plan, name, other, key):
    """A peer that shares the known key with ``other`` and any keys with the rest."""
    pair_keys = make_sites(plan)[name]._pair_keys | {other: key}
    return name, SiteSum(plan, site=name, pair_keys=pair_keys, tag_key=TAG_KEY, secrets=SumSecrets.draw())
