"""Time and memory of everything that reads a ledger, over synthetic ones of a million rows and ten.

`python benchmarks/ledger.py --rows 1000000 10000000`: a table in Markdown, one process a figure.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, read_run
from faceqan_toolkit.runs.ledger import SCHEMA
from faceqan_toolkit.runs.todo import Todo
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import MEASURE_COLUMNS, PhotoSource

PART = 20_000
FOLDER = 100
"""Photos in a folder, one person's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--work", type=Path, help="where the ledgers go; a folder that is removed")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measured(options.task, options.work)))
        return
    print("| | rows | seconds | peak MB | spilled MB | result MB |\n|---|---|---|---|---|---|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.work, prefix="ledger-") as name:
            for task in ("write", *options.only):
                if task == "write":
                    write(Path(name), rows)
                    continue
                command = [sys.executable, __file__, "--task", task, "--work", name]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                cells = [task, f"{rows:,}", *(f"{found[key]:,.0f}" for key in
                         ("seconds", "peak", "spilled", "result"))]  # fmt: skip
                print(f"| {' | '.join(cells)} |", flush=True)


def write(work: Path, rows: int) -> None:
    """Write two runs of the same photos, whose scores are alike, side by side."""
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(write_run, [work / "run", work / "other"], [rows] * 2, range(2)))


def write_run(folder: Path, rows: int, seed: int) -> None:
    with RunWriter(folder, Settings(), "synthetic", {"template": "arcface"}) as run:
        for start in range(0, rows, PART):
            table = synthetic(start, min(PART, rows - start), seed=seed, total=rows)
            run.ledger.write([table])
        run.write_info({"ok": rows})


