"""Things several tests need."""

from __future__ import annotations

import codecs
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import duckdb
import hypothesis
import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner

from faceqan_toolkit.engines.base import Engine
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import FileState, Photo, PhotoSource, Pixels
from tests.kept import keep_imports, keep_networks, kept_database

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DATA = Path(__file__).parent / "data"
SAMPLES = Path(__file__).parents[1] / "samples" / "raw_photos"

BROWSER_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs extra openvino")
BACKENDS = ("torch", pytest.param("openvino", marks=needs_openvino))

# a machine that does other work is no failure
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# what was started in the background may ignore Ctrl-C, and what it starts, too
signal.signal(signal.SIGINT, signal.default_int_handler)

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]

HANG = 1800
"""Seconds after which whatever is waited for counts as hung, however busy the machine is. No test
asserts that something takes less time than something else."""


def wait_until(done: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + HANG
    while not done():
        assert time.monotonic() < deadline, "hung"
        time.sleep(0.005)


def in_every_encoding(text: str) -> list[bytes]:
    """Return a text in UTF-8 without a mark, and in each encoding with one."""
    marked = [codecs.BOM_UTF8 + text.encode()]
    for bits in (16, 32):
        for order in ("le", "be"):
            mark = getattr(codecs, f"BOM_UTF{bits}_{order.upper()}")
            marked.append(mark + text.encode(f"utf-{bits}-{order}"))
    return [text.encode(), *marked]


def read_rgb(path: Path) -> Pixels:
    """Return a picture's pixels without the code under test."""
    bgr = cv2.imread(str(path))
    assert bgr is not None, path
    return np.ascontiguousarray(bgr[..., ::-1])


def photo_of(pixels: Pixels, name: str = "photo.png") -> Photo:
    return Photo(
        PhotoSource("/photos", name, LocalFile(Path("/photos") / name)), pixels, FileState(0, 0)
    )


@pytest.fixture(scope="session", autouse=True)
def _kept() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "connect", kept_database)
        keep_networks(patch)
        keep_imports(patch)
        yield


@pytest.fixture(autouse=True)
def _forget_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have what a test imports from its folder, a model's factory for instance, imported anew."""
    importlib.invalidate_caches()
    before = set(sys.modules)
    yield
    for name in sys.modules.keys() - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path_factory.getbasetemp()):
            del sys.modules[name]


@pytest.fixture(scope="session")
def astronaut() -> Pixels:
    """A 512x512 photo with one face."""
    return np.ascontiguousarray(skimage.data.astronaut())


@pytest.fixture(scope="session")
def crop() -> Pixels:
    """That face's aligned crop."""
    return read_rgb(DATA / "astronaut.png")


def cases() -> list[dict[str, Any]]:
    """Return what the published code computes for the crops in tests/data."""
    found: list[dict[str, Any]] = json.loads((DATA / "cases.json").read_text())["cases"]
    return found


def run_process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "faceqan_toolkit", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", **options.pop("env", {})}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=HANG, check=False,
        **options,
    )  # fmt: skip


def add_entry_points(folder: Path, group: str, points: Mapping[str, str]) -> None:
    """Make a folder on the path look like an installed package that offers these modules."""
    info = folder / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    lines = [f"[faceqan_toolkit.{group}]", *(f"{name} = {at}" for name, at in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def run_here(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process; an error that nobody expected is raised.

    Photos are processed by the engine "inline", unless `--workers` asks for several processes.
    """
    from faceqan_toolkit.cli import cli
    from faceqan_toolkit.engines import choice

    def make_engine(settings: Settings, photos: int, weights_sha256: str = "") -> Engine:
        here = settings.engine == "local" and settings.workers in (None, 1)
        return real(
            replace(settings, engine="inline") if here else settings, photos, weights_sha256
        )

    real = choice.make_engine
    given = list(map(str, arguments))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "make_engine", make_engine)
        patch.setattr(sys, "argv", ["faceqan-toolkit", *given])
        patch.chdir(cwd)
        done = CliRunner().invoke(
            cli, given, env={"COLUMNS": "200", **(env or {})}, prog_name="faceqan-toolkit",
            catch_exceptions=False, **options,
        )  # fmt: skip
    return subprocess.CompletedProcess(given, done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    """The command line in this process, in an empty folder; see `run_here`."""
    return partial(run_here, cwd=tmp_path)


@pytest.fixture
def real_command_line(tmp_path: Path) -> CommandLine:
    """The command line in processes of its own, in an empty folder."""
    return partial(run_process, cwd=tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count tests that need a browser or a cluster of Ray among the slow ones, which come first.

    So none of them is begun when the other processes have nothing left to do, and those that share
    a cluster are done by one process.
    """
    for item in items:
        if {"browser", "ray_cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    items.sort(
        key=lambda item: (
            item.get_closest_marker("slow") is None,
            item.path.parent.name != "engines",
        )
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        reason = "no chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("FACEQAN_NEEDS_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()
