"""Faults of an export, by name: each takes a hospital's resources and gives them back broken in one way.

A fault knows the areas in which it must show: words of which one stands in the code of a finding that names it.
Each is what happens in real exports: a unit relabelled, a clock in another zone, a file sent twice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec

from fedhealth.errors import ConfigError
from fedhealth.synthetic.codes import LOCAL_LABS
from fedhealth.synthetic.dialect import ACT_CODE
from fedhealth.synthetic.packing import Lines

Json = dict[str, Any]
Broken = dict[str, list[bytes]]
Change = Callable[[Json], None]

_GLUCOSE, _CREATININE, _UREA, _CALCIUM = "2345-7", "2160-0", "3094-0", "17861-6"
_SODIUM, _POTASSIUM, _HAEMOGLOBIN = "2951-2", "2823-3", "718-7"
_TEMPERATURE, _SPO2, _HEART_RATE = "8310-5", "59408-5", "8867-4"
_SYSTOLIC, _DIASTOLIC = "8480-6", "8462-4"
_TIMES = ("effectiveDateTime", "performedDateTime", "authoredOn", "onsetDateTime", "recordedDate")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: what it does, and the areas of which a finding must name one."""

    name: str
    apply: Callable[[Lines], Broken]
    areas: tuple[str, ...]


def plant(name: str, lines: Lines) -> Broken:
    """Apply the fault of a name.

    Raises:
      ConfigError: there is none of that name.
    """
    if name not in FAULTS:
        raise ConfigError(f"there is no fault {name}", f"use one of {', '.join(FAULTS)}")
    return FAULTS[name].apply(lines)


def _changed(lines: Lines, changes: Mapping[str, Change]) -> Broken:
    """Change the resources of the given types one by one; the others stay."""
    return {
        kind: [_edit(line, changes[kind]) for line in each] if kind in changes else list(each)
        for kind, each in lines.items()
    }


def _edit(line: bytes, change: Change) -> bytes:
    resource = _read(line)
    change(resource)
    return msgspec.json.encode(resource)


def _read(line: bytes) -> Json:
    return cast(Json, msgspec.json.decode(line))


def _parts(resource: Json) -> Iterator[Json]:
    """An Observation and its components, those with a quantity."""
    yield from (part for part in (resource, *resource.get("component", ())) if "valueQuantity" in part)


def _code(part: Json) -> str:
    return str(part["code"]["coding"][0]["code"])


def _is(part: Json, loinc: str) -> bool:
    return _code(part) in (loinc, LOCAL_LABS.get(loinc))


def _quantities(loinc: str, change: Change) -> Callable[[Lines], Broken]:
    """A fault that changes the quantities of one code."""

    def apply(resource: Json) -> None:
        for part in _parts(resource):
            if _is(part, loinc):
                change(part["valueQuantity"])

    return lambda lines: _changed(lines, {"Observation": apply})


def _label(quantity: Json, unit: str) -> None:
    """Give a quantity a unit, whatever its value is in."""
    for key in ("system", "code"):
        quantity.pop(key, None)
    quantity["unit"] = unit


def _mislabelled(loinc: str, *, unit: str, factor: float) -> Callable[[Lines], Broken]:
    """Values in another unit under the label ``unit``; ``factor`` takes labelled values to that other unit."""

    def change(quantity: Json) -> None:
        if quantity.get("unit", unit) == unit:
            quantity["value"] = round(float(quantity["value"]) * factor, 2)
        _label(quantity, unit)

    return _quantities(loinc, change)


def _scaled(loinc: str, factor: float) -> Callable[[Lines], Broken]:
    def change(quantity: Json) -> None:
        quantity["value"] = round(float(quantity["value"]) * factor, 3)

    return _quantities(loinc, change)


def _fahrenheit_as_celsius(quantity: Json) -> None:
    value = float(quantity["value"])
    quantity["value"] = value if value > 60 else round(value * 9 / 5 + 32, 1)
    _label(quantity, "Cel")


