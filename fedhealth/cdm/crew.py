"""Who does the steps of a harmonisation that are one task a part: this process, processes, or a cluster.

A task is its stage's name, the working folder and its part; it reads and writes files alone, and returns a count. So that
whoever runs it needs nothing else, a cluster's workers see the same folders and know the site's secret by themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from fedhealth.cdm.events import map_block
from fedhealth.cdm.scan import scan_part
from fedhealth.cdm.validating import validate_texts

Part = int | str
Crew = Callable[[str, Path, Sequence[Part]], Iterable[int]]
"""Runs ``run_part(stage, work, part)`` for every part, in any order; gives the results in the order of the parts."""


def run_part(stage: str, work: Path, part: Part, *, site_secret: bytes) -> int:
    """Do one part of a stage (read, validate, map); returns how many texts a part of ``read`` had, else 0.

    Raises:
      DataError: a file cannot be read to its end, or there is no room for what is written.
    """
    if stage == "read":
        return scan_part(work, int(part), site_secret=site_secret)
    if stage == "validate":
        validate_texts(work, str(part))
    else:
        map_block(work, str(part), site_secret=site_secret)
    return 0


@contextmanager
def local_crew(workers: int, *, site_secret: bytes) -> Iterator[Crew]:
    """A crew of processes on this machine, or of this process alone."""
    if workers <= 1:
        yield lambda stage, work, parts: map(partial(run_part, stage, work, site_secret=site_secret), parts)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        yield lambda stage, work, parts: pool.map(
            partial(run_part, stage, work, site_secret=site_secret), parts
        )
