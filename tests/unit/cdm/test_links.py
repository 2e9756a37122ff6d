"""References: every spelling is followed, what points nowhere is told, nobody gets another patient's visit."""

import json

import pytest
from simulator.hospital import ACT, RXNORM, SECRET, coded, encounter, event, key, observation, patient

from fedhealth.cdm.keys import keyed_ids

ACUTE = {"class": {"system": ACT, "code": "ACUTE"}}


def pulse(name="p", **fields):
    return observation(name, "8867-4", 60, "/min", **fields)


@pytest.mark.parametrize(
    "reference",
    [
        "Patient/ada",
        "Patient/ada/_history/2",
        "https://ehr.example/fhir/Patient/ada",
        "Patient?identifier=urn:mrn|7",
        "Patient?identifier=7",
    ],
)
def test_every_spelling_of_a_reference_finds_the_patient(load, reference):
    ada = patient("ada", identifier=[{"system": "urn:mrn", "value": "7"}])
    loaded = load([ada, pulse(subject={"reference": reference})])
    assert loaded.column("measurement", "person_id") == [key("Patient/ada")]


def test_a_bundle_entry_is_found_by_its_full_url(load):
    urn = "urn:uuid:6f1c3a52-0000-4000-8000-000000000001"
    entries = [{"fullUrl": urn, "resource": patient("ada")}, {"resource": pulse(subject={"reference": urn})}]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    loaded = load(files={"a.json": json.dumps(bundle).encode()})
    assert loaded.column("measurement", "person_id") == [key("Patient/ada")]


def test_encounters_organizations_and_medications_are_found_by_their_identifier(load):
    def named(value):
        return [{"system": "urn:house", "value": value}]

    visit = encounter(
        "e", identifier=named("v1"), serviceProvider={"reference": "Organization?identifier=urn:house|o1"}
    )
    drug = {"code": coded(RXNORM, "1191")}
    order = {"status": "active", "intent": "order", "authoredOn": "2021-05-02"}
    loaded = load(
        [
            patient("ada"),
            {"resourceType": "Organization", "id": "o", "identifier": named("o1")},
            {"resourceType": "Medication", "id": "m", "identifier": named("m1")} | drug,
            visit,
            pulse(encounter={"reference": "Encounter?identifier=urn:house|v1"})
            | {"subject": {"reference": "Patient/ada"}},
            event("MedicationRequest", "r", **order)
            | {
                "subject": {"reference": "Patient/ada"},
                "medicationReference": {"reference": "Medication?identifier=m1"},
            },
        ]
    )
    assert loaded.column("visit_occurrence", "care_site_id") == [key("Organization/o")]
    assert loaded.account.links["measurement"].reference == 1
    assert loaded.column("drug_exposure", "drug_source_value") == [f"{RXNORM}|other"]  # rare, but read


def test_an_identifier_of_two_patients_finds_neither(load):
    twins = [patient(name, identifier=[{"system": "urn:mrn", "value": "7"}]) for name in ("ada", "bo")]
    loaded = load([*twins, pulse(subject={"reference": "Patient?identifier=urn:mrn|7"})])
    assert loaded.reasons("Observation") == {"quarantined:dangling_subject": 1}


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ({"reference": "Patient/nobody"}, "dangling_subject"),
        ({"reference": "Group/all"}, "dangling_subject"),
        ({"display": "Ada"}, "missing_subject"),
    ],
)
def test_a_resource_of_nobody_known_is_quarantined_with_a_reason(load, subject, reason):
    stray = {"subject": subject}
    loaded = load(
        [
            patient("ada"),
            encounter("e") | stray,
            pulse() | stray,
            event("Condition", "c", recordedDate="2021-05-01") | stray,
        ]
    )
    for kind in ("Encounter", "Observation", "Condition"):
        assert loaded.reasons(kind) == {f"quarantined:{reason}": 1}, kind


@pytest.mark.parametrize(
    ("when", "visit", "link"),
    [
        ("2021-04-30T07:59:59Z", None, "none"),
        ("2021-04-30T08:00:00Z", "stay", "time"),  # 24 h before the start
        ("2021-05-04T16:00:00Z", "stay", "time"),
        ("2021-05-04T16:00:01Z", None, "none"),
        ("2021-05-04", None, "none"),  # a date alone counts as its end, which is after the stay
    ],
)
def test_an_event_without_an_encounter_goes_to_the_visit_that_holds_its_time(load, when, visit, link):
    loaded = load([patient("ada"), encounter("stay"), pulse(effectiveDateTime=when)])
    expected = None if visit is None else key(f"Encounter/{visit}")
    assert loaded.column("measurement", "visit_occurrence_id") == [expected]
    assert getattr(loaded.account.links["measurement"], link) == 1


