"""`run.json` as it is read: checked, as the folder may come from anybody."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from faceqan_toolkit.files import parse_json
from faceqan_toolkit.settings import CROP_SIZES, TASKS, setting_field, setting_names
from faceqan_toolkit.text import printable

_KINDS: Mapping[str, tuple[type, ...]] = {
    "str": (str,), "Path": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
    "None": (type(None),),
}  # fmt: skip
_SETTINGS = {
    # a setting that a detector or a preset decides has none of its own
    name: sum((_KINDS[kind] for kind in str(setting_field(name).type).split(" | ")), (type(None),))
    for name in setting_names()
}
_LARGEST = 1e15


def parse_run_json(text: str) -> dict[str, Any]:
    """Return what a `run.json` holds, every text in it fit for a terminal.

    Args:
        text: the file's.

    Raises:
        ValueError: it is no JSON, or has something else where readers of runs rely on it.
    """
    try:
        content = _printable(parse_json(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(isinstance(content, dict), "it is no object")
    _check_settings(content.get("settings"))
    for name in ("identity", "versions", "counts"):
        _check(isinstance(content.get(name, {}), dict), f"{name} is no object")
    for name in ("model", "scale", "calibration"):  # not every run has one
        _check(isinstance(content.get(name), (dict, type(None))), f"{name} is no object")
    merged = content.get("merged") or {"invocations": 0}
    _check(isinstance(merged, dict) and _is_number(merged.get("invocations")), "merged is none")
    model = content.get("model") or {}
    for name in ("name", "sha256", "template"):
        _check(isinstance(model.get(name, ""), str), f"model's {name} is no text")
    _check(model.get("input_size", 112) in CROP_SIZES, "model's input_size is none")
    calibration = content.get("calibration") or {}
    _check(not calibration or "thresholds" in calibration, "calibration has no thresholds")
    for item in _objects(calibration, "thresholds"):
        _check(isinstance(item.get("title"), str), "a threshold without a title")
        _check(_is_number(item.get("quality")), "a threshold without a quality")
    for item in _objects(content, "invocations"):
        for name in ("photos", "seconds"):
            _check(_is_number(item.get(name, 0)), f"an invocation's {name} is no number")
    return dict(content)


def _check_settings(settings: Any) -> None:
    _check(isinstance(settings, dict), "it has no settings")
    _check(settings.get("task") in list(TASKS), "its task is none that this version knows")
    for name, value in settings.items():
        kinds = _SETTINGS.get(name)
        right = kinds is None or (
            isinstance(value, kinds) and (type(value) is not bool or bool in kinds)
        )
        _check(right, f"setting {name} is {str(value)[:50]!r}")
        if right and isinstance(value, (int, float)):
            _check(abs(value) < 2**63 and math.isfinite(value), f"setting {name} is too large")
    _check(settings.get("crop_size", 112) in CROP_SIZES, "setting crop_size is none")


def _objects(content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = content.get(name, [])
    right = isinstance(found, list) and all(isinstance(item, dict) for item in found)
    _check(right, f"{name} is no list of objects")
    return list(found)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST  # type: ignore[arg-type]


def _check(right: bool, problem: str) -> None:
    if not right:
        raise ValueError(problem)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(name): _printable(item) for name, item in value.items()}
    return value
