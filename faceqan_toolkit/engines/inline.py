"""The pipeline in this process: nothing is started, so a small run begins at once."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from faceqan_toolkit.engines.processes import check_weights
from faceqan_toolkit.engines.worker import MakePipeline, make_pipeline
from faceqan_toolkit.hardware import one_thread
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record


class InlineEngine:
    """Runs one pipeline in the calling process, on a CPU with one thread.

    Records equal those of the other engines. Unlike theirs, this work cannot outlive a decoder
    that ends the process, and `Settings.photo_timeout` has no effect: nothing can end a thread.

    Args:
        weights_sha256: of the recognition model that the run was begun with; "" takes any.
        make: makes the pipeline.

    Attributes:
        workers: 1.
    """

    workers = 1

    def __init__(self, *, weights_sha256: str = "", make: MakePipeline = make_pipeline) -> None:
        self.weights_sha256, self.make = weights_sha256, make
        self._pipeline: Pipeline | None = None

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent so far by stage."""
        return dict(self._pipeline.seconds) if self._pipeline else {}

    @property
    def backend(self) -> str:
        """Library that computes the attack's steps; "" if nothing was scored."""
        scorer = self._pipeline.scorer if self._pipeline else None
        return scorer.backend if scorer else ""

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None
    ) -> Generator[list[Record]]:
        """Yield each photo's records, in order; closing it ends the work.

        Raises:
            FaceQANError: a model cannot be loaded.
            ChecksumMismatch: its weights are others than the run was begun with.
        """
        self._pipeline = pipeline = self.make(settings, crops_folder)
        if pipeline.scorer:
            check_weights(settings.model.name, self.weights_sha256, pipeline.scorer.embedder.sha256)
        return _records(pipeline, sources)


def _records(pipeline: Pipeline, sources: Iterable[PhotoSource]) -> Generator[list[Record]]:
    with one_thread, closing(pipeline.source_records(sources)) as found:
        yield from found
