"""Time and memory of a large landmarks file, in the process that reads it and in a child of it.

    python benchmarks/landmarks.py [--rows 2000000]

Printed for each: seconds and processor seconds to open the file, peak memory that opening added,
microseconds to look up a photo.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from faceqan_toolkit.detection.landmarks_file import LandmarksFile
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import LANDMARK_COLUMNS, PhotoSource

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


def measure(process: str, file: Path, rows: int) -> LandmarksFile:
    """Print one line and return the opened file."""
    before, start, used = peak(), time.perf_counter(), time.process_time()
    table = LandmarksFile(file, Settings())
    seconds, used = time.perf_counter() - start, time.process_time() - used
    memory = peak() - before
    numbers = random.Random(1)
    start = time.perf_counter()
    for _ in range(LOOKED_UP):
        name = name_of(numbers.randrange(rows))
        assert table.identify(PhotoSource("/", name, LocalFile(Path("/") / name)))
    each = (time.perf_counter() - start) / LOOKED_UP
    print(f"{process:6} {seconds:6.1f} s ({used:.1f} s processor) {memory:5.0f} MB, "
          f"look-ups of {1e6 * each:4.0f} us", flush=True)  # fmt: skip
    return table


def peak() -> float:
    """Return the peak of this process's memory, MB."""
    scale = 1024 if sys.platform != "darwin" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "faces.csv"
        make(file, options.rows)
        print(f"{options.rows:,} rows, {file.stat().st_size / 1e6:.0f} MB", flush=True)
        opened = measure("reader", file, options.rows)  # as long as it lives, children share it
        child = multiprocessing.get_context("spawn").Process(
            target=measure, args=("child", file, options.rows)
        )
        child.start()
        child.join()
        del opened


if __name__ == "__main__":
    main()
