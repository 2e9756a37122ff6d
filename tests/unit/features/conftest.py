"""A hand-written CDM: a builder of small OMOP Parquet folders."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from fedhealth.cdm.tables import TABLES, VISIT_EXTRA
from fedhealth.features import Attrition, Rows, build_rows
from fedhealth.study import Study, load_study
from fedhealth.vocabulary.concepts import OPERATORS, SERIES_CONCEPTS, STILL_PATIENT, UNITS

DAY_ZERO = dt.datetime(2020, 1, 1, 8, 0)


@dataclass
class Cdm:
    """Rows of a CDM, by table; `write` makes the Parquet folder."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    next_id: int = 1

    @staticmethod
    def at(days: float = 0.0, hours: float = 0.0) -> dt.datetime:
        """So long after 8:00 on the first day."""
        return DAY_ZERO + dt.timedelta(days=days, hours=hours)

    def add(self, table: str, **values: Any) -> int:
        self.rows.setdefault(table, []).append(values)
        self.next_id += 1
        return self.next_id - 1

    def person(
        self,
        person_id: int = 1,
        *,
        born: int = 1950,
        gender: int = 8532,
        until: float = 1000,
        race: int = 0,
        race_code: str | None = None,
    ) -> int:
        self.add(
            "person",
            person_id=person_id,
            gender_concept_id=gender,
            year_of_birth=born,
            race_concept_id=race,
            race_source_value=race_code,
        )
        self.add("observation_period", person_id=person_id, observation_period_end_date=self.at(until).date())
        return person_id

    def visit(
        self,
        start: dt.datetime,
        end: dt.datetime | None,
        *,
        person_id: int = 1,
        concept: int = 9201,
        discharged_to: int | None = 8536,
        emergency: bool = False,
        planned: bool = False,
        timed: bool = True,
    ) -> int:
        visit_id = self.add(
            "visit_occurrence",
            visit_occurrence_id=self.next_id,
            person_id=person_id,
            visit_concept_id=concept,
            visit_start_date=start.date(),
            visit_start_datetime=start if timed else None,
            visit_end_date=(end or self.at(1000)).date(),
            visit_end_datetime=end if timed else None,
            discharged_to_concept_id=discharged_to if end else STILL_PATIENT,
        )
        self.add(
            "visit_extra",
            visit_occurrence_id=visit_id,
            is_emergency=emergency,
            is_planned=planned,
        )
        return visit_id

    def measure(
        self,
        name: str,
        value: float,
        when: dt.datetime,
        *,
        person_id: int = 1,
        timed: bool = True,
        which: int = 0,
    ) -> int:
        return self.add(
            "measurement",
            measurement_id=self.next_id,
            person_id=person_id,
            measurement_concept_id=SERIES_CONCEPTS[name][which].concept_id,
            measurement_date=when.date(),
            measurement_datetime=when if timed else None,
            value_as_number=value,
        )

    def die(self, when: dt.datetime, *, person_id: int = 1, timed: bool = True) -> None:
        self.add("death", person_id=person_id, death_date=when.date(), death_datetime=when if timed else None)

    def condition(
        self,
        code: str,
        when: dt.datetime,
        *,
        visit: int | None,
        status: int | None = None,
        person_id: int = 1,
        timed: bool = False,
        concept: int = 0,
    ) -> None:
        self.add(
            "condition_occurrence",
            condition_occurrence_id=self.next_id,
            person_id=person_id,
            condition_concept_id=concept,
            condition_start_date=when.date(),
            condition_start_datetime=when if timed else None,
            condition_source_value=code,
            condition_status_concept_id=status,
            visit_occurrence_id=visit,
        )

    def observe(
        self,
        code: str,
        value: str | float | None,
        when: dt.datetime,
        *,
        person_id: int = 1,
        timed: bool = True,
        concept: int = 0,
        coded: int | None = None,
        number: float | None = None,
        key: int | None = None,
    ) -> int:
        """A text in observation; a number, as harmonisation does it, in measurement."""
        table = "measurement" if isinstance(value, int | float) else "observation"
        text = f"{value}" if table == "measurement" else value
        return self.add(
            table,
            **{
                f"{table}_id": key or self.next_id,
                f"{table}_concept_id": concept,
                f"{table}_date": when.date(),
                f"{table}_datetime": when if timed else None,
                f"{table}_source_value": code,
                "value_as_string" if table == "observation" else "value_source_value": text,
            },
            person_id=person_id,
            value_as_number=number if table == "observation" else value,
            value_as_concept_id=coded,
        )

    def intensive_care(
        self, visit: int, start: dt.datetime, *, person_id: int = 1, timed: bool = True, concept: int = 32037
    ) -> None:
        self.add(
            "visit_detail",
            visit_detail_id=self.next_id,
            person_id=person_id,
            visit_detail_concept_id=concept,
            visit_detail_start_date=start.date(),
            visit_detail_start_datetime=start if timed else None,
            visit_occurrence_id=visit,
        )

    def procedure(
        self, code: str, when: dt.datetime, *, person_id: int = 1, visit: int | None = None
    ) -> None:
        self.add(
            "procedure_occurrence",
            person_id=person_id,
            procedure_date=when.date(),
            procedure_datetime=when,
            procedure_source_value=code,
            visit_occurrence_id=visit,
        )

    def number(self, code: str | None, value: float | None, when: dt.datetime, **more: Any) -> int:
        """A measurement by its code; ``unit`` is as it came."""
        return self.add(
            "measurement",
            measurement_id=more.get("key", self.next_id),
            person_id=more.get("person_id", 1),
            measurement_concept_id=more.get("concept", 0),
            measurement_date=when.date(),
            measurement_datetime=when if more.get("timed", True) else None,
            operator_concept_id=OPERATORS[more["operator"]] if "operator" in more else None,
            value_as_number=value,
            value_as_concept_id=more.get("coded"),
            unit_concept_id=more.get("unit_concept", UNITS.get(more.get("unit", ""), 0)),
            measurement_source_value=code,
            unit_source_value=more.get("unit"),
            value_source_value=more.get("text"),
        )

    def drug(self, source: str | None, when: dt.datetime, **more: Any) -> int:
        """A drug that was given or ordered."""
        return self.add(
            "drug_exposure",
            drug_exposure_id=self.next_id,
            person_id=more.get("person_id", 1),
            drug_concept_id=more.get("concept", 0),
            drug_exposure_start_date=when.date(),
            drug_exposure_start_datetime=when if more.get("timed", True) else None,
            drug_source_value=source,
        )

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(":memory:", config={"threads": 1}) as database:
            for table in (*TABLES.values(), VISIT_EXTRA):
                columns = ", ".join(f"{c.name} {c.type}" for c in table.columns)
                database.execute(f"CREATE TABLE {table.name} ({columns})")
                for row in self.rows.get(table.name, []):
                    marks = ", ".join("?" for _ in row)
                    names = ", ".join(row)
                    database.execute(
                        f"INSERT INTO {table.name} ({names}) VALUES ({marks})", list(row.values())
                    )
                path = str(folder / f"{table.name}.parquet")
                database.execute(f"COPY {table.name} TO '{path}' (FORMAT parquet)")
        return folder


BASES: dict[str, dict[str, Any]] = {
    "readmission": {"outcomes": {"readmission": {"kind": "readmission"}}},
    "death": {
        "prediction": {"at": "admission", "plus_h": 24},
        "outcomes": {"death": {"kind": "death", "within": "stay"}},
    },
}


@pytest.fixture
def cdm() -> Cdm:
    return Cdm()


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study from one of the bases, with sections replaced."""

    def make(base: str, **sections: Any) -> Study:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"schema_version": 1, "name": base, **BASES[base], **sections}))
        return load_study(path)

    return make


@pytest.fixture
def build(tmp_path: Path, cdm: Cdm) -> Callable[[Study], tuple[Rows, Attrition]]:
    """Writes the CDM and builds the study's rows from it."""

    def run(study: Study) -> tuple[Rows, Attrition]:
        return build_rows(cdm.write(tmp_path / "cdm"), study, site_secret=bytes(32))

    return run
