"""The built-in model in a process with a faulty decoder: `--model tests.cli.faulty_decoder:sface`.

With the environment variable FAULTS set, photos with "killer" in their names end the process and
those with "hanging" are never done. No other photos but these and "leased" ones are given up for
taking too long, however slow the machine is.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from faceqan_toolkit import pipeline
from faceqan_toolkit.engines import processes
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.types import Photo, PhotoSource

intact = pipeline.decode


def decode(source: PhotoSource, **options: Any) -> Photo:
    if "killer" in source.path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hanging" in source.path:
        time.sleep(600)
    return intact(source, **options)


real_overdue = processes.Worker.overdue


def overdue(worker: processes.Worker, begun_before: float) -> list[processes.Task]:
    found = real_overdue(worker, begun_before)
    slow = ("hanging", "leased")
    return [task for task in found if any(word in task.source.path for word in slow)]


def sface() -> Embedder:
    if os.environ.get("FAULTS"):
        pipeline.decode = decode
        processes.Worker.overdue = overdue  # type: ignore[method-assign]
    return load_model("sface")
