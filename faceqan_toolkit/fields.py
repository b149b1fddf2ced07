"""Options as fields of frozen dataclasses: default, type, range and a line of help."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import Field, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from faceqan_toolkit.errors import SettingsError

_WORDS: Mapping[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path",
}  # fmt: skip

_LIMITS = {
    "above": operator.gt, "at_least": operator.ge, "at_most": operator.le, "below": operator.lt,
}  # fmt: skip
_hints = cache(get_type_hints)


def option(
    default: Any, help_text: str, *, choices: tuple[str, ...] = (), metavar: str = "",
    at_least: float | None = None, at_most: float | None = None, above: float | None = None,
    below: float | None = None, **more: Any,
) -> Any:  # fmt: skip
    """Return a field of a frozen dataclass of options.

    Args:
        default: its default; None makes None a valid value.
        help_text: a short imperative or noun phrase for `--help`.
        choices: all valid texts.
        at_least, at_most, above, below: the range of a number; floats must also be finite.
        metavar: placeholder of its value in `--help`.
        more: further metadata.
    """
    limits = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    return field(
        default=default,
        metadata={"help": help_text, "choices": choices, "metavar": metavar, **limits, **more},
    )


def check_options(options: Any) -> None:
    """Raise SettingsError if a value of a dataclass of options has a wrong type or range."""
    for item in fields(options):
        if item.metadata:
            kind: type = kind_of(type(options), item.name)
            _check_value(item, kind, getattr(options, item.name))


def kind_of(owner: type[Any], name: str) -> type:
    """Return the type of an option: bool, int, float, str or Path, without None."""
    hint = _hints(owner)[name]  # type: ignore[arg-type]  # classes are hashable
    (kind,) = [one for one in get_args(hint) or (hint,) if one is not NoneType]
    return kind  # type: ignore[no-any-return]


def parse_option(owner: type, item: Field[Any], text: str) -> Any:
    """Return the value of a dataclass's field, given as text; SettingsError for a wrong type."""
    kind = kind_of(owner, item.name)
    if kind is bool:
        parsed = {"true": True, "false": False}.get(text.lower())
    else:
        try:
            parsed = kind(text)
        except ValueError:
            parsed = None
    check(parsed is not None, item.name, text, _WORDS[kind])
    return parsed


def expected(item: Field[Any], kind: type) -> str:
    """Return in words which values an option takes."""
    limits = item.metadata
    if limits["choices"]:
        return f"one of {', '.join(limits['choices'])}"
    least, most = limits["at_least"], limits["at_most"]
    texts = {
        name: f"{name.replace('_', ' ')} {limits[name]}"
        for name in _LIMITS
        if limits[name] is not None
    }
    if least is not None and most is not None:
        texts |= {"at_least": f"{least} to {most}", "at_most": ""}
    if kind is float and most is None and limits["below"] is None:
        texts["finite"] = "finite"
    return " and ".join(filter(None, texts.values())) or _WORDS[kind]


def check(valid: bool, name: str, value: object, wanted: str) -> None:
    """Raise SettingsError, with the value and what is wanted, unless it is valid."""
    if not valid:
        raise SettingsError(f"{name.replace('_', '-')} is {value}; it must be {wanted}")


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """Return a question that names the known name closest to a mistyped one, or nothing."""
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _check_value(item: Field[Any], kind: type, value: Any) -> None:
    if value is None and item.default is None:
        return
    accepted = (int, float) if kind is float else kind
    right = isinstance(value, accepted) and (kind is bool) == isinstance(value, bool)
    check(right, item.name, repr(value), _WORDS[kind])
    limits = item.metadata
    valid = not limits["choices"] or value in limits["choices"]
    if kind in (int, float):
        valid = valid and (kind is int or math.isfinite(value))
        for name, holds in _LIMITS.items():
            valid = valid and (limits[name] is None or holds(value, limits[name]))
    check(valid, item.name, value, expected(item, kind))
