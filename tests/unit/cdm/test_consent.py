"""FHIR Consents of a load: which are kept, what is kept of them, and who is in."""

import json
from datetime import UTC, datetime

import duckdb
import numpy as np
import pytest
import yaml
from simulator.hospital import coded, encounter, key, patient

from fedhealth.cdm.consent import read_consents
from fedhealth.errors import DataError
from fedhealth.privacy.consent import left_out

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
CODES = "http://terminology.hl7.org/CodeSystem/consentpolicycodes"


def consent(name, of="ada", word="deny", **fields):
    return {
        "resourceType": "Consent",
        "id": name,
        "status": "active",
        "scope": coded(SCOPE, "research"),
        "category": [coded("http://loinc.org", "59284-0")],
        "patient": {"reference": f"Patient/{of}"},
        "dateTime": "2025-03-01T10:00:00Z",
        "policyRule": coded("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTIN"),
        "provision": {"type": word} if word else {},
    } | fields


def nested(depth):
    """A denial deep inside permits."""
    provision = {"type": "deny"}
    for _ in range(depth):
        provision = {"type": "permit", "provision": [provision]}
    return provision


def out(loaded, *names):
    """Which of the patients by these ids are left out."""
    consents, rules = read_consents(loaded.folder)
    people = np.array([key(f"Patient/{name}") for name in names], np.int64)
    found = left_out(people, consents, rules=rules, now=NOW)
    return {name for name, is_out in zip(names, found, strict=True) if is_out}


@pytest.mark.parametrize(
    ("given", "is_out"),
    [
        (consent("c"), True),
        (consent("c", word="permit"), False),
        (consent("c", status="rejected", provision={"type": "permit"}), True),
        (consent("c", word="permit", status="inactive"), True),
        (consent("c", status="inactive"), False),
        (consent("c", word=None), False),  # OPTIN
        (consent("c", word=None, policyRule=coded("x", "OPTOUT")), True),
        (consent("c", provision={"type": "permit", "period": {"end": "2026-05-31"}}), True),
        (consent("c", provision={"type": "permit", "period": {"end": "2026-06-01"}}), False),
        (consent("c", provision={"type": "permit", "period": {"end": "soon"}}), True),
        (consent("c", provision={"type": "permit", "period": {"start": "2026-06-01T00:00:01Z"}}), True),
        (consent("c", provision={"type": "permit", "provision": [{"type": "deny"}]}), True),
        (consent("c", provision={"type": "deny", "provision": [{"type": "permit"}]}), False),
        (consent("c", provision={"type": "permit", "provision": [{"type": "allow"}]}), True),
        (consent("c", provision={"type": "permit", "provision": ["deny"]}), True),
        (consent("c", provision={"type": "permit", "actor": [{"role": coded("x", "y")}]}), True),
        (consent("c", provision={"type": "deny", "purpose": [{"code": "TREAT"}]}), False),
        (consent("c", provision={"type": "deny", "purpose": [{"code": "HRESCH"}]}), True),
        (consent("c", provision={"type": "permit", "purpose": [{"display": "treatment only"}]}), True),
        (consent("c", provision={"type": "permit", "purpose": {"code": "TREAT"}}), True),
        (consent("c", provision={"type": "permit", "code": [{"text": "treatment only"}]}), True),
        (consent("c", provision={"type": "permit", "period": "2020"}), True),
        (consent("c", provision={"type": "permit", "period": {"end": 0}}), True),
        (consent("c", provision={"type": "permit", "provision": {"type": "deny"}}), True),
        (consent("c", provision={"type": "permit", "modifierExtension": [{"url": "urn:x"}]}), True),
        (consent("c", word="permit", modifierExtension=[{"url": "urn:x"}]), True),
        (consent("c", word=None, policyRule={"text": "opt-out"}), True),
        (consent("c", provision=nested(300)), True),
        (consent("c", scope={"text": "research"}), True),
        (consent("c", word="permit", scope={"text": "research"}), True),
    ],
)
def test_a_consent_of_a_hospital_decides_about_its_patient_alone(load, given, is_out):
    loaded = load([patient("ada"), patient("bo"), given])
    assert loaded.account.resources["Consent"].loaded == 1
    assert out(loaded, "ada", "bo") == ({"ada"} if is_out else set())


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        ("excluded:other_scope", consent("c", scope=coded(SCOPE, "treatment"))),
        ("excluded:planned", consent("c", status="draft")),
        ("excluded:planned", consent("c", status="proposed")),
        ("excluded:entered_in_error", consent("c", status="entered-in-error")),
        ("quarantined:dangling_subject", consent("c", of="nobody")),
    ],
)
def test_what_says_nothing_of_research_is_counted_and_not_kept(load, reason, given):
    loaded = load([patient("ada"), given])
    assert loaded.reasons("Consent") == {reason: 1}
    assert out(loaded, "ada") == set()


