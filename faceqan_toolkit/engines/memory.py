"""How much memory a worker process may come to need."""

from __future__ import annotations

from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.settings import Settings

WORKER_BYTES = 1_300_000_000
"""Memory a process may come to need on a CPU, besides what grows with the recognition model."""

MODEL_COPIES = 7
"""How many times its weights' size a recognition model adds to that, see docs/speed.md."""


def worker_bytes(settings: Settings) -> int:
    """Return how much memory a process may come to need on a CPU.

    Raises:
        WeightsError: the recognition model is not there.
    """
    if "quality" not in settings.stages:
        return WORKER_BYTES
    return (
        WORKER_BYTES + MODEL_COPIES * find_model(settings.model.name, settings.model.options).size
    )
