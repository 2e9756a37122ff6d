"""The generative model: hospitals, patients, stays. docs/explanation/synthetic-hospitals.md states it in formulas.

Effect sizes are clinical common sense, fixed once; no figure was tuned towards a performance of any model.
"""

import math
from dataclasses import dataclass, field

import numpy as np

DAY_H = 24.0
SPAN_DAYS = 900
FOLLOW_UP_DAYS = 60
MAX_STAYS = 8
CHRONIC = (
    ("I10", 0.45), ("E11.9", 0.28), ("I50.22", 0.16), ("J44.9", 0.15), ("N18.3", 0.14), ("I48.91", 0.14),
    ("F32.9", 0.10), ("C50.911", 0.05), ("E66.9", 0.18), ("D50.9", 0.09), ("I70.0", 0.08), ("K70.30", 0.03),
)  # fmt: skip
"""ICD-10-CM code and prevalence at average frailty."""
ACUTE = ("J18.9", "N39.0", "I21.4", "K92.2", "J44.1", "I50.23", "A41.9", "S72.001A", "K80.00", "R55")
SURGICAL = ("S72.001A", "K80.00")


@dataclass(frozen=True, slots=True)
class Hospital:
    """How one hospital differs: size, case mix, care, measurement."""

    name: str
    patients: int
    frailty: float
    death_shift: float
    readmission_shift: float
    lab_missing: float
    vital_gap_h: float
    lactate_threshold: float


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient; ``frailty`` is latent and drives everything that follows."""

    number: int
    female: bool
    birth_day: int
    frailty: float
    chronic: tuple[str, ...]
    creatinine: float
    haemoglobin: float


@dataclass(slots=True)
class Stay:
    """An admission; days count from the start of the extract, hours from admission."""

    patient: Patient
    number: int
    start_day: float
    hours: float
    severity: float
    emergency: bool
    principal: str
    kidney_injury: bool
    died: bool
    p_death: float
    p_readmission: float = 0.0
    readmitted: bool = False
    course: tuple[float, ...] = field(default_factory=tuple)

    @property
    def end_day(self) -> float:
        """Discharge or death."""
        return self.start_day + self.hours / DAY_H

    def severity_at(self, hour: float) -> float:
        """Acute severity along the stay: after the first day it falls in those who recover, rises in those who die.

        Within the first day it does not yet depend on the outcome, so that ``p_death`` bounds any prediction then.
        """
        share = min((hour - DAY_H) / (self.hours - DAY_H), 1.0) if hour > DAY_H < self.hours else 0.0
        return self.severity * (1 - 0.55 * share) if not self.died else self.severity + 1.2 * share


def hospital_name(index: int) -> str:
    """The name of a hospital by its number, from 0."""
    return f"hospital-{index + 1:02d}"


def make_hospital(index: int, patients: int, generator: np.random.Generator) -> Hospital:
    """Draw a hospital; its size is log-normal around ``patients``, at least 60% of it."""
    size = round(patients * math.exp(generator.normal(-0.04, 0.28)))
    return Hospital(
        name=hospital_name(index),
        patients=max(size, math.ceil(0.6 * patients)),
        frailty=float(generator.normal(0.0, 0.3)),
        death_shift=float(generator.normal(0.0, 0.25)),
        readmission_shift=float(generator.normal(0.0, 0.2)),
        lab_missing=float(generator.uniform(0.05, 0.35)),
        vital_gap_h=float(generator.choice([4.0, 6.0, 8.0])),
        lactate_threshold=float(generator.uniform(0.2, 1.0)),
    )


def make_patient(number: int, hospital: Hospital, generator: np.random.Generator) -> Patient:
    """Draw a patient of a hospital."""
    frailty = float(generator.normal(hospital.frailty, 1.0))
    age = float(np.clip(generator.normal(64 + 4 * frailty, 15), 16, 97))
    draws = generator.random(len(CHRONIC))
    shifted = [
        _sigmoid(_logit(prevalence) + 0.55 * frailty + 0.015 * (age - 64)) for _, prevalence in CHRONIC
    ]
    chronic = tuple(code for (code, _), draw, p in zip(CHRONIC, draws, shifted, strict=True) if draw < p)
    renal = 0.6 if "N18.3" in chronic else 0.0
    return Patient(
        number=number,
        female=bool(generator.random() < 0.52),
        birth_day=-int(age * 365.25),
        frailty=frailty,
        chronic=chronic,
        creatinine=float(np.clip(math.exp(generator.normal(-0.12 + renal, 0.2)), 0.4, 5.0)),
        haemoglobin=float(np.clip(generator.normal(13.2 - 0.5 * frailty, 1.4), 7, 18)),
    )


def stays_of(patient: Patient, hospital: Hospital, generator: np.random.Generator) -> list[Stay]:
    """A patient's stays in order; a stay that is followed within 30 days was drawn to be."""
    stays: list[Stay] = []
    start = float(generator.uniform(30, SPAN_DAYS - 60))
    while len(stays) < MAX_STAYS:
        stay = _draw_stay(patient, hospital, start, stays, generator)
        stays.append(stay)
        if stay.died:
            break
        stay.p_readmission = _p_readmission(stay, hospital, stays)
        stay.readmitted = bool(generator.random() < stay.p_readmission)
        if stay.readmitted:
            start = stay.end_day + float(generator.uniform(1.2, 29.5))
        elif generator.random() < _sigmoid(-0.9 + 0.35 * patient.frailty):
            start = stay.end_day + 31 + float(generator.exponential(150))
        else:
            break
        if start > SPAN_DAYS - 1:
            break
    return [stay for stay in stays if stay.start_day < SPAN_DAYS - 1]


