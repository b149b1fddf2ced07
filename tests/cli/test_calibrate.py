"""`calibrate` on the real command line, and those who take its file."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import exact_text
from faceqan_toolkit.types import Record
from tests.conftest import SAMPLES, CommandLine, read_rgb
from tests.ledgers import write_run

PEOPLE, PHOTOS = 150, 6
MAIN = ("align-and-score", "photos", "--preset", "instant", "--device", "cpu", "--no-hints",
        "--detector", "yunet")  # fmt: skip


def records(root: str = "/photos") -> tuple[list[Record], np.ndarray]:
    """Return made-up faces and embeddings: the worse a face, the further off it lies."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(PEOPLE, 32))
    found, embeddings = [], []
    for person in range(PEOPLE):
        for number in range(PHOTOS):
            quality = float(rng.random())
            spread = 0.3 + 1.7 * (1 - quality) ** 2
            embeddings.append(centres[person] + spread * rng.normal(size=32))
            found.append(Record(f"p{person:03d}/{number}.jpg", root, 0, "ok", quality=quality))
    return found, np.array(embeddings, np.float32)


@pytest.fixture
def labelled(tmp_path: Path) -> list[Record]:
    """A run of many people, and their embeddings in a file."""
    faces, embeddings = records()
    write_run(tmp_path / "run", faces)
    np.savez(tmp_path / "e.npz", paths=[face.path for face in faces], embeddings=embeddings)
    return faces


JOB = ("calibrate", "run", "--embeddings", "e.npz", "--fmr", "0.01")


def test_calibrate_then_filter(
    command_line: CommandLine, labelled: list[Record], tmp_path: Path
) -> None:
    done = command_line(*JOB, "--target-fnmr", "0.05", "--target-discard", "0.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(Path("run/calibration.json"))
    content = json.loads((tmp_path / "run/calibration.json").read_text(encoding="utf-8"))
    by_errors, by_share = content["thresholds"]
    assert by_errors["errors"]["enough"]
    after = by_errors["errors"]["after"]
    assert after["count"] >= 30
    assert after["low"] < after["value"] < after["high"]
    assert after["low"] < 0.05 < after["high"]
    assert by_errors["errors"]["before"]["value"] > 0.08
    for threshold in (by_errors, by_share):
        text = exact_text(threshold["quality"], 4)
        assert len(text) < 10
        assert f"quality {text}, " in done.stderr
        copied = command_line("filter", "run", "--min-quality", text)
        kept = [face for face in labelled if face.quality >= threshold["quality"]]
        assert len(copied.stdout.splitlines()) == len(kept)
    assert f"{after['count']} errors in {after['total']:,} mated comparisons" in done.stderr
    assert content["counts"] == {
        "scored_photos": 900, "left_out": 0, "choosing_people": 75, "choosing_faces": 450,
        "other_people": 75, "other_faces": 450,
    }  # fmt: skip
    # SFace has a scale of its own
    assert content["scale"]["id"] == "sface-lfw-1"
    for option, threshold in (
        ("--target-fnmr=0.05", by_errors),
        ("--target-discard=0.1", by_share),
    ):
        done = command_line("filter", "run", "--calibration", "run/calibration.json", option)
        assert done.returncode == 0, done.stderr
        kept = [face for face in labelled if face.quality >= threshold["quality"]]
        assert len(done.stdout.splitlines()) == len(kept)
    assert abs(len(kept) / len(labelled) - 0.9) < 0.04
    again = command_line(*JOB, "--target-fnmr", "0.05", "--target-discard", "0.1", "-o", "2.json")
    assert again.returncode == 0
    assert json.loads((tmp_path / "2.json").read_text())["id"] == content["id"]
    other = command_line(*JOB, "--target-discard", "0.1", "--seed", "1", "-o", "3.json")
    assert other.returncode == 0
    third = json.loads((tmp_path / "3.json").read_text())["thresholds"][0]
    assert third["quality"] != by_share["quality"]


def test_what_filter_refuses(
    command_line: CommandLine, labelled: list[Record], tmp_path: Path
) -> None:
    done = command_line(*JOB, "--target-discard", "0.1", "--target-discard", "0.2")
    assert done.returncode == 0, done.stderr
    file = ("--calibration", "run/calibration.json")

    def refused(code: int, *arguments: str) -> str:
        done = command_line("filter", *arguments)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]

    assert "--target-discard 0.1, --target-discard 0.2; say which" in refused(1, "run", *file)
    assert "none for --target-fnmr 0.1" in refused(1, "run", *file, "--target-fnmr", "0.1")
    assert "leave --min-quality out" in refused(2, "run", *file, "--min-quality", "0.1")
    assert "need --calibration" in refused(2, "run", "--target-fnmr", "0.1")
    assert "cannot read" in refused(1, "run", "--calibration", "none.json")
    fast = Settings(preset="fast")
    write_run(tmp_path / "fast", labelled[:3], fast, find_model("sface").weights("fast"))
    line = refused(1, "fast", *file, "--target-discard", "0.1")
    assert (
        "was made for other scores: preset: exact in the calibration, fast in fast; "
        "copies: 10 in the calibration, 2 in fast"
    ) in line
    write_run(tmp_path / "other", labelled[:3], weights="0" * 64)
    line = refused(1, "other", *file, "--target-discard", "0.1")
    assert "weights of the recognition model: " in line
    assert line.endswith(", 000000000000 in other")


