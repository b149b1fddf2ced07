"""Differences between two runs' identities, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from faceqan_toolkit.text import short_checksum

WEIGHTS = "weights_sha256"


class Checksum(str):
    """A checksum, of which people are shown the first digits."""

    __slots__ = ()


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], where: str, elsewhere: str
) -> list[str]:
    """Return what differs between two identities (`Settings.identity`), a text for each setting.

    Args:
        one, other: the identities, or the same parts of them.
        where, elsewhere: words that say whose each is.

    Examples:
        >>> differences({"copies": 10, "seed": 0}, {"copies": 2, "seed": 0}, "in the run", "now")
        ['copies: 10 in the run, 2 now']
    """
    lines = [
        (name.replace("_", "-"), one.get(name), other.get(name))
        for name in {**one, **other}
        if name != WEIGHTS
    ]
    lines += _weights(one, other)
    return [
        f"{name}: {_shown(first)} {where}, {_shown(second)} {elsewhere}"
        for name, first, second in lines
        if first != second
    ]


def _weights(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> Iterator[tuple[str, Checksum, Checksum]]:
    """Yield the checksums of the recognition model and of what preset instant predicts with."""
    models, heads = zip(*(_checksums(identity) for identity in (one, other)), strict=True)
    yield "weights of the recognition model", *models
    # of two presets one has no predictor: the preset's own line says so
    if one.get("preset") == other.get("preset"):
        yield "predictor of preset instant", *heads


def _checksums(identity: Mapping[str, Any]) -> tuple[Checksum, Checksum]:
    model, _, head = str(identity.get(WEIGHTS) or "").partition("+")
    return Checksum(model), Checksum(head)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):  # a scale
        value = value.get("id")
    if value is None or value == "":
        return "none"
    return short_checksum(value) if isinstance(value, Checksum) else str(value)
