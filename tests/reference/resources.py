"""Read NDJSON, and say of each resource by itself whether it is kept; what is left out has a kind and a reason."""

import json
import re
from collections import Counter, defaultdict
from hashlib import blake2b

from fedhealth.fhir.resources import R4_TYPES

SUBJECTS = {
    "Encounter": ("Patient", "Group"),
    "Condition": ("Patient", "Group"),
    "Observation": ("Patient", "Group", "Device", "Location"),
    "Procedure": ("Patient", "Group"),
    "MedicationRequest": ("Patient", "Group"),
    "MedicationAdministration": ("Patient", "Group"),
}
EVENTS = tuple(kind for kind in SUBJECTS if kind != "Encounter")
READ = ("Organization", "Medication", "Patient", *SUBJECTS)
STATUSES = {
    "Encounter": "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown",
    "Observation": "registered preliminary final amended corrected cancelled entered-in-error unknown",
    "MedicationRequest": "active on-hold cancelled completed entered-in-error stopped draft unknown",
    "MedicationAdministration": "in-progress not-done on-hold completed entered-in-error stopped unknown",
    "Procedure": "preparation in-progress not-done on-hold stopped completed entered-in-error unknown",
}
INTENTS = "proposal plan order original-order reflex-order filler-order instance-order option"
VERIFICATIONS = "unconfirmed provisional differential confirmed refuted entered-in-error"
VERIFICATION_SYSTEM = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
COMPARATORS = ("<", "<=", ">=", ">")
VALUES = ("valueQuantity", "valueInteger", "valueBoolean", "valueCodeableConcept", "valueString")
PERIODS = {
    "Condition": "onsetPeriod",
    "Observation": "effectivePeriod",
    "MedicationAdministration": "effectivePeriod",
    "Procedure": "performedPeriod",
}
ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
NAMES_A_TYPE = re.compile(
    r"(^|/)[A-Z][A-Za-z]+(/[A-Za-z0-9.-]{1,64}(/_history/[A-Za-z0-9.-]{1,64})?|\?[^=]+=.+)$"
)
POINTS_TO = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})(?:/_history/[A-Za-z0-9.-]{1,64})?$")


