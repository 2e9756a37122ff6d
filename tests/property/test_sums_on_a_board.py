"""Whole sums over a board: exact for whoever is left, whatever is lost, late, doubled, replayed or junk, in any order."""

import tempfile
import threading
import time
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.sums import TAG_KEY, key_of, make_plan, make_vectors, names

from fedhealth.config import Timeouts
from fedhealth.errors import MissingObjectError, PolicyError, ProtocolError, TransportError
from fedhealth.exchange import Board
from fedhealth.exchange.store import different_bytes
from fedhealth.identity import PartyKeys, Roster
from fedhealth.rounds import coordinator_sum
from fedhealth.rounds.coordinator_sum import CoordinatorSumContext, run_sum
from fedhealth.rounds.journal import SiteJournal
from fedhealth.rounds.objects import address_of, sum_key
from fedhealth.rounds.site_sum import SiteSumContext, take_part
from fedhealth.secagg.plan import threshold_for

COORDINATOR = "coordinator"
PHASES = ("share", "masked", "agree", "open")
PATIENCE = Timeouts(phase_timeout_s=200, coordinator_timeout_s=20, poll_s=0.001)


class Gone(BaseException):
    """The process of a site ended."""


class MemoryExchange:
    """Objects in memory, as one party sees them: each may come to its sight some looks later than it was put."""

    def __init__(self, objects, late=None):
        self.objects, self._late = objects, dict(late or {})
        self.is_idle = self.is_over = False

    def put(self, key, data):
        self.is_idle = False
        if self.objects.setdefault(key, data) != data:
            raise different_bytes(key)

    def get(self, key, *, max_bytes=None):
        self.is_idle = False
        if key not in self.objects:
            raise MissingObjectError(f"{key} is not on the exchange", "wait for its sender")
        return self.objects[key]

    def exists(self, key):
        if self.is_over:
            raise Gone
        is_there = key in self.objects
        self.is_idle = not is_there and key.endswith(COORDINATOR)
        looks = self._late.get(key.rsplit("/", 1)[-1], 0) if is_there else 0
        if looks:
            self._late[key.rsplit("/", 1)[-1]] = looks - 1
        return is_there and not looks


class FaultyExchange(MemoryExchange):
    """The store as one site writes to it: in one phase the site dies, or finds another object in the place of its own."""

    def __init__(self, objects, fault, site, old):
        super().__init__(objects)
        self._fault, self._site, self._old = fault, site, old

    def exists(self, key):
        phase, kind = self._fault
        if key.endswith(f"/{phase}/{self._site}") and key not in self._old:
            if kind == "silent":
                raise Gone
            where = "/2/update/0/0/", "/1/update/0/0/"
            self.objects.setdefault(key, b"junk" if kind == "junk" else self._old[key.replace(*where)])
        return super().exists(key)


class Clock:
    """Time that passes only while every living site waits for the coordinator."""

    def __init__(self, sites):
        self._sites, self._now = sites, 0.0
        self.sleep = time.sleep

    def monotonic(self):
        if all(not thread.is_alive() or exchange.is_idle for thread, exchange in self._sites):
            self._now += 1.0
        return self._now


@lru_cache
def enrolled(count):
    with tempfile.TemporaryDirectory() as folder:
        roles = {COORDINATOR: COORDINATOR} | dict.fromkeys(names(count), "site")
        keys = {
            name: PartyKeys.load_or_create(Path(folder) / name, name=name, role=role)
            for name, role in roles.items()
        }
    return keys, Roster.of(each.public for each in keys.values())


@lru_cache
def sum_before(count):
    """What an earlier sum of the same sites left on the exchange."""
    plan = make_plan(count, length=7, round=1, counter=0)
    with tempfile.TemporaryDirectory() as folder:
        return run(plan, make_vectors(plan), Path(folder), {}).objects


def run(plan, vectors, folder, objects, *, faults=None, late=None, again=()):
    """One sum: the coordinator here, every site in a thread. Sites in ``again`` take part twice."""
    keys, roster = enrolled(len(plan.cohort))
    old, told = dict(objects), {}

    def board(name, exchange):
        return Board(exchange, roster, keys[name], clock=lambda: 1.0)

    def site(name, exchange):
        pairs = {peer: key_of("pair", *sorted((name, peer))) for peer in plan.cohort if peer != name}
        context = SiteSumContext(
            board=board(name, exchange),
            journal=SiteJournal(folder / name),
            site=name,
            coordinator=COORDINATOR,
            pair_keys=pairs,
            tag_key=TAG_KEY,
            timeouts=PATIENCE,
        )
        try:
            for _ in range(1 + (name in again)):
                told[name] = take_part(context, plan, vector_of=lambda plan: vectors[name])
        except (ProtocolError, TransportError, Gone) as error:
            told[name] = error

    threads = []
    for name in plan.cohort:
        fault = (faults or {}).get(name)
        exchange = FaultyExchange(objects, fault, name, old) if fault else MemoryExchange(objects)
        threads.append((threading.Thread(target=site, args=(name, exchange), daemon=True), exchange))
    context = CoordinatorSumContext(
        board=board(COORDINATOR, MemoryExchange(objects, late)), coordinator=COORDINATOR, timeouts=PATIENCE
    )
    for thread, _ in threads:
        thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coordinator_sum, "time", Clock(threads))
            opened = run_sum(context, plan)
    except Exception:
        for _, exchange in threads:
            exchange.is_over = True
        raise
    finally:
        for thread, _ in threads:
            thread.join(timeout=30)
    return SimpleNamespace(opened=opened, told=told, objects=objects)


