"""Every command that README and docs show: run where its inputs can be had, else parsed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from faceqan_toolkit import cli
from faceqan_toolkit.ranking import Ranking
from faceqan_toolkit.runs import read_run
from tests.conftest import SAMPLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/**/*.md", "samples/*.md", "weights/**/*.md")
    for path in sorted(ROOT.glob(pattern))
}


def shown_lines(text: str) -> list[str]:
    """Return the lines of a page's code blocks, a command that goes on below as one."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)
    indented = re.findall(r"^    (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return [*"".join(blocks).replace("\\\n", " ").splitlines(), *indented]


def commands_of(text: str) -> list[list[str]]:
    lines = [line.removeprefix(".venv/bin/") for line in shown_lines(text)]
    shown = [line for line in lines if line.startswith("faceqan-toolkit ")]
    return [shlex.split(line, comments=True)[1:] for line in shown]


SHOWN = [
    pytest.param(page, arguments, id=f"{page}: {' '.join(arguments)[:60]}")
    for page, text in PAGES.items()
    for arguments in commands_of(text)
]


def parse(arguments: list[str]) -> tuple[str, click.Context]:
    """Return the command's name and its parsed parameters.

    Raises:
        click.ClickException: there is no such command, option, choice or number.
    """
    command: click.Command = cli.cli
    context, name = click.Context(cli.cli), ""
    while isinstance(command, click.Group):
        name = " ".join(filter(None, (name, arguments[0])))
        found = command.get_command(context, arguments[0])
        if found is None:
            raise click.UsageError(f"no command {name}")
        command, arguments = found, arguments[1:]
    return name, command.make_context(name, arguments)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A folder that has what pages speak of, with the run that README shows."""
    folder = tmp_path_factory.mktemp("scene")
    shutil.copytree(SAMPLES, folder / "raw_photos")
    shutil.copy(SAMPLES / "hopper.jpg", folder / "photo.jpg")
    for name in ("photos", "more_photos", "people/ANN", "more/BOB"):
        (folder / name).mkdir(parents=True)
        shutil.copy(SAMPLES / "hopper_tiny.jpg", folder / name)
    done = invoke(folder, ["align-and-score", "raw_photos/", "-o", "run"])
    (folder / "shown.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    for copy in ("RUN", "other_run", "run_exact", "run_fast"):
        shutil.copytree(folder / "run", folder / copy)
    rows = Ranking(read_run(folder / "run")).rows()
    people = [f"{row['path']},{('young', 'old')[n % 2]}" for n, row in enumerate(rows)]
    (folder / "people.csv").write_text("\n".join(["path,age", *people]) + "\n", encoding="utf-8")
    return folder


def invoke(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "faceqan_toolkit", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


ALONE = {"doctor", "models list", "completion"}
"""Commands that need no files."""
READING = ("groups", "landmarks", "calibration", "calibration_path")
"""Options that name a file to read."""
NOT_HERE = ("model", "undo")
"""Options that need data which is not here."""
SLOW = {"align-and-score", "score", "explain", "merge"}
"""Commands that compute: of the README alone, for they have tests of their own."""


def runs_here(page: str, arguments: list[str], scene: Path) -> bool:
    """Tell whether the scene has all that a command reads; photos that others need stay."""
    name, context = parse(arguments)
    if name in SLOW and page != "README.md":
        return False
    if name in ALONE:
        return True
    if name not in cli.COMMANDS or name == "calibrate" or "move" in arguments:
        return False
    read: list[Path] = []
    for parameter in context.command.params:
        value, key = context.params.get(str(parameter.name)), parameter.name
        if key in NOT_HERE and value not in (None, parameter.default):
            return False
        if value and (isinstance(parameter, click.Argument) or key in READING):
            read += map(Path, value if isinstance(value, tuple) else [value])
    return bool(read) and all((scene / path).exists() for path in read)


@pytest.fixture
def any_path(monkeypatch) -> None:
    """Let every path pass, as if it were there."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))


@pytest.mark.parametrize(("page", "arguments"), SHOWN)
@pytest.mark.usefixtures("any_path")
def test_it_is_a_command(page: str, arguments: list[str]) -> None:
    parse(arguments)


def test_a_mistake_in_a_page_is_found() -> None:
    for wrong in ("rank run --tpo 3", "rnak run", "filter run --mode steal", "detect -o run"):
        with pytest.raises(click.ClickException):
            parse(shlex.split(wrong))


@pytest.mark.usefixtures("any_path")
def test_enough_of_them_run(scene: Path) -> None:
    run = [case.values[1][0] for case in SHOWN if runs_here(*case.values, scene)]
    assert len(run) >= 14
    assert {"align-and-score", "filter", "rank", "report", "explain", "doctor"} <= set(run)


@pytest.mark.parametrize(("page", "arguments"), SHOWN)
@pytest.mark.usefixtures("any_path")
def test_it_runs(page: str, arguments: list[str], scene: Path) -> None:
    if not runs_here(page, arguments, scene):
        return  # parsed above, which is all that can be done without its data
    done = invoke(scene, arguments)
    assert done.returncode in (0, cli.SOME_FAILED), done.stderr
    assert "Traceback" not in done.stderr


def test_the_output_in_the_readme(scene: Path) -> None:
    """Scores may differ by what other machines and libraries round; OpenCV 4 and 5 cut crops
    that differ by a grey value or more."""
    row = re.compile(r"^ *(\d+)   (\d\.\d{4}) +\d+ +([\d.]+) +(\d+) .* (\S+ \[\d+\])\s*$", re.M)
    printed = row.findall((scene / "shown.txt").read_text(encoding="utf-8"))
    shown = row.findall(PAGES["README.md"])
    assert len(shown) == 10
    for (rank, quality, *others), (shown_rank, shown_quality, *shown_others) in zip(
        printed, shown, strict=True
    ):
        assert (rank, others) == (shown_rank, shown_others)
        assert float(quality) == pytest.approx(float(shown_quality), abs=0.005)
    told = re.findall(r"^(?:Rows: |  \w+, for instance ).*$", PAGES["README.md"], re.M)
    assert len(told) == 4
    assert "\n".join(told) in (scene / "shown.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_scripts_extras_and_targets_exist(page: str) -> None:
    text = PAGES[page]
    for script, arguments in re.findall(r"((?:[\w/]+/)?\w+\.py)((?: [^`|\n#]*)?)", text):
        for path in (ROOT / script, ROOT / "benchmarks" / script):
            if path.is_file():
                for option in re.findall(r" (--[\w-]+)", arguments):
                    assert f'"{option}"' in source_of(path), (script, option)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"(?:faceqan-toolkit|'\.)\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w-]+)`|^make ([\w-]+) *(?:#|$)", text, re.M):
        assert re.search(rf"^{''.join(target)}:", makefile, re.M), target


def source_of(script: Path) -> str:
    """Return a script's text and that of its neighbours which it imports."""
    text = script.read_text(encoding="utf-8")
    others = script.parent.glob("*.py")
    imported = [path for path in others if re.search(rf"import {path.stem}\b", text)]
    return "".join([text, *(path.read_text(encoding="utf-8") for path in imported)])
