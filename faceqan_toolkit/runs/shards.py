"""One of several parts of the photos, the same part on every machine."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from faceqan_toolkit.errors import SettingsError


@dataclass(frozen=True)
class Shard:
    """The photos whose paths' hashes fall to one of several runs.

    Neither their order nor the other photos matter, and every photo belongs to one shard.

    Attributes:
        number: which one, from 1.
        total: how many there are.

    Raises:
        SettingsError: a number that is not in 1..total.
    """

    number: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.total:
            raise SettingsError(f"shard {self}: the first number must be in 1..{self.total}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that a text like 2/8 means.

        Raises:
            SettingsError: it means none.
        """
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if found is None:
            raise SettingsError(f"shard {text}: write 2/8 for the second of eight")
        return cls(int(found[1]), int(found[2]))

    def has(self, path: str) -> bool:
        """Tell whether a photo belongs to it, by its path as in results."""
        digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.total == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"
