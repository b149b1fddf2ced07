"""The pipeline on the machines of a Ray cluster: photos in, records out, through Ray Data."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import socket
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from faceqan_toolkit.engines.base import Engine, MakePipeline, checked_pipeline
from faceqan_toolkit.engines.processes import WORKER_BYTES, Failed, ProcessEngine, worker_bytes
from faceqan_toolkit.engines.spool import Block, Spool
from faceqan_toolkit.errors import (
    FaceQANError,
    MissingDependency,
    MissingPhoto,
    PhotoError,
    RunError,
    SettingsError,
)
from faceqan_toolkit.events import Listener, WorkerReady, silent
from faceqan_toolkit.hardware import set_threads, usable_cores
from faceqan_toolkit.pipeline import Pipeline, Prepared
from faceqan_toolkit.settings import Settings, is_model_name
from faceqan_toolkit.types import PhotoSource, Record

if TYPE_CHECKING:
    from ray.data import Dataset

MOST_PHOTOS_A_BLOCK = 64
"""Photos an actor is given at once; those a failed machine had in hand are done again."""

BLOCKS_AN_ACTOR = 4
"""Least number of blocks for each actor, so that none waits long for the last one."""

OWN_CLUSTER: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
"""Arguments of `ray.init` for a cluster of this machine that no other machine can reach."""

MOST_BLOCKS_SCORED = 8
"""Blocks a GPU is given at once: it computes in blocks of its own, and fills up short ones."""

Items = dict[int, list[Any]]
"""By the number of a block: for each of its photos the records, or a `Prepared` to be scored."""


@dataclass(frozen=True)
class Answer:
    """An actor's answer to blocks of photos.

    Attributes:
        items: see `Items`.
        seconds: time spent on them by stage.
        backend: library that computes the attack; "" if nothing was scored.
        failure: an error that stops the run.
        worker: the actor.
    """

    items: Items
    seconds: Mapping[str, float]
    backend: str = ""
    failure: Failed | None = None
    worker: WorkerReady | None = None


class Preparing(Pipeline):
    """A pipeline that stops before the recognition model: its "records" are prepared photos."""

    def records(self, prepared: Iterable[Prepared | None]) -> Iterator[list[Any]]:
        """Yield each photo as a list of one `Prepared`."""
        for photo in prepared:
            if photo is not None:
                yield [photo]


def make_preparing(settings: Settings, crops_folder: Path | None) -> Pipeline:
    """Return a `Preparing` pipeline, without the recognition model."""
    return Preparing(settings, crops_folder=crops_folder, scoring=False)


class Actor(ABC):
    """Base of the actors: blocks of pickled photos in, a pickled answer out.

    Errors travel as answers: Ray would try again, and wrap them in its own words.
    """

    backend = ""
    seconds: Mapping[str, float]

    def __init__(
        self, settings: Settings, crops_folder: Path | None, first: PhotoSource | None = None
    ) -> None:
        import ray

        self.node = ray.get_runtime_context().get_node_id()
        self.settings, self.crops_folder = settings, crops_folder
        self.failure: Failed | None = None
        try:
            _check_shared(crops_folder, first, self.node)
            self.load()
        except Exception as error:  # noqa: BLE001 - raised again by the driver
            self.failure = Failed.of(error)

    @abstractmethod
    def load(self) -> None:
        """Load networks."""

    @abstractmethod
    def items(self, blocks: list[Any]) -> Items:
        """Return the records or prepared photos of some blocks."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the answer to the blocks of a table."""
        answer = self._answer([pickle.loads(block.as_py()) for block in table["block"]])
        return pa.table({"block": pa.array([pickle.dumps(answer)], pa.binary())})

    def signed(self, rows: list[Record]) -> list[Record]:
        """Return records with the node that made them."""
        return [replace(row, node=self.node) for row in rows]

    def _answer(self, blocks: list[Any]) -> Answer:
        before = [block for block in blocks if isinstance(block, Answer)]
        if failed := [block for block in before if block.failure]:
            return failed[0]
        if self.failure is None:
            spent = Counter({stage: -seconds for stage, seconds in self.seconds.items()})
            try:
                items = self.items(blocks)
            except Exception as error:  # noqa: BLE001 - raised again by the driver
                self.failure = Failed.of(error)
            else:
                for seconds in (self.seconds, *(block.seconds for block in before)):
                    spent.update(seconds)
                worker = WorkerReady(os.getpid(), self.settings.device, socket.gethostname())
                return Answer(items, dict(spent), self.backend, worker=worker)
        return Answer({}, {}, failure=self.failure)


class Supervisor(Actor):
    """Has a process of its own do the work: a photo that kills or stops that costs one record."""

    def __init__(self, engine: ProcessEngine, *given: Any, **more: Any) -> None:
        self.engine = engine
        super().__init__(*given, **more)

    def load(self) -> None:
        """Start the process."""
        self.engine.start(self.settings, self.crops_folder)
        self.seconds, self.backend = self.engine.seconds, self.engine.backend

    def items(self, blocks: list[Block]) -> Items:
        """Return the photos' records, or the prepared photos."""
        return {
            block.number: [
                rows[0] if rows and isinstance(rows[0], Prepared) else self.signed(rows)
                for rows in self.engine.records(block.photos)
            ]
            for block in blocks
        }


