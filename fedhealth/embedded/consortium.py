"""``consortium.yaml``: the launcher's own list of sites and their folders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedhealth.errors import ConfigError, DataError, PolicyError
from fedhealth.fhir.files import is_fhir_name

SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class SiteEntry(BaseModel):
    """One site: where its FHIR (or OMOP) folder, or OMOP database, and its map folder are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    fhir: Path | None = None
    cdm: Path | None = None
    omop: str | None = None
    site_map: Path | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(source is not None for source in (self.fhir, self.cdm, self.omop)) != 1:
            raise ValueError("a site needs exactly one of fhir, cdm and omop")
        return self


class Consortium(BaseModel):
    """All sites of an embedded run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    sites: tuple[SiteEntry, ...]

    def entry(self, name: str) -> SiteEntry:
        """A site's entry.

        Raises:
          KeyError: no such site.
        """
        return {entry.name: entry for entry in self.sites}[name]

    def to_yaml(self) -> str:
        """The file's text."""
        return yaml.safe_dump(json.loads(self.model_dump_json(exclude_none=True)), sort_keys=False)


def load_consortium(path: Path) -> Consortium:
    """Read a consortium file; relative folders are relative to it.

    Raises:
      ConfigError: the file is missing or wrong.
      PolicyError: fewer than 3 sites.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        consortium = Consortium.model_validate(data)
    except OSError:
        raise ConfigError(f"the consortium file {path} cannot be read", "check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"the consortium file {path} is not YAML", "correct its syntax") from None
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(
            f"the consortium file {path}: {place or 'the file'} is wrong", "see fedhealth synth's"
        ) from None
    base = path.resolve().parent
    return checked(Consortium(sites=tuple(_resolved(entry, base) for entry in consortium.sites)))


def consortium_from_options(sites: Sequence[str], site_maps: Sequence[str] = ()) -> Consortium:
    """A consortium from ``NAME=DIR`` options; a folder with a ``person.parquet`` is taken as OMOP.

    Raises:
      ConfigError: an option is not of that form, a folder is missing, or a map names no site.
      PolicyError: fewer than 3 sites.
    """
    folders = [_split(option, "--site") for option in sites]
    maps = dict(_split(option, "--site-map") for option in site_maps)
    unknown = sorted(set(maps) - {name for name, _ in folders})
    if unknown:
        raise ConfigError(f"--site-map names {unknown[0]}, which is no site", "use the name of a --site")
    try:
        entries = tuple(_entry(name, folder, maps.get(name)) for name, folder in folders)
    except ValidationError:
        raise ConfigError("a site's name is not valid", "use small letters, digits and hyphens") from None
    return checked(Consortium(sites=entries))


def checked(consortium: Consortium) -> Consortium:
    """Refuse what no run can use."""
    names = [entry.name for entry in consortium.sites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"site {twice[0]} is named twice", "give every site a name of its own")
    require_enough_sites(len(names))
    return consortium


def require_enough_sites(count: int) -> None:
    """Refuse a consortium whose sums would show a site's own numbers.

    Raises:
      PolicyError: fewer than 3 sites.
    """
    if count < 3:
        raise PolicyError(
            f"only {count} sites: a sum over fewer than 3 would show a site's own numbers", "add sites"
        )


def check_sources(consortium: Consortium) -> None:
    """Refuse folders that cannot be a site's data before anything is written.

    Raises:
      ConfigError: a folder does not exist.
      DataError: a FHIR folder holds no FHIR file.
    """
    for entry in consortium.sites:
        if entry.omop is not None:
            continue
        source = entry.fhir or entry.cdm
        if source is None or not source.is_dir():
            raise ConfigError(f"site {entry.name}: its data folder does not exist", "correct its path")
        if entry.fhir is not None and not any(is_fhir_name(path.name) for path in source.rglob("*")):
            raise DataError(
                f"site {entry.name}: its folder holds no FHIR file",
                "put *.ndjson, *.ndjson.gz or *.json there",
            )


def _resolved(entry: SiteEntry, base: Path) -> SiteEntry:
    paths = {name: getattr(entry, name) for name in ("fhir", "cdm", "site_map")}
    return SiteEntry(
        name=entry.name,
        omop=entry.omop,
        **{key: base / path for key, path in paths.items() if path is not None},
    )


def _split(option: str, flag: str) -> tuple[str, Path]:
    name, separator, folder = option.partition("=")
    if not separator or not folder:
        raise ConfigError(
            f"{flag} {option} is not of the form NAME=DIR", f"write {flag} hospital-01=path/to/folder"
        )
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(f"{flag} {name}: the folder {folder} does not exist", "check the path")
    return name, path.resolve()


def _entry(name: str, folder: Path, site_map: Path | None) -> SiteEntry:
    is_omop = any((folder / f"person{suffix}").exists() for suffix in (".parquet", ".csv", ".csv.gz"))
    source = {"cdm": folder} if is_omop else {"fhir": folder}
    return SiteEntry(name=name, site_map=site_map, **source)
