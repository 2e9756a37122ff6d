"""``fedhealth pki``: the consortium's certificate authority, and how a party joins."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from rich.console import Console
from rich.table import Table

from fedhealth.config import RevocationReason
from fedhealth.errors import ConfigError

if TYPE_CHECKING:
    from fedhealth.identity.authority import Authority, Issued
    from fedhealth.identity.certificates import Certified


def _known_reason(text: str) -> str:
    """A reason of RFC 5280 that the authority writes."""
    if text not in get_args(RevocationReason):
        raise ConfigError(f"--reason {text} is not known", f"use {' or '.join(get_args(RevocationReason))}")
    return text


pki_app = typer.Typer(no_args_is_help=True, help="Certify who takes part.")
AuthorityFolder = Annotated[Path, typer.Argument(help="The authority's own folder.")]
PartyFolder = Annotated[Path, typer.Argument(help="The party's own folder, as its worker knows it.")]
Days = Annotated[int, typer.Option(min=1, max=36_500, help="How long it is good.")]


@pki_app.command()
def init(
    folder: AuthorityFolder,
    consortium: Annotated[str, typer.Option(help="The consortium's name.")],
    days: Days = 3650,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the key to the file's permissions.")
    ] = False,
) -> None:
    """Make the consortium's authority: an ML-DSA-87 root. Its key belongs offline."""
    from fedhealth.identity.authority import Authority

    passphrase = None if no_passphrase else _passphrase() or _asked_for()
    authority = Authority.create(folder, consortium=consortium, passphrase=passphrase, now=_now(), days=days)
    _say(f"{folder / 'ca.pem'} goes to every party; its fingerprint, to be compared by telephone:")
    _say(_print_of(authority))


@pki_app.command()
def enroll(
    folder: PartyFolder,
    name: Annotated[str, typer.Option(help="The party's name, such as hospital-01.")],
    ca: Annotated[Path, typer.Option(help="The authority's ca.pem.")],
    role: Annotated[Literal["site", "coordinator"], typer.Option(help="What it does.")] = "site",
    out: Annotated[
        Path | None, typer.Option(help="Where the request is written; NAME.request.json here.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The fingerprint of ca.pem has been compared.")] = False,
) -> None:
    """Pin the authority, make the party's keys, and write the request that the authority signs."""
    from fedhealth.identity.certificates import EnrolmentRequest, digest_of, fingerprint, read_root
    from fedhealth.identity.key_files import write_private
    from fedhealth.identity.keys import PartyKeys

    data, pinned, target = _read(ca), folder / "ca.pem", out or Path(f"{name}.request.json")
    consortium, root = read_root(data)
    if pinned.exists() and pinned.read_bytes() != data:
        raise ConfigError(f"{pinned} is another authority's", "remove it if the consortium has a new one")
    _say(f"{ca} is of {consortium}: {fingerprint(root)}")
    if not yes and not typer.confirm("Is this what the authority reads to you?"):
        raise ConfigError(f"{ca} is not the authority's", "ask it for ca.pem again; nothing was made")
    keys = PartyKeys.load_or_create(folder / "keys", name=name, role=role, passphrase=_key_passphrase())
    write_private(pinned, data, mode=0o644)
    write_private(target, EnrolmentRequest.of(keys).to_bytes(), mode=0o644)
    _say(f"{target} goes to the authority; its fingerprint, to be compared by telephone:")
    _say(fingerprint(digest_of(keys.public)))


