"""Which remedy for dark faces: eps by contrast, brighter crops, the embedding's length?

    python benchmarks/remedies.py --lfw ROOT --work DIR [--folds 1 2 3 4] [--measured 420]

Photos of people with several, from these folds of LFW's pairs, and one damaged copy of each
(`damage.py`); each is scored with two noisy copies in every way. Half of the photos are then
compared by their damaged copy, with the built-in recognition model (S) and with dlib's (C), if it
is there (see `evaluation.py`). Prints the normalised pAUC up to 20 % discarded at FMR 1e-3 with
its interval, and p of the paired test against the paper's eps; then what each makes of darkness.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from damage import KINDS
from evaluation import auc, chosen_photos, digest, dlib_embeddings, spearman
from torch import Tensor

from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.result import Method
from faceqan_toolkit.evaluation.run_faces import read_run_faces
from faceqan_toolkit.evaluation.statistics import evaluate_methods
from faceqan_toolkit.evaluation.verification import Comparisons
from faceqan_toolkit.job import process_photos
from faceqan_toolkit.quality.faceqan import FaceQAN, aggregate
from faceqan_toolkit.settings import Settings

REFERENCE = 51.0  # grey levels, the median contrast of LFW's crops
MOST_GAIN = 12.0

Way = Callable[[Tensor, float], tuple[Tensor, float]]
"""From a crop and its contrast in grey levels to the crop that is attacked and a factor of eps."""


def by_contrast(power: float, reference: float = REFERENCE) -> Way:
    return lambda crop, contrast: (crop, min(1.0, max(contrast, 1.0) / reference) ** power)


def brighter(crop: Tensor, contrast: float) -> tuple[Tensor, float]:
    gain = max(1.0, min(REFERENCE / max(contrast, 0.5), MOST_GAIN))
    return (crop * gain).clamp(0, 1), 1.0


WAYS: dict[str, Way] = {
    "the paper's eps": lambda crop, contrast: (crop, 1.0),
    "eps by contrast, power 1/2": by_contrast(0.5),
    "the same, less contrast suffices": by_contrast(0.5, 40),
    "eps by contrast, power 3/4": by_contrast(0.75),
    "eps by contrast, power 1": by_contrast(1.0),
    "brighter crops": brighter,
}


def make_crops(lfw: Path, folds: list[int], measured: int, work: Path) -> None:
    """Write `crops/PERSON/PHOTO.png` and a damaged copy `PHOTO~KIND~STRENGTH.png` of each."""
    photos, people = chosen_photos(lfw, folds, measured)
    wanted = [photo for photo in photos if photo.path.split("/")[0] in people]
    align = Settings(task="align", faces="central", device="cpu")
    process_photos(wanted, work / "aligned", align)
    aligned = read_run_faces(work / "aligned")
    for path, crop in zip(aligned.paths, aligned.crops, strict=True):
        if not crop:
            continue
        pixels = np.ascontiguousarray(cv2.imread(str(work / "aligned" / crop))[..., ::-1])
        rng = np.random.default_rng(digest(path))
        kind = str(rng.permutation(list(KINDS))[0])
        strength = float(rng.random())
        stem = work / "crops" / Path(path).with_suffix("")
        stem.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{stem}.png", pixels[..., ::-1])
        worse = KINDS[kind](pixels, strength, rng)
        cv2.imwrite(f"{stem}~{kind}~{strength:.4f}.png", worse[..., ::-1])


def score(files: list[Path], target: Path) -> None:
    """Keep every way's quality of every crop, the embeddings and their lengths."""
    scorer = FaceQAN(copies=2, device="cpu")
    noise, eps = scorer.noise.clone(), scorer.eps
    rows: dict[str, list[float]] = {way: [] for way in WAYS}
    embeddings = []
    for number, file in enumerate(files):
        pixels = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        contrast = float((pixels @ np.array([0.299, 0.587, 0.114])).std())
        crop = scorer._tensor([pixels])
        for name, way in WAYS.items():
            attacked, factor = way(crop, contrast)
            if factor == 1 and attacked is crop and rows["the paper's eps"][number:]:
                rows[name].append(rows["the paper's eps"][number])
                continue
            scorer.eps, scorer.noise = eps * factor, noise * factor
            with torch.no_grad():
                references, mirrored = scorer._network(torch.cat([attacked, attacked.flip(3)]))
            similarities = scorer._attack(attacked, references[None], scorer.noise, scorer.steps)
            symmetry = float(F.cosine_similarity(references, mirrored, dim=0))
            rows[name].append(aggregate(similarities[0].numpy(), symmetry, scorer.exponent)[0])
            if name == "the paper's eps":
                embeddings.append(references.numpy())
        if number % 50 == 0:
            print(f"{number} of {len(files)} crops", flush=True)
    np.savez(target, embeddings=np.stack(embeddings), **rows)


