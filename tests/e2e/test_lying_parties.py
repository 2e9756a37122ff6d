"""What must be refused, each against a scripted liar; every party is a process that sees its own folder and an exchange.

Numbers are those of docs/explanation/threat-model.md. A lie ends in a typed error of an honest party, in the blame of the
right one, or in a view that is useless to who lied: never in a wrong sum that is accepted.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from simulator.network import Network, make_study
from simulator.party import COORDINATOR, PATIENCE, Stage, restore, start_server, stop_server, vector_of
from simulator.sums import is_uniform, make_plan
from verifier.exchange import Replay, open_object, open_roster

from fedhealth.exchange import FolderExchange
from fedhealth.rounds.aggregate import read_aggregate, statistics_of

pytestmark = pytest.mark.slow

SITES = tuple(f"hospital-{number}" for number in range(1, 6))
LIAR, VICTIM = SITES[1], SITES[-1]
HASTY = PATIENCE.__class__(
    phase_timeout_s=3, ready_timeout_s=3, verify_timeout_s=6, coordinator_timeout_s=20, poll_s=0.01
)


@pytest.fixture(scope="module")
def server():
    process = start_server()
    yield process
    stop_server(process)


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory, server):
    """Every party with its keys and the pinned roster, and E0 behind them."""
    stage = Stage(tmp_path_factory.mktemp("enrolled"), SITES, server)
    for started in stage.start_sites("join_only").values():
        started.value()
    return stage


@pytest.fixture
def stage(tmp_path, enrolled, server):
    """A copy of it for one test."""
    shutil.copytree(enrolled.folder, tmp_path / "stage", ignore=shutil.ignore_patterns("outcome-*"))
    made = Stage(tmp_path / "stage", SITES, server)
    yield made
    made.stop()


def plan_of(stage, **changes):
    settings = {"cohort": SITES, "roster_digest": stage.roster.digest, "length": 64, **changes}
    return make_plan(len(settings["cohort"]), **settings)


def text(plan):
    return plan.to_bytes().decode()


def prefix(plan):
    return f"runs/{plan.run}/sums/{plan.round}/{plan.purpose}/{plan.step}/{plan.attempt}"


def plan_key(plan):
    return f"{prefix(plan)}/plan/{COORDINATOR}"


def summed(plan, sites=SITES, variants=None):
    return sum(vector_of(site, plan, (variants or {}).get(site, "")) for site in sites).tolist()


def run_honestly(stage, plan, *, lies=None, options=None, timeouts=None):
    """One sum with an honest coordinator; ``lies`` by site. Returns what the coordinator got, and the sites."""
    sites = {
        name: stage.start(
            name,
            "answer_sums",
            keys=[plan_key(plan)],
            lie=(lies or {}).get(name),
            **(options or {}).get(name, {}),
        )
        for name in SITES
    }
    hub = stage.start(COORDINATOR, "run_sums", plans=[text(plan)], timeouts=timeouts)
    return hub, sites


def test_honest_parties_in_processes_of_their_own_open_the_sum(stage):
    plan = plan_of(stage)
    hub, sites = run_honestly(stage, plan)
    (opened,) = hub.value()
    assert opened == {"vector": summed(plan), "survivors": list(SITES), "blamed": {}}
    assert all(started.value() == [True] for started in sites.values())


# --- 1


def views_of(stage):
    """A view of the exchange for each party, as the exchange is so far."""
    views = {name: stage.view(name) for name in SITES}
    for view in views.values():
        shutil.copytree(stage.exchange, view)
    return {name: str(view) for name, view in views.items()}


@pytest.mark.parametrize("signs", [COORDINATOR, LIAR])
def test_1_a_key_that_a_relay_swapped_is_refused(stage, signs):
    """The store shows the victim key material of an earlier site that another party made and signed."""
    key = f"epochs/{stage.roster.digest}/kem/{SITES[0]}"
    (stage.exchange / key).unlink()
    board = stage.board(signs, exchange=stage.folder / "forged")
    own = f"epochs/{stage.roster.digest}/kem/{signs}"
    board.post(own, kind="kem", payload=FolderExchange(stage.exchange).get(own) if signs == LIAR else b"{}")
    (stage.exchange / key).write_bytes((stage.folder / "forged" / own).read_bytes())
    problem = stage.start(VICTIM, "join_only").problem("ProtocolError")
    assert "has another" in problem


def test_1_a_roster_in_which_the_coordinator_swapped_a_key_is_refused(stage, tmp_path):
    """The coordinator signs a second roster, with a key of its own in the place of a site's."""
    mine = Stage(tmp_path / "other", (SITES[0],), stage.server).keys[SITES[0]].public
    parties = [each for each in stage.roster.parties if each.name != SITES[0]]
    swapped = type(stage.roster).of([*parties, mine])
    signed = stage.keys[COORDINATOR].sign_roster(swapped)
    (stage.folder / VICTIM / "roster.json").write_bytes(signed.to_bytes())
    assert "not the pinned" in stage.start(VICTIM, "join_only").problem("ProtocolError")


