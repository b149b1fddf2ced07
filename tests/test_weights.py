"""Weights that ship: found, verified, refused when they are not what they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from faceqan_toolkit import weights
from faceqan_toolkit.detection.yunet import YuNetDetector
from faceqan_toolkit.errors import ChecksumMismatch, MissingWeights
from faceqan_toolkit.models import load
from faceqan_toolkit.settings import Settings

LOADERS = [
    ("sface.safetensors", lambda: load.load_model("sface")),
    ("yunet.onnx", lambda: YuNetDetector(Settings())),
]


@pytest.mark.parametrize(("file_name", "load"), LOADERS, ids=[name for name, _ in LOADERS])
def test_weights_must_be_the_expected_ones(file_name, load, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "files", lambda package: tmp_path / "site" / package)
    with pytest.raises(MissingWeights, match=file_name):
        load()
    folder = tmp_path / "site" / "weights"
    folder.mkdir(parents=True)
    (folder / file_name).write_bytes(b"something else")
    with pytest.raises(ChecksumMismatch, match="sha256"):
        load()


def test_weights_that_cannot_be_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "files", lambda package: tmp_path / package)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "yunet.onnx").write_bytes(b"")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(MissingWeights, match="Permission denied"):
        YuNetDetector(Settings())