def test_of_two_visits_that_hold_a_time_the_later_start_wins(load):
    second = encounter("second", period={"start": "2021-05-03T08:00:00Z", "end": "2021-05-09T08:00:00Z"})
    loaded = load(
        [patient("ada"), encounter("first"), second, pulse(effectiveDateTime="2021-05-03T12:00:00Z")]
    )
    assert loaded.column("measurement", "visit_occurrence_id") == [key("Encounter/second")]


def test_a_reference_to_another_patients_encounter_links_nothing(load):
    theirs = pulse(encounter={"reference": "Encounter/stay"})
    loaded = load([patient("ada"), patient("bo"), encounter("stay", of="bo"), theirs])
    assert loaded.one("measurement", "person_id", "visit_occurrence_id") == (key("Patient/ada"), None)


def test_an_encounter_inside_another_patients_is_a_visit_of_its_own(load):
    inner = encounter("inner", of="ada", partOf={"reference": "Encounter/outer"})
    loaded = load([patient("ada"), patient("bo"), encounter("outer", of="bo"), inner])
    assert len(loaded.rows("visit_occurrence")) == 2
    assert loaded.rows("visit_detail") == []


def test_parts_of_a_stay_are_details_of_the_outermost_one(load):
    ward = encounter("ward", partOf={"reference": "Encounter/stay"})
    room = encounter("room", partOf={"reference": "Encounter/ward"})
    loaded = load([patient("ada"), encounter("stay"), ward, room])
    assert loaded.column("visit_occurrence", "visit_occurrence_id") == [key("Encounter/stay")]
    assert loaded.column("visit_detail", "visit_occurrence_id") == [key("Encounter/stay")] * 2


@pytest.mark.parametrize("end", [{}, {"end": "2021-05-06T12:00:00Z"}], ids=["open", "ended"])
def test_a_part_that_starts_after_its_stay_does_not_end_before_it_starts(load, end):
    late = {"start": "2021-05-06T08:00:00Z"} | end
    ward = encounter("ward", partOf={"reference": "Encounter/stay"}, period=late)
    loaded = load([patient("ada"), encounter("stay"), ward])
    start, last, day = loaded.one(
        "visit_detail", "visit_detail_start_datetime", "visit_detail_end_datetime", "visit_detail_end_date"
    )
    assert last == (start.replace(hour=12) if end else start)
    assert day == start.date()


def test_times_in_a_unit_that_the_site_names_are_intensive_care(load, tmp_path):
    (tmp_path / "site.yaml").write_text("intensive_care_locations: [icu-1]\n")
    night = {"start": "2021-05-02T20:00:00Z", "end": "2021-05-03T06:00:00Z"}
    locations = [
        {"location": {"reference": "Location/ward-7"}},
        {"location": {"reference": "Location/icu-1"}, "period": night},
        {"location": {"reference": "Location/icu-1"}, "status": "planned"},
        {
            "location": {"reference": "Location/icu-1"},
            "period": {"start": night["end"], "end": night["start"]},
        },
    ]
    beats = pulse(effectiveDateTime="2021-05-03T01:00:00Z", encounter={"reference": "Encounter/stay"})
    loaded = load([patient("ada"), encounter("stay", location=locations), beats], site_map=tmp_path)
    assert loaded.one(
        "visit_detail",
        "visit_detail_id",
        "visit_detail_concept_id",
        "visit_detail_start_datetime::VARCHAR",
        "visit_detail_end_datetime::VARCHAR",
        "visit_occurrence_id",
    ) == (key("Encounter/stay#1"), 32037, "2021-05-02 20:00:00", "2021-05-03 06:00:00", key("Encounter/stay"))
    assert loaded.one("measurement", "visit_detail_id") == (key("Encounter/stay#1"),)
    assert loaded.reasons("Encounter") == {}


UNIT = {"location": {"reference": "Location/icu-1"}}


