"""What runs inside one site's process: its keys, its data, its answers. It gets commands, never data.

The launcher sends a command name and small settings; back come counts, reason codes and public keys. Texts of
unexpected errors stay in the site's own log file.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fedhealth.config import FhirValidation
from fedhealth.embedded.pool import SiteConfig
from fedhealth.errors import DataError, FedHealthError
from fedhealth.identity import PartyKeys, SignedRoster, SiteSecrets, seed_material
from fedhealth.rounds.site import SiteNode
from fedhealth.rounds.site_data import SiteDataState, SiteFolder, record_state, rows_of
from fedhealth.rounds.site_environment import join
from fedhealth.rounds.site_load import harmonise_site, load_omop, validate_site
from fedhealth.study.spec import Study


@dataclass(slots=True)
class SiteProcess:
    """The commands that a site's process answers."""

    config: SiteConfig
    node: SiteNode | None = None

    @property
    def folder(self) -> SiteFolder:
        return SiteFolder(self.config.folder)

    @property
    def secrets(self) -> SiteSecrets:
        seed = self.config.derive_from_seed
        material = None if seed is None else seed_material(seed, self.config.name)
        return SiteSecrets.load_or_create(self.folder.keys, derived_from=material)

    def enrol(self) -> bytes:
        """Make or load this site's keys; give the public half."""
        keys = PartyKeys.load_or_create(self.folder.keys, name=self.config.name, role="site")
        return keys.public.to_bytes()

    def harmonise(self, fhir: str, site_map: str | None, validate: FhirValidation) -> dict[str, Any]:
        """FHIR to CDM. A site whose data cannot be read abstains; the reason code is returned."""
        return self._loaded(
            lambda: harmonise_site(
                self.folder,
                Path(fhir),
                site=self.config.name,
                site_map=None if site_map is None else Path(site_map),
                site_secret=self.secrets.site_secret,
                validate=validate,
            )
        )

    def use_omop(self, source: str, site_map: str | None) -> dict[str, Any]:
        """Take OMOP that is there already. A site whose data cannot be read abstains; the reason code is returned."""
        return self._loaded(
            lambda: load_omop(
                self.folder,
                source,
                site=self.config.name,
                site_map=None if site_map is None else Path(site_map),
                site_secret=self.secrets.site_secret,
            )
        )

    def _loaded(self, load: Callable[[], object]) -> dict[str, Any]:
        try:
            load()
        except DataError as error:
            record_state(self.folder, SiteDataState(passed=False, reason="data_unreadable"))
            _log_failure("harmonise", error)
            return {"state": "failed", "problem": error.problem, "fix": error.fix}
        return {"state": "harmonised"}

    def validate(self) -> dict[str, Any]:
        """The gate over the CDM."""
        report = validate_site(self.folder)
        return {"passed": report.passed, "reason": report.reason}

    def build_rows(self, study: bytes) -> dict[str, Any]:
        """Cohort, outcome and features of a study, ahead of its run."""
        try:
            rows = rows_of(self.folder, Study.from_canonical(study), site_secret=self.secrets.site_secret)
        except DataError as error:
            return {"built": False, "problem": error.problem, "fix": error.fix}
        return {"built": True, "empty": len(rows.labels) == 0}

    def admit(self, signed_roster: bytes, digest: str) -> dict[str, Any]:
        """Check the pinned roster, agree on pair keys with every other site (E0), join the exchange."""
        keys = PartyKeys.load_or_create(self.folder.keys, name=self.config.name, role="site")
        roster = SignedRoster.from_bytes(signed_roster).verify(expected_digest=digest)
        self.node = join(
            self.folder,
            keys=keys,
            roster=roster,
            secrets=self.secrets,
            exchange_url=self.config.exchange,
            timeouts=self.config.timeouts,
        )
        return {"peers": len(roster.sites) - 1}

    def follow(self, run: str) -> list[tuple[int, str]]:
        """Answer every round of a run, to its last."""
        if self.node is None:
            raise RuntimeError("follow before admit")
        return list(self.node.follow(run))

    def witness(self) -> None:
        """Co-sign the end of the log."""
        if self.node is None:
            raise RuntimeError("witness before admit")
        self.node.witness()


def serve_site(connection: Connection, config: SiteConfig) -> None:
    """Answer commands until the launcher closes the line. The process edge: nothing unexpected leaves."""
    config.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _log_to(SiteFolder(config.folder).log)
    process = SiteProcess(config)
    commands: Mapping[str, Callable[..., Any]] = {
        name: getattr(process, name)
        for name in ("enrol", "harmonise", "use_omop", "validate", "build_rows", "admit", "follow", "witness")
    }
    while True:
        try:
            command, arguments = connection.recv()
        except EOFError:
            return
        connection.send(_answer(commands, command, arguments))


def _answer(
    commands: Mapping[str, Callable[..., Any]], command: str, arguments: tuple[Any, ...]
) -> tuple[str, Any]:
    try:
        return "ok", commands[command](*arguments)
    except FedHealthError as error:
        _log_failure(command, error)
        return "error", error.for_outside()
    except Exception:  # noqa: BLE001 - the process edge: the text may quote a value, so it stays here
        logging.getLogger("fedhealth.site").error("%s failed\n%s", command, traceback.format_exc())
        return "error", DataError(
            f"a site's command {command} failed", "see site.log in the folder of that site"
        )


def _log_failure(command: str, error: FedHealthError) -> None:
    """With the notes, which stay here."""
    text = "".join(traceback.format_exception_only(error)).rstrip()
    logging.getLogger("fedhealth.site").error("%s failed: %s", command, text)


def _log_to(path: Path) -> None:
    """All output of this process, libraries included, goes to the site's own log file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sys.stdout.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(
        filename=path, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
