"""A large landmarks file: what it costs a process, read whole or through the index.

    python benchmarks/landmarks.py [--rows 1000000]

Every measurement is a process of its own: a dict of all rows, which is what every process held
before there was an index; the index, made; the index, found. Printed: seconds until the file can be
asked, memory it added, microseconds to look a photo's rows up.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faceqan_toolkit.detection.landmarks_file import LandmarksFile
from faceqan_toolkit.photos.local import LocalFile
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import LANDMARK_COLUMNS, PhotoSource

WAYS = ("dict of all rows", "index, made", "index, found")
LOOKED_UP = 10_000


def name_of(row: int) -> str:
    return f"folder{row % 1000:03d}/photo_{row:08d}.jpg"


def make(file: Path, rows: int) -> None:
    """Write a file of that many photos in random order."""
    numbers = random.Random(0)
    order = list(range(rows))
    numbers.shuffle(order)
    with file.open("w", encoding="utf-8") as lines:
        lines.write(",".join(["path", *LANDMARK_COLUMNS, "confidence"]) + "\n")
        for row in order:
            points = ",".join(f"{numbers.uniform(0, 1000):.3f}" for _ in range(10))
            lines.write(f"{name_of(row)},{points},{numbers.random():.6f}\n")


def measure(way: str, file: Path, rows: int) -> None:
    """Print one line."""
    before, start = peak(), time.perf_counter()
    if way == WAYS[0]:
        reader = LandmarksFile.__new__(LandmarksFile)
        reader.path = file
        found: dict[str, list[object]] = {}
        for path, row in reader._entries():
            found.setdefault(path, []).append(row)
        look_up = found.__getitem__
    else:
        table = LandmarksFile(file, Settings())

        def look_up(path: str) -> list[object]:
            return list(table._lookup(PhotoSource("/", path, LocalFile(Path("/") / path))))

    seconds, memory = time.perf_counter() - start, peak() - before
    numbers = random.Random(1)
    start = time.perf_counter()
    for _ in range(LOOKED_UP):
        assert look_up(name_of(numbers.randrange(rows)))
    each = (time.perf_counter() - start) / LOOKED_UP
    after = peak() - before
    print(f"{way:18} {seconds:6.1f} s {memory:7.0f} MB, {after:7.0f} MB after look-ups of "
          f"{1e6 * each:5.0f} us")  # fmt: skip


def peak() -> float:
    """Return the peak of this process's memory, MB."""
    scale = 1024 if sys.platform != "darwin" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        way, file = options.measure
        measure(way, Path(file), options.rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "faces.csv"
        make(file, options.rows)
        print(f"{options.rows:,} rows, {file.stat().st_size / 1e6:.0f} MB", flush=True)
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        for way in WAYS:
            command = [
                sys.executable,
                __file__,
                "--rows",
                str(options.rows),
                "--measure",
                way,
                file,
            ]
            subprocess.run(command, check=True, env=environment)
        index = next((Path(folder) / "faceqan-toolkit" / "landmarks").iterdir())
        print(f"the index takes {index.stat().st_size / 1e6:.0f} MB on the disk")


if __name__ == "__main__":
    main()
