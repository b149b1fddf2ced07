"""A Ray cluster for the tests that want one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from faceqan_toolkit.engines.ray import prepare_ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A small one of this machine, kept for all tests: it takes seconds to make."""
    prepare_ray()
    import ray

    # workers that the tests' own pipelines are imported by
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()
    os.environ.pop("RAY_ADDRESS", None)
