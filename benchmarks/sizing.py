"""What docs/scale.md reckons with: a core's time for a photo, bytes on their way, the one writer.

    python benchmarks/sizing.py PHOTOS [--megapixels 0.25 1 2 12] [--rows 100000]

PHOTOS are resized and written as JPEG (quality 90). Times are a thread's processor time with the
built-in model's template, the median of all photos, the first of each size left out. The writer
unpickles blocks of answers, appends them to a ledger and writes parts, as the process does that
was started.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np

from faceqan_toolkit.hardware import set_threads
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.runs.folder import RunWriter
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record

MOST_PIXELS = Settings().max_pixels
BLOCK = 64
"""Photos an actor answers at once (`engines.ray`)."""


def resized(photos: Path, megapixels: float, folder: Path) -> Iterator[Path]:
    """Write every photo with so many pixels; yield the files."""
    for source in find_photos([str(photos)]):
        pixels = cv2.cvtColor(decode(source, max_pixels=MOST_PIXELS).pixels, cv2.COLOR_RGB2BGR)
        height, width = pixels.shape[:2]
        scale = (megapixels * 1e6 / (height * width)) ** 0.5
        size = (round(width * scale), round(height * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        file = folder / f"{len(list(folder.iterdir())):04d}.jpg"
        cv2.imwrite(str(file), cv2.resize(pixels, size, interpolation=way),
                    [cv2.IMWRITE_JPEG_QUALITY, 90])  # fmt: skip
        yield file


def prepared(folder: Path, detector: str) -> str:
    """Return a row of the table: milliseconds for decoding and for all until the crop, bytes."""
    settings = Settings(task="align", detector=detector, device="cpu")
    pipeline = Pipeline(settings)
    decoding, everything, bytes_on = [], [], []
    for source in find_photos([str(folder)]):
        start = time.thread_time()
        decode(source, max_pixels=MOST_PIXELS, at_least=settings.max_side)
        middle = time.thread_time()
        photo = pipeline.prepare(source)
        decoding.append(middle - start)
        everything.append(time.thread_time() - middle)
        if photo.cuts:
            bytes_on.append(len(pickle.dumps(photo)))
    size = statistics.mean(file.stat().st_size for file in folder.iterdir())
    cells = [
        f"{size / 1e3:.0f} KB",
        *(f"{1e3 * statistics.median(spent[1:]):.0f} ms" for spent in (decoding, everything)),
        f"{statistics.median(bytes_on) / 1e3:.0f} KB",
    ]
    return " | ".join(cells)


def written(record: Record, rows: int, folder: Path) -> str:
    """Return what the writer takes for a row, and what a row takes on the disk."""
    measured = [name for name, value in asdict(record).items() if isinstance(value, float)]
    chance = np.random.default_rng(0)

    def other(number: int) -> Record:
        values = dict(zip(measured, chance.random(len(measured)).tolist(), strict=True))
        path = f"{number // 1000:06d}/{number:09d}.jpg"
        return replace(record, path=path, sha256=chance.bytes(32).hex(), **values)

    blocks = [
        pickle.dumps([[other(number)] for number in range(start, min(rows, start + BLOCK))])
        for start in range(0, rows, BLOCK)
    ]
    settings = Settings(device="cpu")
    with RunWriter(folder / "run", settings, "synthetic", {"template": "arcface"}) as run:
        start = time.process_time()
        for block in blocks:
            for records in pickle.loads(block):
                run.append(records)
        run.flush()
        spent = time.process_time() - start
    size = sum(file.stat().st_size for file in (folder / "run" / "records").rglob("*.parquet"))
    sent = sum(map(len, blocks))
    return (
        f"{rows / spent:,.0f} rows a second of processor time, {size / rows:.0f} bytes a row on "
        f"the disk, {sent / rows:.0f} on the way"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.25, 1, 2, 12])
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    set_threads(1)
    print("| megapixels | detector | JPEG | decode | decode, detect, align | to the scorer |")
    print("|---|---|---|---|---|---|")
    for megapixels in options.megapixels:
        with tempfile.TemporaryDirectory() as name:
            count = len(list(resized(options.photos, megapixels, Path(name))))
            for detector in ("mtcnn", "yunet"):
                print(f"| {megapixels:g} | {detector} | {prepared(Path(name), detector)} |",
                      flush=True)  # fmt: skip
    print(f"{count} photos")
    settings = Settings(preset="instant", device="cpu")
    (record, *_) = next(
        rows
        for rows in Pipeline(settings).records(
            map(Pipeline(settings).prepare, find_photos([str(options.photos)]))
        )
        if rows[0].quality is not None
    )
    with tempfile.TemporaryDirectory() as name:
        print("the writer:", written(record, options.rows, Path(name)))


if __name__ == "__main__":
    main()
