"""Harmonise resources, or files by name, in a folder of their own."""

from collections.abc import Callable
from typing import Any

import pytest
from simulator.hospital import SECRET, Loaded, Resource, lines, write_files

from fedhealth.cdm import harmonize

Load = Callable[..., Loaded]


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The CDM of resources (one NDJSON file) or of files by name."""

    def run(
        resources: list[Resource] | None = None,
        *,
        files: dict[str, bytes] | None = None,
        secret: bytes = SECRET,
        **options: Any,
    ) -> Loaded:
        folder = tmp_path_factory.mktemp("hospital")
        write_files(folder / "fhir", files or {"all.ndjson": lines(resources or [])})
        options = {"validate": "off", "site": "house"} | options
        account = harmonize(folder / "fhir", folder / "cdm", site_secret=secret, **options)
        return Loaded(folder / "cdm", account)

    return run
