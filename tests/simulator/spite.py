"""Resources that are right, odd or wrong in every way that harmonisation must tell apart, by the kind of spite."""

from itertools import product

from simulator.hospital import (
    ACT,
    ADMIT,
    DISPOSITION,
    ICD10,
    LOINC,
    PRIORITY,
    SNOMED,
    UCUM,
    VERIFICATION,
    coded,
    encounter,
    event,
    observation,
    patient,
)
from simulator.hospital import lines as ndjson

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
