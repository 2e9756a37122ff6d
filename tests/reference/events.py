"""What all events share: whose they are, when they were, and in which visit."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from reference.resources import EVENTS, keyed_id, reference_of
from reference.times import DAY_ENDS

ENCOUNTER = {
    "Condition": ("encounter",),
    "Procedure": ("encounter",),
    "Observation": ("encounter", "context"),  # the context of STU3
    "MedicationRequest": ("encounter",),
    "MedicationAdministration": ("context",),
}
DAY = timedelta(hours=24)


@dataclass
class Event:
    """An event that is kept. ``visit`` and ``detail`` are keys."""

    kind: str
    resource: dict
    key: int
    person: str
    day: date
    time: datetime | None
    visit: int | None
    detail: int | None
    link: str

    @property
    def reference(self):
        return f"{self.kind}/{self.resource['id']}"


def time_text(kind, resource):
    """The text of an event's time, or None."""
    onset, effective, performed = (
        resource.get(name, {}) for name in ("onsetPeriod", "effectivePeriod", "performedPeriod")
    )
    found = {
        "Condition": (resource.get("onsetDateTime"), onset.get("start"), resource.get("recordedDate")),
        "Observation": (
            resource.get("effectiveDateTime"),
            effective.get("end"),
            effective.get("start"),
            resource.get("effectiveInstant"),
            resource.get("issued"),
        ),
        "MedicationRequest": (resource.get("authoredOn"),),
        "MedicationAdministration": (resource.get("effectiveDateTime"), effective.get("start")),
        "Procedure": (resource.get("performedDateTime"), performed.get("start")),
    }[kind]
    return next((text for text in found if text is not None), None)


def keep_events(extract, stays, wards, strangers, foreign_encounters, has_code, secret):
    """The events that are kept, each with its person and visit; the others are left out with a reason."""
    kept, stays_of = [], defaultdict(list)
    for stay in (*stays.values(), *wards):
        stays_of[stay.person].append(stay)
    for kind in EVENTS:
        for resource in list(extract.kept[kind].values()):
            person, place, is_foreign = _whose(extract, kind, resource, stays, strangers, foreign_encounters)
            fault = ("excluded", "other_organization") if is_foreign else None
            fault = fault or _fault(extract, kind, resource, person, place)
            if fault is None and kind == "Observation" and not has_code(resource):
                fault = ("quarantined", "missing_code")
            if fault:
                extract.drop(kind, resource["id"], *fault)
            else:
                kept.append(_linked(extract, kind, resource, person, place, stays_of[person], secret))
    return kept


def _whose(extract, kind, resource, stays, strangers, foreign_encounters):
    """The patient, the encounter if it is the patient's, and whether either is another organisation's."""
    of, _, person = (extract.target(reference_of(resource, "subject")) or "").partition("/")
    where, _, name = (extract.target(reference_of(resource, *ENCOUNTER[kind])) or "").partition("/")
    is_foreign = (of == "Patient" and person in strangers) or (
        where == "Encounter" and name in foreign_encounters
    )
    if of != "Patient" or person not in extract.kept["Patient"]:
        return None, None, is_foreign
    place = stays.get(name) if where == "Encounter" else None
    return person, place if place and place.person == person else None, is_foreign


def _fault(extract, kind, resource, person, place):
    text = time_text(kind, resource)
    if reference_of(resource, "subject") is None:
        return "quarantined", "missing_subject"
    if person is None:
        return "quarantined", "dangling_subject"
    if text is not None and extract.clock.day(text) is None:
        return "quarantined", "invalid_date"
    if text is None and place is None:
        return "quarantined", "missing_time"
    return None


def _linked(extract, kind, resource, person, place, own, secret):
    text = time_text(kind, resource)
    text = place.start if text is None else text
    day, instant = extract.clock.day(text), extract.clock.moment(text)
    at = instant or datetime.combine(day, DAY_ENDS)
    visit, link = (place.visit, "reference") if place else (_visit_at(own, at), "time")
    detail = place if place and place.outer else _detail_at(own, visit, at)
    return Event(
        kind=kind,
        resource=resource,
        key=keyed_id(f"{kind}/{resource['id']}", secret),
        person=person,
        day=day,
        time=instant,
        visit=visit.key if visit else None,
        detail=detail.key if detail else None,
        link=link if visit else "none",
    )


def _visit_at(own, at):
    """The visit whose [start - 24 h, end] holds the moment; the latest start wins."""
    holding = [
        stay
        for stay in own
        if stay.outer is None and stay.began - DAY <= at and (stay.ended is None or at <= stay.ended)
    ]
    return max(holding, key=lambda stay: (stay.began, stay.key), default=None)


def _detail_at(own, visit, at):
    """The visit detail of the visit that holds the moment; the latest start wins."""
    holding = [
        stay
        for stay in own
        if stay.outer is not None and stay.visit is visit
        if stay.began <= at and (stay.ended is None or at <= stay.ended)
    ]
    return max(holding, key=lambda stay: (stay.began, stay.key), default=None)


def latest_day(stays, tables, days):
    """The last day that any kept encounter or event has."""
    found = [max(stay.ended or stay.began, stay.began).date() for stay in stays.values()]
    found += [row[column] for table, column in days.items() for row in tables[table]]
    return max(found, default=date(1970, 1, 1))
