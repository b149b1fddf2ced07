"""Label the instant head's crops with exact scores: an hour and more; go on after any stop.

    python weights/instant/make_labels.py --lfw ROOT --photos ROOT [--workers 2] [--seed 1]

Labels are appended to `labels.csv` beside this script as they are made. Crops that have one are
not scored again. With another seed only the crops to report on are scored, for
`labels_seed1.csv`: how well exact scores agree with themselves.
"""

from __future__ import annotations

import argparse
import csv
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from crops import SPLITS, Item, items

from faceqan_toolkit.quality.faceqan import FaceQAN

HERE = Path(__file__).parent
COLUMNS = ("key", "split", "kind", "quality", "similarity_mean", "similarity_std", "symmetry")
AHEAD = 32

scorer: FaceQAN


def labels_path(seed: int = 0) -> Path:
    return HERE / (f"labels_seed{seed}.csv" if seed else "labels.csv")


def start_worker(seed: int) -> None:
    global scorer
    import torch

    torch.set_num_threads(1)
    scorer = FaceQAN("sface", seed=seed, device="cpu")


def label(item: Item) -> list[str]:
    (score,) = scorer.score([item.crop])
    parts = (score.quality, score.similarity_mean, score.similarity_std, score.symmetry)
    return [item.key, item.split, item.kind, *(f"{part:.6f}" for part in parts)]


def read_labels(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        # a line that was cut off when the process died has no last column
        return {row["key"]: row for row in csv.DictReader(file) if row["symmetry"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    path = labels_path(options.seed)
    known = read_labels(path)
    splits = ("report",) if options.seed else SPLITS
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([row[column] for column in COLUMNS] for row in known.values())
        file.flush()
        made = items(options.lfw, options.photos, splits)
        wanted = (item for item in made if item.key not in known)
        done, start = 0, time.monotonic()
        with ProcessPoolExecutor(
            options.workers, mp_context=get_context("spawn"), initializer=start_worker,
            initargs=(options.seed,),
        ) as pool:  # fmt: skip
            while batch := list(islice(wanted, AHEAD)):
                for row in pool.map(label, batch):
                    writer.writerow(row)
                    file.flush()
                done += len(batch)
                rate = done / (time.monotonic() - start)
                print(f"{len(known) + done} labels, {rate:.2f} a second", flush=True)


if __name__ == "__main__":
    main()