def judge(
    embeddings: np.ndarray, files: list[Path], methods: dict[str, np.ndarray], chosen: np.ndarray
) -> None:
    """Print a table of error-versus-discard areas."""
    people = np.array([file.parent.name for file in files])[chosen]
    unit = embeddings[chosen] / np.linalg.norm(embeddings[chosen], axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    comparisons = Comparisons.of(
        (unit @ unit.T)[first, second], people[first] == people[second], first, second, people
    )
    options = EvaluationOptions(fmr_targets=(1e-3,), fnmr_starts=(), limits=(0.2,))
    found = evaluate_methods(
        comparisons, {name: Method(values[chosen]) for name, values in methods.items()},
        dataset="LFW", recogniser="", options=options,
    )  # fmt: skip
    print(f"{found.points[0].errors} errors of {found.mated} mated comparisons")
    for name in methods:
        (figures,) = found.method(name).figures
        (area,) = figures.areas
        between = area.normalised_interval
        p = [test.p_value for test in found.tests if {test.a, test.b} == {name, next(iter(WAYS))}]
        told = f", p = {p[0]:.3f}" if p else ""
        print(f"  {name:36} {area.normalised:.3f} [{between.low:.3f}, {between.high:.3f}]{told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--measured", type=int, default=420)
    options = parser.parse_args()
    work = options.work.absolute()
    if not (work / "crops").exists():
        make_crops(options.lfw, options.folds, options.measured, work)
    files = sorted((work / "crops").rglob("*.png"))
    if not (work / "scores.npz").exists():
        score(files, work / "scores.npz")
    kept = np.load(work / "scores.npz")
    methods = {way: kept[way] for way in WAYS}
    length = np.linalg.norm(kept["embeddings"], axis=1)
    for name, base, power in (
        ("the paper's eps, times length^1/2", "the paper's eps", 0.5),
        ("the paper's eps, times length^2", "the paper's eps", 2.0),
        ("by contrast 1/2, times length^1/2", "eps by contrast, power 1/2", 0.5),
    ):
        methods[name] = methods[base] * length**power
    methods["the embedding's length"] = length

    stems = np.array([str(file.with_name(file.stem.split("~")[0])) for file in files])
    damaged = np.array(["~" in file.name for file in files])
    half = {stem: digest(Path(stem).name) % 2 == 1 for stem in stems}
    chosen = np.flatnonzero(damaged == np.array([half[stem] for stem in stems]))
    print("S:")
    judge(kept["embeddings"], files, methods, chosen)
    if find_spec("dlib") and find_spec("face_recognition_models"):
        if not (work / "dlib.npz").exists():
            dlib_embeddings(work / "crops", work / "dlib.npz")
        print("C:")
        judge(np.load(work / "dlib.npz")["embeddings"], files, methods, chosen)

    dark = np.array(["~darkness~" in file.name for file in files])
    clean = np.isin(stems, stems[dark]) & ~damaged
    strength = np.array([float(file.stem.split("~")[2]) for file in np.array(files)[dark]])
    print(f"darkness, {dark.sum()} crops: share of (clean, dark) that are in order; Spearman")
    for name, values in methods.items():
        order, rank = auc(values[clean], values[dark]), spearman(-values[dark], strength)
        print(f"  {name:36} {order:.2f}; {rank:.2f}")


if __name__ == "__main__":
    main()
