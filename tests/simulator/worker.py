"""A site's worker for a night: ``python -m simulator.worker PLANTED CONTROL SITE_DIR SITE=FOLDER ...``.

It runs the shipped load of every site. Then it runs two readers whose libraries quote what they read, over a planted
folder behind the patient boundary and over a control folder in front of it; Prefect is asked to keep their results.
"""

import os
import sys
from pathlib import Path

import duckdb
from prefect import flow

from fedhealth.fhir.validation import resource_model
from fedhealth.rounds.boundary import at_the_boundary
from flows.site.prepare_data import prepare_data


def oldest(folder: str) -> int:
    """DuckDB quotes a year that is no number."""
    query = f"SELECT min(year_of_birth::INTEGER) FROM '{folder}/person.parquet'"
    return duckdb.sql(query).fetchall()[0][0]


def birth_date(folder: str) -> str:
    """pydantic quotes a birth date that is none."""
    return str(resource_model("Patient").model_validate_json(Path(folder, "patient.json").read_bytes()))


def main() -> None:
    planted, control, site_dir, *sites = sys.argv[1:]
    for site in sites:
        name, _, source = site.partition("=")
        os.environ |= {
            "FEDHEALTH_SITE": name,
            "FEDHEALTH_SITE_DIR": f"{site_dir}/{name}",
            "FEDHEALTH_SITE_FHIR": f"{source}/fhir",
            "FEDHEALTH_SITE_MAP": f"{source}/site-map",
        }
        state = prepare_data(fhir_validation="all", return_state=True)
        print(name, state.name, state.message)
    for read in (oldest, birth_date):
        flow(at_the_boundary(read), persist_result=True)(planted, return_state=True)
        flow(read, name=f"unguarded {read.__name__}", persist_result=True)(control, return_state=True)


if __name__ == "__main__":
    main()
