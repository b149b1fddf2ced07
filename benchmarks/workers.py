"""What a second core brings, and whether two processes or two threads make more of it.

    python benchmarks/workers.py PHOTOS [--repeat 2 4 10] [--rounds 3]

PHOTOS, with so many copies of each for exact, fast and instant, go through one process on one
core, one process with two threads, and two processes of one thread, in turns, each in a process
of its own. Printed for each: seconds from the first photo to the last record, without loading;
seconds of the whole command; seconds of processor time a photo; the best round counts. Where the
machine is busy with other things only the last is worth anything, and not much. Linux only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODES = {"1 core": 1, "1 process, 2 threads": 2, "2 processes": 2}
"""Cores each may use."""


def run(mode: str, preset: str, folder: str) -> None:
    """Do all photos; print the seconds it takes when all is loaded."""
    from faceqan_toolkit.engines.processes import ProcessEngine
    from faceqan_toolkit.hardware import set_threads
    from faceqan_toolkit.photos.find import find_photos
    from faceqan_toolkit.pipeline import Pipeline
    from faceqan_toolkit.settings import Settings

    settings = Settings(preset=preset, device="cpu")
    sources = find_photos([folder])
    if mode == "2 processes":
        found = ProcessEngine(["cpu"] * 2).run(sources, settings, None)
    else:
        set_threads(MODES[mode])
        pipeline = Pipeline(settings)
        found = pipeline.records(pipeline.prepare_ahead(sources))
    start = time.perf_counter()
    for _ in found:
        pass
    print(time.perf_counter() - start)


def measured(mode: str, preset: str, folder: Path) -> tuple[float, float, float]:
    """Return the seconds of the photos, of the process, and of the processor."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder), "--run", mode, preset],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, range(MODES[mode])),
    )
    assert process.stdout is not None
    photos = float(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return photos, time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--repeat", type=int, nargs=3, default=[2, 4, 10])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        mode, preset = options.run
        run(mode, preset, str(options.photos))
        return
    print(f"{'':32}{'photos, s':>10}{'ratio':>7}{'all, s':>9}{'ratio':>7}{'cpu, s/photo':>14}")
    files = sorted(p for p in options.photos.rglob("*") if p.is_file())
    for preset, copies in zip(("exact", "fast", "instant"), options.repeat, strict=True):
        with tempfile.TemporaryDirectory() as temporary:
            for copy in range(copies):
                for file in files:
                    shutil.copy(file, Path(temporary) / f"{copy:03d}_{file.name}")
            rounds = [
                {mode: measured(mode, preset, Path(temporary)) for mode in MODES}
                for _ in range(options.rounds)
            ]
        base = None
        for mode in MODES:
            photos, whole, cpu = (min(one[mode][part] for one in rounds) for part in range(3))
            base = base or (photos, whole)
            print(
                f"{preset + ', ' + mode:32}{photos:10.2f}{base[0] / photos:7.2f}"
                f"{whole:9.2f}{base[1] / whole:7.2f}{cpu / len(files) / copies:14.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
