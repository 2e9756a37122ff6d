"""What we know of FHIR R4 resources: their types, the fields we read, required codes, shapes of other versions."""

import json
from dataclasses import dataclass

from fedhealth.fhir.checks import OTHER_VALUES, Verdict, bound_code, checks

_R4 = """
    Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse AuditEvent
    Basic Binary BiologicallyDerivedProduct BodyStructure Bundle CapabilityStatement CarePlan CareTeam
    CatalogEntry ChargeItem ChargeItemDefinition Claim ClaimResponse ClinicalImpression CodeSystem
    Communication CommunicationRequest CompartmentDefinition Composition ConceptMap Condition Consent Contract
    Coverage CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue Device DeviceDefinition
    DeviceMetric DeviceRequest DeviceUseStatement DiagnosticReport DocumentManifest DocumentReference
    EffectEvidenceSynthesis Encounter Endpoint EnrollmentRequest EnrollmentResponse EpisodeOfCare
    EventDefinition Evidence EvidenceVariable ExampleScenario ExplanationOfBenefit FamilyMemberHistory Flag
    Goal GraphDefinition Group GuidanceResponse HealthcareService ImagingStudy Immunization
    ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide InsurancePlan Invoice Library
    Linkage List Location Measure MeasureReport Media Medication MedicationAdministration MedicationDispense
    MedicationKnowledge MedicationRequest MedicationStatement MedicinalProduct MedicinalProductAuthorization
    MedicinalProductContraindication MedicinalProductIndication MedicinalProductIngredient
    MedicinalProductInteraction MedicinalProductManufactured MedicinalProductPackaged
    MedicinalProductPharmaceutical MedicinalProductUndesirableEffect MessageDefinition MessageHeader
    MolecularSequence NamingSystem NutritionOrder Observation ObservationDefinition OperationDefinition
    OperationOutcome Organization OrganizationAffiliation Parameters Patient PaymentNotice
    PaymentReconciliation Person PlanDefinition Practitioner PractitionerRole Procedure Provenance
    Questionnaire QuestionnaireResponse RelatedPerson RequestGroup ResearchDefinition
    ResearchElementDefinition ResearchStudy ResearchSubject RiskAssessment RiskEvidenceSynthesis Schedule
    SearchParameter ServiceRequest Slot Specimen SpecimenDefinition StructureDefinition StructureMap
    Subscription Substance SubstanceNucleicAcid SubstancePolymer SubstanceProtein
    SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification SupplyDelivery SupplyRequest
    Task TerminologyCapabilities TestReport TestScript ValueSet VerificationResult VisionPrescription
"""
R4_TYPES = frozenset(_R4.split())
"""The resource types of R4 (4.0.1). A name that is not one of them never becomes a key of the accounting."""

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ResourceShape:
    """How a resource type is read.

    Attributes:
      fields: JSON structure of the fields that we read, as DuckDB's ``from_json`` takes it.
      foreign: SQL over those fields that is true for the shape of another FHIR version.
      statuses: the required codes of ``status`` (empty: the type has none).
      left_out: SQL conditions and the reason with which a resource is excluded, in order.
    """

    fields: str
    foreign: str
    statuses: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are read."""
        return tuple(json.loads(self.fields))


_REFERENCE = {"reference": "VARCHAR"}
_IDENTIFIERS = [{"system": "VARCHAR", "value": "VARCHAR"}]
_PERIOD = {"start": "VARCHAR", "end": "VARCHAR"}
_CONCEPT = {"coding": "JSON"}
_META = {"lastUpdated": "VARCHAR", "versionId": "VARCHAR", "fhirVersion": "VARCHAR"}
_QUANTITY = {
    "value": "DOUBLE",
    "comparator": "VARCHAR",
    "unit": "VARCHAR",
    "system": "VARCHAR",
    "code": "VARCHAR",
}
_VALUES = {
    "valueQuantity": _QUANTITY,
    "valueInteger": "DOUBLE",
    "valueBoolean": "BOOLEAN",
    "valueCodeableConcept": _CONCEPT,
    **{f"value{kind}": "JSON" for kind in OTHER_VALUES},
    "referenceRange": [{"low": {"value": "DOUBLE"}, "high": {"value": "DOUBLE"}}],
    "dataAbsentReason": "JSON",
}


FOREIGN: dict[str, tuple[str, ...]] = {
    "Organization": ("description", "qualification"),
    "Medication": (
        *("image", "isBrand", "isOverTheCounter", "package"),
        *("definition", "doseForm", "marketingAuthorizationHolder", "totalVolume"),
    ),
    "Patient": ("animal",),
    "Encounter": (
        *("incomingReferral", "actualPeriod", "admission", "careTeam", "dietPreference", "plannedEndDate"),
        *("plannedStartDate", "specialArrangement", "specialCourtesy", "subjectStatus", "virtualService"),
    ),
    "Condition": ("abatementBoolean", "assertedDate", "context", "participant"),
    "Observation": (
        *("comment", "related", "valueAttachment", "valueReference"),
        *("bodyStructure", "instantiatesCanonical", "instantiatesReference", "triggeredBy"),
    ),
    "MedicationRequest": (
        *(
            "context",
            "definition",
            "device",
            "effectiveDosePeriod",
            "informationSource",
            "medication",
            "reason",
        ),
        *("renderedDosageInstruction", "reported", "statusChanged"),
    ),
    "MedicationAdministration": (
        *("definition", "notGiven", "prescription", "reasonNotGiven", "basedOn", "encounter", "isSubPotent"),
        *("medication", "occurenceDateTime", "occurencePeriod", "occurenceTiming", "reason", "recorded"),
        "subPotentReason",
    ),
    "Consent": (
        *(
            "action",
            "actor",
            "consentingParty",
            "data",
            "dataPeriod",
            "except",
            "period",
            "purpose",
            "securityLabel",
        ),
        *("controller", "date", "decision", "grantee", "grantor", "manager", "policyBasis", "policyText"),
        *("regulatoryBasis", "subject"),
    ),
    "Procedure": (
        *(
            "context",
            "definition",
            "notDone",
            "notDoneReason",
            "focus",
            "occurrenceAge",
            "occurrenceDateTime",
        ),
        *(
            "occurrencePeriod",
            "occurrenceRange",
            "occurrenceString",
            "occurrenceTiming",
            "reason",
            "recorded",
        ),
        *("reportedBoolean", "reportedReference", "supportingInfo", "used"),
    ),
}
"""The elements that STU3 or R5 have and R4 has not: one of them tells that a resource is of another version."""


def _fields(name: str, **fields: object) -> str:
    foreign = dict.fromkeys(FOREIGN[name], "JSON")
    return json.dumps({"id": "VARCHAR", "meta": _META, **foreign, **fields}, separators=(",", ":"))


def _foreign(name: str, *shapes: str) -> str:
    """SQL that is true for another version: an element that R4 has not, or the shape of one that it has."""
    return " OR ".join((*(f'"{field}" IS NOT NULL' for field in FOREIGN[name]), *shapes))


_EVENT = {"subject": _REFERENCE, "encounter": _REFERENCE, "code": _CONCEPT}
_CANCELLED = (("status = 'entered-in-error'", "entered_in_error"), ("status = 'cancelled'", "cancelled"))

SHAPES: dict[str, ResourceShape] = {
    "Organization": ResourceShape(_fields("Organization", identifier=_IDENTIFIERS), _foreign("Organization")),
    "Medication": ResourceShape(
        _fields("Medication", code=_CONCEPT, identifier=_IDENTIFIERS), _foreign("Medication")
    ),
    "Patient": ResourceShape(
        _fields(
            "Patient",
            gender="VARCHAR",
            birthDate="VARCHAR",
            deceasedDateTime="VARCHAR",
            deceasedBoolean="BOOLEAN",
            managingOrganization=_REFERENCE,
            identifier=_IDENTIFIERS,
            extension=[
                {"url": "VARCHAR", "extension": [{"url": "VARCHAR", "valueCoding": {"code": "VARCHAR"}}]}
            ],
        ),
        _foreign("Patient"),
    ),
    "Encounter": ResourceShape(
        _fields(
            "Encounter",
            **{"class": "JSON"},
            status="VARCHAR",
            subject=_REFERENCE,
            period=_PERIOD,
            partOf=_REFERENCE,
            priority=_CONCEPT,
            serviceProvider=_REFERENCE,
            identifier=_IDENTIFIERS,
            location=[{"location": _REFERENCE, "status": "VARCHAR", "period": _PERIOD}],
            hospitalization={"admitSource": _CONCEPT, "dischargeDisposition": _CONCEPT},
            reason="JSON",
        ),
        # the reason of STU3 is a list of concepts, that of R5 a list of objects
        _foreign("Encounter", "json_type(class) = 'ARRAY'", "json_exists(reason, '$[0].value')"),
        (
            "planned",
            "arrived",
            "triaged",
            "in-progress",
            "onleave",
            "finished",
            "cancelled",
            "entered-in-error",
            "unknown",
        ),
        (*_CANCELLED, ("status = 'planned'", "planned")),
    ),
    "Condition": ResourceShape(
        _fields(
            "Condition",
            **_EVENT,
            verificationStatus="JSON",
            clinicalStatus="JSON",
            onsetDateTime="VARCHAR",
            onsetPeriod=_PERIOD,
            abatementDateTime="VARCHAR",
            recordedDate="VARCHAR",
        ),
        _foreign(
            "Condition", "json_type(verificationStatus) = 'VARCHAR'", "json_type(clinicalStatus) = 'VARCHAR'"
        ),
        (),
        (
            (
                f"{bound_code('verificationStatus')} = 'entered-in-error'",
                "entered_in_error",
            ),
        ),
    ),
    "Observation": ResourceShape(
        _fields(
            "Observation",
            **_EVENT,
            **_VALUES,
            status="VARCHAR",
            category=[{"coding": [{"code": "VARCHAR"}]}],
            effectiveDateTime="VARCHAR",
            effectivePeriod=_PERIOD,
            effectiveInstant="VARCHAR",
            issued="VARCHAR",
            component=[{"code": _CONCEPT, **_VALUES}],
            context=_REFERENCE,
        ),
        _foreign("Observation"),
        (
            "registered",
            "preliminary",
            "final",
            "amended",
            "corrected",
            "cancelled",
            "entered-in-error",
            "unknown",
        ),
        _CANCELLED,
    ),
    "MedicationRequest": ResourceShape(
        _fields(
            "MedicationRequest",
            **{name: shape for name, shape in _EVENT.items() if name != "code"},
            status="VARCHAR",
            intent="VARCHAR",
            doNotPerform="BOOLEAN",
            medicationCodeableConcept=_CONCEPT,
            medicationReference=_REFERENCE,
            authoredOn="VARCHAR",
            dosageInstruction=[{"route": _CONCEPT, "doseAndRate": [{"doseQuantity": _QUANTITY}]}],
            dispenseRequest={"quantity": _QUANTITY},
            contained=[{"id": "VARCHAR", "code": _CONCEPT}],
            requester={"agent": "JSON"},
        ),
        _foreign("MedicationRequest", "requester.agent IS NOT NULL"),
        ("active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown"),
        (
            *_CANCELLED,
            ("status = 'draft' OR intent IN ('proposal', 'plan')", "planned"),
            ("doNotPerform", "not_done"),
        ),
    ),
    "MedicationAdministration": ResourceShape(
        _fields(
            "MedicationAdministration",
            status="VARCHAR",
            subject=_REFERENCE,
            context=_REFERENCE,
            medicationCodeableConcept=_CONCEPT,
            medicationReference=_REFERENCE,
            effectiveDateTime="VARCHAR",
            effectivePeriod=_PERIOD,
            dosage={"route": _CONCEPT, "dose": _QUANTITY},
            contained=[{"id": "VARCHAR", "code": _CONCEPT}],
        ),
        _foreign("MedicationAdministration"),
        ("in-progress", "not-done", "on-hold", "completed", "entered-in-error", "stopped", "unknown"),
        (_CANCELLED[0], ("status = 'not-done'", "not_done")),
    ),
    "Procedure": ResourceShape(
        _fields(
            "Procedure",
            **_EVENT,
            status="VARCHAR",
            performedDateTime="VARCHAR",
            performedPeriod=_PERIOD,
        ),
        _foreign("Procedure"),
        (
            "preparation",
            "in-progress",
            "not-done",
            "on-hold",
            "stopped",
            "completed",
            "entered-in-error",
            "unknown",
        ),
        (_CANCELLED[0], ("status = 'not-done'", "not_done"), ("status = 'preparation'", "planned")),
    ),
    "Consent": ResourceShape(
        _fields(
            "Consent",
            status="VARCHAR",
            scope={"coding": [{"code": "VARCHAR"}]},
            patient=_REFERENCE,
            dateTime="VARCHAR",
            policyRule="JSON",
            provision="JSON",
            modifierExtension="JSON",
        ),
        _foreign("Consent"),
        ("draft", "proposed", "active", "rejected", "inactive", "entered-in-error"),
        (_CANCELLED[0], ("status IN ('draft', 'proposed')", "planned")),
    ),
}
"""The types that we read. Medication is read for its code alone; Consent gives rows in ``private/`` alone."""


NOT_R4 = "coalesce(fhir_version, meta.fhirVersion, '4') NOT LIKE '4%'"
"""SQL over the fields of a resource and the version of its bundle: it says that it is of another version."""
_NO_ID = "NOT regexp_full_match(r.id, '[A-Za-z0-9.-]{1,64}')"


def verdicts(name: str) -> tuple[Verdict, ...]:
    """Why a resource by itself is left out, in the order in which the reasons count."""
    shape = SHAPES[name]
    found = [Verdict("excluded", reason, name, condition) for condition, reason in shape.left_out]
    if shape.statuses:
        codes = ", ".join(f"'{code}'" for code in shape.statuses)
        broken = f"status IS NULL OR status NOT IN ({codes})"
        found.append(Verdict("quarantined", "invalid_status", f"{name}.status", broken))
    if name == "Consent":
        # not lost: it may deny
        found.insert(0, Verdict("quarantined", "fhir_version", name, f"{NOT_R4} OR {shape.foreign}"))
        found.insert(1, Verdict("quarantined", "missing_id", f"{name}.id", f"coalesce({_NO_ID}, true)"))
    return (*found, *(check for check in checks(name) if check.kind == "quarantined"))


def notes(name: str) -> tuple[Verdict, ...]:
    """The rules of R4 that a resource may break and still be loaded."""
    return tuple(check for check in checks(name) if check.kind == "noted")


LOADED = tuple(name for name in SHAPES if name != "Medication")