# --- 2, 3


def test_2_after_one_kind_of_share_of_a_site_the_other_kind_is_not_given(stage):
    """When the sum is open, the store forgets the list of survivors, and the coordinator asks again without the victim."""
    plan = plan_of(stage)
    hub, sites = run_honestly(stage, plan)
    hub.value(), [started.value() for started in sites.values()]
    for old in (f"masked/{COORDINATOR}", "agree", "open"):
        path = stage.exchange / prefix(plan) / old
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    stage.start(COORDINATOR, "ask_again", plan=text(plan), without=VICTIM).value()
    asked = {name: stage.start(name, "answer_sums", keys=[plan_key(plan)]) for name in SITES[:-1]}
    for started in asked.values():
        assert "two lists of sites" in started.problem("ProtocolError")
    assert not (stage.exchange / prefix(plan) / "open").exists()


@pytest.mark.parametrize("phase", ["share", "masked"])
def test_3_two_lists_shown_to_different_sites_open_nothing(stage, phase):
    plan, views = plan_of(stage), views_of(stage)
    keeps = f"(share|masked|agree)/{COORDINATOR}$"
    stage.start("store", "relay", views=[str(stage.exchange), *views.values()], keeps=keeps)
    sites = {
        name: stage.start(name, "answer_sums", keys=[plan_key(plan)], exchange=views[name]) for name in SITES
    }
    lie = {"phase": phase, "victim": VICTIM, "blind": SITES[:2]}
    hub = stage.start(COORDINATOR, "split_lists", plan=text(plan), views=views, **lie)
    for name, started in sites.items():
        if (name, phase) == (VICTIM, "share"):
            assert started.value() == [False]
        else:
            assert "enough equal statements" in started.problem("ProtocolError")
    assert hub.value() == []


# --- 4, 7, 15: above the sums


PRIVATE = make_study(privacy={"mode": "local", "epsilon": 4.0})
STUDY = make_study(aggregation={"quorum": 0.8}, training={"rounds": 1, "local": {"epochs": 1}})
RUN = "run-1"


@pytest.fixture
def loaded(stage):
    """Every site has rows of its own."""
    Network(stage.folder, STUDY, sites=SITES)
    return stage


def run_whole_rounds(stage, *, rounds, lies=(), study=STUDY, lying=None):
    """Rounds, with the coordinator's lies, and of the sites by name."""
    sites = {
        name: stage.start(name, "follow", run=RUN, rounds=rounds, lie=(lying or {}).get(name))
        for name in SITES
    }
    options = {"study": study.canonical().decode(), "run": RUN, "rounds": rounds, "lies": lies}
    return stage.start(COORDINATOR, "run_rounds", **options), sites


