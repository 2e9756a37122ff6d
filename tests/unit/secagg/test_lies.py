"""Scripted lying parties: every lie ends in a typed error, a blame or a useless view, never in a wrong sum."""

import dataclasses

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from simulator.sums import (
    TAG_KEY,
    key_of,
    make_plan,
    make_site,
    make_sites,
    make_vectors,
    run_sum,
    secrets_of,
)

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.messages import MAX_MESSAGE_BYTES, OpenMessage, ShareMessage, decode, encode
from fedhealth.secagg.plan import threshold_for
from fedhealth.secagg.prg import commit, derive
from fedhealth.secagg.site import SiteSum, SumSecrets
from fedhealth.secagg.tags import LARGEST

LIAR = "site-02"


def world(sites=5, **changes):
    plan = make_plan(sites, **changes)
    return plan, make_sites(plan), make_vectors(plan)


def lying(phase, lie):
    """The liar's message of one phase is replaced by ``lie(payload)``."""
    return lambda at, site, payload: lie(payload) if (at, site) == (phase, LIAR) else payload


def changed(kind, **fields):
    def change(payload):
        message = decode(payload, kind, sender=LIAR)
        return encode(
            msgspec.structs.replace(
                message, **{name: by(getattr(message, name)) for name, by in fields.items()}
            )
        )

    return change


def flip(data):
    return bytes([data[0] ^ 1]) + data[1:]


def exact_without(opened, vectors, *missing):
    expected = sum(vectors[site] for site in vectors if site not in missing)
    return (opened.vector == expected).all()


# --- lies of a site


@pytest.mark.parametrize(
    "lie",
    [
        lambda payload: b"",
        lambda payload: payload[:-1],
        lambda payload: b"x" * (MAX_MESSAGE_BYTES + 1),
        changed(ShareMessage, sealed=lambda sealed: {}),
        changed(ShareMessage, mask_shares=lambda shares: {**shares, "stranger": bytes(32)}),
        changed(ShareMessage, pair_seeds=lambda seeds: dict(list(seeds.items())[1:])),
    ],
)
def test_a_share_message_that_does_not_fit_is_left_out_and_blamed(lie):
    plan, sites, vectors = world()
    opened = run_sum(plan, sites, vectors, forge=lying("share", lie))
    assert LIAR in opened.blamed
    assert LIAR not in opened.survivors
    assert exact_without(opened, vectors, LIAR)


def test_a_site_that_commits_to_other_pair_seeds_than_all_others_is_left_out():
    plan, sites, vectors = world()
    lie = changed(ShareMessage, pair_seeds=lambda seeds: {peer: flip(seed) for peer, seed in seeds.items()})
    opened = run_sum(plan, sites, vectors, forge=lying("share", lie))
    assert "disputed" in opened.blamed[LIAR]
    assert exact_without(opened, vectors, LIAR)


@pytest.mark.parametrize("field", ["mask_shares", "key_shares"])
def test_shares_that_do_not_fit_their_commitments_are_named_by_the_receiver(field):
    plan, sites, vectors = world()
    lie = changed(ShareMessage, **{field: lambda each: {name: flip(value) for name, value in each.items()}})
    with pytest.raises(ProtocolError, match=f"{LIAR} do not fit"):
        run_sum(plan, sites, vectors, forge=lying("share", lie))


def test_sealed_shares_for_somebody_else_are_named_by_the_receiver():
    plan, sites, vectors = world()

    def swap(sealed):
        first, second = sorted(sealed)[:2]
        return {**sealed, first: sealed[second], second: sealed[first]}

    with pytest.raises(ProtocolError, match=LIAR):
        run_sum(plan, sites, vectors, forge=lying("share", changed(ShareMessage, sealed=swap)))


@pytest.mark.parametrize("field", ["mask_seed", "wrap_key"])
def test_a_secret_that_was_not_the_one_shared_is_found_when_it_is_rebuilt(field):
    plan, sites, vectors = world()
    lie = lying("share", changed(ShareMessage, **{field: flip}))
    silent = {"masked": {LIAR}} if field == "wrap_key" else None
    with pytest.raises(ProtocolError, match=f"{LIAR} shared another secret"):
        run_sum(plan, sites, vectors, forge=lie, silent=silent)


