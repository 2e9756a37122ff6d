"""``fedhealth pki``: the consortium's certificate authority, and how a party joins."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from fedhealth.errors import ConfigError

if TYPE_CHECKING:
    from fedhealth.identity.authority import Authority, Issued
    from fedhealth.identity.roster import Role

pki_app = typer.Typer(no_args_is_help=True, help="Certify who takes part.")
PASSPHRASE = "FEDHEALTH_CA_PASSPHRASE"
AuthorityFolder = Annotated[Path, typer.Argument(help="The authority's own folder.")]
PartyFolder = Annotated[Path, typer.Argument(help="The party's own folder, as its worker knows it.")]


@pki_app.command()
def init(
    folder: AuthorityFolder,
    consortium: Annotated[str, typer.Option(help="The consortium's name.")],
    days: Annotated[int, typer.Option(min=1, help="How long the root is good.")] = 3650,
    open_key: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the key to the file's permissions.")
    ] = False,
) -> None:
    """Make the consortium's authority: an ML-DSA-87 root. Its key belongs offline."""
    from fedhealth.identity.authority import Authority

    passphrase = None if open_key else _passphrase(is_new=True)
    authority = Authority.create(folder, consortium=consortium, passphrase=passphrase, now=_now(), days=days)
    _say(f"{folder / 'ca.pem'} goes to every party; its fingerprint, to be compared by telephone:")
    _say(_print_of(authority))


@pki_app.command()
def enroll(
    folder: PartyFolder,
    name: Annotated[str, typer.Option(help="The party's name, such as hospital-01.")],
    ca: Annotated[Path, typer.Option(help="The authority's ca.pem, whose fingerprint you have compared.")],
    role: Annotated[str, typer.Option(help="site or coordinator")] = "site",
    out: Annotated[
        Path | None, typer.Option(help="Where the request is written; NAME.request.json here.")
    ] = None,
) -> None:
    """Make the party's keys, pin the authority, and write the request that the authority signs."""
    from fedhealth.identity.certificates import EnrolmentRequest, digest_of, fingerprint
    from fedhealth.identity.key_files import PASSPHRASE as KEY_PASSPHRASE
    from fedhealth.identity.keys import PartyKeys

    keys = PartyKeys.load_or_create(
        folder / "keys", name=name, role=_role(role), passphrase=os.environ.get(KEY_PASSPHRASE)
    )
    pinned = folder / "ca.pem"
    data = _read(ca)
    if pinned.exists() and pinned.read_bytes() != data:
        raise ConfigError(f"{pinned} is another authority's", "remove it if the consortium has a new one")
    pinned.write_bytes(data)
    target = out or Path(f"{name}.request.json")
    target.write_bytes(EnrolmentRequest.of(keys).to_bytes())
    _say(f"{target} goes to the authority; its fingerprint, to be compared by telephone:")
    _say(fingerprint(digest_of(keys.public)))


@pki_app.command()
def sign(
    folder: AuthorityFolder,
    requests: list[Path],
    days: Annotated[int, typer.Option(min=1, help="How long the certificates are good.")] = 365,
    yes: Annotated[bool, typer.Option("--yes", help="The fingerprints have been compared.")] = False,
) -> None:
    """Certify parties, after their fingerprints have been compared."""
    from fedhealth.identity.authority import Authority
    from fedhealth.identity.certificates import EnrolmentRequest, digest_of, fingerprint

    authority = Authority.open(folder, passphrase=_passphrase())
    for path in requests:
        request = EnrolmentRequest.from_bytes(_read(path))
        request.check()
        identity = request.identity
        _say(f"{identity.role} {identity.name}: {fingerprint(digest_of(identity))}")
        if not yes and not typer.confirm("Is this what the party reads to you?"):
            _say(f"{identity.name} is not certified")
            continue
        authority.sign(request, now=_now(), days=days)
        _say(f"{folder / 'issued' / f'{identity.name}.json'} goes to the coordinator")


