"""Match each distinct coding, unit and reference of the staged data once, in Python, as lookup tables for SQL.

Tables made here: ``coded_<field>`` (json -> concept_id, source_value, standard_system, standard_code, display),
``pointed`` (ref -> target), ``unit_of`` (how a measurement concept's unit is converted) and ``plausible``.
"""

from collections.abc import Iterable

import duckdb
import msgspec
import pyarrow as pa

from fedhealth.cdm.wards import LOCATIONS
from fedhealth.fhir.references import resolve_references
from fedhealth.vocabulary.concepts import MEASUREMENTS, UNITS
from fedhealth.vocabulary.maps import STANDARD_SYSTEMS, Coding, Field, best_match
from fedhealth.vocabulary.site_map import SiteMap
from fedhealth.vocabulary.units import convert, plausible_units, site_unit, ucum


class _Coding(msgspec.Struct):
    system: str | None = None
    code: str | None = None
    display: str | None = None
    userSelected: bool | None = None


_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.json.Decoder(_Coding)


def parse_codings(text: str, *, default_system: str = "") -> list[Coding]:
    """The codings in a JSON list, or in one JSON object, without those that are malformed."""
    try:
        each = _LIST.decode(text) if text.lstrip().startswith("[") else [text]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [
        Coding(
            _printable(c.system) or default_system,
            _printable(c.code),
            _printable(c.display),
            bool(c.userSelected),
        )
        for c in map(_read, each)
        if c is not None
    ]


def _read(text: str | msgspec.Raw) -> _Coding | None:
    try:
        return _ONE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _printable(text: str | None) -> str:
    """Without NUL, which JSON can hold and which separates what is counted."""
    return (text or "").replace("\0", "")


def match_codings(
    database: duckdb.DuckDBPyConnection,
    field: Field,
    query: str,
    *,
    site_map: SiteMap,
    default_system: str = "",
) -> None:
    """Make ``coded_<field>`` for the distinct JSON texts that ``query`` selects."""
    rows = []
    for (text,) in database.execute(f"SELECT DISTINCT * FROM ({query}) WHERE #1 IS NOT NULL").fetchall():
        match = best_match(parse_codings(text, default_system=default_system), field=field, site_map=site_map)
        if match is not None:
            display = match.coding.display if match.coding.system in STANDARD_SYSTEMS else ""
            rows.append((text, match.concept_id, match.source_value, *match.standard, display, match.served))
    names = ("json", "concept_id", "source_value", "standard_system", "standard_code", "display", "served")
    types = (pa.string(), pa.int32(), *[pa.string()] * 5)
    _create(database, f"coded_{field}", rows, names, types)


CONSENT_SUBJECT = "json_extract_string(subject, '$.reference')"
"""SQL for the patient of an R5 Consent."""


