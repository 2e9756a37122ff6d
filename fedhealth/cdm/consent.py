"""FHIR Consents of a load: cut to what decides, kept in ``private/`` beside the CDM, read at the start of every round.

``private/consent.parquet`` holds person_id, stated, stated_by, is_withdrawn, provision; ``private/consent.json`` how the
site reads them. Their times are those of the source whatever the profile: they are compared with the clock.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fedhealth.cdm.coding import CONSENT_SUBJECT
from fedhealth.cdm.visits import reject, subject_checks
from fedhealth.errors import DataError
from fedhealth.privacy.consent import Consent, ConsentRules, Provision, Word
from fedhealth.vocabulary.site_map import SiteSettings

RULES = "consent.json"
TABLE = "consent.parquet"
_NARROWING = ("actor", "action", "securityLabel", "class", "dataPeriod", "data", "modifierExtension")
_DEEPEST = 20
"""How deep provisions are followed; what is deeper counts as a denial."""
_ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_POLICIES: dict[str, Word] = {"OPTIN": "permit", "OPTINR": "permit", "OPTOUT": "deny", "OPTOUTE": "deny"}

_IS_RESEARCH = "coalesce(len(list_filter(scope.coding, lambda x: x.code = 'research')) > 0, false)"
_SAYS_NO_SCOPE = "coalesce(len(scope.coding), 0) = 0"
_FIRST = """CASE length(c.dateTime) WHEN 4 THEN try_cast(c.dateTime || '-01-01' AS TIMESTAMP)
            WHEN 7 THEN try_cast(c.dateTime || '-01' AS TIMESTAMP)
            ELSE coalesce(moment(c.dateTime), day_of(c.dateTime)::TIMESTAMP) END"""
_CONSENT = f"""
CREATE TABLE consent AS
SELECT c.seq, c.ref, patient.person_id, {_FIRST} AS stated, at_end(c.dateTime) AS stated_by,
       c.status = 'inactive' AS is_withdrawn, c.policyRule::VARCHAR AS policy,
       CASE WHEN c.status = 'rejected' THEN '{{"type":"deny"}}' ELSE c.provision::VARCHAR END AS provision,
       c.modifierExtension IS NOT NULL OR {_SAYS_NO_SCOPE} AS is_modified
FROM p_Consent c ANTI JOIN rejected USING (seq)
JOIN pointed who ON who.ref = c.patient.reference JOIN patient ON patient.ref = who.target
"""

_BY = f"coalesce(c.patient.reference, {CONSENT_SUBJECT})"

_UNREADABLE = f"""
INSERT INTO consent_said
SELECT NULL, c.ref, patient.person_id, NULL, NULL, false, '{Provision(type="deny").model_dump_json()}'
FROM p_Consent c JOIN rejected USING (seq)
JOIN pointed who ON who.ref = {_BY} JOIN patient ON patient.ref = who.target
WHERE rejected.kind = 'quarantined' AND ({_IS_RESEARCH} OR {_SAYS_NO_SCOPE})
"""
"""A consent to research that cannot be read, of a patient who can be told, may have been a denial: it is one, without a date."""


def keep_consents(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``consent_said``: the consents to research of patients who are kept, with their provisions as JSON.

    Consents that are quarantined stand in it as denials, without ``seq``.
    """
    reject(database, "Consent", "excluded", "other_scope", f"NOT ({_IS_RESEARCH} OR {_SAYS_NO_SCOPE})")
    foreign = "SELECT d.ref FROM pointed d JOIN foreign_patient f ON f.ref = d.target"
    reject(database, "Consent", "excluded", "other_organization", f"patient.reference IN ({foreign})")
    subject_checks(database, "Consent", field="patient")
    database.execute(_CONSENT)
    texts = database.execute("SELECT DISTINCT policy, provision, is_modified FROM consent").fetchall()
    said = [
        cut_consent(policy, provision, database, is_modified=is_modified).model_dump_json()
        for policy, provision, is_modified in texts
    ]
    columns = [*zip(*texts, strict=True)] or [(), (), ()]
    types = (pa.string(), pa.string(), pa.bool_(), pa.string())
    arrays = [pa.array(list(each), kind) for each, kind in zip((*columns, said), types, strict=True)]
    database.register("cut", pa.Table.from_arrays(arrays, names=["policy", "provision", "modified", "said"]))
    database.execute(
        "CREATE TABLE consent_said AS SELECT seq, ref, person_id, stated, stated_by, is_withdrawn, said AS provision "
        "FROM consent c JOIN cut ON c.policy IS NOT DISTINCT FROM cut.policy "
        "AND c.provision IS NOT DISTINCT FROM cut.provision AND c.is_modified = cut.modified"
    )
    database.unregister("cut")
    database.execute(_UNREADABLE)


def cut_consent(
    policy: str | None,
    provision: str | None,
    database: duckdb.DuckDBPyConnection,
    *,
    is_modified: bool = False,
) -> Provision:
    """What decides of a consent: its provision, with the word of its policy rule where the root has none.

    Args:
      policy: the policyRule as JSON.
      provision: the provision as JSON.
      database: for the reading of dates (``define_times``).
      is_modified: whether the consent has a modifier extension, or no coded scope: then it cannot be judged.
    """
    root = _cut(_parsed(provision) if provision else {}, database)
    if root.type is None and policy:
        words = {_POLICIES.get(code) for code in _codes(_parsed(policy))}
        root = root.model_copy(update={"type": "permit" if words == {"permit"} else "deny"})
    return root.model_copy(update={"is_narrowed": True}) if is_modified else root


