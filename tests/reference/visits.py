"""Encounters: the outermost ones are visits, those inside them visit details."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from reference.codes import ACT_CODE, ACT_PRIORITY
from reference.resources import keyed_id, reference_of

INPATIENT, EMERGENCY_TO_INPATIENT, INTENSIVE_CARE = 9201, 262, 32037
FROM_EMERGENCY, STILL_PATIENT, EHR = 8870, 32220, 32817


@dataclass
class Stay:
    """An encounter that is kept."""

    name: str
    key: int
    person: str
    start: str
    end: str | None
    began: datetime
    ended: datetime | None
    parent: str | None
    provider: str | None
    visit_class: Any
    admitted: Any
    discharged: Any
    priority: Any
    concept_id: int
    is_icu: bool
    outer: "Stay | None" = None

    @property
    def visit(self):
        """The outermost encounter around this one, or this one."""
        return self if self.outer is None else self.outer.visit


def keep_encounters(extract, codes, settings, secret):
    """The stays by encounter id, and the ids of patients and encounters of other organisations."""
    encounters = extract.kept["Encounter"]
    for name, resource in list(encounters.items()):
        subject = reference_of(resource, "subject")
        if subject is None:
            extract.drop("Encounter", name, "quarantined", "missing_subject")
        elif _person(extract, resource) is None:
            extract.drop("Encounter", name, "quarantined", "dangling_subject")
    foreign = _leave_other_organizations(extract, settings.get("organizations", []))
    for name, resource in list(encounters.items()):
        reason = _time_fault(resource.get("period", {}), extract.clock)
        if reason:
            extract.drop("Encounter", name, "quarantined", reason)
    stays = {
        name: _stay(extract, name, resource, codes, settings, secret) for name, resource in encounters.items()
    }
    _nest(extract, stays)
    return stays, *foreign


def _person(extract, resource):
    """The id of the patient of a resource, or None if it is not kept."""
    target = extract.target(reference_of(resource, "subject"))
    kind, _, name = (target or "").partition("/")
    return name if kind == "Patient" and name in extract.kept["Patient"] else None


def _leave_other_organizations(extract, organizations):
    if not organizations:
        return set(), set()
    own = {"Organization/" + name.removeprefix("Organization/") for name in organizations}
    encounters, patients = extract.kept["Encounter"], extract.kept["Patient"]
    foreign = {
        name
        for name, resource in encounters.items()
        if extract.target(reference_of(resource, "serviceProvider")) not in own
    }
    for name in foreign:
        extract.drop("Encounter", name, "excluded", "other_organization")
    seen_here = {_person(extract, resource) for resource in encounters.values()}
    strangers = set(patients) - seen_here
    for name in strangers:
        extract.drop("Patient", name, "excluded", "other_organization")
    return strangers, foreign


def _time_fault(period, clock):
    start, end = period.get("start"), period.get("end")
    if start is None:
        return "missing_time"
    if clock.day(start) is None or (end is not None and clock.day(end) is None):
        return "invalid_date"
    if end is not None and clock.end(end) < clock.start(start):
        return "end_before_start"
    return None


def _stay(extract, name, resource, codes, settings, secret):
    inside, period = resource.get("hospitalization", {}), resource["period"]
    visit_class = codes.match_class(resource.get("class"))
    concept_id = visit_class.concept_id if visit_class else 0
    is_icu = concept_id == INTENSIVE_CARE or bool(visit_class and visit_class.standard == (ACT_CODE, "ACUTE"))
    if visit_class and visit_class.source_value in settings.get("admission_classes", []):
        concept_id = INPATIENT
    priority = codes.match("priority", resource.get("priority", {}).get("coding"))
    return Stay(
        name=name,
        key=keyed_id(f"Encounter/{name}", secret),
        person=_person(extract, resource),
        start=period["start"],
        end=period.get("end"),
        began=extract.clock.start(period["start"]),
        ended=extract.clock.end(period.get("end")),
        parent=extract.target(reference_of(resource, "partOf")),
        provider=extract.target(reference_of(resource, "serviceProvider")),
        visit_class=visit_class,
        admitted=codes.match("admit_source", inside.get("admitSource", {}).get("coding")),
        discharged=codes.match("disposition", inside.get("dischargeDisposition", {}).get("coding")),
        priority=priority.standard[1] if priority and priority.standard[0] == ACT_PRIORITY else None,
        concept_id=concept_id,
        is_icu=is_icu,
    )


def _nest(extract, stays):
    """Put each encounter inside its ``partOf`` of the same patient; circles go, and intensive care in nothing."""

    def above(stay):
        kind, _, name = (stay.parent or "").partition("/")
        found = stays.get(name) if kind == "Encounter" else None
        return found if found and found.person == stay.person else None

    def drop(name, reason):
        del stays[name]
        extract.drop("Encounter", name, "quarantined", reason)

    for name in [name for name, stay in stays.items() if _never_ends(stay, above)]:
        drop(name, "part_of_cycle")
    while lost := [
        name
        for name, stay in stays.items()
        if stay.is_icu and "partOf" in extract.kept["Encounter"][name] and above(stay) is None
    ]:
        for name in lost:
            drop(name, "dangling_part_of")
    for stay in stays.values():
        stay.outer = above(stay)


def _never_ends(stay, above):
    seen = set()
    while stay is not None:
        if stay.name in seen:
            return True
        seen.add(stay.name)
        stay = above(stay)
    return False


def wards_of(extract, stays, settings, secret):
    """Times in a location that the site says is intensive care, as stays inside their encounter."""
    named = settings.get("intensive_care_locations", [])
    listed = {each for name in named for each in (name, "Location/" + name.removeprefix("Location/"))}
    found = []
    for stay in [stay for stay in stays.values() if not (stay.is_icu and stay.outer)]:
        places = extract.kept["Encounter"][stay.name].get("location", [])
        for n, told in enumerate(places):
            reference = reference_of(told, "location")
            if (
                told.get("status") in ("planned", "reserved")
                or not {reference, extract.target(reference)} & listed
            ):
                continue
            if time := _time_there(stay, told.get("period"), len(places), extract.clock):
                name = f"{stay.name}#{n}"
                key = keyed_id(f"Encounter/{name}", secret)
                found.append(replace(stay, name=name, key=key, is_icu=True, outer=stay, **time))
    kept, seen = [], set()
    for ward in sorted(found, key=lambda ward: (ward.outer.name, int(ward.name.rpartition("#")[2]))):
        if (time := (ward.visit.name, ward.began, ward.ended)) not in seen:
            seen.add(time)
            kept.append(ward)
    return kept


def _time_there(stay, period, places, clock):
    """Start and end of a time in a location, within its encounter; None if there is none."""
    if period is None and places > 1:
        return None
    start, end = (period or {}).get("start", stay.start), (period or {}).get("end", stay.end)
    if clock.day(start) is None or (end is not None and clock.day(end) is None):
        return None
    if clock.start(start) < stay.began:
        start = stay.start
    if end is not None and stay.ended is not None and clock.end(end) > stay.ended:
        end = stay.end
    if end is not None and clock.end(end) < clock.start(start):
        return None
    return {"start": start, "end": end, "began": clock.start(start), "ended": clock.end(end)}


def visit_rows(stays, wards, care_sites, clock, extract_day):
    """The rows of visit_occurrence, visit_detail and visit_extra."""
    visits = sorted((s for s in stays.values() if s.outer is None), key=lambda s: (s.began, s.key))
    before, occurrences, extras = {}, [], []
    for stay in visits:
        occurrences.append(_visit_row(stay, care_sites, clock, extract_day, before.get(stay.person)))
        before[stay.person] = stay.key
        extras.append(_extra_row(stay))
    inside = [*(s for s in stays.values() if s.outer is not None), *wards]
    details = [_detail_row(s, care_sites, clock, extract_day) for s in inside]
    return {"visit_occurrence": occurrences, "visit_detail": details, "visit_extra": extras}


def _end_day(stay, clock, extract_day):
    """An open encounter ends on the extract date."""
    return max(extract_day, stay.began.date()) if stay.end is None else clock.day(stay.end)


def _concept(match):
    return match.concept_id if match else None


def _source(match):
    return match.source_value if match else None


def visit_concept(stay):
    """Inpatient, unless it came through the emergency department; other classes as they are mapped."""
    if stay.concept_id not in (INPATIENT, INTENSIVE_CARE):
        return stay.concept_id
    return EMERGENCY_TO_INPATIENT if _concept(stay.admitted) == FROM_EMERGENCY else INPATIENT


def _visit_row(stay, care_sites, clock, extract_day, preceding):
    return {
        "visit_occurrence_id": stay.key,
        "person_id": stay.person,
        "visit_concept_id": visit_concept(stay),
        "visit_start_date": stay.began.date(),
        "visit_start_datetime": clock.moment(stay.start),
        "visit_end_date": _end_day(stay, clock, extract_day),
        "visit_end_datetime": clock.moment(stay.end),
        "visit_type_concept_id": EHR,
        "care_site_id": care_sites.get(stay.provider),
        "visit_source_value": _source(stay.visit_class),
        "admitted_from_concept_id": _concept(stay.admitted),
        "admitted_from_source_value": _source(stay.admitted),
        "discharged_to_concept_id": STILL_PATIENT if stay.end is None else _concept(stay.discharged),
        "discharged_to_source_value": _source(stay.discharged),
        "preceding_visit_occurrence_id": preceding,
        "reference": f"Encounter/{stay.name}",
    }


def _extra_row(stay):
    if stay.priority is not None:
        is_emergency = stay.priority in ("EM", "UR", "S")
    else:
        is_emergency = _concept(stay.admitted) == FROM_EMERGENCY
    return {
        "visit_occurrence_id": stay.key,
        "is_emergency": is_emergency,
        "is_planned": stay.priority == "EL",
    }


def _detail_end(stay, visit, clock):
    if stay.end is not None or visit.end is None:
        return clock.moment(stay.end)
    known = [moment for moment in (clock.moment(visit.end), clock.moment(stay.start)) if moment is not None]
    return max(known, default=None)


def _detail_row(stay, care_sites, clock, extract_day):
    visit = stay.visit
    return {
        "visit_detail_id": stay.key,
        "person_id": stay.person,
        "visit_detail_concept_id": INTENSIVE_CARE if stay.is_icu else stay.concept_id,
        "visit_detail_start_date": stay.began.date(),
        "visit_detail_start_datetime": clock.moment(stay.start),
        "visit_detail_end_date": max(
            clock.day(stay.end) or _end_day(visit, clock, extract_day), stay.began.date()
        ),
        "visit_detail_end_datetime": _detail_end(stay, visit, clock),
        "visit_detail_type_concept_id": EHR,
        "care_site_id": care_sites.get(visit.provider),
        "visit_occurrence_id": visit.key,
        "reference": f"Encounter/{stay.name}",
    }
