"""What benchmarks of crops share: ways take turns, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


def parser(doc: str | None, ways: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of a folder of crops, and of what to do with them."""
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("folder", type=Path)
    made.add_argument("--crops", type=int, default=12, help="a round")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--ways", nargs="+", choices=ways, default=ways, metavar="WAY")
    made.add_argument("--model", default="sface")
    made.add_argument("--worker", help=argparse.SUPPRESS)
    return made


def is_worker(
    options: argparse.Namespace, work: Callable[[str, str, list[str]], dict[str, Any]]
) -> bool:
    """Do a worker's turn and print it as JSON, if this process is one."""
    if options.worker:
        print(json.dumps(work(options.worker, options.model, json.load(sys.stdin))))
    return bool(options.worker)


def rounds(folder: Path, crops: int, number: int) -> Iterator[list[str]]:
    """Yield the files of each round, other ones every time while there are any."""
    files = sorted(map(str, folder.rglob("*.png")))
    for start in range(0, number * crops, crops):
        yield [files[(start + n) % len(files)] for n in range(crops)]


def turn(script: str, way: str, model: str, files: list[str]) -> dict[str, Any]:
    """Return what a new process of the script says of some crops.

    Raises:
        subprocess.CalledProcessError: it failed; `stderr` says why.
    """
    done = subprocess.run(
        [sys.executable, script, ".", "--worker", way, "--model", model],
        input=json.dumps(files), capture_output=True, text=True, check=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result
