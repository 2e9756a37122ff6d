"""Cox regression over the intervals of a survival target: one Newton step a round, from two secure sums.

    j   interval          G   group of neighbouring intervals, the same for everybody
    x_i prepared inputs of row i, within +-INPUT_LIMIT     n_iG  intervals of G in which row i is at risk
    w_i exp(x_i . beta), x_i . beta within +-RISK_LIMIT    d_G   events in G

    log-likelihood  sum over events x_i . beta - sum_G d_G log S0_G - ridge / 2 |beta|^2      (Breslow)
    S0_G = sum_i n_iG w_i      S1_G = sum_i n_iG w_i x_i      m_G = S1_G / S0_G
    curvature = sum_G d_G / S0_G sum_i n_iG w_i (x_i - m_G)(x_i - m_G)^T
    hazard of interval j for row i = 1 - exp(-h_G w_i),    h_G = d_G / S0_G

At risk in an interval is who lived through it and who had the event in it; who was last seen in it is not.

The first round only counts, by interval, people who had the event. Neighbouring intervals are then joined until every
group has at least ``evaluation.min_cell`` of them: S1 of two groups differs by those who left between, so finer ones
could show the inputs of a single person. Vectors of a round, with c columns and 12 intervals:

    first round   [people who had the event, by interval (12), in PERSON units | 0]
    step 0        [d_G (12) | S0_G (12) | S1_G (12 c) | sum of x over events (c)]; d_G whole, the rest times 2^17
    step 1        [curvature, upper triangle, by rows] times 2^20; it needs m_G and d_G / S0_G, which step 0 opened

**Cuts.** Where x_i . beta is cut, coefficients do not move w_i, and x_i counts as 0 in slopes and curvature.
**No overflow.** w <= e^9, |x| <= 8, n <= 12: a row adds less than 2^36.6 to an entry of step 0, and 40 sites of 2^20
rows less than 2^62. In step 1 a row's weight d_G / S0_G n w is cut at 16 (events of one row in one group), and
|x - m| <= 16: less than 2^32 a group and 2^61 together; a site's own sum over one group is at most 2^52, where float64
is exact.
**Error.** A row's term in S0, S1 and the sum over events is off by at most n 2^-18. Curvature is a sum of products of
integers, so symmetric and positive semidefinite exactly, of sqrt(weight) (x - m) rounded to 2^-10; it only sets the
length of a step, not where the steps lead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.models.stepwise.exact import exact_dot, exact_exp, solve_positive
from fedhealth.models.stepwise.rows import PERSON, TrainingRows
from fedhealth.models.weights import Weights, sorted_weights
from fedhealth.study.columns import FeatureColumn
from fedhealth.study.spec import Study
from fedhealth.study.targets import SURVIVAL_INTERVALS

INPUTS: Literal["raw", "prepared"] = "prepared"

INPUT_LIMIT = 8.0
"""Prepared inputs are cut here, in standard deviations."""

RISK_LIMIT = 9.0
"""The logarithm of a relative risk is cut here."""

STEP_LIMIT = 0.5
"""No coefficient moves further in one round."""

WEIGHT_LIMIT = 16.0
"""The events that the model expects of a row in one group are cut here, in the curvature alone."""

SCALE = 2.0**17
ROOT_SCALE = 2.0**10
"""Of sqrt(weight) (x - m); curvature has its square."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def steps_of(study: Study) -> int:
    """Sums per round: that of the gradient and that of the curvature."""
    return 2


