"""The pipeline in several processes of this machine, one a core or a GPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from faceqan_toolkit import errors
from faceqan_toolkit.engines.base import Engine, MakePipeline, check_weights
from faceqan_toolkit.errors import FaceQANError, TimedOut
from faceqan_toolkit.events import Listener, WorkerReady, silent
from faceqan_toolkit.hardware import interrupt_handler, set_threads
from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.pipeline import PREPARED_AHEAD, Crashed, Prepared, failed_record
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.threads import prefetch_map
from faceqan_toolkit.types import PhotoSource, Record

BLOCKS_IN_HAND = 2
"""Blocks of photos a worker is given at once: one to score, one to prepare meanwhile. Where a block
is small, each of its threads counts as one face of it."""

TICK = 0.5
"""Seconds between two checks of workers that are silent."""

RESTARTS = 3
"""How often in a row a process that ends while it loads is started again."""

KILL_SECONDS = 10.0
"""Seconds to wait for the end of a killed process; one that reads a dead disk may not end."""

WORKER_BYTES = 1_300_000_000
"""Memory a process may need on a CPU, besides what grows with the recognition model."""

MODEL_COPIES = 7
"""How many times its weights' size a recognition model adds to that, see docs/speed.md."""


def worker_bytes(settings: Settings) -> int:
    """Return how many bytes a process may need on a CPU; WeightsError if the model is missing."""
    if "quality" not in settings.stages:
        return WORKER_BYTES
    model = find_model(settings.model.name, settings.model.options)
    return WORKER_BYTES + MODEL_COPIES * model.size


@dataclass(frozen=True)
class Ready:
    """Answer of a worker: the pipeline is loaded.

    Attributes:
        block_faces: faces it scores at once.
        backend, weights_sha256: of the scorer; "" if nothing is scored.
    """

    block_faces: int = 1
    backend: str = ""
    weights_sha256: str = ""


@dataclass(frozen=True)
class Preparation:
    """Answer of a worker: decoding and detection of a photo begin, or are done."""

    number: int
    done: bool


@dataclass(frozen=True)
class Done:
    """Answer of a worker: a photo's records, in the photos' order; time spent so far by stage."""

    records: list[Record]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Failed:
    """Answer of a worker: an error that stops the run.

    Attributes:
        kind: name of a class in `errors`; "" for an unforeseen error.
        message: its text, or the traceback of an unforeseen error.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """Return an error in a form that survives the pipe."""
        if not isinstance(error, FaceQANError):
            return cls("", traceback.format_exc())
        kinds = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return cls(next(kinds).__name__, str(error))

    def error(self) -> Exception:
        """Return the error as the pipeline would have raised it in this process."""
        if self.kind:
            error: FaceQANError = getattr(errors, self.kind)(self.message)
            return error
        return RuntimeError(f"a worker process failed:\n{self.message}")


def work(
    inbox: Connection, outbox: Connection, settings: Settings, crops_folder: Path | None,
    preparers: int, gpu_share: float, make: MakePipeline,
) -> None:  # fmt: skip
    """Answer photos with records, in a worker process, until killed or until the parent exits.

    Args:
        inbox: gives photos.
        outbox: takes `Ready`; then for every photo `Preparation` twice and `Done`; or `Failed`.
        settings, crops_folder: arguments of `make`; the settings have the device.
        preparers: threads that decode photos and find faces, each computing alone.
        gpu_share: share of the GPU's memory that this process may take, in (0, 1].
        make: makes the pipeline.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    todo: SimpleQueue[PhotoSource] = SimpleQueue()
    threading.Thread(target=_receive, args=(inbox, todo), daemon=True).start()
    lock = threading.Lock()

    def answer(content: object) -> None:
        with lock:
            outbox.send(content)

    def prepare(arrived: tuple[int, PhotoSource] | None) -> Prepared | None:
        if arrived is None:
            return None
        number, source = arrived
        answer(Preparation(number, done=False))
        try:
            return pipeline.prepare(source)
        except Exception as error:  # noqa: BLE001 - the parent raises it, and ends this process
            answer(Failed.of(error))
            return None
        finally:
            answer(Preparation(number, done=True))

    try:
        set_threads(1)
        if settings.device.startswith("cuda") and gpu_share < 1:
            import torch

            torch.cuda.set_per_process_memory_fraction(gpu_share, torch.device(settings.device))
        pipeline = make(settings, crops_folder)
        ready = Ready()
        if scorer := pipeline.scorer:
            ready = Ready(scorer.block_faces, scorer.backend, scorer.embedder.sha256)
        answer(ready)
        # the next block is whole before the scorer asks for it
        ahead = max(PREPARED_AHEAD, ready.block_faces) + preparers
        for records in pipeline.records(prefetch_map(prepare, _arriving(todo), ahead, preparers)):
            answer(Done(records, dict(pipeline.seconds)))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        answer(Failed.of(error))


