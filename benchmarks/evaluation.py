"""Which quality measure predicts errors best: clean and damaged faces, two recognition models.

    python benchmarks/evaluation.py --lfw ROOT --work DIR [--fold 5] [--measured 464] [--share 0.3]

ROOT is LFW in its layout, or part of it. People of one fold of its pairs are compared, all with
all (`evaluate folders --non-mated all`), once as they are and once with a share of the crops
damaged (`damage.py`). --measured says how many photos of people with several the qualities are
measured of; people with one photo take part in non-mated comparisons, which need no quality.
Recognition models: the built-in one, which is also the quality's (S), and dlib's (C), if it is
there: `pip install dlib-bin face-recognition-models` (Boost Software License; CC0).

The instant head was trained on people of folds 1 to 3 and chosen on fold 4: it takes part with
fold 5 alone. Everything is kept in DIR; the same command goes on where it stopped. The report is
DIR/report.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from damage import KINDS
from scipy.stats import rankdata

from faceqan_toolkit.evaluation.datasets.readers import read_lfw
from faceqan_toolkit.evaluation.run_faces import read_run_faces
from faceqan_toolkit.job import process_photos
from faceqan_toolkit.photos.find import locate
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource

METHODS = {
    "FaceQAN": {"preset": "exact"},
    "FaceQAN, eps by contrast": {"preset": "exact", "eps_mode": "contrast"},
    "FaceQAN fast": {"preset": "fast"},
    "FaceQAN instant": {"preset": "instant"},
    "SER-FIQ": {"method": "serfiq"},
    "GraFIQs": {"method": "grafiqs"},
    "embedding norm": {"method": "norm"},
}
UNSEEN_FOLD = 5
REPLICATES = 1000


def digest(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)


def chosen_photos(lfw: Path, folds: list[int], measured: int) -> tuple[list[PhotoSource], set[str]]:
    """Return the photos of some folds' people, and the people whose qualities are measured."""
    protocol = read_lfw(lfw)
    wanted = {
        protocol.paths[index].split("/")[-2]
        for block in protocol.pairs.blocks()
        for index in np.concatenate([block.first, block.second])[
            np.isin(np.tile(block.fold, 2) + 1, folds)
        ].tolist()
    }
    root = lfw / protocol.photos
    people = {name: sorted((root / name).glob("*.jpg")) for name in sorted(wanted, key=digest)}
    several, number = set(), 0
    for name, files in people.items():
        if len(files) > 1 and number + len(files) <= measured:
            several.add(name)
            number += len(files)
    files = [
        file
        for name, files in people.items()
        if len(files) == 1 or name in several
        for file in files
    ]
    text = str(root.absolute())
    return [locate(text, f"{f.parent.name}/{f.name}") for f in files], several


def make_trees(work: Path, several: set[str], share: float) -> None:
    """Write `clean` and `mixed`, and `pool` with all crops that are measured."""
    if (work / "damage.csv").exists():
        return
    aligned = read_run_faces(work / "aligned")
    rows = []
    for path, crop in zip(aligned.paths, aligned.crops, strict=True):
        if not crop:
            continue
        person, name = path.split("/")
        pixels = cv2.imread(str(work / "aligned" / crop))
        rng = np.random.default_rng(digest(path))
        kind = str(rng.choice(list(KINDS)))
        strength, damaged = float(rng.random()), rng.random() < share
        worse = KINDS[kind](pixels, strength, rng)
        stem = Path(name).stem
        files = {f"clean/{person}/{stem}.png": pixels}
        if damaged:
            files[f"mixed/{person}/{stem}~{kind}.png"] = worse
        else:
            files[f"mixed/{person}/{stem}.png"] = pixels
        if person in several:
            files[f"pool/clean/{person}/{stem}.png"] = pixels
            if damaged:
                files[f"pool/damaged/{person}/{stem}~{kind}.png"] = worse
                rows.append((f"{person}/{stem}", kind, strength))
        for target, picture in files.items():
            (work / target).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(work / target), picture)
    with (work / "damage.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["stem", "kind", "strength"])
        writer.writerows(rows)


def write_photo_measures(work: Path) -> list[str]:
    """Write what the photos' detections say of the crops; return options for `evaluate`."""
    aligned = read_run_faces(work / "aligned")
    options = []
    for name, column in (("face size", "face_px"), ("detector confidence", "confidence")):
        known = dict(zip(aligned.paths, aligned.values[column], strict=True))
        for tree in ("clean", "mixed"):
            with (work / f"{column}_{tree}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["path", "quality"])
                for crop in sorted((work / tree).rglob("*.png")):
                    photo = f"{crop.parent.name}/{crop.stem.split('~')[0]}.jpg"
                    writer.writerow([f"{crop.parent.name}/{crop.name}", known[photo]])
        options += ["--scores", f"{name}={work}/{column}_TREE.csv"]
    return options


def dlib_embeddings(folder: Path, target: Path) -> None:
    """Embed crops with dlib's network, all cut alike: its own landmarks' median place."""
    import dlib

    (package,) = find_spec("face_recognition_models").submodule_search_locations
    models = Path(package) / "models"
    network = dlib.face_recognition_model_v1(
        str(models / "dlib_face_recognition_resnet_model_v1.dat")
    )
    landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))

    def read(file: Path) -> np.ndarray:
        return np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])

    whole = dlib.rectangle(8, 20, 103, 115)  # about what dlib's detector frames
    places = []
    for file in sorted(folder.rglob("*.png")):
        if "~" not in file.name:
            shape = landmarks(read(file), whole)
            places.append([(shape.part(i).x, shape.part(i).y) for i in range(5)])
    points = [dlib.point(*map(round, xy)) for xy in np.median(places, axis=0)]
    usual = dlib.full_object_detection(whole, points)
    paths, vectors = [], []
    for file in sorted(folder.rglob("*.png")):
        chip = dlib.get_face_chip(read(file), usual, size=150, padding=0.25)
        paths.append(f"{file.parent.name}/{file.name}")
        vectors.append(np.array(network.compute_face_descriptor(chip), np.float32))
    np.savez(target, paths=np.array(paths), embeddings=np.stack(vectors))


