"""Scores in other tools' formats."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import FaceQANError, RunError, ScoresError
from faceqan_toolkit.evaluation.score_files import (
    ScoreTable,
    read_scores,
    write_published_pickle,
)
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunWriter, read_run
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.conftest import in_every_encoding

OFIQ = "Filename;UnifiedQualityScore;HeadSize;UnifiedQualityScore.scalar;HeadSize.scalar;\n"


def read(folder: Path, content: str | bytes, **options: str) -> ScoreTable:
    file = folder / "scores"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_scores(file, **options)


def as_dict(table: ScoreTable) -> dict[str, float]:
    return dict(zip(table.paths, table.values.tolist(), strict=True))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "image,quality\na/1.jpg,0.25\nb c/2.jpg,-0.5\n",  # the authors' for XQLFW
        "\ufeffQuality,Path\r\n0.25,a/1.jpg\r\n\r\n-0.5,b c/2.jpg\r\n",
        "note;path;score\nx;a/1.jpg;0.25\ny;b c/2.jpg;-0.5",
        'filename\tscore\na/1.jpg\t0.25\n"b c/2.jpg"\t-0.5\n',
        "a/1.jpg,0.25\nb c/2.jpg,-0.5\n",  # no header
        "a/1.jpg 0.25\nb c/2.jpg -0.5\n",  # CR-FIQA's
        "\na\\1.jpg   2.5e-1\r\nb c\\2.jpg -0.5\r\n",
        OFIQ + "a/1.jpg;0.25;3;40;50\nb c/2.jpg;-0.5;1;2;3\n",
        OFIQ + '"a/1.jpg";0.25;3;40;50;\n"b c/2.jpg";-0.5;1;2;3;\n',
    ],
)
def test_texts(tmp_path: Path, text: str, packed: bool) -> None:
    data = text.encode()
    table = read(tmp_path, gzip.compress(data) if packed else data)
    assert as_dict(table) == {"a/1.jpg": 0.25, "b c/2.jpg": -0.5}
    assert table.name == "scores"


def test_columns_by_name(tmp_path: Path) -> None:
    text = "id,path,fiqa,quality\nx,a,1,2\n"
    assert as_dict(read(tmp_path, text, quality_column="fiqa")) == {"a": 1}
    assert as_dict(read(tmp_path, OFIQ + "a;1;2;3;4\n", quality_column="HeadSize.scalar")) == {
        "a": 4
    }


@pytest.mark.parametrize("place", range(6))
def test_every_encoding(tmp_path: Path, place: int) -> None:
    for text in (
        "ä/1.jpg 0.25\r\nb c/写.jpg -0.5\r\n",
        "path,score\nä/1.jpg,0.25\nb c/写.jpg,-0.5\n",
    ):
        for pack in (bytes, gzip.compress):
            table = read(tmp_path, pack(in_every_encoding(text)[place]))
            assert as_dict(table) == {"ä/1.jpg": 0.25, "b c/写.jpg": -0.5}


MEASURES = ["UnifiedQualityScore", *(f"Measure{index}" for index in range(27))]


def ofiq(*, first_unreadable: bool, time: bool) -> str:
    """Return what OFIQSampleApp writes: since 1.0.1 with the time, before without."""
    names = [*MEASURES, *(f"{name}.scalar" for name in MEASURES)]
    end = ["assessment_time_in_ms"] if time else []
    header = ["Filename", *([] if first_unreadable else names), *end]
    took = ";12" if time else ""
    unreadable = [f"bad{index}.jpg;;" + (";0" if time else "") for index in range(2)]
    rows = [
        f"a/1.jpg;22.5;{';'.join(['7'] * 27)};47;{';'.join(['50'] * 27)}{took}",
        # no face: every measure failed
        f"none.jpg;{';'.join(['0'] * 28)};{';'.join(['-1'] * 28)}{took}",
    ]
    rows = [unreadable[0], *rows, unreadable[1]] if first_unreadable else [*rows, *unreadable]
    return "".join(f"{line}\n" for line in [";".join(header) + ";", *rows])


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("first_unreadable", [False, True])
def test_photos_that_ofiq_could_not_read(tmp_path, first_unreadable: bool, time: bool) -> None:
    table = read(tmp_path, ofiq(first_unreadable=first_unreadable, time=time))
    scores = as_dict(table)
    assert scores.pop("a/1.jpg") == 22.5
    assert set(scores) == {"bad0.jpg", "bad1.jpg", "none.jpg"}
    assert all(map(math.isnan, scores.values()))
    (remark,) = table.remarks()
    assert remark.startswith("3 without a score in it: ")
    assert "bad1.jpg" in remark
    scalar = read(
        tmp_path, ofiq(first_unreadable=first_unreadable, time=time),
        quality_column="UnifiedQualityScore.scalar",
    )  # fmt: skip
    assert as_dict(scalar)["a/1.jpg"] == 47
    assert np.isnan(scalar.values).sum() == 3


def test_ofiq_files_that_are_not_clear(tmp_path: Path) -> None:
    other = "Filename;assessment_time_in_ms;\nbad.jpg;;;0\na.jpg;1;2;3;4;5\n"
    with pytest.raises(ScoresError, match="line 3: the header has no measures, because OFIQ"):
        read(tmp_path, other)
    with pytest.raises(ScoresError, match="line 3: 3 cells instead of 5"):
        read(tmp_path, OFIQ + "a.jpg;1;2;3;4\nb.jpg;1;2\n")
    with pytest.raises(ScoresError, match=r"no column 'Sharpness'; found Filename, Unified"):
        read(tmp_path, ofiq(first_unreadable=True, time=True), quality_column="Sharpness")
    assert np.isnan(read(tmp_path, "Filename;\nbad.jpg;;\n").values).all()


def test_minus_one_of_ofiq_in_other_tables(tmp_path: Path) -> None:
    """Rewritten with commas, or as parquet, a failed measure is still none."""
    text = "Filename,UnifiedQualityScore,UnifiedQualityScore.scalar\na,22.5,47\nb,0,-1\n"
    np.testing.assert_array_equal(read(tmp_path, text).values, [22.5, np.nan])
    columns = {"Filename": ["a", "b"], "UnifiedQualityScore": [22.5, 0.0],
               "UnifiedQualityScore.scalar": [47, -1]}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    np.testing.assert_array_equal(read_scores(tmp_path / "s.parquet").values, [22.5, np.nan])
    table = read_scores(tmp_path / "s.parquet", quality_column="UnifiedQualityScore.scalar")
    np.testing.assert_array_equal(table.values, [47, np.nan])


def test_faceqnet(tmp_path: Path) -> None:
    """Header `img;score`, Windows paths, each number as numpy prints an array of one."""
    text = (
        "img;score\r\n.\\\\Samples_cropped\\\\Picture 11.png;[0.6432184]\r\n"
        "A_B\\A_B_0001.jpg_0.jpg;[0.]\r\nA_B\\A_B_0002.jpg_0.jpg;[6.1e-05]\r\n"
    )
    table = read(tmp_path, text)
    values, match = table.match(["Samples_cropped/Picture 11.png", "A_B/A_B_0001.jpg"])
    np.testing.assert_array_equal(values, [0.6432184, 0])
    assert len(match.unused) == 1
    with pytest.raises(ScoresError, match="is not a number"):
        read(tmp_path, "img;score\na;[0.5 0.25]\n")


def test_cr_fiqa_on_xqlfw(tmp_path: Path) -> None:
    """Its list has a photo as often as pairs do; a batch may change the last digits."""
    table = read(
        tmp_path,
        "XQLFW/XQLFW/images/A_B_0001.jpg 1.3000001\nXQLFW/XQLFW/images/C_D_0001.jpg 2.0\n"
        "XQLFW/XQLFW/images/A_B_0001.jpg 1.2999999\n",
    )
    values, _ = table.match(["v11/C_D/C_D_0001.jpg", "v11/A_B/A_B_0001.jpg"])
    np.testing.assert_array_equal(values, [2.0, 1.3000001])
    (remark,) = table.remarks()
    assert remark == "1 several times in it with equal scores: XQLFW/XQLFW/images/A_B_0001.jpg"


def test_pyiqa(tmp_path: Path) -> None:
    table = read(tmp_path, "a b.jpg\t0.25\nc.jpg\t4.5\n")
    assert as_dict(table) == {"a b.jpg": 0.25, "c.jpg": 4.5}


def test_columns_of_what_has_none(tmp_path: Path, run: Path) -> None:
    for content, what in ((pickle.dumps({"a": 1.0}), "a pickle"), (b"a 1\n", "neither a header")):
        with pytest.raises(ScoresError, match=what):
            read(tmp_path, content, quality_column="quality")
    with pytest.raises(ScoresError, match="a run folder has no columns; leave 'quality' out"):
        read_scores(run, quality_column="quality")


def test_no_score(tmp_path: Path) -> None:
    table = read(tmp_path, OFIQ + "a;0.000000;0;-1;-1\nb;22.5;1;47;9\n")
    assert math.isnan(table.values[0])
    assert table.values[1] == 22.5
    assert np.isnan(read(tmp_path, "path,quality\na,\nb,nan\n").values).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,quality\na,0.5\nb,x\n", "line 3: 'x' is not a number"),
        ("path,quality\na,0.5,7\n", "line 2: 3 cells instead of 2"),
        ("path,quality\n,0.5\n", "line 2: no path"),
        ("path,quality\na,inf\n", "line 2: 'inf' is not a number"),
        ("a 0.5\nb\n", "line 2: expected a path, a space and a number"),
        ("path,quality,score\na,1,2\n", "cannot tell the quality column"),
        (
            "who,what\na,1\n",
            "cannot tell the path column; found who, what. Accepted are one column "
            "named path, image, .* and one named quality, .*; NAME=FILE:COLUMN",
        ),
        ("path,quality\n", "no scores"),
        ("", "neither a header nor .* tables with a header: one column named path, image"),
        ("hello\n", "neither"),
        (b"PK\x03\x04rest", "npz"),
        (b"\x89PNG\r\n\0\0", "it is a PNG picture, not text"),
        ("a 1\nb 2\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\x1f\x8bnot gzip", "."),
        (b"PAR1 not parquet PAR1", "."),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ScoresError, match=message):
        read(tmp_path, text)


def test_missing_file_and_column(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match="No such file"):
        read_scores(tmp_path / "nothing")
    with pytest.raises(ScoresError, match="not a run folder"):
        read_scores(tmp_path)
    with pytest.raises(ScoresError, match="not a file"):
        read_scores(Path(os.devnull))
    with pytest.raises(ScoresError, match="no column 'x'"):
        read(tmp_path, "path,quality\na,1\n", quality_column="x")


def test_duplicates_are_named(tmp_path: Path) -> None:
    table = read(tmp_path, "b 2\na 1\na 1\nc 1\nc 2\nc 1\n")  # CR-FIQA's have such lines
    assert as_dict(table) == {"b": 2, "a": 1}
    assert table.duplicates == ("a",)
    assert table.conflicting == ("c",)
    values, match = table.match(["a", "c", "x/b"])
    np.testing.assert_array_equal(values, [1, np.nan, 2])
    assert match.missing == ("c",)


@pytest.mark.parametrize("protocol", range(6))
def test_the_published_pickle(tmp_path: Path, protocol: int) -> None:
    content = {"/data/a b/1.jpg": np.float64(0.25), "/data/2.jpg": 0.5}
    table = read(tmp_path, pickle.dumps(content, protocol))
    assert as_dict(table) == content


@pytest.mark.parametrize("content", [[1], {"a": "b"}, {1: 2.0}, {"a": [1.0]}, {"a": math.inf}])
def test_other_pickles(tmp_path: Path, content: object) -> None:
    with pytest.raises(ScoresError, match="dictionary"):
        read(tmp_path, pickle.dumps(content))


def test_a_dangerous_pickle(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    with pytest.raises(ScoresError, match="refused"):
        read(tmp_path, pickle.dumps({"a": Command()}))
    assert not (tmp_path / "ran").exists()


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "scores.parquet"
    pq.write_table(
        pa.table({"image": ["a", "b\\c"], "score": pa.array([1, None], pa.int8())}), file
    )
    table = read_scores(file, "method")
    assert (table.name, table.paths) == ("method", ("a", "b/c"))
    np.testing.assert_array_equal(table.values, [1, np.nan])
    pq.write_table(pa.table({"image": [1], "score": [1.0]}), file)
    with pytest.raises(ScoresError, match="image must be text"):
        read_scores(file)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two attempts, several faces, no face, and names that need care."""
    records = [
        [Record("'=a.jpg", "/p", 0, "ok", quality=0.5)],
        [Record("group.jpg", "/p", 0, "unscorable"),
         Record("group.jpg", "/p", 1, "ok", quality=0.3),
         Record("group.jpg", "/p", 2, "ok", quality=0.9)],
        [Record("none.jpg", "/p", None, "no_face")],
        [Record("'=a.jpg", "/p", 0, "ok", quality=0.25, attempt=1)],
        [Record("50%25.jpg", "/p", 0, "ok", quality=0.1)],
    ]  # fmt: skip
    folder = tmp_path / "run"
    with RunWriter(folder, Settings(task="score"), "0" * 64) as opened:
        for photo in records:
            opened.append(photo)
        opened.write_info({})
    return folder


