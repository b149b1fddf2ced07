"""The pipeline on the machines of a Ray cluster: photos in, records out, through Ray Data."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import socket
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from faceqan_toolkit.engines.memory import WORKER_BYTES, worker_bytes
from faceqan_toolkit.engines.processes import ProcessEngine, check_weights, failure_error
from faceqan_toolkit.engines.spool import Block, Spool
from faceqan_toolkit.engines.worker import Failed, MakePipeline, failed, make_pipeline
from faceqan_toolkit.errors import (
    FaceQANError,
    MissingDependency,
    MissingPhoto,
    PhotoError,
    RunError,
    SettingsError,
)
from faceqan_toolkit.hardware import set_threads, usable_cores
from faceqan_toolkit.pipeline import Pipeline, Prepared
from faceqan_toolkit.settings import Settings, is_model_name
from faceqan_toolkit.types import PhotoSource, Record

if TYPE_CHECKING:
    from ray.data import Dataset

MOST_PHOTOS_A_BLOCK = 64
"""Photos an actor is given at once; what a machine that fails had in hand is done again."""

BLOCKS_AN_ACTOR = 4
"""Blocks there should be for each actor, so that none waits long for the last one."""

OWN_CLUSTER: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
"""How one is made of this machine: nobody else can reach it."""

MOST_BLOCKS_SCORED = 8
"""Blocks a GPU is given at once: it computes in blocks of its own, and fills up short ones."""


@dataclass(frozen=True)
class Answer:
    """What an actor makes of blocks of photos.

    Attributes:
        items: by the number of a block, of each of its photos the records, or what is to be scored.
        seconds: spent on them by stage.
        backend: what computes the attack's steps; "" if nothing was scored.
        failure: what stops the run.
    """

    items: Mapping[int, list[list[Record] | Prepared]]
    seconds: Mapping[str, float]
    backend: str = ""
    failure: Failed | None = None


class Preparing(Pipeline):
    """A pipeline that stops before the recognition model: its "records" are prepared photos."""

    def records(self, prepared: Iterable[Prepared | None]) -> Iterator[list[Any]]:
        """Yield each photo as a list of one `Prepared`."""
        for photo in prepared:
            if photo is not None:
                yield [photo]


def make_preparing(settings: Settings, crops_folder: Path | None) -> Pipeline:
    """Return a pipeline that prepares photos."""
    return Preparing(settings, crops_folder=crops_folder, scoring=False)


class Actor:
    """What every actor does: blocks of pickled photos in, a pickled answer out.

    What goes wrong travels as an answer: Ray would try again, and wrap it in its own words.
    """

    def __init__(self, crops_folder: Path | None, first: PhotoSource | None = None) -> None:
        import ray

        self.node = ray.get_runtime_context().get_node_id()
        self.failure: Failed | None = None
        try:
            _check_shared(crops_folder, first, self.node)
            self.load()
        except Exception as error:  # noqa: BLE001 - raised again by the driver
            self.failure = failed(error)

    def load(self) -> None:
        """Load what the work takes."""
        raise NotImplementedError

    def answer(self, blocks: list[Any]) -> Answer:
        """Return what comes of some blocks."""
        raise NotImplementedError

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the answer to the blocks of a table."""
        answer = self._safely([pickle.loads(block.as_py()) for block in table["block"]])
        return pa.table({"block": pa.array([pickle.dumps(answer)], pa.binary())})

    def signed(self, rows: list[Record]) -> list[Record]:
        """Return records that tell where they were made."""
        return [replace(row, node=self.node) for row in rows]

    def _safely(self, blocks: list[Any]) -> Answer:
        for block in blocks:
            if isinstance(block, Answer) and block.failure:
                return block
        if self.failure is None:
            try:
                return self.answer(blocks)
            except Exception as error:  # noqa: BLE001 - raised again by the driver
                self.failure = failed(error)
        return Answer({}, {}, failure=self.failure)


