"""The whole command line over a corpus of bad and odd files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.dataset as pads
import pytest

from faceqan_toolkit.text import unguard
from tests.conftest import HANG, CommandLine
from tests.corpus import MAX_PIXELS, is_special, make_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names and files of Linux"),
]

MOST_MEMORY = 1_500_000_000
"""Bytes that a process may hold; torch and the networks take 0.5 GB of them."""
LEAST_MEMORY = 30_000_000
"""Bytes that Python and our imports hold at least; with less, something else was measured."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, frozenset[str]]]:
    folder = tmp_path_factory.mktemp("bad")
    return folder, make_corpus(folder / "photos")


def rows_of(run: Path) -> list[dict[str, object]]:
    return pads.dataset(run / "records", format="parquet").to_table().to_pylist()


MEASURE = """
import resource, subprocess, sys
file, *arguments = sys.argv[1:]
done = subprocess.run([sys.executable, "-m", "faceqan_toolkit", *arguments])
with open(file, "w") as peak:
    peak.write(str(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(done.returncode)
"""
"""Runs the command line as the only child, so that no other's memory counts as its own."""


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line; what it prints must be text for a terminal."""
    peak = cwd / "peak.txt"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, peak, *map(str, arguments)],
        capture_output=True, cwd=cwd, timeout=HANG, check=False,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert b"\x1b]0;" not in done.stdout + done.stderr
    assert not (cwd / "pwned").exists()
    assert LEAST_MEMORY < int(peak.read_text()) < MOST_MEMORY, arguments
    out, err = (text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


QUICK = ("--preset", "instant", "--device", "cpu", "--workers", "2", "--photo-timeout", "1800")
ALIGN = ("--device", "cpu", "--workers", "2", "--detector", "yunet",
         "--max-pixels", str(MAX_PIXELS))  # fmt: skip


def test_the_main_job_and_all_that_follows(made) -> None:
    folder, expected = made
    assert len(expected) >= 200
    done = command("align-and-score", "photos", "-o", "run", *QUICK,
                   "--max-pixels", str(MAX_PIXELS), cwd=folder)  # fmt: skip
    assert done.returncode == 3, done.stderr

    rows = rows_of(folder / "run")
    found = {str(row["path"]): str(row["status"]) for row in rows}
    assert Counter(row["path"] for row in rows).most_common(1)[0][1] == 1
    assert set(found) == set(expected)
    unexpected = {
        path: (status, [row["reason"] for row in rows if row["path"] == path])
        for path, status in found.items()
        if status not in expected[path]
    }
    assert not unexpected
    for row in rows:
        assert row["status"] == "ok" or row["reason"], row["path"]
        assert str(row["reason"]).isprintable()
        assert len(str(row["reason"])) < 300

    ranked = command("rank", "run", "--format", "csv", "--format", "jsonl", cwd=folder)
    assert ranked.returncode == 0, ranked.stderr
    with (folder / "run/rankings.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert {unguard(row["path"]) for row in cells} == set(expected)
    assert not [row for row in cells if row["path"].startswith(("=", "+", "-", "@"))]
    lines = (folder / "run/rankings.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["path"] for line in lines} == set(expected)
    shown = command("rank", "run", cwd=folder)
    assert shown.returncode == 0, shown.stderr

    reported = command("report", "run", cwd=folder)
    assert reported.returncode == 0, reported.stderr
    page = (folder / "run/report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page

    copied = command("filter", "run", "--mode", "copy", "--to", "kept", "--drop-status", "ok",
                     cwd=folder)  # fmt: skip
    assert copied.returncode == 3, "pipes and devices are no files"
    kept = command("filter", "run", "--mode", "copy", "--to", "kept", "--min-quality", "0.1",
                   cwd=folder)  # fmt: skip
    assert kept.returncode == 0, kept.stderr
    files = [path for path in (folder / "kept").rglob("*") if not path.is_dir()]
    assert not [path for path in files if is_special(path)]
    assert len(files) > 150
    assert sum(path.stat().st_size for path in files) < 100_000_000

    explained = command("explain", "run", "-o", "why", "--worst", "3", "--best", "0", "--device",
                        "cpu", cwd=folder)  # fmt: skip
    assert explained.returncode == 0, explained.stderr
    assert (folder / "why/contact_sheet.png").is_file()


def test_parts_of_the_main_job(made) -> None:
    """Shards: two of three are aligned and merged, the faces of the third are looked for."""
    folder, expected = made
    done = command("detect", "photos", "-o", "detected", "--shard", "3/3", *ALIGN, cwd=folder)
    assert done.returncode == 3, done.stderr
    for number in ("1", "2"):
        done = command("align", "photos", "-o", f"aligned{number}", "--shard", f"{number}/3",
                       *ALIGN, cwd=folder)  # fmt: skip
        assert done.returncode == 3, done.stderr
    done = command("merge", "aligned1", "aligned2", "-o", "aligned", cwd=folder)
    assert done.returncode == 3, done.stderr
    rows = rows_of(folder / "aligned")
    aligned = [folder / "aligned" / str(row["crop"]) for row in rows if row["status"] == "ok"]
    assert len(aligned) > 100
    assert all(path.is_file() for path in aligned)
    rows += rows_of(folder / "detected")
    assert {row["path"] for row in rows} == set(expected)
    assert not {row["status"] for row in rows} & {"crashed", "timed_out"}


@pytest.fixture(scope="module")
def people(made) -> Path:
    """Every second file of the corpus, dealt out to four people."""
    folder, _ = made
    files = [
        path for path in (folder / "photos").iterdir() if path.is_symlink() or not path.is_dir()
    ]
    for number, path in enumerate(sorted(files)[::2]):
        person = folder / "people" / f"{number % 4}"
        person.mkdir(parents=True, exist_ok=True)
        os.link(path, person / path.name, follow_symlinks=False)
    return folder


def test_scores_of_what_is_no_crop(people: Path) -> None:
    done = command("score", "people", "-o", "scored", *QUICK, "--max-pixels", str(MAX_PIXELS),
                   cwd=people)  # fmt: skip
    assert done.returncode == 3, done.stderr
    rows = rows_of(people / "scored")
    assert len(rows) == len(list((people / "people").glob("?/*"))) > 100
    assert not {row["status"] for row in rows} & {"crashed", "timed_out"}


def test_errors_of_people(people: Path) -> None:
    done = command("evaluate", "folders", "people", "-o", "evaluated", "--preset", "instant",
                   "--device", "cpu", "--workers", "2", "--detector", "yunet", "--bootstrap", "20",
                   "--max-pixels", str(MAX_PIXELS), cwd=people)  # fmt: skip
    assert done.returncode == 3, done.stderr
    (one,) = json.loads((people / "evaluated/summary.json").read_text())["evaluations"]
    assert one["comparisons"]["mated"] > 100
    for target, code in (("--target-discard", 0), ("--target-fnmr", 1)):
        done = command("calibrate", "evaluated/scores", target, "0.2", "--device", "cpu",
                       "-o", f"{target}.json", cwd=people)  # fmt: skip
        assert done.returncode == code, done.stderr
        assert (people / f"{target}.json").exists() == (code == 0)
        assert ("not enough data" if code == 0 else "calibration ") in done.stderr


def test_the_corpus_is_the_same_for_the_same_seed(made, tmp_path: Path) -> None:
    folder, expected = made
    assert make_corpus(tmp_path / "again") == expected
    for path in (folder / "photos").iterdir():
        again = tmp_path / "again" / path.name
        if not is_special(path) and "sparse" not in path.name and "forbidden" not in path.name:
            assert again.read_bytes() == path.read_bytes(), path.name


def test_explaining_bad_photos(command_line: CommandLine, made) -> None:
    folder, _ = made
    names = ["cut2_rgb.png", "-rf.jpg", "huge.tif", "pipe.jpg", "icc_cut.png"]
    done = command_line("explain", *[folder / "photos" / name for name in names], "-o", "why",
                        "--device", "cpu", "-k", "1", "-l", "1")  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exit code 3: 3 without a score" in done.stderr
