"""From a CodeableConcept to an OMOP concept: the site's map, the shipped map of the field, a prefix rule, else 0."""

import json
from collections import namedtuple
from importlib.resources import files

OMOP = "https://fhir-terminology.ohdsi.org"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACT_PRIORITY = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
STANDARD = (
    "http://loinc.org",
    "http://snomed.info/sct",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
)
SHIPPED = {
    "measurement": "measurements.json",
    "class": "encounter-class.json",
    "disposition": "discharge-disposition.json",
    "admit_source": "admit-source.json",
    "condition": "icd10cm-prefix.json",
}

Match = namedtuple("Match", "concept_id source_value standard")
"""The concept; ``system|code`` as it came; the (system, code) where it stands after the site's map."""


def read_map(concept_map):
    """(system, code) to (system, code) of a FHIR ConceptMap; what is unmatched or disjoint is not used."""
    found = {}
    for group in concept_map.get("group", []):
        for element in group.get("element", []):
            for target in element.get("target", []):
                if target.get("code") and target.get("equivalence") not in ("unmatched", "disjoint"):
                    found[group.get("source", ""), element["code"]] = (
                        group.get("target", ""),
                        target["code"],
                    )
    return found


class Codes:
    """The maps of one site."""

    def __init__(self, concept_maps=(), default_class_system=""):
        self.site = {}
        for concept_map in concept_maps:
            self.site |= read_map(concept_map)
        self.default_class_system = default_class_system
        self.shipped = {}
        for field, name in SHIPPED.items():
            text = files("fedhealth.vocabulary").joinpath(name).read_text()
            self.shipped[field] = {
                source: int(target) for source, (_, target) in read_map(json.loads(text)).items()
            }

    def match(self, field, codings):
        """The best of the codings that have a code, or None when there is none.

        Mapped before unmapped; then what a user selected; then a standard system; then the order as it came.
        """
        best, best_rank = None, None
        for coding in codings or []:
            if not coding.get("code"):
                continue
            match = self._one(field, coding.get("system") or "", coding["code"])
            is_chosen = coding.get("userSelected", False)
            rank = (match.concept_id == 0, not is_chosen, match.standard[0] not in STANDARD)
            if best is None or rank < best_rank:
                best, best_rank = match, rank
        return best

    def match_class(self, coding):
        """The class of an Encounter, which is one Coding, and may leave out its system."""
        if coding is None:
            return None
        return self.match("class", [{**coding, "system": coding.get("system") or self.default_class_system}])

    def _one(self, field, system, code):
        source_value = f"{system}|{code}"
        standard = self.site.get((system, code), (system, code))
        if (system, code) in self.site and standard[0] == OMOP:
            return Match(int(standard[1]), source_value, standard)
        shipped = self.shipped.get(field, {})
        if standard in shipped:
            return Match(shipped[standard], source_value, standard)
        for length in range(len(standard[1]), 0, -1):
            rule = (standard[0], standard[1][:length] + "*")
            if rule in shipped:
                return Match(shipped[rule], source_value, standard)
        return Match(0, source_value, standard)
