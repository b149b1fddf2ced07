"""Networks, databases and imports that the tests of one process make once; used as if new."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import duckdb
import pytest

from faceqan_toolkit.models import load
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.quality import registry
from faceqan_toolkit.settings import Settings

_connect = duckdb.connect
_idle: list[duckdb.DuckDBPyConnection] = []
_networks: dict[str, Any] = {}


@contextmanager
def kept_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to an empty database, as `with duckdb.connect() as connection` does.

    Making one takes 20 ms, and a run uses 18 one after the other.
    """
    database = _idle.pop() if _idle else _connect()
    try:
        with database.cursor() as connection:
            yield connection
    finally:
        try:
            # refused once something has been spilled
            database.execute("SET temp_directory = ''")
            database.execute("RESET memory_limit")
            tables = database.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            for (name,) in tables:
                database.execute(f'DROP TABLE "{name}"')
            _idle.append(database)
        except duckdb.Error:
            database.close()


def keep_networks(patch: pytest.MonkeyPatch) -> None:
    """Have pipelines share the built-in model, and FaceQAN estimators of the same settings.

    Making them takes 0.3 s, with OpenVINO 2 s.
    """

    def make(pipeline: Pipeline, *arguments: Any, **options: Any) -> None:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(load, "find_model", find_model)
            within.setattr(registry, "make_estimator", make_estimator)
            real(pipeline, *arguments, **options)

    def find_model(name: str, *options: Any) -> load.FoundModel:
        found = find(name, *options)
        if name != load.BUILT_IN:
            return found
        return replace(found, load=lambda: kept(load.BUILT_IN, found.load))

    def make_estimator(settings: Settings, embedder: Any) -> Any:
        if embedder is not _networks.get(load.BUILT_IN) or settings.method != "faceqan":
            return estimator(settings, embedder)
        key = f"{settings.quality} {settings.work.device}"
        return kept(key, lambda: estimator(settings, embedder))

    real, find, estimator = Pipeline.__init__, load.find_model, registry.make_estimator
    patch.setattr(Pipeline, "__init__", make)


def kept(key: str, make: Callable[[], Any]) -> Any:
    """Return what was made under a key before, or make it."""
    if key not in _networks:
        _networks[key] = make()
    return _networks[key]


PRELOADED = [
    f"faceqan_toolkit.{name}"
    for name in ("engines.processes", "photos.decode", "alignment", "detection.mtcnn",
                 "detection.yunet", "models.networks", "quality.faceqan")
]  # fmt: skip


def keep_imports(patch: pytest.MonkeyPatch) -> None:
    """Fork worker processes from one that has imported what they need: importing it takes 2 s.

    Command lines that tests start in a process of their own still spawn their workers.
    """
    if sys.platform != "linux":
        return
    real, forking = multiprocessing.get_context, multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(PRELOADED)
    patch.setattr(
        multiprocessing,
        "get_context",
        lambda method=None: forking if method == "spawn" else real(method),
    )
