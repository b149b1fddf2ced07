"""Tables at the widths of terminals, with the output of real commands."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Console

from faceqan_toolkit.cli import cli, show, show_evaluation
from faceqan_toolkit.cli.tables import MOST_LINES, Cell, Column, Layout, shorten
from faceqan_toolkit.evaluation.statistics import Agreement, agree
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.evaluation.conftest import evaluations as evaluations  # a fixture
from tests.ledgers import face, write_run

WIDTHS = (60, 80, 120, 200)
DEEP = "people/" + "a-long-folder-name/" * 6


class Terminal:
    """Collects what is printed on a terminal of some width."""

    def __init__(self, width: int, *, is_terminal: bool = True) -> None:
        self.width, self._file = width, io.StringIO()
        self._is_terminal = is_terminal

    def console(self, *, stderr: bool) -> Console:
        return Console(
            file=self._file, width=self.width, force_terminal=self._is_terminal, color_system=None,
            highlight=False, soft_wrap=True,
        )  # fmt: skip

    def lines(self) -> list[str]:
        return self._file.getvalue().splitlines()


@pytest.fixture(params=WIDTHS, ids=str)
def terminal(request, monkeypatch) -> Terminal:
    terminal = Terminal(request.param)
    monkeypatch.setattr(show, "make_console", terminal.console)
    monkeypatch.setattr(show_evaluation, "make_console", terminal.console)
    return terminal


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with long paths and long reasons, and one to compare it with."""
    root = tmp_path / "photos"
    records = [
        face(root, f"{DEEP}photo-{n}-{'long' * 10}.jpg", n / 10, face_px=70.0 + n, confidence=0.99)
        for n in range(1, 8)
    ]
    records.append(face(root, "kurz/写真写真写真写真写真写真写真写真写真写真写真.jpg", 0.85))
    failed = Record(f"{DEEP}bad.jpg", str(root), None, "no_face", "no face found; " * 20)
    write_run(tmp_path / "run", [*records, failed])
    other = [replace(record, quality=1 - (record.quality or 0)) for record in records]
    write_run(tmp_path / "other", other, Settings(seed=1))
    return tmp_path / "run"


def fits(terminal: Terminal, rows: int) -> list[str]:
    """Return the lines of a table, none too long, no row too high."""
    lines = terminal.lines()
    assert max(map(cell_len, lines)) <= terminal.width, lines
    assert len(lines) <= 1 + rows * MOST_LINES
    assert all(line == line.rstrip() for line in lines)
    return lines


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stderr


def test_a_ranking(run: Path, terminal: Terminal) -> None:
    told = invoke("rank", run)
    lines = fits(terminal, 9)
    dropped = {60: "percentile, face px, confidence", 80: "confidence"}.get(terminal.width, "")
    assert lines[0].startswith("rank  quality  of 100")
    assert all(name not in lines[0] for name in dropped.split(", ") if name)
    assert told == (f"Columns left out to fit the terminal: {dropped}\n" if dropped else "")
    ranked = [line for line in lines[1:] if line[:4].strip().isdigit()]
    assert [int(line[:4]) for line in ranked] == list(range(1, 9))
    assert all(line.endswith(".jpg [0]") for line in ranked)  # the middle is left out
    assert "..." in ranked[1]
    assert sum("no_face" in line for line in lines) == 1


def test_two_runs(run: Path, terminal: Terminal) -> None:
    invoke("rank", run, run.parent / "other")
    lines = terminal.lines()
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("moved")) :]
    assert max(map(cell_len, table)) <= terminal.width
    assert len(table) == 9
    assert ("quality" in table[0]) == (terminal.width > 60)


def test_a_summary(run: Path, terminal: Terminal) -> None:
    show.print_summary(show.Ranking(show_run(run)).run, {"ok": 8, "no_face": 1}, [])
    fits(terminal, 8)


def show_run(folder: Path):
    from faceqan_toolkit.runs.folder import read_run

    return read_run(folder)


