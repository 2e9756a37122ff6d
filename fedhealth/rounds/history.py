"""A run replayed by whoever has a copy of its exchange: every sum opened anew, every model computed again (R5 for auditors).

It needs no key, so it cannot check the tags of exact sums: those the sites have checked. It needs the software of the run, as
another version may decode a sum otherwise.
"""

from hashlib import sha256

from fedhealth.audit import Finding
from fedhealth.errors import FedHealthError, ProtocolError
from fedhealth.exchange.board import Reader
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.rounds.objects import PREPROCESSING_ROUND, round_key
from fedhealth.rounds.posted import judge_manifest, read_manifest, read_study, read_transferred
from fedhealth.rounds.progress import Progress
from fedhealth.rounds.replay import replay_round


def replay_run(reader: Reader, run: str) -> tuple[Finding, ...]:
    """What does not follow from what the sites sent: plans and models that the run does not give, or aggregates.

    Args:
      reader: the exchange, or a copy.
      run: the run's id; its rounds that are closed are replayed, up to the first that does not hold.
    """
    number, key = PREPROCESSING_ROUND, f"runs/{run}"
    try:
        progress = _progress(reader, run)
        while reader.exists(key := round_key(run, number, "aggregate")):
            _check_round(reader, progress, run, number)
            number += 1
    except FedHealthError as error:
        return (Finding("replay", key, error.problem),)
    except (LookupError, ValueError):  # of an aggregate whose tensors are not those of its study
        return (Finding("replay", key, "cannot be read as what its study asks for"),)
    return ()


def _check_round(reader: Reader, progress: Progress, run: str, number: int) -> None:
    """Raise what a site would have refused of a round (R0), or has refused of its aggregate (R5)."""
    manifest, coordinator = read_manifest(reader, run, number), reader.roster.coordinator
    judge_manifest(manifest, purposes=progress.purposes(number), weights=progress.whole(number))
    account = RunAccount(reader, coordinator, run, progress.study)
    own = replay_round(reader, manifest, progress.shape(number), account=account, tag_key=None)
    told = read_aggregate(reader, coordinator, run, number)
    if sha256(own.to_bytes()).digest() != sha256(told.to_bytes()).digest():
        raise ProtocolError("is not what the round's sums come to", "report the coordinator")


def _progress(reader: Reader, run: str) -> Progress:
    coordinator, manifest = reader.roster.coordinator, read_manifest(reader, run, PREPROCESSING_ROUND)
    study = read_study(reader, manifest)
    return Progress(
        study=study,
        seed=manifest.seed,
        sites=len(reader.roster.sites),
        aggregate_of=lambda number: read_aggregate(reader, coordinator, run, number),
        transferred=lambda: read_transferred(reader, run, study),
    )
