"""Train the instant head and report how good it is.

    python weights/instant/train.py --lfw ROOT --photos ROOT [--cache FEATURES.npz]

Makes the crops again (`crops.py`), takes their exact scores from `labels.csv`, fits a ridge
regression on the training folds, chooses its strength and fits the scale on fold 4, and prints
all figures for fold 5. Writes `weights/sface_instant.safetensors` and prints its sha256. Features
are kept in `--cache`, if one is given, and made once.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from crops import items
from make_labels import HERE, labels_path, read_labels
from numpy.typing import NDArray
from safetensors.torch import save
from scipy.stats import spearmanr

from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.result import Evaluation, Method
from faceqan_toolkit.evaluation.statistics import evaluate_methods
from faceqan_toolkit.evaluation.verification import Comparisons
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.models.load import find_model, load_model
from faceqan_toolkit.quality.faceqan import PooledFeatures

Array = NDArray[np.float64]

TARGET = HERE.parent / "sface_instant.safetensors"
STRENGTHS = (0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
SINGLE = 5
"""Features that are no channel's: lengths, their logarithms, symmetry. They weigh as much as all
means together, and as all logarithms."""
BINS = 10
DISCARD, FMR = 0.3, 1e-3


def make_features(lfw: Path, photos: Path) -> dict[str, NDArray]:
    """Return features, embeddings and descriptions of every labelled crop."""
    network = load_model("sface")
    pooled, embed = freeze(PooledFeatures(network)), freeze(network)
    columns: dict[str, list] = {name: [] for name in (
        "key", "split", "kind", "image", "person", "features", "embedding"
    )}  # fmt: skip
    for item in items(lfw, photos):
        crop = torch.from_numpy(item.crop)[None].permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            columns["features"].append(pooled(crop)[0].numpy())
            columns["embedding"].append(embed(crop)[0].numpy())
        for name in ("key", "split", "kind", "image", "person"):
            columns[name].append(getattr(item, name))
        if len(columns["key"]) % 500 == 0:
            print(f"{len(columns['key'])} crops", flush=True)
    return {name: np.array(values) for name, values in columns.items()}


def spearman(one: Array, other: Array) -> float:
    return float(spearmanr(one, other)[0])


def importance(features: int) -> Array:
    """Return how much each feature counts in the ridge penalty's inner product."""
    channels = (features - SINGLE) // 2
    weight = np.full(features, 1 / channels)
    weight[2 * channels :] = 1 / SINGLE
    return weight


