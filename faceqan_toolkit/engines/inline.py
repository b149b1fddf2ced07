"""The pipeline in this process: no process is started, so a small run begins at once."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from faceqan_toolkit.engines.processes import MakePipeline, checked_pipeline, make_pipeline
from faceqan_toolkit.events import Listener, silent
from faceqan_toolkit.hardware import one_thread
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record


class InlineEngine:
    """Runs one pipeline in the calling process, on a CPU with one thread.

    Records equal those of the other engines. A photo that ends the process ends the run, and
    `Settings.photo_timeout` has no effect: a thread cannot be ended.

    Args:
        weights_sha256: checksum that the recognition model must have; "" accepts any.
        make: makes the pipeline.
    """

    workers = 1

    def __init__(self, *, weights_sha256: str = "", make: MakePipeline = make_pipeline) -> None:
        self.weights_sha256, self.make = weights_sha256, make
        self.seconds: Mapping[str, float] = {}
        self.backend = ""

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None,
        tell: Listener = silent,
    ) -> Generator[list[Record]]:  # fmt: skip
        """Yield each photo's records, in order; closing it ends the work.

        `tell` gets no event: no worker is started.

        Raises:
            FaceQANError: a model cannot be loaded.
            ChecksumMismatch: the recognition model has other weights than the run began with.
        """
        pipeline = checked_pipeline(self.make, settings, crops_folder, self.weights_sha256)
        self.seconds = pipeline.seconds
        self.backend = pipeline.scorer.backend if pipeline.scorer else ""
        return _records(pipeline, sources)


def _records(pipeline: Pipeline, sources: Iterable[PhotoSource]) -> Generator[list[Record]]:
    with one_thread, closing(pipeline.source_records(sources)) as found:
        yield from found
