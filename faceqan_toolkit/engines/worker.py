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
from threading import Thread

from faceqan_toolkit import errors
from faceqan_toolkit.cores import set_threads
from faceqan_toolkit.errors import FaceQANError
from faceqan_toolkit.pipeline import PREPARED_AHEAD, Pipeline, Prepared
from faceqan_toolkit.prefetch import prefetch
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record

MakePipeline = Callable[[Settings, "Path | None"], Pipeline]


@dataclass(frozen=True)
class Ready:
    """The pipeline is loaded.

    Attributes:
        block_faces: faces it scores at once.
        backend: what computes the attack's steps; "" if nothing is scored.
    """

    block_faces: int
    backend: str


@dataclass(frozen=True)
class Done:
    """A photo's records; answers come in the order of the photos.

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
    threads: int,
    gpu_share: float,
    make: MakePipeline,
) -> None:
    """Answer photos with records until the process is killed, or alone in the world.

    Args:
        inbox: gives photos.
        outbox: takes `Ready`, then a `Done` for every photo, or `Failed` at any time.
        settings: for the pipeline; they name the device.
        crops_folder: where to write aligned crops.
        threads: that this process may compute with.
        gpu_share: of the GPU's memory, what this process may take.
        make: makes the pipeline.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    todo: SimpleQueue[PhotoSource] = SimpleQueue()
    Thread(target=_receive, args=(inbox, todo), daemon=True).start()
    try:
        set_threads(threads)
        _take_gpu_share(settings.device, gpu_share)
        pipeline = make(settings, crops_folder)
        scorer = pipeline.scorer
        outbox.send(Ready(scorer.block_faces, scorer.backend) if scorer else Ready(1, ""))
        for records in pipeline.records(prefetch(_prepared(pipeline, todo), PREPARED_AHEAD)):
            outbox.send(Done(records, dict(pipeline.seconds)))
    except FaceQANError as error:
        outbox.send(Failed(_public_kind(error), str(error)))
    except Exception:  # noqa: BLE001 - told to the parent, which raises it
        outbox.send(Failed("", traceback.format_exc()))


def _receive(inbox: Connection, todo: SimpleQueue[PhotoSource]) -> None:
    """Pass photos on, however busy the pipeline is; end the process when the parent is gone."""
    while True:
        try:
            todo.put(inbox.recv())
        except (EOFError, OSError):
            os._exit(1)


def _prepared(pipeline: Pipeline, todo: SimpleQueue[PhotoSource]) -> Iterator[Prepared | None]:
    """Yield prepared photos, and None whenever there is nothing to prepare for the moment."""
    while True:
        try:
            source = todo.get_nowait()
        except Empty:
            yield None
            source = todo.get()
        yield pipeline.prepare(source)


def _take_gpu_share(device: str, share: float) -> None:
    if device.startswith("cuda") and share < 1:
        import torch

        torch.cuda.set_per_process_memory_fraction(share, torch.device(device))


def _public_kind(error: FaceQANError) -> str:
    """Return the name of the nearest class in `errors`: others may not survive the pipe."""
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return next(kinds).__name__
