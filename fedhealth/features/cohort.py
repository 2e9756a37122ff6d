"""Episodes of stay, index rules and labels: which stays make a row, and what happened after the prediction.

Every episode gets the first rule that excludes it; the rules' order is the order of the attrition table.
"""

from dataclasses import dataclass

import duckdb

from fedhealth.features.attrition import Attrition, Step
from fedhealth.features.value_sets import (
    ACUTE_TRANSFER_CONCEPTS,
    AGAINST_ADVICE_CONCEPTS,
    EXPIRED_CONCEPTS,
    INPATIENT_CONCEPTS,
    sql_list,
)
from fedhealth.study.language import Death, Readmission
from fedhealth.study.spec import Study

# Stays whose next start is within 24 h of the latest end so far are one episode (a transfer chain). A visit
# without an end is still open: whatever starts later belongs to it.
_EPISODES = f"""
CREATE TEMP TABLE episode AS
WITH stay AS (
  SELECT *, coalesce(ended, TIMESTAMP '9999-12-31') AS until
  FROM visit WHERE concept_id IN {sql_list(INPATIENT_CONCEPTS)} AND coalesce(ended >= began, true)
), marked AS (
  SELECT *, max(until) OVER (PARTITION BY person_id ORDER BY began, until, visit_id
                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS so_far
  FROM stay
), chained AS (
  SELECT *, count(*) FILTER (WHERE so_far IS NULL OR began > so_far + INTERVAL 24 HOUR)
              OVER (PARTITION BY person_id ORDER BY began, until, visit_id) AS chain
  FROM marked
)
SELECT min_by(visit_id, (began, until, visit_id)) AS episode_id, person_id, min(began) AS began,
       max(until) AS ended, bool_or(ended IS NULL) AS is_open,
       min_by(is_emergency, (began, until, visit_id)) AS is_emergency,
       min_by(is_planned, (began, until, visit_id)) AS is_planned,
       max_by(discharged_to, (until, began, visit_id)) AS discharged_to
FROM chained GROUP BY person_id, chain
"""

# In-hospital death: the disposition first, then a recorded death within the stay or on its last day.
_STAYS = f"""
CREATE TEMP TABLE candidate AS
WITH joined AS (
  SELECT e.*, {{prediction}} AS predicted, d.died_on, d.died_at, o.until AS observed_until,
         coalesce(p.birth_datetime::DATE,
                  make_date(p.year_of_birth, coalesce(p.month_of_birth, 1),
                            coalesce(p.day_of_birth, 1))) AS born,
         p.gender_concept_id
  FROM episode e JOIN person p USING (person_id)
  LEFT JOIN dead d USING (person_id) LEFT JOIN observed o USING (person_id)
)
SELECT *, date_sub('year', born, began::DATE) AS age,
       coalesce(discharged_to IN {sql_list(EXPIRED_CONCEPTS)}, false)
         OR coalesce(died_on BETWEEN began::DATE AND ended::DATE, false) AS died_in_stay,
       CASE WHEN died_at BETWEEN began AND ended THEN died_at ELSE ended END AS died_in_stay_at
FROM joined
"""

_NEXT_STAY = """
CREATE TEMP TABLE following AS
SELECT c.episode_id, min_by(n.is_planned, n.began) AS is_planned, min(n.began) AS began
FROM candidate c JOIN episode n ON n.person_id = c.person_id AND n.began > c.ended
GROUP BY c.episode_id
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One exclusion: its name in the attrition table, and the SQL condition of the stays that leave."""

    name: str
    leaves: str


