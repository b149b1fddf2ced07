"""Seconds a crop of every quality measure, and how alike they rank.

    python benchmarks/methods.py CROPS [--crops 12] [--rounds 3] [--model iresnet100]

CROPS is a folder of aligned faces, `RUN/crops` for instance. The published FaceQAN code's work,
ours in its presets and the other measures take turns, each in a process of its own that scores
other crops every round, with torch's defaults. Seconds and processor seconds (which other programs
disturb less) are medians over rounds, ratios those of one run. Loading the model is not counted.

Ranks are compared by Spearman's correlation, on the crops as they are and on those with a damaged
copy of each (blur, downsampling, noise, darkness, occlusion in turn). Models other than the
built-in one have random weights: their seconds are right, their ranks say nothing.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path

import turns

WAYS = ("published", "exact", "fast", "instant", "serfiq", "grafiqs", "norm")


def worker(way: str, model: str, files: list[str]) -> dict[str, float | list[float]]:
    """Score some crops after one to warm up, then their damaged copies; time the former."""
    import numpy as np
    import published
    import torch
    from agreement import damaged
    from scoring import load

    from faceqan_toolkit.photos.decode import decode_bytes
    from faceqan_toolkit.quality.registry import make_estimator
    from faceqan_toolkit.settings import Settings
    from faceqan_toolkit.types import Pixels

    crops = [decode_bytes(Path(file).read_bytes(), max_pixels=10**6) for file in files]
    network = load(model)
    if way == "published":
        network.requires_grad_(True)

        def score(crops: list[Pixels]) -> list[float]:
            tensors = [
                torch.from_numpy(np.stack([crop])).permute(0, 3, 1, 2).float() / 255
                for crop in crops
            ]
            return [published.score(network, tensor) for tensor in tensors]
    else:
        chosen = {"preset": way} if way in ("exact", "fast", "instant") else {"method": way}
        scorer = make_estimator(Settings(device="cpu", **chosen), network)

        def score(crops: list[Pixels]) -> list[float]:
            return [one.quality for one in scorer.score(crops)]

    score(crops[:1])
    start, spent = time.perf_counter(), time.process_time()
    clean = score(crops)
    seconds, cpu = time.perf_counter() - start, time.process_time() - spent
    worse = score([damaged(crop, number % 5) for number, crop in enumerate(crops)])
    return {
        "seconds": seconds / len(crops), "cpu": cpu / len(crops), "clean": clean, "damaged": worse
    }  # fmt: skip


def main() -> None:
    options = turns.parser(__doc__, WAYS).parse_args()
    if turns.is_worker(options, worker):
        return
    from scipy.stats import spearmanr

    # the instant preset's head is the built-in model's
    ways = [way for way in options.ways if way != "instant" or options.model == "sface"]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    clean: dict[str, list[float]] = {way: [] for way in ways}
    mixed: dict[str, list[float]] = {way: [] for way in ways}
    lower = dict.fromkeys(ways, 0)
    for files in turns.rounds(options.folder, options.crops, options.rounds):
        for way in ways:
            result = turns.turn(__file__, way, options.model, files)
            seconds[way].append(result["seconds"])
            cpu[way].append(result["cpu"])
            clean[way] += result["clean"]
            mixed[way] += result["clean"] + result["damaged"]
            pairs = zip(result["clean"], result["damaged"], strict=True)
            lower[way] += sum(after < before for before, after in pairs)
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")
    first, total = ways[0], len(clean[ways[0]])
    for way in ways:
        ratio, cpu_ratio = (
            statistics.median(base / own for base, own in zip(both[first], both[way], strict=True))
            for both in (seconds, cpu)
        )
        print(
            f"{way:10} {statistics.median(seconds[way]):8.4f} s a crop {ratio:7.2f} x {first}  "
            f"processor {statistics.median(cpu[way]):8.4f} s {cpu_ratio:7.2f} x  "
            f"damage lowers {lower[way]} of {total}"
        )
    for title, scores in (("clean", clean), ("clean and damaged", mixed)):
        print(f"Spearman, {len(scores[first])} {title} crops")
        print(" " * 10, *(f"{way:>9}" for way in ways))
        for way in ways:
            row = (f"{spearmanr(scores[way], scores[other])[0]:9.3f}" for other in ways)
            print(f"{way:10}", *row)


if __name__ == "__main__":
    main()