@pki_app.command()
def roster(
    folder: PartyFolder,
    certified: list[Path],
    crl: Annotated[Path, typer.Option(help="The authority's crl.pem.")],
    out: Annotated[Path, typer.Option(help="Folder for the three files that every party puts into its own.")],
) -> None:
    """At the coordinator: list certified parties, sign the list, and write what every party needs of it."""
    from fedhealth.identity.certificates import Certified, Trust, read_certificates
    from fedhealth.identity.key_files import PASSPHRASE as KEY_PASSPHRASE
    from fedhealth.identity.keys import PartyKeys
    from fedhealth.identity.roster import Roster

    parties = [Certified.from_bytes(_read(path)) for path in certified]
    coordinators = [each.identity.name for each in parties if each.identity.role == "coordinator"]
    if len(coordinators) != 1:
        raise ConfigError(
            f"{len(coordinators)} coordinators are among the parties",
            "name one coordinator's file and the sites'",
        )
    keys = PartyKeys.load_or_create(
        folder / "keys", name=coordinators[0], role="coordinator", passphrase=os.environ.get(KEY_PASSPHRASE)
    )
    signed = keys.sign_roster(Roster.of(each.identity for each in parties))
    pems = "".join(each.ed25519 + each.mldsa65 for each in parties).encode()
    listed = _read(crl)
    Trust.of(_read(folder / "ca.pem"), listed).check(signed.roster, read_certificates(pems), _now())
    out.mkdir(parents=True, exist_ok=True)
    for name, data in (("roster.json", signed.to_bytes()), ("certificates.pem", pems), ("crl.pem", listed)):
        (out / name).write_bytes(data)
    _say(
        f"{len(signed.roster.sites)} sites; roster.json, certificates.pem and crl.pem of {out} go to every party"
    )


@pki_app.command()
def revoke(
    folder: AuthorityFolder,
    name: str,
    reason: Annotated[str, typer.Option(help="key_compromise, superseded, ...")] = "key_compromise",
) -> None:
    """Revoke a party's certificates; every party needs the new crl.pem."""
    from fedhealth.identity.authority import Authority, Reason

    if reason not in get_args(Reason):
        raise ConfigError(f"{reason} is no reason", f"choose one of {', '.join(get_args(Reason))}")
    authority = Authority.open(folder, passphrase=_passphrase())
    n = authority.revoke(name, reason=reason, now=_now())  # type: ignore[arg-type]
    _say(f"{n} certificates of {name} are revoked; {folder / 'crl.pem'} goes to every party")


@pki_app.command()
def show(
    folder: AuthorityFolder,
    publish: Annotated[
        bool, typer.Option("--publish", help="Also make crl.pem anew, good for 30 days.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the list for machines to this file.")
    ] = None,
) -> None:
    """What the authority issued and revoked."""
    from fedhealth.identity.authority import Authority

    authority = Authority.open(folder, passphrase=_passphrase())
    if publish:
        authority.publish(_now())
    rows = [_row(each) for each in authority.issued]
    if json_file is not None:
        json_file.write_text(json.dumps({"fingerprint": _print_of(authority), "issued": rows}, indent=2))
    table = Table("name", "role", "good until", "revoked", "fingerprint")
    for row in rows:
        table.add_row(*(str(value or "") for value in row.values()))
    _say(_print_of(authority))
    Console().print(table)


def _row(issued: "Issued") -> dict[str, Any]:
    from fedhealth.identity.certificates import fingerprint

    revoked = None if issued.revoked is None else f"{issued.revoked.at:%Y-%m-%d} {issued.revoked.reason}"
    return {
        "name": issued.name,
        "role": issued.role,
        "not_after": f"{issued.not_after:%Y-%m-%d}",
        "revoked": revoked,
        "fingerprint": fingerprint(bytes.fromhex(issued.identity)),
    }


def _print_of(authority: "Authority") -> str:
    from fedhealth.identity.certificates import fingerprint

    return fingerprint(authority.digest)


def _passphrase(*, is_new: bool = False) -> str | None:
    """From the environment, else asked for at a terminal when the authority is made."""
    found = os.environ.get(PASSPHRASE)
    if found is None and is_new:
        found = str(
            typer.prompt("Passphrase of the authority's key", hide_input=True, confirmation_prompt=True)
        )
    return found or None


def _role(text: str) -> "Role":
    if text not in ("site", "coordinator"):
        raise ConfigError(f"{text} is no role", "choose site or coordinator")
    return text  # type: ignore[return-value]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", "name a file that exists") from None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, markup=False, highlight=False)
