"""FHIR R4 NDJSON to OMOP tables in plain Python, to be read beside docs/reference/harmonisation.md.

It is what ``fedhealth.cdm`` is tested against: slow, of ordinary functions and dictionaries, and written from the
documentation. It reads NDJSON alone. Bundles, other FHIR versions and the validation of whole resources decide what
is read, not what becomes of it, and are not here. A row has its ``reference``, which is no column of OMOP.
"""

from collections import Counter
from dataclasses import dataclass

from reference.clinical import condition_row, drug_row, procedure_row
from reference.codes import Codes
from reference.events import keep_events, latest_day
from reference.observations import item_row, items
from reference.people import EVENT_DAYS, care_site_row, death_rows, keep_patients, period_rows, person_row
from reference.resources import Extract
from reference.sources import hide
from reference.times import Clock
from reference.visits import keep_encounters, visit_concept, visit_rows, wards_of

CONCEPT = {
    "condition_occurrence": ("condition_concept_id", "condition_source_value"),
    "measurement": ("measurement_concept_id", "measurement_source_value"),
    "observation": ("observation_concept_id", "observation_source_value"),
    "drug_exposure": ("drug_concept_id", "drug_source_value"),
    "procedure_occurrence": ("procedure_concept_id", "procedure_source_value"),
}
KEYED = (*CONCEPT, "person", "visit_occurrence", "visit_detail", "care_site")


@dataclass
class Cdm:
    """What a hospital's resources become: rows by table, and the account of what they left."""

    tables: dict
    left: Counter
    values: Counter
    links: Counter
    unmapped: Counter

    @property
    def id_map(self):
        """(table, id, reference) of every row that is traced."""
        return {
            (table, row[next(iter(row))], row["reference"]) for table in KEYED for row in self.tables[table]
        }


def harmonise(lines, *, secret, settings=None, concept_maps=()):
    """The CDM of NDJSON lines.

    ``settings`` is site.yaml as a dictionary, ``concept_maps`` are the site's maps as JSON objects.
    """
    settings = settings or {}
    clock = Clock(settings.get("time_zone", "UTC"))
    codes = Codes(concept_maps, settings.get("default_class_system", ""))
    extract = Extract(lines, clock)
    keep_patients(extract)
    stays, strangers, foreign = keep_encounters(extract, codes, settings, secret)

    def has_code(resource):
        return codes.match("measurement", resource.get("code", {}).get("coding")) is not None

    wards = wards_of(extract, stays, settings, secret)
    events = keep_events(extract, stays, wards, strangers, foreign, has_code, secret)
    tables, values, links = _event_tables(events, codes, clock, extract, settings, secret)
    day = settings.get("extract_date") or latest_day(stays, tables, EVENT_DAYS)
    patients = extract.kept["Patient"]
    tables["person"] = [person_row(name, patient, clock, secret) for name, patient in patients.items()]
    tables["care_site"] = [care_site_row(name, secret) for name in extract.kept["Organization"]]
    sites = {row["reference"]: row["care_site_id"] for row in tables["care_site"]}
    tables |= visit_rows(stays, wards, sites, clock, day)
    tables["death"] = death_rows(patients, stays, clock)
    tables["observation_period"] = period_rows(tables, day)
    _key_people(tables)
    for _ in extract.kept["Medication"]:
        extract.leave("Medication", "excluded", "read_for_code_only")
    unmapped = _unmapped(tables, stays)
    shown_codes, shown_units = hide(tables, codes)
    return Cdm(tables, extract.left, values, links, _shown(unmapped, shown_codes, shown_units))


def _shown(unmapped, shown_codes, shown_units):
    """The report of codes without a concept, as the CDM shows them."""
    found = Counter()
    for (system, code, unit), n in unmapped.items():
        value = f"{system}|{code}"
        found[_code(shown_codes.get(value, value), shown_units.get(unit, unit))] += n
    return found


def _event_tables(events, codes, clock, extract, settings, secret):
    tables, values, links = {table: [] for table in CONCEPT}, Counter(), Counter()

    def add(table, row, link):
        tables[table].append(row)
        links[table, link] += 1

    for event in events:
        if event.kind == "Condition":
            add("condition_occurrence", condition_row(event, codes, clock), event.link)
        elif event.kind == "Procedure":
            add("procedure_occurrence", procedure_row(event, codes), event.link)
        elif event.kind == "Observation":
            for item in items(event, secret):
                table, row, state = item_row(event, item, codes, settings.get("unit_inference", False))
                values[state] += state not in (None, "source")
                add(table, row, event.link)
        else:
            add("drug_exposure", drug_row(event, codes, clock, extract), event.link)
    return tables, +values, links


def _key_people(tables):
    """Put the key of each person in the place of the id."""
    keys = {row["reference"].removeprefix("Patient/"): row["person_id"] for row in tables["person"]}
    for name, rows in tables.items():
        for row in rows if name != "person" else ():
            for column in ("person_id", "observation_period_id"):
                if column in row:
                    row[column] = keys[row[column]]


def _unmapped(tables, stays):
    """How many rows carry each (system, code, unit) that has no concept."""
    found = Counter()
    for table, (concept, source) in CONCEPT.items():
        for row in tables[table]:
            if row[concept] == 0:
                found[_code(row[source], row.get("unit_source_value"))] += 1
    for stay in stays.values():
        if stay.outer is None:
            if visit_concept(stay) == 0:
                found[_code(stay.visit_class and stay.visit_class.source_value, None)] += 1
            for match in (stay.admitted, stay.discharged):
                if match and match.concept_id == 0:
                    found[_code(match.source_value, None)] += 1
    return found


def _code(source_value, unit):
    system, _, code = (source_value or "|").partition("|")
    return system, code, unit or ""
