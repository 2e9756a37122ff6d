"""Units: what a spelling means, and how a number comes to the unit in which its concept is kept."""

import re

from fedhealth.vocabulary.concepts import MEASUREMENTS, SERIES_CONCEPTS, STATIC_CONCEPTS, UNITS

UCUM = "http://unitsofmeasure.org"

SPELLINGS = {
    "/min": "bpm; beats/min; beats/minute; breaths/min; breaths/minute; insp/min; 1/min; per minute; min-1; /minute",
    "mm[Hg]": "mmhg; mm hg; millimeter of mercury; torr",
    "Cel": "c; cel; degc; deg c; °c; celsius",
    "[degF]": "f; degf; deg f; °f; [degf]; fahrenheit",
    "%": "percent",
    "1": "1; fraction",
    "mg/dL": "mg/dl; mg%",
    "g/dL": "g/dl; gm/dl",
    "g/L": "g/l",
    "mg/L": "mg/l",
    "mmol/L": "mmol/l",
    "meq/L": "meq/l",
    "umol/L": "umol/l; µmol/l; μmol/l; micromol/l",
    "mol/L": "mol/l",
    "10*3/uL": "k/ul; k/µl; k/mcl; thousand/ul; 10^3/ul; x10^3/ul; x10e3/ul; 10*3/ul; 10e3/ul; th/ul",
    "10*9/L": "10*9/l; 10^9/l; x10^9/l; 10e9/l; giga/l",
    "/uL": "/ul; cells/ul; /mm3; cells/mm3",
    "U/L": "iu/l; u/l; [iu]/l",
    "mL": "ml; cc; ml/(24.h); ml/24h; ml/24 h",
    "L": "l",
    "kg": "kg",
    "g": "g",
    "[lb_av]": "lb; lbs; [lb_av]",
    "[oz_av]": "oz; [oz_av]",
    "cm": "cm",
    "m": "m",
    "[in_i]": "in; [in_i]; [in_us]; inches",
    "kPa": "kpa",
}
"""By UCUM code, the spellings that mean it, in small letters."""

MEANS = {spelling: code for code, text in SPELLINGS.items() for spelling in text.split("; ")}

SAME_KIND = {
    "/min": {"/min": 1, "Hz": 60},
    "mm[Hg]": {"mm[Hg]": 1, "kPa": 1 / 0.1333224},
    "%": {"%": 1, "1": 100, "L/L": 100},
    "mg/dL": {"mg/dL": 1, "mg/L": 1 / 10, "g/L": 100},
    "mmol/L": {"mmol/L": 1, "umol/L": 1 / 1000, "mol/L": 1000},
    "g/dL": {"g/dL": 1, "g/L": 1 / 10, "mg/dL": 1 / 1000},
    "10*3/uL": {"10*3/uL": 1, "10*9/L": 1, "/uL": 1 / 1000, "10*6/L": 1 / 1000},
    "mL": {"mL": 1, "L": 1000},
    "kg": {"kg": 1, "g": 1 / 1000, "[lb_av]": 0.45359237, "[oz_av]": 0.45359237 / 16},
    "cm": {"cm": 1, "m": 100, "[in_i]": 2.54, "[ft_i]": 12 * 2.54},
    "Cel": {},
}
"""By the unit that is kept: how much of it is in one of another unit, whatever the substance."""

GRAMS_PER_MOLE = {
    "glucose": 180.16,
    "creatinine": 113.12,
    "urea_nitrogen": 28.01,
    "calcium": 40.08,
    "lactate": 90.08,
    "haemoglobin": 16_114,
}
MOLES_ACCEPTED = {
    "glucose": ("mmol/L",),
    "creatinine": ("umol/L", "mmol/L"),
    "urea_nitrogen": ("mmol/L",),
    "calcium": ("mmol/L", "meq/L"),
    "haemoglobin": ("mmol/L",),
}
MILLIMOLES = {"mmol/L": 1, "umol/L": 1 / 1000, "meq/L": 1 / 2}
"""An equivalent of calcium, which is divalent, is half a mole."""
MONOVALENT = ("sodium", "potassium", "chloride", "bicarbonate")

FEATURE = {
    concept.concept_id: feature
    for group in (SERIES_CONCEPTS, STATIC_CONCEPTS)
    for feature, concepts in group.items()
    for concept in concepts
}
KEPT_IN = {concept_id: concept.unit for concept_id, concept in MEASUREMENTS.items()}
EXACT = {unit for known in SAME_KIND.values() for unit in known}

