"""Rankings against numpy, and what readers of the files get."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs import ledger
from faceqan_toolkit.runs.folder import RunWriter, read_run
from faceqan_toolkit.settings import FORMATS, Settings
from faceqan_toolkit.text import unguard
from faceqan_toolkit.types import MEASURE_COLUMNS, Record


def ranking_of(folder: Path, records: list[Record], task: str = "align-and-score") -> Ranking:
    with RunWriter(folder, Settings(task=task), "weights") as run:
        for record in records:
            run.append([record])
    return Ranking(read_run(folder))


def scored(path: str, quality: float, face: int = 0, **values) -> Record:
    return Record(path=path, root="/photos", face=face, status="ok", quality=quality, **values)


def failed(path: str, status: str = "no_face", reason: str = "") -> Record:
    return Record(path=path, root="/photos", face=None, status=status, reason=reason)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("qualities", "photos", "only"),
    [
        ([1.0, 1 + 1e-7, 1 - 2e-7], "abc", 1 + 1e-7),  # unit vectors, rounded
        ([-3.0, -3.0, -3.0, -3.0], "abcc", -3.0),
        ([0.0, 0.0, 0.0], "abc", 0.0),
        ([1.0, 1.0, 1.0], "aab", None),  # copies of a photo
        ([1.0, 1.0], "ab", None),
        ([0.5, 0.5, 0.5, 0.501], "abcd", None),
        ([], "", None),
    ],
)
def test_one_quality_for_all_faces(
    tmp_path: Path, qualities: list[float], photos: str, only: float | None
) -> None:
    records = [
        scored(f"{number}.jpg", quality, sha256=photo)
        for number, (quality, photo) in enumerate(zip(qualities, photos, strict=True))
    ]
    assert ranking_of(tmp_path / "run", [*records, failed("x.jpg")]).only_quality() == only


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from([-0.1, 0.0, 0.25, 0.5, 0.7, 0.71]), min_size=1, max_size=30))
def test_ranks_and_percentiles(tmp_path_factory, qualities: list[float]) -> None:
    records = [scored(f"{n:02d}.jpg", quality) for n, quality in enumerate(qualities)]
    rows = ranking_of(tmp_path_factory.mktemp("r") / "run", records[::-1]).rows()
    order = np.lexsort((np.arange(len(qualities)), -np.array(qualities)))
    assert [row["path"] for row in rows] == [f"{n:02d}.jpg" for n in order]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        share = np.mean(np.array(qualities) <= row["quality"])
        assert row["percentile"] == pytest.approx(100 * share)


def test_failures_come_last_and_ties_by_path_and_face(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", Settings(), "w") as run:
        run.append([failed("a.jpg")])
        run.append([scored("c.jpg", 0.5, 1), scored("c.jpg", 0.5, 0)])
        run.append([scored("b.jpg", 0.5)])
        run.append([failed("0.jpg", "unreadable")])
    rows = Ranking(read_run(tmp_path / "run")).rows()
    assert [(row["path"], row["face"], row["rank"]) for row in rows] == [
        ("b.jpg", 0, 1), ("c.jpg", 0, 2), ("c.jpg", 1, 3), ("0.jpg", None, None),
        ("a.jpg", None, None),
    ]  # fmt: skip


def test_counts(tmp_path: Path) -> None:
    records = [
        failed("a", reason="dark"), failed("b", reason="dark"), failed("c", reason="empty"),
        failed("d", "unreadable", "empty"), scored("e", 0.5),
    ]  # fmt: skip
    ranking = ranking_of(tmp_path / "run", records)
    assert list(ranking.counts().items()) == [("ok", 1), ("no_face", 3), ("unreadable", 1)]
    assert ranking.reasons("no_face") == {"dark": 2, "empty": 1}
    assert ranking.reasons("missing") == {}


NASTY = ["=cmd|' /C calc'!A0", "+1.jpg", "-1.jpg", "@sum", "'=quoted", "''", "a,b.jpg", 'say "x"',
         "日本.jpg", "two\nlines", "plain.jpg", "\tindented"]  # fmt: skip


def test_csv_cells_come_back_and_run_nothing(tmp_path: Path) -> None:
    records = [failed(path, reason=path) for path in NASTY]
    ranking = ranking_of(tmp_path / "run", records)
    ranking.export(tmp_path / "out.csv", "csv")
    rows = read_csv(tmp_path / "out.csv")
    assert {unguard(row["path"]) for row in rows} == set(NASTY)
    assert {unguard(row["reason"]) for row in rows} == set(NASTY)
    for row in rows:
        assert row["path"][0] not in "=+-@\t\r"


def test_formats_agree(tmp_path: Path) -> None:
    records = [
        scored("a.jpg", 0.123456789, symmetry=0.9, box_x1=1.23456, crop="crops/a.png"),
        failed("b.jpg", reason="no face found"),
    ]
    ranking = ranking_of(tmp_path / "run", records)
    for file_format in FORMATS:
        ranking.export(tmp_path / f"out.{file_format}", file_format)
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = read_csv(tmp_path / "out.csv")
    assert table == lines == ranking.rows()
    assert table[0]["quality"] == 0.123456789
    assert rows[0]["quality"] == "0.123456", "rounded down, see test_rounding.py"
    assert rows[0]["box_x1"] == "1.23"
    assert rows[1]["quality"] == ""
    assert list(rows[0]) == list(table[0]) == list(ranking.columns)


def test_ends(tmp_path: Path) -> None:
    records = [scored(f"{n}.jpg", n / 10) for n in range(6)] + [failed("x.jpg")]
    ranking = ranking_of(tmp_path / "run", records)

    def ranks(**ends: int) -> list[int]:
        return [row["rank"] for row in ranking.rows(**ends)]

    assert ranks(top=2) == [1, 2]
    assert ranks(bottom=2) == [5, 6]
    assert ranks(top=1, bottom=1) == [1, 6]
    assert ranks(top=4, bottom=4) == [1, 2, 3, 4, 5, 6]
    assert ranks(top=100) == [1, 2, 3, 4, 5, 6]


def test_pickle_is_the_published_codes(tmp_path: Path) -> None:
    records = [scored("a.jpg", 0.2), scored("b.jpg", 0.7), failed("c.jpg")]
    with RunWriter(tmp_path / "run", Settings(), "w") as run:
        for record in records:
            run.append([record])
        run.append([scored("d.jpg", 0.3, 0), scored("d.jpg", 0.9, 1)])
    Ranking(read_run(tmp_path / "run")).export(tmp_path / "results.pkl", "pickle")
    results = pickle.loads((tmp_path / "results.pkl").read_bytes())
    assert results == {"a.jpg": 0.2, "b.jpg": 0.7, "d.jpg": 0.3}


def test_nothing_yet(tmp_path: Path) -> None:
    ranking = ranking_of(tmp_path / "run", [])
    assert ranking.rows() == []
    assert ranking.counts() == {}
    ranking.export(tmp_path / "out.csv", "csv")
    assert (tmp_path / "out.csv").read_text().startswith("rank,path,face,quality")


def test_a_run_without_scores_goes_by_path(tmp_path: Path) -> None:
    records = [Record(path, "/p", 0, "ok") for path in ("b.jpg", "a.jpg")] + [failed("0.jpg")]
    ranking = ranking_of(tmp_path / "run", records, task="detect")
    assert [row["path"] for row in ranking.rows()] == ["a.jpg", "b.jpg", "0.jpg"]
    assert "quality" not in ranking.columns


@pytest.mark.parametrize("name", ["it's", "a [b] {c}", "100% *?", "ünï"])
def test_odd_folder_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    ranking = ranking_of(folder / "run", [scored("a.jpg", 0.5)])
    for file_format in FORMATS:
        ranking.export(folder / f"out.{file_format}", file_format)
    assert read_csv(folder / "out.csv")[0]["path"] == "a.jpg"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    ranking = ranking_of(tmp_path / "run", [scored("a.jpg", 0.5)])
    for file_format in (*FORMATS, "pickle"):
        with pytest.raises(RunError, match="cannot write"):
            ranking.export(tmp_path / "missing" / "out", file_format)


def test_the_old_file_stays_when_writing_fails(tmp_path: Path, monkeypatch) -> None:
    ranking = ranking_of(tmp_path / "run", [scored("a.jpg", 0.5)])
    (tmp_path / "out.csv").write_text("old")

    def fail(*_args) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger, "copy_rows", fail)
    with pytest.raises(RunError, match="No space left"):
        ranking.export(tmp_path / "out.csv", "csv")
    assert (tmp_path / "out.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_parts_from_before_there_were_hints(tmp_path: Path) -> None:
    ranking = ranking_of(tmp_path / "run", [scored("a.jpg", 0.5)])
    (part,) = (tmp_path / "run/records").iterdir()
    table = pq.read_table(part).drop_columns([*MEASURE_COLUMNS, "hints"])
    part.unlink()
    pq.write_table(table, part.with_name("part-000000.parquet"))  # as parts were called then
    assert [row["hints"] for row in ranking.rows()] == [None]