EXPECTED = {"'=a.jpg": 0.25, "group.jpg": 0.3, "50%25.jpg": 0.1}


@pytest.mark.parametrize("kind", ["run", "csv", "parquet"])
def test_our_own_results(run: Path, tmp_path: Path, kind: str) -> None:
    file = run
    if kind != "run":
        file = tmp_path / "rankings"
        Ranking(read_run(run)).export(file, kind)
    table = read_scores(file)
    scores = as_dict(table)
    assert math.isnan(scores.pop("none.jpg"))
    assert scores == EXPECTED
    assert table.other_faces == 2
    assert table.conflicting == ()


def test_our_own_pickle(run: Path, tmp_path: Path) -> None:
    Ranking(read_run(run)).export(tmp_path / "results.pkl", "pickle")
    table = read_scores(tmp_path / "results.pkl")
    assert set(table.values.tolist()) == set(EXPECTED.values())


LINES = st.lists(
    st.lists(
        st.one_of(st.sampled_from(["path", "quality", "face", "rank", "Filename", "0.5", "-1", '"',
                                   "UnifiedQualityScore", "a/b.jpg", "", "\0", "nan", "1e999"]),
                  st.text(max_size=5)),
        min_size=1, max_size=5,
    ), max_size=5,
)  # fmt: skip


