"""The calibration file: whole or refused, for the scores it was made from."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import CalibrationError, RunError, SettingsError
from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.quality.scale import Scale
from faceqan_toolkit.results.calibration import (
    MUST_MATCH,
    Calibration,
    Errors,
    Rate,
    Threshold,
    below_thresholds,
    fit_scale,
    made_with,
    read_calibration,
    write_calibration,
)
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunWriter, read_run
from faceqan_toolkit.settings import Settings
from tests.conftest import in_every_encoding
from tests.ledgers import face, write_run

ERRORS = Errors(
    1e-3, 0.31, Rate(101, 100_000, 0.0008, 0.0012), Rate(60, 3000, 0.015, 0.025),
    Rate(40, 2800, 0.01, 0.02),
)  # fmt: skip

ANY = {
    "id": "", "model": "", "made_with": {}, "scale": {"id": "a", "midpoint": 0.5, "width": 0.1},
    "thresholds": [], "counts": {}, "seed": 0, "source": {}, "version": "",
}  # fmt: skip


def identity(**chosen: object) -> dict[str, object]:
    settings = Settings(**chosen)
    return settings.identity(find_model(settings.model.name).weights(settings.preset))


def calibration(**chosen: object) -> Calibration:
    known = identity(**chosen)
    return Calibration(
        id="", model="sface", made_with={name: known.get(name) for name in MUST_MATCH},
        scale=Scale("mine", 0.6, 0.05),
        thresholds=(
            Threshold("fnmr", 0.01, 0.55, 0.5, 0.6, Rate(30, 300, 0.08, 0.12), ERRORS),
            Threshold("discard", 0.1, 0.5, None, None, Rate(29, 300, 0.07, 0.13)),
        ),
        counts={"choosing_people": 4}, seed=3, source={"run": "/somewhere"}, version="1",
    ).named()  # fmt: skip


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = calibration()
    write_calibration(made, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == made
    # where the run lies is not part of what it says
    assert replace(made, source={"run": "elsewhere"}).named().id == made.id
    assert replace(made, seed=4).named().id != made.id
    content = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert content["thresholds"][0]["errors"]["after"]["value"] == 40 / 2800
    assert content["made_with"]["weights_sha256"] == find_model("sface").sha256


def test_it_may_be_saved_in_another_encoding(tmp_path: Path) -> None:
    made = calibration()
    write_calibration(made, tmp_path / "c.json")
    for data in in_every_encoding((tmp_path / "c.json").read_text(encoding="utf-8")):
        (tmp_path / "c.json").write_bytes(data)
        assert read_calibration(tmp_path / "c.json") == made


def test_rates_that_errors_are_too_few_for_are_not_in_the_file(tmp_path: Path) -> None:
    few = replace(ERRORS, after=Rate(29, 2800, 0.01, 0.02))
    assert ERRORS.enough
    assert not few.enough
    assert not replace(ERRORS, false_matches=Rate(30, 29_999)).enough
    made = calibration()
    (first, second) = made.thresholds
    made = replace(made, thresholds=(replace(first, errors=few), second)).named()
    write_calibration(made, tmp_path / "c.json")
    found = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["thresholds"][0]["errors"]
    assert found["enough"] is False
    assert found["after"] == {"count": 29, "total": 2800, "low": None, "high": None, "value": None}
    assert read_calibration(tmp_path / "c.json").id == made.id


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is no calibration"),
        ("[]", "is no calibration"),
        ('{"format": 1}', "is no calibration"),
        ('{"format": 2}', "another version"),
        ("[" * 100_000, "is no calibration"),
        (json.dumps(ANY | {"seed": 10**400}), "is no calibration"),
        (json.dumps(ANY | {"seed": float("inf")}), "is no calibration"),
        # keys that cannot be sorted, as the id needs them
        (json.dumps(ANY | {"made_with": [[1, 2], ["a", 3]]}), "is no calibration"),
        (None, "cannot read"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "c.json").write_text(text, encoding="utf-8")
    with pytest.raises(CalibrationError, match=why):
        read_calibration(tmp_path / "c.json")


def test_a_device_is_not_read() -> None:
    with pytest.raises(CalibrationError, match="not a file"):
        read_calibration(Path(os.devnull))


def test_a_file_changed_by_hand(tmp_path: Path) -> None:
    write_calibration(calibration(), tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    content["thresholds"][0]["quality"] = 0.1
    (tmp_path / "c.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CalibrationError, match="not as calibrate wrote it"):
        read_calibration(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"preset": "fast"}, "preset: exact in the calibration, fast in this run"),
        ({"preset": "instant"}, "preset: exact in the calibration, instant in this run$"),
        ({"method": "norm"}, "method: faceqan in the calibration, norm in this run"),
        ({"eps": 0.002}, "eps: 0.001 in the calibration, 0.002 in this run"),
        ({"steps": 4}, "steps: 5 in the calibration, 4 in this run"),
        ({"copies": 3}, "copies: 10 in the calibration, 3 in this run"),
        ({"exponent": 1.0}, "exponent: 5.0 in the calibration, 1.0 in this run"),
        ({"eps_mode": "contrast"}, "eps-mode: absolute in the calibration, contrast in this run"),
        ({"clamp": "valid"}, "clamp: published in the calibration, valid in this run"),
        ({"detector": "yunet"}, "detector: mtcnn in the calibration, yunet in this run"),
        ({"one_based": True}, "one-based: False in the calibration, True in this run"),
        ({"antialias": False}, "antialias: True in the calibration, False in this run"),
        (
            {"landmarks": Path("faces.csv")},
            "landmarks: detector in the calibration, file in this run",
        ),
        ({"task": "score"}, "detector: mtcnn in the calibration, not set in this run"),
    ],
)
def test_other_scores_are_refused(chosen: dict[str, object], why: str) -> None:
    with pytest.raises(CalibrationError, match=why) as error:
        calibration().check(identity(**chosen), "this run")
    assert "\n" not in str(error.value)
    calibration(**chosen).check(identity(**chosen), "this run")


def test_other_weights_are_refused_and_other_faces_are_not() -> None:
    with pytest.raises(CalibrationError, match="weights of the recognition model: "):
        calibration().check(Settings().identity("0" * 64), "this run")
    calibration().check(
        identity(seed=4, faces="all", min_face=50, rotate=True, min_confidence=0.5), "this run"
    )


def test_of_every_setting_it_is_known_whether_it_must_match() -> None:
    free = {"task", "detection", "faces", "min_face", "min_confidence", "rotate", "model", "seed"}
    assert set(identity()) == free | set(MUST_MATCH)


def test_which_threshold() -> None:
    made = calibration()
    assert made.threshold(fnmr=0.01).quality == 0.55
    assert made.threshold(discard=0.1).quality == 0.5
    with pytest.raises(CalibrationError, match=r"`target_fnmr` 0.01, `target_discard` 0.1; say"):
        made.threshold()
    with pytest.raises(CalibrationError, match=r"none for `target_fnmr` 0.1"):
        made.threshold(fnmr=0.1)
    with pytest.raises(SettingsError, match="not both"):
        made.threshold(fnmr=0.01, discard=0.1)
    assert replace(made, thresholds=made.thresholds[1:]).threshold().quality == 0.5


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=50).filter(lambda v: len(set(v)) > 2))
def test_a_fitted_scale(values: list[float]) -> None:
    quality = np.array(values)
    median, upper = np.percentile(quality, [50, 84])
    if upper - median < 1e-6:
        return
    scale = fit_scale("m", "0" * 64, quality)
    assert (scale.of(median), scale.of(upper)) == (50, 84)
    assert scale == fit_scale("m", "0" * 64, quality[::-1])
    assert scale.id != fit_scale("m", "1" * 64, quality).id
    assert scale.id != fit_scale("m", "0" * 64, quality + 1e-3).id


def test_zeros_of_either_sign_make_one_scale() -> None:
    for zeros in ([0.0, 0.0, 0.0], [-0.0, -0.0, -0.0]):
        assert (
            fit_scale("m", "0" * 64, np.array([*zeros, 0.5, 1.0])).id
            == fit_scale("m", "0" * 64, np.array([0.0, 0.0, 0.0, 0.5, 1.0])).id
        )


def test_scores_that_make_no_scale() -> None:
    with pytest.raises(CalibrationError, match="all equal"):
        fit_scale("m", "0" * 64, np.full(5, 0.5))


def test_a_run_takes_thresholds_and_a_scale(tmp_path: Path) -> None:
    records = [face(tmp_path, f"{n}.jpg", n / 10) for n in range(10)]
    write_run(tmp_path / "run", records, weights="another")
    made = calibration()
    with RunWriter(tmp_path / "run", Settings(), "another") as run:
        assert run.use_calibration(made.for_run(), made.scale)
        assert not run.use_calibration(made.for_run(), made.scale)
        with pytest.raises(RunError, match="has the scale mine, the calibration other"):
            run.use_calibration(made.for_run(), Scale("other", 0.1, 0.1))
        run.write_info({})
    with RunWriter(tmp_path / "run", Settings(), "another") as run:  # and keeps them
        run.write_info({})
    found = read_run(tmp_path / "run")
    assert found.scale == made.scale
    assert below_thresholds(found) == {
        "Below the threshold for FNMR 0.01 at FMR 0.001 (quality 0.5500)": "6 of 10 faces",
        "Below the threshold for discarding 10 % (quality 0.5000)": "5 of 10 faces",
    }
    assert Ranking(found).rows(top=1)[0]["quality_100"] == made.scale.of(0.9)


def test_a_run_without_scores(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [face(tmp_path, "a.jpg", 0.5)], Settings(task="detect"))
    with pytest.raises(CalibrationError, match="no scores"):
        made_with(run)
    assert below_thresholds(run) == {}
