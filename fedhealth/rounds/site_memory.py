"""What a site remembers of a run from round to round, in its own folder.

SCAFFOLD's control, personal parameters, and what it owes of its updates where only a share of them is sent: all are made of
the site's own updates. Each round leaves one file, so that a round that is answered again after a crash
starts from what the round before left and writes the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from fedhealth.aggregation.optimizers import site_control
from fedhealth.errors import ProtocolError
from fedhealth.models.weights import Weights, flatten, sorted_weights, unflatten
from fedhealth.rounds.journal import record_once
from fedhealth.rounds.progress import Progress


@dataclass(frozen=True, slots=True)
class SiteMemory:
    """One site's memory of one run.

    Args:
      folder: of the run, private to the site.
      site: its name.
      progress: of the run.
    """

    folder: Path
    site: str
    progress: Progress

    def control(self, number: int) -> Weights:
        """The control with which the site enters a round: zeros at first, moved by every round in whose sum it was."""
        names = self.progress.weights(number)
        latest = self._before(number)
        if latest is None:
            return _zeros(names)
        kept = self._load(latest)
        own, control, delta = ({name: kept[f"{part}.{name}"] for name in names} for part in _OF_CONTROL)
        if self.site not in self.progress.aggregate_of(latest).survivors.get("update", ()):
            return own
        return site_control(control, own, delta, self.progress.study)

    def personal(self, number: int) -> Weights:
        """The parameters that the site keeps to itself, as it enters a round."""
        start, latest = self.progress.personal(), self._before(self.progress.origin(number))
        if latest is None or not start:
            return start
        kept = self._load(latest)
        return {name: kept[f"personal.{name}"] for name in start}

    def owed(self, number: int) -> Weights:
        """What earlier rounds left unsent of the site's updates, as it enters a round: the memory of error feedback.

        Source: Seide et al. 2014; Karimireddy et al. 2019.
        """
        names = self.progress.weights(number)
        latest = self._before(number)
        if latest is None:
            return _zeros(names)
        kept = self._load(latest)
        told = {name: kept[f"told.{name}"] for name in names}
        if self.site not in self.progress.aggregate_of(latest).survivors.get("update", ()):
            return told
        if (codec := self.progress.codec(latest)) is None:
            return _zeros(names)
        unsent = flatten(told)
        unsent[codec.coordinates()] = 0.0
        return unflatten(unsent, names)

    def keep(self, number: int, **parts: Weights) -> None:
        """Remember, durably and once, what a round was made with and what it left; the next round reads it.

        Raises:
          ProtocolError: the round was answered before, with something else: what was uploaded then may be in its sum.
        """
        tensors = {f"{part}.{name}": array for part, named in parts.items() for name, array in named.items()}
        if not tensors:
            return
        kept = save(sorted_weights(tensors))
        if record_once(self._path(number), kept) != kept:
            raise ProtocolError(
                f"this site's rows changed since it first answered round {number} of this run",
                "restart the run under a new run id",
            )

    def _before(self, number: int) -> int | None:
        rounds = (int(path.stem) for path in self.folder.glob("[0-9]*.safetensors"))
        return max((each for each in rounds if each < number), default=None)

    def _load(self, number: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        return load(self._path(number).read_bytes())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.safetensors"


def _zeros(names: Weights) -> Weights:
    return {name: np.zeros_like(array) for name, array in names.items()}


_OF_CONTROL = ("own", "control", "delta")
