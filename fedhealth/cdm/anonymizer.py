"""Configurations of Microsoft's FHIR anonymizer as an import format: what they ask of dates and of the fields that are loaded.

A rule's FHIRPath selects nodes; the first rule that selects a node, or one around it, decides what becomes of it; what no
rule selects is kept. Of our fields a date is kept, moved or cut to its year, and everything else is kept or dropped: a
method that we do not have (perturb, generalize, substitute, and hashing of what is no id) drops the field. Ids are keyed
in any case. What was decided from a dropped field before (a death by a disposition, an emergency by an origin) stays.

Source: Tools for Health Data Anonymization, docs/FHIR-anonymization.md; configuration-sample.json of its R4 tool.
"""

import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedhealth.cdm.tables import TABLES
from fedhealth.cdm.wards import WARD
from fedhealth.config import Profile
from fedhealth.errors import ConfigError
from fedhealth.fhir.checks import SUBJECTS
from fedhealth.fhir.resources import LOADED, R4_TYPES

PROFILES: tuple[Profile, ...] = ("local-only", "limited-dataset", "safe-harbor")
"""From the mildest to the strictest."""

_DATES = ("date", "dateTime", "instant")
_DATE_METHODS: dict[str, Profile] = {
    "keep": "local-only",
    "dateshift": "limited-dataset",
    "redact": "safe-harbor",
}
_HASHES = ("keep", "cryptohash", "encrypt")


@dataclass(frozen=True, slots=True)
class Anonymizer:
    """What a configuration asks for.

    Attributes:
      profile: the mildest profile that moves dates as much as the configuration does anywhere.
      dropped: (table, column) of what holds no value in the CDM.
      warnings: what is done otherwise than the configuration says.
    """

    profile: Profile
    dropped: frozenset[tuple[str, str]]
    warnings: tuple[str, ...]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    path: str
    method: str


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    dateShiftScope: str = "resource"
    dateShiftFixedOffsetInDays: int | None = None
    enablePartialDatesForRedact: bool = False