def step_length(study: Study, columns: Sequence[FeatureColumn], *, step: int) -> int:
    """Length of the vector of step 0 or 1."""
    inputs = len(columns)
    return (SURVIVAL_INTERVALS * (2 + inputs) + inputs, inputs * (inputs + 1) // 2)[step]


def initial_model(study: Study, columns: Sequence[FeatureColumn]) -> Weights:
    """Coefficients 0, hazards 0, and no groups yet.

    Returns:
      coefficients (columns,), per standard deviation; baseline (12,), h_G of each interval's group; group (12,),
      the number of each interval's group, -1 before the first round.
    """
    return sorted_weights(
        {
            "baseline": np.zeros(SURVIVAL_INTERVALS, dtype=np.float32),
            "coefficients": np.zeros(len(columns), dtype=np.float32),
            "group": np.full(SURVIVAL_INTERVALS, -1, dtype=np.float32),
        }
    )


def encode_step(
    model: Weights,
    opened: Sequence[Integers],
    rows: TrainingRows,
    *,
    columns: Sequence[FeatureColumn],
    study: Study,
) -> Integers:
    """One site's part of the next sum of a round.

    Guarantees: the vectors of any partition of the rows by person add up to that of all, bit for bit; rows of
    unknown label count nowhere.

    Args:
      model: the round's.
      opened: the sums of the steps before this one, in order.
      rows: inputs prepared, labels 2 * interval + event.
      columns: of the inputs.
      study: the study.

    Returns:
      int64 of `step_length`. Zero rows give zeros.

    Raises:
      DataError: more rows than a sum has room for.
      PolicyError, ProtocolError: as `next_model`, about the opened sums.
      ValueError: shapes do not fit.
    """
    known = rows.known(columns=len(columns))
    vector = np.zeros(step_length(study, columns, step=len(opened)), dtype=np.int64)
    at_risk, has_event = _intervals_of(known.labels)
    if _is_uncounted(model):
        if not opened:
            vector[:SURVIVAL_INTERVALS] = _people_with_events(known, has_event)
        return vector
    groups = _members(model)
    risk, inputs = _relative_risk(known.inputs, model)
    if not opened:
        return _slopes(inputs, risk, at_risk @ groups, has_event @ groups)
    return _curvature(inputs, risk, at_risk @ groups, _read_slopes(opened[0], study, columns))


def next_model(
    model: Weights,
    opened: Sequence[Integers],
    *,
    columns: Sequence[FeatureColumn],
    study: Study,
    number: int,
) -> Weights:
    """The model after a round: its groups after the first, a Newton step after a later one.

    In the last round coefficients stay, and the baseline becomes exactly theirs. A step is shortened until no
    coefficient moves by more than `STEP_LIMIT`, nor the logarithm of the risk by more than one standard deviation
    of 1 over those at risk.

    Guarantees: arithmetic of one fixed order, so everybody who has the same sums gets the same bytes; a hazard tells
    of at least ``evaluation.min_cell`` people who had the event.

    Args:
      model: the round's.
      opened: both sums of the round.
      columns: of the inputs.
      study: the study.
      number: the round, from 1.

    Raises:
      PolicyError: fewer than ``evaluation.min_cell`` people had the event.
      ProtocolError: sums that no rows can have.
      ValueError: another number of sums than a round has.
    """
    if len(opened) != steps_of(study):
        raise ValueError(f"{len(opened)} sums are no round of the study")
    if _is_uncounted(model):
        people = _checked(opened[0], study, columns)[:SURVIVAL_INTERVALS]
        return sorted_weights({**model, "group": _join(people, min_cell=study.evaluation.min_cell)})
    sums = _read_slopes(opened[0], study, columns)
    before = model["coefficients"]
    move = _newton_step(sums, opened[1], before.astype(np.float64), ridge=study.model.ridge)
    is_last = number >= study.training.rounds
    after = before if is_last else (before.astype(np.float64) + move).astype(np.float32)
    hazards = _hazards(sums, moved=after.astype(np.float64) - before.astype(np.float64))
    group = model["group"].astype(np.int64)
    has_enough = (
        sums.events[group] >= study.evaluation.min_cell
    )  # fewer only if sites were lost after round 1
    baseline = np.where(has_enough, hazards[group], model["baseline"])
    return sorted_weights({**model, "coefficients": after, "baseline": baseline})


def score(
    model: Weights, inputs: NDArray[np.float32], *, columns: Sequence[FeatureColumn], study: Study
) -> NDArray[np.float32]:
    """Hazards of rows; a row's are a function of that row and the model alone.

    Args:
      model: of the study.
      inputs: (rows, columns), prepared.
      columns: of the inputs.
      study: the study.

    Returns:
      float32 (rows, 12): per interval the probability that the event comes in it if not before.
    """
    risk, _ = _relative_risk(inputs, model)
    hazards = -np.expm1(-risk[:, None] * model["baseline"].astype(np.float64))
    return np.asarray(hazards, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Slopes:
    """An opened sum of step 0, by group; where there is no event, mean and rate are 0.

    Attributes:
      events: d_G.
      rate: d_G / S0_G.
      mean: m_G, (groups, columns).
      observed: the sum of inputs over events, (columns,).
    """

    events: Floats
    rate: Floats
    mean: Floats
    observed: Floats


def _read_slopes(vector: Integers, study: Study, columns: Sequence[FeatureColumn]) -> _Slopes:
    inputs = len(columns)
    events, risk = _checked(vector, study, columns)[: 2 * SURVIVAL_INTERVALS].reshape(2, SURVIVAL_INTERVALS)
    if ((events > 0) & (risk <= 0)).any():
        raise ProtocolError("an opened sum has events of nobody", "find out which site sent another vector")
    if events.sum() < study.evaluation.min_cell:
        raise _too_few_events()
    has_events = events > 0
    at_risk = np.where(has_events, risk, 1) / SCALE
    mean = vector[2 * SURVIVAL_INTERVALS : -inputs].reshape(-1, inputs) / SCALE / at_risk[:, None]
    return _Slopes(
        events=events.astype(np.float64),
        rate=events / at_risk,
        mean=np.where(has_events[:, None], np.clip(mean, -INPUT_LIMIT, INPUT_LIMIT), 0.0),
        observed=vector[-inputs:] / SCALE,
    )


def _checked(vector: Integers, study: Study, columns: Sequence[FeatureColumn]) -> Integers:
    """An opened sum of step 0, if it has its length and no negative count."""
    if vector.shape != (step_length(study, columns, step=0),):
        raise ValueError(f"a sum of shape {vector.shape} does not fit {len(columns)} columns")
    if (vector[:SURVIVAL_INTERVALS] < 0).any():
        raise ProtocolError(
            "an opened sum counts fewer than nobody", "find out which site sent another vector"
        )
    return vector


def _too_few_events() -> PolicyError:
    return PolicyError("too few people had the event", "widen the horizon or the cohort, or add sites")


def _intervals_of(labels: NDArray[np.float32]) -> tuple[Integers, Integers]:
    """0 or 1 per row and interval: at risk in it, had the event in it."""
    interval, event = np.divmod(labels.astype(np.int64), 2)
    every = np.arange(SURVIVAL_INTERVALS)
    has_event = (every == interval[:, None]) & (event[:, None] > 0)
    return ((every < interval[:, None]) | has_event).astype(np.int64), has_event.astype(np.int64)


def _people_with_events(rows: TrainingRows, has_event: Integers) -> Integers:
    chosen = has_event.any(axis=1)
    own = TrainingRows(rows.inputs[chosen], rows.labels[chosen], rows.person[chosen])
    return np.asarray(own.person_parts() @ has_event[chosen], dtype=np.int64)


def _join(people: Integers, *, min_cell: int) -> NDArray[np.float32]:
    """Number groups of neighbouring intervals, each of at least ``min_cell`` people."""
    if people.sum() < min_cell * PERSON:
        raise _too_few_events()
    group, held, left = np.zeros(len(people), dtype=np.float32), 0, int(people.sum())
    number = 0
    for interval, count in enumerate(people.tolist()):
        group[interval] = number
        held, left = held + count, left - count
        if min(held, left) >= min_cell * PERSON:  # what is left can make a group as well
            number, held = number + 1, 0
    return group


def _is_uncounted(model: Weights) -> bool:
    return bool(model["group"][0] < 0)


def _members(model: Weights) -> Integers:
    """1 where an interval (row) is in a group (column)."""
    return np.asarray(model["group"][:, None] == np.arange(SURVIVAL_INTERVALS), dtype=np.int64)


def _relative_risk(inputs: NDArray[np.float32], model: Weights) -> tuple[Floats, Floats]:
    """w of every row, and x; where the risk is cut, x is 0, for there the coefficients do not move it."""
    limited = np.clip(inputs.astype(np.float64), -INPUT_LIMIT, INPUT_LIMIT)
    total = np.zeros(len(inputs))
    for values, coefficient in zip(limited.T, model["coefficients"].astype(np.float64), strict=True):
        total += values * coefficient  # a matrix product's rounding would depend on the rows around
    is_cut = np.abs(total) >= RISK_LIMIT
    limited[is_cut] = 0.0
    return np.exp(np.clip(total, -RISK_LIMIT, RISK_LIMIT)), limited


def _slopes(inputs: Floats, risk: Floats, at_risk: Integers, has_event: Integers) -> Integers:
    weighted = at_risk.T @ _fixed_point(risk[:, None] * inputs)
    observed = has_event.any(axis=1)
    parts = (
        has_event.sum(axis=0),
        _fixed_point(risk) @ at_risk,
        weighted.ravel(),
        _fixed_point(inputs[observed]).sum(axis=0),
    )
    return np.concatenate(parts)


def _curvature(inputs: Floats, risk: Floats, at_risk: Integers, sums: _Slopes) -> Integers:
    total = np.zeros((inputs.shape[1],) * 2, dtype=np.int64)
    for group in np.flatnonzero(sums.rate):
        chosen = at_risk[:, group] > 0
        weight = np.minimum(sums.rate[group] * at_risk[chosen, group] * risk[chosen], WEIGHT_LIMIT)
        roots = np.rint(np.sqrt(weight)[:, None] * (inputs[chosen] - sums.mean[group]) * ROOT_SCALE)
        total += (roots.T @ roots).astype(np.int64)  # whole numbers below 2^53: exact
    return total[np.triu_indices(len(total))]


def _fixed_point(values: Floats) -> Integers:
    return np.rint(values * SCALE).astype(np.int64)


def _newton_step(sums: _Slopes, triangle: Integers, coefficients: Floats, *, ridge: float) -> Floats:
    """Where Newton's method moves the coefficients, shortened."""
    slope = sums.observed - ridge * coefficients
    for events, mean in zip(sums.events, sums.mean, strict=True):
        slope = slope - events * mean
    move = solve_positive(_unfold(triangle, len(slope)) + ridge * np.eye(len(slope)), slope)
    variance = max(exact_dot(move, slope), 0.0) / float(sums.events.sum())
    longest = max(float(np.abs(move).max()) / STEP_LIMIT, variance**0.5, 1.0)
    return np.asarray(move / longest)


def _unfold(triangle: Integers, inputs: int) -> Floats:
    if triangle.shape != (inputs * (inputs + 1) // 2,):
        raise ValueError(f"a sum of shape {triangle.shape} does not fit {inputs} columns")
    whole = np.zeros((inputs, inputs), dtype=np.int64)
    whole[np.triu_indices(inputs)] = triangle
    return (np.triu(whole) + np.triu(whole, 1).T) / ROOT_SCALE**2


def _hazards(sums: _Slopes, *, moved: Floats) -> Floats:
    """h of every group at the moved coefficients; of second order in the move."""
    return np.array(
        [rate * exact_exp(-exact_dot(mean, moved)) for rate, mean in zip(sums.rate, sums.mean, strict=True)]
    )