def test_honest_parties_go_through_whole_rounds(loaded):
    hub, sites = run_whole_rounds(loaded, rounds=2)
    told = hub.value()
    assert [set(map(tuple, each["survivors"].values())) for each in told] == [{SITES}, {SITES}]
    assert all(started.value() == ["done", "done"] for started in sites.values())


TINY = {"cohort": SITES[:3], "threshold": 3, "min_survivors": 3}
TWO = {"cohort": SITES[:2], "threshold": 2, "min_survivors": 2}
SYBIL = {"cohort": sorted((*SITES[:3], "stranger-1", "stranger-2")), "threshold": 4, "min_survivors": 4}
OTHER = make_study(model={"kind": "mlp", "hidden": [9], "dropout": [0.1]})


@pytest.mark.parametrize(
    ("kind", "number", "changes", "problem"),
    [
        pytest.param("plan", 0, TINY, "fewer sites than its study asks for", id="4-tiny-cohort"),
        pytest.param("plan", 0, TWO, "malformed or unsafe", id="4-two-sites"),
        pytest.param("plan", 0, SYBIL, "not in the roster", id="4-sybils"),
        pytest.param("plan", 0, {"threshold": 3}, "malformed or unsafe", id="4-low-threshold"),
        pytest.param("plan", 0, {"counter": 1, "attempt": 1}, "in attempt, counter", id="8-second-attempt"),
        pytest.param(
            "manifest", 1, {"model_digest": "ab" * 32}, "not the last aggregate's", id="7-trap-weights"
        ),
        pytest.param("plan", 1, {"model_digest": "ab" * 32}, "in model_digest", id="6-other-model"),
        pytest.param(
            "manifest", 1, {"study_digest": OTHER.digest}, "another study than its run", id="7-architecture"
        ),
        pytest.param("plan", 1, {"length": 9}, "in length", id="7-other-layout"),
        pytest.param("plan", 0, {"ring_bits": 32}, "in ring_bits", id="15-small-ring"),
        pytest.param("plan", 0, {"ring_bits": 4}, "in ring_bits", id="15-ring-that-wraps"),
        pytest.param("plan", 0, {"ring_bits": 3}, "malformed or unsafe", id="15-tiny-ring"),
        pytest.param(
            "manifest", 0, {"purposes": ["update"]}, "sums that its study does not", id="15-other-sums"
        ),
    ],
)
def test_4_6_7_8_15_a_plan_or_manifest_that_departs_from_the_study_is_refused(
    loaded, kind, number, changes, problem
):
    hub, sites = run_whole_rounds(loaded, rounds=number + 1, lies=[(kind, number, changes)])
    for name in set(sites) & set(changes.get("cohort", SITES)):
        assert problem in sites[name].problem("ProtocolError")
    assert not list(loaded.exchange.glob(f"runs/{RUN}/sums/{number}/*/*/*/masked/hospital-*"))
    assert not hub.outcome.exists()


def test_15_a_study_that_was_exchanged_for_another_is_refused(loaded):
    """The manifest names the digest of a study; under its key stands one with more epsilon."""
    weaker = json.loads(PRIVATE.canonical())["privacy"] | {"epsilon": 9.9}
    _, sites = run_whole_rounds(loaded, rounds=1, lies=[("study", 0, {"privacy": weaker})], study=PRIVATE)
    for started in sites.values():
        assert "not the one the manifest names" in started.problem("ProtocolError")


@pytest.mark.parametrize(
    "weaker",
    [
        pytest.param({"privacy": {"mode": "none", "legal_basis": "because"}}, id="no-noise"),
        pytest.param({"privacy": {"mode": "local", "epsilon": 10.5}}, id="too-little-noise"),
        pytest.param({"aggregation": {"mode": "plain"}}, id="no-masks"),
        pytest.param({"aggregation": {"ring_bits": 6}}, id="small-ring"),
        pytest.param({"aggregation": {"colluders": 0}}, id="no-colluders-withstood"),
    ],
)
def test_15_a_study_that_protects_less_is_not_answered(loaded, weaker):
    """The coordinator may sign any study; what a site does is its own policy's."""
    floors = 'allow_without_privacy: ["public synthetic data"]\nmin_ring_bits: 32\nmin_colluders: 1\n'
    for name in SITES:
        (loaded.folder / name / "policy.yaml").write_text(floors)
    hub, sites = run_whole_rounds(loaded, rounds=1, study=make_study(**weaker))
    assert all(started.value() == ["abstained"] for started in sites.values())
    assert "policy" in hub.problem("PolicyError")
    assert not (loaded.exchange / "runs" / RUN / "sums").exists()


