"""How long does IJB-C's 1:1 protocol take to read and compare, and how much memory?

    python benchmarks/ijbc_memory.py [--rows 469375] [--pairs 15658489]

Makes lists of the official size with made-up content and embeddings of 512 numbers, then reads,
validates, makes templates and compares them in a process of its own. No photos are needed (the
validation counts all as missing).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

TEMPLATES, MATED, DIMENSIONS = 23_124, 19_557, 512
ROWS, PAIRS = 469_375, 15_658_489
UNIT = 1024 if sys.platform != "darwin" else 1024**2


def make(root: Path, rows: int, pairs: int) -> None:
    """Write the three lists and the embeddings."""
    rng = np.random.default_rng(0)
    (root / "meta").mkdir()

    def write(name: str, columns: list[np.ndarray]) -> None:
        table = pa.table({str(index): column for index, column in enumerate(columns)})
        options = pacsv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
        pacsv.write_csv(table, root / "meta" / f"ijbc_{name}.txt", options)

    names = np.array([f"{row}.jpg" for row in range(1, rows + 1)])
    points = np.round(rng.uniform(20, 200, (10, rows)), 3)
    write("name_5pts_score", [names, *points, np.round(rng.uniform(0.5, 1, rows), 3)])
    template = np.concatenate([np.arange(TEMPLATES), rng.integers(0, TEMPLATES, rows - TEMPLATES)])
    write("face_tid_mid", [names, np.sort(template) + 1, rng.integers(1, 150_000, rows)])
    first = rng.integers(0, TEMPLATES // 2, pairs)
    second = rng.integers(TEMPLATES // 2, TEMPLATES, pairs)
    mated = np.zeros(pairs, np.int64)
    mated[:MATED] = 1
    second[:MATED] = first[:MATED] + TEMPLATES // 2
    write("template_pair_label", [first + 1, second + 1, mated])
    shape = (rows, DIMENSIONS)
    vectors = np.lib.format.open_memmap(root / "vectors.npy", "w+", np.float32, shape)
    for start in range(0, rows, 50_000):
        part = vectors[start : start + 50_000]
        part[:] = rng.standard_normal(part.shape, np.float32)


def measure(root: Path) -> None:
    """Read and compare, telling the time and the peak so far after every step."""
    import resource

    from faceqan_toolkit.evaluation.protocols.registry import read_protocol
    from faceqan_toolkit.evaluation.protocols.validation import validate

    started = time.perf_counter()

    def tell(step: str) -> None:
        nonlocal started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT
        print(f"{step:42} {time.perf_counter() - started:6.1f} s, peak {peak:5.0f} MB", flush=True)
        started = time.perf_counter()

    tell("start")
    protocol = read_protocol("ijbc", root)
    assert protocol.templates is not None
    tell(f"read {len(protocol.paths):,} samples, {len(protocol.pairs):,} pairs")
    report = validate(protocol)
    tell(f"validate ({sum(report.issue_counts.values()):,} issues)")
    embedded = protocol.templates.embed(np.load(root / "vectors.npy", mmap_mode="r"))
    tell(f"embed {len(embedded):,} templates")
    similarity = np.empty(len(protocol.pairs), np.float32)
    mated = np.empty(len(protocol.pairs), np.bool_)
    start = 0
    for block in protocol.pairs.blocks():
        part = slice(start, start + len(block.first))
        similarity[part] = np.einsum("ij,ij->i", embedded[block.first], embedded[block.second])
        mated[part] = block.mated
        start = part.stop
    tell(f"compare ({int(mated.sum()):,} mated)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, options.rows, options.pairs)
        return
    if options.measure:
        measure(options.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        # a process of its own: a child starts with its parent's peak
        sizes = ["--rows", str(options.rows), "--pairs", str(options.pairs)]
        subprocess.run([sys.executable, __file__, "--make", folder, *sizes], check=True)
        command = [sys.executable, __file__, "--measure", folder]
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("the measured process failed")
        print(f"peak {usage.ru_maxrss / UNIT:.0f} MB of the 2,048 allowed")


if __name__ == "__main__":
    main()