def _parsed(text: str) -> Any:
    """The JSON; None where it is nested deeper than anything can read."""
    try:
        return json.loads(text)
    except RecursionError:
        return None


def _cut(node: Any, database: duckdb.DuckDBPyConnection, depth: int = 0) -> Provision:
    """What decides of a provision; what has another form than R4's makes it one that cannot be judged."""
    if not isinstance(node, dict) or depth > _DEEPEST:
        return Provision(type="deny", is_narrowed=True)
    word, inner, period = node.get("type"), node.get("provision"), node.get("period")
    given = period if isinstance(period, dict) else {}
    start, end = (_instant(given.get(name), name, database) for name in ("start", "end"))
    purposes, codes = _purposes(node.get("purpose")), _named_codes(node.get("code"))
    unclear = (
        any(node.get(name) is not None for name in _NARROWING)
        or (period is not None and not isinstance(period, dict))
        or any(at is None and given.get(name) is not None for name, at in (("start", start), ("end", end)))
        or None in (purposes, codes)
    )
    return Provision(
        type=word if word in ("permit", "deny") else None if word is None else "deny",
        start=start,
        end=end,
        purposes=tuple(sorted(purposes or ())),
        codes=tuple(sorted(codes or ())),
        is_narrowed=unclear,
        provisions=tuple(
            _cut(each, database, depth + 1)
            for each in (inner if isinstance(inner, list) else [] if inner is None else [inner])
        ),
    )


def _instant(text: Any, end: str, database: duckdb.DuckDBPyConnection) -> str | None:
    """A FHIR time as ISO 8601 in UTC; a day alone is its first or its last instant."""
    if not isinstance(text, str):
        return None
    whole = "at_end(?)" if end == "end" else "coalesce(moment(?), day_of(?)::TIMESTAMP)"
    ((found,),) = database.execute(f"SELECT {whole}", [text] * whole.count("?")).fetchall()
    return None if found is None else str(found.replace(tzinfo=UTC).isoformat())


def _purposes(listed: Any) -> set[str] | None:
    """Codes of ActReason, others as ``system|code``; None if any of them has no code."""
    if listed is None:
        return set()
    if not isinstance(listed, list) or not all(_is_coding(each) for each in listed):
        return None
    return {
        each["code"] if each.get("system") in (None, "", _ACT_REASON) else f"{each['system']}|{each['code']}"
        for each in listed
    }


def _named_codes(listed: Any) -> set[str] | None:
    """``system|code`` of every coding; None if any of them has no code."""
    if listed is None:
        return set()
    concepts = listed if isinstance(listed, list) else [None]
    codings = [each.get("coding") if isinstance(each, dict) else None for each in concepts]
    if not all(isinstance(each, list) and each and all(map(_is_coding, each)) for each in codings):
        return None
    return {f"{each.get('system') or ''}|{each['code']}" for found in codings for each in found or ()}


def _codes(concept: Any) -> set[str]:
    """Codes of a concept; an empty one stands for whatever cannot be read."""
    codings = concept.get("coding") if isinstance(concept, dict) else None
    if not isinstance(codings, list) or not codings:
        return {""}
    return {each["code"] if _is_coding(each) else "" for each in codings}


def _is_coding(each: Any) -> bool:
    return isinstance(each, dict) and isinstance(each.get("code"), str)


def write_consents(database: duckdb.DuckDBPyConnection, private: Path, settings: SiteSettings) -> None:
    """Write the consents and the site's rules into ``private/``; needs ``consent_said``."""
    target = str(private / TABLE).replace("'", "''")
    database.execute(
        "COPY (SELECT person_id, stated, stated_by, is_withdrawn, provision FROM consent_said ORDER BY ALL) "
        f"TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    )
    _write_rules(private, ConsentRules(settings.consent_default, frozenset(settings.consent_codes)))


def save_consents(private: Path, consents: Iterable[Consent], rules: ConsentRules) -> None:
    """Write consents that come from elsewhere than FHIR in the same form; ``private`` must exist."""
    rows = [
        (
            each.person,
            each.stated and each.stated.replace(tzinfo=None),
            each.stated_by and each.stated_by.replace(tzinfo=None),
            each.is_withdrawn,
            each.root.model_dump_json(),
        )
        for each in consents
    ]
    columns = [*zip(*rows, strict=True)] or [()] * 5
    types = (pa.int64(), pa.timestamp("us"), pa.timestamp("us"), pa.bool_(), pa.string())
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    names = ["person_id", "stated", "stated_by", "is_withdrawn", "provision"]
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
                _in_utc(row["stated"]),
                _in_utc(row["stated_by"]),
                row["is_withdrawn"],
                provisions[row["provision"]],
            )
            for row in rows
        ]
        return consents, ConsentRules(rules["default"], frozenset(rules["codes"]))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        raise DataError("the CDM's consents cannot be read", "harmonise the site's data again") from None


def _in_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