def _swap(one: str, other: str) -> Callable[[Lines], Broken]:
    """Two codes are exchanged."""
    names = {one: other, other: one}
    names |= {LOCAL_LABS[a]: LOCAL_LABS[b] for a, b in ((one, other), (other, one)) if a in LOCAL_LABS}

    def apply(resource: Json) -> None:
        for part in _parts(resource):
            part["code"]["coding"][0]["code"] = names.get(_code(part), _code(part))

    return lambda lines: _changed(lines, {"Observation": apply})


def _shifted(text: str, *, hours: float) -> str:
    moved = datetime.fromisoformat(text.replace("Z", "+00:00")) + timedelta(hours=hours)
    return moved.isoformat(timespec="seconds").replace("+00:00", "Z")


def _events_shifted(lines: Lines) -> Broken:
    """The laboratory's and the wards' clock runs in another zone than the admission desk's."""

    def apply(resource: Json) -> None:
        resource["effectiveDateTime"] = _shifted(resource["effectiveDateTime"], hours=7)

    return _changed(lines, {"Observation": apply})


def _stays_late(lines: Lines) -> Broken:
    """Encounters are entered three days after they began."""

    def apply(resource: Json) -> None:
        resource["period"] = {key: _shifted(text, hours=72) for key, text in resource["period"].items()}

    return _changed(lines, {"Encounter": apply})


def _at_midnight(lines: Lines) -> Broken:
    def apply(resource: Json) -> None:
        for key in _TIMES:
            if key in resource:
                resource[key] = resource[key][:10] + "T00:00:00Z"

    kinds = ("Observation", "Condition", "Procedure", "MedicationRequest", "MedicationAdministration")
    return _changed(lines, dict.fromkeys(kinds, apply))


def _file_twice(lines: Lines) -> Broken:
    return {kind: list(each) * (2 if kind == "Observation" else 1) for kind, each in lines.items()}


def _events_twice(lines: Lines) -> Broken:
    """Every event once more, under another id."""

    def copy(line: bytes) -> bytes:
        resource = _read(line)
        resource["id"] += "-again"
        return msgspec.json.encode(resource)

    return {
        kind: [*each, *map(copy, each)] if kind == "Observation" else list(each)
        for kind, each in lines.items()
    }


def _dead_before_birth(lines: Lines) -> Broken:
    def apply(resource: Json) -> None:
        if "deceasedDateTime" in resource:
            born = str(resource["birthDate"])
            resource["deceasedDateTime"] = f"{int(born[:4]) - 1:04d}{born[4:]}"

    return _changed(lines, {"Patient": apply})


def _one_sex(lines: Lines) -> Broken:
    return _changed(lines, {"Patient": lambda resource: resource.update(gender="female")})


def _a_century_older(lines: Lines) -> Broken:
    def apply(resource: Json) -> None:
        born = str(resource["birthDate"])
        resource["birthDate"] = f"{int(born[:4]) - 100:04d}{born[4:]}".replace("-02-29", "-02-28")

    return _changed(lines, {"Patient": apply})


def _units_lost(lines: Lines) -> Broken:
    def apply(resource: Json) -> None:
        for part in _parts(resource):
            for key in ("unit", "system", "code"):
                part["valueQuantity"].pop(key, None)

    return _changed(lines, {"Observation": apply})


def _never_discharged(lines: Lines) -> Broken:
    return _changed(lines, {"Encounter": lambda resource: resource["period"].pop("end", None)})


def _end_before_start(lines: Lines) -> Broken:
    def apply(resource: Json) -> None:
        resource["period"] = {"start": resource["period"]["end"], "end": resource["period"]["start"]}

    return _changed(lines, {"Encounter": apply})


def _of_the_next_patient(lines: Lines) -> Broken:
    """Each event's encounter is that of the next patient with one."""
    own: dict[str, str] = {}
    for line in lines["Encounter"]:
        resource = _read(line)
        own.setdefault(resource["subject"]["reference"], f"Encounter/{resource['id']}")
    patients = list(own)
    following = dict(zip(patients, (own[each] for each in [*patients[1:], patients[0]]), strict=True))

    def apply(resource: Json) -> None:
        if "encounter" in resource:
            resource["encounter"] = {"reference": following[resource["subject"]["reference"]]}

    return _changed(lines, {"Observation": apply})


