"""What is measured in a stay, in canonical units, before a hospital's dialect writes it down."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.synthetic.model import Hospital, Stay


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured quantity: LOINC, UCUM, level at severity 0, effect of one unit of severity, noise, digits."""

    name: str
    loinc: str
    unit: str
    level: float
    slope: float
    noise: float
    digits: int
    low: float
    high: float


VITALS = (
    Quantity("heart_rate", "8867-4", "/min", 80, 8.5, 8, 0, 35, 190),
    Quantity("systolic_bp", "8480-6", "mm[Hg]", 129, -7.5, 11, 0, 60, 230),
    Quantity("diastolic_bp", "8462-4", "mm[Hg]", 75, -4.0, 8, 0, 30, 130),
    Quantity("respiratory_rate", "9279-1", "/min", 17, 2.2, 2.2, 0, 7, 50),
    Quantity("temperature", "8310-5", "Cel", 36.9, 0.25, 0.4, 1, 33, 41.5),
    Quantity("spo2", "59408-5", "%", 96.5, -1.3, 1.4, 0, 70, 100),
)
LABS = (
    Quantity("glucose", "2345-7", "mg/dL", 122, 14, 24, 0, 40, 600),
    Quantity("creatinine", "2160-0", "mg/dL", 0, 0.06, 0.06, 2, 0.3, 12),
    Quantity("urea_nitrogen", "3094-0", "mg/dL", 16, 4.5, 4, 0, 4, 150),
    Quantity("sodium", "2951-2", "mmol/L", 138.5, -0.8, 2.6, 0, 115, 160),
    Quantity("potassium", "2823-3", "mmol/L", 4.1, 0.1, 0.35, 1, 2.3, 7.5),
    Quantity("chloride", "2075-0", "mmol/L", 103, -0.4, 2.8, 0, 80, 125),
    Quantity("bicarbonate", "1963-8", "mmol/L", 25, -1.4, 2, 0, 8, 42),
    Quantity("haemoglobin", "718-7", "g/dL", 0, -0.5, 0.5, 1, 5, 19),
    Quantity("white_blood_cells", "6690-2", "10*3/uL", 8.6, 1.6, 2.2, 1, 0.8, 45),
    Quantity("platelets", "777-3", "10*3/uL", 238, -13, 55, 0, 15, 800),
    Quantity("calcium", "17861-6", "mg/dL", 9.1, -0.12, 0.4, 1, 6, 13),
    Quantity("lactate", "2524-7", "mmol/L", 1.3, 0.75, 0.5, 1, 0.4, 15),
    Quantity("urine_output", "9187-6", "mL", 420, -60, 130, 0, 0, 1500),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One value in its canonical unit, at an hour after admission."""

    quantity: Quantity
    hour: float
    value: float


def measure(stay: Stay, hospital: Hospital, generator: np.random.Generator) -> list[Measured]:
    """All measurements of a stay: vitals over the first and the last day, laboratory daily at both ends."""
    found: list[Measured] = []
    for hour in _hours(stay.hours, hospital.vital_gap_h, generator):
        found += _values(VITALS, stay, hour, generator.standard_normal(len(VITALS)))
    for hour in _lab_hours(stay.hours, generator):
        kept = generator.random(len(LABS)) >= hospital.lab_missing
        kept[11] = kept[11] and stay.severity_at(hour) > hospital.lactate_threshold
        chosen = tuple(quantity for quantity, keep in zip(LABS, kept, strict=True) if keep)
        found += _values(chosen, stay, hour, generator.standard_normal(len(chosen)))
    return found


def _hours(length: float, gap: float, generator: np.random.Generator) -> list[float]:
    """Hours of the vitals: by the hospital's habit in the first day, then the last day's beginning and end."""
    first = [0.5 + step * gap for step in range(int(24 / gap))]
    last = [length - back for back in (20.0, 10.0, 1.5)]
    jitter = generator.uniform(0, 0.8, len(first) + len(last))
    hours = [hour + float(shift) for hour, shift in zip([*first, *last], jitter, strict=True)]
    return sorted({round(hour, 2) for hour in hours if 0 <= hour < length - 0.2})


def _lab_hours(length: float, generator: np.random.Generator) -> list[float]:
    hours = [1.0 + float(generator.uniform(0, 2)), 20.0, length / 2, length - 6.0]
    return sorted({round(hour, 2) for hour in hours if 0 <= hour < length - 0.2})


def _values(
    quantities: tuple[Quantity, ...], stay: Stay, hour: float, noise: NDArray[np.float64]
) -> list[Measured]:
    severity = stay.severity_at(hour)
    measured = []
    for quantity, error in zip(quantities, noise, strict=True):
        level = quantity.level
        if quantity.name == "creatinine":
            level = stay.patient.creatinine * (1 + (0.9 * min(hour / 60, 1.0) if stay.kidney_injury else 0.0))
        elif quantity.name == "haemoglobin":
            level = stay.patient.haemoglobin
        value = level + quantity.slope * severity + quantity.noise * float(error)
        clipped = min(max(value, quantity.low), quantity.high)
        measured.append(Measured(quantity, hour, round(clipped, quantity.digits)))
    return measured
