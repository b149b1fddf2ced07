"""Ray actors, and machines of a cluster, that end before their work does."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from faceqan_toolkit.engines.base import InlineEngine, MakePipeline
from faceqan_toolkit.engines.ray import (
    Answer,
    RayEngine,
    _check_shared,
    find_room,
)
from faceqan_toolkit.engines.spool import Spool, read_blocks
from faceqan_toolkit.errors import RunError
from faceqan_toolkit.events import Event, WorkerReady
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.pipeline import Crashed, failed_record
from faceqan_toolkit.types import FileState, PhotoSource, Record
from tests.conftest import HANG, SAMPLES, CommandLine, wait_until
from tests.engines import pipelines
from tests.engines.clusters import SETTINGS, held
from tests.engines.pipelines import by_path
from tests.engines.test_processes import numbered, photos, statuses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="kills processes with signals"),
]


ONE_ACTOR = SETTINGS.replace(workers=1)


def run(folder: Path, make: MakePipeline) -> list[list[Record]]:
    found = find_photos([str(folder)])
    return list(RayEngine(12, make=make).run(found, ONE_ACTOR, None))


@pytest.mark.usefixtures("ray_cluster")
def test_a_photo_that_kills_whoever_touches_it_costs_one_record(tmp_path: Path) -> None:
    """And records come while photos are still being listed."""
    folder = photos(tmp_path / "photos", *numbered(10), "05_killer", "07_once")
    (folder / "alive").touch()
    come = threading.Event()

    def listed() -> Iterator[PhotoSource]:
        sources = list(find_photos([str(folder)]))
        yield from sources[:4]
        assert come.wait(120)
        yield from sources[4:]

    running = RayEngine(12, make=pipelines.accidents).run(listed(), ONE_ACTOR, None)
    rows = [next(running)]
    come.set()
    found = statuses([*rows, *running])
    assert found.pop("05_killer.jpg") == "crashed"
    assert len(found) == 11
    assert set(found.values()) == {"ok"}


@pytest.mark.usefixtures("ray_cluster")
def test_what_stops_an_actor_stops_the_run(tmp_path: Path) -> None:
    """As tests of worker processes show for everything that stops one."""
    with pytest.raises(RuntimeError, match="nobody thought of this"):
        run(photos(tmp_path / "photos", *numbered(4)), pipelines.bug)


@pytest.mark.usefixtures("ray_cluster")
def test_an_error_in_the_midst_of_the_work(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No space left"):
        run(photos(tmp_path / "photos", *numbered(10), "05_full"), pipelines.accidents)


def test_a_run_folder_that_nodes_do_not_see(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"does not see .*elsewhere.*--no-crops"):
        _check_shared(tmp_path / "elsewhere" / "crops", None, "node")


@pytest.mark.usefixtures("ray_cluster")
def test_photos_that_nodes_do_not_see() -> None:
    class OnlyHere:
        """Content that is not there any more once it has travelled."""

        def state(self) -> FileState:
            return FileState(1, 1)

        def __reduce__(self) -> tuple[type[LocalFile], tuple[Path]]:
            return LocalFile, (Path("/nowhere/photo.jpg"),)

    photo = PhotoSource("/nowhere", "photo.jpg", OnlyHere())
    with pytest.raises(RunError, match=r"does not see /nowhere/photo\.jpg.*URL"):
        list(RayEngine(1).run([photo], ONE_ACTOR, None))


GB = 10**9


@pytest.mark.parametrize(
    ("nodes", "room"),
    [
        ([(8, 64 * GB)], (1 * GB, 8)),
        ([(8, 5 * GB)], (1 * GB, 5)),
        ([(0, 64 * GB), (8, 5 * GB), (2, 9 * GB), (4, 0.5 * GB)], (1 * GB, 7)),
        ([(4, 0.3 * GB), (4, 0.7 * GB)], (0.7 * GB, 1)),  # no node has enough
        ([(4, 0)], (0, 4)),  # Ray was told to count none
        ([], (1 * GB, 0)),
    ],
    ids=str,
)
def test_room_for_actors(nodes: list[tuple[int, float]], room: tuple[float, int]) -> None:
    """Of one core and 1 GB each."""
    resources = [{"CPU": float(cores), "memory": float(there)} for cores, there in nodes]
    resources = [{name: value for name, value in node.items() if value} for node in resources]
    assert find_room([*resources, {"GPU": 1.0}], GB) == room


def test_where_memory_is_scarce_one_actor_takes_all_of_it(tmp_path: Path) -> None:
    """Where there is more, Ray places as many as `find_room` counts."""
    folder = photos(tmp_path / "photos", *numbered(8))
    (notes := tmp_path / "notes").mkdir()
    script = f"""
