"""What runs in a worker process: a pipeline that takes photos from a pipe and answers."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from faceqan_toolkit import errors
from faceqan_toolkit.errors import FaceQANError
from faceqan_toolkit.hardware import set_threads
from faceqan_toolkit.pipeline import PREPARED_AHEAD, Pipeline, Prepared
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.threads import prefetch_map
from faceqan_toolkit.types import PhotoSource, Record

MakePipeline = Callable[[Settings, "Path | None"], Pipeline]

Numbered = tuple[int, PhotoSource]
"""A photo with its number among those this process was given, from 0."""


@dataclass(frozen=True)
class Ready:
    """The pipeline is loaded.

    Attributes:
        block_faces: faces it scores at once.
        backend: what computes the attack's steps; "" if nothing is scored.
        weights_sha256: of the recognition model it has loaded; "" if nothing is scored.
    """

    block_faces: int
    backend: str
    weights_sha256: str


@dataclass(frozen=True)
class Begun:
    """A photo is being decoded and its faces looked for from now on."""

    number: int


@dataclass(frozen=True)
class Waiting:
    """A photo waits for its scores."""

    number: int


@dataclass(frozen=True)
class Done:
    """A photo's records; these answers come in the order of the photos.

    Attributes:
        records: of the photo.
        seconds: spent so far by stage.
    """

    records: list[Record]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Failed:
    """What stops the run.

    Attributes:
        kind: name of a class in `errors`, "" for what nobody foresaw.
        message: for people.
    """

    kind: str
    message: str


def make_pipeline(settings: Settings, crops_folder: Path | None) -> Pipeline:
    """Return the pipeline of the settings."""
    return Pipeline(settings, crops_folder=crops_folder)


def work(
    inbox: Connection,
    outbox: Connection,
    settings: Settings,
    crops_folder: Path | None,
    preparers: int,
    gpu_share: float,
    make: MakePipeline,
) -> None:
    """Answer photos with records until the process is killed, or alone in the world.

    Args:
        inbox: gives photos.
        outbox: takes `Ready`; then for every photo `Begun`, `Waiting` and `Done`; or `Failed` at
            any time.
        settings: for the pipeline; they name the device.
        crops_folder: where to write aligned crops.
        preparers: threads that decode photos and find faces, each computing alone.
        gpu_share: of the GPU's memory, what this process may take.
        make: makes the pipeline.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    todo: SimpleQueue[PhotoSource] = SimpleQueue()
    Thread(target=_receive, args=(inbox, todo), daemon=True).start()
    lock = Lock()

    def tell(answer: object) -> None:
        with lock:
            outbox.send(answer)

    def prepare(arrived: Numbered | None) -> Prepared | None:
        if arrived is None:
            return None
        number, source = arrived
        tell(Begun(number))
        try:
            return pipeline.prepare(source)
        except Exception as error:  # noqa: BLE001 - the parent raises it, and ends this process
            tell(failed(error))
            return None
        finally:
            tell(Waiting(number))

    try:
        set_threads(1)
        _take_gpu_share(settings.device, gpu_share)
        pipeline = make(settings, crops_folder)
        ready = _ready(pipeline)
        tell(ready)
        # the next block is whole before the scorer asks for it
        ahead = max(PREPARED_AHEAD, ready.block_faces) + preparers
        for records in pipeline.records(prefetch_map(prepare, _arriving(todo), ahead, preparers)):
            tell(Done(records, dict(pipeline.seconds)))
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        tell(failed(error))


def _ready(pipeline: Pipeline) -> Ready:
    scorer = pipeline.scorer
    if scorer is None:
        return Ready(block_faces=1, backend="", weights_sha256="")
    return Ready(scorer.block_faces, scorer.backend, scorer.embedder.sha256)


def _receive(inbox: Connection, todo: SimpleQueue[PhotoSource]) -> None:
    """Pass photos on, however busy the pipeline is; end the process when the parent is gone."""
    while True:
        try:
            todo.put(inbox.recv())
        except (EOFError, OSError):
            os._exit(1)


def _arriving(todo: SimpleQueue[PhotoSource]) -> Iterator[Numbered | None]:
    """Yield photos as they come, and None whenever there is none for the moment."""
    number = 0
    while True:
        try:
            source = todo.get_nowait()
        except Empty:
            yield None
            source = todo.get()
        yield number, source
        number += 1


def _take_gpu_share(device: str, share: float) -> None:
    if device.startswith("cuda") and share < 1:
        import torch

        torch.cuda.set_per_process_memory_fraction(share, torch.device(device))


def failed(error: Exception) -> Failed:
    """Return an error as the parent is told of it."""
    if not isinstance(error, FaceQANError):
        return Failed("", traceback.format_exc())
    # the nearest class in `errors`: others may not survive the pipe
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return Failed(next(kinds).__name__, str(error))
