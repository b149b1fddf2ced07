"""Exit codes of runs: nothing to do, and how many failures are a failure."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from faceqan_toolkit.cli import cli
from faceqan_toolkit.cli.reporter import MEANINGS, code_for, fail_on_option
from tests.conftest import SAMPLES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("fail_on", "failed", "total", "code"),
    [
        ("any", 0, 5, 0),
        ("any", 1, 5, 3),
        ("never", 5, 5, 0),
        ("all", 4, 5, 0),
        ("all", 5, 5, 3),
        ("all", 0, 0, 0),
        ("0.2", 1, 5, 0),
        ("0.2", 2, 5, 3),
        ("0", 1, 5, 3),
        ("0", 0, 5, 0),
        ("1", 5, 5, 0),
        (None, 1, 5, 3),
    ],
)
def test_fail_on(fail_on: str | None, failed: int, total: int, code: int) -> None:
    @click.command()
    @fail_on_option
    def command() -> None:
        raise click.exceptions.Exit(code_for(failed, total))

    given = [] if fail_on is None else ["--fail-on", fail_on]
    assert CliRunner().invoke(command, given).exit_code == code


@pytest.mark.parametrize("wrong", ["some", "1.1", "-0.1", "10%", "nan", ""])
def test_other_values_are_refused(wrong: str) -> None:
    done = CliRunner().invoke(cli, ["detect", "photos", "-o", "run", "--fail-on", wrong])
    assert done.exit_code == 2
    assert "is not never, any, all or a share from 0 to 1" in done.stderr


def detect(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["detect", *arguments, "-o", "run", "--engine", "inline"])


def test_a_run_with_failures(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("hopper_tiny.jpg", "corrupt.jpg"):
        shutil.copy(SAMPLES / name, tmp_path / "photos")
    done = detect("photos")
    assert done.exit_code == 3, done.output
    assert done.stderr.splitlines()[-1].startswith("Exit code 3: the run is complete, but some")
    for fail_on, code in (("never", 0), ("all", 0), ("0.5", 0), ("0.4", 3)):
        done = detect("photos", "--fail-on", fail_on)
        assert done.exit_code == code, (fail_on, done.output)
        assert "the run is complete, but some photos or faces have no result" in done.stderr
        assert ("Exit code" in done.stderr) == bool(code)
    merged = CliRunner().invoke(cli, ["merge", "run", "-o", "merged", "--fail-on", "never"])
    assert merged.exit_code == 0, merged.output


def test_no_photos(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/notes.txt").write_text("no photo")
    for arguments in ([], ["--fail-on", "never"], ["--shard", "1/2"]):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        done = detect("photos", *arguments)
        assert done.exit_code == 4, done.output
        assert done.stderr.splitlines()[-1].startswith("Exit code 4: no photos were found.")
    # photos were there, and have vanished with the disk that was mounted there
    shutil.rmtree(tmp_path / "run")
    shutil.copy(SAMPLES / "hopper_tiny.jpg", tmp_path / "photos")
    assert detect("photos").exit_code == 0
    before = (tmp_path / "run/faces.csv").read_bytes()
    (tmp_path / "photos/hopper_tiny.jpg").unlink()
    assert detect("photos").exit_code == 4
    assert (tmp_path / "run/faces.csv").read_bytes() == before
    shutil.rmtree(tmp_path / "photos")
    assert detect("photos").exit_code == 2


def test_a_shard_without_photos_is_a_success(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    shutil.copy(SAMPLES / "hopper_tiny.jpg", tmp_path / "photos")
    codes = set()
    for shard in ("1/2", "2/2"):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        codes.add(detect("photos", "--shard", shard).exit_code)
    assert codes == {0}


def test_every_code_is_documented() -> None:
    for page in ("README.md", "docs/commands.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", text, re.M))
        assert set(map(int, rows)) == set(MEANINGS)
