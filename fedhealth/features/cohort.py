"""Which index visits make rows, when, and with what labels.

Every row gets the first rule that excludes it; the rules' order is the order of the attrition table. With one outcome a
row whose label cannot be known leaves; with several it stays as long as one of its labels is known.
"""

import duckdb

from fedhealth.features.attrition import Attrition, Known, Step
from fedhealth.features.episodes import find_stays, visits_that_end_early
from fedhealth.features.outcomes import OutcomeSql, outcome_sql
from fedhealth.features.prediction import make_predictions
from fedhealth.features.rules import Rule, event_rules, exclusions, index_rules, make_facts
from fedhealth.study.spec import Study

_UNITS = {
    "inpatient": "inpatient stays",
    "emergency": "emergency visits",
    "outpatient": "outpatient visits",
    "any": "stays and visits",
}


def select_cohort(database: duckdb.DuckDBPyConnection, study: Study) -> Attrition:
    """Find the rows and their labels; leaves them in the table ``index_stay``.

    ``index_stay`` has row_id (0.., in the order of the keyed ids and the time of the prediction), person_id,
    episode_id, began, ended, predicted, what is known of the person and the stay, and label_0, label_1, ... in the
    order of the study's targets, NULL where a label is not known.

    Returns:
      The exact attrition, which stays at the site.
    """
    find_stays(database, study)
    make_predictions(database, study.prediction)
    joins = make_facts(database, study)
    forms = [outcome_sql(outcome, study) for outcome in study.outcomes.values()]
    for number, form in enumerate(forms):
        _make_outcome(database, form, number=number)
        joins += f" LEFT JOIN outcome_{number} o{number} USING (episode_id, predicted)"
    rules = _one_task(study, forms[0]) if len(forms) == 1 else _several_tasks(study, len(forms))
    cases = " ".join(f"WHEN coalesce({rule.leaves}, false) THEN {i}" for i, rule in enumerate(rules))
    labels = ", ".join(f"{_label(study, form, i)} AS label_{i}" for i, form in enumerate(forms))
    database.execute(
        f"""
        CREATE TEMP TABLE decided AS
        SELECT c.*, CASE {cases} ELSE {len(rules)} END AS rule, {labels} FROM candidate c {joins}
        """
    )
    _take(database, study, rules=len(rules))
    return _attrition(database, study, rules)


def _make_outcome(database: duckdb.DuckDBPyConnection, form: OutcomeSql, *, number: int) -> None:
    """One outcome of every candidate: its label, the first rule by which it is not known, the time of the event."""
    cases = " ".join(f"WHEN coalesce({rule.leaves}, false) THEN {i}" for i, rule in enumerate(form.rules))
    database.execute(
        f"""
        CREATE TEMP TABLE outcome_{number} AS
        SELECT * EXCLUDE (written), CASE WHEN unknown IS NULL THEN written END AS label FROM (
          SELECT episode_id, predicted, CASE {cases} END AS unknown, ({form.label})::DOUBLE AS written,
                 ({form.event or "NULL"})::TIMESTAMP AS event
          FROM candidate c LEFT JOIN ({form.facts}) o USING (episode_id))
        """
    )


def _one_task(study: Study, form: OutcomeSql) -> list[Rule]:
    unknown = [Rule(rule.name, f"o0.unknown = {i}") for i, rule in enumerate(form.rules)]
    return [*index_rules(study), *exclusions(study, event="o0.event"), *unknown]


def _several_tasks(study: Study, tasks: int) -> list[Rule]:
    """An event that comes early costs its own label alone, unless it ends the stay."""
    unknown = " AND ".join(f"o{number}.label IS NULL" for number in range(tasks))
    return [*index_rules(study), *exclusions(study, event=None), Rule("a label is known", unknown)]


def _label(study: Study, form: OutcomeSql, number: int) -> str:
    early = event_rules(study, event=f"o{number}.event") if form.event else []
    cases = " ".join(f"WHEN coalesce({rule.leaves}, false) THEN NULL" for rule in early)
    return f"CASE {cases} ELSE o{number}.label END" if cases else f"o{number}.label"


def _take(database: duckdb.DuckDBPyConnection, study: Study, *, rules: int) -> None:
    """Keep the rows of every, the first or the last eligible stay of a patient, as ``index_stay``."""
    order = {"every": "0", "first": "began", "last": "began DESC"}[study.cohort.index.take]
    rank = "1" if order == "0" else f"dense_rank() OVER (PARTITION BY person_id ORDER BY {order}, episode_id)"
    database.execute(
        f"""
        CREATE TEMP TABLE index_stay AS
        SELECT *, row_number() OVER (ORDER BY person_id, episode_id, predicted) - 1 AS row_id
        FROM (SELECT *, {rank} AS turn FROM decided WHERE rule = {rules}) WHERE turn = 1
        """
    )


def _attrition(database: duckdb.DuckDBPyConnection, study: Study, rules: list[Rule]) -> Attrition:
    visit, take = study.cohort.index.visit, study.cohort.index.take
    steps = [Step(_UNITS[visit], *_count(database, "FROM decided"))]
    for position, rule in enumerate(rules):
        steps.append(Step(rule.name, *_count(database, f"FROM decided WHERE rule > {position}")))
    if take != "every":
        steps.append(Step(f"the {take} of a patient", *_count(database, "FROM index_stay")))
    known = []
    for number, name in enumerate(study.outcomes):
        of = f"FROM index_stay WHERE label_{number} IS NOT NULL"
        known.append(Known(name, *_number(database, f"count(*), count(DISTINCT person_id) {of}")))
    turned = _number(database, f"count(*), 0 FROM ({visits_that_end_early(visit)})")[0]
    return Attrition(tuple(steps), tuple(known), notes=(("visits that end before they start", turned),))


def _count(database: duckdb.DuckDBPyConnection, source: str) -> tuple[int, int]:
    """Stays and patients of some rows."""
    return _number(database, f"count(DISTINCT episode_id), count(DISTINCT person_id) {source}")


def _number(database: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int]:
    first, second = database.execute(f"SELECT {query}").fetchall()[0]
    return int(first), int(second)
