"""Settings: what is refused, and what makes runs different."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.settings import PUBLISHED, TASKS, Settings

OTHER = {
    "faces": "all", "detector": "yunet", "min_face": 30, "min_confidence": 0.5, "max_side": 800,
    "rotate": True, "one_based": True, "landmarks": Path("faces.csv"), "antialias": False,
    "model": "other", "preset": "fast",
    "eps": 0.002, "steps": 4, "copies": 3, "exponent": 2.0, "seed": 1, "clamp": "valid",
    "max_pixels": 1000, "device": "cpu", "backend": "torch", "keep_crops": False,
}  # fmt: skip
STAGE_OF = {field.name: field.metadata.get("stage") for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", [name for name in STAGE_OF if name != "task"])
def test_the_fingerprint_is_what_decides_scores(task: str, name: str) -> None:
    before = Settings(task=task).fingerprint("w")
    after = Settings(task=task, **{name: OTHER[name]}).fingerprint("w")
    assert (before != after) == (STAGE_OF[name] in TASKS[task])


def test_weights_and_task_belong_to_it() -> None:
    prints = {Settings(task=task).fingerprint("w") for task in TASKS}
    assert len(prints) == len(TASKS)
    assert Settings().fingerprint("w") != Settings().fingerprint("v")
    assert Settings(task="align").fingerprint("w") == Settings(task="align").fingerprint("v")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "dance"), ("faces", "prettiest"), ("min_face", 0), ("min_confidence", 1.1),
        ("min_confidence", -0.1), ("min_confidence", float("nan")), ("max_side", 99),
        ("max_side", -1), ("max_pixels", 0), ("eps", 0.0), ("eps", 1.0), ("eps", float("nan")),
        ("steps", 0), ("copies", -1), ("preset", "slow"), ("exponent", 0.0),
        ("exponent", float("inf")), ("seed", -1), ("seed", 2**63), ("clamp", "none"),
        ("backend", "onnx"),
    ],
)  # fmt: skip
def test_values_that_make_no_sense(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name.replace("_", "-")):
        Settings(**{name: value})


def test_presets_decide_the_copies() -> None:
    assert [Settings(preset=preset).copies for preset in ("exact", "fast")] == [10, 2]
    assert Settings(copies=4).copies == 4
    assert Settings(preset="fast", copies=2) == Settings(preset="fast")
    with pytest.raises(SettingsError, match="copies is 4; it must be 2 for preset fast"):
        Settings(preset="fast", copies=4)
    assert Settings(preset="fast").fingerprint("w") != Settings(copies=2).fingerprint("w")


def test_settings_are_json() -> None:
    text = json.dumps(Settings(landmarks=Path("a.csv")).as_dict())
    assert json.loads(text)["landmarks"] == "a.csv"


def test_published_choices_are_settings() -> None:
    assert set(PUBLISHED) <= set(STAGE_OF)
    assert Settings(**PUBLISHED).fingerprint("w") != Settings().fingerprint("w")