def auc(clean: np.ndarray, damaged: np.ndarray) -> float:
    """Return the share of (clean, damaged) combinations in which the clean one scores higher."""
    ranks = rankdata(np.concatenate([clean, damaged]))[: len(clean)]
    return float((ranks.sum() / len(clean) - (len(clean) + 1) / 2) / len(damaged))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    a, b = rankdata(a), rankdata(b)
    spread = a.std() * b.std()
    return float(np.mean((a - a.mean()) * (b - b.mean())) / spread) if spread else np.nan


def by_kind(work: Path, methods: list[str]) -> str:
    """Return a table of how well each method orders damage, by its kind."""
    with (work / "damage.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = {}
    for name in methods:
        run = read_run_faces(work / "runs" / name)
        scores[name] = dict(zip(run.paths, run.values["quality"], strict=True))
    sharp = read_run_faces(work / "runs" / methods[0])
    scores["sharpness"] = dict(zip(sharp.paths, sharp.values["sharpness"], strict=True))
    lines = [
        "| damage | crops | " + " | ".join(scores) + " |",
        "|---|---:|" + "---|" * len(scores),
    ]
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        strength = np.array([float(row["strength"]) for row in own])
        cells = []
        for known in scores.values():
            clean = np.array([known[f"clean/{row['stem']}.png"] for row in own])
            worse = np.array([known[f"damaged/{row['stem']}~{kind}.png"] for row in own])
            draws = np.random.default_rng(0).integers(0, len(own), (REPLICATES, len(own)))
            cells.append(
                interval(auc(clean, worse), [auc(clean[d], worse[d]) for d in draws])
                + "; "
                + interval(
                    spearman(-worse, strength), [spearman(-worse[d], strength[d]) for d in draws]
                )
            )
        lines.append(f"| {kind} | {len(own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(value: float, draws: list[float]) -> str:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=UNSEEN_FOLD)
    parser.add_argument("--measured", type=int, default=464)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    work = options.work.absolute()
    photos, several = chosen_photos(options.lfw, [options.fold], options.measured)
    work.mkdir(parents=True, exist_ok=True)
    align = Settings(task="align", faces="central", device=options.device)
    process_photos(photos, work / "aligned", align)
    make_trees(work, several, options.share)

    pool = [
        locate(str(work / "pool"), file.relative_to(work / "pool").as_posix())
        for file in sorted((work / "pool").rglob("*.png"))
    ]
    methods = [m for m in METHODS if m != "FaceQAN instant" or options.fold == UNSEEN_FOLD]
    for name in sorted(methods, key=lambda name: METHODS[name].get("preset") == "exact"):  # slowest
        settings = Settings(task="score", device=options.device, **METHODS[name])
        process_photos(pool, work / "runs" / name, settings)

    own = "FaceQAN instant" if "FaceQAN instant" in methods else "embedding norm"
    chosen = {"FaceQAN instant": ["--preset", "instant"], "embedding norm": ["--method", "norm"]}
    others = [name for name in methods if name not in (own, "embedding norm")]
    scores = [text for name in others for text in ("--scores", f"{name}={work / 'runs' / name}")]
    measured = write_photo_measures(work)
    outs = []
    for tree in ("clean", "mixed"):
        title = f"LFW fold {options.fold}, " + ("clean" if tree == "clean" else "damaged")
        common = [
            *scores, *(text.replace("TREE", tree) for text in measured),
            "--non-mated", "all", "--name", title, "--format", "png",
        ]  # fmt: skip
        first, second = (work / "out" / f"{tree}_{which}" for which in "SC")
        evaluate(
            work / tree, first, ["--aligned", "--device", options.device, *chosen[own], *common]
        )
        outs.append(first)
        if find_spec("dlib") and find_spec("face_recognition_models"):
            target = work / f"dlib_{tree}.npz"
            if not target.exists():
                dlib_embeddings(work / tree, target)
            there = ["--run", str(first / "scores"), "--embeddings", f"dlib={target}"]
            evaluate(work / tree, second, [*there, *common])
            outs.append(second)
        else:
            print("dlib is not installed: no cross-model rows", file=sys.stderr)
    command("evaluate", "grid", *outs, "-o", work / "grid.png")
    tables = "\n".join((out / "tables.md").read_text(encoding="utf-8") for out in outs)
    kinds = by_kind(work, methods)
    (work / "report.md").write_text(f"{tables}\n{kinds}\n", encoding="utf-8")
    print(f"{work / 'report.md'}")


def evaluate(root: Path, output: Path, arguments: list[str]) -> None:
    command("evaluate", "folders", root, "-o", output, *arguments)


def command(*arguments: object) -> None:
    done = subprocess.run([sys.executable, "-m", "faceqan_toolkit", *map(str, arguments)])
    if done.returncode not in (0, 3):
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