def synthetic(start: int, rows: int, *, seed: int, total: int) -> pa.Table:
    """Return rows of a ledger in the order of their paths; one photo in fifty has no face."""
    same, own = (np.random.default_rng((start, which)) for which in (0, seed + 1))
    number = np.arange(start, start + rows)
    none = number % 50 == 7
    quality = np.clip(same.normal(0.6, 0.08, rows) + own.normal(0, 0.02, rows), -0.1, 0.95)
    text = pa.array(number).cast(pa.string())
    folder = pa.array(number // FOLDER).cast(pa.string())
    width = len(str(total))
    path = pc.binary_join_element_wise(
        pc.utf8_lpad(folder, width, "0"), pc.utf8_lpad(text, width, "0"), "/"
    )
    digits = same.bytes(32 * rows).hex()
    digests = pa.array([digits[start : start + 64] for start in range(0, 64 * rows, 64)])
    fixed: dict[str, Any] = {
        "root": "/data/photos", "model": "sface", "method": "faceqan", "preset": "exact",
        "reason": "", "node": "", "landmarks_id": "", "attempt": 0, "rotation": 0,
    }  # fmt: skip
    columns: dict[str, Any] = {name: pa.repeat(value, rows) for name, value in fixed.items()}
    columns |= {
        "path": pc.binary_join_element_wise(path, pa.scalar("jpg"), "."),
        "face": pa.array(np.zeros(rows, np.int64), mask=none),
        "status": pc.if_else(pa.array(none), "no_face", "ok"),
        "quality": pa.array(quality, mask=none),
        "crop": pc.binary_join_element_wise(pa.scalar("crops"), path, "/"),
        "hints": pc.if_else(pa.array(number % 5 == 0), "blurred; dark", ""),
        "file_size": pa.array(same.integers(20_000, 5_000_000, rows)),
        "mtime_ns": pa.array(same.integers(10**18, 2 * 10**18, rows)),
        "sha256": digests,
    }
    for field in SCHEMA:
        if field.name not in columns:
            made = same if field.name not in MEASURE_COLUMNS else own
            columns[field.name] = pa.array(made.uniform(0, 500, rows), mask=none)
    return pa.table({field.name: columns[field.name] for field in SCHEMA}, schema=SCHEMA)


def measured(task: str, work: Path) -> dict[str, float]:
    """Do one thing; return its seconds and megabytes."""
    run = read_run(work / "run")
    watch = Spilled(work)
    start = time.perf_counter()
    with watch, (work / "out").open("w") as out, redirect_stdout(out):
        TASKS[task](run, work)
    seconds = time.perf_counter() - start
    result = sum(file.stat().st_size for file in work.glob("out*") if file.is_file())
    for file in work.glob("out*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    kilo = 1024 if sys.platform != "darwin" else 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo
    return {"seconds": seconds, "peak": peak / 1e6, "spilled": watch.most / 1e6,
            "result": result / 1e6}  # fmt: skip


class Spilled:
    """Watches how much lies in the runs' spill folders."""

    def __init__(self, work: Path) -> None:
        self.work, self.most, self._end = work, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.2):
            sizes = 0
            for file in self.work.glob("*/.spill-*/*"):
                try:
                    sizes += file.stat().st_size
                except OSError:
                    continue
            self.most = max(self.most, sizes)


def export(file_format: str) -> Callable[[RunInfo, Path], object]:
    def task(run: RunInfo, work: Path) -> None:
        Ranking(run).export(work / f"out.{file_format}", file_format)

    return task


def counts(run: RunInfo, _work: Path) -> object:
    return Ranking(run).counts()


def top(run: RunInfo, _work: Path) -> object:
    return Ranking(run).rows(top=5, bottom=5)


def filter_run(run: RunInfo, _work: Path) -> object:
    from faceqan_toolkit.results.filtering import Rules, decide

    return exhaust(decide(run, Rules(keep_percent=80, per_identity=50)))


def report(run: RunInfo, work: Path) -> object:
    from faceqan_toolkit.report.page import write_report

    return write_report(run, work / "out.html", pictures=False)


def group_by(run: RunInfo, _work: Path) -> object:
    from faceqan_toolkit.results.groups import summarise

    return summarise(run, below=0.5)


def compare(run: RunInfo, work: Path) -> object:
    from faceqan_toolkit.results.comparison import RunComparison

    return RunComparison(run, read_run(work / "other")).summary(10)


def main_faces(run: RunInfo, _work: Path) -> object:
    from faceqan_toolkit.results import groups

    return groups.main_faces(run, groups.IdentityRule())


def run_faces(run: RunInfo, _work: Path) -> object:
    """Find the photos of a data set of 10,000 in the run."""
    from faceqan_toolkit.evaluation.run_faces import read_run_faces

    wanted = islice(paths_of(run), 10_000)
    return read_run_faces(run.folder, [f"/elsewhere/{path}" for path in wanted])


def open_run(run: RunInfo, _work: Path) -> None:
    with RunWriter(run.folder, Settings(), "synthetic"):
        pass


def paths_of(run: RunInfo) -> Iterator[str]:
    number = json.loads((run.folder / "run.json").read_text())["counts"]["ok"]
    width = len(str(number))
    return (f"{n // FOLDER:0{width}}/{n:0{width}}.jpg" for n in range(number))


def todo(run: RunInfo, _work: Path) -> object:
    """Take in as many photos as there are rows; none is there any more, so all are to do."""
    root = Path("/data/photos")
    sources = (PhotoSource(str(root), path, LocalFile(root / path)) for path in paths_of(run))
    with (
        Todo(run.folder, sources) as found,
        RunWriter(run.folder, Settings(), "synthetic") as opened,
    ):
        found.compare(opened)
        return exhaust(found)


def compact(run: RunInfo, work: Path) -> None:
    shutil.copytree(run.folder, work / "out-run")
    with RunWriter(work / "out-run", Settings(), "synthetic") as copy:
        copy.compact()


def exhaust(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


TASKS: dict[str, Callable[[RunInfo, Path], object]] = {
    "open": open_run,
    "what is to do": todo,
    "counts": counts,
    "top and bottom 5": top,
    "csv": export("csv"),
    "jsonl": export("jsonl"),
    "parquet": export("parquet"),
    "filter": filter_run,
    "report": report,
    "group by folder": group_by,
    "compare": compare,
    "calibrate's faces": main_faces,
    "evaluate's faces": run_faces,
    "compact": compact,
}

if __name__ == "__main__":
    main()
