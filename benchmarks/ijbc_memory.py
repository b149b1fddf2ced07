"""How long does IJB-C's 1:1 protocol take from files to tables, and how much memory?

    python benchmarks/ijbc_memory.py [--rows 469375] [--pairs 15658489] [--keep DIR]

Makes lists of the official size with made-up content, embeddings of 512 numbers for every photo,
in another order than the lists, and two methods' scores; then runs `evaluate ijbc --scores-only`
on them and tells its time and its peak. A photo's embedding is its person's and noise; the better
method knows how much. No photos are needed (the validation counts all as missing).
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
import pyarrow.parquet as pq

TEMPLATES, PEOPLE, MATED, DIMENSIONS = 23_124, 3_531, 19_557, 512
ROWS, PAIRS = 469_375, 15_658_489
NEAR_HALF = 100_003
"""Prime to the number of template pairs, so that its multiples meet each of them once."""
UNIT = 1024 if sys.platform != "darwin" else 1024**2


def template_pairs(pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Return both templates of every comparison, each once, mated ones first, and their number.

    One template is of the first half, one of the second; a template t is of person t % PEOPLE.
    """
    half = TEMPLATES // 2
    low = np.arange(half)
    high = half + low
    same = np.concatenate(
        [
            np.argwhere((low % PEOPLE == person)[:, None] & (high % PEOPLE == person))
            for person in range(PEOPLE)
        ]
    )
    mated = rng.permutation(same)[:MATED]
    keys = np.arange(pairs + len(same), dtype=np.int64) * NEAR_HALF % half**2
    first, second = keys // half, half + keys % half
    others = np.flatnonzero(first % PEOPLE != second % PEOPLE)[: pairs - len(mated)]
    return (
        np.concatenate([mated[:, 0], first[others]]),
        np.concatenate([mated[:, 1], second[others]]),
        len(mated),
    )


def make(root: Path, rows: int, pairs: int) -> None:
    """Write the three lists, the embeddings and two methods' scores."""
    rng = np.random.default_rng(0)
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()

    def write(file: Path, columns: list[np.ndarray]) -> None:
        table = pa.table({str(index): column for index, column in enumerate(columns)})
        options = pacsv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
        pacsv.write_csv(table, file, options)

    names = np.array([f"{row}.jpg" for row in range(1, rows + 1)])
    points = np.round(rng.uniform(20, 200, (10, rows)), 3)
    write(
        root / "meta" / "ijbc_name_5pts_score.txt",
        [names, *points, np.round(rng.uniform(0.5, 1, rows), 3)],
    )
    template = np.concatenate([np.arange(TEMPLATES), rng.integers(0, TEMPLATES, rows - TEMPLATES)])
    template.sort()
    write(
        root / "meta" / "ijbc_face_tid_mid.txt",
        [names, template + 1, rng.integers(1, 150_000, rows)],
    )
    first, second, mated = template_pairs(pairs, rng)
    label = np.arange(len(first)) < mated
    write(
        root / "meta" / "ijbc_template_pair_label.txt",
        [first + 1, second + 1, label.astype(np.int64)],
    )
    # templates differ in how hard they are, and so do photos
    noise = rng.uniform(1, 9, TEMPLATES)[template] * rng.uniform(0.7, 1.3, rows)
    knowing = -noise + rng.normal(0, 0.5, rows)
    for method, values in (("knowing", knowing), ("guessing", rng.random(rows))):
        write(root / f"{method}.txt", [names, values])
    people = rng.standard_normal((PEOPLE, DIMENSIONS), np.float32)
    order = rng.permutation(rows)
    kind = pa.list_(pa.float32(), DIMENSIONS)
    schema = pa.schema({"path": pa.string(), "embedding": kind})
    with pq.ParquetWriter(root / "embeddings.parquet", schema) as writer:
        for start in range(0, rows, 16_384):
            part = order[start : start + 16_384]
            vectors = rng.standard_normal((len(part), DIMENSIONS), np.float32)
            vectors *= noise[part, None].astype(np.float32)
            vectors += people[template[part] % PEOPLE]
            numbers = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSIONS)
            writer.write_table(pa.table([pa.array(names[part]), numbers], schema=schema))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--keep", type=Path, help="folder to make it all in, and to leave there")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, options.rows, options.pairs)
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.keep or Path(temporary)) / "IJBC"
        if not root.exists():
            # a process of its own: a child starts with its parent's peak
            sizes = ["--rows", str(options.rows), "--pairs", str(options.pairs)]
            subprocess.run([sys.executable, __file__, "--make", root, *sizes], check=True)
        scores = [
            text for name in ("knowing", "guessing")
            for text in ("--scores", f"{name}={root / name}.txt")
        ]  # fmt: skip
        command = [
            sys.executable, "-m", "faceqan_toolkit", "evaluate", "ijbc", root, "--scores-only",
            *scores, "--embeddings", f"made-up={root / 'embeddings.parquet'}",
            "-o", root.parent / "out", "--format", "png",
        ]  # fmt: skip
        started = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"the evaluation ended with {os.waitstatus_to_exitcode(status)}")
        print(
            f"{time.perf_counter() - started:.0f} s, of which {usage.ru_utime + usage.ru_stime:.0f}"
            f" s computing; peak {usage.ru_maxrss / UNIT:.0f} MB of the 2,048 allowed"
        )


if __name__ == "__main__":
    main()
