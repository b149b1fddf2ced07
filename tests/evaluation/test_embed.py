"""Embeddings of crops, in order, with gaps where there is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from faceqan_toolkit.evaluation.embed import embed_crops, kept_crop
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Pixels
from tests.conftest import DATA
from tests.ledgers import face, write_run


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


def test_crops_of_a_run(tmp_path: Path, crop: Pixels) -> None:
    records = [
        face(tmp_path, "a/1.jpg", 0.5, crop="crops/a/1.jpg.0.png"),
        face(tmp_path, "a/2.jpg", 0.5),
        face(tmp_path, "a/3.jpg", 0.5, crop="crops/gone.png"),
    ]
    run = write_run(tmp_path / "run", records)
    (tmp_path / "run/crops/a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "run/crops/a/1.jpg.0.png"), crop[..., ::-1])
    found = [kept_crop(run, record.to_dict()) for record in records]
    assert np.array_equal(found[0], crop)
    assert found[1:] == [None, None]


def test_crops_that_were_scored_as_such(tmp_path: Path) -> None:
    content = (DATA / "astronaut.png").read_bytes()
    record = face(tmp_path, "a/1.png", 0.5)
    (tmp_path / "a/1.png").write_bytes(content)
    run = write_run(tmp_path / "run", [record], Settings(task="score"))
    assert kept_crop(run, record.to_dict()) is None  # changed since
    row = record.to_dict() | {"sha256": hashlib.sha256(content).hexdigest()}
    assert kept_crop(run, row).shape == (112, 112, 3)
