"""What an evaluation finds, and what it may be asked."""

from __future__ import annotations

import csv
import json

import pytest

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.result_files import areas_csv
from faceqan_toolkit.evaluation.statistics import evaluate_methods
from faceqan_toolkit.evaluation.verification import fold_accuracy
from tests.evaluation.synthetic import QUICK, run, world


def test_summary_states_everything() -> None:
    seen = world()
    accuracy = fold_accuracy(seen.similarity, seen.mated, seen.first % 3)
    result = evaluate_methods(
        seen.comparisons(), seen.methods(), dataset="Made up", recogniser="none",
        options=EvaluationOptions(**QUICK), accuracy=accuracy,
    )  # fmt: skip
    summary = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert list(summary["methods"]) == ["FaceQAN", "Norm & co", "Sharpness", "random", "oracle"]
    kinds = [method["kind"] for method in summary["methods"].values()]
    assert kinds == ["quality", "quality", "simple", "random", "oracle"]
    assert summary["verification"]["accuracy"] == accuracy.mean
    assert summary["comparisons"]["mated"] == seen.mated.sum()
    assert summary["comparisons"]["non_mated"] == (~seen.mated).sum()
    assert summary["options"]["edc"] == "fixed"
    threshold = summary["methods"]["FaceQAN"]["targets"]["0.1"]["threshold"]
    for method in summary["methods"].values():
        assert list(method["targets"]) == ["0.1", "0.01"]
        for target, row in method["targets"].items():
            assert row["achieved_fmr"] <= float(target)
            assert row["fnmr0"] == row["errors"] / row["mated"]
            assert list(row["pauc"]) == ["0.2", "0.3", "1"]
            for area in row["pauc"].values():
                assert area["interval"]["low"] <= area["raw"] <= area["interval"]["high"]
                assert area["normalised_interval"]["level"] == 0.95
        assert method["targets"]["0.1"]["threshold"] == threshold
        assert method["fnmr_starts"]["0.1"]["fnmr0"] >= 0.1
    oracle = summary["methods"]["oracle"]["targets"]["0.1"]["pauc"]["0.2"]
    ours = summary["methods"]["FaceQAN"]["targets"]["0.1"]["pauc"]["0.2"]
    random = summary["methods"]["random"]["targets"]["0.1"]["pauc"]["0.2"]
    assert oracle["raw"] < ours["raw"] < random["raw"]
    assert oracle["gap"] == 0
    assert ours["gap"] == pytest.approx(ours["raw"] - oracle["raw"])
    assert random["normalised"] == pytest.approx(1, abs=0.1)
    assert len(summary["tests"]) == 3 * 3 * 3
    assert all(0 < test["p_value"] <= 1 for test in summary["tests"])


@pytest.mark.parametrize("decimals", [None, 2])
def test_rates_that_are_printed_choose_the_same_thresholds(decimals: int | None) -> None:
    seen = world(decimals=decimals)
    targets = {"fmr_targets": (0.1, 0.0123, 0.001), "fnmr_starts": (0.05, 0.1)}
    first = run(seen, **targets, replicates=0)
    rates = [first.rates(point) for point in first.points]
    texts = [fmr if point.kind == "fmr" else fnmr
             for point, (fmr, fnmr) in zip(first.points, rates, strict=True)]  # fmt: skip
    assert all(len(text) <= 8 for text in texts)
    again = run(
        seen, replicates=0, fmr_targets=tuple(map(float, texts[:3])),
        fnmr_starts=tuple(map(float, texts[3:])),
    )  # fmt: skip
    assert [point.threshold for point in again.points] == [
        point.threshold for point in first.points
    ]
    rows = list(csv.DictReader(areas_csv([first]).splitlines()))
    exact = tuple(dict.fromkeys(float(row["achieved_fmr"]) for row in rows))
    copied = run(seen, replicates=0, fmr_targets=exact[:3], fnmr_starts=(0.05,))
    assert [point.threshold for point in copied.points[:3]] == [
        point.threshold for point in first.points[:3]
    ]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"edc": "other"}, "edc must be"),
        ({"fte": "other"}, "fte must be"),
        ({"pair_quality": "max"}, "pair quality must be"),
        ({"fmr_targets": (0.0,)}, "between 0 and 1"),
        ({"fmr_targets": ()}, "at least one"),
        ({"fnmr_starts": (1.0,)}, "between 0 and 1"),
        ({"limits": (1.5,)}, "discard share"),
        ({"replicates": -1}, "at least 0"),
    ],
)
def test_bad_options_are_refused(option: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EvaluationOptions(**option)


def test_lookups() -> None:
    result = run(world())
    assert result.points[result.point(0.01)].name == "FMR 0.01"
    with pytest.raises(SettingsError, match=r"FMR 0\.5 was not"):
        result.point(0.5)
    with pytest.raises(SettingsError, match="no method"):
        result.method("B")
