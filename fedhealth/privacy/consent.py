"""Whether a patient's consents let this site use the data for research, at a given moment.

A consent is a tree: what it says at its root, and exceptions inside it. Deny wins over permit wherever both hold, and
what cannot be judged counts as a denial and never as a permit. Of several consents the newest speaks. Where none speaks the
site's default does: ``opt-in`` leaves the patient out, ``opt-out`` keeps the patient in.

Source: HL7 FHIR R4 Consent; HL7 v3 ActCode (OPTIN, OPTOUT), ActReason (HRESCH and what it covers).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives import hashes, hmac
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fedhealth.privacy.buckets import bucket
from fedhealth.privacy.people import MIN_CELL

ConsentDefault = Literal["opt-in", "opt-out"]
Word = Literal["permit", "deny"]
RESEARCH_PURPOSES = frozenset(
    (
        "HRESCH",
        "BIORCH",
        "CLINTRCH",
        "CLINTRCHNPC",
        "CLINTRCHPC",
        "PRECLINTRCH",
        "DSRCH",
        "POARCH",
        "TRANSRCH",
    )
)
"""ActReason: research, and the kinds of it."""
OTHER_PURPOSES = frozenset(
    (
        *(
            "TREAT",
            "CAREMGT",
            "ETREAT",
            "BTG",
            "HPAYMT",
            "CLMATTCH",
            "COVAUTH",
            "COVERAGE",
            "ELIGDTRM",
            "ELIGVER",
        ),
        *(
            "ENROLLM",
            "REMITADV",
            "HMARKT",
            "HOPERAT",
            "PATADMIN",
            "PATSFTY",
            "PERFMSR",
            "RECORDMGT",
            "HSYSADMIN",
        ),
        *("HDIRECT", "HACCRED", "HCOMPL", "HDECD", "HLEGAL", "HOUTCOMS", "HPRGRP", "HQUALIMP", "MEMADMIN"),
        *(
            "PUBHLTH",
            "DISASTER",
            "THREAT",
            "PATRQT",
            "FAMRQT",
            "PWATRNY",
            "SUPNWK",
            "DONAT",
            "FRAUD",
            "GOV",
            "TRAIN",
        ),
    )
)
"""ActReason: purposes that are not research. Any other code may be about it."""


class Provision(BaseModel):
    """What decides of a provision, and nothing else of it.

    Attributes:
      type: permit or deny; None where it says neither (the root of R4) or something else.
      start: ISO 8601 in UTC, from when it holds; None for always.
      end: until when, included.
      purposes: codes of what it is about; empty for everything.
      codes: ``system|code`` of what it is about; empty for everything.
      is_narrowed: whether it is about some actors, actions, classes, data or labels only.
      provisions: exceptions to it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    type: Word | None = None
    start: str | None = None
    end: str | None = None
    purposes: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    is_narrowed: bool = False
    provisions: tuple["Provision", ...] = ()


@dataclass(frozen=True, slots=True)
class Consent:
    """One consent of a patient.

    Attributes:
      person: the keyed id.
      stated: when it was given (UTC), at the earliest; None if it does not say.
      stated_by: the same at the latest: a day or a year alone spans from one to the other.
      is_withdrawn: whether it is no longer active.
      root: what it says.
    """

    person: int
    stated: datetime | None
    stated_by: datetime | None
    is_withdrawn: bool
    root: Provision


@dataclass(frozen=True, slots=True)
class ConsentRules:
    """How a site reads consents.

    Attributes:
      default: what holds for a patient of whom no consent speaks.
      codes: ``system|code`` of the provisions that are about this use, where a site's consents have such codes.
    """

    default: ConsentDefault = "opt-out"
    codes: frozenset[str] = frozenset()


def is_permitted(consents: Iterable[Consent], *, rules: ConsentRules, now: datetime) -> bool:
    """Whether the consents of one patient permit research at a moment.

    The newest consents that speak decide; a denial among them wins. Without a date, or with one that is yet to come, a
    denial counts as the newest and a permit as the oldest; so does the span of a day or a year alone. A permit outside its
    period denies: the patient is in only while it holds.
    """
    spoken = [(word, _rank(word, each, now)) for each in consents if (word := _word(each, rules, now))]
    if not spoken:
        return rules.default == "opt-out"
    newest = max(rank for _, rank in spoken)
    return all(word == "permit" for word, rank in spoken if rank == newest)


_OLDEST, _NEWEST = (moment.replace(tzinfo=UTC) for moment in (datetime.min, datetime.max))


def _rank(word: Word, consent: Consent, now: datetime) -> datetime:
    """When a consent counts as given."""
    stated = consent.stated_by if word == "deny" else consent.stated
    if stated is None or stated > now:
        return _NEWEST if word == "deny" else _OLDEST
    return stated


