"""Embeddings: read from files, cached, computed from crops."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import FaceQANError, RunError, ScoresError
from faceqan_toolkit.evaluation import embeddings
from faceqan_toolkit.evaluation.embeddings import (
    EmbeddingCache,
    EmbeddingSource,
    embed_crops,
    read_embeddings,
    stored_source,
)
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.types import Pixels
from tests.conftest import read_rgb
from tests.toys import SIZE, Toy

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
        ({"paths": np.array(["a"])}, "no array embeddings"),
        ({"paths": np.array(["a"]), "embeddings": np.ones((2, 3))}, "2 embeddings for 1 paths"),
        ({"paths": np.array(["a"]), "embeddings": np.zeros(3)}, "a row of numbers"),
        ({"paths": np.array(["a"]), "embeddings": np.zeros((1, 0))}, "have length 0"),
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
        ({"path": [None], "embedding": [[1.0]]}, "a row has no"),
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


SOURCE = EmbeddingSource("toy", "a" * 64)
NUMBER = 37


class Counting(Toy):
    """Counts what it embeds, and may be stopped."""

    made, stop_after = 0, 10**9

    def embed(self, crops, *, flip=False, device="auto"):
        if self.made >= self.stop_after:
            raise KeyboardInterrupt
        self.made += len(crops)
        return super().embed(crops, flip=flip, device=device)


@pytest.fixture
def recogniser() -> Counting:
    return Counting()


@pytest.fixture
def crops(tmp_path: Path) -> list[Path | None]:
    rng = np.random.default_rng(0)
    files: list[Path | None] = [tmp_path / f"{index}.png" for index in range(NUMBER)]
    for file in files:
        cv2.imwrite(str(file), rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    return [*files, None]


SAMPLES = [f"people/{index}.jpg" for index in range(NUMBER + 1)]


def plain(file: Path, flip: bool = False) -> np.ndarray:
    """Return what the network says of a crop, one at a time."""
    pixels = torch.from_numpy(read_rgb(file).transpose(2, 0, 1) / 255)[None].float()
    with torch.no_grad():
        found = Toy()(pixels) + (Toy()(pixels.flip(3)) if flip else 0)
    return found[0].numpy()


@pytest.mark.parametrize("flip", [False, True])
def test_equals_the_plain_network(tmp_path: Path, crops, recogniser, flip: bool) -> None:
    source = dataclasses.replace(SOURCE, flip=flip)
    told: list[int] = []
    store = EmbeddingCache(tmp_path / "e.parquet", source, SAMPLES, crops)
    vectors = store.complete(recogniser, told.append, device="cpu")
    assert sum(told) == NUMBER
    assert np.isnan(vectors[NUMBER]).all()
    for crop, vector in zip(crops[:-1], vectors, strict=False):
        assert np.allclose(vector, plain(crop, flip), atol=1e-4)
    table = read_embeddings(tmp_path / "e.parquet")
    assert table.paths == tuple(SAMPLES[:-1])
    assert np.array_equal(table.match(SAMPLES[:-1])[0], vectors[:-1])
    assert stored_source(tmp_path / "e.parquet") == source


def test_only_what_is_needed(tmp_path: Path, crops, recogniser) -> None:
    file = tmp_path / "e.parquet"
    first = EmbeddingCache(file, SOURCE, SAMPLES, crops)
    before = first.complete(recogniser, device="cpu").copy()
    again = EmbeddingCache(file, SOURCE, SAMPLES, crops)
    assert again.pending == []
    assert np.array_equal(again.vectors, before, equal_nan=True)
    # other content, another order, more samples
    cv2.imwrite(str(crops[3]), np.zeros((SIZE, SIZE, 3), np.uint8))
    store = EmbeddingCache(file, SOURCE, ["new.jpg", *SAMPLES[::-1]], [crops[0], *crops[::-1]])
    assert store.pending == [0, 1 + NUMBER - 3]
    after = store.complete(recogniser, device="cpu")
    assert np.array_equal(np.delete(after[1:][::-1], 3, 0), np.delete(before, 3, 0), equal_nan=True)
    assert not np.array_equal(after[1:][::-1][3], before[3])
    assert np.allclose(after[0], before[0])
    other = EmbeddingCache(file, EmbeddingSource("other", "b" * 64), SAMPLES, crops)
    assert len(other.pending) == NUMBER


def test_an_interruption_loses_nothing(tmp_path: Path, crops, recogniser) -> None:
    file = tmp_path / "e.parquet"
    recogniser.stop_after = 16
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(file, SOURCE, SAMPLES, crops).complete(recogniser, device="cpu")
    store = EmbeddingCache(file, SOURCE, SAMPLES, crops)
    assert len(store.pending) == NUMBER - recogniser.made
    recogniser.stop_after = 10**9
    vectors = store.complete(recogniser, device="cpu")
    assert recogniser.made == NUMBER
    assert np.allclose(vectors[NUMBER - 1], plain(crops[NUMBER - 1]), atol=1e-4)


def test_what_has_no_embedding(tmp_path: Path, crops, recogniser) -> None:
    file = tmp_path / "e.parquet"
    crops[5].write_bytes(b"no picture")
    vectors = EmbeddingCache(file, SOURCE, SAMPLES, crops).complete(recogniser, device="cpu")
    assert np.flatnonzero(np.isnan(vectors[:, 0])).tolist() == [5, NUMBER]
    assert EmbeddingCache(file, SOURCE, SAMPLES, crops).pending == []
    crops[7].unlink()
    with pytest.raises(RunError, match=r"cannot read the crop .*7\.png"):
        EmbeddingCache(file, SOURCE, SAMPLES, crops)
    assert stored_source(crops[3]) is None


def test_saving_now_and_then(tmp_path: Path, crops, recogniser, monkeypatch) -> None:
    monkeypatch.setattr("faceqan_toolkit.evaluation.embeddings.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("faceqan_toolkit.evaluation.embeddings.SAVE_SHARE", 1e9)
    seen = []

    def look(number: int) -> None:
        file = tmp_path / "e.parquet"
        seen.append(len(read_embeddings(file).paths) if file.exists() else 0)

    EmbeddingCache(tmp_path / "e.parquet", SOURCE, SAMPLES, crops).complete(
        recogniser, look, device="cpu"
    )
    assert seen == [0, 16, 32]


def test_they_are_the_network_s_own(crop: Pixels) -> None:
    network = load_model("sface")
    large = cv2.resize(crop, (160, 180))
    found = list(embed_crops([crop, None, large, crop[:, ::-1]], network, device="cpu"))
    assert [vector.shape for vector in found] == [(128,)] * 4
    assert np.isnan(found[1]).all()
    resized = cv2.resize(large, (112, 112), interpolation=cv2.INTER_AREA)
    for vector, pixels in ((found[0], crop), (found[2], resized), (found[3], crop[:, ::-1])):
        faces = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            expected = load_model("sface")(faces)[0].numpy()
        assert vector == pytest.approx(expected, rel=1e-3, abs=1e-3)
    # more than are computed at once, and gaps among them
    mixed = [crop, None, None, None, None, crop, crop[:, ::-1], None, crop, None, crop[:, ::-1]]
    again = list(embed_crops(mixed, network, device="cpu"))
    assert len(again) == len(mixed)
    for vector, pixels in zip(again, mixed, strict=True):
        if pixels is None:
            assert np.isnan(vector).all()
        else:
            assert vector == pytest.approx(found[0 if pixels is crop else 3], abs=1e-4)
    assert list(embed_crops([], network, device="cpu")) == []
