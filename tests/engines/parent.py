"""A run whose worker processes are busy for an hour: `python -m tests.engines.parent RUN`."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from faceqan_toolkit.engines.processes import ProcessEngine
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.runs.folder import RunWriter
from faceqan_toolkit.settings import Settings
from tests.conftest import SAMPLES
from tests.engines.pipelines import sleeping

if __name__ == "__main__":
    settings = Settings(task="detect", detector="yunet", device="cpu")
    with RunWriter(Path(sys.argv[1]), settings, "") as run:
        engine = ProcessEngine(["cpu", "cpu"], make=sleeping)
        found = engine.run(find_photos([str(SAMPLES)]), settings, run.crops_folder)
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        next(found)