def test_not_enough_data(command_line: CommandLine, labelled: list[Record], tmp_path: Path) -> None:
    done = command_line(*JOB, "--target-fnmr", "0.001")
    assert done.returncode == 1
    assert "calibration for FNMR 0.001" in done.stderr
    assert not (tmp_path / "run/calibration.json").exists()
    done = command_line(*JOB[:-2], "--fmr", "1e-5", "--target-discard", "0.5")
    assert done.returncode == 0, done.stderr
    assert "not enough data" in done.stderr
    content = json.loads((tmp_path / "run/calibration.json").read_text(encoding="utf-8"))
    assert content["thresholds"][0]["errors"]["after"]["value"] is None
    assert content["thresholds"][0]["discard"]["value"] == pytest.approx(0.5, abs=0.08)


def test_pairs(command_line: CommandLine, labelled: list[Record], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [("a", "b", "label")]
    for person in range(PEOPLE):
        rows += [(f"p{person:03d}/{n}.jpg", f"p{person:03d}/{m}.jpg", 1)
                 for n in range(PHOTOS) for m in range(n)]  # fmt: skip
    for one, other in rng.integers(0, len(labelled), (20_000, 2)):
        if one // PHOTOS != other // PHOTOS:
            rows.append((labelled[one].path, labelled[other].path, 0))
    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([*rows, ("p000/0.jpg", "nobody/9.jpg", 0)])
    done = command_line(*JOB, "--pairs", "pairs.csv", "--target-fnmr", "0.06")
    assert done.returncode == 0, done.stderr
    assert "1 photo of pairs.csv left out: no score in the run" in done.stderr
    content = json.loads((tmp_path / "run/calibration.json").read_text(encoding="utf-8"))
    (threshold,) = content["thresholds"]
    # pairs across the halves count for neither
    assert 4000 < threshold["errors"]["false_matches"]["total"] < 6000
    assert threshold["errors"]["before"]["total"] == 75 * 15
    with (tmp_path / "pairs.csv").open("a", encoding="utf-8") as file:
        file.write("p000/0.jpg,p000/1.jpg,0\n")
    done = command_line(*JOB, "--pairs", "pairs.csv", "--target-fnmr", "0.06")
    assert done.returncode == 1
    assert "a non-mated pair of photos that other pairs connect" in done.stderr
    (tmp_path / "pairs.csv").write_text("a,b\n", encoding="utf-8")
    done = command_line(*JOB, "--pairs", "pairs.csv", "--target-fnmr", "0.06")
    assert done.returncode == 1
    assert "Error: pairs.csv, line 1: the columns must be a, b, label" in done.stderr


def test_who_is_one_person(
    command_line: CommandLine, labelled: list[Record], tmp_path: Path
) -> None:
    """Clips are not people: with a folder for each photo's clip the figures stay the same."""
    targets = ("--target-fnmr", "0.05", "--target-discard", "0.1")
    done = command_line(*JOB, *targets, "-o", "plain.json")
    assert done.returncode == 0, done.stderr
    assert "identity = first folder, 150 people\n" in done.stderr
    plain = json.loads((tmp_path / "plain.json").read_text(encoding="utf-8"))
    assert plain["source"]["identity"] == "first folder"

    faces, embeddings = records()
    paths = [face.path.replace("/", f"/clip{number % 2}/") for number, face in enumerate(faces)]
    clips = [replace(face, path=path) for face, path in zip(faces, paths, strict=True)]
    # a photo in no folder, and one that stands under two people: nobody knows who they show
    more = [
        Record("nobody.jpg", "/photos", 0, "ok", quality=0.5),
        Record("p000/copy.jpg", "/photos", 0, "ok", quality=0.5, sha256="c" * 64),
        Record("p001/copy.jpg", "/photos", 0, "ok", quality=0.5, sha256="c" * 64),
    ]
    write_run(tmp_path / "clips", [*clips, *more])
    everybody = [*paths, *(record.path for record in more)]
    vectors = np.concatenate([embeddings, np.ones((3, 32), np.float32)])
    np.savez(tmp_path / "c.npz", paths=everybody, embeddings=vectors)
    job = ("calibrate", "clips", "--embeddings", "c.npz", "--fmr", "0.01")
    done = command_line(*job, *targets)
    assert done.returncode == 0, done.stderr
    assert "first folder, 150 people; 1 photo without an identity: left out" in done.stderr
    assert (
        "2 photos left out: the same photo (sha256) has several identities, e.g. "
        "p000/copy.jpg" in done.stderr
    )
    found = json.loads((tmp_path / "clips/calibration.json").read_text(encoding="utf-8"))
    assert found["counts"] == {**plain["counts"], "scored_photos": 903, "left_out": 3}
    assert found["thresholds"] == plain["thresholds"]

    done = command_line(*job, *targets[2:], "--identity", "last", "-o", "last.json")
    assert "identity = last folder, 302 people" in done.stderr
    with (tmp_path / "who.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "identity"), *((path, path[:4]) for path in paths)])
    done = command_line(*job, *targets, "--identity", "who.csv", "-o", "table.json")
    assert done.returncode == 0, done.stderr
    assert "column identity of who.csv, 150 people; 3 photos without an identity" in done.stderr
    table = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert table["thresholds"] == plain["thresholds"]


def test_listed_pairs_of_one_photo(command_line: CommandLine, tmp_path: Path) -> None:
    """A list that calls a photo and its copy two people is corrected, and told so."""
    faces = [
        Record(f"{who}/{number}.jpg", "/p", 0, "ok", quality=number / 10, sha256=f"{who}{number}")
        for who in "abcd"
        for number in range(3)
    ]
    faces[3] = replace(faces[3], sha256=faces[0].sha256)
    write_run(tmp_path / "run", faces)
    vectors = np.random.default_rng(0).normal(size=(12, 8))
    np.savez(tmp_path / "e.npz", paths=[face.path for face in faces], embeddings=vectors)
    rows = ["a,b,label", "a/0.jpg,b/0.jpg,0", "c/1.jpg,d/1.jpg,0"]
    rows += [f"{who}/0.jpg,{who}/{number}.jpg,1" for who in "abcd" for number in (1, 2)]
    (tmp_path / "pairs.csv").write_text("\n".join(rows), encoding="utf-8")
    job = (*JOB, "--pairs", "pairs.csv", "--target-discard", "0.5")
    done = command_line(*job)
    assert done.returncode == 0, done.stderr
    told = "1 non-mated pair left out: both are the same photo (sha256), e.g. a/0.jpg and b/0.jpg"
    assert told in done.stderr
    assert "identity =" not in done.stderr
    done = command_line(*job, "--identity", "last")
    assert done.returncode == 2
    assert "--pairs gives the identities; leave --identity out" in done.stderr


def test_bad_input(command_line: CommandLine, tmp_path: Path) -> None:
    faces, _ = records()
    write_run(tmp_path / "flat", [Record("1.jpg", "/p", 0, "ok", quality=0.5)])
    write_run(tmp_path / "one", faces[:PHOTOS])
    write_run(tmp_path / "run", faces[: 2 * PHOTOS])
    write_run(tmp_path / "found", [Record("a/1.jpg", "/p", 0, "ok")], Settings(task="detect"))
    np.savez(tmp_path / "e.npz", paths=["x/y.jpg"], embeddings=np.ones((1, 4)))
    (tmp_path / "photo.png").write_bytes(b"\x89PNG a photo")
    (tmp_path / "empty.json").touch()
    (tmp_path / "who.csv").write_text("path,identity\nx/1.jpg,x\n")
    (tmp_path / "strangers.csv").write_text("a,b,label\nx/1.jpg,x/2.jpg,1\n")
    write_run(tmp_path / "none", [Record("a/1.jpg", "/p", None, "no_face")])
    for code, text, arguments in (
        (2, "give a target", ("run",)),
        (2, "target-fnmr is 1.0; it must be between 0 and 1", ("run", "--target-fnmr", "1")),
        (2, "fmr is 0.0", ("run", "--target-fnmr", "0.1", "--fmr", "0")),
        (2, "given twice", ("run", "--target-fnmr", "0.1", "--target-fnmr", "0.1")),
        (1, "none has no scored photos\n", ("none", "--target-discard", "0.1")),
        (
            1,
            "strangers.csv has no scored photo of run: write paths as in the results, e.g.",
            ("run", "--target-discard", "0.1", "--pairs", "strangers.csv"),
        ),
        (1, "not a run folder", ("nowhere", "--target-discard", "0.1")),
        (1, "no scores; it was made by detect", ("found", "--target-discard", "0.1")),
        (1, "give --identity FILE.csv, or --pairs FILE", ("flat", "--target-discard", "0.1")),
        (1, "calibration needs at least two people, one has 1", ("one", "--target-discard", "0.1")),
        (
            2,
            "identity is none.csv: it must be first, last, the number of a folder in the path, or",
            ("one", "--target-discard", "0.1", "--identity", "none.csv"),
        ),
        (
            1,
            "who.csv has no scored photo of one: write paths as in the results, e.g. p000/",
            ("one", "--target-discard", "0.1", "--identity", "who.csv"),
        ),
        (1, "no crops to embed", ("run", "--target-fnmr", "0.1")),
        (1, "no embedding of a photo", ("run", "--target-fnmr", "0.1", "--embeddings", "e.npz")),
        (1, "gone is no folder", ("run", "--target-fnmr", "0.1", "-o", "gone/x.json")),
        (1, "is no calibration; choose", ("run", "--target-discard", "0.1", "-o", "photo.png")),
        (1, "is no calibration; choose", ("run", "--target-discard", "0.1", "-o", "run/run.json")),
    ):
        done = command_line("calibrate", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert text in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    # a share needs no errors, so no crops either
    done = command_line("calibrate", "run", "--target-discard", "0.1")
    assert done.returncode == 0, done.stderr
    assert "errors: not enough data, none were counted" in done.stderr
    assert (tmp_path / "photo.png").read_bytes() == b"\x89PNG a photo"
    for output in ("run/calibration.json", "empty.json"):
        done = command_line("calibrate", "run", "--target-discard", "0.2", "-o", output)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three people with three photos each, blurred more and more."""
    folder = tmp_path / "photos"
    for name in ("astronaut", "hopper", "two_people"):
        pixels = read_rgb(SAMPLES / f"{name}.jpg")
        (folder / name).mkdir(parents=True)
        for number in range(3):
            blurred = cv2.GaussianBlur(pixels, (0, 0), 0.1 + 1.5 * number)
            cv2.imwrite(str(folder / name / f"{number}.png"), blurred[..., ::-1])
    return folder


def test_a_real_run(command_line: CommandLine, photos: Path, tmp_path: Path) -> None:
    done = command_line(*MAIN, "-o", "run", "--no-report")
    assert done.returncode == 0, done.stderr
    done = command_line("calibrate", "run", "--target-discard", "0.4", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "Embedding 9 crops" in done.stderr
    assert "not enough data" in done.stderr
    content = json.loads((tmp_path / "run/calibration.json").read_text(encoding="utf-8"))
    (threshold,) = content["thresholds"]
    below = threshold["discard"]
    assert below["total"] in (3, 6)
    done = command_line("calibrate", "run", "--target-fnmr", "0.01", "--device", "cpu")
    assert done.returncode == 1
    assert "Error: calibration " in done.stderr

    # the same command with the file adds thresholds to a run that is done
    done = command_line(*MAIN, "-o", "run", "--calibration", "run/calibration.json")
    assert done.returncode == 0, done.stderr
    told = (
        f"Below the threshold for discarding 40 % (quality {exact_text(threshold['quality'], 4)})"
    )
    line = next(line for line in done.stderr.splitlines() if line.startswith(told))
    with (tmp_path / "run/rankings.csv").open(encoding="utf-8", newline="") as file:
        qualities = [float(row["quality"]) for row in csv.DictReader(file)]
    number = sum(quality < round(threshold["quality"], 6) for quality in qualities)
    assert line == f"{told}: {number} of 9 faces"
    assert json.loads((tmp_path / "run/run.json").read_text())["calibration"]["id"] == content["id"]
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert told in page
    assert f"{number} of 9 faces" in page

    shutil.rmtree(tmp_path / "run/crops")
    done = command_line("calibrate", "run", "--target-fnmr", "0.01", "--device", "cpu")
    assert done.returncode == 1
    assert "crops of run no longer exist" in done.stderr
    exact = [*MAIN, "-o", "new", "--calibration", "run/calibration.json", "--preset", "fast"]
    done = command_line(*exact, "--backend", "torch")
    assert done.returncode == 1
    assert (
        "made for other scores: preset: instant in the calibration, fast in this run" in done.stderr
    )
    assert not (tmp_path / "new").exists()


def test_a_model_without_a_scale_gets_one(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    quick = ["align-and-score", "photos", "--method", "norm", "--device", "cpu", "--no-hints"]
    done = command_line(*quick, "-o", "run", "--no-report")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["scale"] is None
    done = command_line("calibrate", "run", "--target-discard", "0.4", "-o", "c.json")
    assert done.returncode == 0, done.stderr
    scale = json.loads((tmp_path / "c.json").read_text())["scale"]
    assert scale["id"].startswith("sface-")
    done = command_line(*quick, "-o", "run", "--no-report", "--calibration", "c.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["scale"] == scale
    with (tmp_path / "run/rankings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert int(rows[len(rows) // 2]["quality_100"]) == 50  # the median of nine
    assert all(0 <= int(row["quality_100"]) <= 100 for row in rows)