class Scorer(Actor):
    """Scores what supervisors have prepared, on a GPU or a core."""

    def __init__(
        self, make: MakePipeline, weights_sha256: str, settings: Settings, crops_folder: Path | None
    ) -> None:
        self.make, self.weights_sha256 = make, weights_sha256
        super().__init__(settings, crops_folder)

    def load(self) -> None:
        """Load the recognition model."""
        set_threads(1)
        self.pipeline = checked_pipeline(
            self.make, self.settings, self.crops_folder, self.weights_sha256
        )
        self.seconds = self.pipeline.seconds
        self.backend = self.pipeline.scorer.backend if self.pipeline.scorer else ""

    def items(self, blocks: list[Answer]) -> Items:
        """Return records in place of prepared photos."""
        items = {number: found for block in blocks for number, found in block.items.items()}
        prepared = (
            item for found in items.values() for item in found if isinstance(item, Prepared)
        )
        scored = self.pipeline.records(prepared)  # in order, and in blocks of the scorer's own
        return {
            number: [
                self.signed(next(scored)) if isinstance(item, Prepared) else item for item in found
            ]
            for number, found in items.items()
        }


class RayEngine(Engine):
    """Runs the pipeline on a Ray cluster.

    Without GPUs every actor takes one core and does all of a photo. With GPUs, actors of one core
    prepare photos and actors of one GPU score them. Actors that prepare have a process of their
    own at work (`ProcessEngine` of one), so photos that kill or stop it cost one row, as on one
    machine. When an actor or a machine is lost, Ray has its blocks done again elsewhere. This
    process alone writes the ledger; it takes each block once, and misses none.

    Args:
        photos: number of photos to process.
        split: prepare and score in different actors; None: if there are GPUs.
        given: see `Engine`; `make` must be importable on every machine.

    Attributes:
        workers: actors that the cluster had room for when the run began; with GPUs, those that
            score; 0 before.

    Raises:
        MissingDependency: the extra `ray` is not installed.
    """

    def __init__(self, photos: int, *, split: bool | None = None, **given: Any) -> None:
        prepare_ray()
        super().__init__(**given)
        self.photos, self.split = photos, split
        self.workers = self._actors = self._memory = self._gpus = 0
        self._size = self._blocks_scored = 1

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None,
        tell: Listener = silent,
    ) -> Generator[list[Record]]:  # fmt: skip
        """Yield each photo's records as their blocks come in, in any order; see `Engine.run`."""
        settings = _for_other_folders(settings)
        crops_folder = crops_folder.absolute() if crops_folder else None
        with _cluster(settings.ray_address):
            self._measure_cluster(settings)
            left = iter(sources)
            first = next(left, None)
            if first is None:
                return
            home = crops_folder.parent if crops_folder else None
            with Spool(itertools.chain([first], left), self._size, home) as spool:
                answers = self._answers(spool.dataset(), settings, crops_folder, first)
                with closing(_as_they_come(answers)) as found:
                    yield from self._taken(found, spool, tell)

    def _taken(
        self, answers: Iterable[Answer], spool: Spool, tell: Listener = silent
    ) -> Iterator[list[Record]]:
        """Yield the records of every block once, whatever Ray does, and note all other figures.

        Raises:
            RunError: blocks are missing; also the error that stops an actor or the list.
        """
        workers: set[WorkerReady] = set()
        for answer in answers:
            spool.check()
            if answer.failure:
                raise answer.failure.error()
            if answer.worker and answer.worker not in workers:
                workers.add(answer.worker)
                tell(answer.worker)
            self.seconds.update(answer.seconds)
            self.backend = answer.backend or self.backend
            for number, items in answer.items.items():
                if spool.take(number):
                    yield from items
        spool.check_all_back()

    def _measure_cluster(self, settings: Settings) -> None:
        """Count the cluster's room for actors, and choose the sizes of blocks for it."""
        import ray

        found = ray.nodes()  # type: ignore[no-untyped-call]
        nodes: list[Mapping[str, float]] = [node["Resources"] for node in found if node["Alive"]]
        if settings.device in ("auto", "cuda"):
            self._gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        if self.split is None:
            self.split = self._gpus > 0
        wanted = WORKER_BYTES if self.split else worker_bytes(settings)
        self._memory, self._actors = find_room(nodes, wanted)
        self.workers = max(1, self._gpus or self._actors)
        share = self.photos // (BLOCKS_AN_ACTOR * max(1, self._gpus, self._actors))
        self._size = max(1, min(MOST_PHOTOS_A_BLOCK, share))
        blocks = self.photos // (self._size * BLOCKS_AN_ACTOR * self.workers)
        self._blocks_scored = max(1, min(MOST_BLOCKS_SCORED, blocks))

    def _answers(
        self, blocks: Dataset, settings: Settings, crops_folder: Path | None, first: PhotoSource
    ) -> Dataset:
        """Return the dataset of pickled answers, which computes as it is read."""
        from ray.data import ActorPoolStrategy

        def stage(
            data: Dataset, actor: type[Actor], most: int, arguments: dict[str, Any], **needs: Any
        ) -> Dataset:
            # all at once; machines that join the cluster later are used as well
            begin = max(1, min(most, self.photos, settings.workers or most))
            made: Dataset = data.map_batches(
                actor,
                fn_constructor_kwargs={**arguments, "crops_folder": crops_folder},
                batch_format="pyarrow",
                compute=ActorPoolStrategy(
                    min_size=1, initial_size=begin, max_size=settings.workers
                ),
                **needs,
            )
            return made

        def supervisors(most: int, **options: Any) -> Dataset:
            arguments = {
                "engine": ProcessEngine(["cpu"], **options),
                "settings": settings.replace(device="cpu"),
                "first": first if _is_there(first) else None,
            }
            memory = self._memory or None
            return stage(
                blocks, Supervisor, most, arguments, batch_size=1, num_cpus=1, memory=memory
            )

        given = {"make": self.make, "weights_sha256": self.weights_sha256}
        if not self.split:
            return supervisors(self._actors, **given)
        half = self._actors if self._gpus else self._actors // 2
        prepared = supervisors(half, make=make_preparing)
        given["settings"] = settings.replace(device="cuda" if self._gpus else "cpu")
        # no memory is reserved: actors that prepare could hold all of it and wait for these
        need, number = ("num_gpus", self._gpus) if self._gpus else ("num_cpus", half)
        return stage(prepared, Scorer, number, given, batch_size=self._blocks_scored, **{need: 1})


