"""Files of quality scores: those of other tools are read, FaceQAN's published pickle is written."""

from __future__ import annotations

import csv
import gzip
import io
import math
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faceqan_toolkit.errors import ScoresError
from faceqan_toolkit.evaluation.path_matching import Match, match_paths, reading, told_paths
from faceqan_toolkit.evaluation.safe_pickle import load_pickle
from faceqan_toolkit.files import check_plain, to_utf8, writing
from faceqan_toolkit.runs.folder import read_run
from faceqan_toolkit.runs.ledger import connect
from faceqan_toolkit.text import counted, path_from_text, path_text, unguard

PATH_COLUMNS = (
    "path", "image", "image_path", "image_name", "img", "img_path", "img_name", "filename", "file",
    "name",
)  # fmt: skip
QUALITY_COLUMNS = ("quality", "quality_score", "score", "unifiedqualityscore")
"""Known names of columns, in lower case."""

OFIQ_MEASURES = 28
"""Number of measures in OFIQ's default configuration; UnifiedQualityScore is the first."""

ACCEPTED = (
    f"one column named {', '.join(PATH_COLUMNS)}, and one named {', '.join(QUALITY_COLUMNS)}; "
    "NAME=FILE:COLUMN selects another score column"
)
"""Accepted columns, for messages."""

ROUNDING = 1e-4
"""Relative difference up to which two scores of a photo are equal: batches change last digits."""

LARGEST = 4 << 30
"""Maximum size of an unpacked file in bytes."""

PICKLE = re.compile(rb"\x80|\(dp\d+\n|\}q.[(XUT]", re.DOTALL)
"""Start of a pickled dictionary, in protocols 2 and later, 0, and 1."""

OUR_COLUMNS = {"rank", "path", "face", "quality"}
"""Columns that tell this package's rankings from other tables."""

Row = tuple[str, int, float]
"""Path as from `text.path_text`, index of the face, quality or NaN."""

Line = tuple[int, list[str]]
"""Line number in the file, from 1, and the cells."""


@dataclass(frozen=True)
class ScoreTable:
    """Quality scores of a file.

    Attributes:
        name: name of the method in results.
        paths: (R,) paths without repetitions, in the file's order.
        values: (R,) float64 scores, higher is better; NaN for photos without.
        duplicates: paths that occur several times with equal scores, up to `ROUNDING`.
        conflicting: paths that occur with different scores; they are left out.
        other_faces: number of unused rows, of a photo's further faces.
    """

    name: str
    paths: tuple[str, ...]
    values: NDArray[np.float64]
    duplicates: tuple[str, ...] = ()
    conflicting: tuple[str, ...] = ()
    other_faces: int = 0

    def remarks(self) -> list[str]:
        """Return a clause for each kind of row that was not used as it is."""
        unscored = [self.paths[row] for row in np.flatnonzero(np.isnan(self.values))]
        told = told_paths(
            ("without a score in it", unscored),
            ("several times in it with equal scores", self.duplicates),
            ("left out, with different scores", self.conflicting),
        )
        if self.other_faces:
            told.append(f"{counted(self.other_faces, 'row')} of further faces not used")
        return told

    def match(self, wanted: Sequence[str]) -> tuple[NDArray[np.float64], Match]:
        """Return the (N,) scores of samples by their paths, NaN for none, and the paths' match."""
        match = match_paths(wanted, self.paths)
        return np.append(self.values, np.nan)[match.index], match


def read_scores(file: Path, name: str = "", *, quality_column: str | None = None) -> ScoreTable:
    """Return the scores in a file or run folder; its content tells the format.

    Formats, packed with gzip or not: CSV with a header (this package's, FaceQnet's, or any with
    columns of `PATH_COLUMNS` and `QUALITY_COLUMNS`; comma, semicolon or tab), CSV of path and score
    without a header (pyiqa), OFIQ's CSV, parquet, lines of `path score` (CR-FIQA), the pickle of
    the published FaceQAN code and of eDifFIQA; and run folders. Text is UTF-8, or in the encoding
    of its byte order mark.

    Of several faces in this package's results the first one with a quality is used: the largest.
    In OFIQ's CSV the row `name;;`, or -1 in the measure's column ".scalar", means no score.

    ScoresError names file and line if the file cannot be read, or its format is ambiguous.

    Args:
        name: name of the method; "" for the file's name.
        quality_column: column of the scores, if not one of `QUALITY_COLUMNS`.
    """
    with reading(file):
        if file.is_dir():
            rows = _run_rows(file, quality_column)
        else:
            rows = list(_rows(_unpacked(file), quality_column))
    if not rows:
        raise ScoresError(f"{file} has no scores")
    return _table(name or file.name, rows)


def _unpacked(file: Path) -> bytes:
    check_plain(file)
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(data)) as unpacked:
            data = unpacked.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError("unpacks to more than 4 GiB")
    return data


