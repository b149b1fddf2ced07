"""The pipeline in this process: one thread prepares photos while another scores them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from pathlib import Path

from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record


class LocalEngine:
    """Runs one pipeline; records come in the order of the photos."""

    workers = 1

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent so far by stage."""
        return self._pipeline.seconds if self._pipeline else {}

    @property
    def backend(self) -> str:
        """What computes the attack's steps, "torch" for one; "" if nothing was scored."""
        scorer = self._pipeline.scorer if self._pipeline else None
        return scorer.backend if scorer else ""

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None
    ) -> Generator[list[Record]]:
        """Yield each photo's records as soon as they are complete."""
        self._pipeline = Pipeline(settings, crops_folder=crops_folder)
        return self._pipeline.source_records(sources)