def find_room(nodes: Sequence[Mapping[str, float]], wanted: int) -> tuple[int, int]:
    """Return the memory an actor of one core asks Ray for, and how many such actors fit.

    If no node has `wanted`, an actor asks for all memory of the largest node: Ray would wait for
    ever, and most photos need less. Nodes that start later must have it.

    Args:
        nodes: the resources of each, as Ray counts them; memory in bytes.
        wanted: bytes an actor may need.
    """
    able = [(int(node["CPU"]), int(node.get("memory", 0))) for node in nodes if node.get("CPU")]
    memory = min(wanted, max((there for _, there in able), default=wanted))
    if not memory:
        return 0, sum(cores for cores, _ in able)
    return memory, sum(min(cores, there // memory) for cores, there in able)


def _as_they_come(answers: Dataset) -> Generator[Answer]:
    """Yield the answers of a dataset, which computes meanwhile; closing it ends the work."""
    for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in batch["block"]:
            yield pickle.loads(row.as_py())


def _for_other_folders(settings: Settings) -> Settings:
    """Return the settings with absolute paths: an actor runs in another folder."""
    changes: dict[str, Any] = {}
    if settings.landmarks is not None:
        changes["landmarks"] = settings.landmarks.absolute()
    if not is_model_name(settings.model.name) and Path(settings.model.name).exists():
        changes["model"] = str(Path(settings.model.name).absolute())
    return settings.replace(**changes)


def _is_there(photo: PhotoSource) -> bool:
    """Tell whether a photo can be found from here."""
    try:
        photo.content.state()
    except MissingPhoto:
        return False
    except PhotoError:
        pass  # another fault than a wrong place
    return True


def _check_shared(crops_folder: Path | None, first: PhotoSource | None, node: str) -> None:
    """Raise RunError if a node does not see the run's folder, or a photo that the driver sees."""
    if first is not None and not _is_there(first):
        raise RunError(
            f"node {node[:8]} of the Ray cluster does not see {first.place}: put the photos on "
            "storage that all nodes find under the same path, or give their URL"
        )
    if crops_folder is None:
        return
    try:
        json.loads((crops_folder.parent / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RunError(
            f"node {node[:8]} of the Ray cluster does not see {crops_folder.parent}: put the run "
            "folder on storage that all nodes share, or use --no-crops"
        ) from None


def prepare_ray() -> None:
    """Import Ray without its usage reports, progress bars and messages.

    Environment variables that the user has set stay.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # it would kill the actor; the system kills the actor's process, which is replaced
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    try:
        from ray.data import DataContext
    except ImportError as error:
        raise MissingDependency(
            "engine ray needs an extra: pip install 'faceqan-toolkit[ray]'"
        ) from error
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or make one of this machine; an existing connection is used."""
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {} if address else OWN_CLUSTER | {"num_cpus": usable_cores()}
    if address and address.startswith("ray://"):
        raise SettingsError(
            f"ray-address is {address}; it must be used on a machine of the cluster, as auto or "
            "HOST:PORT: photos are listed there"
        )
    try:
        if address:
            _knock(address)
        with _no_stderr():
            ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise FaceQANError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError if HOST:PORT cannot be reached; Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop everything written to standard error meanwhile, also by Ray's C++ code."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