def _rows(data: bytes, quality_column: str | None) -> Iterator[Row]:
    if data.startswith(b"PAR1"):
        return _parquet_rows(data, quality_column)
    if PICKLE.match(data):
        _refuse_column("a pickle", quality_column)
        return _pickle_rows(data)
    if data.startswith(b"PK\x03\x04"):
        raise ValueError("a zip or .npz file holds no scores; give embeddings with `embeddings`")
    text = to_utf8(data).decode("utf-8", "surrogateescape")
    first = next((line for line in text.split("\n") if line.strip()), "").rstrip("\r")
    if not quality_column and _is_text_row(first):
        return _text_rows(text)
    return _csv_rows(text, first, quality_column)


def _is_text_row(line: str) -> bool:
    head, *last = line.rsplit(" ", 1)
    return bool(last) and _number(last[0]) is not None and head.strip()[-1:] not in (*",;\t", "")


def _text_rows(text: str) -> Iterator[Row]:
    """Yield the rows of `path score` lines; the path may have spaces."""
    for number, line in enumerate(text.split("\n"), start=1):
        cells = line.rsplit(None, 1)
        if not cells:
            continue
        value = _number(cells[1]) if len(cells) == 2 else None
        if value is None:
            raise ScoresError(f"line {number}: expected a path, a space and a number")
        yield _path(cells[0].strip()), 0, value


