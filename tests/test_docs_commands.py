"""Every command that README and docs show: parsed, and run where that is possible."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

from faceqan_toolkit import cli
from faceqan_toolkit.cli.reporter import SOME_FAILED
from tests.conftest import SAMPLES, run_here
from tests.docs_scene import README_RUN, Done, Page, make_scene, output, why_not

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


COMMANDS = {page: commands_of(text) for page, text in PAGES.items()}
SHOWN = [
    pytest.param(page, number, id=f"{page}: {' '.join(arguments)[:60]}")
    for page, commands in COMMANDS.items()
    for number, arguments in enumerate(commands)
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


@dataclass
class Scene:
    """Copies of one scene, a page each."""

    folder: Path
    known: dict[str, Done]
    pages: dict[str, Page] = field(default_factory=dict)

    def page(self, name: str) -> Page:
        if name not in self.pages:
            folder = self.folder.parent / name.replace("/", "_")
            shutil.copytree(self.folder, folder, symlinks=True)
            self.pages[name] = Page(folder, name, COMMANDS[name], self.known)
        return self.pages[name]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("docs") / "scene"
    folder.mkdir()
    return Scene(folder, make_scene(folder))


@pytest.fixture
def any_path(monkeypatch) -> None:
    """Let every path pass, as if it were there."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))


@pytest.mark.parametrize(("page", "number"), SHOWN)
@pytest.mark.usefixtures("any_path")
def test_it_is_a_command(page: str, number: int) -> None:
    parse(COMMANDS[page][number])


def test_a_mistake_in_a_page_is_found() -> None:
    for wrong in ("rank run --tpo 3", "rnak run", "filter run --mode steal", "detect -o run"):
        with pytest.raises(click.ClickException):
            parse(shlex.split(wrong))


def test_enough_of_them_run() -> None:
    every = [arguments for commands in COMMANDS.values() for arguments in commands]
    run = [arguments for arguments in every if not why_not(arguments)]
    assert len(run) >= max(37, len(every) - 2)


@pytest.mark.parametrize(("page", "number"), SHOWN)
def test_it_runs(page: str, number: int, scene: Scene) -> None:
    arguments = COMMANDS[page][number]
    if reason := why_not(arguments):
        pytest.skip(reason)
    done = scene.page(page).result(number)
    assert done.returncode in (0, SOME_FAILED), done.stderr
    assert (scene.page(page).folder / output(arguments)).exists()


@pytest.mark.slow
def test_the_output_in_the_readme(tmp_path: Path) -> None:
    """Scores may differ by what other machines and libraries round; OpenCV 4 and 5 cut crops
    that differ by a grey value or more."""
    row = re.compile(r"^ *(\d+)   (\d\.\d{4}) +\d+ +([\d.]+) +(\d+) .* (\S+ \[\d+\])\s*$", re.M)
    (tmp_path / "raw_photos").symlink_to(SAMPLES)
    done = run_here(*README_RUN, "--no-report", cwd=tmp_path)
    printed = row.findall(done.stdout + done.stderr)
    shown = row.findall(PAGES["README.md"])
    assert len(shown) == 10
    for (rank, quality, *others), (shown_rank, shown_quality, *shown_others) in zip(
        printed, shown, strict=True
    ):
        assert (rank, others) == (shown_rank, shown_others)
        assert float(quality) == pytest.approx(float(shown_quality), abs=0.005)
    told = re.findall(r"^(?:Rows: |  \w+, for instance ).*$", PAGES["README.md"], re.M)
    assert len(told) == 4
    assert "\n".join(told) in done.stderr


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