def _draw_stay(
    patient: Patient, hospital: Hospital, start: float, before: list[Stay], generator: np.random.Generator
) -> Stay:
    severity = 0.6 * patient.frailty + float(generator.normal(0.0, 0.9))
    age = (start - patient.birth_day) / 365.25
    principal = ACUTE[int(generator.integers(len(ACUTE)))]
    kidney = bool(
        generator.random()
        < _sigmoid(-2.9 + 0.75 * severity + 0.9 * ("N18.3" in patient.chronic) + 0.01 * (age - 64))
    )
    p_death = _sigmoid(
        -4.3
        + 1.05 * severity
        + 0.035 * (age - 64)
        + 0.8 * kidney
        + 0.5 * (principal == "A41.9")
        + hospital.death_shift
    )
    died = bool(generator.random() < p_death)
    hours = float(
        np.clip(
            math.exp(generator.normal(4.25 + 0.18 * severity + 0.03 * len(patient.chronic), 0.55)), 9, 960
        )
    )
    return Stay(
        patient=patient,
        number=len(before),
        start_day=start,
        hours=max(hours, 32.0) if died and generator.random() < 0.85 else hours,
        severity=severity,
        emergency=bool(generator.random() < _sigmoid(0.6 + 0.5 * severity - 1.5 * (principal in SURGICAL))),
        principal=principal,
        kidney_injury=kidney,
        died=died,
        p_death=p_death,
    )


def _p_readmission(stay: Stay, hospital: Hospital, stays: list[Stay]) -> float:
    patient, end = stay.patient, stay.severity_at(stay.hours)
    recent = sum(stay.start_day - each.end_day < 365 for each in stays[:-1])
    anaemic = patient.haemoglobin - 0.5 * end < 10.5
    failing = "I50.22" in patient.chronic or stay.principal == "I50.23"
    return _sigmoid(
        -3.1
        + 0.75 * end
        + 0.22 * len(patient.chronic)
        + 0.35 * min(recent, 4)
        + 0.45 * stay.kidney_injury
        + 0.3 * (stay.hours > 168)
        + 0.25 * stay.emergency
        + 0.7 * (anaemic and failing)
        + hospital.readmission_shift
    )


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