def _word(consent: Consent, rules: ConsentRules, now: datetime) -> Word | None:
    """What a consent says now; None if it says nothing. A permit that does not hold now denies."""
    if consent.is_withdrawn:  # what denied no longer does; what permitted, or could have, denies
        return None if _all_deny(consent.root) else "deny"
    said = _says(consent.root, rules, now, outer=None)
    return "deny" if said is None and _permits_sometime(consent.root, rules) else said


def _all_deny(provision: Provision) -> bool:
    return provision.type == "deny" and all(_all_deny(inner) for inner in provision.provisions)


def _permits_sometime(provision: Provision, rules: ConsentRules) -> bool:
    """Whether a permit that may be for this use is in it, whatever its period."""
    own = provision.type == "permit" and _about(provision, rules) != "no"
    return own or any(_permits_sometime(inner, rules) for inner in provision.provisions)


def _says(provision: Provision, rules: ConsentRules, now: datetime, *, outer: Word | None) -> Word | None:
    """What a provision says, its exceptions counted; None if it does not hold or says nothing.

    What may hold denies if it, or an exception in it, does, and never permits.
    """
    holds = _holds(provision, rules, now)
    if holds == "no":
        return None
    own = provision.type or outer
    inner = _inner(provision, rules, now, own)
    if "deny" in inner or (holds == "maybe" and own == "deny"):
        return "deny"
    if holds == "maybe":
        return None
    return "permit" if "permit" in inner else own


def _inner(
    provision: Provision, rules: ConsentRules, now: datetime, own: Word | None
) -> frozenset[Word | None]:
    return frozenset(_says(inner, rules, now, outer=own) for inner in provision.provisions)


Certainty = Literal["yes", "maybe", "no"]


def _holds(provision: Provision, rules: ConsentRules, now: datetime) -> Certainty:
    """Whether a provision is about this use, now."""
    if not _is_within(provision, now):
        return "no"
    about = _about(provision, rules)
    return "maybe" if about == "yes" and provision.is_narrowed else about


def _about(provision: Provision, rules: ConsentRules) -> Certainty:
    """Whether it is about this use, by its purposes and codes."""
    purposes, codes = set(provision.purposes), set(provision.codes)
    if purposes and purposes <= OTHER_PURPOSES:
        return "no"
    if codes and rules.codes and not rules.codes & codes:
        return "no"
    is_known = not purposes or bool(RESEARCH_PURPOSES & purposes)
    return "yes" if is_known and (not codes or rules.codes) else "maybe"


def _is_within(provision: Provision, now: datetime) -> bool:
    start, end = (
        None if text is None else datetime.fromisoformat(text) for text in (provision.start, provision.end)
    )
    return (start is None or start <= now) and (end is None or now <= end)


def left_out(
    people: NDArray[np.int64], consents: Iterable[Consent], *, rules: ConsentRules, now: datetime
) -> NDArray[np.bool_]:
    """Which of the people have not consented at a moment.

    Args:
      people: int64, shape (n,), keyed ids.
      consents: of any people.
      rules: how the site reads them.
      now: with a time zone.

    Returns:
      bool, shape (n,).
    """
    of_person: dict[int, list[Consent]] = {}
    for consent in consents:
        of_person.setdefault(consent.person, []).append(consent)
    default = rules.default == "opt-in"
    verdicts = {person: not is_permitted(found, rules=rules, now=now) for person, found in of_person.items()}
    return np.fromiter((verdicts.get(person, default) for person in people.tolist()), np.bool_, len(people))


def commitment(people: NDArray[np.int64], *, site_secret: bytes, run: str, number: int) -> str:
    """A salted commitment to the people who take part in a round.

    Guarantees: hiding (the salt is HMAC-SHA256 under the site's secret, of run and round, so that equal lists in two
    rounds do not look equal) and binding (SHA-256); the site can open it later with the salt and the list.

    Args:
      people: int64, shape (n,), keyed ids, in any order and any number of times.
      site_secret: 32 bytes.
      run: the run.
      number: the round.

    Returns:
      SHA-256 over salt and sorted ids (8 bytes each, big endian), as 64 hex digits.
    """
    digest = hashlib.sha256(consent_salt(site_secret=site_secret, run=run, number=number))
    digest.update(np.unique(people).astype(">i8").tobytes())
    return digest.hexdigest()


def consent_salt(*, site_secret: bytes, run: str, number: int) -> bytes:
    """The salt of a round's commitment, 32 bytes: what the site shows, with the list, to open it."""
    code = hmac.HMAC(site_secret, hashes.SHA256())
    code.update(f"fedhealth consent salt 1\0{run}\0{number}".encode())
    return code.finalize()


def coarse(count: int) -> int:
    """A count fit to be told: 0 for fewer than 11 people, else its bucket."""
    return 0 if count < MIN_CELL else bucket(count)
