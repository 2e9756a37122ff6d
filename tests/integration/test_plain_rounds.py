"""Rounds whose updates travel in the clear: what comes out, who is kept out, and what a lying coordinator is told."""

from dataclasses import replace

import numpy as np
import pytest
from simulator.network import Network, make_study

from fedhealth.errors import PolicyError
from fedhealth.rounds.aggregate import Aggregate, read_aggregate
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.objects import address_of, sum_key
from fedhealth.rounds.plain import PlainUpdates

FIVE = tuple(f"hospital-{number:02d}" for number in range(1, 6))
LIAR = FIVE[1]
LOCAL = {"mode": "local", "epsilon": 8.0}


def finished(folder, *, lies=None, allow=True, **sections):
    """A run of five sites."""
    network = Network(folder, make_study(**sections), sites=FIVE, lies=lies)
    if allow:
        network.allow_plain()
    network.coordinator.start_run(network.study, run="run-1", seed=7)
    threads, outcomes, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    return network, closed, outcomes, errors


def update_of(network, number=1):
    found = read_aggregate(network.coordinator.board, "coordinator", "run-1", number)
    return {name: found.tensors[name] for name in network.coordinator.progress("run-1").weights(number)}


def flat(update):
    return np.concatenate([update[name].ravel() for name in sorted(update)])


def times(factor):
    """The update times a factor, within the public bound; the weight at its end stays."""

    def lie(vector):
        bound = 2**31 // (8 * len(FIVE))
        return np.append(np.clip(vector[:-1] * factor, -bound, bound), vector[-1])

    return lie


def test_the_mean_of_updates_in_the_clear_is_that_of_masked_ones_bit_for_bit(tmp_path):
    masked, *_ = finished(tmp_path / "masked")
    plain, closed, outcomes, errors = finished(tmp_path / "plain", aggregation={"mode": "plain"})
    assert errors == {}
    assert outcomes == {name: ["done"] * 4 for name in FIVE}
    assert closed[1].survivors["update"] == FIVE
    for number in (1, 2):
        assert flat(update_of(plain, number)).tobytes() == flat(update_of(masked, number)).tobytes()


@pytest.mark.parametrize("robust", ["median", "krum"])
def test_a_rule_keeps_a_reversed_update_out_and_the_mean_does_not(tmp_path, robust):
    honest, *_ = finished(tmp_path / "honest", aggregation={"mode": "plain"})
    lies, wanted = {LIAR: times(-8)}, flat(update_of(honest))
    mean, *_ = finished(tmp_path / "mean", lies=lies, aggregation={"mode": "plain"})
    rule = {"mode": "plain", "robust": robust, "min_sites": 5}
    kept, _, outcomes, errors = finished(tmp_path / "rule", lies=lies, aggregation=rule)
    assert errors == {}
    assert outcomes[LIAR] == ["done"] * 4
    assert wanted @ flat(update_of(mean)) < 0
    assert wanted @ flat(update_of(kept)) > 0


def test_with_privacy_the_published_update_follows_from_the_signed_objects_alone(tmp_path):
    aggregation = {"mode": "plain", "robust": "geometric_median"}
    network, _, _, errors = finished(tmp_path, privacy=LOCAL, aggregation=aggregation)
    assert errors == {}
    account = network.coordinator.account("run-1")
    shape = network.coordinator.progress("run-1").shape(1)
    plan = network.coordinator._sums("run-1", 1).plan("update", FIVE)
    updates = PlainUpdates(shape=shape, plan=plan, declared=account.declared(1, FIVE))
    board = network.node(FIVE[0]).board
    posted = {
        site: board.read(
            sum_key(plan, "clear", site), kind="clear", sender=site, role="site", **address_of(plan)
        ).payload
        for site in FIVE
    }
    result = updates.result({site: updates.vector(site, payload) for site, payload in posted.items()})
    assert flat(result.tensors).tobytes() == flat(update_of(network)).tobytes()
    assert any("in the clear" in line and "covers it" in line for line in account.privacy().not_covered)


def test_an_update_above_the_public_bound_is_left_out_and_named(tmp_path):
    def beyond(vector):
        return np.append(vector[:-2], [np.int64(2**30), vector[-1]])

    network, closed, outcomes, errors = finished(tmp_path, lies={LIAR: beyond}, aggregation={"mode": "plain"})
    assert errors == {}
    assert "above the public bound" in network.coordinator.blamed[LIAR]
    assert closed[1].survivors["update"] == tuple(site for site in FIVE if site != LIAR)
    assert outcomes[LIAR][1] == "left_out"


class ShiftsUpdates(CoordinatorNode):
    """A coordinator that publishes another update than the sites' come to."""

    __slots__ = ()

    def close_round(self, run, number):
        path = self._result_path(run, number, "update")
        if path.exists():
            honest = Aggregate.from_bytes(path.read_bytes())
            shifted = {key: array + 1e-4 for key, array in honest.tensors.items()}
            path.write_bytes(replace(honest, tensors=shifted).to_bytes())
        return super().close_round(run, number)


def test_a_coordinator_that_publishes_another_update_is_found_out_by_the_replay(tmp_path):
    network = Network(tmp_path, make_study(aggregation={"mode": "plain"}), sites=FIVE)
    network.coordinator.__class__ = ShiftsUpdates
    network.allow_plain()
    network.coordinator.start_run(network.study, run="run-1", seed=7)
    _, _, errors = network.follow("run-1")
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match="came to"):
        network.run_round("run-1", 1)
    assert any("not what its sums come to" in error.problem for error in errors.values())


def test_sites_whose_policy_requires_masks_sit_out(tmp_path, caplog):
    """The exchange and the coordinator get a code; the key is in the site's log, and among those that the fix lists."""
    with pytest.raises(PolicyError, match="others: policy") as caught:
        finished(tmp_path, allow=False, aggregation={"mode": "plain"})
    assert "require_masks" not in caught.value.problem
    assert (
        "policy.yaml must allow for this one require_masks: false, allowed_studies: [tiny]"
        in caught.value.fix
    )
    told = [record.message for record in caplog.records if "refuses study tiny" in record.message]
    assert len(told) == len(FIVE)
    assert all("its updates are not masked (require_masks)" in text for text in told)
