"""The codes that synthetic hospitals use: standard ones, and for each the local one of a house with its own list."""

from fedhealth.synthetic.model import ACUTE, CHRONIC
from fedhealth.synthetic.observations import LABS

ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
PCS = "http://www.cms.gov/Medicare/Coding/ICD10"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
DISPOSITION = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
PRIORITY = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"

DRUGS = {
    "I10": "6918", "E11.9": "5856", "I50.22": "4603", "I48.91": "11289", "J44.9": "435", "I21.4": "1191",
    "J18.9": "2193", "A41.9": "2193", "N39.0": "2193", "I50.23": "4603", "J44.1": "8640",
}  # fmt: skip
"""RxNorm ingredient given for a diagnosis."""

KIDNEY_INJURY = "N17.9"
LOCAL_LABS = {quantity.loinc: f"L{number:03d}" for number, quantity in enumerate(LABS)}
"""By LOINC code."""
LOCAL_DIAGNOSES = {
    code: f"D{number:03d}"
    for number, code in enumerate(sorted({*ACUTE, *(code for code, _ in CHRONIC), KIDNEY_INJURY}))
}
"""By ICD-10-CM code."""
LOCAL_DRUGS = {code: f"M{number:03d}" for number, code in enumerate(sorted(set(DRUGS.values())))}
"""By RxNorm code."""
HOUSE_DISPOSITIONS = {"home": "regulär beendet", "exp": "verstorben"}
"""By HL7 discharge disposition."""
