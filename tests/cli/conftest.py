"""Finished runs that several tests look at."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.jobs import MAIN, QUICK, QUICKEST, few, many
from tests.conftest import run_here


@dataclass(frozen=True)
class Finished:
    """A run that no test changes.

    Attributes:
        photos: folder of its photos.
        run: its folder.
        done: what its command told.
    """

    photos: Path
    run: Path
    done: subprocess.CompletedProcess[str]

    def copy(self, folder: Path) -> Path:
        """Return a copy of the run; the same command goes on with it."""
        return Path(shutil.copytree(self.run, folder / self.run.name))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    """A run over `few` photos, in every format."""
    folder = tmp_path_factory.mktemp("finished")
    formats = [word for name in ("csv", "jsonl", "parquet") for word in ("--format", name)]
    photos = few(folder)
    done = run_here(MAIN, photos, "-o", "run", *QUICK, *formats, cwd=folder)
    return Finished(photos, folder / "run", done)


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Finished:
    """A run over `many` photos that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    photos = many(folder)
    done = run_here(MAIN, photos, "-o", "run", *QUICKEST, cwd=folder)
    assert done.returncode == 3, done.stderr
    return Finished(photos, folder / "run", done)
