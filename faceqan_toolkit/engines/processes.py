"""The pipeline in several processes of this machine, one a core or a GPU."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from faceqan_toolkit import errors
from faceqan_toolkit.engines.worker import (
    Begun,
    Done,
    Failed,
    MakePipeline,
    Ready,
    Waiting,
    make_pipeline,
    work,
)
from faceqan_toolkit.errors import ChecksumMismatch, FaceQANError, TimedOut
from faceqan_toolkit.pipeline import Crashed, failed_record
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import short_checksum
from faceqan_toolkit.types import PhotoSource, Record

BLOCKS_IN_HAND = 2
"""Blocks of photos a worker is given at once: one to score, one to prepare meanwhile. Where a block
is small, each of its threads counts as one face of it."""

TICK = 0.5
"""Seconds after which workers are looked at, whether they have said something or not."""

RESTARTS = 3
"""How often in a row a process that ends while it loads is started again."""

KILL_SECONDS = 10.0
"""How long a killed process is waited for: one that waits for a dead disk may outlive its kill."""


@dataclass(eq=False)
class Task:
    """A photo on its way.

    Attributes:
        source: the photo.
        deaths: workers that ended while they had it in hand.
    """

    source: PhotoSource
    deaths: int = 0


@dataclass(eq=False)
class Worker:
    """A process as its parent sees it.

    Attributes:
        device: where its networks run.
        process: itself.
        inbox: takes photos.
        outbox: gives answers.
        in_hand: photos it was given and has not answered yet, in order.
        answered: how many it has answered.
        preparing: photos it decodes or looks for faces in, with the engine's time when it began.
        capacity: photos it may have in hand; 0 until it is ready.
        closed: gets no more photos until it has answered those in hand.
        seconds: it has spent so far by stage.
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
        """Return the photos it has been preparing since before a time of the engine."""
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
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name


