"""What all engines share, and the engine that works in the calling process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path

from faceqan_toolkit.errors import ChecksumMismatch
from faceqan_toolkit.events import Listener, silent
from faceqan_toolkit.hardware import one_thread
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import short_checksum
from faceqan_toolkit.types import PhotoSource, Record

MakePipeline = Callable[[Settings, "Path | None"], Pipeline]


def make_pipeline(settings: Settings, crops_folder: Path | None) -> Pipeline:
    """Return the pipeline of the settings."""
    return Pipeline(settings, crops_folder=crops_folder)


def checked_pipeline(
    make: MakePipeline, settings: Settings, crops_folder: Path | None, weights_sha256: str
) -> Pipeline:
    """Return a new pipeline after `check_weights`; FaceQANError if a model cannot be loaded."""
    pipeline = make(settings, crops_folder)
    if pipeline.scorer:
        check_weights(settings.model.name, weights_sha256, pipeline.scorer.embedder.sha256)
    return pipeline


def check_weights(model: str, expected: str, found: str) -> None:
    """Raise ChecksumMismatch if a worker loaded other weights than the run began with."""
    if expected and found != expected:
        raise ChecksumMismatch(
            f"the weights of {model} have changed since this run was begun: their sha256 was "
            f"{short_checksum(expected)}, a new worker process found {short_checksum(found)}. "
            "Put the file back, or use another run folder"
        )


class Engine(ABC):
    """Runs the pipeline over photos, in this process or in many.

    An engine is given settings, never a loaded model: every worker makes its own pipeline.

    Args:
        weights_sha256: checksum that the recognition model must have in every worker; "" accepts
            any.
        make: makes a worker's pipeline; importable by name, where processes are started.

    Attributes:
        workers: number of pipelines that work side by side.
        seconds: time spent so far by stage, summed over workers.
        backend: library that computes the attack, for instance "torch"; "" if nothing was scored.
    """

    def __init__(self, *, weights_sha256: str = "", make: MakePipeline = make_pipeline) -> None:
        self.weights_sha256, self.make = weights_sha256, make
        self.workers = 1
        self.seconds: Counter[str] = Counter()
        self.backend = ""

    @abstractmethod
    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None,
        tell: Listener = silent,
    ) -> Generator[list[Record]]:  # fmt: skip
        """Yield each photo's records as soon as they are complete; closing it ends the work.

        Args:
            sources: photos.
            settings: settings of the pipelines.
            crops_folder: where to write aligned crops; None writes none.
            tell: gets a `WorkerReady` for each process or actor.

        Raises:
            FaceQANError: an error that stops a worker; too many workers die; not all photos came
                back.
            ChecksumMismatch: a worker has loaded other weights than the run began with.
        """


class InlineEngine(Engine):
    """Runs one pipeline in the calling process, on a CPU with one thread.

    No process is started, so a small run begins at once. Records equal those of the other engines.
    A photo that ends the process ends the run, and `Settings.photo_timeout` has no effect: a thread
    cannot be ended.
    """

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None,
        tell: Listener = silent,
    ) -> Generator[list[Record]]:  # fmt: skip
        """Yield each photo's records, in order; see `Engine.run`."""
        pipeline = checked_pipeline(self.make, settings, crops_folder, self.weights_sha256)
        self.backend = pipeline.scorer.backend if pipeline.scorer else ""

        def records() -> Generator[list[Record]]:
            try:
                with one_thread, closing(pipeline.source_records(sources)) as found:
                    yield from found
            finally:
                self.seconds = Counter(pipeline.seconds)

        return records()
