"""The scale from 0 to 100."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.quality.scale import Scale, builtin_scale, scale_from
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunWriter, read_run
from faceqan_toolkit.settings import PRESETS, Settings
from tests.ledgers import face, write_run

WEIGHTS = Path(__file__).parents[2] / "weights"
qualities = st.floats(-1, 1)
scales = st.builds(Scale, st.just("test"), st.floats(-1, 1), st.floats(1e-4, 10))


@given(scales, st.lists(qualities, min_size=2, max_size=20))
def test_it_is_monotone_and_stays_within_bounds(scale: Scale, values: list[float]) -> None:
    found = [scale.of(value) for value in sorted(values)]
    assert found == sorted(found)
    assert all(isinstance(value, int) and 0 <= value <= 100 for value in found)


@given(scales, qualities)
def test_sql_says_the_same(scale: Scale, quality: float) -> None:
    query = f"SELECT {scale.sql('q')}, {scale.sql('NULL::DOUBLE')} FROM (SELECT ?::DOUBLE AS q)"
    assert duckdb.execute(query, [quality]).fetchone() == (scale.of(quality), None)


@given(st.floats(-1, 1), st.floats(1e-3, 1))
def test_its_fixed_points(median: float, apart: float) -> None:
    scale = Scale.from_quantiles("test", median, median + apart)
    assert scale.of(median) == 50
    assert scale.of(median + apart) == 84
    # a sigmoid is symmetric about its middle
    assert scale.of(median - apart) == 16


def test_constants_that_make_no_scale() -> None:
    for bad in ((0.5, 0.0), (0.5, -1.0), (float("nan"), 1.0), (0.5, float("inf"))):
        with pytest.raises(SettingsError):
            Scale("bad", *bad)
    with pytest.raises(SettingsError):
        Scale.from_quantiles("bad", 0.5, 0.5)
    for bad in ({}, {"id": "x", "midpoint": "y", "width": 1}, [1]):
        with pytest.raises(SettingsError, match="not a scale"):
            scale_from(bad)


def test_the_built_in_constants_are_those_of_the_labels() -> None:
    """The file leaves out LFW's names, so a few of these crops are of other photos."""
    with (WEIGHTS / "instant/labels.csv").open(newline="", encoding="utf-8") as file:
        found = [float(r["quality"]) for r in csv.DictReader(file) if r["kind"] == "clean"]
    scale = builtin_scale(Settings(), find_model("sface").weights("exact"))
    assert scale is not None
    median, upper = np.percentile(found, [50, 84])
    assert scale.of(median) == 50
    assert scale.of(upper) == 84
    (entry,) = json.loads((WEIGHTS / "scales.json").read_text())["scales"]
    content = (WEIGHTS / "sface.safetensors").read_bytes()
    assert entry["weights_sha256"] == hashlib.sha256(content).hexdigest()


def test_who_has_the_built_in_scale() -> None:
    for preset in PRESETS:
        settings = Settings(preset=preset)
        assert builtin_scale(settings, find_model("sface").weights(preset)) is not None
    weights = find_model("sface").weights("exact")
    assert builtin_scale(Settings(antialias=False, seed=3, faces="all"), weights) is not None
    for other in (
        {"eps": 0.002},
        {"eps_mode": "contrast"},
        {"steps": 4},
        {"copies": 3},
        {"exponent": 1.0},
        {"clamp": "valid"},
    ):
        assert builtin_scale(Settings(**other), weights) is None, other
    assert builtin_scale(Settings(), "0" * 64) is None
    assert builtin_scale(Settings(task="detect"), "") is None


def test_rankings_show_it_and_the_run_remembers_it(tmp_path: Path) -> None:
    records = [face(tmp_path, "a.jpg", 0.618311), face(tmp_path, "b.jpg", 0.3)]
    run = write_run(tmp_path / "run", records)
    assert [row["quality_100"] for row in Ranking(run).rows()] == [50, 0]
    content = json.loads((tmp_path / "run/run.json").read_text())
    assert content["scale"]["id"] == "sface-lfw-1"
    # a later version's constants do not change what is there
    content["scale"] = Scale("old", 0.3, 0.1).as_dict()
    (tmp_path / "run/run.json").write_text(json.dumps(content))
    with RunWriter(tmp_path / "run", Settings(), find_model("sface").weights("exact")) as again:
        again.write_info({})
        assert Ranking(again.info).rows()[1]["quality_100"] == 50
    assert read_run(tmp_path / "run").scale == Scale("old", 0.3, 0.1)
    Ranking(read_run(tmp_path / "run")).export(tmp_path / "out.csv", "csv")
    with (tmp_path / "out.csv").open() as file:
        assert [row["quality_100"] for row in csv.DictReader(file)] == ["96", "50"]


def test_a_model_without_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [face(tmp_path, "a.jpg", 0.5)], weights="another")
    assert [row["quality_100"] for row in Ranking(run).rows()] == [None]
    broken = replace(run, content={**run.content, "scale": {"id": "x"}})
    with pytest.raises(RunError, match="not a scale"):
        Ranking(broken).rows()
