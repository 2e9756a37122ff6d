"""A second verifier, written from the documentation alone, agrees with the library, and finds every edit."""

import ast
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import verifier
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulator.network import Network, make_study
from verifier.exchange import Refused, Replay, open_exchange, open_object, open_roster

from fedhealth.config import Timeouts
from fedhealth.identity.tag_key import load_or_draw
from fedhealth.rounds import site as site_module
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.rounds.layout import decode_sum

pytestmark = pytest.mark.slow

RUN = "run-1"
STUDY = make_study(training={"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}})
FIVE = tuple(f"hospital-{number:02d}" for number in range(1, 6))
PATIENCE = Timeouts(
    phase_timeout_s=6, ready_timeout_s=20, verify_timeout_s=6, coordinator_timeout_s=20, poll_s=0.005
)


class Consortium:
    """A run that is over, and what every site put into each sum."""

    def __init__(self, folder, *, sites, rounds, dying=None):
        self.network, self.encoded = Network(folder, STUDY, sites=sites, timeouts=PATIENCE), {}
        node = self.network.coordinator
        node.start_run(STUDY, run=RUN, seed=7)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(site_module, "take_part", self._recorded(site_module.take_part))
            threads, _, self.errors = self.network.follow(RUN, dying)
            self.closed = [self.network.run_round(RUN, number) for number in range(rounds)]
            for thread in threads if rounds == 3 else ():
                thread.join(timeout=30)
        self.exchange = folder / "exchange"
        signed = node.board.keys.sign_roster(self.network.roster).to_bytes()
        self.roster = open_roster(signed, digest=self.network.roster.digest)

    def _recorded(self, take_part):
        """``take_part`` as it is; what it encodes is kept here as well."""

        def record(context, plan, *, vector_of, **how):
            def encode(plan):
                vector = vector_of(plan)
                self.encoded[plan.round, plan.purpose, context.site] = vector
                return vector

            return take_part(context, plan, vector_of=encode, **how)

        return record

    def tag_key(self):
        return load_or_draw(self.network.site_folder(FIVE[0]).keys, self.network.roster)

    def plan_digest(self, number, name):
        key = f"runs/{RUN}/sums/{number}/{name}/plan/coordinator"
        return open_object(self.exchange, key, self.roster)[0]["plan"]

    def replayed(self, number, folder=None):
        """Every sum of a round, by ``purpose/step/attempt``."""
        folder = folder or self.exchange
        base = folder / f"runs/{RUN}/sums/{number}"
        found = sorted(path.parent.relative_to(folder).as_posix() for path in base.glob("*/*/*/plan"))
        return {"/".join(name.split("/")[-3:]): Replay(folder, self.roster, name).opened() for name in found}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return Consortium(tmp_path_factory.mktemp("three"), sites=FIVE[:3], rounds=3)


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    dying = {FIVE[-1]: "update/0/0/masked"}
    return Consortium(tmp_path_factory.mktemp("five"), sites=FIVE, rounds=2, dying=dying)


def test_the_verifier_shares_no_code_with_the_library_and_is_short_enough_to_read():
    allowed = {"cryptography", "msgspec", "numpy", *sys.stdlib_module_names}
    paths = list(Path(verifier.__path__[0]).rglob("*.py"))
    assert 0 < sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths) <= 300
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {name.split(".")[0] for name in names} <= allowed


@pytest.mark.parametrize("which", ["three", "five"])
def test_every_sum_replayed_from_the_exchange_is_what_the_sites_encoded_and_the_aggregate_says(
    which, request
):
    run = request.getfixturevalue(which)
    node = run.network.coordinator
    open_exchange(run.exchange, run.roster)
    seen = set()
    for closed in run.closed:
        published = read_aggregate(node.board, "coordinator", RUN, closed.round)
        for name, opened in run.replayed(closed.round).items():
            purpose = name.split("/")[0]
            encoded = sum(run.encoded[closed.round, purpose, site] for site in opened.survivors)
            assert opened.vector.tolist() == encoded.tolist()
            assert opened.is_tagged(run.tag_key(), run.plan_digest(closed.round, name))
            wrong = opened._replace(vector=opened.vector + np.eye(1, len(encoded), dtype=np.int64)[0])
            assert not wrong.is_tagged(run.tag_key(), run.plan_digest(closed.round, name))
            assert opened.survivors == published.survivors[purpose]
            shape = node.progress(RUN).shape(closed.round)
            decoded = decode_sum(
                shape, purpose, opened.vector, cohort=opened.survivors + opened.dropped, declared=None
            )
            assert decoded.metrics.items() <= published.metrics.items()
            for tensor, values in decoded.tensors.items():
                assert np.array_equal(values, published.tensors[tensor], equal_nan=True)
            seen.add((purpose, len(opened.survivors), opened.dropped))
    dropout = ("update", 4, FIVE[-1:])
    assert (dropout in seen) is (which == "five")
    assert {"moments", "evaluation", "update"} == {purpose for purpose, _, _ in seen}


def test_a_sum_is_refused_whose_list_or_shares_are_of_another_plan(three, tmp_path):
    """Valid objects of valid senders, shown in another place."""
    folder = tmp_path / "exchange"
    shutil.copytree(three.exchange, folder)
    sums = folder / "runs" / RUN / "sums" / "1"
    for phase in ("masked", "share", "agree", "open"):
        path, other = (sums / name / "0" / "0" / phase / FIVE[0] for name in ("update", "evaluation"))
        before = path.read_bytes()
        path.write_bytes(other.read_bytes())
        with pytest.raises(Refused):
            three.replayed(1, folder)
        path.write_bytes(before)
    three.replayed(1, folder)


@pytest.fixture(scope="module")
def copied(five, tmp_path_factory):
    """A copy whose objects are edited and put back; and its keys."""
    folder = tmp_path_factory.mktemp("copied") / "exchange"
    shutil.copytree(five.exchange, folder)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return folder, [path for path in paths if not path.startswith(".")]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_edit_of_any_byte_of_any_object_is_found(copied, five, data):
    folder, keys = copied
    path = folder / data.draw(st.sampled_from(keys))
    before = path.read_bytes()
    at, change = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(1, 255))
    path.write_bytes(before[:at] + bytes([before[at] ^ change]) + before[at + 1 :])
    try:
        with pytest.raises(Refused):
            open_exchange(folder, five.roster)
    finally:
        path.write_bytes(before)


def test_the_copy_is_accepted_unedited_and_has_its_rounds_co_signed(copied, five):
    statements, cosigned = open_exchange(copied[0], five.roster)
    assert [each["predicate"].get("round") for each in statements if "round" in each["predicate"]] == [0, 1]
    assert cosigned == len(statements)
