"""A hospital's OMOP in a real PostgreSQL schema, taken by the command, by a site's load, and refused with one fix."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from simulator.hospital import SECRET
from simulator.postgres import start_postgres

from fedhealth.cdm.omop import import_omop
from fedhealth.cdm.tables import TABLES
from fedhealth.errors import DataError
from fedhealth.rounds.site_data import SiteFolder
from fedhealth.rounds.site_load import load_omop, validate_site

pytestmark = pytest.mark.slow

TYPES = {
    "BIGINT": "bigint",
    "INTEGER": "integer",
    "DOUBLE": "double precision",
    "VARCHAR": "varchar",
    "DATE": "date",
}
TYPES |= {"TIMESTAMP": "timestamp", "BOOLEAN": "boolean"}
STAYS = [
    (10 + n, 1 + n % 30, 9201, f"2021-{1 + n % 9:02}-01", f"2021-{1 + n % 9:02}-04", 32817) for n in range(60)
]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The URL of a server with the schema ``cdm`` of 30 people and 60 stays."""
    psycopg2 = pytest.importorskip("psycopg2")
    postgres = start_postgres(tmp_path_factory.mktemp("postgres"))
    with psycopg2.connect(postgres.get_uri()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA cdm")
        for table in TABLES.values():
            columns = ", ".join(f"{column.name} {TYPES[column.type]}" for column in table.columns)
            cursor.execute(f"CREATE TABLE cdm.{table.name} ({columns})")
        cursor.execute("ALTER TABLE cdm.person ADD COLUMN person_source_value varchar")
        for n in range(1, 31):
            cursor.execute(
                "INSERT INTO cdm.person (person_id, gender_concept_id, year_of_birth, race_concept_id, "
                "ethnicity_concept_id, person_source_value) VALUES (%s, 8532, 1950, 0, 0, 'SECRETWORD')",
                (n,),
            )
        for stay in STAYS:
            cursor.execute(
                "INSERT INTO cdm.visit_occurrence (visit_occurrence_id, person_id, visit_concept_id, visit_start_date, "
                "visit_end_date, visit_type_concept_id) VALUES (%s, %s, %s, %s, %s, %s)",
                stay,
            )
    return postgres.get_uri()


def url(database, schema="cdm"):
    return f"{database}{'&' if '?' in database else '?'}schema={schema}"


def count(cdm, table):
    with duckdb.connect(":memory:") as connection:
        return connection.execute(f"SELECT count(*) FROM '{cdm / table}.parquet'").fetchall()[0][0]


def test_a_schema_becomes_a_cdm(database, tmp_path):
    account = import_omop(url(database), tmp_path / "cdm", site="house", site_secret=SECRET)
    assert (account.tables["person"], account.tables["visit_occurrence"]) == (30, 60)
    assert count(tmp_path / "cdm", "observation_period") == 30  # the schema's own is empty
    with duckdb.connect(":memory:") as connection:
        assert "SECRETWORD" not in str(connection.execute(f"FROM '{tmp_path}/cdm/person.parquet'").fetchall())


def test_the_command_takes_it_and_says_what_was_read(database, tmp_path):
    command = [str(Path(sys.executable).with_name("fedhealth")), "harmonize", "--omop", url(database)]
    found = subprocess.run(
        [*command, "--cdm", str(tmp_path / "cdm"), "--profile", "limited-dataset"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "visit_occurrence" in found.stdout
    assert count(tmp_path / "cdm", "visit_occurrence") == 60
    assert count(tmp_path / "cdm", "observation_period") == 30


def test_a_site_loads_it_and_validates(database, tmp_path):
    folder = SiteFolder(tmp_path / "site")
    load_omop(folder, url(database), site="house", site_map=None, site_secret=SECRET)
    report = validate_site(folder)
    assert not [
        check
        for check in report.checks
        if check.severity == "fatal" and "Field" in check.name and not check.passed
    ]
    assert (folder.cdm / "deidentification.json").exists()


def test_what_cannot_be_read_is_refused_without_the_password(database, tmp_path):
    wrong = "postgresql://somebody:SECRETWORD@127.0.0.1:1/nowhere?schema=cdm"
    with pytest.raises(DataError, match="cannot be read") as refused:
        import_omop(wrong, tmp_path / "cdm", site="house", site_secret=SECRET)
    assert "SECRETWORD" not in str(refused.value)
