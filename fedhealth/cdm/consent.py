"""FHIR Consents of a load: cut to what decides, kept in ``private/`` beside the CDM, read at the start of every round.

``private/consent.parquet`` holds person_id, stated, is_withdrawn, provision; ``private/consent.json`` how the site reads
them. Their times are those of the source whatever the profile: they are compared with the clock.
"""

import json
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fedhealth.cdm.visits import reject, subject_checks
from fedhealth.errors import DataError
from fedhealth.privacy.consent import Consent, ConsentRules, Provision, Word
from fedhealth.vocabulary.site_map import SiteSettings

RULES = "consent.json"
TABLE = "consent.parquet"
_NARROWING = ("actor", "action", "securityLabel", "class", "dataPeriod", "data")
_POLICIES: dict[str, Word] = {"OPTIN": "permit", "OPTINR": "permit", "OPTOUT": "deny", "OPTOUTE": "deny"}

_CONSENT = """
CREATE TABLE consent AS
SELECT c.seq, c.ref, patient.person_id, coalesce(moment(c.dateTime), at_end(c.dateTime)) AS stated,
       c.status = 'inactive' AS is_withdrawn, c.policyRule::VARCHAR AS policy,
       CASE WHEN c.status = 'rejected' THEN '{"type":"deny"}' ELSE c.provision::VARCHAR END AS provision
FROM p_Consent c ANTI JOIN rejected USING (seq)
JOIN pointed who ON who.ref = c.patient.reference JOIN patient ON patient.ref = who.target
"""

_RESEARCH = "len(list_filter(scope.coding, lambda x: x.code = 'research')) > 0"


