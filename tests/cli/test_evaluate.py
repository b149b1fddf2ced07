"""`evaluate` on the command line, on tiny data sets in the official layouts."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from faceqan_toolkit.cli import cli
from faceqan_toolkit.cli.evaluate import command as commands
from faceqan_toolkit.evaluation.datasets.registry import DATASETS
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.photos.decode import decode_bytes
from faceqan_toolkit.settings import Settings
from tests.conftest import DATA, HANG, SAMPLES, CommandLine, add_entry_points, read_rgb, run_here
from tests.evaluation.datasets import trees
from tests.ledgers import write_run

QUICK = ("--preset", "instant", "--device", "cpu", "--bootstrap", "20", "--format", "png",
         "--fmr", "0.1", "--fmr", "0.3")  # fmt: skip
PEOPLE = (
    ("astronaut.jpg", "astronaut_noisy.jpg", "astronaut_blurred.jpg"),
    ("hopper.jpg", "hopper_blurred.jpg", "hopper_half_occluded.jpg"),
)
CROPS = ("astronaut", "astronaut_blur3", "astronaut_dark", "astronaut_occluded")


def fill(root: Path, pairs: Iterable[tuple[str, str, bool]]) -> None:
    """Put faces where the trees have tiny pictures: two people take turns."""
    seen: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for a, b, _ in pairs for path in (a, b)):
        person = path.rsplit("/", 1)[0]
        seen.setdefault(person, []).append(path)
    for place, paths in enumerate(seen.values()):
        for number, path in enumerate(paths):
            shutil.copyfile(SAMPLES / PEOPLE[place % 2][number % 3], root / path)


def summary(out: Path) -> dict[str, Any]:
    (one,) = json.loads((out / "summary.json").read_text(encoding="utf-8"))["evaluations"]
    return one


def brute_force(
    pairs: Sequence[tuple[str, str, bool]], embeddings: dict[str, Any], quality: dict[str, float],
    target: float, limit: float,
) -> dict[str, float]:  # fmt: skip
    """Do what the definition says, pair by pair."""
    similarity = [float(embeddings[a] @ embeddings[b]) for a, b, _ in pairs]
    others = sorted(s for s, pair in zip(similarity, pairs, strict=True) if not pair[2])
    threshold = min(t for t in others if sum(s > t for s in others) / len(others) <= target)
    mated = [
        (min(quality[a], quality[b]), s <= threshold)
        for (a, b, same), s in zip(pairs, similarity, strict=True)
        if same
    ]
    area, step = 0.0, limit / 1000
    for share in (np.arange(1000) + 0.5) * step:
        # as many as may go, ties together
        left = next(
            kept
            for cut in sorted({q for q, _ in mated}, reverse=True)
            for kept in [[wrong for q, wrong in mated if q >= cut]]
            if 1 - len(kept) / len(mated) <= share
        )
        area += step * sum(left) / len(left)
    return {
        "threshold": threshold,
        "fnmr0": sum(wrong for _, wrong in mated) / len(mated),
        "pauc": area,
    }


@pytest.fixture(scope="module")
def lfw(tmp_path_factory) -> tuple[Path, list[tuple[str, str, bool]]]:
    root = tmp_path_factory.mktemp("data") / "LFW"
    tree = trees.lfw_tree(root, folds=2, per_fold=3)
    fill(root, tree.pairs)
    # somebody else's face makes an error: one that quality foresees, and one it cannot
    mated = [second for _, second, same in tree.pairs if same]
    shutil.copyfile(SAMPLES / "hopper_dark.jpg", root / mated[0])
    shutil.copyfile(SAMPLES / "hopper.jpg", root / mated[2])
    return root, tree.pairs


@pytest.fixture(scope="module")
def done(lfw, tmp_path_factory):
    """An evaluation that is made, with what it told."""
    root, _ = lfw
    folder = tmp_path_factory.mktemp("done")
    extra = root / "Person_9" / "Person_9_0001.jpg"  # in no pair
    extra.parent.mkdir()
    shutil.copyfile(SAMPLES / "hopper.jpg", extra)
    shutil.copytree(root, folder / "LFW")
    command = ("evaluate", "lfw", "LFW", "-o", "OUT", *QUICK, "--legacy-pickle", "old.pkl")
    return folder, run_here(*command, cwd=folder)


def test_lfw_equals_brute_force(lfw, done) -> None:
    (_, pairs), (folder, told) = lfw, done
    assert told.returncode == 0, told.stderr
    out = folder / "OUT"
    with (out / "scores" / "rankings.csv").open(encoding="utf-8") as lines:
        rows = {row["path"]: row for row in csv.DictReader(lines)}
    network, embeddings = load_model("sface"), {}
    for path, row in rows.items():
        crop = read_rgb(out / "scores" / row["crop"])
        with torch.no_grad():
            vector = network(torch.from_numpy(crop.transpose(2, 0, 1) / 255)[None].float())[0]
        embeddings[path] = (vector / vector.norm()).numpy()
    quality = {path: float(row["quality"]) for path, row in rows.items()}
    found = summary(out)
    assert found["comparisons"]["mated"] == found["comparisons"]["non_mated"] == 6
    method = found["methods"]["FaceQAN instant"]
    assert method["note"] == "S"
    for target in (0.1, 0.3):
        expected = brute_force(pairs, embeddings, quality, target, 0.2)
        got = method["targets"][f"{target:g}"]
        assert got["threshold"] == pytest.approx(expected["threshold"], abs=1e-4)
        assert got["fnmr0"] == expected["fnmr0"] > 0
        assert got["pauc"]["0.2"]["raw"] == pytest.approx(expected["pauc"], rel=0.01, abs=1e-9)
    assert found["verification"]["accuracy"] is not None
    assert set(found["methods"]) == {
        "FaceQAN instant", "face size", "sharpness", "detector confidence", "embedding norm",
        "random", "oracle",
    }  # fmt: skip
    sizes = {path: float(row["face_px"]) for path, row in rows.items()}
    expected = brute_force(pairs, embeddings, sizes, 0.3, 0.2)
    got = found["methods"]["face size"]["targets"]["0.3"]["pauc"]["0.2"]["raw"]
    assert got == pytest.approx(expected["pauc"], rel=0.01, abs=1e-9)
    assert "FaceQAN instant (S)" in told.stdout
    assert "Warning: FMR" in told.stderr
    assert "crops/s" in told.stderr
    made = json.loads((out / "summary.json").read_text())["made_by"]
    assert made["command"].startswith("faceqan-toolkit evaluate lfw LFW -o OUT --preset instant")
    assert made["recognition model sha256"] == made["quality model sha256"]
    assert made["faces"] == "central"  # LFW's photos are centred on their person
    for name in ("curves.csv", "tables.tex", "evaluation.html", "edc_fmr0.1.png", "det.png"):
        assert (out / name).stat().st_size > 100


def test_the_published_pickle(lfw, done) -> None:
    (root, _), (folder, _) = lfw, done
    with (folder / "old.pkl").open("rb") as file:
        content = pickle.load(file)
    photos = {str(Path("LFW") / file.relative_to(root)) for file in root.rglob("*.jpg")}
    assert set(content) == photos
    assert len(photos) == 15


def test_again_computes_nothing(done, command_line: CommandLine) -> None:
    folder, told = done
    before = (folder / "OUT" / "areas.csv").read_bytes()
    again = command_line("evaluate", "lfw", "LFW", "-o", "OUT", *QUICK, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "14 photos, 14 of them done before" in again.stderr
    assert "Embedding" in told.stderr
    assert "Embedding" not in again.stderr
    assert (folder / "OUT" / "areas.csv").read_bytes() == before
    other = command_line("evaluate", "lfw", "LFW", "-o", "OUT", "--preset", "fast", cwd=folder)
    assert other.returncode == 1
    assert "made with other settings" in other.stderr


def test_runs_scores_and_embeddings_are_reused(done, command_line: CommandLine) -> None:
    folder, _ = done
    reused = command_line(
        "evaluate", "lfw", "LFW", "-o", "REUSED", "--run", "OUT/scores", "--embeddings",
        "OUT/embeddings.parquet", "--scores", "pickled=old.pkl", "--scores", "run=OUT/scores",
        "--scores", "csv=OUT/scores/rankings.csv", *QUICK[2:], cwd=folder,
    )  # fmt: skip
    assert reused.returncode == 0, reused.stderr
    assert "--faces" not in reused.stderr
    assert not (folder / "REUSED" / "scores").exists()
    found, first = summary(folder / "REUSED"), summary(folder / "OUT")
    assert found["recogniser"] == "sface"
    own = first["methods"]["FaceQAN instant"]["targets"]
    for name in ("FaceQAN instant", "pickled", "run", "csv"):
        assert found["methods"][name]["targets"] == own
    assert found["methods"]["run"]["note"] == "S"
    assert found["methods"]["csv"]["note"] == ""

    alone = command_line(
        "evaluate", "lfw", "LFW", "-o", "ALONE", "--scores-only", "--embeddings",
        "other=OUT/embeddings.parquet", "--scores", "OUT/scores/rankings.csv", *QUICK[4:],
        "--fte", "worst", "--edc", "recompute", "--pair-quality", "mean", "--name", "mine",
        cwd=folder,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    found = summary(folder / "ALONE")
    assert (found["dataset"], found["recogniser"]) == ("mine", "other")
    assert list(found["methods"]) == ["rankings", "random", "oracle"]
    assert found["options"]["edc"] == "recompute"

    drawn = command_line(
        "evaluate", "grid", "OUT", "ALONE", "-o", "grid.png", "--fmr", "0.1", cwd=folder
    )
    assert drawn.returncode == 0, drawn.stderr
    assert decode_bytes((folder / "grid.png").read_bytes(), max_pixels=10**7).shape[1] > 500
    none = command_line("evaluate", "grid", "OUT", "-o", "grid.png", "--fmr", "0.2", cwd=folder)
    assert none.returncode == 2
    assert "FMR 0.2 was not evaluated" in none.stderr


def test_each_data_set_has_its_faces() -> None:
    for entry in DATASETS.imported:
        command = commands.get_command(click.Context(commands), entry.name)
        found = [option.default for option in command.params if option.name == "faces"]
        assert found == ([] if entry.faces is None else [entry.faces])
        assert command.help == entry.help


PLUGIN = '''
from pathlib import Path
from faceqan_toolkit.evaluation.datasets.readers import read_lfw
from faceqan_toolkit.evaluation.datasets.registry import DatasetOption, register_dataset

OPTION = DatasetOption("Age gap in years.", metavar="YEARS")

@register_dataset("calfw", faces="confident", example="CALFW", descriptions={"gap": OPTION})
def read_calfw(root: Path, *, gap: int = 10, masked: bool = False, part: str):
    """CALFW: ROOT holds the people's folders.

    Cross-age LFW.
    """
    assert (gap, masked, part) == (30, True, "a")
    return read_lfw(root)
'''


def test_a_package_adds_a_command(lfw, tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    add_entry_points(tmp_path, "datasets", {"calfw": "plugin", "broken": "no_such_module"})

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join((str(tmp_path), *sys.path))
        return subprocess.run(
            [sys.executable, "-m", "faceqan_toolkit", "evaluate", *map(str, arguments)],
            cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=HANG,
            env={**os.environ, "PYTHONPATH": path}, check=False,
        )  # fmt: skip

    listed = run("--help").stdout
    assert "\n  calfw     CALFW: ROOT holds the people's folders.\n" in listed
    assert "\n  broken" in listed
    shown = " ".join(run("calfw", "--help").stdout.split())
    for text in (
        "faceqan-toolkit evaluate calfw CALFW -o out", "Cross-age LFW.", "[default: confident]",
        "--gap YEARS Age gap in years. [default: 10]", "--masked / --no-masked",
        "--part TEXT Option of the data set. [required]",
    ):  # fmt: skip
        assert text in shown
    own = ("--gap", "30", "--masked", "--part", "a")
    done = run("calfw", lfw[0], "-o", "out", *own, "--scores-only", "--scores", "s.csv")
    assert "lfw: 14 photos, 6 mated and 6 non-mated comparisons" in done.stderr
    assert "--scores-only needs --embeddings" in done.stderr
    done = run("broken", lfw[0], "-o", "out")
    assert done.returncode == 2
    assert "dataset broken: no_such_module cannot be imported" in done.stderr


def test_another_default_is_told_in_one_line(lfw, tmp_path: Path) -> None:
    root, _ = lfw
    write_run(tmp_path / "out/scores", [], Settings(faces="largest"))
    arguments = ["evaluate", "lfw", str(root), "-o", str(tmp_path / "out")]
    told = CliRunner().invoke(cli, arguments)
    assert told.exit_code == 1
    assert told.stderr.splitlines()[-1] == (
        f"Error: {tmp_path / 'out/scores'} was made with --faces largest, the default for lfw is "
        "--faces central: give --faces largest to resume it, or another -o"
    )
    # a run that is given has its faces: they are told
    warned = CliRunner().invoke(
        cli, [*arguments[:-1], str(tmp_path / "new"), "--run", str(tmp_path / "out/scores")]
    )
    assert (
        f"Warning: {tmp_path / 'out/scores'} was made with --faces largest, lfw takes --faces "
        "central" in warned.stderr
    )


def test_agree(done, command_line: CommandLine, tmp_path: Path) -> None:
    folder, _ = done
    told = command_line(
        "evaluate", "agree", "ours=OUT/scores", "theirs=old.pkl", "-o", tmp_path / "s.png",
        "--json", cwd=folder,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["names"] == ["ours", "theirs"]
    assert (found["common"], found["spearman"]) == (15, 1)
    assert decode_bytes((tmp_path / "s.png").read_bytes(), max_pixels=10**7).shape[0] > 300
    worse = tmp_path / "worse.csv"
    with (folder / "OUT/scores/rankings.csv").open(encoding="utf-8") as lines:
        rows = [(row["path"], -float(row["quality"])) for row in csv.DictReader(lines)]
    unread = "unread.jpg,\n"
    lines = [f"{p},{q}\n" for p, q in rows]
    worse.write_text("".join(["path,fiqa\n", *lines, unread]), encoding="utf-16")
    told = command_line("evaluate", "agree", "OUT/scores", f"{worse}:fiqa", cwd=folder)
    assert "Spearman -1.0000" in told.stdout
    assert f"worse, {worse}: 1 without a score in it: unread.jpg" in told.stderr
    (tmp_path / "scores.csv").write_bytes((folder / "OUT/scores/rankings.csv").read_bytes())
    again = tmp_path / "scores.csv"
    told = command_line("evaluate", "agree", "OUT/scores", again, "--json", cwd=folder)
    assert json.loads(told.stdout)["names"] == ["OUT/scores", f"{tmp_path.name}/scores"]
    assert command_line("evaluate", "agree", "OUT/scores", "nothing", cwd=folder).returncode == 1
    told = command_line("evaluate", "agree", "OUT/scores", again, "-o", "s.xyz", cwd=folder)
    assert (told.returncode, told.stdout) == (2, ""), "told before there is any work"
    assert "the suffix of a figure must be one of pdf, svg, png" in told.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--run", "OUT/scores", "--preset", "fast"), "leave --preset out"),
        (("--embeddings", "OUT/embeddings.parquet", "--flip"), "leave --flip out"),
        (("--aligned", "--min-face", "30"), "leave --min-face out"),
        (("--scores-only",), "--scores-only needs --scores"),
        (("--run", "OUT/scores", "--scores", "FaceQAN instant=old.pkl"), "two methods are called"),
        (("--fmr", "2"), "fmr is 2.0; it must be between 0 and 1"),
        (("--fnmr-start", "0"), "fnmr-start is 0.0; it must be between 0 and 1"),
        (("--fmr", "0.1", "--fmr", "0.1"), "fmr: a rate is given twice"),
    ],
)
def test_options_that_make_no_sense(done, command_line, options, complaint) -> None:
    folder, _ = done
    told = command_line("evaluate", "lfw", "LFW", "-o", "X", *options, cwd=folder)
    assert told.returncode == 2
    assert complaint in told.stderr
    assert not (folder / "X/scores").exists(), "told before there is any work"


def test_validate(lfw, command_line: CommandLine, tmp_path: Path) -> None:
    root, pairs = lfw
    fine = command_line("evaluate", "validate", "lfw", root)
    assert fine.returncode == 0
    assert "mated: 6" in fine.stdout
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / pairs[0][0]).unlink()
    lines = (copy / "pairs.txt").read_text().splitlines()
    broken = command_line("evaluate", "validate", "lfw", copy, "--json")
    assert broken.returncode == 1
    report = json.loads(broken.stdout)
    assert report["issue_counts"]["missing_file"] == 1
    assert not report["ok"]
    # a face that is not there costs its comparisons, lists that are wrong cost everything
    left = command_line("evaluate", "lfw", copy, "-o", "left", *QUICK, "--detector", "yunet")
    assert left.returncode == 3, left.stderr
    assert "1 missing" in left.stderr
    assert summary(tmp_path / "left")["comparisons"]["mated_excluded"] == 1
    (copy / "pairs.txt").write_text("\n".join(lines[:-1]) + "\n")
    wrong = command_line("evaluate", "lfw", copy, "-o", "wrong", *QUICK)
    assert wrong.returncode == 1
    assert "promises 12" in wrong.stderr
    assert not (tmp_path / "wrong").exists()


def encoded_crops() -> list[bytes]:
    return [(DATA / f"{name}.png").read_bytes() for name in CROPS]


def test_aligned_folders(command_line: CommandLine, tmp_path: Path) -> None:
    """XQLFW's aligned folder is told by its name, InsightFace's photos always are aligned."""
    root = tmp_path / "xqlfw"
    tree = trees.lfw_tree(root, folds=None, per_fold=2, folder="xqlfw_aligned_112",
                          name="xqlfw_pairs.txt", extension=".png")  # fmt: skip
    paths = dict.fromkeys(path for a, b, _ in tree.pairs for path in (a, b))
    for place, path in enumerate(paths):
        (root / path).write_bytes(encoded_crops()[place % 4])
    told = command_line("evaluate", "xqlfw", root, "-o", "x", *QUICK)
    assert told.returncode == 0, told.stderr
    assert "nothing is detected" in told.stderr
    assert json.loads((tmp_path / "x/scores/run.json").read_text())["settings"]["task"] == "score"
    assert summary(tmp_path / "x")["comparisons"]["mated"] == 2

    content = (encoded_crops(), [True, False])
    (tmp_path / "agedb_30.bin").write_bytes(pickle.dumps(content, protocol=2))
    told = command_line("evaluate", "bin", "agedb_30.bin", "-o", "b", *QUICK)
    assert told.returncode == 0, told.stderr
    found = summary(tmp_path / "b")
    assert (found["dataset"], found["comparisons"]["non_mated"]) == ("agedb_30", 1)
    assert "sharpness" in found["methods"]
    assert "face size" not in found["methods"]


def test_cfp(command_line: CommandLine, tmp_path: Path) -> None:
    pairs = trees.cfp_tree(tmp_path / "cfp", people=4, of_a_kind=1)
    for place in range(4):
        for shot in (tmp_path / "cfp/Data/Images" / f"{place + 1:03d}").rglob("*.jpg"):
            shutil.copyfile(SAMPLES / PEOPLE[place % 2][int(shot.stem) % 3], shot)
    told = command_line("evaluate", "cfp-fp", "cfp", "-o", "out", "--detector", "yunet", *QUICK)
    assert told.returncode == 0, told.stderr
    found = summary(tmp_path / "out")
    assert found["comparisons"]["mated"] == sum(mated for _, _, mated, _ in pairs)


def test_ijbc(command_line: CommandLine, tmp_path: Path) -> None:
    """Landmarks come from the lists; qualities and embeddings of templates from their photos."""
    tree = trees.ijbc_tree(tmp_path / "IJBC", samples=8, templates=6, pairs=9)
    photo = cv2.imread(str(SAMPLES / "astronaut.jpg"))
    eyes = [204.0, 112.0, 246.0, 112.0, 228.0, 136.0, 210.0, 158.0, 244.0, 158.0]
    for index in range(8):
        shifted = np.roll(photo, 3 * index, axis=1)
        cv2.imwrite(str(tmp_path / "IJBC/loose_crop" / f"{index + 1}.jpg"), shifted)
    tree.rewrite("name_5pts_score", (
        " ".join([f"{i + 1}.jpg", *(f"{v + 3 * i * (k % 2 == 0):.3f}" for k, v in enumerate(eyes)),
                  "0.5"]) for i in range(8)
    ))  # fmt: skip
    common = ("evaluate", "ijbc", tmp_path, "--template-quality", "mean", *QUICK)
    told = command_line(*common, "-o", "out")
    assert told.returncode == 0, told.stderr
    assert "8 ok" in told.stderr
    found = summary(tmp_path / "out")
    assert found["options"]["template_quality"] == "mean"
    assert found["comparisons"]["mated"] == int(tree.pairs[:, 2].sum())
    assert "mean" in (tmp_path / "out/tables.md").read_text()


def test_pairs_with_another_model(command_line: CommandLine, tmp_path: Path) -> None:
    """Crops are cut anew for a recognition model that wants other ones."""
    root = tmp_path / "photos"
    root.mkdir()
    names = [name for person in PEOPLE for name in person[:2]]
    for name in names:
        shutil.copyfile(SAMPLES / name, root / name)
    pairs = [(a, b, a[0] == b[0]) for place, a in enumerate(names) for b in names[:place]]
    trees.pairs_csv(tmp_path / "pairs.csv", pairs)
    (tmp_path / "boxes.py").write_text(
        "import torch\n"
        "from faceqan_toolkit.models.base import Embedder\n"
        "class Means(Embedder):\n"
        "    name, sha256, input_size, template = 'means', 'f' * 64, 48, 'box'\n"
        "    def forward(self, crops):\n"
        "        assert crops.shape[2:] == (48, 48)\n"
        "        return torch.nn.functional.avg_pool2d(crops, 8).flatten(1) - 0.5\n"
        "make = Means\n",
        encoding="utf-8",
    )
    told = command_line(
        "evaluate", "pairs", "photos", "--pairs", "pairs.csv", "-o", "out", "--model",
        "boxes:make", "--flip", *QUICK,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    found = summary(tmp_path / "out")
    assert found["recogniser"] == "boxes:make + flip"
    assert found["methods"]["FaceQAN instant"]["note"] == "C"
    assert found["methods"]["embedding norm"]["note"] == "C"
    assert found["comparisons"]["mated"] == 2
    run = json.loads((tmp_path / "out/crops/run.json").read_text())["settings"]
    assert (run["template"], run["crop_size"]) == ("box", 48)
    refused = command_line(
        "evaluate", "pairs", "photos", "--pairs", "pairs.csv", "-o", "two", "--model",
        "boxes:make", "--run", "out/scores",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "needs box 48" in refused.stderr


def test_folders_count_faces_that_are_not_found(command_line: CommandLine, tmp_path: Path) -> None:
    for person, names in zip("ah", PEOPLE, strict=True):
        (tmp_path / "people" / person).mkdir(parents=True)
        for name in (*names, "no_face.png")[: 4 if person == "h" else 3]:
            shutil.copyfile(SAMPLES / name, tmp_path / "people" / person / name)
    common = ("evaluate", "folders", "people", "--non-mated", "all", "--noise-seed", "3",
              "--device", "cpu", "-k", "1", "-l", "1", "--backend", "torch", "--bootstrap", "0",
              "--format", "svg", "--fmr", "0.2", "--detector", "yunet")  # fmt: skip
    told = command_line(*common, "-o", "out")
    assert told.returncode == 3, told.stderr
    assert "1 no_face" in told.stderr
    assert "identity = first folder, 2 people\n" in told.stderr
    made = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))["made_by"]
    assert made["people"] == "identity = first folder, 2 people"
    assert made["faces"] == "largest"
    found = summary(tmp_path / "out")
    assert found["dataset"] == "people"
    assert found["comparisons"] == {
        "mated": 6, "mated_excluded": 3, "non_mated": 9, "non_mated_missing": 3,
    }  # fmt: skip
    assert found["methods"]["FaceQAN"]["targets"]["0.2"]["pauc"]["0.2"]["interval"] is None
    settings = json.loads((tmp_path / "out/scores/run.json").read_text())["settings"]
    assert (settings["seed"], settings["copies"], settings["steps"]) == (3, 1, 1)
    validated = CliRunner().invoke(
        cli, ["evaluate", "validate", "folders", str(tmp_path), "--identity", "2"]
    )
    assert validated.exit_code == 0
    assert validated.stderr.startswith("identity = folder 2, 2 people")
    assert "identities: 2" in validated.stdout
    worst = command_line(*common, "-o", "out", "--fte", "worst")
    assert worst.returncode == 3
    assert summary(tmp_path / "out")["comparisons"]["mated"] == 9
