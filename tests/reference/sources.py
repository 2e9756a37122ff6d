"""Which source codes and units stay as they came, from docs/reference/harmonisation.md."""

import re
from collections import defaultdict

from reference.codes import STANDARD
from reference.units import MEANS

ENOUGH = 11
ICD10 = (
    *(
        "http://hl7.org/fhir/sid/icd-10-cm",
        "http://hl7.org/fhir/sid/icd-10",
        "http://hl7.org/fhir/sid/icd-10-gm",
    ),
    *("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "http://fhir.de/CodeSystem/dimdi/icd-10-gm"),
    *("urn:oid:2.16.840.1.113883.6.3", "urn:oid:2.16.840.1.113883.6.90"),
)
PCS = (
    *("http://www.cms.gov/Medicare/Coding/ICD10", "http://hl7.org/fhir/sid/icd-10-pcs"),
    "urn:oid:2.16.840.1.113883.6.4",
)
CODES = {
    "visit_occurrence": (
        "visit_source_value",
        "admitted_from_source_value",
        "discharged_to_source_value",
    ),
    "condition_occurrence": ("condition_source_value",),
    "measurement": ("measurement_source_value", "value_source_value"),
    "observation": ("observation_source_value", "value_as_string"),
    "drug_exposure": ("drug_source_value", "route_source_value"),
    "procedure_occurrence": ("procedure_source_value",),
}
UNITS = {"measurement": ("unit_source_value",), "drug_exposure": ("dose_unit_source_value",)}

VERHOEFF_PRODUCT = (
    *("0123456789", "1234067895", "2340178956", "3401289567", "4012395678"),
    *("5987604321", "6598710432", "7659821043", "8765932104", "9876543210"),
)
VERHOEFF_ORDER = (
    *("0123456789", "1576283094", "5803796142", "8916043527"),
    *("9453126870", "4286573901", "2793806415", "7046913258"),
)
BRACES = {
    "{score}",
    "{#}",
    "{count}",
    "{beats}",
    "{beats}/min",
    "{breaths}",
    "{breaths}/min",
    "{ratio}",
    "{INR}",
}
METRIC = (
    *("g", "l", "L", "m", "s", "h", "d", "a", "mol", "eq", "osm", "Pa", "U", "[IU]", "[iU]", "kat", "Hz"),
    *("J", "cal", "V", "A", "N", "Bq", "Gy", "Sv"),
)
PLAIN = (
    *("%", "[pH]", "[IU]", "[iU]", "[degF]", "[in_i]", "[ft_i]", "[lb_av]", "[oz_av]", "[CFU]", "m[Hg]"),
    *("mm[Hg]", "min", "mo", "wk", "Cel", "bar", "K"),
)
ATOMS = {p + unit for p in ("", "da", *"kcdmunpfMG") for unit in METRIC}
ATOMS = {unit + power for unit in ATOMS for power in ("", "2", "3")} | set(PLAIN)


def hide(tables, codes):
    """Replace in the rows what may not stay; returns what stands for each code and each unit."""
    shown_codes, shown_units = {}, {}
    for table, columns in CODES.items():
        for column in columns:
            values = [row for row in tables[table] if "|" in (row[column] or "")]
            shown_codes |= _replace(values, column, lambda value, of: _show_code(value, of, codes))
    for table, columns in UNITS.items():
        for column in columns:
            values = [row for row in tables[table] if row[column] is not None]
            shown_units |= _replace(values, column, lambda unit, of: _show_unit(unit, of, codes))
    return shown_codes, shown_units


def _replace(rows, column, show):
    """Put into each row what is shown; ``of`` says how many patients have a value, or a doubtful code of a system."""
    people = defaultdict(set)
    for row in rows:
        people[row[column]].add(row["person_id"])
    shown = {value: show(value, people) for value in people}
    for row in rows:
        row[column] = shown[row[column]]
    return shown


def _show_code(value, people, codes):
    system, code = value.split("|", 1)
    if not system or _is_known_system(system, codes):
        is_shown_system = True
    else:
        of_system = set().union(*(who for other, who in people.items() if other.split("|")[0] == system))
        has_form = re.fullmatch(r"(http://|https://|urn:)[\w.:/-]{1,120}", system, re.ASCII)
        is_shown_system = bool(has_form) and len(of_system) >= ENOUGH
    if not is_shown_system:
        return "|other"
    if _is_proven(system, code, codes):
        return value
    has_form = re.fullmatch(r"[A-Za-z0-9][\w.+/^:*-]{0,31}", code, re.ASCII)
    return value if has_form and len(people[value]) >= ENOUGH else f"{system}|other"


def _maps(codes):
    return (codes.site, dict.fromkeys(codes.site.values()), *codes.shipped.values())


def _is_known_system(system, codes):
    named = {key[0] for known in _maps(codes) for key in known if key[0]}
    return system in (*STANDARD, *ICD10, *PCS) or system in named


def _is_proven(system, code, codes):
    if any((system, code) in known for known in _maps(codes)):
        return True
    if system == "http://loinc.org":
        return re.fullmatch(r"[0-9]{1,6}-[0-9]", code) is not None and _luhn(code.replace("-", ""))
    if system == "http://snomed.info/sct":
        return re.fullmatch(r"[1-9][0-9]{2,14}(00|10)[0-9]", code) is not None and _verhoeff(code)
    if system in PCS:
        letters = sum(character.isalpha() for character in code)
        return 2 <= letters < len(code) and re.fullmatch(r"[0-9BCDFGHX][0-9A-HJ-NP-Z]{6}", code) is not None
    forms = (
        r"[A-Z][0-9][0-9AB]",
        r"[A-Z][0-9][0-9AB]\.[0-9A-Z]{1,4}",
        r"[A-Z][0-9][0-9AB][0-9X]{1,3}",
        r"[A-Z][0-9][0-9AB][0-9X]{3}[A-Z]",
    )
    return system in ICD10 and any(re.fullmatch(form, code) for form in forms)


def _luhn(digits):
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(sum(int(digit) for digit in str(number)) for number in doubled) % 10 == 0


def _verhoeff(digits):
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(VERHOEFF_PRODUCT[check][int(VERHOEFF_ORDER[place % 8][int(digit)])])
    return check == 0


def _show_unit(unit, people, codes):
    is_named = any(code == unit for known in _maps(codes)[:2] for _, code in known)
    if is_named or unit in BRACES or ("{" not in unit and _is_unit(unit)):
        return unit
    has_form = re.fullmatch(r"[A-Za-z0-9%/*^.µμ°\[\]{}()'_+ -]{1,24}", unit)
    return unit if has_form and len(people[unit]) >= ENOUGH else "other"


def _is_unit(unit):
    spelling = " ".join(unit.strip().lower().split())
    if spelling in MEANS or unit.strip() in (*MEANS.values(), "Hz", "L/L", "10*6/L", "[ft_i]"):
        return True
    atoms = re.split(r"[./]", unit.removeprefix("/"))
    return len(atoms) <= 4 and all(
        atom in ATOMS or re.fullmatch(r"10[*^]-?[0-9]{1,2}", atom) for atom in atoms
    )