from pathlib import Path
from faceqan_toolkit.engines.ray import prepare_ray
from tests.engines.clusters import run_and_count
prepare_ray()
import ray
ray.init("local", num_cpus=2, _memory={GB // 2}, object_store_memory=10**8, include_dashboard=False,
         log_to_driver=False, logging_level="ERROR")
assert run_and_count(Path({str(folder)!r})) == (8, 1, {GB // 2})
ray.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    actors = {note.name.rsplit(".")[-1] for note in notes.iterdir()}
    assert len(actors) == 1


WORKER = WorkerReady(7, "cpu", "node")


def answers_of(spool: Spool) -> list[Answer]:
    """Return what actors would answer to each block."""
    return [
        Answer(
            {block.number: [[failed_record(photo, Crashed("it was"))] for photo in block.photos]},
            {"decode": 1.0},
            worker=WORKER,
        )
        for block in map(pickle.loads, read_blocks(spool.file))
    ]


def test_a_block_that_ray_gives_twice_counts_once(tmp_path: Path) -> None:
    sources = list(find_photos([str(photos(tmp_path / "photos", *numbered(5)))]))
    with Spool(iter(sources), 2) as spool:
        one, two, three = answers_of(spool)
        # alone, and together with one that has not been given yet
        both = Answer({**one.items, **three.items}, {"decode": 2.0})
        events: list[Event] = []
        found = list(RayEngine(5)._taken([one, one, two, both], spool, events.append))
    assert events == [WORKER]
    assert [rows[0].path for rows in found] == [photo.path for photo in sources]


def test_a_block_that_ray_loses_is_an_error(tmp_path: Path) -> None:
    sources = list(find_photos([str(photos(tmp_path / "photos", *numbered(5)))]))
    with Spool(iter(sources), 2) as spool:
        one, _, three = answers_of(spool)
        running = RayEngine(5)._taken([three, one], spool)
        assert len([next(running) for _ in range(3)]) == 3, "what has come is to be recorded"
        with pytest.raises(RunError, match=r"^1 of 3 blocks of photos have not come back"):
            next(running)


def test_a_list_that_fails(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *numbered(2))

    def listed() -> Iterator[PhotoSource]:
        yield from find_photos([str(folder)])
        raise RunError("the list is damaged")

    with Spool(listed(), 2) as spool:
        answers = answers_of(spool)
        with pytest.raises(RunError, match="the list is damaged"):
            list(RayEngine(2)._taken(answers, spool))


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_that_is_killed_is_replaced(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *numbered(12))
    (notes := tmp_path / "notes").mkdir()
    (hold := tmp_path / "hold").touch()
    engine = RayEngine(12, make=pipelines.noting)
    found, killed = [], False
    for rows in engine.run(find_photos([str(folder)]), SETTINGS, None):
        found.append(rows)
        if not killed:
            wait_until(lambda: held(notes))
            os.kill(int(held(notes)[0].rsplit(".")[-1]), signal.SIGKILL)
            killed = True
            hold.unlink()
    assert killed
    assert set(statuses(found).values()) == {"ok"}
    assert len(found) == 12


def test_a_machine_that_fails_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """A head and two nodes; one that has given records and is at work on others is killed."""
    folder = photos(tmp_path / "photos", *numbered(18))
    (notes := tmp_path / "notes").mkdir()
    expected = by_path(list(InlineEngine().run(find_photos([str(folder)]), SETTINGS, None)))
    script = f"""
from pathlib import Path
from tests.engines.clusters import run_and_lose_a_node
run_and_lose_a_node(Path({str(folder)!r}), Path({str(notes)!r}), Path({str(tmp_path)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found, lost, outstanding = pickle.loads((tmp_path / "found.pickle").read_bytes())
    assert by_path(found) == expected, "nothing lost, nothing doubled, nothing else"
    nodes = {path: rows[0].node for path, rows in by_path(found).items()}
    assert len(set(nodes.values())) > 1
    assert lost in nodes.values(), "it had given records"
    assert outstanding, "it was at work on others"
    assert any(nodes[path] != lost for path in outstanding), "others did them again"


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [("127.0.0.1:1", 1, "no Ray cluster at 127.0.0.1:1"), ("ray://127.0.0.1:1", 2, "HOST:PORT")],
)
def test_an_address_that_does_not_do(
    real_command_line: CommandLine, address: str, code: int, message: str
) -> None:
    done = real_command_line(
        *("detect", SAMPLES / "hopper.jpg", "-o", "run", "--detector", "yunet"),
        *("--engine", "ray", "--ray-address", address),
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert message in done.stderr


def test_an_address_without_ray(command_line: CommandLine) -> None:
    done = command_line("align-and-score", SAMPLES / "hopper.jpg", "-o", "run",
                        "--ray-address", "auto")  # fmt: skip
    assert done.returncode == 2
    assert "it must be used with --engine ray" in done.stderr
