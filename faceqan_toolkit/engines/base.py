"""What a run expects of an engine."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record


class Engine(Protocol):
    """Runs the pipeline over photos, in this process or in many.

    An engine is given settings, never a live model: every worker builds its own pipeline once.
    """

    @property
    def workers(self) -> int:
        """Pipelines that work side by side."""
        ...

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent so far by stage, summed over workers."""
        ...

    @property
    def backend(self) -> str:
        """What computes the attack's steps, "torch" for one; "" if nothing was scored."""
        ...

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None
    ) -> Generator[list[Record]]:
        """Yield each photo's records as soon as they are complete; closing it ends the work."""
        ...