def _all_ambulatory(lines: Lines) -> Broken:
    def apply(resource: Json) -> None:
        resource["class"] = {"system": ACT_CODE, "code": "AMB"}

    return _changed(lines, {"Encounter": apply})


def _year_missing(lines: Lines) -> Broken:
    """Nothing of 2024 was exported."""

    def is_there(line: bytes) -> bool:
        resource = _read(line)
        times = (resource[key] for key in _TIMES if key in resource)
        first = next(times, resource.get("period", {}).get("start", ""))
        return not str(first).startswith("2024")

    return {kind: [line for line in each if is_there(line)] for kind, each in lines.items()}


def _truncated(lines: Lines) -> Broken:
    """The file of observations ends after two fifths."""
    return {
        kind: list(each[: len(each) * 2 // 5] if kind == "Observation" else each)
        for kind, each in lines.items()
    }


def _negative(quantity: Json) -> None:
    quantity["value"] = -abs(float(quantity["value"]))


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            "glucose_mmol_as_mg",
            _mislabelled(_GLUCOSE, unit="mg/dL", factor=1 / 18.016),
            ("glucose",),
        ),
        Fault(
            "creatinine_umol_as_mg",
            _mislabelled(_CREATININE, unit="mg/dL", factor=88.4),
            ("creatinine",),
        ),
        Fault("urea_mmol_as_mg", _mislabelled(_UREA, unit="mg/dL", factor=1 / 2.801), ("urea",)),
        Fault(
            "calcium_mmol_as_mg",
            _mislabelled(_CALCIUM, unit="mg/dL", factor=1 / 4.008),
            ("calcium",),
        ),
        Fault(
            "haemoglobin_g_l_as_g_dl",
            _mislabelled(_HAEMOGLOBIN, unit="g/dL", factor=10),
            ("haemoglobin",),
        ),
        Fault("fahrenheit_as_celsius", _quantities(_TEMPERATURE, _fahrenheit_as_celsius), ("temperature",)),
        Fault("spo2_as_fraction", _scaled(_SPO2, 0.01), ("spo2", "oxygen_saturation")),
        Fault("decimal_point_lost", _scaled(_POTASSIUM, 10), ("potassium",)),
        Fault("negative_values", _quantities(_HEART_RATE, _negative), ("heart_rate",)),
        Fault("pressures_swapped", _swap(_SYSTOLIC, _DIASTOLIC), ("systolic", "diastolic")),
        Fault("sodium_potassium_swapped", _swap(_SODIUM, _POTASSIUM), ("sodium", "potassium")),
        Fault("clock_7h_ahead", _events_shifted, ("event_place", "first_event", "event_hour")),
        Fault("all_at_midnight", _at_midnight, ("event_hour", "timestampPrecision", "event_place")),
        Fault("stays_3d_late", _stays_late, ("event_place", "first_event", "withinVisitDates")),
        Fault("file_twice", _file_twice, ("duplicate",)),
        Fault("events_twice", _events_twice, ("event_repeated", "duplicate", "events_per_day")),
        Fault("truncated", _truncated, ("measured:",)),
        Fault("year_missing", _year_missing, ("visit_quarter",)),
        Fault("dead_before_birth", _dead_before_birth, ("death", "Death", "died")),
        Fault("one_sex", _one_sex, ("sex", "ender")),
        Fault("a_century_older", _a_century_older, ("age", "year_of_birth")),
        Fault("units_lost", _units_lost, ("unit", "inferred")),
        Fault("never_discharged", _never_discharged, ("open_encounter", "stay_end", "stay_days")),
        Fault("end_before_start", _end_before_start, ("end_before_start", "StartBeforeEnd")),
        Fault(
            "encounter_of_another_patient", _of_the_next_patient, ("encounter_refused", "visitOfSamePerson")
        ),
        Fault("all_ambulatory", _all_ambulatory, ("visit_class",)),
    )
}
"""Every fault by name."""
