"""Settings: what is refused, and what makes runs different."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.registry import METHODS
from faceqan_toolkit.settings import PUBLISHED, TASKS, Settings, setting_field, setting_names

OTHER = {
    "faces": "all", "detector": "yunet", "min_face": 30, "min_confidence": 0.5, "max_side": 800,
    "rotate": True, "one_based": True, "landmarks": Path("faces.csv"), "antialias": False,
    "template": "box", "crop_size": 160, "model": "other", "channels": "BGR", "pixel_mean": 0.0,
    "pixel_std": 255.0, "norm_eps": 1e-3, "method": "serfiq", "preset": "fast",
    "eps": 0.002, "eps_mode": "contrast", "steps": 4, "copies": 3, "exponent": 2.0,
    "seed": 1, "clamp": "valid", "precision": "tf32",
    "max_pixels": 1000, "device": "cpu", "backend": "torch", "workers": 3, "keep_crops": False,
    "hints": False,
    "photo_timeout": 9.0, "engine": "ray", "ray_address": "auto",
}  # fmt: skip
NEEDED = {"ray_address": {"engine": "ray"}}
"""Settings that mean nothing without others."""
STAGE_OF = {name: setting_field(name).metadata.get("stage") for name in setting_names()}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", STAGE_OF)
def test_the_fingerprint_is_what_decides_scores(task: str, name: str) -> None:
    others = {"task": task, **NEEDED.get(name, {})}
    before = Settings(**others).fingerprint("w")
    after = Settings(**others, **{name: OTHER[name]}).fingerprint("w")
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
        ("eps_mode", "no"), ("backend", "onnx"), ("workers", 0), ("precision", "float8"),
        ("photo_timeout", -1.0), ("photo_timeout", float("inf")), ("photo_timeout", float("nan")),
    ],
)  # fmt: skip
def test_values_that_make_no_sense(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name.replace("_", "-")):
        Settings(**{name: value})


def test_presets_decide_the_copies() -> None:
    copies = [Settings(preset=preset).copies for preset in ("exact", "fast", "instant")]
    assert copies == [10, 2, 10]
    assert Settings(copies=4).copies == 4
    assert Settings(preset="fast", copies=2) == Settings(preset="fast")
    with pytest.raises(SettingsError, match="copies is 4; it must be 2 for preset fast"):
        Settings(preset="fast", copies=4)
    assert Settings(preset="fast").fingerprint("w") != Settings(copies=2).fingerprint("w")


@pytest.mark.parametrize(
    ("name", "value"),
    [("eps", 0.002), ("eps_mode", "contrast"), ("steps", 4), ("copies", 2),
     ("exponent", 2.0), ("seed", 1), ("precision", "tf32"), ("clamp", "valid"),
     ("backend", "torch")],
)  # fmt: skip
def test_instant_refuses_what_it_would_ignore(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{name.replace('_', '-')} is .*preset instant"):
        Settings(preset="instant", **{name: value})


def test_settings_are_json() -> None:
    text = json.dumps(Settings(landmarks=Path("a.csv")).as_dict())
    assert json.loads(text)["landmarks"] == "a.csv"


def test_published_choices_are_settings() -> None:
    assert set(PUBLISHED) <= set(STAGE_OF)
    assert Settings(**PUBLISHED).fingerprint("w") != Settings().fingerprint("w")


KNOWN = {
    "task": set(TASKS), "method": set(METHODS), "detector": {"mtcnn", "yunet"},
    "preset": {"exact", "fast", "instant"}, "engine": {"local", "inline", "ray"},
}  # fmt: skip


@given(st.sampled_from(sorted(KNOWN)), st.text())
def test_any_other_name_is_refused(name: str, value: str) -> None:
    if value in KNOWN[name]:
        return
    with pytest.raises(SettingsError, match=f"{name} is "):
        Settings(**{name: value})


NUMBERS = {
    kind: sorted(name for name in setting_names() if setting_field(name).type == kind)
    for kind in ("int", "float")
}


@given(
    st.tuples(st.sampled_from(NUMBERS["int"]), st.integers(-(2**64), 2**64))
    | st.tuples(st.sampled_from(NUMBERS["float"]), st.floats())
)
def test_any_number_is_taken_or_refused(setting: tuple[str, float]) -> None:
    name, value = setting
    try:
        settings = Settings(**{name: value})
    except SettingsError as error:
        assert name.replace("_", "-") in str(error)  # noqa: PT017
    else:
        assert math.isfinite(getattr(settings, name))