def test_wrapped_seeds_that_were_not_used_are_found_when_the_site_is_gone():
    plan, sites, vectors = world()
    lie = lying("share", changed(ShareMessage, wrapped=flip))
    with pytest.raises(ProtocolError, match=f"{LIAR} wrapped"):
        run_sum(plan, sites, vectors, forge=lie, silent={"masked": {LIAR}})


def test_a_seed_too_few_in_what_two_sites_agreed_on_is_found_before_the_sum_is_touched():
    """One wraps no seed for the other and vanishes; both commit to nothing, so that the ends of the pair agree."""
    plan, sites, vectors = world()
    gone, last = plan.cohort[0], plan.cohort[-1]
    wrapping = AESGCM(derive(secrets_of(gone).wrap_key, "wrap", plan.digest))
    honest = {name: site.share() for name, site in sites.items()}
    shares, nothing = dict(honest), commit("pair seed", plan.digest, b"")
    for site, peer in ((gone, last), (last, gone)):
        told = decode(honest[site], ShareMessage, sender=site)
        seeds, wrapped = told.pair_seeds | {peer: nothing}, told.wrapped
        if site == gone:
            plain = wrapping.decrypt(bytes(12), wrapped, plan.digest.encode())
            wrapped = wrapping.encrypt(bytes(12), plain[:-32], plan.digest.encode())
        shares[site] = encode(msgspec.structs.replace(told, pair_seeds=seeds, wrapped=wrapped))
    coordinator = CoordinatorSum(plan)
    assert coordinator.receive_shares(shares) == plan.cohort
    for name in plan.cohort[1:]:
        coordinator.receive_masked(name, sites[name].mask(honest if name == last else shares, vectors[name]))
    survivors = coordinator.propose()
    said = {name: sites[name].agree(survivors) for name in survivors}
    opens = {name: sites[name].open(said) for name in survivors}
    for _ in range(2):
        with pytest.raises(ProtocolError, match=f"{gone} wrapped another seed"):
            coordinator.unmask(opens)