def select_cohort(database: duckdb.DuckDBPyConnection, study: Study) -> Attrition:
    """Find the index stays and their labels; leaves them in the table ``index_stay``.

    ``index_stay`` has row_id (0.., in the order of the keyed ids), person_id, episode_id, began,
    predicted, label and what the static features need. Labels are 0 or 1 and never missing: a stay whose
    label cannot be known leaves the cohort with its reason.

    Returns:
      The exact attrition, which stays at the site.
    """
    database.execute(_EPISODES)
    at = study.prediction
    prediction = (
        "e.ended" if at.at == "discharge" else f"e.began + INTERVAL '{_microseconds(at.plus_h or 0)}'"
    )
    database.execute(_STAYS.format(prediction=prediction))
    database.execute(_NEXT_STAY)
    _measured_hours(database)
    rules = (*_index_rules(study), *_exclusions(study), *_outcome_rules(study))
    cases = " ".join(f"WHEN coalesce({rule.leaves}, false) THEN {i}" for i, rule in enumerate(rules))
    database.execute(
        f"""
        CREATE TEMP TABLE decided AS
        SELECT c.*, CASE {cases} ELSE {len(rules)} END AS rule, ({_label(study)})::INTEGER AS label
        FROM candidate c LEFT JOIN following f USING (episode_id) LEFT JOIN measured m USING (episode_id)
        """
    )
    kept = _take(database, study, rules=len(rules))
    return _attrition(database, rules, take=study.cohort.index.take, kept=kept)


def _microseconds(hours: float) -> str:
    return f"{round(hours * 3_600_000_000)} microseconds"


def _measured_hours(database: duckdb.DuckDBPyConnection) -> None:
    """Hours with a value of the series features from admission to prediction, and the longest gap."""
    database.execute(
        """
        CREATE TEMP TABLE measured AS
        WITH times AS (
          SELECT DISTINCT c.episode_id, c.began, c.predicted, v.moment
          FROM candidate c JOIN value v
            ON v.person_id = c.person_id AND v.moment BETWEEN c.began AND c.predicted
        ), gaps AS (
          SELECT *, moment - lag(moment, 1, began) OVER (PARTITION BY episode_id ORDER BY moment) AS before
          FROM times
        )
        SELECT episode_id, count(DISTINCT floor(epoch(moment - began) / 3600)) AS hours,
               greatest(max(epoch(before)), epoch(any_value(predicted) - max(moment))) / 3600 AS gap_h
        FROM gaps GROUP BY episode_id
        """
    )


def _index_rules(study: Study) -> list[Rule]:
    rules = [Rule("the stay has ended", "c.is_open"), Rule("has a birth date", "c.born IS NULL")]
    if study.cohort.age.min is not None:
        rules.append(Rule(f"age at least {study.cohort.age.min}", f"c.age < {study.cohort.age.min}"))
    if study.cohort.age.max is not None:
        rules.append(Rule(f"age at most {study.cohort.age.max}", f"c.age > {study.cohort.age.max}"))
    return rules


def _exclusions(study: Study) -> list[Rule]:
    exclude, rules = study.cohort.exclude, []
    if exclude.stay_under_h is not None:
        limit = _microseconds(exclude.stay_under_h)
        rules.append(
            Rule(f"stays at least {exclude.stay_under_h:g} h", f"c.ended < c.began + INTERVAL '{limit}'")
        )
    if exclude.event_before_h is not None:
        limit, event = _microseconds(exclude.event_before_h), _event_time(study)
        rules.append(
            Rule(f"no event before {exclude.event_before_h:g} h", f"{event} < c.began + INTERVAL '{limit}'")
        )
    if exclude.measured_hours_under is not None:
        hours = exclude.measured_hours_under
        rules.append(Rule(f"measured in at least {hours} h", f"coalesce(m.hours, 0) < {hours}"))
    if exclude.gap_over_h is not None:
        rules.append(
            Rule(
                f"no gap over {exclude.gap_over_h:g} h",
                f"coalesce(m.gap_h, epoch(c.predicted - c.began) / 3600) > {exclude.gap_over_h!r}",
            )
        )
    return rules


def _event_time(study: Study) -> str:
    """SQL for the time of the outcome, NULL where it does not happen."""
    outcome = study.outcome
    if isinstance(outcome, Death) and outcome.within == "stay":
        return "CASE WHEN c.died_in_stay THEN c.died_in_stay_at END"
    if isinstance(outcome, Death):
        return "CASE WHEN c.died_in_stay THEN c.died_in_stay_at ELSE c.died_at END"
    return "f.began"