@st.composite
def scenes(draw, most):
    """How many sites; by site the phase and kind of its fault; how late each is seen; who takes part twice."""
    count = draw(st.integers(3, 6))
    order = draw(st.permutations(names(count)))
    broken = order[: draw(most(count))]
    kinds = st.tuples(st.sampled_from(PHASES), st.sampled_from(["silent", "junk", "replayed"]))
    faults = {name: draw(kinds) for name in broken}
    late = {name: draw(st.integers(0, 9)) for name in order}
    again = set(draw(st.lists(st.sampled_from(order), max_size=2))) - set(faults)
    return SimpleNamespace(count=count, faults=faults, late=late, again=again)


@settings(max_examples=25, deadline=None)
@given(scene=scenes(lambda n: st.integers(0, n - threshold_for(n))), seed=st.integers(0, 99))
def test_the_sum_is_exact_over_who_is_left_whatever_is_lost_late_doubled_or_replayed(scene, seed):
    plan = make_plan(scene.count, length=7, round=2, counter=1)
    vectors = make_vectors(plan, seed)
    with tempfile.TemporaryDirectory() as folder:
        ended = run(
            plan,
            vectors,
            Path(folder),
            dict(sum_before(scene.count)),
            faults=scene.faults,
            late=scene.late,
            again=scene.again,
        )
    gone = {name for name, (phase, _) in scene.faults.items() if phase in ("share", "masked")}
    assert set(ended.opened.survivors) == set(plan.cohort) - gone
    assert (ended.opened.vector == sum(vectors[name] for name in ended.opened.survivors)).all()
    assert all(ended.told[name] is True for name in plan.cohort if name not in scene.faults)
    assert not any(ended.told[name] is True for name in scene.faults)


@settings(max_examples=8, deadline=None)
@given(scene=scenes(lambda n: st.integers(n - threshold_for(n) + 1, n)))
def test_one_fault_more_opens_nothing(scene):
    plan = make_plan(scene.count, length=7, round=2, counter=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.raises(PolicyError, match="are needed"),
    ):
        run(plan, make_vectors(plan), Path(folder), dict(sum_before(scene.count)), faults=scene.faults)


@pytest.mark.parametrize("phase", [*PHASES, "plan"])
def test_posting_again_changes_nothing_and_another_sums_object_is_no_post(phase):
    """The first word of a party stands; an object of another sum is not its word."""
    count = 3
    keys, roster = enrolled(count)
    objects = dict(sum_before(count))
    before, after = (make_plan(count, length=7, round=number, counter=number - 1) for number in (1, 2))
    name = COORDINATOR if phase == "plan" else names(count)[0]
    board = Board(MemoryExchange(objects), roster, keys[name], clock=lambda: 2.0)
    said = objects[sum_key(before, phase, name)]
    board.post(sum_key(before, phase, name), kind=phase, payload=b"other", **address_of(before))
    assert objects[sum_key(before, phase, name)] == said
    objects[sum_key(after, phase, name)] = said
    for act in (
        lambda: board.post(sum_key(after, phase, name), kind=phase, payload=b"", **address_of(after)),
        lambda: board.read(
            sum_key(after, phase, name), kind=phase, sender=name, role=keys[name].role, **address_of(after)
        ),
    ):
        with pytest.raises(ProtocolError, match="has another"):
            act()


@pytest.mark.parametrize("phase", PHASES[:3])
def test_a_list_of_another_sum_in_the_place_of_this_sums_stops_everybody(phase):
    plan, before = (make_plan(3, length=7, round=number, counter=number - 1) for number in (2, 1))
    objects = dict(sum_before(3))
    objects[sum_key(plan, phase, COORDINATOR)] = objects[sum_key(before, phase, COORDINATOR)]
    with tempfile.TemporaryDirectory() as folder, pytest.raises(ProtocolError, match="has another"):
        run(plan, make_vectors(plan), Path(folder), objects)