class Supervisor(Actor):
    """Has a worker process of its own do the work: what kills or stops that costs one photo."""

    def __init__(
        self,
        engine: ProcessEngine,
        settings: Settings,
        crops_folder: Path | None,
        first: PhotoSource | None,
    ) -> None:
        self.engine, self.settings, self.crops_folder = engine, settings, crops_folder
        super().__init__(crops_folder, first)

    def load(self) -> None:
        """Start the process."""
        self.engine.start(self.settings, self.crops_folder)

    def answer(self, blocks: list[Block]) -> Answer:
        """Return the photos' records, or the prepared photos."""
        before = Counter(self.engine.seconds)
        found: dict[int, list[list[Record] | Prepared]] = {
            block.number: [
                rows[0] if rows and isinstance(rows[0], Prepared) else self.signed(rows)
                for rows in self.engine.records(block.photos)
            ]
            for block in blocks
        }
        seconds = Counter(self.engine.seconds)
        seconds.subtract(before)
        return Answer(found, dict(seconds), self.engine.backend)


class Scorer(Actor):
    """Scores what supervisors have prepared, on a GPU or a core."""

    def __init__(
        self,
        settings: Settings,
        crops_folder: Path | None,
        make: MakePipeline,
        weights_sha256: str,
    ) -> None:
        self.settings, self.crops_folder, self.make = settings, crops_folder, make
        self.weights_sha256 = weights_sha256
        super().__init__(crops_folder)

    def load(self) -> None:
        """Load the recognition model."""
        set_threads(1)
        self.pipeline = self.make(self.settings, self.crops_folder)
        if self.pipeline.scorer is not None:
            found = self.pipeline.scorer.embedder.sha256
            check_weights(self.settings.model.name, self.weights_sha256, found)

    def answer(self, blocks: list[Answer]) -> Answer:
        """Return records in the place of prepared photos."""
        before = Counter(self.pipeline.seconds)
        items = {number: found for block in blocks for number, found in block.items.items()}
        # in order, and in blocks of the scorer's own
        scored = self.pipeline.records(
            item for found in items.values() for item in found if isinstance(item, Prepared)
        )
        found: dict[int, list[list[Record] | Prepared]] = {
            number: [
                self.signed(next(scored)) if isinstance(item, Prepared) else item for item in found
            ]
            for number, found in items.items()
        }
        seconds = Counter(self.pipeline.seconds)
        seconds.subtract(before)
        for block in blocks:
            seconds.update(block.seconds)
        scorer = self.pipeline.scorer
        return Answer(found, dict(seconds), scorer.backend if scorer else "")