def keep_consents(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``consent``: the consents to research of patients who are kept, with ``said``, their provisions as JSON."""
    reject(database, "Consent", "excluded", "other_scope", f"NOT coalesce({_RESEARCH}, false)")
    subject_checks(database, "Consent", field="patient")
    database.execute(
        "INSERT INTO rejected SELECT p.seq, 'Consent', 'excluded', 'other_organization', 'Consent' FROM p_Consent p "
        "ANTI JOIN rejected USING (seq) JOIN pointed d ON d.ref = p.patient.reference "
        "JOIN foreign_patient f ON f.ref = d.target"
    )
    database.execute(_CONSENT)
    texts = database.execute("SELECT DISTINCT policy, provision FROM consent").fetchall()
    said = [cut_consent(policy, provision, database).model_dump_json() for policy, provision in texts]
    columns = [*zip(*texts, strict=True)] or [(), ()]
    arrays = [pa.array(list(column), pa.string()) for column in (*columns, said)]
    database.register("cut", pa.Table.from_arrays(arrays, names=["policy", "provision", "said"]))
    database.execute(
        "CREATE TABLE consent_said AS SELECT seq, ref, person_id, stated, is_withdrawn, said AS provision FROM consent c "
        "JOIN cut ON c.policy IS NOT DISTINCT FROM cut.policy AND c.provision IS NOT DISTINCT FROM cut.provision"
    )
    database.unregister("cut")


def cut_consent(policy: str | None, provision: str | None, database: duckdb.DuckDBPyConnection) -> Provision:
    """What decides of a consent: its provision, with the word of its policy rule where the root has none.

    Args:
      policy: the policyRule as JSON.
      provision: the provision as JSON.
      database: for the reading of dates (``define_times``).
    """
    root = _cut(json.loads(provision) if provision else {}, database)
    if root.type is None:
        words = {
            _POLICIES[code] for code in _codes(json.loads(policy) if policy else {}) if code in _POLICIES
        }
        word: Word | None = "deny" if "deny" in words else "permit" if words else None
        root = root.model_copy(update={"type": word})
    return root


def _cut(node: Any, database: duckdb.DuckDBPyConnection) -> Provision:
    if not isinstance(node, dict):
        return Provision(type="deny", is_narrowed=True)  # malformed: it may deny, and never permits
    word = node.get("type")
    given = node.get("period")
    period: dict[str, Any] = given if isinstance(given, dict) else {}
    start, end = (_instant(period.get(name), name, database) for name in ("start", "end"))
    unreadable = [name for name, at in (("start", start), ("end", end)) if at is None and period.get(name)]
    inner = node.get("provision")
    return Provision(
        type=word if word in ("permit", "deny") else None if word is None else "deny",
        start=start,
        end=end,
        purposes=tuple(sorted(_plain_codes(node.get("purpose")))),
        codes=tuple(sorted(_named_codes(node.get("code")))),
        is_narrowed=any(node.get(name) for name in _NARROWING) or bool(unreadable),
        provisions=tuple(_cut(each, database) for each in (inner if isinstance(inner, list) else [])),
    )


def _instant(text: Any, end: str, database: duckdb.DuckDBPyConnection) -> str | None:
    """A FHIR time as ISO 8601 in UTC; a day alone is its first or its last instant."""
    if not isinstance(text, str):
        return None
    whole = "at_end(?)" if end == "end" else "coalesce(moment(?), day_of(?)::TIMESTAMP)"
    ((found,),) = database.execute(f"SELECT {whole}", [text] * whole.count("?")).fetchall()
    return None if found is None else str(found.replace(tzinfo=UTC).isoformat())


def _plain_codes(listed: Any) -> set[str]:
    return {each["code"] for each in _dicts(listed) if isinstance(each.get("code"), str)}


def _named_codes(listed: Any) -> set[str]:
    return {
        f"{each.get('system') or ''}|{each['code']}"
        for concept in _dicts(listed)
        for each in _dicts(concept.get("coding"))
        if isinstance(each.get("code"), str)
    }


def _codes(concept: Any) -> set[str]:
    return _plain_codes(concept.get("coding")) if isinstance(concept, dict) else set()


def _dicts(listed: Any) -> list[dict[str, Any]]:
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def write_consents(database: duckdb.DuckDBPyConnection, private: Path, settings: SiteSettings) -> None:
    """Write the consents and the site's rules into ``private/``; needs ``consent_said``."""
    target = str(private / TABLE).replace("'", "''")
    database.execute(
        "COPY (SELECT person_id, stated, is_withdrawn, provision FROM consent_said ORDER BY ALL) "
        f"TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    )
    _write_rules(private, ConsentRules(settings.consent_default, frozenset(settings.consent_codes)))


def save_consents(private: Path, consents: Iterable[Consent], rules: ConsentRules) -> None:
    """Write consents that come from elsewhere than FHIR in the same form; ``private`` must exist."""
    rows = [
        (
            each.person,
            each.stated and each.stated.replace(tzinfo=None),
            each.is_withdrawn,
            each.root.model_dump_json(),
        )
        for each in consents
    ]
    columns = [*zip(*rows, strict=True)] or [()] * 4
    types = (pa.int64(), pa.timestamp("us"), pa.bool_(), pa.string())
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    names = ["person_id", "stated", "is_withdrawn", "provision"]
    pq.write_table(pa.Table.from_arrays(arrays, names=names), private / TABLE)
    _write_rules(private, rules)


def _write_rules(private: Path, rules: ConsentRules) -> None:
    document = {"default": rules.default, "codes": sorted(rules.codes)}
    (private / RULES).write_text(json.dumps(document) + "\n")


def read_consents(cdm_dir: Path) -> tuple[list[Consent], ConsentRules]:
    """The consents of a CDM and the site's rules.

    Raises:
      DataError: they are missing or damaged: nobody takes part then.
    """
    private = cdm_dir / "private"
    try:
        rules = json.loads((private / RULES).read_bytes())
        rows = pq.read_table(private / TABLE).to_pylist()
        provisions = {
            text: Provision.model_validate_json(text) for text in {row["provision"] for row in rows}
        }
        consents = [
            Consent(
                row["person_id"],
                None if row["stated"] is None else row["stated"].replace(tzinfo=UTC),
                row["is_withdrawn"],
                provisions[row["provision"]],
            )
            for row in rows
        ]
        return consents, ConsentRules(rules["default"], frozenset(rules["codes"]))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        raise DataError("the CDM's consents cannot be read", "harmonise the site's data again") from None
