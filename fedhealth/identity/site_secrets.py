"""The two symmetric secrets of a site: one for ids and folds, one for DP noise."""

import os
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self

import rfc8785
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict

from fedhealth.errors import ConfigError
from fedhealth.identity.encoding import decode, encode, exactly
from fedhealth.identity.key_files import create_private, damaged, private_folder, read_private

SECRETS_FILE = "secrets.json"


class _SecretsFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    schema_version: Literal[1] = 1
    derived: bool
    site_secret: Annotated[str, exactly(32, "a site secret")]
    site_noise_key: Annotated[str, exactly(32, "a noise key")]
    check: str

    def expected_check(self) -> str:
        """A digest of two 32-byte secrets: it shows damage and tells nothing of them."""
        return sha256(
            b"fedhealth/secrets-check/v1" + decode(self.site_secret) + decode(self.site_noise_key)
        ).hexdigest()


def seed_material(seed: int, site: str) -> bytes:
    """Return what ``SiteSecrets.load_or_create(derived_from=...)`` takes for a run's seed and a site."""
    return rfc8785.dumps([seed, site])


@dataclass(frozen=True, slots=True, repr=False)
class SiteSecrets:
    """Secrets that never leave a site.

    Attributes:
      site_secret: 32 bytes; keyed person ids and folds.
      site_noise_key: 32 bytes, always random; DP noise, Poisson draws, stochastic rounding.
      is_derived: the site secret follows from a run's seed, so whoever knows the seed
        can compute it: reproducible, and fit for runs without privacy only.
    """

    site_secret: bytes
    site_noise_key: bytes
    is_derived: bool

    def __repr__(self) -> str:
        return f"SiteSecrets(is_derived={self.is_derived})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("site secrets never leave their process")

    @classmethod
    def load_or_create(
        cls, folder: Path, *, derived_from: bytes | None = None, passphrase: str | None = None
    ) -> Self:
        """Read the secrets in ``folder``, or make them when there are none.

        Guarantees: file 0600, folder 0700, never silently replaced. The noise key is
        always random. A random site secret that is there already is kept, whatever
        ``derived_from`` says (``is_derived`` tells).

        Args:
          folder: the site's key folder.
          derived_from: None draws the site secret; bytes (``seed_material``) derive it,
            HKDF-SHA256, for embedded runs whose privacy mode is none.
          passphrase: seals the file; None leaves it to its permissions.

        Raises:
          ConfigError: damaged, open to others; a derived secret is there and a random
            one, or one of another seed, is wanted.
        """
        private_folder(folder)
        path = folder / SECRETS_FILE
        stored = read_private(path, _SecretsFile, passphrase=passphrase)
        if stored is None:
            create_private(path, _new_secrets(derived_from), passphrase=passphrase)
            stored = read_private(path, _SecretsFile, passphrase=passphrase)
        if stored is None or not compare_digest(stored.check, stored.expected_check()):
            raise damaged(path)
        secrets = cls(decode(stored.site_secret), decode(stored.site_noise_key), stored.derived)
        if secrets.is_derived and (derived_from is None or _derive(derived_from) != secrets.site_secret):
            raise ConfigError(
                f"the site secret in {folder} was derived from the seed of another run",
                "use another working directory, or the same seed without privacy",
            )
        return secrets


def _derive(material: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"fedhealth/site-secret/v1").derive(material)


def _new_secrets(derived_from: bytes | None) -> _SecretsFile:
    secret = os.urandom(32) if derived_from is None else _derive(derived_from)
    draft = _SecretsFile(
        derived=derived_from is not None,
        site_secret=encode(secret),
        site_noise_key=encode(os.urandom(32)),
        check="",
    )
    return draft.model_copy(update={"check": draft.expected_check()})
