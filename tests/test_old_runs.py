"""Run folders of version 0.1: read as before, and continued by no command."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from faceqan_toolkit.detection.landmarks_file import LandmarksFile
from faceqan_toolkit.photos.find import locate
from faceqan_toolkit.report.page import write_report
from faceqan_toolkit.results.filtering import Rules, decide
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import read_run
from faceqan_toolkit.runs.merging import merge
from faceqan_toolkit.settings import Settings
from tests.conftest import DATA, SAMPLES, CommandLine

OLD = DATA / "runs_of_0_1"
NAMES = sorted(folder.name for folder in OLD.iterdir() if folder.is_dir())


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def same(now: str, before: str) -> bool:
    """Tell whether two cells say the same: version 0.1 rounded some numbers up."""
    try:
        unit = 10.0 ** -len(before.partition(".")[2])
        return abs(float(now) - float(before)) < 1.01 * unit
    except ValueError:
        return now == before


@pytest.mark.parametrize("name", NAMES)
def test_rankings_are_as_version_0_1_wrote_them(name: str, copied: Path) -> None:
    folder = copied / name
    before = rows_of(folder / "rankings.csv")
    Ranking(read_run(folder)).export(folder / "again.csv", "csv")
    now = rows_of(folder / "again.csv")
    assert len(now) == len(before)
    for one, other in zip(now, before, strict=True):
        assert not [column for column in other if not same(one[column], other[column])]


@pytest.mark.parametrize("name", NAMES)
def test_reports_and_filters(name: str, copied: Path) -> None:
    run = read_run(copied / name)
    write_report(run, copied / "report.html")
    assert "astronaut.jpg" in (copied / "report.html").read_text(encoding="utf-8")
    kept = [one for one in decide(run, Rules(min_quality=0.5)) if one.kept]
    rows = rows_of(copied / name / "rankings.csv")
    good = {row["path"] for row in rows if row["quality"] and float(row["quality"]) >= 0.5}
    assert {one.path for one in kept} == good


def test_old_runs_are_merged_to_an_old_run(copied: Path, tmp_path: Path) -> None:
    shutil.copytree(copied / "fast", copied / "other")
    runs = [read_run(copied / name) for name in ("fast", "other")]
    with merge(runs, tmp_path / "merged") as merged:
        assert merged.identity == runs[0].content["identity"]
    assert read_run(tmp_path / "merged").content["fingerprint"] == runs[0].content["fingerprint"]


def test_continuing_one_is_refused_with_one_line(copied: Path, command_line: CommandLine) -> None:
    before = {file: file.read_bytes() for file in (copied / "fast").rglob("*") if file.is_file()}
    photo = SAMPLES / "astronaut.jpg"
    done = command_line("align-and-score", photo, "-o", copied / "fast", "--preset", "fast")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()[-1:]
    assert line == (
        f"Error: {copied / 'fast'} was made by another version, which finds other faces: it can be "
        "ranked, filtered and reported, but not continued; use another run folder"
    )
    assert all(file.read_bytes() == content for file, content in before.items())


def test_landmarks_have_the_identities_that_version_0_1_stored() -> None:
    """Otherwise a run with a landmarks file would take all of its photos for changed."""
    table = LandmarksFile(OLD / "all_faces/rankings.csv", Settings())
    photos = Ranking(read_run(OLD / "landmarks")).rows(extra=["landmarks_id"])
    stored = {row["path"]: row["landmarks_id"] for row in photos}
    assert len(stored) == 6
    assert stored == {
        row["path"]: table.identify(locate(row["root"], row["path"])) for row in photos
    }
