"""Two runs compared, against SciPy."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.results.comparison import COLUMNS, RunComparison
from faceqan_toolkit.settings import FORMATS, Settings
from faceqan_toolkit.types import BOX_COLUMNS, Record
from tests.ledgers import write_run


def scored(path: str, quality: float | None, face: int = 0, box=None, sha256: str = "") -> Record:
    boxes = dict(zip(BOX_COLUMNS, box or (), strict=bool(box)))
    status = "ok" if quality is not None else "unscorable"
    return Record(path, "/p", face, status, quality=quality, sha256=sha256 or path, **boxes)


def compare(folder: Path, first: list[Record], second: list[Record]) -> RunComparison:
    return RunComparison(write_run(folder / "a", first), write_run(folder / "b", second))


qualities = st.none() | st.integers(0, 6).map(lambda n: n / 6)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(qualities, qualities), min_size=3, max_size=15))
def test_figures(tmp_path_factory, pairs) -> None:
    common = [(a, b) for a, b in pairs if a is not None and b is not None]
    assume(len(common) > 1)
    comparison = compare(
        tmp_path_factory.mktemp("r"),
        [scored(f"{n:02d}", a) for n, (a, _) in enumerate(pairs)],
        [scored(f"{n:02d}", b) for n, (_, b) in enumerate(pairs)],
    )
    figures, rows = comparison.summary(100)
    one, other = zip(*common, strict=True)
    assert figures.common == len(common)
    assert figures.only_a == sum(a is not None and b is None for a, b in pairs)
    assert figures.only_b == sum(a is None and b is not None for a, b in pairs)
    if len(set(one)) > 1 and len(set(other)) > 1:
        assert figures.spearman == pytest.approx(spearmanr(one, other).statistic)
    else:
        assert figures.spearman is None
    apart = [b - a for a, b in common]
    assert figures.mean_difference == pytest.approx(sum(apart) / len(apart))
    assert figures.mean_distance == pytest.approx(sum(map(abs, apart)) / len(apart))
    assert len(rows) == len(common)
    for row in rows:
        a, b = pairs[int(row["path"])]
        assert (row["quality_a"], row["quality_b"]) == (a, b)
        shift = 100 * (sum(y <= b for y in other) - sum(x <= a for x in one)) / len(common)
        assert row["shift"] == pytest.approx(shift)
        assert row["difference"] == b - a
    shifts = [round(abs(row["shift"]), 9) for row in rows]
    assert shifts == sorted(shifts, reverse=True)


def test_partners(tmp_path: Path) -> None:
    left, right, middle = (0, 0, 10, 10), (20, 0, 30, 10), (10, 0, 20, 10)
    first = [
        scored("two.jpg", 0.1, 0, left), scored("two.jpg", 0.2, 1, right),
        scored("moved.jpg", 0.3, sha256="m"),
        scored("changed.jpg", 0.4, sha256="before"),
        scored("gone.jpg", 0.5),
        scored("twin_1.jpg", 0.6, sha256="t"), scored("twin_2.jpg", 0.7, sha256="t"),
        scored("lost.jpg", 0.8, 0, left),
    ]  # fmt: skip
    second = [
        # the other detector orders the faces differently and finds a third one
        scored("two.jpg", 0.25, 0, (21, 0, 31, 10)), scored("two.jpg", 0.15, 1, (0, 1, 10, 11)),
        scored("two.jpg", 0.9, 2, middle),
        scored("elsewhere/moved.jpg", 0.35, sha256="m"),
        scored("changed.jpg", 0.4, sha256="after"),
        scored("x/twin_1.jpg", 0.6, sha256="t"),
        scored("lost.jpg", 0.8, 0, right),
    ]  # fmt: skip
    figures, rows = compare(tmp_path, first, second).summary(99)
    found = {(row["path"], row["face"]): (row["path_b"], row["face_b"]) for row in rows}
    assert found == {
        ("two.jpg", 0): ("two.jpg", 1),
        ("two.jpg", 1): ("two.jpg", 0),
        ("moved.jpg", 0): ("elsewhere/moved.jpg", 0),
    }
    assert (figures.common, figures.only_a, figures.only_b, figures.changed) == (3, 5, 4, 1)


def runs_with(tmp_path: Path, first: dict, second: dict, *weights: str) -> RunComparison:
    one, other = weights or ("w" * 64, "w" * 64)
    records = [scored("a.jpg", 0.1), scored("b.jpg", 0.2)]
    return RunComparison(
        write_run(tmp_path / "a", records, Settings(**first), one),
        write_run(tmp_path / "b", records, Settings(**second), other),
    )


def test_what_compares_and_what_does_not(tmp_path: Path) -> None:
    # the head behind the plus predicts the scores of the same model
    presets = runs_with(tmp_path / "1", {}, {"preset": "instant"}, "w" * 64, "w" * 64 + "+head")
    assert presets.scores_compare
    assert presets.differing == {"preset": ("exact", "instant")}
    plain = runs_with(tmp_path / "2", {}, {"antialias": False, "seed": 1})
    assert plain.summary()[0].mean_difference == 0
    assert plain.differing == {"antialias": (True, False), "seed": (0, 1)}
    other = runs_with(tmp_path / "3", {}, {"exponent": 1.0})
    assert not other.scores_compare
    figures = other.summary()[0]
    assert (figures.spearman, figures.mean_difference) == (pytest.approx(1), None)
    assert {row["difference"] for row in other.summary(9)[1]} == {None}
    # another measure of quality altogether, as the run says
    one, two = (write_run(tmp_path / name, [scored("a.jpg", 0.1)]) for name in "xy")
    identity = {**two.content["identity"], "method": "another"}
    measure = RunComparison(one, replace(two, content={**two.content, "identity": identity}))
    assert not measure.scores_compare
    assert measure.summary()[0].mean_difference is None
    with pytest.raises(
        RunError, match=r"sface \(wwwwwwwwwwww\).*sface \(vvvvvvvvvvvv\).*cannot be"
    ):
        runs_with(tmp_path / "4", {}, {}, "w" * 64, "v" * 64)
    with pytest.raises(RunError, match="has no scores; it was made by detect"):
        runs_with(tmp_path / "5", {}, {"task": "detect"})


def test_files_agree(tmp_path: Path) -> None:
    records = [scored("=a.jpg", 0.1), scored("b.jpg", 0.2), scored("c.jpg", 0.3)]
    comparison = compare(tmp_path, records, [scored("=a.jpg", 0.9), *records[1:]])
    for file_format in FORMATS:
        comparison.export(tmp_path / f"out.{file_format}", file_format, number=2)
    expected = comparison.summary(2)[1]
    assert [row["path"] for row in expected] == ["=a.jpg", "b.jpg"]
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["path"] == "'=a.jpg"
    with pytest.raises(RunError, match="cannot write"):
        comparison.export(tmp_path / "missing" / "x.csv", "csv")


def test_nothing_in_common(tmp_path: Path) -> None:
    comparison = compare(tmp_path, [scored("a.jpg", 0.1)], [])
    figures = comparison.summary()[0]
    assert (figures.common, figures.only_a, figures.spearman) == (0, 1, None)
    assert comparison.summary(5)[1] == []
