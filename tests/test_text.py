"""Numbers, counts and CSV cells as text."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import random
import unicodedata
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.cli import cli
from faceqan_toolkit.detection.base import accept_faces
from faceqan_toolkit.errors import FaceTooSmall, NoFace
from faceqan_toolkit.results.filtering import Rules, decide
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.settings import FORMATS, Settings
from faceqan_toolkit.text import (
    FORMULA_STARTS,
    counted,
    crop_path,
    down_text,
    exact_text,
    first_line,
    guard,
    guard_sql,
    path_from_text,
    path_text,
    printable,
    reason_of,
    rounded_down,
    rounded_down_sql,
    shortest_between,
    unguard,
)
from faceqan_toolkit.types import Face, Record
from tests.ledgers import write_run


def test_counts() -> None:
    assert [counted(number, "photo") for number in (0, 1, 2, 1200)] == [
        "0 photos",
        "1 photo",
        "2 photos",
        "1,200 photos",
    ]


def test_reasons() -> None:
    assert reason_of(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.jpg")) == (
        os.strerror(errno.ENOENT)
    )
    assert reason_of(OSError("the disk is gone")) == "the disk is gone"
    assert reason_of(ValueError("no number")) == "no number"


def test_first_lines() -> None:
    assert first_line(RuntimeError("\n one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(RuntimeError("x" * 1000))) == 200


texts = st.text() | st.builds(str.__add__, st.sampled_from(FORMULA_STARTS), st.text())


@given(texts)
def test_text_comes_back_and_is_harmless(text: str) -> None:
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(texts.filter(lambda text: "\0" not in text and text.isprintable()))
def test_sql_guards_the_same(text: str) -> None:
    (found,) = duckdb.execute(f"SELECT {guard_sql('t')} FROM (SELECT ? AS t)", [text]).fetchone()
    assert found == guard(text)


numbers = st.floats(-1000, 1000) | st.sampled_from([0.1, 0.29, 0.7, 1 / 3, 0.0078125, 1.0, -0.0])
decimals = st.integers(0, 6)


def step(places: int) -> Decimal:
    return Decimal(1).scaleb(-places)


@settings(deadline=None)
@given(numbers, decimals)
def test_the_largest_decimal_that_is_not_above(value: float, places: int) -> None:
    below = Decimal(value).quantize(step(places), ROUND_FLOOR)
    if float(below + step(places)) <= value:  # the text reads back as the number itself
        below += step(places)
    assert rounded_down(value, places) == float(below)
    assert Decimal(down_text(value, places)) == below


def test_sql_rounds_as_python_does() -> None:
    chance = random.Random(0)
    values = [chance.uniform(-1, 1) for _ in range(2000)] + [n / 10**4 for n in range(2000)]
    values += [math.nextafter(value, way) for value in values[-2000:] for way in (-9.0, 9.0)]
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (place INTEGER, x DOUBLE)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(values))[::7])
        for places in (0, 2, 4, 6):
            rows = connection.execute(
                f"SELECT x, printf('%.{places}f', {rounded_down_sql('x', places)}) FROM t"
            ).fetchall()
            assert [text for _, text in rows] == [down_text(value, places) for value, _ in rows]


@given(numbers, decimals)
def test_exact_text_reads_back(value: float, places: int) -> None:
    text = exact_text(value, places)
    assert float(text) == value
    assert "." in text or "e" in text or not places  # an exponent below 20 decimals


@given(numbers, st.floats(1e-12, 1))
def test_shortest_between(high: float, gap: float) -> None:
    low = high - gap
    if low == high:
        return
    found = shortest_between(low, high, 2)
    assert low < found <= high
    fewer = max(2, len(exact_text(found).partition(".")[2])) - 1
    assert fewer < 2 or rounded_down(high, fewer) <= low


def ugly_run(folder: Path) -> RunInfo:
    """Qualities that lie close to each other and to borders of rounding, and others."""
    chance = random.Random(1)
    qualities = [0.49996, 0.5, 0.50004, 0.7614999, 0.76150004, 0.7615, 0.1, 0.1 + 1e-9, -0.00004]
    qualities += [chance.random() for _ in range(3)]
    return write_run(
        folder,
        [Record(f"{n:02d}.jpg", "/p", 0, "ok", quality=q) for n, q in enumerate(qualities)],
    )


def printed(run: RunInfo, shown: str, column: str, target: Path) -> dict[str, float]:
    """Return a column's numbers as they are printed, by path."""
    if shown == "terminal":
        table = CliRunner().invoke(cli, ["rank", str(run.folder)]).stdout.splitlines()[1:]
        place = {"quality": 1, "percentile": 3}[column]
        return {line.split()[-2]: float(line.split()[place]) for line in table}
    Ranking(run).export(target, shown)
    if shown == "csv":
        rows = list(csv.DictReader(io.StringIO(target.read_text())))
    elif shown == "jsonl":
        rows = [json.loads(line) for line in target.read_text().splitlines()]
    else:
        rows = pq.read_table(target).to_pylist()
    return {row["path"]: float(row[column]) for row in rows}


