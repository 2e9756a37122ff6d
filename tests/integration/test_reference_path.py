"""DuckDB path = plain Python path (tests/reference), row for row and column for column."""

import gzip
import json
import math
import os
from collections import Counter
from datetime import date
from itertools import chain, product
from pathlib import Path

import pytest
import yaml
from reference.hospital import harmonise
from simulator.hospital import (
    ACT,
    ADMIT,
    DISPOSITION,
    ICD10,
    LOINC,
    PRIORITY,
    SECRET,
    SNOMED,
    UCUM,
    VERIFICATION,
    Loaded,
    coded,
    encounter,
    event,
    observation,
    patient,
    small_hospital,
    write_files,
)
from simulator.hospital import lines as ndjson

from fedhealth.cdm import harmonize
from fedhealth.cdm.tables import TABLES, VISIT_EXTRA
from fedhealth.synthetic.consortium import generate_hospital
from fedhealth.synthetic.site_map import write_site_map

DATA = Path(os.environ.get("FEDHEALTH_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SYNTHEA = DATA / "synthea-r4-ndjson"
RELATIVE = 1e-6
"""Of converted numbers, as the two paths have constants of their own, one of them rounded to seven digits."""


def both(folder, files, site_map=None):
    """Harmonise files of NDJSON by name in both ways, and hold everything equal."""
    write_files(folder / "fhir", files)
    account = harmonize(
        folder / "fhir",
        folder / "cdm",
        site="house",
        site_secret=SECRET,
        site_map=site_map,
        validate="off",
        workers=1,
    )
    unpacked = (gzip.decompress(data) if name.endswith(".gz") else data for name, data in files.items())
    lines = list(chain.from_iterable(data.decode().splitlines() for data in unpacked))
    settings, maps = read_folder(site_map)
    expected = harmonise(lines, secret=SECRET, settings=settings, concept_maps=maps)
    loaded = Loaded(folder / "cdm", account)
    same_tables(loaded, expected)
    same_account(account, expected)
    return loaded


def read_folder(site_map):
    """The settings and the ConceptMaps of a site map."""
    if site_map is None:
        return {}, []
    maps = [json.loads(path.read_text()) for path in sorted(site_map.glob("*.json"))]
    path = site_map / "site.yaml"
    settings = yaml.safe_load(path.read_text()) or {} if path.exists() else {}
    if "extract_date" in settings:
        settings["extract_date"] = date.fromisoformat(str(settings["extract_date"]))
    return settings, maps


def same_tables(loaded, expected):
    for table in (*TABLES.values(), VISIT_EXTRA):
        if table.name == "cdm_source":
            continue
        columns = table.column_names
        theirs = [tuple(row[column] for column in columns) for row in expected.tables[table.name]]
        ours = loaded.rows(table.name, *columns)
        assert len(ours) == len(theirs), table.name
        for left, right in zip(sorted(ours, key=first), sorted(theirs, key=first), strict=True):
            different = [
                column
                for column, a, b in zip(columns, left, right, strict=True)
                if not (
                    a == b
                    or (isinstance(a, float) and b is not None and math.isclose(a, b, rel_tol=RELATIVE))
                )
            ]
            assert not different, (table.name, different, left, right)
    assert set(loaded.rows("private/id_map")) == expected.id_map


def first(row):
    return row[0]


def same_account(account, expected):
    left = Counter()
    for name, count in account.resources.items():
        for kind in ("excluded", "quarantined"):
            left.update({(name, kind, reason): n for reason, n in getattr(count, kind).items()})
    assert left == expected.left
    assert {(u.system, u.code, u.unit): u.n for u in account.unmapped} == expected.unmapped
    for table, count in account.links.items():
        for link in ("reference", "time", "none"):
            assert getattr(count, link) == expected.links[table, link], (table, link)
    values = expected.values
    assert account.values.read == sum(values.values())
    assert account.values.converted == values["converted"]
    assert account.values.inferred == values["inferred"]
    lost = {state: values[state] for state in ("unit", "unit_missing") if values[state]}
    assert account.values.quarantined == lost


def test_the_two_paths_agree_on_the_small_hospital(tmp_path):
    loaded = both(tmp_path, {"all.ndjson": ndjson(small_hospital())})
    assert len(loaded.rows("measurement")) == 4


@pytest.mark.parametrize("index", [0, 3, 7])
def test_the_two_paths_agree_on_a_synthetic_hospital_with_its_own_dialect(tmp_path, index):
    hospital, dialect, lines, _ = generate_hospital(index, patients=15, seed=11)
    (tmp_path / "map").mkdir()
    write_site_map(tmp_path / "map", hospital.name, dialect, extract_date="2026-01-31")
    files = {f"{kind}.ndjson": b"\n".join(found) + b"\n" for kind, found in lines.items()}
    loaded = both(tmp_path, files, site_map=tmp_path / "map")
    assert len(loaded.rows("measurement")) > 1000


@pytest.mark.skipif(not SYNTHEA.is_dir(), reason=f"the public data is not at {SYNTHEA}; set FEDHEALTH_DATA")
def test_the_two_paths_agree_on_the_synthea_sample(tmp_path):
    files = {path.name: path.read_bytes() for path in sorted(SYNTHEA.glob("*.ndjson.gz"))}
    loaded = both(tmp_path, files)
    assert len(loaded.rows("measurement")) > 10_000


ACUTE = {"class": {"system": ACT, "code": "ACUTE"}}
UNIT_2 = "Location?identifier=urn:house|2"
EXPIRED = {"hospitalization": {"dischargeDisposition": coded(DISPOSITION, "exp")}}
WHEN = (
    *("2021", "2021-05", "2021-05-02", "2021-05-02T09:00:00Z", "2021-05-02T23:30:00-05:00"),
    *("2021-05-02T00:30:00+02:00", "2021-07-02T08:00:00", "2021-05-02T09:00:00.250Z", "2021-02-30"),
    *("2021-13", "9999-12-31", "soon", "2021-04-30T08:00:00Z", "2021-05-04T16:00:01Z", None),
)
ENDS = ("2021-05-02T09:00:00Z", "2021-05-02", "2021-05", "2021-05-02T10:30:00+02:00", "2021-05-02T10:00:00")


def numbered(make):
    """A list of resources whose ids are counted."""
    return [
        resource | {"id": f"{resource['resourceType'].lower()}-{n}"} for n, resource in enumerate(make, 1)
    ]


def times():
    """Every kind of event at every kind of time, with and without an encounter."""
    for text, link in product(WHEN, ("stay", "gone", "bo-stay", None)):
        at = {} if text is None else {"effectiveDateTime": text}
        where = {} if link is None else {"encounter": {"reference": f"Encounter/{link}"}}
        pulse = observation("x", "8867-4", 60, "/min")
        del pulse["effectiveDateTime"]
        yield pulse | at | where
        onset = {} if text is None else {"onsetDateTime": text, "abatementDateTime": text}
        yield event("Condition", "x", code=coded(ICD10, "I50.9")) | onset | where
        done = {} if text is None else {"performedDateTime": text}
        yield event("Procedure", "x", status="completed", code=coded(SNOMED, "1")) | done | where
    for start, end in product(ENDS, ENDS):
        period = {"start": start, "end": end}
        yield event("Procedure", "x", status="completed", performedPeriod=period)
        yield event(
            "MedicationAdministration",
            "x",
            status="completed",
            medicationCodeableConcept=coded(SNOMED, "2"),
            effectivePeriod=period,
        )
        yield encounter("x", of="bo", period=period)


def nests():
    """Encounters in encounters: deep, in circles, in nothing, in somebody else's, open."""
    inside = {name: {"partOf": {"reference": f"Encounter/{name}"}} for name in "abcdefgxyz"} | {
        "gone": {"partOf": {"reference": "Encounter/gone"}}
    }
    later = {"period": {"start": "2021-05-02T08:00:00Z"}}
    yield encounter("a")
    for outer, inner in zip("abcde", "bcdef", strict=True):
        yield encounter(inner, **inside[outer], **(ACUTE if inner in "ce" else {}))
    yield encounter("open", **inside["b"], **later)
    yield encounter("x", **inside["z"])
    yield encounter("y", **inside["x"])
    yield encounter("z", **inside["y"])
    yield encounter("hanger", **inside["x"])
    yield encounter("unit", **ACUTE, **inside["gone"])
    yield encounter("room", **ACUTE, partOf={"reference": "Encounter/unit"})
    yield encounter("bed", partOf={"reference": "Encounter/room"})
    yield encounter("ward", **inside["gone"])
    yield encounter("theirs", of="bo", **inside["a"])
    yield encounter("theirs-icu", of="bo", **ACUTE, **inside["a"])
    yield encounter("self", partOf={"reference": "Encounter/self"})
    yield encounter("alone", **ACUTE)
    yield observation("in-open", "8867-4", 60, "/min", effectiveDateTime="2021-05-03T00:00:00Z")
    yield observation("by-part", "8867-4", 60, "/min", encounter={"reference": "Encounter/f"})


def wards():
    """Encounters with locations: named or not, planned, of every period, inside other encounters, in intensive care already."""
    places = ("Location/icu", "https://ehr.example/fhir/Location/icu", "Location/ward", UNIT_2, "Location/")
    for place, status in product(places, (None, "active", "planned", "reserved")):
        said = {} if status is None else {"status": status}
        yield encounter("x", location=[{"location": {"reference": place}} | said])
    for start, end in product(ENDS, ENDS):
        period = {k: v for k, v in (("start", start), ("end", end)) if v is not None}
        yield encounter("x", location=[{"location": {"reference": "Location/icu"}, "period": period}])
    beds = [
        {"location": {"reference": "Location/icu"}, "period": {"start": f"2021-05-0{n}"}} for n in (1, 2, 3)
    ]
    yield encounter("x", location=[*beds, {"status": "active"}, {"location": {}}])
    yield encounter("x", location=beds, period={"start": "2021-05-01T08:00:00Z"})
    yield encounter("x", location=beds, partOf={"reference": "Encounter/stay"})
    yield encounter("x", location=beds, **ACUTE, partOf={"reference": "Encounter/stay"})
    for hour in (0, 12, 23):
        yield observation("x", "8867-4", 60, "/min", effectiveDateTime=f"2021-05-02T{hour:02}:00:00Z")


def units():
    """Numbers with units of every spelling, without one, with a comparator, with a range."""
    spelt = (
        "bpm",
        "{beats}/min",
        "{beats}",
        "degF",
        "Cel",
        "K",
        "mg/dL",
        "MG/DL",
        "umol/L",
        "mmol/L",
        "mEq/L",
    )
    spelt += ("K/uL", "10*9/L", "g/L", "kPa", "mm Hg", "furlong", "", "lb", "[in_i]", "%", "1")
    codes = (
        "8867-4",
        "8310-5",
        "2160-0",
        "2345-7",
        "17861-6",
        "2823-3",
        "777-3",
        "718-7",
        "8480-6",
        "29463-7",
    )
    limits = [{"low": {"value": 1.5}, "high": {"value": 37.25}}]
    for code, unit in product((*codes, "99999-9"), spelt):
        quantity = {"value": 36.7} | ({"unit": unit} if unit else {})
        yield observation("x", code, valueQuantity=quantity, referenceRange=limits)
        yield observation(
            "x", code, valueQuantity=quantity | {"system": UCUM, "code": unit, "comparator": "<="}
        )
    for value in (37, 98.6, 60, 0, -5, 1e-7, 123456789012345680):
        yield observation("x", "8310-5", valueQuantity={"value": value})


def values():
    """Values of other kinds, components, no code, no value, both a value and none."""
    part = {"code": coded(LOINC, "8480-6"), "valueQuantity": {"value": 16, "unit": "kPa"}}
    nothing = {"code": coded(LOINC, "8462-4"), "dataAbsentReason": coded("urn:x", "unknown")}
    coded_part = {"code": coded("urn:house", "p"), "valueCodeableConcept": coded(SNOMED, "3")}
    for category in ("vital-signs", "social-history"):
        of = {"category": [coded("urn:c", category)]}
        yield observation("x", "85354-9", component=[part, nothing, coded_part, {"valueString": "?"}], **of)
        yield observation("x", "85354-9", 5, "1", component=[part, {"code": {}}, coded_part], **of)
        yield observation("x", "85354-9", component=[{"code": {"text": "?"}}], **of)
        yield observation("x", "72166-2", valueCodeableConcept=coded(SNOMED, "266919005"), **of)
        yield observation("x", "72166-2", valueCodeableConcept={"text": "?"}, **of)
        yield observation("x", "72166-2", valueBoolean=False, **of)
        yield observation("x", "72166-2", valueInteger=3, **of)
        yield observation("x", "72166-2", valueString="never shown", **of)
        yield observation("x", "8867-4", **of)
        yield observation("x", "", 5, "1", code={"text": "no code"}, **of)
        yield observation("x", "", 5, "1", code={"coding": [{"system": LOINC}]}, **of)
    nulls = {"system": LOINC, "code": "8867-4", "display": None, "userSelected": None}
    yield observation("x", "", 60, "/min", code={"coding": [nulls]})
    yield observation("x", "", 60, "/min", code={"coding": [{"system": None, "code": "local"}]})
    yield observation("x", "8867-4", 60, "/min", dataAbsentReason=coded("urn:x", "unknown"))
    yield observation("x", "85354-9", component=[part | {"dataAbsentReason": coded("urn:x", "unknown")}])
    yield observation("x", "8867-4", valueQuantity={"value": 60, "comparator": "~"})
    yield observation("x", "85354-9", component=[part | {"valueQuantity": {"value": 1, "comparator": "ad"}}])
    chosen = [{"system": "urn:house", "code": "q", "userSelected": True}, {"system": SNOMED, "code": "4"}]
    for codings in (chosen, chosen[::-1], [*chosen, {"system": LOINC, "code": "2160-0"}], chosen[1:]):
        yield observation("x", "", 1, "mg/dL", code={"coding": codings})
        yield event(
            "Procedure", "x", status="completed", code={"coding": codings}, performedDateTime="2021-05-02"
        )


def statuses():
    """Every status of every type, and some that no type has."""
    codes = ("finished", "final", "completed", "active", "planned", "cancelled", "entered-in-error", "draft")
    codes += ("not-done", "preparation", "unknown", "bogus", None)
    drug = {"medicationCodeableConcept": coded(SNOMED, "2"), "authoredOn": "2021-05-02", "intent": "order"}
    for status in codes:
        said = {} if status is None else {"status": status}
        for kind in (
            "Encounter",
            "Observation",
            "MedicationRequest",
            "MedicationAdministration",
            "Procedure",
        ):
            at = {"effectiveDateTime": "2021-05-02", "performedDateTime": "2021-05-02"}
            about = {"period": {"start": "2021-05-02"}, "code": coded(LOINC, "8867-4")}
            yield event(kind, "x") | at | about | drug | said
    yield event("MedicationRequest", "x", status="active") | drug | {"intent": "plan"}
    yield event("MedicationRequest", "x", status="active") | drug | {"intent": "bogus"}
    yield event("MedicationRequest", "x", status="active") | drug | {"doNotPerform": True}
    yield event("MedicationRequest", "x", status="active", authoredOn="2021-05-02")
    for code in ("confirmed", "refuted", "provisional", "entered-in-error", "bogus"):
        for system in (VERIFICATION, "urn:house"):
            verified = {"verificationStatus": coded(system, code)}
            yield event("Condition", "x", recordedDate="2021-05-02", code=coded(ICD10, "E11.9"), **verified)
            both = [{"system": "urn:house", "code": "X"}, {"system": system, "code": code}]
            verified = {"verificationStatus": {"coding": both}}
            yield event("Condition", "x", recordedDate="2021-05-02", code=coded(ICD10, "E11.9"), **verified)


def subjects():
    """References of every spelling, to nobody, to somebody who is no patient."""
    spelt = ("Patient/ada", "Patient/ada/_history/3", "https://ehr.example/fhir/Patient/ada", "Group/all")
    spelt += (
        "Patient/gone",
        "Patient?identifier=urn:mrn|7",
        "Patient?identifier=urn:mrn|8",
        "Device/ada",
        "#ada",
    )
    spelt += (
        "ada",
        "Practitioner/ada",
        "urn:uuid:0",
        "Patient/",
        "https://ehr.example/ada",
        "Patient/nobirth",
    )
    for text in spelt:
        for subject in ({"reference": text}, {"display": text}):
            yield observation("x", "8867-4", 60, "/min") | {"subject": subject}
            yield event("Condition", "x", recordedDate="2021-05-02") | {"subject": subject}
            yield encounter("x") | {"subject": subject}


def people():
    """Births and deaths of every precision; deaths that disagree."""
    for text in ("1950", "1950-03", "1950-03-04", "1950-03-04T23:30:00-05:00", "1950-02-30", "soon", None):
        born = patient("x")
        del born["birthDate"]
        yield born | ({} if text is None else {"birthDate": text})
    for text in WHEN[:-1]:
        yield patient("x", deceasedDateTime=text)
    for gender in ("male", "other", "unknown", "M"):
        yield patient("x", gender=gender, deceasedBoolean=True)
    url = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
    for name, code in (("race", "2106-3"), ("race", "9999-9"), ("ethnicity", "2135-2"), ("birthsex", "F")):
        inner = [{"url": "text", "valueString": "?"}, {"url": "ombCategory", "valueCoding": {"code": code}}]
        yield patient("x", extension=[{"url": url + name, "extension": inner}])


def classes():
    """Classes, sources, dispositions, priorities; known, local, absent."""
    for code in ("IMP", "EMER", "AMB", "ACUTE", "HH", "bogus"):
        for source, priority in product(("emd", "outp", "bogus", None), ("EM", "EL", "R", None)):
            inside = {} if source is None else {"admitSource": coded(ADMIT, source)}
            ranked = {} if priority is None else {"priority": coded(PRIORITY, priority)}
            yield encounter("x", **ranked, hospitalization=inside, **{"class": {"system": ACT, "code": code}})
    for code in ("home", "exp", "aadvice", "bogus"):
        yield encounter("x", hospitalization={"dischargeDisposition": coded(DISPOSITION, code)})
    yield encounter("x", **{"class": {"code": "IMP"}})
    unclassed = encounter("x")
    del unclassed["class"]
    yield unclassed


def deaths():
    """Two discharges as expired, one of a day alone; one that is open; one inside another."""
    first_end, second_end = "2021-05-04", "2021-05-06T10:00:00Z"
    yield encounter("died", period={"start": "2021-05-01", "end": first_end}, **EXPIRED)
    yield encounter("again", period={"start": "2021-05-05", "end": second_end}, **EXPIRED)
    yield encounter("open", of="bo", period={"start": "2021-05-05"}, **EXPIRED)
    yield encounter("whole", of="cy")
    yield encounter("inner", of="cy", partOf={"reference": "Encounter/whole"}, **EXPIRED)


def repeats():
    """Versions of one id, whose age is told by times of other offsets, by numbers, or not at all."""
    for number, stamps in enumerate(
        (
            ("2021-05-01T10:00:00+02:00", "2021-05-01T09:00:00Z"),  # the second is later
            ("2021-05-01T10:00:00Z", "2021-05-01T10:00:00.500Z"),
            ("2021-05-01T10:00:00Z", "2021-05-01T12:00:00+01:00", None),
            (None, "2021-05-01T10:00:00Z"),
        )
    ):
        for value, stamp in enumerate(stamps, 60):
            meta = {} if stamp is None else {"meta": {"lastUpdated": stamp}}
            yield observation(f"stamped-{number}", "8867-4", value, "/min", **meta)
    for value, version in ((61, "9"), (62, "10"), (63, "x")):
        yield observation("numbered", "8867-4", value, "/min", meta={"versionId": version})
    for status, version in (("final", "1"), ("entered-in-error", "2")):
        yield observation("withdrawn", "8867-4", 60, "/min", status=status, meta={"versionId": version})
    yield from [observation("copied", "8867-4", 60, "/min")] * 3


def drugs():
    """Drugs by code, by reference, from inside, of nothing; routes and doses; ends without a time."""
    yield {"resourceType": "Medication", "id": "tablet", "code": coded(SNOMED, "5")}
    inside = [{"resourceType": "Medication", "id": "m", "code": coded(SNOMED, "6")}]
    for text in ("Medication/tablet", "https://ehr.example/Medication/tablet", "#m", "#n", "Medication/gone"):
        yield event(
            "MedicationRequest",
            "x",
            status="active",
            intent="order",
            authoredOn="2021-05-02T10:00:00Z",
            contained=inside,
            medicationReference={"reference": text},
            dispenseRequest={"quantity": {"value": 30}},
            dosageInstruction=[
                {"route": coded("urn:house", "po"), "doseAndRate": [{"doseQuantity": {"unit": "mg"}}]}
            ],
        )
    for end in ("2021-05-03", "2021-05-03T10:00:00Z", None):
        yield event(
            "MedicationAdministration",
            "x",
            status="completed",
            medicationCodeableConcept=coded(SNOMED, "5"),
            context={"reference": "Encounter/stay"},
            effectivePeriod={"start": "2021-05-02T10:00:00Z"} | ({} if end is None else {"end": end}),
            dosage={"dose": {"value": 2.5, "unit": "mL"}, "route": coded("urn:house", "iv")},
        )


SPITE = {
    "times": lambda: numbered(times()),
    "nests": lambda: list(nests()),
    "wards": lambda: numbered(wards()),
    "units": lambda: numbered(units()),
    "values": lambda: numbered(values()),
    "statuses": lambda: numbered(statuses()),
    "subjects": lambda: numbered(subjects()),
    "people": lambda: numbered(people()),
    "classes": lambda: numbered(classes()),
    "deaths": lambda: list(deaths()),
    "repeats": lambda: list(repeats()),
    "drugs": lambda: numbered(drugs()),
}


def spiteful(name):
    """The resources of a kind of spite, among the people and stays that they speak of."""
    found = SPITE[name]()
    renamed = [r | ({"id": "tablet"} if r["resourceType"] == "Medication" else {}) for r in found]
    nobirth = {"resourceType": "Patient", "id": "nobirth"}
    mrn = {"identifier": [{"system": "urn:mrn", "value": "7"}]}
    people_there = [
        patient("ada", **mrn),
        patient("bo"),
        patient("cy", deceasedDateTime="2021-05-20"),
        nobirth,
    ]
    stays = [] if name in ("deaths", "nests") else [encounter("stay"), encounter("bo-stay", of="bo")]
    noise = [{"resourceType": "Device", "id": "d"}, {"resourceType": "Bogus", "id": "b"}, {"id": "none"}]
    noise += [{"resourceType": "Organization", "id": "house"}, {"resourceType": "Patient", "id": "a b"}]
    return ndjson([*people_there, *stays, *renamed, *noise, {"resourceType": "Patient"}]) + b"\n{cut\n"


SETTINGS = {
    "plain": {},
    "berlin": {
        "time_zone": "Europe/Berlin",
        "extract_date": date(2021, 5, 20),
        "unit_inference": True,
        "intensive_care_locations": ["icu", UNIT_2],
    },
}


OWN_CODES = {
    "resourceType": "ConceptMap",
    "group": [
        {
            "source": source,
            "target": "https://fhir-terminology.ohdsi.org",
            "element": [{"code": code, "target": [{"code": concept, "equivalence": "equivalent"}]}],
        }
        for source, code, concept in (
            ("urn:house", "po", "4132161"),
            (SNOMED, "3", "4146380"),
            (SNOMED, "266919005", "4144272"),
        )
    ],
}
"""Codes of a route and of values that a site takes to concepts itself."""


@pytest.mark.parametrize(("name", "site"), list(product(SPITE, SETTINGS)))
def test_the_two_paths_agree_on_spiteful_resources(tmp_path, name, site):
    folder = tmp_path / "map"
    folder.mkdir()
    (folder / "site.yaml").write_text(yaml.safe_dump(SETTINGS[site]))
    if site == "berlin":
        (folder / "codes.json").write_text(json.dumps(OWN_CODES))
    both(tmp_path, {"all.ndjson": spiteful(name)}, site_map=folder)
