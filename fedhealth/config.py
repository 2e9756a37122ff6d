"""Settings with units in their names, and where a working directory keeps what."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FhirValidation = Literal["all", "sample", "off"]
"""How many resources fhir.resources checks: all, about 200 per type, or none."""

RevocationReason = Literal["key_compromise", "cessation_of_operation", "superseded", "privilege_withdrawn"]
"""Why a party's certificates are revoked (RFC 5280)."""
Profile = Literal["local-only", "limited-dataset", "safe-harbor"]
"""How a CDM is de-identified: dates as they are, moved by one offset a person, or years and relative times alone."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a party waits for the others.

    Attributes:
      phase_timeout_s: the coordinator, for the sites in one phase of a secure sum.
      ready_timeout_s: the coordinator, for the sites to get ready for a round.
      verify_timeout_s: all, for the sites that open a round's sums anew: they read every upload of it.
      coordinator_timeout_s: a site, for the coordinator's next object.
      poll_s: between two looks at the exchange.
    """

    phase_timeout_s: float = 60.0
    ready_timeout_s: float = 120.0
    verify_timeout_s: float = 240.0
    coordinator_timeout_s: float = 900.0
    poll_s: float = 0.02


@dataclass(frozen=True, slots=True)
class Workdir:
    """The working directory of embedded runs."""

    path: Path

    @property
    def consortium(self) -> Path:
        """The launcher's list of sites and their folders."""
        return self.path / "consortium.yaml"

    def site(self, name: str) -> Path:
        """A site's own folder."""
        return self.path / "sites" / name

    @property
    def coordinator(self) -> Path:
        """The coordinator's own folder."""
        return self.path / "coordinator"

    @property
    def exchange(self) -> Path:
        """The exchange, as a folder."""
        return self.path / "exchange"

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME."""
        return self.path / "prefect"

    @property
    def roster(self) -> Path:
        """The pinned roster."""
        return self.path / "roster.json"

    @property
    def report_json(self) -> Path:
        """The report for machines."""
        return self.path / "report.json"

    @property
    def report_html(self) -> Path:
        """The report for people."""
        return self.path / "report.html"