@pytest.mark.parametrize("column", ["quality", "percentile"])
def test_a_printed_number_keeps_its_row_and_drops_lower_ones(tmp_path: Path, column: str) -> None:
    run = ugly_run(tmp_path / "run")
    shown = {kind: printed(run, kind, column, tmp_path / "out") for kind in (*FORMATS, "terminal")}
    for threshold in {number for numbers in shown.values() for number in numbers.values()}:
        rules = Rules(**{f"min_{column}": threshold})
        kept = {decision.path for decision in decide(run, rules) if decision.kept}
        for kind, numbers in shown.items():
            assert len(numbers) == 12
            if threshold in numbers.values():
                as_printed = {path for path, number in numbers.items() if number >= threshold}
                assert kept == as_printed, (kind, threshold)


def test_a_dropped_row_says_why_truly(tmp_path: Path) -> None:
    run = ugly_run(tmp_path / "run")
    for rules in (Rules(min_quality=0.5), Rules(min_quality=0.76150004), Rules(min_percentile=50)):
        for decision in decide(run, rules):
            if not decision.kept:
                words = decision.reason.split()
                assert float(words[1]) < float(words[-1]), decision.reason


def found(confidence: float, size: float) -> Face:
    box = np.array([0.0, 0.0, size, size])
    return Face(box=box, landmarks=np.zeros((5, 2)), confidence=confidence)


@given(st.floats(1 / 64, 1, width=32), st.floats(2, 300))
def test_a_refused_face_is_told_by_numbers_that_accept_it(confidence: float, size: float) -> None:
    face = found(confidence, size)
    above = math.nextafter(confidence, 2)
    if above <= 1:
        with pytest.raises(NoFace) as refused:
            accept_faces([face], Settings(min_confidence=above))
        *_, best, _, _, limit = refused.value.reason.replace(",", "").split()
        assert float(best) < float(limit) == above
        assert accept_faces([face], Settings(min_confidence=float(best), min_face=1))
    with pytest.raises(FaceTooSmall) as small:
        accept_faces([face], Settings(min_confidence=0, min_face=math.floor(size) + 1))
    pixels = int(small.value.reason.split()[4])
    assert pixels < math.floor(size) + 1
    assert accept_faces([face], Settings(min_confidence=0, min_face=pixels))


names = st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw)


@pytest.mark.skipif(os.name == "nt", reason="paths are bytes on POSIX only")
@given(names)
def test_any_bytes_come_back(raw: bytes) -> None:
    text = path_text(os.fsdecode(raw))
    assert os.fsencode(path_from_text(text)) == raw
    assert text.isprintable() or any(ord(c) > 127 for c in text)
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain/a.jpg", "plain/a.jpg"),
        (b"100%.jpg", "100%.jpg"),
        (b"100%41.jpg", "100%2541.jpg"),
        (b"a\nb", "a%0Ab"),
        (b"\xff\xfe", "%FF%FE"),
        ("日本.jpg".encode(), "日本.jpg"),
        ("\u2028".encode(), "%E2%80%A8"),
    ],
)
def test_known_texts(raw: bytes, text: str) -> None:
    assert path_text(os.fsdecode(raw)) == text


@given(st.text(min_size=1, max_size=300).filter(lambda t: "/" not in t), st.integers(0, 999))
def test_crop_names_fit_file_systems(name: str, index: int) -> None:
    for part in crop_path(path_text(name), index).parts:
        assert len(os.fsencode(part)) <= 255


def test_long_names_stay_different() -> None:
    one, other = (crop_path("folder/" + "x" * 300 + end, 0) for end in ("a.jpg", "b.jpg"))
    assert one != other
    assert one.suffix == other.suffix == ".png"
    assert crop_path("a/b.jpg", 2).as_posix() == "a/b.jpg.2.png"


@given(st.text())
def test_printable_is_one_line_that_controls_no_terminal(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in shown)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown


def test_printable() -> None:
    assert printable("a\x1b[31mb\nc\x9d \udcff \u00e9") == "a\\x1b[31mb c\\x9d \\udcff \u00e9"