# --- 5


def test_5_a_plan_replayed_in_another_place_is_refused(stage):
    """The store copies the signed plan of one round to where the next one's is expected."""
    plan, later = plan_of(stage, counter=7), plan_of(stage, round=2, counter=8)
    hub, sites = run_honestly(stage, plan)
    hub.value(), [started.value() for started in sites.values()]
    path = stage.exchange / plan_key(later)
    path.parent.mkdir(parents=True)
    path.write_bytes((stage.exchange / plan_key(plan)).read_bytes())
    for started in stage.start_sites("answer_sums", keys=[plan_key(later)]).values():
        assert "has another key than expected" in started.problem("ProtocolError")


def test_5_a_counter_that_was_rolled_back_is_refused(stage):
    plan, back = plan_of(stage, counter=7), plan_of(stage, round=2, counter=6)
    hub = stage.start(COORDINATOR, "run_sums", plans=[text(plan), text(back)])
    for started in stage.start_sites("answer_sums", keys=[plan_key(plan), plan_key(back)]).values():
        assert "rolled its counter back" in started.problem("ProtocolError")
    assert not (stage.exchange / prefix(back) / "share").exists()
    assert hub.outcome.exists() is False


def snapshot_of_victim(stage):
    shutil.copytree(stage.folder / VICTIM, stage.folder / "snapshot")
    return stage.folder / "snapshot"


def test_5_a_site_restored_from_an_old_snapshot_stops(stage):
    """It has forgotten the secrets of the shares that it posted."""
    plan, snapshot = plan_of(stage), snapshot_of_victim(stage)
    hub, sites = run_honestly(stage, plan)
    hub.value(), [started.value() for started in sites.values()]
    restore(snapshot, stage.folder / VICTIM)
    problem = stage.start(VICTIM, "answer_sums", keys=[plan_key(plan)]).problem("ProtocolError")
    assert "journal is not the one" in problem


def forget(stage, plan, *, phases):
    """The store loses the victim's objects and all that came after them."""
    for phase in phases:
        for name in (VICTIM, COORDINATOR):
            (stage.exchange / prefix(plan) / phase / name).unlink(missing_ok=True)
    for phase in ("agree", "open"):
        shutil.rmtree(stage.exchange / prefix(plan) / phase)


def test_5_a_site_restored_from_an_old_snapshot_gets_no_second_sum_from_the_others(stage):
    """The store has lost what the site posted, so it answers anew, over other rows: two sums would tell the difference."""
    plan, snapshot = plan_of(stage), snapshot_of_victim(stage)
    hub, sites = run_honestly(stage, plan)
    hub.value(), [started.value() for started in sites.values()]
    restore(snapshot, stage.folder / VICTIM)
    forget(stage, plan, phases=("share", "masked"))
    again, others = run_honestly(stage, plan, options={VICTIM: {"variant": "a patient more"}}, timeouts=HASTY)
    for name in SITES[:-1]:
        assert "two lists of sites in phase share" in others[name].problem("ProtocolError")
    assert "are needed" in again.problem("PolicyError")


# --- 6, 8


