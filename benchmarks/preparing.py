"""Photos decoded and searched for faces by several threads of one process: what a GPU waits for.

    python benchmarks/preparing.py PHOTOS [--threads 1 2] [--repeat 3] [--rounds 3]

`Pipeline.prepare` on all photos, so many times, in threads that compute alone, and in as many
processes of one thread for comparison. Printed: photos a second, the best round, without loading.
Threads of one process hold up each other wherever they need Python's lock.
"""

from __future__ import annotations

import argparse
import sys
import time
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from faceqan_toolkit.hardware import set_threads
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.threads import prefetch_map


def prepare(photos: Path, repeat: int, detector: str, threads: int, ready: Barrier) -> None:
    """Prepare all photos between two meetings at the barrier."""
    set_threads(1)
    pipeline = Pipeline(Settings(task="align", device="cpu", detector=detector))
    sources = list(find_photos([str(photos)])) * repeat
    pipeline.prepare(sources[0])
    ready.wait()
    for _ in prefetch_map(pipeline.prepare, sources, 4 * threads, threads):
        pass
    ready.wait()


def rate(photos: Path, repeat: int, detector: str, threads: int, processes: int) -> float:
    """Return photos a second."""
    context = get_context("spawn")
    ready = context.Barrier(processes + 1)
    team = [
        context.Process(target=prepare, args=(photos, repeat, detector, threads, ready))
        for _ in range(processes)
    ]
    for process in team:
        process.start()
    ready.wait()
    start = time.perf_counter()
    ready.wait()
    seconds = time.perf_counter() - start
    for process in team:
        process.join()
    return len(list(find_photos([str(photos)]))) * repeat * processes / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ways = [(number, 1) for number in options.threads]
    ways += [(1, number) for number in options.threads if number > 1]
    for detector in ("mtcnn", "yunet"):
        best = dict.fromkeys(ways, 0.0)
        for _ in range(options.rounds):
            for way in ways:
                found = rate(options.photos, options.repeat, detector, *way)
                best[way] = max(best[way], found)
        for (threads, processes), found in best.items():
            print(
                f"{detector:6} {processes} process(es) of {threads} thread(s): "
                f"{found:6.1f} photos/s, {found / best[ways[0]]:5.2f} x"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
