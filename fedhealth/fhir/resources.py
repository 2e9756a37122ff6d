"""What we know of FHIR R4 resources: their types, the fields we read, required codes, shapes of other versions."""

import json
from dataclasses import dataclass

from fedhealth.fhir.checks import Verdict, checks

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
    "valueString": "VARCHAR",
    "referenceRange": [{"low": {"value": "DOUBLE"}, "high": {"value": "DOUBLE"}}],
    "dataAbsentReason": "JSON",
}


def _fields(**fields: object) -> str:
    return json.dumps({"id": "VARCHAR", "meta": _META, **fields}, separators=(",", ":"))


_EVENT = {"subject": _REFERENCE, "encounter": _REFERENCE, "code": _CONCEPT, "context": "JSON"}
_CANCELLED = (("status = 'entered-in-error'", "entered_in_error"), ("status = 'cancelled'", "cancelled"))

SHAPES: dict[str, ResourceShape] = {
    "Organization": ResourceShape(_fields(), "false"),
    "Medication": ResourceShape(_fields(code=_CONCEPT), "false"),
    "Patient": ResourceShape(
        _fields(
            gender="VARCHAR",
            birthDate="VARCHAR",
            deceasedDateTime="VARCHAR",
            deceasedBoolean="BOOLEAN",
            managingOrganization=_REFERENCE,
            identifier=[{"system": "VARCHAR", "value": "VARCHAR"}],
            extension=[
                {"url": "VARCHAR", "extension": [{"url": "VARCHAR", "valueCoding": {"code": "VARCHAR"}}]}
            ],
            animal="JSON",
        ),
        "animal IS NOT NULL",
    ),
    "Encounter": ResourceShape(
        _fields(
            **{"class": "JSON"},
            status="VARCHAR",
            subject=_REFERENCE,
            period=_PERIOD,
            partOf=_REFERENCE,
            priority=_CONCEPT,
            serviceProvider=_REFERENCE,
            hospitalization={"admitSource": _CONCEPT, "dischargeDisposition": _CONCEPT},
            reason="JSON",
            actualPeriod="JSON",
            plannedStartDate="JSON",
            admission="JSON",
        ),
        "reason IS NOT NULL OR actualPeriod IS NOT NULL OR plannedStartDate IS NOT NULL "
        "OR admission IS NOT NULL OR json_type(class) = 'ARRAY'",
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
            **_EVENT,
            verificationStatus="JSON",
            clinicalStatus="JSON",
            onsetDateTime="VARCHAR",
            onsetPeriod=_PERIOD,
            abatementDateTime="VARCHAR",
            recordedDate="VARCHAR",
            assertedDate="JSON",
            participant="JSON",
        ),
        "context IS NOT NULL OR assertedDate IS NOT NULL OR participant IS NOT NULL "
        "OR json_type(verificationStatus) = 'VARCHAR' OR json_type(clinicalStatus) = 'VARCHAR'",
        (),
        (
            (
                "json_extract_string(verificationStatus, '$.coding[0].code') = 'entered-in-error'",
                "entered_in_error",
            ),
        ),
    ),
    "Observation": ResourceShape(
        _fields(
            **_EVENT,
            **_VALUES,
            status="VARCHAR",
            category=[{"coding": [{"code": "VARCHAR"}]}],
            effectiveDateTime="VARCHAR",
            effectivePeriod=_PERIOD,
            effectiveInstant="VARCHAR",
            issued="VARCHAR",
            component=[{"code": _CONCEPT, **_VALUES}],
            comment="JSON",
            triggeredBy="JSON",
            instantiatesCanonical="JSON",
        ),
        "context IS NOT NULL OR comment IS NOT NULL OR triggeredBy IS NOT NULL OR instantiatesCanonical IS NOT NULL",
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
            **{**_EVENT, "code": "JSON"},
            status="VARCHAR",
            intent="VARCHAR",
            doNotPerform="BOOLEAN",
            medicationCodeableConcept=_CONCEPT,
            medicationReference=_REFERENCE,
            authoredOn="VARCHAR",
            dosageInstruction=[{"route": _CONCEPT, "doseAndRate": [{"doseQuantity": _QUANTITY}]}],
            dispenseRequest={"quantity": _QUANTITY},
            contained=[{"id": "VARCHAR", "code": _CONCEPT}],
            medication="JSON",
            requester={"agent": "JSON"},
        ),
        "context IS NOT NULL OR medication IS NOT NULL OR requester.agent IS NOT NULL",
        ("active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown"),
        (
            *_CANCELLED,
            ("status = 'draft' OR intent IN ('proposal', 'plan')", "planned"),
            ("doNotPerform", "not_done"),
        ),
    ),
    "MedicationAdministration": ResourceShape(
        _fields(
            status="VARCHAR",
            subject=_REFERENCE,
            context=_REFERENCE,
            medicationCodeableConcept=_CONCEPT,
            medicationReference=_REFERENCE,
            effectiveDateTime="VARCHAR",
            effectivePeriod=_PERIOD,
            dosage={"route": _CONCEPT, "dose": _QUANTITY},
            contained=[{"id": "VARCHAR", "code": _CONCEPT}],
            medication="JSON",
            notGiven="JSON",
            prescription="JSON",
            encounter="JSON",
            occurenceDateTime="JSON",
            occurencePeriod="JSON",
        ),
        "medication IS NOT NULL OR notGiven IS NOT NULL OR prescription IS NOT NULL OR encounter IS NOT NULL "
        "OR occurenceDateTime IS NOT NULL OR occurencePeriod IS NOT NULL",
        ("in-progress", "not-done", "on-hold", "completed", "entered-in-error", "stopped", "unknown"),
        (_CANCELLED[0], ("status = 'not-done'", "not_done")),
    ),
    "Procedure": ResourceShape(
        _fields(
            **_EVENT,
            status="VARCHAR",
            performedDateTime="VARCHAR",
            performedPeriod=_PERIOD,
            notDone="JSON",
            occurrenceDateTime="JSON",
            occurrencePeriod="JSON",
        ),
        "context IS NOT NULL OR notDone IS NOT NULL OR occurrenceDateTime IS NOT NULL OR occurrencePeriod IS NOT NULL",
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
}
"""The types that we read. Medication is read for its code alone and gives no row."""


def verdicts(name: str) -> tuple[Verdict, ...]:
    """Why a resource by itself is left out, in the order in which the reasons count."""
    shape = SHAPES[name]
    found = [Verdict("excluded", reason, name, condition) for condition, reason in shape.left_out]
    if shape.statuses:
        codes = ", ".join(f"'{code}'" for code in shape.statuses)
        broken = f"status IS NULL OR status NOT IN ({codes})"
        found.append(Verdict("quarantined", "invalid_status", f"{name}.status", broken))
    return (*found, *(check for check in checks(name) if check.kind == "quarantined"))


def notes(name: str) -> tuple[Verdict, ...]:
    """The rules of R4 that a resource may break and still be loaded."""
    return tuple(check for check in checks(name) if check.kind == "noted")


LOADED = tuple(name for name in SHAPES if name != "Medication")
