"""What a sink is given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """A photo or crop that is kept.

    Attributes:
        number: its place among all that are kept, from 0.
        label: number of its identity, from 0; None if its identity is not known.
        folder: of the photo, as in results; "" for the top.
        data: encoded.
        extension: with the dot.
        about: what is known of it, for people and programs.
    """

    number: int
    label: int | None
    folder: str
    data: bytes
    extension: str
    about: dict[str, str | float | None]