def _csv_rows(text: str, first: str, quality_column: str | None) -> Iterator[Row]:
    delimiter = max(",;\t", key=first.count)
    if not first.count(delimiter):
        raise ValueError(
            "the first line is neither a header nor a path and a number. Accepted are lines of a "
            f"path and a number, and tables with a header: {ACCEPTED}"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    line, cells = next(rows, (0, []))
    header = [cell.strip() for cell in cells]
    if len(header) == 2 and _number(header[1]) is not None and not quality_column:
        return _cells_rows(chain([(line, cells)], rows), 2, 0, 1)
    if delimiter == ";" and header[:1] == ["Filename"]:
        return _ofiq_rows(rows, header, quality_column)
    path, quality = _columns(header, quality_column)
    if set(header) >= OUR_COLUMNS:
        return _cells_rows(rows, len(header), path, quality, face=header.index("face"))
    return _cells_rows(rows, len(header), path, quality, scalar=_scalar(header, quality))


def _ofiq_rows(
    rows: Iterable[Line], header: list[str], quality_column: str | None
) -> Iterator[Row]:
    """Yield the rows of OFIQSampleApp.

    Its header, but not its rows, ends with a semicolon. The row of an unreadable photo is `name;;`;
    if the first photo is unreadable, the header has no measures.
    """
    if header[-1] == "":
        header.pop()
    unnamed = header in (["Filename"], ["Filename", "assessment_time_in_ms"])
    if unnamed:
        others = [""] * (OFIQ_MEASURES - 1)
        header[1:1] = ["UnifiedQualityScore", *others, "UnifiedQualityScore.scalar", *others]
    path, quality = _columns(header, quality_column)

    def whole() -> Iterator[Line]:
        for line, cells in rows:
            if not any(cells[1:3]):
                cells += [""] * (len(header) - len(cells))
            elif unnamed and len(cells) != len(header):
                raise ScoresError(
                    f"line {line}: the header has no measures, because OFIQ could not read its "
                    f"first photo, and the rows do not have OFIQ's default {OFIQ_MEASURES}; run "
                    "OFIQ again with a readable photo first"
                )
            yield line, cells

    yield from _cells_rows(whole(), len(header), path, quality, scalar=_scalar(header, quality))


def _scalar(names: Sequence[str], quality: int) -> int | None:
    """Return the column of OFIQ in which -1 marks a failed measure, if there is one."""
    wanted = names[quality].removesuffix(".scalar") + ".scalar"
    return list(names).index(wanted) if wanted in names else None


def _cells_rows(
    rows: Iterable[Line], width: int, path: int, quality: int, *,
    face: int | None = None, scalar: int | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of a table of `width` columns, from its lines without the header.

    The other arguments are places of columns. `face` is that of the face's index in this package's
    rankings, whose paths are guarded; for `scalar` see `_scalar`.
    """
    for line, cells in rows:
        where = f"line {line}"
        if len(cells) != width and not (len(cells) == width + 1 and cells[-1] == ""):
            raise ScoresError(f"{where}: {len(cells)} cells instead of {width}")
        text = cells[quality].strip()
        value = _number(text) if text else math.nan
        if value is None:
            raise ScoresError(f"{where}: {text[:50]!r} is not a number")
        if scalar is not None and _number(cells[scalar]) == -1:
            value = math.nan
        shown = _path(cells[path].strip()) if face is None else unguard(cells[path])
        if not shown:
            raise ScoresError(f"{where}: no path")
        index = "" if face is None else cells[face].strip()
        if index and not (index.isascii() and index.isdigit() and len(index) < 9):
            raise ScoresError(f"{where}: {index[:50]!r} is not a face number")
        yield shown, int(index or 0), value


def _parquet_rows(data: bytes, quality_column: str | None) -> Iterator[Row]:
    file = pq.ParquetFile(pa.BufferReader(data))
    names = file.schema_arrow.names
    path, quality = _columns(names, quality_column)
    ours = set(names) >= OUR_COLUMNS
    scalar = _scalar(names, quality)
    wanted = [names[path], names[quality], "face" if ours else ""]
    wanted.append("" if scalar is None else names[scalar])
    for batch in file.iter_batches(columns=list(dict.fromkeys(filter(None, wanted)))):
        columns = (batch.column(name).to_pylist() if name else [0] * len(batch) for name in wanted)
        for shown, value, face, measured in zip(*columns, strict=True):
            if measured == -1:
                value = None
            if not isinstance(shown, str) or not isinstance(value, (int, float, type(None))):
                raise ValueError(f"{names[path]} must be text and {names[quality]} numbers")
            number = math.nan if value is None else _number(value)
            if number is None:
                raise ValueError(f"{shown}: the score is infinite")
            yield (shown if ours else _path(shown)), face or 0, number


def _pickle_rows(data: bytes) -> Iterator[Row]:
    content = load_pickle(data)
    if not isinstance(content, dict):
        raise ValueError("the pickle is not a dictionary of path and score")
    for path, value in content.items():
        shown = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
        number = _number(value) if isinstance(value, (int, float)) else None
        if not isinstance(shown, str) or number is None:
            raise ValueError("the pickle is not a dictionary of path and score")
        yield _path(shown), 0, number


def _run_rows(folder: Path, quality_column: str | None) -> list[Row]:
    """Return the rows of a run, of each photo's last attempt."""
    _refuse_column("a run folder", quality_column)
    columns = "path, coalesce(face, 0), coalesce(quality, 'nan')"
    with connect(ledger=read_run(folder).ledger) as connection:
        return connection.execute(f"SELECT {columns} FROM ledger").fetchall()


def _columns(names: Sequence[str], quality_column: str | None) -> tuple[int, int]:
    """Return the indices of the path column and the quality column."""

    def the_only(known: Sequence[str], names: Sequence[str], problem: str) -> int:
        fitting = [place for place, name in enumerate(names) if name in known]
        if len(fitting) != 1:
            raise ValueError(f"{problem}; found {there}. Accepted are {ACCEPTED}")
        return fitting[0]

    there = ", ".join(filter(None, names))[:300]
    plain = [name.strip().lower() for name in names]
    path = the_only(PATH_COLUMNS, plain, "cannot tell the path column")
    if quality_column:
        return path, the_only([quality_column], names, f"no column {quality_column!r}")
    return path, the_only(QUALITY_COLUMNS, plain, "cannot tell the quality column")


def _path(given: str) -> str:
    return path_text(given.replace("\\", "/"))


def _refuse_column(what: str, quality_column: str | None) -> None:
    """Raise ValueError if a column was given for a format without columns."""
    if quality_column:
        raise ValueError(f"{what} has no columns; leave {quality_column!r} out")


def _number(value: str | float) -> float | None:
    """Return a number or NaN; None for infinity and text.

    FaceQnet writes numbers in brackets, as numpy prints an array with one element.
    """
    if isinstance(value, str) and value[:1] == "[" and value[-1:] == "]":
        value = value[1:-1]
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isinf(number) else number


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=ROUNDING) or (math.isnan(one) and math.isnan(other))


def _table(name: str, rows: Iterable[Row]) -> ScoreTable:
    """Return a table with one value for each path: that of the first face with a value."""
    found: dict[str, tuple[int, float]] = {}
    duplicates: dict[str, None] = {}
    conflicting: dict[str, None] = {}
    other_faces = 0
    for path, face, value in rows:
        if path not in found:
            found[path] = (face, value)
            continue
        known_face, known = found[path]
        if face != known_face:
            other_faces += 1
            if not math.isnan(value) and (face < known_face or math.isnan(known)):
                found[path] = (face, value)
        elif _equal(known, value):
            duplicates[path] = None
        else:
            conflicting[path] = None
    for path in conflicting:
        del found[path]
    return ScoreTable(
        name, tuple(found), np.array([value for _, value in found.values()], np.float64),
        tuple(path for path in duplicates if path not in conflicting), tuple(conflicting),
        other_faces,
    )  # fmt: skip


def write_published_pickle(target: Path, root: Path, scores: Mapping[str, float]) -> None:
    """Write the pickle of the published evaluation script, for existing notebooks, or a RunError.

    It holds {path of the photo: quality}. The qualities are floats, which load with every version
    of numpy; the published script writes numpy's own type.

    Args:
        target: replaced if it exists.
        root: folder of the photos, put before each path as given.
        scores: quality of every photo by path (`text.path_text`); those with NaN are left out.

    Source: src/evaluation/xqlfw_eval.py of the published FaceQAN code.
    """
    content = {
        str(root / path_from_text(path)): float(quality)
        for path, quality in scores.items()
        if not math.isnan(quality)
    }
    with writing(target) as temporary:
        temporary.write_bytes(pickle.dumps(content, protocol=4))