R5 = {
    **{name: value for name, value in consent("c").items() if name not in ("patient", "scope", "provision")},
    "subject": {"reference": "Patient/ada"},
    "decision": "permit",
}


@pytest.mark.parametrize(
    ("reason", "given", "options"),
    [
        ("fhir_version", consent("c", word="permit", decision="deny"), {}),
        ("fhir_version", consent("c", word="permit", **{"except": [{"type": "deny"}]}), {}),
        ("fhir_version", R5, {}),
        ("invalid_status", consent("c", word="permit", status="revoked"), {}),
        ("r4b_invalid", consent("c", word="permit", dateTime="today"), {"validate": "all"}),
    ],
)
def test_a_consent_to_research_that_cannot_be_read_denies(load, reason, given, options):
    loaded = load([patient("ada"), patient("bo"), given], **options)
    assert loaded.reasons("Consent") == {f"quarantined:{reason}": 1}
    assert loaded.account.resources["Consent"].loaded == 0
    assert out(loaded, "ada", "bo") == {"ada"}


def test_a_denial_whose_patient_is_missing_is_quarantined_and_not_silent(load):
    given = {name: value for name, value in consent("c").items() if name != "patient"}
    assert load([patient("ada"), given]).reasons("Consent") == {"quarantined:missing_subject": 1}


def test_the_newest_version_and_the_newest_consent_count(load):
    old = consent("a", word="permit", meta={"lastUpdated": "2025-01-01T00:00:00Z"})
    new = consent("a", word="deny", meta={"lastUpdated": "2025-02-01T00:00:00Z"})
    assert out(load([patient("ada"), old, new]), "ada") == {"ada"}
    later = consent("b", word="permit", dateTime="2025-04-01")
    assert out(load([patient("ada"), old, new, later]), "ada") == set()


def test_a_site_can_ask_for_consent_and_name_its_codes(load, tmp_path):
    settings = {"consent_default": "opt-in", "consent_codes": ["urn:oid:2.16|use"]}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(settings))
    inner = [{"type": "permit", "code": [coded("urn:oid:2.16", "use")]}]
    other = [{"type": "permit", "code": [coded("urn:oid:2.16", "other")]}]
    given = [
        *(patient(name) for name in ("ada", "bo", "cy")),
        consent("a", "ada", provision={"type": "deny", "provision": inner}),
        consent("b", "bo", provision={"type": "deny", "provision": other}),
    ]
    assert out(load(given, site_map=tmp_path), "ada", "bo", "cy") == {"bo", "cy"}


def test_nothing_is_kept_but_what_decides_and_only_in_private(load):
    given = consent(
        "needle-consent",
        provision={
            "type": "deny",
            "actor": [{"role": coded("x", "SECRETWORD"), "reference": {"display": "SECRETWORD"}}],
            "extension": [{"url": "urn:x", "valueString": "SECRETWORD"}],
        },
        organization=[{"display": "SECRETWORD"}],
    )
    loaded = load([patient("ada"), encounter("e"), given])
    (row,) = loaded.rows("private/consent")
    assert json.loads(row[4]) == {
        "type": "deny",
        "start": None,
        "end": None,
        "purposes": [],
        "codes": [],
        "is_narrowed": True,
        "provisions": [],
    }
    for path in loaded.folder.rglob("*.parquet"):
        with duckdb.connect(":memory:") as database:
            rows = database.execute(f"SELECT t::VARCHAR FROM '{path}' t").fetchall()
        assert not [row for row in rows if "SECRETWORD" in row[0]]


def test_periods_are_not_shifted_with_the_patients_dates(load):
    given = consent("c", provision={"type": "permit", "period": {"end": "2026-06-02"}})
    loaded = load([patient("ada"), encounter("e"), given], profile="safe-harbor")
    assert loaded.column("private/consent", "stated") == [datetime(2025, 3, 1, 10)]
    assert out(loaded, "ada") == set()


def test_without_consents_there_is_an_empty_list_and_without_a_list_nothing(load):
    loaded = load([patient("ada")])
    assert out(loaded, "ada") == set()
    (loaded.folder / "private" / "consent.json").unlink()
    with pytest.raises(DataError, match="consents cannot be read"):
        read_consents(loaded.folder)
