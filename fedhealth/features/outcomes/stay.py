"""The outcomes that the stay itself settles: ``icu_transfer``, ``length_of_stay`` and ``disposition``."""

from fedhealth.features.outcomes.form import ALIVE, OutcomeSql, missing_rules, window_rules
from fedhealth.features.prediction import microseconds
from fedhealth.features.rules import Rule
from fedhealth.features.tables import end_of_day
from fedhealth.features.value_sets import DISPOSITION_CONCEPTS, INTENSIVE_CARE_CONCEPTS, sql_list
from fedhealth.study.outcomes import Disposition, IcuTransfer, LengthOfStay
from fedhealth.study.spec import Study

_IS_ICU = f"visit_detail_concept_id IN {sql_list(INTENSIVE_CARE_CONCEPTS)}"

# A date without a time is the end of that day, but not later than the stay to which it belongs.
_ICU = f"""
SELECT s.episode_id, min(least({end_of_day("visit_detail_start_date", "visit_detail_start_datetime")}, s.ended)) AS began
FROM visit_detail d JOIN member m ON m.visit_id = d.visit_occurrence_id JOIN stay s USING (episode_id)
WHERE {_IS_ICU} GROUP BY s.episode_id
"""


def icu_transfer(outcome: IcuTransfer, study: Study) -> OutcomeSql:
    """Yes or no; a site without one stay in intensive care on record knows nothing of transfers there."""
    return OutcomeSql(
        label="o.began IS NOT NULL",
        rules=(
            Rule(
                "intensive care is on record at the site",
                f"NOT EXISTS (SELECT 1 FROM visit_detail WHERE {_IS_ICU})",
            ),
            ALIVE,
            Rule("not in intensive care by the prediction", "o.began <= c.predicted"),
        ),
        event="o.began",
        facts=_ICU,
    )


def length_of_stay(outcome: LengthOfStay, study: Study) -> OutcomeSql:
    """Days from start to end, or whether they are more than so many; a stay that ends in death counts too."""
    rules = (*missing_rules(outcome.missing_if), ALIVE)
    if outcome.over_days is None:
        return OutcomeSql(label="epoch(c.ended - c.began) / 86400", rules=rules)
    limit = f"c.began + to_microseconds({microseconds(24 * outcome.over_days)})"
    return OutcomeSql(label=f"c.ended > {limit}", rules=(*rules, *window_rules(study, end=limit)))


def disposition(outcome: Disposition, study: Study) -> OutcomeSql:
    """The number of the class; a death in the stay is one, whatever the record says of where the patient went."""
    cases = [
        f"WHEN c.discharged_to IN {sql_list(DISPOSITION_CONCEPTS[name])} THEN {number}"
        for number, name in enumerate(outcome.classes)
        if name != "died"
    ]
    died = outcome.classes.index("died") if "died" in outcome.classes else "NULL"
    label = f"CASE WHEN c.died_in_stay THEN {died} {' '.join(cases)} END"
    return OutcomeSql(
        label=label,
        rules=(ALIVE, Rule("went to one of the classes", f"({label}) IS NULL")),
    )