def curves(
    qualities: dict[str, Array], embedding: NDArray, person: NDArray, image: NDArray
) -> Evaluation:
    """Return error-versus-discard curves: all comparisons of different images."""
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    kept = image[first] != image[second]
    first, second = first[kept], second[kept]
    comparisons = Comparisons.of(
        (unit @ unit.T)[first, second], person[first] == person[second], first, second, person
    )
    options = EvaluationOptions(fmr_targets=(FMR,), fnmr_starts=(), limits=(DISCARD,))
    methods = {name: Method(quality) for name, quality in qualities.items()}
    return evaluate_methods(
        comparisons, methods, dataset="LFW fold 5", recogniser="sface", options=options
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    if options.cache and options.cache.exists():
        data = dict(np.load(options.cache))
    else:
        data = make_features(options.lfw, options.photos)
        if options.cache:
            np.savez(options.cache, **data)
    labels = read_labels(labels_path())
    exact = np.array([float(labels[key]["quality"]) for key in data["key"]])
    features = data["features"].astype(np.float64)
    train, select, report = (data["split"] == name for name in ("train", "select", "report"))
    clean = data["kind"] == "clean"

    mean, spread = features[train].mean(axis=0), features[train].std(axis=0)
    # a channel that hardly ever changes must not count as much as the others
    scale = 1 / (spread + 1e-3 * spread.max())
    weighted = (features - mean) * scale * np.sqrt(importance(features.shape[1]))
    kernel = weighted[train] @ weighted[train].T
    centre = exact[train].mean()

    def fit(strength: float) -> Array:
        dual = np.linalg.solve(kernel + strength * np.eye(len(kernel)), exact[train] - centre)
        return weighted[train].T @ dual

    fits = {strength: fit(strength) for strength in STRENGTHS}
    agreement = {s: spearman(weighted[select] @ w, exact[select]) for s, w in fits.items()}
    strength = max(agreement, key=lambda s: agreement[s])
    print("fold 4, Spearman by strength:", {s: round(a, 4) for s, a in agreement.items()})
    raw = weighted @ fits[strength] + centre

    # the scale: means of predictions and exact scores in bins of equal number, on fold 4
    order = np.argsort(raw[select])
    bins = [np.flatnonzero(select)[part] for part in np.array_split(order, BINS)]
    knots = np.array([raw[part].mean() for part in bins])
    qualities = np.array([exact[part].mean() for part in bins])
    assert (np.diff(qualities) > 0).all(), "not monotone: take fewer bins"
    # beyond the outermost bins the slope is one, as far as scores go
    reach = 2.0
    knots = np.concatenate([[knots[0] - reach], knots, [knots[-1] + reach]])
    qualities = np.concatenate([[qualities[0] - reach], qualities, [qualities[-1] + reach]])
    quality = np.interp(raw, knots, qualities)
    errors = [float(np.sqrt(np.mean((quality[part] - exact[part]) ** 2))) for part in bins]
    errors = [errors[0], *errors, errors[-1]]

    tensors = {
        "mean": mean, "scale": scale,
        "weight": fits[strength] * np.sqrt(importance(features.shape[1])),
        "bias": np.array([centre]), "knots": knots, "qualities": qualities,
        "errors": np.array(errors),
    }  # fmt: skip
    content = save(
        {name: torch.from_numpy(value).float() for name, value in tensors.items()},
        metadata={"model": "sface", "model_sha256": find_model("sface").sha256},
    )
    TARGET.write_bytes(content)
    print(f"{TARGET.name}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")

    def describe(name: str, values: Array, part: NDArray) -> None:
        difference = values[part] - exact[part]
        print(
            f"{name:28} {part.sum():4} crops: Spearman {spearman(values[part], exact[part]):.4f}, "
            f"bias {difference.mean():+.4f}, mean distance {np.abs(difference).mean():.4f}"
        )

    print("fold 5:")
    other = np.full(len(exact), np.nan)
    repeated = read_labels(labels_path(1))
    for index, key in enumerate(data["key"]):
        if key in repeated:
            other[index] = float(repeated[key]["quality"])
    ways = {"instant": quality, "exact, other seed": other}
    for name, values in ways.items():
        part = report & np.isfinite(values)
        if part.any():
            describe(f"{name}, clean and damaged", values, part)
            describe(f"{name}, clean", values, part & clean)
            describe(f"{name}, damaged", values, part & ~clean)
    for kind in sorted(set(data["kind"][report])):
        describe(f"instant, {kind}", quality, report & (data["kind"] == kind))

    part = np.flatnonzero(report & (data["kind"] != "no_face"))
    norms = np.linalg.norm(data["embedding"], axis=1)
    measured = {"exact": exact, "instant": quality, "embedding norm": norms}
    if np.isfinite(other[part]).all():
        measured["exact, other seed"] = other
    chosen = {name: values[part] for name, values in measured.items()}
    found = curves(chosen, *(data[name][part] for name in ("embedding", "person", "image")))
    (point,) = found.points
    print(
        f"EDC, FMR {FMR:g}, discard to {DISCARD:g}: FNMR {point.fnmr0:.4f} ({point.errors} errors);"
        " normalised pAUC, 95 % interval over persons:"
    )
    for name in measured:
        (figures,) = found.method(name).figures
        (area,) = figures.areas
        between = area.normalised_interval
        assert between is not None
        print(f"  {name:20} {area.normalised:.3f} [{between.low:.3f}, {between.high:.3f}]")
    for test in found.tests:
        if test.a == "exact":
            print(f"  exact and {test.b}: p = {test.p_value:.3f}")


if __name__ == "__main__":
    main()
