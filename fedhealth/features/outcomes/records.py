"""The outcomes ``condition`` and ``observation``: what is written down of somebody after the prediction."""

from fedhealth.features.matching import has_code, has_value, is_established
from fedhealth.features.outcomes.form import ALIVE, OutcomeSql, followed, window_rules
from fedhealth.features.rules import Rule
from fedhealth.features.tables import end_of_day
from fedhealth.features.value_sets import sql_list
from fedhealth.study.outcomes import ConditionOutcome, ObservationOutcome
from fedhealth.study.spec import Study
from fedhealth.vocabulary.concepts import CONDITION_REFUTED

# A number or a laboratory result is a row of measurement, anything else that was observed one of observation.
OBSERVED = f"""
SELECT person_id, observation_source_value AS code, observation_concept_id AS concept, value_as_string AS text,
       value_as_number AS number, value_as_concept_id AS value_concept,
       {end_of_day("observation_date", "observation_datetime")} AS moment
FROM observation
UNION ALL
SELECT person_id, measurement_source_value, measurement_concept_id, value_source_value, value_as_number,
       value_as_concept_id, {end_of_day("measurement_date", "measurement_datetime")}
FROM measurement
"""
"""SQL for everything that was observed: person_id, code, concept, text, number, value_concept, moment."""

_FACTS = """
WITH record AS ({records})
SELECT s.episode_id, min(r.moment) FILTER (r.is_positive) AS event,
       max(r.moment) FILTER (r.is_negative AND r.moment < {end}) AS negative_at
FROM stay s JOIN record r ON r.person_id = s.person_id AND r.moment >= s.began
GROUP BY s.episode_id
"""


def condition(outcome: ConditionOutcome, study: Study) -> OutcomeSql:
    """Yes where it is confirmed in the window, else no where it is refuted there, or by silence if the study says so."""
    status = "condition_status_concept_id"
    refuted = f"coalesce({status} IN {sql_list((CONDITION_REFUTED,))}, false)"
    coded = has_code(
        outcome.codes, text="condition_source_value", concept="condition_concept_id", field="condition"
    )
    records = f"""
SELECT person_id, {end_of_day("condition_start_date", "condition_start_datetime")} AS moment,
       {is_established(status)} AS is_positive, {refuted} AS is_negative
FROM condition_occurrence WHERE {coded}"""
    return _recorded(
        records,
        study,
        days=outcome.within_days,
        words="confirmed or refuted",
        silence_counts=outcome.unrecorded == "negative",
    )


def observation(outcome: ObservationOutcome, study: Study) -> OutcomeSql:
    """Yes where a positive value is on record in the window, else no where a negative one is."""
    positive, negative = (
        has_value(values, text="text", number="number", concept="value_concept")
        for values in (outcome.positive, outcome.negative)
    )
    coded = has_code(outcome.codes, text="code", concept="concept", field="measurement")
    records = f"""
SELECT person_id, moment, {positive} AS is_positive, {negative} AS is_negative
FROM ({OBSERVED}) WHERE {coded}"""
    return _recorded(records, study, days=outcome.within_days, words="observed", silence_counts=False)


def _recorded(records: str, study: Study, *, days: int, words: str, silence_counts: bool) -> OutcomeSql:
    """The first positive record from the start of the stay on is the event, also where it comes too early."""
    is_positive, is_negative = f"o.event < {_end('c', days)}", "o.negative_at > c.predicted"
    known = f"coalesce({is_positive}, false) OR coalesce({is_negative}, false)"
    rule = Rule(f"{words} within {days} days", f"NOT ({known})")
    if silence_counts:
        rule = Rule(f"{words}, or followed for {days} days", f"NOT ({known} OR {followed('c.began', days)})")
    return OutcomeSql(
        label=f"coalesce({is_positive}, false)",
        rules=(
            ALIVE,
            Rule("no event by the prediction", "o.event <= c.predicted"),
            *window_rules(study, end=_end("c", days)),
            rule,
        ),
        event="o.event",
        facts=_FACTS.format(records=records, end=_end("s", days)),
    )


def _end(table: str, days: int) -> str:
    """SQL for the end of a window: that of its last day."""
    return f"({table}.began::DATE + {days + 1})::TIMESTAMP"
