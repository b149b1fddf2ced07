"""Options as fields of frozen dataclasses: default, type, range and a line of help."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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

_hints = cache(get_type_hints)


def option(
    default: Any,
    help_text: str,
    *,
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    metavar: str = "",
    **more: Any,
) -> Any:
    """Return a field of a frozen dataclass of options.

    Args:
        default: its default; None makes None a valid value.
        help_text: a short imperative or noun phrase, as `--help` prints it.
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
    """Return the value of an option that is given as text.

    Args:
        owner: the dataclass.
        item: its field.
        text: as typed.

    Raises:
        SettingsError: it has no such value.
    """
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
    return " and ".join(_limits(limits, kind)) or _WORDS[kind]


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
    if limits["choices"]:
        valid = value in limits["choices"]
    elif kind in (int, float):
        valid = (
            (kind is int or math.isfinite(value))
            and (limits["at_least"] is None or value >= limits["at_least"])
            and (limits["at_most"] is None or value <= limits["at_most"])
            and (limits["above"] is None or value > limits["above"])
            and (limits["below"] is None or value < limits["below"])
        )
    else:
        valid = True
    check(valid, item.name, value, expected(item, kind))


def _limits(limits: Mapping[str, Any], kind: type) -> Iterator[str]:
    least, most, below = limits["at_least"], limits["at_most"], limits["below"]
    if limits["above"] is not None:
        yield f"above {limits['above']}"
    if least is not None and most is not None:
        yield f"{least} to {most}"
    elif least is not None:
        yield f"at least {least}"
    elif most is not None:
        yield f"at most {most}"
    if below is not None:
        yield f"below {below}"
    elif kind is float and most is None:
        yield "finite"
