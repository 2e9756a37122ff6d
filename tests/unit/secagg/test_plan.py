import pytest
from pydantic import ValidationError
from simulator.sums import make_plan, names

from fedhealth.errors import ProtocolError
from fedhealth.secagg.plan import MAX_LANES, MAX_LENGTH, SumPlan, threshold_for


@pytest.mark.parametrize(("sites", "threshold"), [(3, 3), (4, 3), (15, 11), (40, 27)])
def test_the_threshold_is_two_thirds_and_one(sites, threshold):
    assert threshold_for(sites) == threshold


@pytest.mark.parametrize("sites", range(3, 200))
def test_one_colluding_site_cannot_help_to_open_two_sums(sites):
    assert 2 * threshold_for(sites) > sites + 1
    assert threshold_for(sites) <= sites


def test_a_plan_survives_the_way_over_the_exchange():
    plan = make_plan(5)
    assert SumPlan.from_bytes(plan.to_bytes()) == plan
    assert SumPlan.from_bytes(plan.to_bytes()).digest == plan.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"cohort": names(2), "threshold": 2, "min_survivors": 2},
        {"cohort": ("b", "a", "c"), "threshold": 3, "min_survivors": 3},
        {"cohort": ("a", "a", "b"), "threshold": 3, "min_survivors": 3},
        {"threshold": 3},
        {"threshold": 5},
        {"min_survivors": 3},
        {"min_survivors": 6},
        {"ring_bits": 3},
        {"ring_bits": 17},
        {"ring_bits": 31},
        {"lanes": -1},
        {"lanes": MAX_LANES + 1},
        {"length": 0},
        {"length": MAX_LENGTH + 1},
        {"counter": -1},
        {"counter": 2**53},
        {"study_digest": "ab"},
        {"purpose": "../update"},
        {"run": "../run-1"},
        {"run": ""},
        {"colour": "blue"},
    ],
)
def test_an_unsafe_plan_is_refused(changes):
    with pytest.raises(ValidationError):
        make_plan(5, **changes)


@pytest.mark.parametrize(
    "field", ["run", "round", "purpose", "step", "attempt", "counter", "length", "lanes"]
)
def test_every_field_is_bound_by_the_digest(field):
    plan = make_plan(5)
    value = getattr(plan, field)
    other = make_plan(5, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert other.digest != plan.digest


def test_the_ring_is_bound_by_the_digest():
    assert len({make_plan(5, ring_bits=bits).digest for bits in (4, 6, 8, 16, 32, 64)}) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b" ",
        lambda data: data.replace(b'"round":1', b'"round": 1'),
        lambda data: data.replace(b'"round":1', b'"round":1.0'),
        lambda data: data.replace(b'"round":1', b'"round":1,"round":1'),
        lambda data: data.replace(b'"round":1', b'"round":9007199254740992'),
        lambda data: data.replace(b'"run-1"', b'"\\ud800"'),
        lambda data: data.replace(b'"run-1"', b'"\xff"'),
        lambda data: data[:-1],
        lambda data: b"",
    ],
)
def test_another_spelling_is_refused(change):
    data = make_plan(5).to_bytes()
    assert change(data) != data
    with pytest.raises(ProtocolError):
        SumPlan.from_bytes(change(data))
