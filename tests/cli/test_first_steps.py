"""What a newcomer types first."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from faceqan_toolkit.cli import cli
from tests.conftest import HANG, SAMPLES, CommandLine


def test_the_name_alone_shows_what_to_type_first(command_line: CommandLine) -> None:
    done = command_line()
    assert done.returncode == 0
    assert "faceqan-toolkit align-and-score PHOTOS -o run" in done.stdout
    assert "doctor" in done.stdout
    assert len(done.stdout.splitlines()) < 20
    assert command_line("--help").stdout != done.stdout


def test_a_wrong_command_is_refused(command_line: CommandLine) -> None:
    done = command_line("rnak")
    assert done.returncode == 2
    assert "No such command 'rnak'" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_that_shell(shell: str, command_line: CommandLine) -> None:
    done = command_line("completion", shell)
    assert done.returncode == 0, done.stderr
    assert f"_FACEQAN_TOOLKIT_COMPLETE={shell}_complete" in done.stdout
    if program := shutil.which(shell):
        checked = subprocess.run(
            [program, "-n"], input=done.stdout, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr


def completed(command_line: CommandLine, words: str) -> list[str]:
    number = len(words.split(" ")) - 1
    done = command_line(
        env={
            "_FACEQAN_TOOLKIT_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
        }
    )
    return [line.split(",")[-1] for line in done.stdout.split()]


def test_commands_options_and_choices_are_completed(command_line: CommandLine) -> None:
    assert completed(command_line, "faceqan-toolkit al") == ["align-and-score", "align"]
    assert completed(command_line, "faceqan-toolkit models ve") == ["verify"]
    assert completed(command_line, "faceqan-toolkit rank --bo") == ["--bottom"]
    assert completed(command_line, "faceqan-toolkit score --preset in") == ["instant"]


@pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="needs bash")
def test_bash_takes_the_script(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "it").write_text(command_line("completion", "bash").stdout, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", "source ./it && complete -p faceqan-toolkit"],
        cwd=tmp_path, capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "_faceqan_toolkit_completion" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("detect", "{root}", "-o", "{name}"),
        ("explain", "{name}.png", "-o", "why"),
        ("evaluate", "validate", "folders", "{name}"),
        ("evaluate", "folders", "{root}", "-o", "out", "--model", "{name}.onnx"),
        ("evaluate", "folders", "{root}", "-o", "out", "--scores", "{name}"),
    ],
    ids=" ".join,
)
def test_names_that_no_file_system_takes_are_refused(
    command: tuple[str, ...], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for photo, person in zip(sorted(SAMPLES.glob("*.jpg")), "aabb", strict=False):
        (tmp_path / "root" / person).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "root" / person)
    words = [word.format(root=tmp_path / "root", name="a" * 300) for word in command]
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (1, 2)
    assert "name too long" in done.stderr or "no such file" in done.stderr, done.stderr
