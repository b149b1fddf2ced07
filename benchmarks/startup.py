"""How long starting takes: `--help` against starting Python, a first score against importing torch.

    python benchmarks/startup.py [--repeats 15]

The first score is a whole run of `align-and-score` over one small photo, with one noisy copy and
one step, so that hardly anything but starting is left.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHOTO = Path(__file__).parents[1] / "samples" / "raw_photos" / "astronaut.jpg"
SCORE = ["-m", "faceqan_toolkit", "align-and-score", str(PHOTO), "-k", "1", "-l", "1", "-o"]
CASES = {
    "python -c pass": ["-c", "pass"],
    "--help": ["-m", "faceqan_toolkit", "--help"],
    "align-and-score --help": ["-m", "faceqan_toolkit", "align-and-score", "--help"],
    "import torch": ["-c", "import torch"],
    "import torch, torchvision": ["-c", "import torch, torchvision"],
    "first score": SCORE,
}


def seconds(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *arguments, *([folder] if arguments is SCORE else [])]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    # in turns, so that what else the machine does meets all of them
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(repeats):
        for name, arguments in CASES.items():
            times[name].append(seconds(arguments))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{'':26}         to python -c pass  to import torch, torchvision")
    for name, value in median.items():
        ratios = [value / median[base] for base in ("python -c pass", "import torch, torchvision")]
        print(f"{name:26} {1000 * value:6.0f} ms {ratios[0]:11.1f} x {ratios[1]:15.2f} x")


if __name__ == "__main__":
    main()
