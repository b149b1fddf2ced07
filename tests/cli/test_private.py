"""What the command line leaves alone: the network, and every place but those it is given."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from faceqan_toolkit.models.architectures import build_backbone, official
from tests.conftest import HANG, SAMPLES, run_here
from tests.models.layouts import fill, shapes
from tests.models.test_architectures import saved

ROOT = Path(__file__).parents[2]

FORBID = """
import os, socket

def forbid(name):
    def refuse(*args, **options):
        # a Unix socket leads to this machine alone
        if name != "getaddrinfo" and args and args[0].family == getattr(socket, "AF_UNIX", None):
            return original(*args, **options)
        # how urllib3, which extras bring along, finds out when imported whether there is IPv6
        if name == "bind" and args[1] == ("::1", 0):
            return original(*args, **options)
        with open(os.environ["SOCKET_LOG"], "a") as log:
            log.write(f"{name} {args[1:]}\\n")
        raise OSError("no network here")
    owner = socket if name == "getaddrinfo" else socket.socket
    original = getattr(owner, name)
    setattr(owner, name, refuse)

for name in ("getaddrinfo", "connect", "connect_ex", "sendto", "bind"):
    forbid(name)
"""


EMPTY_NAMESPACE = ("unshare", "--map-root-user", "--net")
"""Linux runs a program without any network but a loopback of its own that is down."""


def has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*EMPTY_NAMESPACE, "true"], capture_output=True, check=False)
    return tried.returncode == 0


needs_namespaces = pytest.mark.skipif(
    not has_namespaces(), reason="this machine gives users no network namespaces (unshare -rn)"
)


class Place:
    """A machine whose network is forbidden and whose other folders are watched.

    Args:
        folder: of all of it.
        within: a program that starts ours.
    """

    def __init__(self, folder: Path, within: tuple[str, ...] = ()) -> None:
        self.folder, self.within = folder, within
        for name in ("home", "temporary", "here", "site"):
            (folder / name).mkdir(parents=True)
        (folder / "site/sitecustomize.py").write_text(FORBID, encoding="utf-8")
        self.log = folder / "sockets.log"

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self._python("-m", "faceqan_toolkit", *map(str, arguments))

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        home, temporary = str(self.folder / "home"), str(self.folder / "temporary")
        paths = (str(self.folder / "site"), str(ROOT), os.environ.get("PYTHONPATH", ""))
        environment = {
            **os.environ,
            **dict.fromkeys(("HOME", "USERPROFILE"), home),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary),
            **{f"XDG_{kind}_HOME": f"{home}/{kind}" for kind in ("CACHE", "CONFIG", "DATA")},
            "FACEQAN_TOOLKIT_MODELS": str(self.folder / "models"),
            "SOCKET_LOG": str(self.log),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            [*self.within, sys.executable, *arguments], env=environment, capture_output=True,
            text=True, cwd=self.folder / "here", timeout=HANG, check=False,
        )  # fmt: skip

    def run_all(self, commands: Sequence[Sequence[str | Path]]) -> list[int]:
        """Run commands one after the other in one process; return their exit codes."""
        code = f"""
import json
from faceqan_toolkit.cli import cli
codes = []
for arguments in {[list(map(str, command)) for command in commands]!r}:
    try:
        cli.main(arguments, prog_name="faceqan-toolkit")
    except SystemExit as done:
        codes.append(done.code or 0)
