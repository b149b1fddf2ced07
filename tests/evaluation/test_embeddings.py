"""Embeddings that other tools computed."""

from __future__ import annotations

import contextlib
import gc
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import FaceQANError, ScoresError
from faceqan_toolkit.evaluation import embeddings
from faceqan_toolkit.evaluation.embeddings import read_embeddings

PATHS = ["A/a.jpg", "B/b.jpg", "C/c.jpg"]
VECTORS = np.array([[1, 2], [3, 4], [0, 0]], np.float32)


def write(file: Path, kind: str, paths: list[str], vectors: np.ndarray) -> Path:
    if kind == "npz":
        with file.open("wb") as opened:
            np.savez(opened, paths=np.array(paths), embeddings=vectors)
    elif kind == "npz, packed, bytes":
        with file.open("wb") as opened:
            np.savez_compressed(opened, paths=np.array([p.encode() for p in paths]),
                                embeddings=vectors.astype(np.float64))  # fmt: skip
    else:
        values = pa.array(vectors.tolist(), pa.list_(pa.float32()))
        if kind == "parquet, fixed":
            values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        pq.write_table(pa.table({"path": paths, "embedding": values}), file)
    return file


KINDS = ["npz", "npz, packed, bytes", "parquet", "parquet, fixed"]


@pytest.mark.parametrize("kind", KINDS)
def test_formats(tmp_path: Path, kind: str) -> None:
    table = read_embeddings(write(tmp_path / "file", kind, PATHS, VECTORS))
    assert table.paths == tuple(PATHS)
    vectors, _ = table.match(PATHS)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, [[1, 2], [3, 4], [np.nan, np.nan]])
    found, match = table.match(["x/B/b.jpg", "other.jpg", "A/a.jpg"])
    np.testing.assert_array_equal(found, [[3, 4], [np.nan, np.nan], [1, 2]])
    assert match.missing == ("other.jpg",)


@pytest.mark.parametrize("kind", KINDS)
def test_duplicates(tmp_path: Path, kind: str) -> None:
    paths = ["a", "b", "a", "c", "b"]
    vectors = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [7, 8]], np.float32)
    table = read_embeddings(write(tmp_path / "file", kind, paths, vectors))
    assert table.paths == ("a", "c")
    assert table.match(["c", "a"])[0].tolist() == [[5, 6], [1, 2]]
    assert (table.duplicates, table.conflicting) == (("a",), ("b",))


@pytest.mark.parametrize("kind", [*KINDS, "npz, columns first"])
def test_blocks_in_any_order(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "ROWS", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 3)).astype(np.float32)
    paths = [f"{number}.jpg" for number in range(100)]
    laid_out = np.asfortranarray(vectors) if "columns" in kind else vectors
    table = read_embeddings(write(tmp_path / "file", kind.split(", columns")[0], paths, laid_out))
    order = rng.permutation(100)[:60]
    found, match = table.match([*(paths[row] for row in order), "no.jpg"])
    np.testing.assert_array_equal(found[:60], vectors[order])
    assert np.isnan(found[60]).all()
    assert match.missing == ("no.jpg",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"paths": np.array(["a"])}, "embeddings is missing"),
        ({"paths": np.array(["a"]), "embeddings": np.ones((2, 3))}, "2 embeddings of 1 paths"),
        ({"paths": np.array(["a"]), "embeddings": np.zeros(3)}, "one row of numbers"),
        ({"paths": np.array(["a"]), "embeddings": np.zeros((1, 0))}, "no numbers"),
        ({"paths": np.array([1]), "embeddings": np.zeros((1, 2))}, "texts"),
        ({"paths": np.array(["a"]), "embeddings": np.array([["x"]])}, "numbers"),
        ({"paths": np.array(["a"], object), "embeddings": np.zeros((1, 2))}, "allow_pickle"),
        ({"paths": np.array([], str), "embeddings": np.zeros((0, 2))}, "no embeddings"),
    ],
)
def test_wrong_npz(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "file.npz", **arrays)
    with pytest.raises(ScoresError, match=message):
        read_embeddings(tmp_path / "file.npz")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a"]}, "columns path and embedding"),
        ({"path": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]}, "different lengths"),
        ({"path": ["a"], "embedding": [[]]}, "."),
        ({"path": ["a"], "embedding": [1.0]}, "."),
        ({"path": ["a"], "embedding": [["x"]]}, "numbers"),
        ({"path": [None], "embedding": [[1.0]]}, "every row needs"),
    ],
)
def test_wrong_parquet(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "file")
    with pytest.raises(ScoresError, match=message):
        read_embeddings(tmp_path / "file")


def test_lengths_that_differ_between_parts(tmp_path: Path) -> None:
    schema = pa.schema([("path", pa.string()), ("embedding", pa.list_(pa.float32()))])
    with pq.ParquetWriter(tmp_path / "file", schema) as writer:
        for path, vector in (("a", [1.0]), ("b", [1.0, 2.0])):
            writer.write_table(pa.table({"path": [path], "embedding": [vector]}, schema=schema))
    with pytest.raises(ScoresError, match="different lengths"):
        read_embeddings(tmp_path / "file")


def test_a_damaged_file_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ScoresError):
        read_embeddings(tmp_path / "file")
    gc.collect()  # would warn of a file left open


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("path,quality\n")
    with pytest.raises(ScoresError, match="neither"):
        read_embeddings(tmp_path / "file")
    with pytest.raises(ScoresError, match="No such file"):
        read_embeddings(tmp_path / "nothing")


@settings(deadline=None)
@given(st.integers(0, 500), st.binary(max_size=4), st.sampled_from(["npz", "parquet"]))
def test_any_damage_is_read_or_refused(place: int, patch: bytes, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder) / "file", kind, PATHS, VECTORS)
        data = io.BytesIO(file.read_bytes())
        data.seek(place)
        data.write(patch)
        file.write_bytes(data.getvalue())
        with contextlib.suppress(FaceQANError):
            read_embeddings(file)
