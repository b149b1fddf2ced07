"""A whole job over archives: scored, resumed, reported, written as records, scored again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2

from tests.conftest import SAMPLES, CommandLine
from tests.photos.makers import write_tar

INSTANT = ("--preset", "instant", "--device", "cpu")
FAST = (*INSTANT, "--detector", "yunet")


def ranking(run: Path) -> list[dict[str, str]]:
    with (run / "rankings.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_tar_is_a_folder(command_line: CommandLine, tmp_path: Path) -> None:
    names = ("hopper.jpg", "astronaut_noisy.jpg", "two_people.jpg")
    photos = {f"{index}/{name}": (SAMPLES / name).read_bytes() for index, name in enumerate(names)}
    for name, data in photos.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).write_bytes(data)
    write_tar(tmp_path / "a.tar", {**photos, "../bad.jpg": b""})
    inputs = ("align-and-score", "a.tar", "-o", "run", "--no-crops", "--workers", "2", *FAST)
    done = command_line(*inputs)
    assert done.returncode == 3, done.stderr
    rows = ranking(tmp_path / "run")
    assert [row["status"] for row in rows] == ["ok"] * 3 + ["unreadable"]
    assert "left out 1 whose names lead out of it" in rows[-1]["reason"]
    again = command_line(*inputs)
    assert "4 of them done before" in again.stderr
    # as if they were files; the report finds the photos again
    command_line("align-and-score", "photos", "-o", "files", *FAST)
    files = {row["path"]: row["quality"] for row in ranking(tmp_path / "files")}
    assert {row["path"].removeprefix("a.tar/"): row["quality"] for row in rows[:3]} == files
    pages = [
        (tmp_path / run / "report.html").read_text(encoding="utf-8") for run in ("run", "files")
    ]
    assert pages[0].count("/9j/") == pages[1].count("/9j/") > 0
    # crops as records: the same scores, identities as folders
    done = command_line("filter", "files", "--keep-top", "3", "--what", "crops", "--to", "set",
                        "--mode", "copy", "--as", "recordio")  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = command_line("score", "set/train.rec", "-o", "scored", *INSTANT)
    assert done.returncode == 0, done.stderr
    scored = ranking(tmp_path / "scored")
    assert sorted(row["quality"] for row in scored) == sorted(files.values())
    assert {row["path"].split("/")[2] for row in scored} == {"00000", "00001", "00002"}


def test_the_best_frames_of_a_video(command_line: CommandLine, tmp_path: Path) -> None:
    photo = cv2.resize(cv2.imread(str(SAMPLES / "hopper.jpg")), (320, 400))
    writer = cv2.VideoWriter(
        str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (320, 400)
    )
    for number in range(20):
        blur = 2 * abs(number % 10 - 5) + 1  # sharpest at 1 and 3 seconds
        writer.write(cv2.GaussianBlur(photo, (blur, blur), 0))
    writer.release()
    done = command_line("align-and-score", "a.mp4", "--every", "0.4s", "-o", "run", *FAST)
    assert done.returncode == 0, done.stderr
    assert len(ranking(tmp_path / "run")) == 10
    done = command_line("filter", "run", "--per-window", "2", "--to", "best", "--mode", "copy")
    assert done.returncode == 0, done.stderr
    frames = sorted((tmp_path / "best/a.mp4").iterdir())
    assert len(frames) == 2
    assert all(cv2.imread(str(frame)).shape == (400, 320, 3) for frame in frames)
    assert {float(frame.name[9:-5]) // 2 for frame in frames} == {0, 1}
    single = command_line(
        "explain",
        f"a.mp4/{frames[0].name}",
        "-o",
        "one",
        *FAST[2:],
        "--backend",
        "torch",
        "--copies",
        "1",
    )
    assert single.returncode == 0, single.stderr
    (found,) = (tmp_path / "one").rglob("*.json")
    assert json.loads(found.read_text())["status"] == "ok"