PLAUSIBLE = """
heart_rate 30 220; systolic_bp 50 250; diastolic_bp 20 160; mean_bp 30 190; respiratory_rate 4 60; temperature 32 42
spo2 50 100; glucose 30 800; creatinine 0.2 20; urea_nitrogen 2 180; sodium 110 180; potassium 1.5 9
chloride 70 140; bicarbonate 5 50; haemoglobin 3 22; white_blood_cells 0.1 100; platelets 5 1500; calcium 4 16
lactate 0.2 25; urine_output 0 3000; weight 2 300; height 40 230; haematocrit 10 70
"""
"""By feature, where a value lies in the unit that is kept."""

RANGES = [entry for line in PLAUSIBLE.strip().splitlines() for entry in line.split(";")]

REPORTED_IN = {
    "Cel": ("Cel", "[degF]"),
    "mm[Hg]": ("mm[Hg]", "kPa"),
    "%": ("%", "1"),
    "g/dL": ("g/dL", "g/L"),
    "mg/dL": ("mg/dL", "mmol/L"),
    "10*3/uL": ("10*3/uL", "/uL"),
    "kg": ("kg", "[lb_av]"),
    "cm": ("cm", "m", "[in_i]"),
    "creatinine": ("mg/dL", "umol/L"),
    "lactate": ("mmol/L", "mg/dL"),
}
"""By feature or else by the unit that is kept, the units in which hospitals report; others in the kept one alone."""


def ucum(spelling):
    """The UCUM code that a spelling means; annotations in braces say nothing."""
    bare = re.sub(r"\{[^}]*\}", "", spelling).strip()
    if bare == "" or bare in EXACT:
        return bare
    return MEANS.get(" ".join(bare.lower().split()), bare)


def site_unit(spelling, system, site_map):
    """A unit after the site's map, whatever system the site gives it there."""
    exact = [site_map.get((system, spelling)), site_map.get(("", spelling))]
    others = [target for (_, code), target in site_map.items() if code == spelling]
    for target in (*exact, *others):
        if target and target[0] == UCUM:
            return ucum(target[1])
    return ucum(spelling)


def factors(concept_id):
    """How the units that a concept accepts come to the one it is kept in: value * factor + shift."""
    kept_in, feature = KEPT_IN[concept_id], FEATURE[concept_id]
    if kept_in == "Cel":
        return {"Cel": (1, 0), "[degF]": (5 / 9, -32 * 5 / 9), "K": (1, -273.15)}
    found = dict(SAME_KIND[kept_in])
    if feature in MONOVALENT:
        found["meq/L"] = 1
    for unit in MOLES_ACCEPTED.get(feature, ()):
        grams_per_litre = MILLIMOLES[unit] * GRAMS_PER_MOLE[feature] / 1000
        found[unit] = grams_per_litre * (100 if kept_in == "mg/dL" else 1 / 10)
    if feature == "lactate":
        found["mg/dL"] = 10 / GRAMS_PER_MOLE[feature]
    return {unit: (factor, 0) for unit, factor in found.items()}


def conversion(concept_id, number, quantity, *, site_map, infer):
    """(state, factor, shift, unit concept) of a number of a concept.

    ``source``: the concept has no unit of its own, the number stays as it came. ``as_is``, ``converted``,
    ``inferred``: it is kept. ``unit``, ``unit_missing``: it is lost.
    """
    system, code, text = (quantity.get(name) or "" for name in ("system", "code", "unit"))
    if concept_id not in KEPT_IN:
        return "source", 1, 0, UNITS.get(site_unit(code or text, system, site_map), 0)
    accepted, unit_concept = factors(concept_id), UNITS[KEPT_IN[concept_id]]
    spellings = [spelling for spelling in (code, text) if spelling]
    for spelling in spellings:
        unit = site_unit(spelling, system, site_map)
        if unit == "" and KEPT_IN[concept_id] == "/min":
            continue  # {beats} counts something, but not per what
        if unit in accepted:
            factor, shift = accepted[unit]
            return ("as_is" if (factor, shift) == (1, 0) else "converted"), factor, shift, unit_concept
    if any(ucum(spelling) for spelling in spellings):
        return "unit", 1, 0, unit_concept
    likely = [unit for unit, (low, high) in plausible(concept_id).items() if low <= number <= high]
    if infer and len(likely) == 1:
        return ("inferred", *accepted[likely[0]], unit_concept)
    return "unit_missing", 1, 0, unit_concept


def plausible(concept_id):
    """By unit, where a value of the concept lies."""
    feature, kept_in = FEATURE[concept_id], KEPT_IN[concept_id]
    ranges = {name: (float(low), float(high)) for name, low, high in map(str.split, RANGES)}
    found = {}
    for unit in REPORTED_IN.get(feature) or REPORTED_IN.get(kept_in, (kept_in,)):
        factor, shift = factors(concept_id)[unit]
        found[unit] = tuple((end - shift) / factor for end in ranges[feature])
    return found