class RayEngine:
    """Runs the pipeline on a Ray cluster.

    Without GPUs every actor takes one core and does all of a photo. With GPUs, actors of one core
    prepare photos and actors of one GPU score them. Actors that prepare have a process of their
    own at work (`ProcessEngine` of one), so photos that kill or stop it cost one row, as on one
    machine. When an actor or a machine is lost, Ray has its blocks done again elsewhere. This
    process alone writes the ledger; it takes each block once, and misses none.

    Args:
        photos: to do.
        weights_sha256: of the recognition model, which every actor must find; "" takes any.
        make: makes the pipeline; importable by name on every machine.
        split: prepare and score in different actors; None: if there are GPUs.

    Attributes:
        workers: actors that the cluster had room for when the run began; with GPUs, those that
            score.

    Raises:
        MissingDependency: the extra `ray` is not installed.
    """

    def __init__(
        self,
        photos: int,
        *,
        weights_sha256: str = "",
        make: MakePipeline = make_pipeline,
        split: bool | None = None,
    ) -> None:
        prepare_ray()
        self.photos, self.weights_sha256, self.make, self.split = (
            photos,
            weights_sha256,
            make,
            split,
        )
        self.workers = self._actors = self._memory = self._gpus = 0
        self._size = self._blocks_scored = 1
        self._seconds: Counter[str] = Counter()
        self._backend = ""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent so far by stage, summed over actors."""
        return self._seconds

    @property
    def backend(self) -> str:
        """What computes the attack's steps, "torch" for one; "" if nothing was scored."""
        return self._backend

    def run(
        self, sources: Iterable[PhotoSource], settings: Settings, crops_folder: Path | None
    ) -> Generator[list[Record]]:
        """Yield each photo's records as their blocks come in, in any order.

        Raises:
            FaceQANError: what stops an actor, the cluster cannot be reached, or it has not given
                back all photos.
        """
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
                    yield from self._taken(found, spool)

    def _taken(self, answers: Iterable[Answer], spool: Spool) -> Iterator[list[Record]]:
        """Yield the records of every block once, whatever Ray does, and note what else there is.

        Raises:
            RunError: blocks are missing; besides, what stops an actor or the list.
        """
        for answer in answers:
            spool.check()
            if answer.failure:
                raise failure_error(answer.failure)
            self._seconds.update(answer.seconds)
            self._backend = answer.backend or self._backend
            for number, items in answer.items.items():
                if spool.take(number):
                    yield from items  # type: ignore[misc] # nothing is left to be scored
        spool.check_all_back()

    def _measure_cluster(self, settings: Settings) -> None:
        """Find out what there is, and into what blocks the work is cut for it."""
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
            data: Dataset,
            actor: type[Actor],
            arguments: dict[str, Any],
            most: int,
            blocks_at_once: int = 1,
            **needs: Any,
        ) -> Dataset:
            # all at once; what joins the cluster later is taken in as well
            begin = max(1, min(most, self.photos, settings.workers or most))
            pool = ActorPoolStrategy(min_size=1, initial_size=begin, max_size=settings.workers)
            made: Dataset = data.map_batches(
                actor,
                fn_constructor_kwargs={**arguments, "crops_folder": crops_folder},
                batch_size=blocks_at_once,
                batch_format="pyarrow",
                compute=pool,
                **needs,
            )
            return made

        on_cpu = settings.replace(device="cpu")
        seen = first if _is_there(first) else None
        core: dict[str, Any] = {"num_cpus": 1, "memory": self._memory or None}
        if not self.split:
            engine = ProcessEngine(["cpu"], weights_sha256=self.weights_sha256, make=self.make)
            whole = {"engine": engine, "settings": on_cpu, "first": seen}
            return stage(blocks, Supervisor, whole, self._actors, **core)
        half = self._actors if self._gpus else self._actors // 2
        engine = ProcessEngine(["cpu"], make=make_preparing)
        preparing = {"engine": engine, "settings": on_cpu, "first": seen}
        prepared = stage(blocks, Supervisor, preparing, half, **core)
        scoring = settings.replace(device="cuda" if self._gpus else "cpu")
        rest = {"settings": scoring, "make": self.make, "weights_sha256": self.weights_sha256}
        # they ask for no memory: those that prepare could have taken it all, and wait for these
        need, number = ("num_gpus", self._gpus) if self._gpus else ("num_cpus", half)
        return stage(prepared, Scorer, rest, number, self._blocks_scored, **{need: 1})


def find_room(nodes: Sequence[Mapping[str, float]], wanted: int) -> tuple[int, int]:
    """Return the memory an actor of one core asks Ray for, and how many such actors fit.

    Where no node has as much as is wanted, that is all of the largest one's: Ray would wait for
    ever, and most photos need less. If nodes with cores have yet to come, they must have it.

    Args:
        nodes: the resources of each, as Ray counts them; memory in bytes.
        wanted: bytes an actor may come to need.
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
    """Return the settings with paths that mean the same wherever an actor runs."""
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
    """Refuse to work where crops would go to another folder than the run's, or photos are not.

    Args:
        crops_folder: of the run.
        first: a photo that the process that was started has seen.
        node: this one.
    """
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
    """Import Ray so that it tells nobody of its use, and keeps to itself what people do not need.

    What people set themselves stays.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # it would kill the actor; the system kills what takes the memory, a process that is replaced
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
    """Connect to a Ray cluster, or make one of this machine; a connection that exists is used."""
    prepare_ray()
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
    """Raise OSError if nobody listens at HOST:PORT; Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what is written to standard error meanwhile, whoever writes it: Ray's C++ greets."""
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