def _outcome_rules(study: Study) -> list[Rule]:
    outcome = study.outcome
    if isinstance(outcome, Readmission):
        return _readmission_rules(outcome)
    if study.prediction.at == "admission":
        rules = [Rule("still in hospital at the prediction", "c.ended <= c.predicted")]
    else:
        rules = [Rule("alive at the prediction", "c.died_in_stay")]
    rules.append(Rule("no event by the prediction", f"{_event_time(study)} <= c.predicted"))
    if isinstance(outcome, Death) and outcome.within_days is not None:
        unseen = f"{_event_time(study)} IS NULL AND NOT {_followed('c.began', outcome.within_days)}"
        rules.append(Rule(f"followed for {outcome.within_days} days", unseen))
    return rules


def _readmission_rules(outcome: Readmission) -> list[Rule]:
    leaves = {
        "died_in_stay": ("discharged alive", "c.died_in_stay"),
        "left_against_advice": (
            "not against advice",
            f"c.discharged_to IN {sql_list(AGAINST_ADVICE_CONCEPTS)}",
        ),
        "transferred_acute": (
            "not transferred to acute care",
            f"c.discharged_to IN {sql_list(ACUTE_TRANSFER_CONCEPTS)}",
        ),
    }
    rules = [Rule("in hospital until the prediction", "c.ended < c.predicted")]
    rules += [Rule(*leaves[reason]) for reason in outcome.missing_if]
    days = outcome.follow_up_days
    return [*rules, Rule(f"followed for {days} days", f"NOT ({_followed('c.ended', days)})")]


def _followed(start: str, days: int) -> str:
    """SQL: seen for so many days, where death counts as seen."""
    end = f"{start}::DATE + {days}"
    return f"(coalesce(c.observed_until >= {end}, false) OR coalesce(c.died_on <= {end}, false))"


def _label(study: Study) -> str:
    """SQL for the label; NULL never, since unknown ones left by a rule."""
    outcome = study.outcome
    if isinstance(outcome, Readmission):
        # The first stay after discharge decides: if it is planned, later ones in the window do not count.
        within = f"f.began <= c.ended + INTERVAL {outcome.within_days} DAY"
        return f"coalesce({within} AND NOT f.is_planned, false)"
    if isinstance(outcome, Death) and outcome.within_days is not None:
        return f"coalesce({_event_time(study)} <= c.began + INTERVAL {outcome.within_days} DAY, false)"
    return "c.died_in_stay"


def _take(database: duckdb.DuckDBPyConnection, study: Study, *, rules: int) -> tuple[int, int, int]:
    """Keep every, the first or the last eligible stay of a patient; returns stays, patients and positives."""
    order = {"every": "0", "first": "began", "last": "began DESC"}[study.cohort.index.take]
    rank = "1" if order == "0" else f"row_number() OVER (PARTITION BY person_id ORDER BY {order}, episode_id)"
    database.execute(
        f"""
        CREATE TEMP TABLE index_stay AS
        SELECT *, row_number() OVER (ORDER BY person_id, episode_id) - 1 AS row_id
        FROM (SELECT *, {rank} AS turn FROM decided WHERE rule = {rules}) WHERE turn = 1
        """
    )
    stays, patients, positives = database.execute(
        "SELECT count(*), count(DISTINCT person_id), coalesce(sum(label), 0) FROM index_stay"
    ).fetchall()[0]
    return int(stays), int(patients), int(positives)


def _attrition(
    database: duckdb.DuckDBPyConnection, rules: tuple[Rule, ...], *, take: str, kept: tuple[int, int, int]
) -> Attrition:
    steps = [Step("inpatient stays", *_count(database, "SELECT person_id FROM decided"))]
    for position, rule in enumerate(rules):
        left = _count(database, f"SELECT person_id FROM decided WHERE rule > {position}")
        steps.append(Step(rule.name, *left))
    if take != "every":
        steps.append(Step(f"the {take} of a patient", kept[0], kept[1]))
    turned = f"concept_id IN {sql_list(INPATIENT_CONCEPTS)} AND ended < began"
    dropped = _count(database, f"SELECT person_id FROM visit WHERE {turned}")[0]
    return Attrition(tuple(steps), positives=kept[2], notes=(("visits that end before they start", dropped),))


def _count(database: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int]:
    stays, patients = database.execute(
        f"SELECT count(*), count(DISTINCT person_id) FROM ({query})"
    ).fetchall()[0]
    return int(stays), int(patients)
