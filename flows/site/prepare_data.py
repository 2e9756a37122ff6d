"""prepare_data: a hospital's nightly load, FHIR to validated CDM.

Runs on the site's own worker, whose environment names the folders (FEDHEALTH_SITE, FEDHEALTH_SITE_DIR,
FEDHEALTH_SITE_FHIR, FEDHEALTH_SITE_MAP). When it fails, read site.log in the site's folder: no detail that could
hold a patient value leaves it. A site whose data fail the gate abstains from rounds until a load passes.
"""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from fedhealth.config import FhirValidation
from tasks.site.data import harmonise, validate


@flow(name="prepare_data", persist_result=False)
def prepare_data(fhir_validation: FhirValidation = "sample") -> State[None]:
    """Harmonise and validate this worker's site.

    Args:
      fhir_validation: how much fhir.resources checks: ``all``, ``sample`` or ``off``.
    """
    harmonise(fhir_validation)
    verdict = validate()
    return Completed(name="Passed" if verdict == "passed" else "Abstains", message=f"validation: {verdict}")
