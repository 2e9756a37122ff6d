"""How long does the demo take, and how much memory do its processes hold together? Prints one line of JSON.

    python benchmarks/demo.py [--hospitals 15] [--patients 400] [--rounds 10]

Memory is the sum of the proportional set sizes of all processes, every second. The CPU seconds of a fixed loop,
before and after, tell how fast the machine was: quote them with the seconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

FEDHEALTH = Path(sys.executable).parent / "fedhealth"
BUDGET = {"seconds": 120.0, "pss_gib": 4.0}


def main() -> None:
    """Run the demo in an empty folder and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("hospitals", 15), ("patients", 400), ("rounds", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = [f"--{name}={value}" for name, value in vars(parser.parse_args()).items()]
    with tempfile.TemporaryDirectory(prefix="fh") as workdir:
        loops = [_loop_seconds()]
        seconds, pss = _run([str(FEDHEALTH), "demo", *options, "--workdir", workdir])
        loops.append(_loop_seconds())
        stages = json.loads((Path(workdir) / "report.json").read_text())["seconds"]
    line = {
        "claim": "demo_seconds_and_memory",
        "seconds": round(seconds, 1),
        "pss_gib": round(pss / 2**30, 2),
        "budget": BUDGET,
        "loop_seconds": [round(each, 2) for each in loops],
        "stages": {name: round(value, 1) for name, value in stages.items()},
    }
    print(json.dumps(line))


def _run(command: list[str]) -> tuple[float, int]:
    """Wall time, and the largest sum of proportional set sizes in bytes."""
    start, largest = time.perf_counter(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        largest = max(largest, sum(map(_pss, [process, *process.children(recursive=True)])))
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"the demo ended with exit code {process.returncode}")
    return time.perf_counter() - start, largest


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # it ended meanwhile
        return 0


def _loop_seconds() -> float:
    """CPU seconds of ten million additions."""
    start, total = time.process_time(), 0
    for each in range(10_000_000):
        total += each
    return time.process_time() - start


if __name__ == "__main__":
    main()