def test_6_sites_that_are_sent_different_models_cannot_be_summed(stage):
    """Every seed is bound to the plan, and the plan to the model that the site itself has verified."""
    views = views_of(stage)
    plans = {name: plan_of(stage, model_digest=("cd" if name < SITES[3] else "ef") * 32) for name in SITES}
    keeps = f"(plan|share)/{COORDINATOR}$"
    stage.start("store", "relay", views=[str(stage.exchange), *views.values()], keeps=keeps)
    sites = {
        name: stage.start(name, "answer_sums", keys=[plan_key(plan)], exchange=views[name])
        for name, plan in plans.items()
    }
    texts = {name: text(plan) for name, plan in plans.items()}
    hub = stage.start(COORDINATOR, "two_plans", plans=texts, views=views)
    for started in sites.values():
        assert "has another plan than expected" in started.problem("ProtocolError")
    assert hub.value() == []


@pytest.mark.parametrize(
    "changes", [{"cohort": SITES[:-1]}, {"attempt": 1}, {"attempt": 1, "cohort": SITES[:-1]}]
)
def test_8_the_same_inputs_are_not_summed_again_over_another_cohort_or_attempt(stage, changes):
    """The store has forgotten the first sum; the sites have not."""
    plan, other = plan_of(stage), plan_of(stage, **changes)
    hub, sites = run_honestly(stage, plan)
    hub.value(), [started.value() for started in sites.values()]
    shutil.rmtree(stage.exchange / "runs")
    stage.start(COORDINATOR, "run_sums", plans=[text(other)])
    for name in other.cohort:
        asked = stage.start(name, "answer_sums", keys=[plan_key(other)])
        assert "second sum under one counter" in asked.problem("ProtocolError")
    assert not (stage.exchange / prefix(other) / "share").exists()


# --- 9


def test_9_a_vector_that_comes_late_is_not_in_the_sum_and_stays_masked(stage):
    """The pair masks of who is late can be rebuilt by then; its own mask, which nobody opens, still hides every bit."""
    plan = plan_of(stage, length=4096)
    hub, sites = run_honestly(stage, plan, options={VICTIM: {"delay_s": 6.0}}, timeouts=HASTY)
    (opened,) = hub.value()
    assert opened["vector"] == summed(plan, SITES[:-1])
    assert sites[VICTIM].value() == [False]
    replay = replay_of(stage, plan)
    assert replay.opened().vector.tolist() == opened["vector"]
    late = replay.shape.words(replay._read("masked", VICTIM))
    for peer, seed in replay._pair_seeds(VICTIM, replay._secret("key", VICTIM)).items():
        stream = replay.shape.mask(seed)
        late += -stream if peer < VICTIM else stream
    assert is_uniform((late[: plan.length] % 2**32).astype("<u4").tobytes())
    assert not is_uniform(vector_of(VICTIM, plan).astype("<i4").tobytes())


def roster_of(stage):
    signed = stage.keys[COORDINATOR].sign_roster(stage.roster).to_bytes()
    return open_roster(signed, digest=stage.roster.digest)


def replay_of(stage, plan):
    return Replay(stage.exchange, roster_of(stage), prefix(plan))


# --- 10


def test_10_garbage_shares_are_blamed_and_the_sum_is_exact(stage):
    plan = plan_of(stage)
    hub, _ = run_honestly(stage, plan, lies={LIAR: "garbage shares"})
    (opened,) = hub.value()
    assert set(opened["blamed"]) == {LIAR}
    assert opened["vector"] == summed(plan)


# --- 16, 17


@pytest.mark.parametrize(
    "lie",
    ["classical signature", "too long", "too short", "one word", "nothing", "floats with NaN"],
)
def test_16_17_a_vector_of_a_wrong_size_or_with_one_signature_is_blamed_and_left_out(stage, lie):
    plan = plan_of(stage)
    hub, _ = run_honestly(stage, plan, lies={LIAR: lie})
    (opened,) = hub.value()
    assert set(opened["blamed"]) == {LIAR}
    assert opened["vector"] == summed(plan, [site for site in SITES if site != LIAR])


# --- 11, 12


