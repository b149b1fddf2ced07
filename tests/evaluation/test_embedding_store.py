"""Embeddings are made once, of the crops as they are, and survive an interruption."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.evaluation.embedding_store import EmbeddingStore, Source, stored_source
from faceqan_toolkit.evaluation.embeddings import read_embeddings
from tests.conftest import read_rgb
from tests.toys import SIZE, Toy

SOURCE = Source("toy", "a" * 64)
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


PATHS = [f"people/{index}.jpg" for index in range(NUMBER + 1)]


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
    store = EmbeddingStore(tmp_path / "e.parquet", source, PATHS, crops)
    vectors = store.complete(lambda: recogniser, told.append, device="cpu")
    assert sum(told) == NUMBER
    assert np.isnan(vectors[NUMBER]).all()
    for crop, vector in zip(crops[:-1], vectors, strict=False):
        assert np.allclose(vector, plain(crop, flip), atol=1e-4)
    table = read_embeddings(tmp_path / "e.parquet")
    assert table.paths == tuple(PATHS[:-1])
    assert np.array_equal(table.match(PATHS[:-1])[0], vectors[:-1])
    assert stored_source(tmp_path / "e.parquet") == source


def test_only_what_is_needed(tmp_path: Path, crops, recogniser) -> None:
    file = tmp_path / "e.parquet"
    before = (
        EmbeddingStore(file, SOURCE, PATHS, crops).complete(lambda: recogniser, device="cpu").copy()
    )

    def never() -> Counting:
        raise AssertionError("loaded for nothing")

    again = EmbeddingStore(file, SOURCE, PATHS, crops).complete(never, device="cpu")
    assert np.array_equal(again, before, equal_nan=True)
    # other content, another order, more samples
    cv2.imwrite(str(crops[3]), np.zeros((SIZE, SIZE, 3), np.uint8))
    store = EmbeddingStore(file, SOURCE, ["new.jpg", *PATHS[::-1]], [crops[0], *crops[::-1]])
    assert store.pending == [0, 1 + NUMBER - 3]
    after = store.complete(lambda: recogniser, device="cpu")
    assert np.array_equal(np.delete(after[1:][::-1], 3, 0), np.delete(before, 3, 0), equal_nan=True)
    assert not np.array_equal(after[1:][::-1][3], before[3])
    assert np.allclose(after[0], before[0])
    other = EmbeddingStore(file, Source("other", "b" * 64), PATHS, crops)
    assert len(other.pending) == NUMBER


def test_an_interruption_loses_nothing(tmp_path: Path, crops, recogniser) -> None:
    file = tmp_path / "e.parquet"
    recogniser.stop_after = 16
    with pytest.raises(KeyboardInterrupt):
        EmbeddingStore(file, SOURCE, PATHS, crops).complete(lambda: recogniser, device="cpu")
    store = EmbeddingStore(file, SOURCE, PATHS, crops)
    assert len(store.pending) == NUMBER - recogniser.made
    recogniser.stop_after = 10**9
    vectors = store.complete(lambda: recogniser, device="cpu")
    assert recogniser.made == NUMBER
    assert np.allclose(vectors[NUMBER - 1], plain(crops[NUMBER - 1]), atol=1e-4)


def test_what_has_no_embedding(tmp_path: Path, crops, recogniser) -> None:
    file = tmp_path / "e.parquet"
    crops[5].write_bytes(b"no picture")
    vectors = EmbeddingStore(file, SOURCE, PATHS, crops).complete(lambda: recogniser, device="cpu")
    assert np.flatnonzero(np.isnan(vectors[:, 0])).tolist() == [5, NUMBER]
    assert EmbeddingStore(file, SOURCE, PATHS, crops).pending == []
    crops[7].unlink()
    with pytest.raises(RunError, match=r"cannot read the crop .*7\.png"):
        EmbeddingStore(file, SOURCE, PATHS, crops)
    assert stored_source(crops[3]) is None


def test_saving_now_and_then(tmp_path: Path, crops, recogniser, monkeypatch) -> None:
    monkeypatch.setattr("faceqan_toolkit.evaluation.embedding_store.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("faceqan_toolkit.evaluation.embedding_store.SAVE_SHARE", 1e9)
    seen = []

    def look(number: int) -> None:
        file = tmp_path / "e.parquet"
        seen.append(len(read_embeddings(file).paths) if file.exists() else 0)

    EmbeddingStore(tmp_path / "e.parquet", SOURCE, PATHS, crops).complete(
        lambda: recogniser, look, device="cpu"
    )
    assert seen == [0, 16, 32]
