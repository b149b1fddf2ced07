"""The built-in model in a process with a faulty decoder: `--model tests.cli.faulty_decoder:sface`.

With the environment variable FAULTS set, photos with "killer" in their names end the process and
those with "hanging" are never done.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from faceqan_toolkit import pipeline
from faceqan_toolkit.embedders.base import Embedder
from faceqan_toolkit.embedders.zoo import load_embedder
from faceqan_toolkit.types import Photo, PhotoSource

intact = pipeline.decode


def decode(source: PhotoSource, **options: Any) -> Photo:
    if "killer" in source.path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hanging" in source.path:
        time.sleep(600)
    return intact(source, **options)


def sface() -> Embedder:
    if os.environ.get("FAULTS"):
        pipeline.decode = decode
    return load_embedder("sface")
