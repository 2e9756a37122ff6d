"""A run replayed by whoever has a copy of its exchange: every sum opened anew, every model computed again (R5 for auditors).

It needs no key, so it cannot check the tags of exact sums: those the sites have checked. It needs the software of the run, as
another version may decode a sum otherwise.
"""

from collections.abc import Iterator
from hashlib import sha256

from fedhealth.audit import Finding
from fedhealth.errors import FedHealthError
from fedhealth.exchange.board import Reader
from fedhealth.models import weights as weight_codec
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.rounds.objects import PREPROCESSING_ROUND, Manifest, round_key
from fedhealth.rounds.progress import Progress
from fedhealth.rounds.replay import replay_round
from fedhealth.study.spec import Study


def replay_run(reader: Reader, run: str) -> tuple[Finding, ...]:
    """What does not follow from what the sites sent: aggregates that their sums do not give, models that aggregates do not give.

    Args:
      reader: the exchange, or a copy.
      run: the run's id; its rounds that are closed are replayed.
    """
    try:
        return tuple(_findings(reader, run))
    except FedHealthError as error:
        return (Finding("replay", f"runs/{run}", error.problem),)


def _findings(reader: Reader, run: str) -> Iterator[Finding]:
    progress = _progress(reader, run)
    account = RunAccount(reader, reader.roster.coordinator, run, progress.study)
    number = PREPROCESSING_ROUND
    while reader.exists(key := round_key(run, number, "aggregate")):
        manifest = _manifest(reader, run, number)
        if weight_codec.digest(progress.whole(number)) != manifest.model_digest:
            yield Finding(
                "replay",
                round_key(run, number, "manifest"),
                "names another model than the rounds before give",
            )
        shape = progress.shape(number)
        own = replay_round(reader, manifest, shape, account=account, tag_key=None)
        told = read_aggregate(reader, reader.roster.coordinator, run, number)
        if sha256(own.to_bytes()).digest() != sha256(told.to_bytes()).digest():
            yield Finding("replay", key, "is not what the round's sums come to")
        number += 1


def _progress(reader: Reader, run: str) -> Progress:
    coordinator, manifest = reader.roster.coordinator, _manifest(reader, run, PREPROCESSING_ROUND)
    key = f"studies/{manifest.study}/{manifest.study_digest}/study"
    study = reader.read(key, kind="study", sender=coordinator, role="coordinator").payload
    return Progress(
        study=Study.from_canonical(study),
        seed=manifest.seed,
        sites=len(reader.roster.sites),
        aggregate_of=lambda number: read_aggregate(reader, coordinator, run, number),
        transferred=lambda: weight_codec.from_bytes(_payload(reader, run, 1, "model")),
    )


def _manifest(reader: Reader, run: str, number: int) -> Manifest:
    return Manifest.from_bytes(_payload(reader, run, number, "manifest"))


def _payload(reader: Reader, run: str, number: int, kind: str) -> bytes:
    opened = reader.read(
        round_key(run, number, kind),
        kind=kind,
        sender=reader.roster.coordinator,
        role="coordinator",
        run=run,
        round=number,
    )
    return opened.payload