@pytest.mark.parametrize("lie", ["other pair mask", "big endian"])
def test_11_17_a_sum_that_a_wrong_mask_or_byte_order_turned_to_noise_is_not_accepted(loaded, lie):
    """Nobody can tell whose mask it was; but no round is made of it, by the coordinator or at a site."""
    hub, _ = run_whole_rounds(loaded, rounds=1, lying={LIAR: lie})
    assert "is noise" in hub.problem("ProtocolError")
    assert not (loaded.exchange / f"runs/{RUN}/rounds/0/aggregate").exists()


@pytest.mark.parametrize("number", [0, 1])
def test_12_an_aggregate_that_is_not_what_the_sums_come_to_is_refused_by_every_site(loaded, number):
    _, sites = run_whole_rounds(loaded, rounds=number + 1, lies=[("aggregate", number, None)])
    for started in sites.values():
        assert "not what its sums come to" in started.problem("ProtocolError")
    assert len(list(loaded.exchange.glob("log/cosignatures/*"))) == number  # of the rounds before


# --- 13, 14, 18


CATEGORIES = make_study(features={"categories": [{"name": "pain", "codes": ["urn:x|pain"]}]})


def test_13_a_row_of_the_model_that_few_people_or_sites_would_touch_does_not_exist(stage):
    """Of all codes those of eleven people at three sites alone are in the vocabulary: no others have weights of their own."""
    network = Network(stage.folder, CATEGORIES, sites=SITES)
    held = {
        "many-at-one": (30,),
        "many-at-two": (15, 15),
        "ten-at-five": (2,) * 5,
        "eleven-at-three": (5, 5, 1),
    }
    for at, site in enumerate(SITES):
        rows, here = network.rows[site], [people[at] if at < len(people) else 0 for people in held.values()]
        levels = np.full(rows.levels.shape, -1, dtype=np.int32)
        persons = np.unique(rows.person[rows.is_training], return_index=True)[1]
        places = np.flatnonzero(rows.is_training)[persons]
        levels[places[: sum(here)], 0] = np.repeat(np.arange(len(held)), here)
        network.give_rows(site, replace(rows, levels=levels, level_names=(tuple(held),)))
    hub, _ = run_whole_rounds(stage, rounds=1, study=CATEGORIES)
    hub.value()
    statistics = statistics_of(read_aggregate(stage.board(), COORDINATOR, RUN, 0))
    assert statistics.vocabulary == {"pain": ("eleven-at-three",)}


def seen_of(stage, study):
    """What everybody sees of one site in a run: of each object its kind and size, and what is in the clear of its data."""
    hub, _ = run_whole_rounds(stage, rounds=1, study=study)
    hub.value()
    sizes, clear = {}, {}
    for key in FolderExchange(stage.exchange).list():
        if LIAR in key.split("/") and not key.startswith("log/"):
            header, payload = open_object(stage.exchange, key, roster_of(stage))
            sizes[key] = header["kind"], header["payload_bytes"]
            if header["kind"] in ("ready", "approval", "quality"):
                told = json.loads(payload)
                clear[key] = {**told, "consent": {**(told.get("consent") or {}), "commitment": ""}}
    return sizes, clear


def test_18_how_many_patients_a_site_has_is_not_in_what_it_sends_beyond_a_bucket(stage, enrolled, tmp_path):
    stages = [stage]
    for number in range(2):
        shutil.copytree(enrolled.folder, tmp_path / f"{number}", ignore=shutil.ignore_patterns("outcome-*"))
        stages.append(Stage(tmp_path / f"{number}", SITES, stage.server))
    seen = []
    for each, fewer in zip(stages, (0, 1, 40), strict=True):
        network = Network(each.folder, PRIVATE, sites=SITES)
        rows = network.rows[LIAR]
        network.give_rows(LIAR, rows.where(np.arange(len(rows.person)) >= fewer))
        seen.append(seen_of(each, PRIVATE))
    (first, clear), (second, also_clear), (_, of_half) = seen
    assert first == second
    assert clear == also_clear
    assert clear != of_half
