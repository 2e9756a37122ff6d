"""A site is in an encrypted sum with its key and the ciphertext it is bound to, or with neither."""

from hashlib import sha256

import numpy as np
import pytest
from simulator.sums import make_plan, make_sites, secrets_of

from fedhealth.errors import ProtocolError
from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.encrypted import EncryptedSum
from fedhealth.secagg.ntt import SIZE
from fedhealth.secagg.rlwe import CipherSum, encrypt, secret_key

LENGTH = 7
LIAR = "site-02"


class World:
    """Four sites that have shared; their ciphertexts and masked keys, before anybody changes one."""

    def __init__(self):
        self.plan = make_plan(4, length=SIZE)
        self.sites = make_sites(self.plan)
        self.vectors = {name: np.arange(LENGTH) * number for number, name in enumerate(self.plan.cohort, 1)}
        seeds = {name: secrets_of(name).cipher_seed for name in self.plan.cohort}
        self.ciphertexts = {n: encrypt(self.plan, self.vectors[n], seed=seeds[n]) for n in self.plan.cohort}
        self.keys = {name: secret_key(self.plan, seed=seeds[name]) for name in self.plan.cohort}
        self.shares = {name: site.share() for name, site in self.sites.items()}
        machine = CoordinatorSum(self.plan)
        machine.receive_shares(self.shares)
        self.uploads = EncryptedSum(
            machine, CipherSum(self.plan, LENGTH), lambda name: self.ciphertexts[name]
        )

    def payload(self, name):
        masked = self.sites[name].mask(self.shares, self.keys[name])
        return bytes(masked) + sha256(self.ciphertexts[name]).digest()

    def open(self):
        survivors = self.uploads.keys.propose()
        said = {name: self.sites[name].agree(survivors) for name in survivors}
        return self.uploads.unmask({name: self.sites[name].open(said) for name in survivors})


def test_the_opened_sum_is_of_the_vectors():
    world = World()
    for name in world.plan.cohort:
        world.uploads.receive_masked(name, world.payload(name))
    opened = world.open()
    assert (opened.vector == sum(world.vectors.values())).all()
    assert opened.survivors == world.plan.cohort


@pytest.mark.parametrize(
    "lie",
    [
        lambda world, payload: payload[:-32],
        lambda world, payload: payload[:-1] + bytes([payload[-1] ^ 1]),
        lambda world, payload: payload[1:],
        lambda world, payload: payload[:-32] + sha256(world.ciphertexts["site-01"]).digest(),
        lambda world, payload: b"",
    ],
)
def test_a_key_that_is_not_whole_or_not_for_the_ciphertext_leaves_neither_in_the_sum(lie):
    world = World()
    for name in world.plan.cohort:
        payload = world.payload(name)
        if name != LIAR:
            world.uploads.receive_masked(name, payload)
            continue
        with pytest.raises(ProtocolError, match=LIAR):
            world.uploads.receive_masked(name, lie(world, payload))
    opened = world.open()
    assert (opened.vector == sum(v for n, v in world.vectors.items() if n != LIAR)).all()


def test_a_second_key_of_a_site_adds_nothing():
    world = World()
    for name in world.plan.cohort:
        world.uploads.receive_masked(name, world.payload(name))
    with pytest.raises(ProtocolError, match="nobody asked for"):
        world.uploads.receive_masked(LIAR, world.payload(LIAR))
    assert (world.open().vector == sum(world.vectors.values())).all()


def test_another_key_than_the_ciphertexts_is_found_when_the_sum_is_opened():
    world = World()
    world.keys[LIAR] = np.roll(world.keys[LIAR], 1)
    for name in world.plan.cohort:
        world.uploads.receive_masked(name, world.payload(name))
    with pytest.raises(ProtocolError, match="do not fit the keys"):
        world.open()