@pytest.mark.parametrize(
    ("stay", "details"),
    [
        (encounter("stay", **ACUTE, location=[UNIT]), [("05-01 08:00", "05-04 16:00")]),
        (encounter("stay", location=[UNIT, {"location": {"reference": "Location/ward"}}]), []),
        (
            encounter("stay", location=[UNIT | {"period": {"start": "2019-01-01", "end": "2022-01-01"}}]),
            [("05-01 08:00", "05-04 16:00")],
        ),
        (encounter("stay", location=[UNIT | {"period": {"start": "2019-01-01", "end": "2020-01-01"}}]), []),
        (
            encounter("stay", location=[UNIT | {"period": {"start": "2021-05-03T10:00:00Z"}}] * 2),
            [("05-03 10:00", "05-04 16:00")],
        ),
    ],
    ids=["outermost of that class", "among others without a time", "longer", "before", "twice"],
)
def test_a_time_in_intensive_care_is_told_lies_in_its_encounter_and_counts_once(
    load, tmp_path, stay, details
):
    (tmp_path / "site.yaml").write_text("intensive_care_locations: [icu-1]\n")
    loaded = load([patient("ada"), stay], site_map=tmp_path)
    times = loaded.rows(
        "visit_detail", "visit_detail_start_datetime::VARCHAR", "visit_detail_end_datetime::VARCHAR"
    )
    assert [(start[5:16], end[5:16]) for start, end in times] == details
    told = len(stay["location"]) - ("ward" in str(stay))
    assert loaded.account.notes["intensive_care_without_time"] == told - len(details)


def test_an_identifier_with_and_one_without_a_system_that_read_alike_find_neither(load):
    one = patient("ada", identifier=[{"system": "urn:mrn", "value": "7"}])
    other = patient("bo", identifier=[{"value": "urn:mrn|7"}])
    loaded = load([one, other, pulse(subject={"reference": "Patient?identifier=urn:mrn|7"})])
    assert loaded.reasons("Observation") == {"quarantined:dangling_subject": 1}


def test_a_circle_of_encounters_and_intensive_care_in_nothing_are_quarantined(load):
    circle = [encounter(a, partOf={"reference": f"Encounter/{b}"}) for a, b in (("x", "y"), ("y", "x"))]
    lost = encounter("unit", **ACUTE, partOf={"reference": "Encounter/gone"})
    loaded = load([patient("ada"), *circle, lost])
    assert loaded.reasons("Encounter") == {
        "quarantined:part_of_cycle": 2,
        "quarantined:dangling_part_of": 1,
    }


def test_a_visit_names_the_one_before_it(load):
    later = encounter("later", period={"start": "2021-06-01T08:00:00Z", "end": "2021-06-02T08:00:00Z"})
    loaded = load([patient("ada"), later, encounter("stay")])
    assert loaded.rows("visit_occurrence", "visit_start_date::VARCHAR", "preceding_visit_occurrence_id") == [
        ("2021-05-01", None),
        ("2021-06-01", key("Encounter/stay")),
    ]


def test_ids_are_the_keyed_blake2b_of_the_reference():
    # printf Patient/ada | openssl mac -macopt hexkey:000102...1f -macopt size:8 BLAKE2BMAC
    assert keyed_ids(["Patient/ada"], site_secret=SECRET).tolist() == [0x7115F9133DF45FBE]


def test_another_secret_gives_other_ids_to_everybody(load):
    resources = [patient("ada"), encounter("stay"), pulse(encounter={"reference": "Encounter/stay"})]
    ours, theirs = load(resources), load(resources, secret=bytes(32))
    for table, column in (
        ("person", "person_id"),
        ("visit_occurrence", "visit_occurrence_id"),
        ("measurement", "measurement_id"),
    ):
        assert not set(ours.column(table, column)) & set(theirs.column(table, column))


def test_a_reload_keeps_every_id(load):
    resources = [patient("ada"), encounter("stay"), pulse()]
    assert load(resources).digests() == load(resources).digests()


def test_intensive_care_inside_intensive_care_in_nothing_is_quarantined_too(load):
    lost = encounter("unit", **ACUTE, partOf={"reference": "Encounter/gone"})
    bed = encounter("bed", **ACUTE, partOf={"reference": "Encounter/unit"})
    loaded = load([patient("ada"), lost, bed])
    assert loaded.reasons("Encounter") == {"quarantined:dangling_part_of": 2}