class ProcessEngine:
    """Runs one pipeline in each of several processes; a photo goes to whichever has room.

    Processes have little in hand at any time, so that a photo that takes long holds up few
    others. When one dies it is replaced, and the photos it had in hand are tried again: those that
    were being prepared each alone, the others half of them at a time; so one that kills whoever
    touches it is soon alone. If it was alone, and it was not the first time, its record says
    `crashed`. One that ends before it has loaded the networks is replaced, too, a few times in a
    row, unless none ever has; after that the others go on without it. A process that prepares one
    photo for longer than `Settings.photo_timeout` is killed and replaced; that photo's record says
    `timed_out`, the others are done again.

    The processes end when their parent does, however that ends, and hold none of its files.

    Args:
        devices: where each process computes: "cpu", "cuda:0", ...
        preparers: threads of each that decode photos and find faces while another scores.
        weights_sha256: of the recognition model that the run was begun with; "" takes any.
        make: makes a worker's pipeline; importable by name, as processes are spawned.

    Attributes:
        workers: how many processes there are.
    """

    def __init__(
        self,
        devices: Sequence[str],
        *,
        preparers: int = 1,
        weights_sha256: str = "",
        make: MakePipeline = make_pipeline,
    ) -> None:
        self.devices, self.preparers, self.make = tuple(devices), preparers, make
        self.weights_sha256 = weights_sha256
        self.workers = len(self.devices)
        self._seconds: Counter[str] = Counter()
        self._backend = ""
        self._team: list[Worker] = []
        self._again: deque[list[Task]] = deque()
        self._loaded, self._failed_starts = False, 0
        self._now = 0.0
        self._looked = time.monotonic()

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent so far by stage, summed over workers."""
        return sum((Counter(worker.seconds) for worker in self._team), self._seconds)

    @property
    def backend(self) -> str:
        """What computes the attack's steps, "torch" for one; "" if nothing was scored."""
        return self._backend

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None
    ) -> Generator[list[Record]]:
        """Yield each photo's records as soon as they are complete, in any order.

        Raises:
            FaceQANError: what stops a worker, or that all of them die before they are ready.
            ChecksumMismatch: a worker has loaded other weights than the run was begun with.
        """
        self.start(settings, crops_folder)
        return self._to_the_end(sources)

    def start(self, settings: Settings, crops_folder: Path | None) -> None:
        """Have all processes load the networks; `stop` must follow.

        Raises:
            FaceQANError, ChecksumMismatch: see `run`.
        """
        self._settings, self._crops_folder = settings, crops_folder
        try:
            self._team += [self._start(device) for device in self.devices]
            while not all(worker.capacity for worker in self._team):
                for _ in self._answers():
                    pass  # nobody has a photo yet
        except BaseException:
            self.stop()
            raise

    def records(self, sources: Iterable[PhotoSource]) -> Generator[list[Record]]:
        """Yield the records of photos, once the processes are ready; any number of times."""
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
            self._seconds.update(worker.seconds)
            worker.process.kill()
        for worker in self._team:
            worker.end()
        self._team = []

    def _to_the_end(self, sources: Iterable[PhotoSource]) -> Generator[list[Record]]:
        try:
            yield from self.records(sources)
        finally:
            self.stop()

    def _hand_out(self, fresh: Iterator[PhotoSource]) -> None:
        """Give work to workers with room, the least busy first."""
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
        """Wait until workers have something to say; yield the records that come of it."""
        speakers = {worker.outbox: worker for worker in self._team}
        found = wait(list(speakers), TICK)
        self._pass_time()
        for outbox in found:
            worker = speakers[outbox]  # type: ignore[index]
            try:
                answer = worker.outbox.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
                continue
            if isinstance(answer, Ready):
                check_weights(self._settings.model.name, self.weights_sha256, answer.weights_sha256)
                worker.capacity = BLOCKS_IN_HAND * max(answer.block_faces, self.preparers)
                self._loaded, self._failed_starts = True, 0
                self._backend = answer.backend
            elif isinstance(answer, Begun):
                task = worker.in_hand[answer.number - worker.answered]
                worker.preparing[answer.number] = (task, self._now)
            elif isinstance(answer, Waiting):
                del worker.preparing[answer.number]
            elif isinstance(answer, Done):
                worker.in_hand.popleft()
                worker.answered += 1
                worker.seconds = answer.seconds
                yield answer.records
            else:
                raise failure_error(answer)

    def _bury(self, worker: Worker) -> Iterator[list[Record]]:
        """Replace a dead worker; give its photos another chance, or up."""
        self._team.remove(worker)
        self._seconds.update(worker.seconds)
        worker.end()
        if not worker.capacity:
            self._failed_starts += 1
            # if none has ever begun so would the next one, most likely; later it may have been
            # a moment's want of memory
            if self._loaded and self._failed_starts <= RESTARTS:
                if not self._team:
                    time.sleep(self._failed_starts)
                self._team.append(self._start(worker.device))
            elif not self._team:
                raise FaceQANError(
                    f"worker processes end before they have loaded the networks "
                    f"({worker.cause_of_death}); fewer --workers take less memory"
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
        """Kill workers that have been at a photo for too long; yield those photos' records."""
        limit = self._settings.photo_timeout
        if not limit:
            return
        for worker in list(self._team):
            overdue = worker.overdue(begun_before=self._now - limit)
            # what it has to say may be that it is done with them
            if not overdue or wait([worker.outbox], 0):
                continue
            self._team.remove(worker)
            self._seconds.update(worker.seconds)
            worker.end()
            self._try_again([task for task in worker.in_hand if task not in overdue])
            self._team.append(self._start(worker.device))
            for task in overdue:
                reason = f"not decoded and searched within {limit:g} s (--photo-timeout)"
                yield [failed_record(task.source, TimedOut(reason))]

    def _try_again(self, *groups: list[Task]) -> None:
        """Have each group of photos done by a worker that has no others."""
        self._again.extend(filter(None, groups))

    def _pass_time(self) -> None:
        """Let the engine's time pass; not that in which this process was stopped, or asleep."""
        now = time.monotonic()
        self._now += min(now - self._looked, 2 * TICK)
        self._looked = now

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
        with _interrupts_ignored():
            process.start()
        # the process has them now; with a copy here its death would not close the pipes
        inbox.close()
        outbox.close()
        return Worker(device, process, to_inbox, from_outbox)


def check_weights(model: str, expected: str, found: str) -> None:
    """Raise ChecksumMismatch if a worker has found other weights than the run was begun with."""
    if expected and found != expected:
        raise ChecksumMismatch(
            f"the weights of {model} have changed since this run was begun: their sha256 was "
            f"{short_checksum(expected)}, a new worker process found {short_checksum(found)}. "
            "Put the file back, or use another run folder"
        )


def failure_error(failure: Failed) -> Exception:
    """Return what a worker failed of, as its pipeline would have raised it here."""
    if failure.kind:
        error: FaceQANError = getattr(errors, failure.kind)(failure.message)
        return error
    return RuntimeError(f"a worker process failed:\n{failure.message}")


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C: a process that is started meanwhile does so from its first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