@pki_app.command()
def sign(
    folder: AuthorityFolder,
    requests: list[Path],
    days: Days = 365,
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
        _say(
            f"{folder / 'issued' / f'{identity.name}.json'} goes to the coordinator, with {_listed(authority)}"
        )


@pki_app.command()
def roster(
    folder: PartyFolder,
    certified: list[Path],
    crl: Annotated[Path, typer.Option(help="The authority's crl.pem.")],
    out: Annotated[Path, typer.Option(help="Folder for the three files that every party puts into its own.")],
) -> None:
    """At the coordinator: list certified parties, sign the list, and write what every party needs of it."""
    from fedhealth.identity.certificates import Trust, read_certificates
    from fedhealth.identity.key_files import write_private
    from fedhealth.identity.keys import KEYS_FILE, PartyKeys
    from fedhealth.identity.roster import Roster

    parties = [_certified(path) for path in certified]
    coordinators = [each.identity.name for each in parties if each.identity.role == "coordinator"]
    if len(coordinators) != 1:
        raise ConfigError(
            f"{len(coordinators)} coordinators are among the parties",
            "name one coordinator's file and the sites'",
        )
    if not (folder / "keys" / KEYS_FILE).exists():
        raise ConfigError(f"{folder} has no keys", "name the folder that the coordinator was enrolled with")
    keys = PartyKeys.load_or_create(
        folder / "keys", name=coordinators[0], role="coordinator", passphrase=_key_passphrase()
    )
    signed = keys.sign_roster(Roster.of(each.identity for each in parties))
    pems = "".join(each.ed25519 + each.mldsa65 for each in parties).encode()
    listed = _read(crl)
    Trust.of(_read(folder / "ca.pem"), listed).check(signed.roster, read_certificates(pems), _now())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be made ({error.strerror})", "name a new folder") from None
    for name, data in (("roster.json", signed.to_bytes()), ("certificates.pem", pems), ("crl.pem", listed)):
        write_private(out / name, data, mode=0o644)
    _say(
        f"{len(signed.roster.sites)} sites; roster.json, certificates.pem and crl.pem of {out} go to every party"
    )


@pki_app.command()
def revoke(
    folder: AuthorityFolder,
    name: str,
    reason: Annotated[
        RevocationReason,
        typer.Option(
            parser=_known_reason, metavar="REASON", help=f"Why: {', '.join(get_args(RevocationReason))}."
        ),
    ] = "key_compromise",
) -> None:
    """Revoke a party's certificates; every party needs the new crl.pem."""
    from fedhealth.identity.authority import Authority

    authority = Authority.open(folder, passphrase=_passphrase())
    n = authority.revoke(name, reason=reason, now=_now())
    told = f"{n} certificates of {name} are revoked" if n else f"{name} was revoked before"
    _say(f"{told}; {_listed(authority)}; make a roster without its file")


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
    """What the authority issued and revoked, and until when its list of revocations is good."""
    from fedhealth.identity.authority import Authority
    from fedhealth.identity.key_files import write_private

    authority = Authority.open(folder, passphrase=_passphrase())
    if publish:
        authority.publish(_now())
    rows = [_row(each) for each in authority.issued]
    if json_file is not None:
        told = {"fingerprint": _print_of(authority), "issued": rows}
        write_private(json_file, json.dumps(told, indent=2).encode(), mode=0o644)
    table = Table("name", "role", "good until", "revoked", "fingerprint")
    for row in rows:
        table.add_row(*(str(value or "") for value in row.values()))
    _say(_print_of(authority))
    Console().print(table)
    _say(_listed(authority))


@pki_app.command()
def check(folder: PartyFolder) -> None:
    """At a party: whether its folder has all that its next run needs, and until when."""
    from fedhealth.identity.certificates import Trust, read_certificates
    from fedhealth.identity.keys import PartyKeys
    from fedhealth.rounds.pinned_roster import read_roster

    own = PartyKeys.load(folder / "keys", passphrase=_key_passphrase()).public
    _say(f"keys: of the {own.role} {own.name}")
    pinned = os.environ.get("FEDHEALTH_ROSTER_DIGEST") or None
    found = read_roster(folder, expected_digest=pinned, now=_now().timestamp())
    _say(f"roster.json: signed by {found.coordinator}; {len(found.sites)} sites: {', '.join(found.sites)}")
    _say(f"its digest: {found.digest}{', as FEDHEALTH_ROSTER_DIGEST says' if pinned else ''}")
    if own not in found.parties:
        raise ConfigError(
            f"roster.json does not list the {own.role} {own.name} with the keys in this folder",
            "let the authority certify it and the coordinator make a roster with it",
        )
    if (folder / "ca.pem").exists():
        trust = Trust.of(_read(folder / "ca.pem"), _read(folder / "crl.pem"))
        end = trust.end_of(found, read_certificates(_read(folder / "certificates.pem")))
        _say(
            f"certificates.pem: each of them is certified and not revoked; all certificates until {end:%Y-%m-%d}"
        )
        _say(f"crl.pem: number {trust.list_number}, good until {trust.revoked.next_update_utc:%Y-%m-%d}")
    else:
        _say("no ca.pem: the roster is believed for its digest alone")


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


def _listed(authority: "Authority") -> str:
    number, until = authority.published()
    return (
        f"{authority.folder / 'crl.pem'} (number {number}, good until {until:%Y-%m-%d}) goes to every party"
    )


def _certified(path: Path) -> "Certified":
    from fedhealth.identity.certificates import Certified

    data = _read(path)
    try:
        return Certified.from_bytes(data)
    except ConfigError:
        raise ConfigError(
            f"{path} holds no certificates", "take issued/NAME.json from the authority"
        ) from None


def _passphrase() -> str | None:
    from fedhealth.identity.authority import PASSPHRASE

    return os.environ.get(PASSPHRASE) or None


def _asked_for() -> str:
    told = typer.prompt("Passphrase of the authority's key", hide_input=True, confirmation_prompt=True)
    return str(told)


def _key_passphrase() -> str | None:
    from fedhealth.identity.key_files import PASSPHRASE

    return os.environ.get(PASSPHRASE) or None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", "name a file that exists") from None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, markup=False, highlight=False)