@pytest.mark.parametrize("lie", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_masked_vector_of_a_wrong_size_is_refused(lie):
    plan, sites, vectors = world()
    with pytest.raises(ProtocolError, match=f"{LIAR} has a wrong size"):
        run_sum(plan, sites, vectors, forge=lying("masked", lie))


def test_a_second_vector_or_one_of_a_stranger_is_refused():
    plan, sites, vectors = world()
    shares = {name: site.share() for name, site in sites.items()}
    coordinator = CoordinatorSum(plan)
    coordinator.receive_shares(shares)
    upload = sites[LIAR].mask(shares, vectors[LIAR])
    coordinator.receive_masked(LIAR, upload)
    for name in (LIAR, "site-99"):
        with pytest.raises(ProtocolError, match="nobody asked for"):
            coordinator.receive_masked(name, upload)


def test_a_vector_after_the_list_was_closed_is_refused_and_changes_nothing():
    plan, sites, vectors = world()
    shares = {name: site.share() for name, site in sites.items()}
    coordinator = CoordinatorSum(plan)
    coordinator.receive_shares(shares)
    uploads = {name: site.mask(shares, vectors[name]) for name, site in sites.items()}
    for name in plan.cohort[:-1]:
        coordinator.receive_masked(name, uploads[name])
    survivors, late = coordinator.propose(), plan.cohort[-1]
    with pytest.raises(ProtocolError, match=f"{late} came after"):
        coordinator.receive_masked(late, uploads[late])
    said = {name: sites[name].agree(survivors) for name in survivors}
    opened = coordinator.unmask({name: sites[name].open(said) for name in survivors})
    assert exact_without(opened, vectors, late)
    assert opened.blamed == {}


def test_sealed_shares_of_a_wrong_size_are_named_by_the_receiver():
    """Else two sites could swell what an honest one has to open beyond the limit of a message."""
    plan, sites, vectors = world()
    sites[LIAR]._key_shares = tuple(share + bytes(1000) for share in sites[LIAR]._key_shares)
    with pytest.raises(ProtocolError, match=f"{LIAR} do not fit"):
        run_sum(plan, sites, vectors)


def test_the_sites_that_count_give_the_same_list_again():
    """A coordinator that is killed reads back the messages of its own list and no others."""
    plan, sites, _ = world(sites=7)
    quarrels = {
        "site-01": ("site-02", "site-03", "site-04", "site-05"),
        "site-07": ("site-02", "site-03", "site-04"),
    }
    shares = {name: site.share() for name, site in sites.items()}
    for site, peers in quarrels.items():

        def lie(seeds, peers=peers):
            return {peer: flip(seed) if peer in peers else seed for peer, seed in seeds.items()}

        shares[site] = changed(ShareMessage, pair_seeds=lie)(shares[site])
    first = CoordinatorSum(plan).receive_shares(shares)
    assert CoordinatorSum(plan).receive_shares({name: shares[name] for name in first}) == first


@pytest.mark.parametrize(
    "lie",
    [
        changed(
            OpenMessage, mask_shares=lambda shares: {name: flip(share) for name, share in shares.items()}
        ),
        changed(OpenMessage, mask_shares=lambda shares: {}),
        lambda payload: b"garbage",
    ],
)
def test_garbage_shares_are_blamed_and_the_sum_is_still_exact(lie):
    plan, sites, vectors = world()
    opened = run_sum(plan, sites, vectors, forge=lying("open", lie))
    assert LIAR in opened.blamed
    assert exact_without(opened, vectors)


def test_too_many_garbage_shares_open_nothing():
    plan, sites, vectors = world()
    liars = {"site-01", "site-02"}

    def forge(phase, site, payload):
        return b"garbage" if phase == "open" and site in liars else payload

    with pytest.raises(PolicyError, match="4 are needed"):
        run_sum(plan, sites, vectors, forge=forge)


def test_a_key_swapped_by_a_man_in_the_middle_is_noticed():
    plan, sites, vectors = world()
    pairs = {peer: key_of("mallory", peer) for peer in plan.cohort if peer != LIAR}
    sites[LIAR] = SiteSum(plan, site=LIAR, pair_keys=pairs, tag_key=TAG_KEY, secrets=secrets_of(LIAR))
    opened = run_sum(plan, sites, vectors)
    assert LIAR in opened.blamed
    assert exact_without(opened, vectors, LIAR)


# --- lies of the coordinator


def prepared(plan, sites, vectors):
    shares = {name: site.share() for name, site in sites.items()}
    for name, site in sites.items():
        site.mask(shares, vectors[name])
    return shares


def test_two_lists_of_survivors_are_not_both_signed():
    plan, sites, vectors = world()
    prepared(plan, sites, vectors)
    sites[LIAR].agree(plan.cohort)
    sites[LIAR].agree(plan.cohort)
    with pytest.raises(ProtocolError, match="two lists of survivors"):
        sites[LIAR].agree(plan.cohort[:-1])


def test_a_split_view_of_the_survivors_opens_nothing():
    plan, sites, vectors = world()
    prepared(plan, sites, vectors)
    without_last, without_first = plan.cohort[:-1], plan.cohort[1:]
    said = {name: sites[name].agree(without_last) for name in plan.cohort[:2]}
    said |= {name: sites[name].agree(without_first) for name in plan.cohort[2:]}
    for name in plan.cohort:
        with pytest.raises(ProtocolError, match="enough equal statements"):
            sites[name].open(said)


def opened_sides(count, colluding, split):
    """How many of two groups of honest sites, shown different survivors, give their shares.

    The colluding sites sign whatever the coordinator wants.
    """
    plan, sites, vectors = world(sites=count)
    prepared(plan, sites, vectors)
    honest, colluders = plan.cohort[colluding:], plan.cohort[:colluding]
    victim = plan.cohort[-1]
    sides = (
        (honest[:split], tuple(name for name in plan.cohort if name != victim)),
        (
            honest[split:],
            plan.cohort,
        ),
    )
    opened = 0
    for group, survivors in sides:
        said = {name: sites[name].agree(survivors) for name in group}
        said |= dict.fromkeys(colluders, said[group[0]])
        try:
            sites[group[0]].open(said)
        except ProtocolError:
            continue
        opened += 1
    return opened


@pytest.mark.parametrize("count", [4, 5, 15])
def test_a_split_view_opens_one_side_at_most_while_fewer_than_2t_minus_n_sites_collude(count):
    enough = 2 * threshold_for(count) - count
    for colluding in range(enough):
        splits = range(1, count - colluding)
        assert max(opened_sides(count, colluding, split) for split in splits) <= 1
    assert max(opened_sides(count, enough, split) for split in range(1, count - enough)) == 2


def test_a_split_view_of_the_sites_whose_shares_count_opens_nothing():
    plan, sites, vectors = world()
    shares = {name: site.share() for name, site in sites.items()}
    four = plan.cohort[:4]
    for name in four:
        shown = four if name < "site-03" else plan.cohort
        sites[name].mask({each: shares[each] for each in shown}, vectors[name])
    said = {name: sites[name].agree(four) for name in four}
    for name in four:
        with pytest.raises(ProtocolError, match="enough equal statements"):
            sites[name].open(said)


def test_statements_about_another_plan_open_nothing():
    plan, sites, vectors = world()
    other = make_plan(5, counter=7)
    replaying = make_sites(other)
    for each_plan, each in ((plan, sites), (other, replaying)):
        prepared(each_plan, each, vectors)
    said = {name: site.agree(plan.cohort) for name, site in replaying.items()}
    said[LIAR] = sites[LIAR].agree(plan.cohort)
    with pytest.raises(ProtocolError, match="enough equal statements"):
        sites[LIAR].open(said)


def test_openings_of_another_plan_open_nothing():
    plan, sites, vectors = world()
    other = make_plan(5, counter=7)
    replaying = make_sites(other, seed=1)
    prepared(other, replaying, vectors)
    said = {name: site.agree(plan.cohort) for name, site in replaying.items()}

    def forge(phase, site, payload):
        return replaying[site].open(said) if phase == "open" else payload

    with pytest.raises(PolicyError, match="opened good shares"):
        run_sum(plan, sites, vectors, forge=forge)


def test_both_shares_of_one_site_are_never_given():
    plan, sites, vectors = world()
    prepared(plan, sites, vectors)
    survivors = plan.cohort[:-1]
    said = {name: sites[name].agree(survivors) for name in survivors}
    opened = decode(sites[LIAR].open(said), OpenMessage, sender=LIAR)
    assert set(opened.mask_shares) == set(survivors)
    assert set(opened.key_shares) == set(plan.cohort) - set(survivors)
    assert not set(opened.mask_shares) & set(opened.key_shares)


@pytest.mark.parametrize(
    "survivors",
    [
        ("site-01", "site-02", "site-03"),
        ("site-01", "site-03", "site-04", "site-05"),
        ("site-02", "stranger"),
    ],
)
def test_survivors_that_are_too_few_or_not_the_sites_own_view_are_not_signed(survivors):
    plan, sites, vectors = world()
    prepared(plan, sites, vectors)
    with pytest.raises(ProtocolError):
        sites[LIAR].agree(survivors)


def test_statements_of_strangers_or_of_another_list_do_not_count():
    plan, sites, vectors = world()
    prepared(plan, sites, vectors)
    said = {name: sites[name].agree(plan.cohort) for name in plan.cohort}
    few = dict(list(said.items())[:3])
    strangers = {f"stranger-{number}": said[LIAR] for number in range(5)}
    with pytest.raises(ProtocolError, match="enough equal statements"):
        sites[LIAR].open({**few, **strangers})


def test_too_few_shares_or_a_second_list_of_shares_are_refused_before_anything_is_masked():
    plan, sites, vectors = world()
    shares = {name: site.share() for name, site in sites.items()}
    few = {name: shares[name] for name in plan.cohort[:3]}
    with pytest.raises(ProtocolError, match="too few"):
        sites[LIAR].mask(few, vectors[LIAR])
    sites[LIAR].mask(shares, vectors[LIAR])
    four = {name: shares[name] for name in plan.cohort[:4]}
    with pytest.raises(ProtocolError, match="two lists of shares"):
        sites[LIAR].mask(four, vectors[LIAR])


def test_shares_of_another_plan_do_not_open():
    plan, sites, vectors = world()
    old = make_sites(make_plan(5, counter=7))
    replayed = {name: old[name].share() for name in plan.cohort if name != LIAR}
    with pytest.raises(ProtocolError, match="do not fit"):
        sites[LIAR].mask({**replayed, LIAR: sites[LIAR].share()}, vectors[LIAR])


# --- one site


def test_a_restart_gives_the_same_bytes_and_another_vector_is_a_bug():
    plan, sites, vectors = world()
    shares = {name: site.share() for name, site in sites.items()}
    again = make_site(plan, LIAR)
    assert again.share() == shares[LIAR]
    assert again.mask(shares, vectors[LIAR]) == sites[LIAR].mask(shares, vectors[LIAR])
    with pytest.raises(RuntimeError, match="masked before"):
        again.mask(shares, vectors[LIAR] + 1)


def test_a_site_restarted_before_every_step_says_the_same():
    plan, sites, vectors = world()
    opened = run_sum(plan, sites, vectors)
    said = {name: site.agree(plan.cohort) for name, site in sites.items()}
    shares = {name: site.share() for name, site in sites.items()}
    again = make_site(plan, LIAR)
    again.mask(shares, vectors[LIAR])
    assert again.agree(plan.cohort) == said[LIAR]
    assert again.open(said) == sites[LIAR].open(said)
    assert exact_without(opened, vectors)


def test_steps_out_of_order_are_bugs():
    plan, sites, _ = world()
    with pytest.raises(RuntimeError, match="after mask"):
        sites[LIAR].agree(plan.cohort)
    with pytest.raises(RuntimeError, match="after agree"):
        sites[LIAR].open({})
    with pytest.raises(RuntimeError, match="after propose"):
        CoordinatorSum(plan).unmask({})


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(39, dtype=np.int64),
        np.zeros(40, dtype=np.float64),
        np.full(40, (2**31 - 1) // 5 + 1, dtype=np.int64),
        np.full(40, -(2**63), dtype=np.int64),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(vector):
    _, sites, _ = world()
    shares = {name: site.share() for name, site in sites.items()}
    with pytest.raises(ValueError, match=r"vector|value"):
        sites[LIAR].mask(shares, vector)


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("count", [3, 4, 8, 15])
def test_the_largest_values_that_are_accepted_never_leave_the_ring(count, ring_bits):
    plan = make_plan(count, ring_bits=ring_bits)
    room = min(2 ** (ring_bits - 1) - 1, LARGEST) // count
    for value in (room, -room):
        vectors = {name: np.full(plan.length, value) for name in plan.cohort}
        assert (run_sum(plan, make_sites(plan), vectors).vector == count * value).all()
    sites = make_sites(plan)
    shares = {name: site.share() for name, site in sites.items()}
    for value in (room + 1, -room - 1):
        with pytest.raises(ValueError, match="leave the ring"):
            sites[LIAR].mask(shares, np.full(plan.length, value))


def test_a_site_needs_exactly_the_cohorts_keys():
    plan = make_plan(3)
    with pytest.raises(ValueError, match="one pair key"):
        SiteSum(
            plan, site="site-01", pair_keys={"site-02": bytes(32)}, tag_key=TAG_KEY, secrets=SumSecrets.draw()
        )


def test_secrets_are_drawn_afresh_and_never_shown():
    first, second = SumSecrets.draw(), SumSecrets.draw()
    assert first != second
    assert repr(first) == str(first) == "SumSecrets()"
    assert SumSecrets.from_bytes(first.to_bytes()) == first
    assert len({getattr(first, field.name) for field in dataclasses.fields(first)}) == 5
    with pytest.raises(ValueError, match="length"):
        SumSecrets.from_bytes(bytes(159))
