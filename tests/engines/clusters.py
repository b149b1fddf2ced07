"""Runs on a Ray cluster, in a process that imports no more than they need."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path

from faceqan_toolkit.engines.ray import RayEngine, prepare_ray
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.engines import pipelines
from tests.engines.pipelines import by_path

SETTINGS = Settings(task="detect", detector="yunet", device="cpu", engine="ray")


def alive(pid: int | str) -> bool:
    # a dead child of a dead parent may stay as a zombie where nobody collects it
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def run_and_count(folder: Path) -> tuple[int, int, int]:
    """Return how many photos were done, by how many actors, and the memory Ray counted."""
    import ray

    engine = RayEngine(8, make=pipelines.noting)
    found, free = [], []
    for rows in engine.run(find_photos([str(folder)]), SETTINGS, None):
        found.append(rows)
        free.append(ray.available_resources().get("memory", 0))
    taken = ray.cluster_resources()["memory"] - min(free)
    return len(by_path(found)), engine.workers, round(taken)


def held(notes: Path, node: str = "") -> list[str]:
    """Return the notes of the photos that a node, or any, is held at."""
    names = [note.name for note in notes.iterdir() if note.read_text() == pipelines.HELD]
    return [name for name in names if node in ("", name.rsplit(".", 2)[1])]


def run_and_lose_a_node(folder: Path, notes: Path, output: Path) -> None:
    """Run over a cluster of a head and two nodes, and kill one of these."""
    prepare_ray()
    import ray
    from ray.cluster_utils import Cluster

    # a node whose process is gone is found dead within 2 s, not 15
    checks = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": checks}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    raylets = {
        str(info.process.pid): node for node in nodes for info in node.all_processes["raylet"]
    }
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    found: list[list[Record]] = []
    lost, outstanding = "", set()
    (hold := notes.with_name("hold")).touch()
    for rows in RayEngine(18, make=pipelines.noting).run(
        find_photos([str(folder)]), SETTINGS, None
    ):
        found.append(rows)
        if lost:
            continue
        given = {photo[0].node for photo in found}
        (giver,) = [pid for pid, node in raylets.items() if node.node_id in given][:1]
        pipelines.wait_for(lambda pid=giver: held(notes, pid))
        lost = raylets[giver].node_id
        outstanding = {name.rsplit(".", 2)[0] for name in held(notes, giver)}
        actors = {name.rsplit(".")[-1] for name in held(notes, giver)}
        cluster.remove_node(raylets[giver], allow_graceful=False)
        # they outlive their node for a moment, in which they could finish
        pipelines.wait_for(lambda pids=actors: not any(map(alive, pids)))
        hold.unlink()
    (output / "found.pickle").write_bytes(pickle.dumps((found, lost, outstanding)))
    ray.shutdown()
    cluster.shutdown()
