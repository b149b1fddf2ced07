"""Label the instant head's crops with exact scores: an hour and more; go on after any stop.

    python weights/instant/make_labels.py --lfw ROOT --photos ROOT [--workers 2]

Labels are appended to `labels.csv` beside this script as they are made. Crops that have one are
not scored again.
"""

from __future__ import annotations

import argparse
import csv
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from crops import Item, items

from faceqan_toolkit.quality import FaceQAN

LABELS = Path(__file__).with_name("labels.csv")
COLUMNS = ("key", "split", "kind", "quality", "similarity_mean", "similarity_std", "symmetry")
AHEAD = 32

scorer: FaceQAN


def start_worker() -> None:
    global scorer
    import torch

    torch.set_num_threads(1)
    scorer = FaceQAN("sface", device="cpu")


def label(item: Item) -> list[str]:
    (score,) = scorer.score([item.crop])
    parts = (score.quality, score.similarity_mean, score.similarity_std, score.symmetry)
    return [item.key, item.split, item.kind, *(f"{part:.6f}" for part in parts)]


def read_labels() -> dict[str, dict[str, str]]:
    if not LABELS.exists():
        return {}
    with LABELS.open(newline="", encoding="utf-8") as file:
        # a line that was cut off when the process died has no last column
        return {row["key"]: row for row in csv.DictReader(file) if row["symmetry"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    known = read_labels()
    with LABELS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([row[column] for column in COLUMNS] for row in known.values())
        file.flush()
        wanted = (i for i in items(options.lfw, options.photos) if i.key not in known)
        done, start = 0, time.monotonic()
        with ProcessPoolExecutor(
            options.workers, mp_context=get_context("spawn"), initializer=start_worker
        ) as pool:
            while batch := list(islice(wanted, AHEAD)):
                for row in pool.map(label, batch):
                    writer.writerow(row)
                    file.flush()
                done += len(batch)
                rate = done / (time.monotonic() - start)
                print(f"{len(known) + done} labels, {rate:.2f} a second", flush=True)


if __name__ == "__main__":
    main()