class _Configuration(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    fhirPathRules: tuple[_Rule, ...] = Field(min_length=1)
    parameters: _Parameters = _Parameters()


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A field that is loaded: the (name, type) of the nodes that lead to it, and the columns made of it."""

    nodes: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        return ".".join(name for name, _ in self.nodes)


def _field(path: str, table: str = "", columns: str = "") -> _Loaded:
    """``Patient.gender:code`` -> nodes; ``table`` and its columns."""
    first, *rest = path.split(".")
    nodes = [(first, first)] + [(name, kind) for name, _, kind in (part.partition(":") for part in rest)]
    return _Loaded(tuple(nodes), tuple((table, column) for column in columns.split()))


def _coded(path: str, table: str, *stems: str) -> _Loaded:
    """A field of which a concept and a source value are made, ``<stem>_concept_id`` and ``<stem>_source_value``."""
    return _field(path, table, " ".join(f"{stem}_concept_id {stem}_source_value" for stem in stems))


_CODE = "CodeableConcept.coding:Coding.code:code"
_INSIDE = "Encounter.hospitalization:BackboneElement"
_GIVEN = "MedicationAdministration.dosage:BackboneElement"
_PART = "Observation.component:BackboneElement"
_DOSE = "dosageInstruction:Dosage.doseAndRate:Element.dose[x]"
_VALUE = "value_as_number value_source_value operator_concept_id unit_concept_id unit_source_value"
_FIELDS = (
    _coded("Patient.gender:code", "person", "gender"),
    _field("Patient.birthDate:date"),
    _field("Patient.deceased[x]:dateTime"),
    _coded("Patient.extension:Extension", "person", "race", "ethnicity"),
    _coded("Encounter.class:Coding.code:code", "visit_occurrence", "visit"),
    _field("Encounter.class:Coding.code:code", "visit_detail", "visit_detail_concept_id"),
    _field("Encounter.period:Period.start:dateTime"),
    _field("Encounter.period:Period.end:dateTime"),
    _coded(f"{_INSIDE}.admitSource:{_CODE}", "visit_occurrence", "admitted_from"),
    _field(f"{_INSIDE}.admitSource:{_CODE}", "visit_extra", "is_emergency"),
    _coded(f"{_INSIDE}.dischargeDisposition:{_CODE}", "visit_occurrence", "discharged_to"),
    _field(f"Encounter.priority:{_CODE}", "visit_extra", "is_emergency is_planned"),
    _field("Encounter.location:BackboneElement.location:Reference", *WARD),
    _field("Encounter.location:BackboneElement.period:Period.start:dateTime", *WARD),
    _field("Encounter.location:BackboneElement.period:Period.end:dateTime", *WARD),
    _field("Encounter.serviceProvider:Reference", "visit_occurrence", "care_site_id"),
    _field("Encounter.serviceProvider:Reference", "visit_detail", "care_site_id"),
    _field("Patient.managingOrganization:Reference", "person", "care_site_id"),
    _coded(f"Condition.code:{_CODE}", "condition_occurrence", "condition"),
    _field(f"Condition.code:{_CODE}", "condition_occurrence", "condition_source_concept_id"),
    _field(f"Condition.verificationStatus:{_CODE}", "condition_occurrence", "condition_status_concept_id"),
    _field("Condition.onset[x]:dateTime"),
    _field("Condition.recordedDate:dateTime"),
    _field("Condition.abatement[x]:dateTime"),
    _coded(f"Procedure.code:{_CODE}", "procedure_occurrence", "procedure"),
    _field("Procedure.performed[x]:dateTime"),
    _coded(f"Observation.code:{_CODE}", "measurement", "measurement"),
    _coded(f"Observation.code:{_CODE}", "observation", "observation"),
    _field("Observation.value[x]:Quantity.value:decimal", "measurement", _VALUE),
    _field("Observation.value[x]:Quantity.value:decimal", "observation", "value_as_number value_as_string"),
    _field("Observation.value[x]:Quantity.unit:string", "measurement", "unit_source_value"),
    _field(f"Observation.value[x]:{_CODE}", "measurement", "value_as_concept_id value_source_value"),
    _field(f"Observation.value[x]:{_CODE}", "observation", "value_as_concept_id value_as_string"),
    _field("Observation.referenceRange:BackboneElement.low:Quantity.value:decimal", "measurement", "range_low"),
    _field("Observation.referenceRange:BackboneElement.high:Quantity.value:decimal", "measurement", "range_high"),
    _coded(f"{_PART}.code:{_CODE}", "measurement", "measurement"),
    _field(f"{_PART}.value[x]:Quantity.value:decimal", "measurement", _VALUE),
    _field(f"{_PART}.value[x]:{_CODE}", "measurement", "value_as_concept_id value_source_value"),
    _field("Observation.effective[x]:dateTime"),
    _field("Observation.effective[x]:Period.start:dateTime"),
    _field("Observation.issued:instant"),
    _coded(f"Medication.code:{_CODE}", "drug_exposure", "drug"),
    _coded(f"MedicationRequest.medication[x]:{_CODE}", "drug_exposure", "drug"),
    _field("MedicationRequest.authoredOn:dateTime"),
    _field("MedicationRequest.dispenseRequest:BackboneElement.quantity:Quantity.value:decimal", "drug_exposure", "quantity"),
    _coded(f"MedicationRequest.dosageInstruction:Dosage.route:{_CODE}", "drug_exposure", "route"),
    _field(f"MedicationRequest.{_DOSE}:Quantity.unit:string", "drug_exposure", "dose_unit_source_value"),
    _coded(f"MedicationAdministration.medication[x]:{_CODE}", "drug_exposure", "drug"),
    _field("MedicationAdministration.effective[x]:dateTime"),
    _field("MedicationAdministration.effective[x]:Period.start:dateTime"),
    _field(f"{_GIVEN}.dose:Quantity.value:decimal", "drug_exposure", "quantity"),
    _field(f"{_GIVEN}.dose:Quantity.unit:string", "drug_exposure", "dose_unit_source_value"),
    _coded(f"{_GIVEN}.route:{_CODE}", "drug_exposure", "route"),
    *(_field(f"{name}.id:id") for name in LOADED),
    *(_field(f"{name}.subject:Reference.reference:string") for name in SUBJECTS),
    _field("Consent.patient:Reference.reference:string"),
)  # fmt: skip

_ANCHOR = re.compile(
    r"(?:nodesBy(?P<by>Type|Name)\('(?P<what>\w+)'\)|(?P<type>[A-Z]\w*))(?P<tail>(?:\.\w+)*)"
)


@dataclass(frozen=True, slots=True)
class _Selector:
    """A path that is understood: where it starts, and the names that follow."""

    by: str
    what: str
    tail: tuple[str, ...]

    def selects(self, field: _Loaded) -> bool:
        """Whether it selects the field or a node around it."""
        return any(
            self._starts(field, place)
            and len(self.tail) < len(field.nodes) - place
            and all(
                _same(node[0], name) for node, name in zip(field.nodes[place + 1 :], self.tail, strict=False)
            )
            for place in range(len(field.nodes))
        )

    def _starts(self, field: _Loaded, place: int) -> bool:
        name, kind = field.nodes[place]
        if self.by == "Name":
            return place > 0 and _same(name, self.what)
        if self.by == "Type":
            return kind == self.what
        return place == 0 and self.what in (kind, "Resource", "DomainResource")


def _same(node: str, name: str) -> bool:
    """Whether a path's name means a node; of a choice ``value[x]`` both ``value`` and ``valueQuantity`` do."""
    stem = node.removesuffix("[x]")
    return name == stem or (stem != node and name.startswith(stem) and name[len(stem)].isupper())


def read_anonymizer(data: bytes) -> Anonymizer:
    """Read a configuration; its keys are not used, as the site's secret keys everything.

    Raises:
      ConfigError: it is no configuration, it has a path on loaded data that is not understood, or it asks of ids or dates
        what would leave no histories.
    """
    try:
        found = _Configuration.model_validate_json(data)
    except ValidationError:
        raise ConfigError(
            "the anonymizer configuration has no fhirPathRules of path and method",
            "give the JSON file that Microsoft's FHIR anonymizer reads",
        ) from None
    rules = [
        (selector, rule.method.lower())
        for number, rule in enumerate(found.fhirPathRules, 1)
        if (selector := _parse(rule.path, number)) is not None
    ]
    profile: Profile = "local-only"
    dropped, warnings = set[tuple[str, str]](), _about_shifts(found.parameters)
    for field in _FIELDS:
        method = next((method for selector, method in rules if selector.selects(field)), "keep")
        if field.nodes[-1][1] in _DATES and (not field.columns or _moves(method, found.parameters)):
            profile = max(profile, _of_date(field, method, found.parameters), key=PROFILES.index)
        elif not field.columns:
            _check_link(field, method)
        elif method != "keep":
            dropped.update(field.columns)
            warnings.append(f"{field.path} is dropped (the configuration says {_named(method)})")
    return Anonymizer(profile, frozenset(dropped), tuple(dict.fromkeys(warnings)))


def _parse(path: str, number: int) -> _Selector | None:
    """The selector of a path; None if it is about types that are not loaded."""
    match = _ANCHOR.fullmatch(path.strip())
    if match is None:
        begins = re.match(r"[A-Z]\w*", path.strip())
        if begins and begins[0] in R4_TYPES and begins[0] not in (*LOADED, "Medication"):
            return None
        raise ConfigError(
            f"path {number} of the anonymizer configuration is not understood",
            "write it as Type.element, nodesByType('Type').element or nodesByName('name')",
        )
    tail = tuple(match["tail"].split(".")[1:])
    return _Selector(match["by"] or "", match["what"] or match["type"], tail)


def _about_shifts(parameters: _Parameters) -> list[str]:
    warnings = []
    if parameters.dateShiftScope != "patient":
        warnings.append(
            "dateShiftScope is not patient: an offset per resource or file would destroy the intervals between a "
            "person's dates, so they move by one offset a person"
        )
    if parameters.dateShiftFixedOffsetInDays is not None:
        warnings.append("dateShiftFixedOffsetInDays is not used: the offset is secret and a person's own")
    return warnings


def _moves(method: str, parameters: _Parameters) -> bool:
    """Whether a method leaves something of a date."""
    return method in _DATE_METHODS and (method != "redact" or parameters.enablePartialDatesForRedact)


def _of_date(field: _Loaded, method: str, parameters: _Parameters) -> Profile:
    if method not in _DATE_METHODS:
        raise ConfigError(
            f"the anonymizer configuration asks to {_named(method)} {field.path}",
            "use keep, dateShift or redact for dates",
        )
    if method == "redact" and not parameters.enablePartialDatesForRedact:
        raise ConfigError(
            f"the anonymizer configuration leaves nothing of {field.path}",
            "set enablePartialDatesForRedact, or use dateShift",
        )
    return _DATE_METHODS[method]


def _check_link(field: _Loaded, method: str) -> None:
    if method not in _HASHES:
        raise ConfigError(
            f"the anonymizer configuration asks to {_named(method)} {field.path}",
            "use keep or cryptoHash for ids and references: they are keyed",
        )


def _named(method: str) -> str:
    """A method's name, if it is one: anything could stand in a file."""
    known = ("keep", "redact", "dateshift", "cryptohash", "encrypt", "substitute", "perturb", "generalize")
    return method if method in known else "another method"


def empty_value(table: str, column: str) -> str:
    """SQL for what stands in a dropped column: null, or 0 (no matching concept) or false where a value is required."""
    if column.startswith("is_"):
        return "false"
    return "0" if column in TABLES[table].required else "NULL"