@pytest.mark.parametrize("below", [(), ("--below", "0.5")], ids=str)
def test_groups(run: Path, terminal: Terminal, below: tuple[str, ...]) -> None:
    told = invoke("rank", run, "--group-by", "folder", *below)
    lines = fits(terminal, 2)
    assert len(lines) == 3
    assert "median" in lines[0]
    assert ("below 0.5" in lines[0]) == bool(below)
    assert ("25 %" in lines[0]) == ("25 %" not in told)
    assert terminal.width < 200 or not told


def test_an_evaluation(evaluations, terminal: Terminal) -> None:
    show_evaluation.print_evaluation(evaluations[0], [])
    lines = fits(terminal, 7)  # a title and six methods
    assert lines[0].startswith("LFW")
    for point in evaluations[0].points:
        assert point.name in lines[1]
    value = f"{evaluations[0].method('FaceQAN').figures[0].areas[0].normalised:.3f}"
    assert any(value in line for line in lines)


def test_an_agreement(tmp_path: Path, terminal: Terminal) -> None:
    from faceqan_toolkit.evaluation.score_files import read_scores

    for name, sign in (("one", 1), ("two", -1)):
        rows = [f"{DEEP}{n}.jpg,{sign * n / 7}" for n in range(7)]
        (tmp_path / f"{name}.csv").write_text("path,quality\n" + "\n".join(rows) + "\n")
    made = [read_scores(tmp_path / f"{n}.csv", f"{n}{'-and-more' * 4}") for n in ("one", "two")]
    agreement: Agreement = agree(*made)
    show_evaluation.print_agreement(agreement, 5)
    lines = terminal.lines()
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("moved")) :]
    assert max(map(cell_len, table)) <= terminal.width
    assert len(table) == 6
    assert all(line.endswith(".jpg") for line in table[1:])


def test_the_models(terminal: Terminal) -> None:
    told = invoke("models", "list")
    lines = terminal.lines()
    assert max(map(cell_len, lines)) <= terminal.width
    assert any(line.startswith("buffalo_l_w600k_r50 ") for line in lines)
    assert ("trained on" in told) == (terminal.width == 60)
    assert "commercial" in lines[0]


def test_a_pipe_gets_a_line_a_row(run: Path) -> None:
    done = CliRunner().invoke(cli, ["rank", str(run)])
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert f"{DEEP}bad.jpg  no_face: {'no face found; ' * 20}".rstrip() in lines[-1]
    assert all("confidence" in lines[0] and "..." not in line for line in lines)
    assert not done.stderr


@pytest.mark.parametrize("width", range(8, 40))
def test_shortened_texts_keep_both_ends(width: int) -> None:
    for text in ("people/ann/holiday/1.jpg [0]", "写真/写真写真写真写真写真写真/写真写真.jpg"):
        short = shorten(text, width)
        assert cell_len(short) <= width
        assert (short == text) == (cell_len(text) <= width)
        assert short[:1] == text[:1]
        assert short[-2:] == text[-2:]


def test_columns_of_one_number_are_left_out_together() -> None:
    columns = [Column("a"), Column("b" * 10, drop=1), Column("c" * 10, drop=2), Column("d", drop=2)]
    row = [Cell("1")] * 4
    assert Layout(columns, [row], 40).dropped == []
    assert Layout(columns, [row], 20).dropped == ["c" * 10, "d"]
    assert Layout(columns, [row], 8).dropped == ["b" * 10, "c" * 10, "d"]
    assert Layout(columns, [row], 8).lines(row) == ["1"]
    lone = Layout([Column("wide" * 5)], [row[:1]], 8)
    assert lone.lines([Cell("wide" * 5)]) == ["wide" * 5]  # nothing to drop


def test_a_table_continues_with_the_widths_above() -> None:
    columns = [Column("n", right=True), Column("path", least=6, is_path=True)]
    above = Layout(columns, [[Cell("1000"), Cell("a.jpg")]], None)
    below = Layout(columns, [[Cell("7"), Cell("b.jpg")]], None, above.widths)
    assert below.lines([Cell("7"), Cell("b.jpg")]) == ["   7  b.jpg"]