def _receive(inbox: Connection, todo: SimpleQueue[PhotoSource]) -> None:
    """Pass photos on, however busy the pipeline is; end the process when the parent is gone."""
    while True:
        try:
            todo.put(inbox.recv())
        except (EOFError, OSError):
            os._exit(1)


def _arriving(todo: SimpleQueue[PhotoSource]) -> Iterator[tuple[int, PhotoSource] | None]:
    """Yield photos with their numbers as they come, and None whenever the queue is empty."""
    number = 0
    while True:
        try:
            source = todo.get_nowait()
        except Empty:
            yield None
            source = todo.get()
        yield number, source
        number += 1


@dataclass(eq=False)
class Task:
    """A photo that is being processed; `deaths` counts the workers that ended with it in hand."""

    source: PhotoSource
    deaths: int = 0


@dataclass(eq=False)
class Worker:
    """The parent's view of a worker process.

    Attributes:
        device: where its networks run.
        inbox, outbox: take photos, give answers.
        in_hand: photos it was given and has not answered yet, in order.
        answered: number of photos it has answered.
        preparing: photos it decodes or looks for faces in, with the engine's time of their start.
        capacity: photos it may have in hand; 0 until it is ready.
        closed: gets no more photos until it has answered those in hand.
        seconds: time spent so far by stage.
    """

    device: str
    process: SpawnProcess
    inbox: Connection
    outbox: Connection
    in_hand: deque[Task] = field(default_factory=deque)
    answered: int = 0
    preparing: dict[int, tuple[Task, float]] = field(default_factory=dict)
    capacity: int = 0
    closed: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)

    def give(self, task: Task) -> None:
        """Hand a photo to the process."""
        self.in_hand.append(task)
        with suppress(OSError):  # it is dead, which its outbox will tell
            self.inbox.send(task.source)

    def overdue(self, begun_before: float) -> list[Task]:
        """Return the photos whose preparation began before a time of the engine."""
        return [task for task, begun in self.preparing.values() if begun < begun_before]

    def end(self) -> None:
        """Kill the process, if it still lives, and wait for its end."""
        self.process.kill()
        self.process.join(KILL_SECONDS)
        self.inbox.close()
        self.outbox.close()

    @property
    def cause_of_death(self) -> str:
        """How the process ended, for people."""
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(-code, f"signal {-code}")
        return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name


