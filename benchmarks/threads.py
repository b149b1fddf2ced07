"""One photo in memory: how long it takes with one thread and with several, idle and beside others.

    python benchmarks/threads.py PHOTO [--threads 1 2] [--rounds 20] [--busy]

Prints the median seconds of `Pipeline.assess` for each number of threads, taken in turns. With
--busy another process keeps every core at work meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

from faceqan_toolkit import Pipeline, Settings, hardware
from faceqan_toolkit import pipeline as pipeline_module


def spin() -> None:
    while True:
        sum(range(10_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, hardware.usable_cores()])
    parser.add_argument("--presets", nargs="+", default=["instant", "fast"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    others = [
        multiprocessing.Process(target=spin, daemon=True)
        for _ in range(hardware.usable_cores() if options.busy else 0)
    ]
    for other in others:
        other.start()
    pipeline_module.one_thread = nullcontext()  # the number is set here
    data = options.photo.read_bytes()
    for preset in options.presets:
        pipeline = Pipeline(Settings(preset=preset, device="cpu"))
        pipeline.assess(data)
        seconds: dict[int, list[float]] = {number: [] for number in options.threads}
        for _ in range(options.rounds):
            for number, found in seconds.items():
                hardware.set_threads(number)
                began = time.perf_counter()
                pipeline.assess(data)
                found.append(time.perf_counter() - began)
        for number, found in seconds.items():
            print(f"{preset}, {number} threads: {1000 * statistics.median(found):.0f} ms")


if __name__ == "__main__":
    main()
