"""Settings: what is refused, and what makes runs different."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.registry import METHODS
from faceqan_toolkit.settings import (
    DETECTION_VERSION,
    PUBLISHED,
    TASKS,
    DetectionSettings,
    ModelOptions,
    ModelSettings,
    QualitySettings,
    Settings,
    WorkSettings,
    setting_field,
    setting_names,
)
from tests.conftest import DATA

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
STAGE_OF = dict.fromkeys(setting_names()) | {
    name: stage
    for stage in ("detection", "alignment", "template", "quality")
    for name in setting_names(stage)
}


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


OLD = [
    json.loads(file.read_text(encoding="utf-8"))
    for file in (DATA / "runs_of_0_1").glob("*/run.json")
]


@pytest.mark.parametrize("run", OLD, ids=lambda run: run["fingerprint"])
def test_settings_and_identities_of_0_1_stay(run) -> None:
    settings = Settings.from_dict(run["settings"])
    stored = {name: value for name, value in run["settings"].items() if "refine" not in name}
    assert settings.as_dict() == stored
    identity = settings.identity(run["identity"]["weights_sha256"])
    assert identity == {**run["identity"], "detection": DETECTION_VERSION}


def test_groups_and_flat_names_say_the_same() -> None:
    flat = Settings(preset="fast", detector="yunet", model="m", pixel_std=2.0, workers=3)
    nested = Settings(
        detection=DetectionSettings(detector="yunet"), model=ModelSettings("m", pixel_std=2.0),
        quality=QualitySettings(preset="fast"), work=WorkSettings(workers=3),
    )  # fmt: skip
    assert flat == nested
    assert hash(flat) == hash(nested)
    assert pickle.loads(pickle.dumps(flat)) == flat
    assert Settings.from_dict(flat.as_dict()) == flat
    assert (flat.preset, flat.detector, flat.min_confidence) == ("fast", "yunet", 0.7)
    assert (flat.model.name, flat.model.options) == ("m", ModelOptions(std=2.0))
    assert Settings(quality=nested.quality, copies=2, steps=3).quality.steps == 3
    with pytest.raises(AttributeError, match=r"no setting pressets; did you mean preset\?"):
        _ = flat.pressets
    with pytest.raises(AttributeError):
        flat.task = "score"


def test_replacing_keeps_what_was_chosen() -> None:
    chosen = Settings(preset="fast", detector="yunet", max_side=500, model="m", pixel_std=2.0)
    changed = chosen.replace(preset="exact", detector="mtcnn", model="n", device="cpu")
    assert changed == Settings(max_side=500, model="n", pixel_std=2.0, device="cpu")
    assert chosen.replace() == chosen
    assert chosen.replace(model=ModelSettings()).model == ModelSettings()
    with pytest.raises(SettingsError, match="copies is 3; it must be 10 for preset instant"):
        Settings(copies=3).replace(preset="instant")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"presett": "fast"}, r"there is no setting presett; did you mean preset\?"),
        ({"sprat": 1}, "there is no setting sprat$"),
        ({"min_face": "ten"}, "min-face is 'ten'; it must be a whole number"),
        ({"min_face": 2.5}, "min-face is 2.5; it must be a whole number"),
        ({"rotate": 1}, "rotate is 1; it must be true or false"),
        ({"workers": True}, "workers is True; it must be a whole number"),
        ({"device": None}, "device is None; it must be a text"),
        ({"landmarks": 3}, "landmarks is 3; it must be a path"),
        ({"quality": "fast"}, r"quality is 'fast'; it must be QualitySettings\(...\)"),
        ({"steps": 1001}, "steps is 1001; it must be 1 to 1000"),
        ({"eps": 1.0}, "eps is 1.0; it must be above 0 and below 1"),
        ({"task": ["score"]}, r"task is \['score'\]; it must be one of align-and-score"),
    ],
)
def test_mistakes_get_a_sentence(given, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(**given)


def test_paths_may_be_texts() -> None:
    assert Settings(landmarks="a.csv", model=Path("m.pt")) == Settings(
        landmarks=Path("a.csv"), model="m.pt"
    )
