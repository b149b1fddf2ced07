"""`rank` of groups and of two runs, on the real command line; scores are made up."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from faceqan_toolkit.cli import cli, show
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.conftest import CommandLine
from tests.ledgers import face, write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    first = [face(root, f"{who}/{n}.jpg", n / 10) for who in ("ann", "bob") for n in range(1, 5)]
    first.append(Record("eve/x.jpg", str(root), None, "no_face"))
    second = [face(root, "ann/1.jpg", 0.9), *first[1:]]
    write_run(tmp_path / "a", first)
    write_run(tmp_path / "b", second, Settings(seed=1))
    write_run(tmp_path / "c", second, weights="other")
    (tmp_path / "groups.csv").write_text("path,age\nann/1.jpg,old\nann/2.jpg,young\n")
    return tmp_path


@pytest.mark.parametrize("arguments", [(), ("--top", "5", "--bottom", "2")], ids=str)
def test_long_rankings_are_printed_in_blocks(
    runs: Path, arguments: tuple[str, ...], monkeypatch
) -> None:
    def printed(rows: int) -> list[str]:
        monkeypatch.setattr(show, "PRINTED", rows)
        done = CliRunner().invoke(cli, ["rank", str(runs / "a"), *arguments])
        assert done.exit_code == 0, done.output
        return [line.rstrip() for line in done.stdout.splitlines()]

    whole = printed(1000)
    assert len(whole) == 1 + (9 if not arguments else 8)
    assert all(printed(rows) == whole for rows in (1, 2, 3, 5, 8, 9))


@pytest.mark.parametrize("arguments", [("--top", "1"), ("--bottom", "2"), ("--format", "pickle")])
def test_a_run_without_scores_has_no_best(
    command_line: CommandLine, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    write_run(tmp_path / "found", [face(tmp_path, "a.jpg", None)], Settings(task="detect"))
    done = command_line("rank", "found", *arguments)
    assert done.returncode == 1
    assert "has no scores; it was made by detect" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ranking_that_says_nothing_says_so(command_line: CommandLine, tmp_path: Path) -> None:
    faces = [replace(face(tmp_path, f"{n}.jpg", 1 + n * 1e-8), sha256=str(n)) for n in range(3)]
    write_run(tmp_path / "equal", faces)
    for arguments in (["rank", "equal"], ["merge", "equal", "-o", "merged", "--no-report"]):
        done = command_line(*arguments)
        assert "Warning: all faces have the same quality, 1; the ranking" in done.stderr
    write_run(tmp_path / "unlike", [*faces, face(tmp_path, "x.jpg", 0.9)])
    assert command_line("rank", "unlike").stderr == ""


def test_groups(command_line: CommandLine, runs: Path) -> None:
    done = command_line("rank", "a", "--group-by", "folder", "--below", "0.25")
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert "below 0.25" in header
    assert [line.split()[:3] for line in lines] == [
        ["ann", "4", "0"], ["bob", "4", "0"], ["eve", "0", "1"],
    ]  # fmt: skip
    # scipy.stats.binomtest(2, 4).proportion_ci(method="wilson")
    assert "50.0 %   15.0 .. 85.0" in lines[0]
    done = command_line("rank", "a", "--group-by", "age", "--groups", "groups.csv")
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["old", "1"], ["young", "1"], ["(none)", "6"],
    ]  # fmt: skip
    done = command_line("rank", "a", "--group-by", "folder", "--format", "csv", "--format", "jsonl")
    assert done.stdout.split() == [str(Path("a/groups.csv")), str(Path("a/groups.jsonl"))]
    assert (runs / "a/groups.csv").read_text().startswith("group,faces,unscored,mean,q05")


def test_two_runs(command_line: CommandLine, runs: Path) -> None:
    done = command_line("rank", "a", "b")
    assert done.returncode == 0, done.stderr
    assert "Common faces: 8; Spearman's rank correlation 0." in done.stdout
    assert "Setting seed: 0 and 1" in done.stdout
    assert "Quality, second minus first: +0.1000 on average" in done.stdout
    table = done.stdout[done.stdout.index("moved") :].splitlines()
    assert len(table) == 9
    assert table[1].startswith("+75.0")
    assert table[1].endswith("ann/1.jpg [0]")
    top = command_line("rank", "a", "b", "--top", "2").stdout
    assert len(top[top.index("moved") :].splitlines()) == 3
    done = command_line("rank", "a", "b", "--format", "csv")
    assert done.stdout.split() == [str(Path("b/comparison.csv"))]
    whole = (runs / "b/comparison.csv").read_text().splitlines()
    assert len(whole) == 9
    done = command_line("rank", "a", "b", "--top", "2", "--format", "csv")
    assert done.stdout.splitlines() == whole[:3]
    assert done.stderr == "2 of 8 rows\n"
    assert (runs / "b/comparison.csv").read_text().splitlines() == whole
    write_run(runs / "d", [face(runs / "photos", "dan/1.jpg", 0.5)])
    done = command_line("rank", "a", "d")
    assert done.stdout.splitlines()[0] == "Common faces: 0"
    assert "Only in the first run: 8, in the second: 1" in done.stdout
    refused = command_line("rank", "a", "c")
    assert refused.returncode == 1
    assert "scores of different models cannot be compared" in refused.stderr


def run_rank(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["rank", *arguments])


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        (["--top", "2"], ["ann/4.jpg", "bob/4.jpg"]),
        (["--bottom", "1"], ["bob/1.jpg"]),
        (["--top", "1", "--bottom", "1"], ["ann/4.jpg", "bob/1.jpg"]),
    ],
    ids=str,
)
def test_some_rows_replace_no_file_of_the_run(
    runs: Path, arguments: list[str], paths: list[str], monkeypatch
) -> None:
    monkeypatch.chdir(runs)
    assert run_rank("a", "--format", "csv", "--format", "jsonl").exit_code == 0
    whole = {name: (runs / "a" / name).read_bytes() for name in ("rankings.csv", "rankings.jsonl")}
    assert len(whole["rankings.csv"].splitlines()) == 1 + 9

    printed = run_rank("a", *arguments, "--format", "csv")
    assert [row["path"] for row in csv.DictReader(printed.stdout.splitlines())] == paths
    assert printed.stderr == f"{len(paths)} of 9 rows\n"
    written = run_rank("a", *arguments, "--format", "csv", "-o", "some.csv")
    assert written.stdout == "some.csv\n"
    assert Path("some.csv").read_text() == printed.stdout
    again = run_rank("a", *arguments, "--format", "csv", "-o", "some.csv")
    assert again.exit_code == 0, "its own file may be replaced"
    lines = run_rank("a", *arguments, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line)["path"] for line in lines] == paths

    for wrong, message in (
        (["--format", "parquet"], "give -o FILE, or one --format of csv and jsonl"),
        (["--format", "pickle"], "give -o FILE, or one --format of csv and jsonl"),
        (["--format", "csv", "--format", "jsonl"], "give -o FILE"),
        (["--format", "csv", "-o", "a/rankings.csv"], "holds every row; choose another name"),
        (["--format", "csv", "-o", "a/run.json"], "is there and is no csv of this tool"),
        (["-o", "some.csv"], "-o FILE takes one --format"),
    ):
        refused = run_rank("a", *arguments, *wrong)
        assert refused.exit_code in (1, 2)
        assert message in " ".join(refused.stderr.split())
        assert refused.stdout == ""
    for name, content in whole.items():
        assert (runs / "a" / name).read_bytes() == content


def test_all_rows_to_a_file(runs: Path, monkeypatch) -> None:
    monkeypatch.chdir(runs)
    for file_format in ("csv", "jsonl", "parquet", "pickle"):
        done = run_rank("a", "--format", file_format, "-o", f"all.{file_format}")
        assert (done.stdout, done.exit_code) == (f"all.{file_format}\n", 0)
        assert Path(f"all.{file_format}").stat().st_size
    groups = run_rank("a", "--group-by", "folder", "--format", "csv", "-o", "g.csv")
    assert groups.stderr == "3 of 3 rows\n"
    assert not list(Path("a").glob("*.csv"))


@pytest.mark.parametrize(
    "command",
    [
        ("rank",),
        ("rank", "--group-by", "folder"),
        ("rank", "b"),
        ("report",),
        ("filter", "--keep-top", "1"),
        ("calibrate", "--target-discard", "0.1"),
    ],
    ids=" ".join,
)
def test_a_run_whose_records_are_gone(runs: Path, command: tuple[str, ...], monkeypatch) -> None:
    content = json.loads((runs / "a/run.json").read_text())
    (runs / "a/run.json").write_text(json.dumps({**content, "counts": {"ok": 4}}))
    shutil.rmtree(runs / "a/records")
    monkeypatch.chdir(runs)
    done = CliRunner().invoke(cli, [command[0], "a", *command[1:]])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "a has lost its records" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--below", "0.5"], "go with --group-by"),
        (["a", "--group-by", "age"], "needs --groups"),
        (["a", "--group-by", "sex", "--groups", "groups.csv"], "path and sex"),
        (["a", "--group-by", "folder", "--top", "3"], "leave --top"),
        (["a", "--group-by", "folder", "--format", "pickle"], "for a ranking alone"),
        (["a", "b", "--bottom", "3"], "without --bottom"),
        (["a", "b", "--group-by", "folder"], "without --bottom and --group-by"),
        (["a", "photos"], "no run.json"),
    ],
    ids=str,
)
def test_wrong_usage(runs: Path, arguments: list[str], message: str, monkeypatch) -> None:
    monkeypatch.chdir(runs)
    done = CliRunner().invoke(cli, ["rank", *arguments])
    assert done.exit_code in (1, 2)
    assert isinstance(done.exception, SystemExit), "no traceback"
    assert message in done.stderr
    assert done.stdout == ""