print(json.dumps(codes))
"""
        done = self._python("-c", code)
        assert done.returncode == 0, done.stderr
        codes: list[int] = json.loads(done.stdout.splitlines()[-1])
        return codes

    def left_behind(self) -> list[str]:
        return [
            path.relative_to(self.folder).as_posix()
            for name in ("home", "temporary", "here")
            for path in (self.folder / name).rglob("*")
        ]

    def asked(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_guard_itself(place: Place) -> None:
    """Without it the tests below could not fail."""
    pytest.importorskip("fsspec")
    done = place.run("detect", "https://127.0.0.1:9/a.jpg", "-o", place.folder / "run",
                     "--detector", "yunet", *HERE)  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "1 unreachable" in done.stderr
    assert "127.0.0.1" in place.asked()


QUICK = ("-k", "1", "-l", "1", "--device", "cpu", "--workers", "1")
HERE = ("--engine", "inline")
"""Starts no further process; that one is left alone as the others is seen once."""


def prepare(folder: Path) -> None:
    """Make photos of two people, and a weights file."""
    for path in (
        "ann/hopper.jpg",
        "bob/astronaut.jpg",
        "bob/astronaut_dark.jpg",
        "bob/corrupt.jpg",
    ):
        person, name = path.split("/")
        (folder / "photos" / person).mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / name, folder / "photos" / person)
    network = build_backbone(official("iresnet", 18, embedding_size=8), "meta")
    (folder / "w.pth").write_bytes(saved(fill(shapes(network.state_dict()))))


RANKED = 5
"""So many of the commands below make the results that are compared."""


def commands(folder: Path) -> list[tuple[tuple[str | Path, ...], int]]:
    """Return every command that works on files, with its exit code."""
    photos, run, aligned = (folder / name for name in ("photos", "run", "aligned"))
    why, kept = folder / "why", folder / "kept"
    return [
        (("align-and-score", photos, "-o", run, *QUICK), 3),
        (("detect", photos, "-o", folder / "found", "--detector", "yunet", *HERE), 3),
        (("align", photos, "-o", aligned, "--device", "cpu", *HERE), 3),
        (("score", aligned / "crops", "-o", folder / "scored", *QUICK, *HERE), 0),
        (("merge", run, "-o", folder / "merged"), 3),
        (("rank", run), 0),
        (("report", run, "--group-by", "folder"), 0),
        (("filter", run, "--keep-top", "1", "--mode", "copy", "--to", kept), 0),
        (("explain", run, "-o", why, "--worst", "1", "--best", "0", "--device", "cpu"), 0),
        (("explain", photos / "ann/hopper.jpg", "-o", why, *QUICK[:6]), 0),
        (("calibrate", run, "--target-discard", "0.1", "-o", folder / "c.json"), 0),
        (("models", "add", "mine", folder / "w.pth"), 0),
        (
            ("align-and-score", photos, "-o", folder / "mine", "--model", "mine", *QUICK, *HERE),
            3,
        ),
        (("models", "verify"), 0),
        (("models", "list"), 0),
        (("doctor",), 0),
        (
            (
                "evaluate",
                "folders",
                photos,
                "-o",
                folder / "out",
                "--run",
                run,
                "--bootstrap",
                "20",
            ),
            3,
        ),
    ]


@pytest.fixture(scope="module")
def worked(tmp_path_factory) -> Place:
    """A place where every command has been run, without any network where that is possible."""
    folder = tmp_path_factory.mktemp("worked")
    place = Place(folder, EMPTY_NAMESPACE if has_namespaces() else ())
    prepare(folder)
    typed, codes = zip(*commands(folder), strict=True)
    assert place.run_all(typed[:-1]) == list(codes[:-1])
    assert not place.left_behind()
    assert place.run_all(typed[-1:]) == [codes[-1]]  # matplotlib keeps a list of fonts
    return place


@pytest.mark.slow
def test_no_network_and_no_other_place(worked: Place) -> None:
    assert not worked.asked()
    photos, run = worked.folder / "photos", worked.folder / "run"
    assert not [path for path in photos.rglob("*") if path.is_file() and path.parent == photos]
    assert not list(run.rglob("*.tmp"))
    assert not list(run.glob(".spill-*"))


@needs_namespaces
def test_the_namespace_itself() -> None:
    """What Python does not see, code of C libraries for instance, reaches nothing there either."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ask = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=60)"
        for within, reached in (((), True), (EMPTY_NAMESPACE, False)):
            done = subprocess.run(
                [*within, sys.executable, "-c", ask], capture_output=True, check=False
            )
            assert (done.returncode == 0) == reached, done.stderr


@needs_namespaces
@pytest.mark.slow
def test_the_same_results_without_any_network(worked: Place, tmp_path: Path) -> None:
    prepare(tmp_path)
    for typed, code in commands(tmp_path)[:RANKED]:
        assert run_here(*typed, cwd=tmp_path).returncode == code
    for result in ("run/rankings.csv", "scored/rankings.csv", "merged/rankings.csv",
                   "found/faces.csv"):  # fmt: skip
        one, other = (
            (folder / result).read_text(encoding="utf-8").replace(str(folder), "")
            for folder in (tmp_path, worked.folder)
        )
        assert one == other
        assert one.count("\n") > 3


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_results_have_the_rights_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        done = run_here("detect", SAMPLES / "hopper.jpg", "-o", "run", "--detector", "yunet",
                        cwd=tmp_path)  # fmt: skip
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_redact_and_no_crops_leave_no_picture(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = run_here("align-and-score", SAMPLES / "hopper.jpg", "-o", run, "--no-crops",
                    "--no-report", "--preset", "instant", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert run_here("report", run, "--redact", cwd=tmp_path).returncode == 0
    assert not (run / "crops").exists()
    assert not (run / "report-files").exists()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'id="sheet-' not in page
    assert 'id="photo-' not in page
    for path in run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"\xff\xd8\xff" not in content, path
            assert b"\x89PNG" not in content, path