def keyed_id(reference, secret):
    """The 63-bit id of a row: keyed BLAKE2b of ``Type/id``."""
    digest = blake2b(reference.encode(), key=secret, digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**63


def first(items):
    """The first of a list that may be empty or absent, or an empty object."""
    return (items or [{}])[0]


def reference_of(resource, *fields):
    """The text of the first of these references that is there."""
    found = (resource.get(field, {}).get("reference") for field in fields)
    return next((text for text in found if text is not None), None)


class Extract:
    """All resources of a site: ``kept`` by type and id, ``left`` counted by (type, kind, reason)."""

    def __init__(self, lines, clock):
        self.clock = clock
        self.left = Counter()
        self.kept = {kind: {} for kind in READ}
        versions = defaultdict(list)
        for line in lines:
            if line.strip():
                self._read(line, versions)
        for (kind, name), found in versions.items():
            found.sort(key=self._age)
            for _ in found[:-1]:
                self.leave(kind, "excluded", "duplicate")
            self._judge(kind, name, found[-1])
        self._index_identifiers()

    def leave(self, resource_type, kind, reason):
        """Count a resource that is left out."""
        self.left[resource_type, kind, reason] += 1

    def drop(self, resource_type, name, kind, reason):
        """Leave out a resource that was kept so far."""
        del self.kept[resource_type][name]
        self.leave(resource_type, kind, reason)

    def target(self, text):
        """The ``Type/id`` that a reference means, or None."""
        if text is None:
            return None
        if text in self.by_identifier:
            return self.by_identifier[text]
        found = POINTS_TO.search(text)
        return f"{found[1]}/{found[2]}" if found else None

    def _read(self, line, versions):
        try:
            resource = json.loads(line)
        except ValueError:
            return self.leave("unknown", "quarantined", "not_json")
        kind = resource.get("resourceType")
        if not kind:
            return self.leave("unknown", "quarantined", "no_resource_type")
        if kind not in R4_TYPES:
            return self.leave("unknown", "quarantined", "unknown_type")
        if kind not in READ:
            return self.leave(kind, "excluded", "type_not_loaded")
        if resource.get("id") is None:
            return self.leave(kind, "quarantined", "missing_id")
        if not ID.fullmatch(resource["id"]):
            return self.leave(kind, "quarantined", "invalid_id")
        return versions[kind, resource["id"]].append(resource)

    def _age(self, resource):
        """Of two versions the later instant of ``lastUpdated`` counts, then the higher ``versionId``."""
        meta = resource.get("meta", {})
        updated, version = self.clock.end(meta.get("lastUpdated")), meta.get("versionId", "")
        number = int(version) if re.fullmatch(r"-?\d+", version) else None
        return (updated is not None, updated, number is not None, number)

    def _judge(self, kind, name, resource):
        for decision, reason in verdicts(kind, resource, self.clock):
            return self.leave(kind, decision, reason)
        self.kept[kind][name] = resource
        return None

    def _index_identifiers(self):
        """``Type?identifier=system|value``, with or without the system, of the identifiers that one resource alone has."""
        owners = defaultdict(set)
        for kind in ("Patient", "Encounter", "Organization", "Medication"):
            for name, resource in self.kept[kind].items():
                for identifier in resource.get("identifier", []):
                    if (value := identifier.get("value")) is not None:
                        owners[f"{kind}?identifier={identifier.get('system', '')}|{value}"].add(
                            f"{kind}/{name}"
                        )
                        owners[f"{kind}?identifier={value}"].add(f"{kind}/{name}")
        self.by_identifier = {text: min(found) for text, found in owners.items() if len(found) == 1}


def verdicts(kind, resource, clock):
    """Why a resource by itself is left out, the reason that counts first."""
    yield from _says_it_did_not_happen(kind, resource)
    if kind in STATUSES and resource.get("status") not in STATUSES[kind].split():
        yield "quarantined", "invalid_status"
    yield from _codes(kind, resource)
    if kind in SUBJECTS:
        yield from _subject(kind, reference_of(resource, "subject"))
    if kind in PERIODS and ends_before_start(resource.get(PERIODS[kind], {}), clock):
        yield "quarantined", "end_before_start"
    if kind == "Observation":
        yield from _observation(resource)


def verification(resource):
    """The verification status: the code of HL7's system, else the first that is one of its codes."""
    codings = resource.get("verificationStatus", {}).get("coding", [])
    bound = [coding.get("code") for coding in codings if coding.get("system") == VERIFICATION_SYSTEM]
    known = [coding.get("code") for coding in codings if coding.get("code") in VERIFICATIONS.split()]
    return next((code for code in (*bound[:1], *known) if code is not None), None)


def _says_it_did_not_happen(kind, resource):
    status = resource.get("status")
    if kind == "Condition":
        status = verification(resource)
    if status == "entered-in-error":
        yield "excluded", "entered_in_error"
    if status == "cancelled" and kind in ("Encounter", "Observation", "MedicationRequest"):
        yield "excluded", "cancelled"
    if status == "not-done" and kind in ("MedicationAdministration", "Procedure"):
        yield "excluded", "not_done"
    if (kind, status) in (("Encounter", "planned"), ("Procedure", "preparation")):
        yield "excluded", "planned"
    if kind == "MedicationRequest":
        if status == "draft" or resource.get("intent") in ("proposal", "plan"):
            yield "excluded", "planned"
        if resource.get("doNotPerform"):
            yield "excluded", "not_done"


def _codes(kind, resource):
    if kind in ("MedicationRequest", "MedicationAdministration") and not (
        resource.keys() & {"medicationCodeableConcept", "medicationReference"}
    ):
        yield "quarantined", "missing_element"
    if kind == "MedicationRequest" and resource.get("intent", "order") not in INTENTS.split():
        yield "quarantined", "invalid_code"
    if kind == "Condition":
        code = verification(resource)
        if code is not None and code not in VERIFICATIONS.split():
            yield "quarantined", "invalid_code"


def _subject(kind, text):
    if text is None or text.startswith(("Patient/", "urn:")):
        return
    if NAMES_A_TYPE.search(text):
        if not re.search(rf"(^|/)({'|'.join(SUBJECTS[kind])})[/?]", text):
            yield "quarantined", "reference_target"
    elif not re.match(r"#|https?://", text):
        yield "quarantined", "reference_syntax"


def ends_before_start(period, clock):
    """per-1: two times are compared as instants; where one is a date, the days are, as they are written."""
    start, end = period.get("start"), period.get("end")
    if start is None or end is None:
        return False
    if len(start) > 10 and len(end) > 10:
        began, ended = clock.moment(start), clock.moment(end)
        return began is not None and ended is not None and ended < began
    shared = min(len(start), len(end), 10)
    return end[:shared] < start[:shared]


def _observation(resource):
    """Comparators of R4 alone, and no value beside the reason why there is none (obs-6)."""
    whole = [resource, *resource.get("component", [])]
    signs = [part.get("valueQuantity", {}).get("comparator") for part in whole]
    if any(sign is not None and sign not in COMPARATORS for sign in signs):
        yield "quarantined", "invalid_code"
    if any("dataAbsentReason" in part and part.keys() & set(VALUES) for part in whole):
        yield "quarantined", "value_and_absent_reason"
