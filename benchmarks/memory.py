"""Does memory grow with the number of photos? Peak of a run of N and of ten times N.

    python benchmarks/memory.py [--photos 30]

Every run is a process of its own over copies of the samples, with quick settings.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "samples" / "raw_photos"


def peak_megabytes(folder: Path, photos: int) -> float:
    """Return the peak resident size of a run over that many photos."""
    source = folder / f"photos-{photos}"
    source.mkdir()
    samples = sorted(path for path in SAMPLES.rglob("*") if path.is_file())
    for number in range(photos):
        sample = samples[number % len(samples)]
        shutil.copy(sample, source / f"{number:06d}_{sample.name}")
    command = [sys.executable, "-m", "faceqan_toolkit", "align-and-score", str(source), "-o",
               str(folder / f"run-{photos}"), "-k", "2", "-l", "2", "--device", "cpu",
               "--workers", "1"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):
        raise SystemExit(f"the run failed: {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=30)
    photos = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as folder:
        few = peak_megabytes(Path(folder), photos)
        print(f"{photos:6} photos: peak {few:6.0f} MB")
        many = peak_megabytes(Path(folder), 10 * photos)
        print(f"{10 * photos:6} photos: peak {many:6.0f} MB, {many / few:.3f} x")


if __name__ == "__main__":
    main()