def match_references(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``pointed`` for all references of events, patients and encounters."""
    places = {
        "Patient": ("managingOrganization",),
        "Encounter": ("subject", "partOf", "serviceProvider"),
        "Consent": ("patient",),
    }
    union = (
        " UNION ALL ".join(
            f"SELECT {field}.reference AS ref FROM p_{name}"
            for name, fields in places.items()
            for field in fields
        )
        + f" UNION ALL SELECT {CONSENT_SUBJECT} FROM p_Consent UNION ALL SELECT unnest({LOCATIONS}) FROM p_Encounter"
    )
    references = [
        row[0]
        for row in database.execute(
            f"SELECT DISTINCT ref FROM (SELECT ref FROM all_refs UNION ALL {union}) WHERE ref IS NOT NULL"
        ).fetchall()
    ]
    urls = dict(
        database.execute(
            "SELECT url, CASE WHEN count(DISTINCT ref) = 1 THEN min(ref) END FROM all_urls GROUP BY url"
        ).fetchall()
    )
    if any("?" in reference for reference in references):
        urls |= _conditional(database)
    _create(
        database,
        "pointed",
        sorted(resolve_references(references, urls=urls).items()),
        ("ref", "target"),
        (pa.string(), pa.string()),
    )


def _conditional(database: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """``Type?identifier=system|value`` and ``Type?identifier=value`` -> ``Type/id``, where exactly one resource has it."""
    found: dict[str, str] = {}
    for name in ("Patient", "Encounter", "Organization", "Medication"):
        found |= dict(
            database.execute(
                f"WITH one AS (SELECT ref, unnest(identifier) AS i FROM p_{name}) "
                f"SELECT '{name}?identifier=' || asked, min(ref) FROM (SELECT ref, i.value AS asked FROM one UNION ALL "
                "SELECT ref, coalesce(i.system, '') || '|' || i.value FROM one) WHERE asked IS NOT NULL "
                "GROUP BY asked HAVING count(DISTINCT ref) = 1"
            ).fetchall()
        )
    return found


def match_quantities(database: duckdb.DuckDBPyConnection, *, site_map: SiteMap) -> None:
    """Make ``measure_of``: concept and unit of each distinct (code, unit) of a value; and ``plausible``."""
    database.execute(
        "CREATE TABLE quantity_of AS SELECT DISTINCT q.*, coalesce(m.concept_id, 0) AS concept_id, "
        "coalesce(m.source_value, '|') AS code_value, m.json IS NOT NULL AS has_code "
        "FROM all_quantities q LEFT JOIN coded_measurement m ON m.json = q.code"
    )
    match_units(database, "quantity_of", site_map=site_map)
    database.execute(
        "CREATE TABLE measure_of AS SELECT number, concept_id, code_value, has_code, state, factor, shift, unit_concept_id, "
        "replace(coalesce(nullif(unit_code, ''), nullif(unit_text, '')), chr(0), '') AS unit_value "
        "FROM quantity_of JOIN unit_of USING (concept_id, unit_system, unit_code, unit_text)"
    )
    list_plausible(database)


def match_units(database: duckdb.DuckDBPyConnection, table: str, *, site_map: SiteMap) -> None:
    """Make ``unit_of``: how each (concept_id, unit_system, unit_code, unit_text) of a table becomes the concept's unit."""
    query = f"SELECT DISTINCT concept_id, unit_system, unit_code, unit_text FROM {table}"
    rows = [
        (concept_id, system, code, text, *_unit_row(concept_id, system, code, text, site_map))
        for concept_id, system, code, text in database.execute(query).fetchall()
    ]
    names = ("concept_id", *("unit_system", "unit_code", "unit_text", "state"), *_CONVERSION)
    types = (pa.int32(), *[pa.string()] * 4, pa.float64(), pa.float64(), pa.int32())
    _create(database, "unit_of", rows, names, types)


def list_plausible(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``plausible``: by measurement concept, where a number without a unit lies in each unit that it may be of."""
    likely = [
        (concept_id, p.low, p.high, p.conversion.factor, p.conversion.offset)
        for concept_id in MEASUREMENTS
        for p in plausible_units(concept_id)
    ]
    types = (pa.int32(), *[pa.float64()] * 4)
    _create(database, "plausible", likely, ("concept_id", "low", "high", "factor", "shift"), types)


_CONVERSION = ("factor", "shift", "unit_concept_id")


def _unit_row(
    concept_id: int, system: str, code: str, text: str, site_map: SiteMap
) -> tuple[str, float, float, int]:
    """State (as_is, converted, unit, unit_missing, source), factor, shift, unit concept."""
    if concept_id not in MEASUREMENTS:
        return "source", 1.0, 0.0, UNITS.get(site_unit(code or text, system, site_map), 0)
    canonical = MEASUREMENTS[concept_id].unit or ""
    concept = UNITS[canonical]
    spellings = [spelling for spelling in (code, text) if spelling]
    for spelling in spellings:
        unit = site_unit(spelling, system, site_map)
        if not unit and canonical == "/min":  # an annotation alone, as in {beats}: a count
            continue
        if (conversion := convert(concept_id, unit)) is not None:
            is_same = conversion.factor == 1.0 and conversion.offset == 0.0
            return "as_is" if is_same else "converted", conversion.factor, conversion.offset, concept
    is_missing = not any(ucum(spelling) for spelling in spellings)
    return "unit_missing" if is_missing else "unit", 1.0, 0.0, concept


def _create(
    database: duckdb.DuckDBPyConnection,
    table: str,
    rows: Iterable[tuple[object, ...]],
    names: tuple[str, ...],
    types: tuple[pa.DataType, ...],
) -> None:
    listed = list(rows)
    columns = zip(*listed, strict=True) if listed else [()] * len(names)
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    database.register("lookup", pa.Table.from_arrays(arrays, names=list(names)))
    database.execute(f"CREATE TABLE {table} AS FROM lookup")
    database.unregister("lookup")