class ProcessEngine(Engine):
    """Runs one pipeline in each of several processes; the least busy one gets the next photo.

    Processes have few photos in hand at any time, so a slow photo holds up few others. A process
    that dies is replaced, and its photos are retried: those that were being prepared each alone,
    the others half of them at a time; so a photo that kills every process is soon alone. If it was
    alone and it was not the first time, its record says `crashed`. A process that ends while it
    loads the networks is replaced up to `RESTARTS` times in a row, if any has loaded them before;
    after that the others go on without it. A process that prepares one photo for longer than
    `Settings.photo_timeout` is killed and replaced; that photo's record says `timed_out`, its other
    photos are retried.

    The processes end when their parent does, however that ends, and hold none of its files.

    Args:
        devices: device of each process: "cpu", "cuda:0", ...
        preparers: threads of each that decode photos and find faces while another scores.
        given: see `Engine`.
    """

    def __init__(self, devices: Sequence[str], *, preparers: int = 1, **given: Any) -> None:
        super().__init__(**given)
        self.devices, self.preparers = tuple(devices), preparers
        self.workers = len(self.devices)
        self._team: list[Worker] = []
        self._again: deque[list[Task]] = deque()
        self._loaded, self._failed_starts = False, 0
        self._now = 0.0
        self._looked = time.monotonic()

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None,
        tell: Listener = silent,
    ) -> Generator[list[Record]]:  # fmt: skip
        """Yield each photo's records in any order; see `Engine.run`."""
        self.start(settings, crops_folder, tell)

        def records() -> Generator[list[Record]]:
            try:
                yield from self.records(sources)
            finally:
                self.stop()

        return records()

    def start(self, settings: Settings, crops_folder: Path | None, tell: Listener = silent) -> None:
        """Start all processes and wait until they are ready; `stop` must follow.

        Errors are those of `Engine.run`.
        """
        self._settings, self._crops_folder, self._tell = settings, crops_folder, tell
        try:
            self._team += [self._start(device) for device in self.devices]
            while not all(worker.capacity for worker in self._team):
                for _ in self._answers():
                    pass  # no worker has a photo yet
        except BaseException:
            self.stop()
            raise

    def records(self, sources: Iterable[PhotoSource]) -> Generator[list[Record]]:
        """Yield the records of photos, after `start`; may be called several times."""
        fresh = iter(sources)
        self._more = True
        self._hand_out(fresh)
        while self._more or self._again or any(worker.in_hand for worker in self._team):
            yield from self._answers()
            yield from self._give_up_overdue()
            self._hand_out(fresh)

    def stop(self) -> None:
        """Kill the processes."""
        for worker in self._team:
            worker.process.kill()
        while self._team:
            self._team.pop().end()

    def _hand_out(self, fresh: Iterator[PhotoSource]) -> None:
        """Give photos to workers with room, the least busy first."""
        for worker in self._team:
            if worker.capacity and not worker.in_hand:
                worker.closed = bool(self._again)
                for task in self._again.popleft() if self._again else ():
                    worker.give(task)
        while open_ones := [
            worker
            for worker in self._team
            if len(worker.in_hand) < worker.capacity and not worker.closed
        ]:
            source = next(fresh, None)
            if source is None:
                self._more = False
                return
            min(open_ones, key=lambda worker: len(worker.in_hand)).give(Task(source))

    def _answers(self) -> Iterator[list[Record]]:
        """Wait for answers of workers; yield the records among them."""
        speakers = {worker.outbox: worker for worker in self._team}
        found = wait(list(speakers), TICK)
        # time in which this process was stopped or asleep does not count
        now = time.monotonic()
        self._now += min(now - self._looked, 2 * TICK)
        self._looked = now
        for outbox in found:
            worker = speakers[outbox]  # type: ignore[index]
            try:
                answer = worker.outbox.recv()
            except (EOFError, OSError):
                yield from self._replace_dead(worker)
                continue
            if isinstance(answer, Ready):
                check_weights(self._settings.model.name, self.weights_sha256, answer.weights_sha256)
                worker.capacity = BLOCKS_IN_HAND * max(answer.block_faces, self.preparers)
                self._loaded, self._failed_starts = True, 0
                self.backend = answer.backend
                self._tell(WorkerReady(worker.process.pid or 0, worker.device))
            elif isinstance(answer, Preparation) and answer.done:
                del worker.preparing[answer.number]
            elif isinstance(answer, Preparation):
                task = worker.in_hand[answer.number - worker.answered]
                worker.preparing[answer.number] = (task, self._now)
            elif isinstance(answer, Done):
                worker.in_hand.popleft()
                worker.answered += 1
                self.seconds.update(answer.seconds)
                self.seconds.subtract(worker.seconds)
                worker.seconds = answer.seconds
                yield answer.records
            else:
                raise answer.error()

    def _replace_dead(self, worker: Worker) -> Iterator[list[Record]]:
        """Replace a dead worker; retry its photos, or yield the record of one that crashed."""
        self._team.remove(worker)
        worker.end()
        if not worker.capacity:
            self._failed_starts += 1
            # if none has ever loaded, the next one will most likely fail as well; later it may
            # have been a transient out-of-memory
            if self._loaded and self._failed_starts <= RESTARTS:
                if not self._team:
                    time.sleep(self._failed_starts)
                self._team.append(self._start(worker.device))
            elif not self._team:
                raise FaceQANError(
                    f"worker processes end before they have loaded the networks "
                    f"({worker.cause_of_death}); fewer `workers` take less memory"
                )
            return
        tasks = list(worker.in_hand)
        for task in tasks:
            task.deaths += 1
        if len(tasks) == 1 and tasks[0].deaths > 1:
            reason = f"its worker process ended, twice ({worker.cause_of_death})"
            yield [failed_record(tasks[0].source, Crashed(reason))]
        else:
            suspects = [task for task, _ in worker.preparing.values()]
            others = [task for task in tasks if task not in suspects]
            half = len(others) // 2
            self._try_again(*([task] for task in suspects), others[:half], others[half:])
        self._team.append(self._start(worker.device))

    def _give_up_overdue(self) -> Iterator[list[Record]]:
        """Kill workers that prepare a photo for too long; yield those photos' records."""
        limit = self._settings.photo_timeout
        for worker in list(self._team) if limit else ():
            overdue = worker.overdue(begun_before=self._now - limit)
            # an answer that waits may be the one that the photo is done
            if not overdue or wait([worker.outbox], 0):
                continue
            self._team.remove(worker)
            worker.end()
            self._try_again([task for task in worker.in_hand if task not in overdue])
            self._team.append(self._start(worker.device))
            for task in overdue:
                reason = f"not decoded and searched within {limit:g} s (--photo-timeout)"
                yield [failed_record(task.source, TimedOut(reason))]

    def _try_again(self, *groups: list[Task]) -> None:
        """Have each group of photos done by a worker that has no others."""
        self._again.extend(filter(None, groups))

    def _start(self, device: str) -> Worker:
        context = multiprocessing.get_context("spawn")
        inbox, to_inbox = context.Pipe(duplex=False)
        from_outbox, outbox = context.Pipe(duplex=False)
        settings = self._settings.replace(device=device)
        share = 1 / self.devices.count(device)
        process = context.Process(
            target=work,
            args=(inbox, outbox, settings, self._crops_folder, self.preparers, share, self.make),
            name=f"faceqan-{device}",
            daemon=True,
        )
        # a process that is started meanwhile ignores Ctrl-C from its first moment
        with interrupt_handler(signal.SIG_IGN):
            process.start()
        # the process has its own now; with a copy here its death would not close the pipes
        inbox.close()
        outbox.close()
        return Worker(device, process, to_inbox, from_outbox)
