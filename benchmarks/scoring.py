"""Seconds a crop: the published code's work against ours.

    python benchmarks/scoring.py CROPS [--crops 12] [--rounds 3] [--model iresnet100]

CROPS is a folder of aligned 112x112 faces, `RUN/crops` for instance. Baseline and every way of
ours (a preset and the backend of its steps) take turns, each in a process of its own that scores
other crops every round, with torch's defaults; the figure is the median over rounds, the ratio
that of one run. Loading and compiling the model are not counted, `starts` tells how long they take.
Models other than the built-in one (registered names, or architectures such as iresnet100) have
random weights, which take as long as any; `--every-model` takes one of each registered network.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import turns

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

WAYS = (
    "published", "exact torch", "exact openvino", "fast torch", "fast openvino", "instant torch",
)  # fmt: skip


def load(model: str) -> Embedder:
    """Return the built-in model, or another network with random weights.

    Args:
        model: "sface", a registered model's name, or an architecture such as "iresnet100".
    """
    import torch

    from faceqan_toolkit.models.architectures import architecture_of, build, official
    from faceqan_toolkit.models.load import load_model
    from faceqan_toolkit.models.registry import entries

    if model == "sface":
        return load_model(model)
    torch.manual_seed(0)
    if model in entries():
        return build(architecture_of(entries()[model]))
    family = model.rstrip("0123456789")
    return build(official(family, int(model.removeprefix(family))))


def worker(way: str, model: str, files: list[str]) -> dict[str, float | list[float]]:
    """Score some crops after one to warm up; return seconds a crop and the scores."""
    import cv2
    import numpy as np
    import torch

    from faceqan_toolkit.photos.decode import decode_bytes
    from faceqan_toolkit.quality.faceqan import FaceQAN, InstantFaceQAN
    from faceqan_toolkit.settings import PRESETS

    crops = [decode_bytes(Path(file).read_bytes(), max_pixels=10**6) for file in files]
    size = load(model).input_size
    # a network that wants other crops takes as long for these, enlarged
    crops = [np.asarray(cv2.resize(crop, (size, size)), np.uint8) for crop in crops]
    if way == "published":
        import published

        network = load(model).requires_grad_(True)
        tensors = [torch.from_numpy(np.stack([c])).permute(0, 3, 1, 2).float() / 255 for c in crops]
        published.score(network, tensors[0])
        ready, start = 0.0, time.perf_counter()
        scores = [published.score(network, tensor) for tensor in tensors]
    else:
        preset, backend = way.split()
        start = time.perf_counter()
        if preset == "instant":
            scorer = InstantFaceQAN(load(model), device="cpu")
        else:
            scorer = FaceQAN(load(model), copies=PRESETS[preset], backend=backend, device="cpu")
        ready = time.perf_counter() - start
        scorer.score(crops[:1])
        start = time.perf_counter()
        scores = [score.quality for score in scorer.score(crops)]
    seconds = (time.perf_counter() - start) / len(crops)
    return {"seconds": seconds, "ready": ready, "scores": scores}


def main() -> None:
    parser = turns.parser(__doc__, WAYS)
    parser.add_argument("--every-model", action="store_true")
    options = parser.parse_args()
    if turns.is_worker(options, worker):
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")
    for model in networks() if options.every_model else [options.model]:
        ways = [way for way in options.ways if model == "sface" or not way.startswith("instant")]
        compare(model, ways, options.folder, options.crops, options.rounds)


def networks() -> list[str]:
    """Return one registered model of each network; graphs of their own have no random weights."""
    from faceqan_toolkit.models.registry import entries

    of_network = {
        (entry.family, entry.depth): name
        for name, entry in reversed([*entries().items()])
        if entry.family != "onnx"
    }
    return list(reversed(of_network.values()))


def compare(model: str, ways: list[str], folder: Path, crops: int, rounds: int) -> None:
    """Print the ways' times, and their ratios to the first."""
    print(model)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    ready: dict[str, list[float]] = {way: [] for way in ways}
    scores: dict[str, list[float]] = {way: [] for way in ways}
    for files in turns.rounds(folder, crops, rounds):
        for way in ways:
            try:
                result = turns.turn(__file__, way, model, files)
            except subprocess.CalledProcessError as error:
                # a backend that cannot compute this network
                print(f"{way:15} {error.stderr.strip().splitlines()[-1]}")
                compare(model, [w for w in ways if w != way], folder, crops, rounds)
                return
            seconds[way].append(result["seconds"])
            ready[way].append(result["ready"])
            scores[way] += result["scores"]
    first, reference = ways[0], ways[min(1, len(ways) - 1)]
    for way in ways:
        median = statistics.median(seconds[way])
        ratios = [base / own for base, own in zip(seconds[first], seconds[way], strict=True)]
        apart = max(abs(a - b) for a, b in zip(scores[way], scores[reference], strict=True))
        print(
            f"{way:15} {median:7.3f} s a crop  {statistics.median(ratios):5.2f} x {first}  "
            f"at most {apart:.4f} from {reference}  "
            f"starts in {statistics.median(ready[way]):.1f} s"
        )


if __name__ == "__main__":
    main()