@settings(deadline=None)
@given(LINES, st.sampled_from([",", ";", "\t", " "]))
def test_any_table_is_read_or_refused(lines: list[list[str]], delimiter: str) -> None:
    text = "\n".join(delimiter.join(cells) for cells in lines)
    with tempfile.TemporaryDirectory() as folder:
        try:
            table = read(Path(folder), text.encode("utf-8", "surrogatepass"))
        except FaceQANError:
            return
        assert len(table.paths) == len(set(table.paths)) == len(table.values)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=50),
                 st.tuples(st.sampled_from([b"PAR1", b"\x80\x04", b"\x1f\x8b\x08"]),
                           st.binary(max_size=50)).map(b"".join)))  # fmt: skip
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(FaceQANError):
        read(Path(folder), data)


def test_a_written_pickle_is_the_published_one(tmp_path: Path) -> None:
    scores = {"A/A_0001.jpg": 0.25, "B/100%25.jpg": 0.5, "C/none.jpg": math.nan}
    write_published_pickle(tmp_path / "xqlfw_results.pkl", Path("data") / "xqlfw", scores)
    # as notebooks do it
    with (tmp_path / "xqlfw_results.pkl").open("rb") as file:
        content = pickle.load(file)
    root = Path("data") / "xqlfw"
    expected = {str(root / "A" / "A_0001.jpg"): 0.25, str(root / "B" / "100%.jpg"): 0.5}
    assert content == expected
    values, match = read_scores(tmp_path / "xqlfw_results.pkl").match(["A/A_0001.jpg"])
    assert values.tolist() == [0.25]
    assert match.rules["end"] == 1


def test_a_pickle_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        write_published_pickle(tmp_path / "no" / "folder.pkl", tmp_path, {"a": 1.0})
