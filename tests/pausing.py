"""Programs that stop at a known place, so that a test can interrupt or kill them there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import wait_until

CODE = """
def pause(owner, name, number):
    import time
    from pathlib import Path
    real, calls = getattr(owner, name), []
    def pausing(*arguments, **options):
        result = real(*arguments, **options)
        calls.append(1)
        if len(calls) == number:
            Path({paused!r}).touch()
            while not Path({go_on!r}).exists():
                time.sleep(0.01)
        return result
    setattr(owner, name, pausing)
import importlib
owner = importlib.import_module({module!r})
for part in {classes!r}:
    owner = getattr(owner, part)
pause(owner, {name!r}, {number})
"""


def pausing(folder: Path, function: str, number: int) -> str:
    """Return code that makes a program stop after the n-th call of a function.

    Args:
        folder: takes a file that says so; see `wait_for_pause` and `go_on`.
        function: "module:function" or "module:Class.method", within the package.
        number: n.
    """
    module, _, names = function.partition(":")
    *classes, name = names.split(".")
    return CODE.format(
        paused=str(folder / "paused"), go_on=str(folder / "go_on"), name=name, number=number,
        module=f"faceqan_toolkit.{module}", classes=classes,
    )  # fmt: skip


def wait_for_pause(folder: Path, process: subprocess.Popen[Any]) -> None:
    """Wait until a program has stopped; one that has ended never will."""

    def paused() -> bool:
        assert process.poll() is None, process.communicate()
        return (folder / "paused").exists()

    wait_until(paused)


def go_on(folder: Path) -> None:
    """Let the program go on."""
    (folder / "go_on").touch()
