"""Weights files: the package's own, and users', with external data beside a graph."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import ModelProto

from faceqan_toolkit.detection.yunet import YuNetDetector
from faceqan_toolkit.errors import (
    ChecksumMismatch,
    DamagedWeights,
    MissingWeights,
    UnsupportedGraph,
    WeightsError,
)
from faceqan_toolkit.models import load, weights
from faceqan_toolkit.models.load import add_model, find_model, load_model
from faceqan_toolkit.models.registry import FOLDER_VARIABLE
from faceqan_toolkit.models.weights import identify_weights, read_weights_file
from faceqan_toolkit.settings import ModelOptions, Settings
from tests.models.test_onnx_model import SIZE, Tiny, export

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


DATA = "model.onnx.data"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one.onnx`, and the same network as onnx writes it in two files, as torch's default does."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "one.onnx").write_bytes(export(Tiny()))
    onnx.save_model(
        onnx.load(folder / "one.onnx"), folder / "model.onnx", save_as_external_data=True,
        location=DATA, size_threshold=0,
    )  # fmt: skip
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def change(folder: Path, **fields: str) -> ModelProto:
    """Write the graph with another description of where its first tensor lies."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    external = model.graph.initializer[0].external_data
    kept = {entry.key: entry.value for entry in external} | fields
    del external[:]
    for key, value in kept.items():
        external.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return model


def test_two_files_are_the_model_in_one(folder: Path) -> None:
    one, two = (load_model(str(folder / name)) for name in ("one.onnx", "model.onnx"))
    crops = torch.rand(3, 3, SIZE, SIZE)
    assert one(crops).equal(two(crops))
    assert (two.title, two.notes, two.assumed) == (one.title, one.notes, one.assumed)


def test_both_files_are_the_models_identity(folder: Path) -> None:
    path, data = folder / "model.onnx", folder / DATA
    found = find_model(str(path))
    assert found.size == path.stat().st_size + data.stat().st_size
    assert found.load().sha256 == found.sha256 == read_weights_file(path)[1]
    assert found.name == f"model.onnx@{found.sha256[:8]}"
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    assert find_model(str(path)).sha256 != found.sha256
    with pytest.raises(ChecksumMismatch, match=r"model\.onnx has changed since"):
        found.load()


def test_one_file_is_identified_by_its_own_sha256(folder: Path) -> None:
    for name in ("one.onnx", DATA):
        content = (folder / name).read_bytes()
        expected = hashlib.sha256(content).hexdigest()
        assert identify_weights(folder / name) == (len(content), expected)
        assert read_weights_file(folder / name) == (content, expected)


def test_an_added_model_is_one_file(folder: Path, tmp_path: Path, monkeypatch) -> None:
    kept = tmp_path / "models"
    monkeypatch.setenv(FOLDER_VARIABLE, str(kept))
    model, _ = add_model("mine", folder / "model.onnx", kept, ModelOptions())
    assert model.original == ("model.onnx", find_model(str(folder / "model.onnx")).sha256)
    assert sorted(file.name for file in kept.iterdir()) == ["mine.json", "mine.onnx"]
    assert add_model("mine", folder / "model.onnx", kept, ModelOptions())[0] == model
    crops = torch.rand(2, 3, SIZE, SIZE)
    expected = load_model(str(folder / "one.onnx"))(crops)
    shutil.rmtree(folder)
    assert load_model("mine")(crops).equal(expected)


def test_links_of_a_download_cache(folder: Path, tmp_path: Path) -> None:
    """Both names are links to files of other names, beside each other."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name, blob in (("model.onnx", "3f5a"), (DATA, "77c0")):
        (folder / name).rename(folder / blob)
        (snapshot / name).symlink_to(Path("..") / "copy" / blob)
    expected = load_model(str(folder / "one.onnx"))
    crops = torch.rand(2, 3, SIZE, SIZE)
    assert load_model(str(snapshot / "model.onnx"))(crops).equal(expected(crops))


@pytest.mark.parametrize("kind", ["missing", "above", "absolute", "linked", "pipe", "folder"])
def test_only_files_beside_the_graph_are_read(folder: Path, kind: str) -> None:
    data, elsewhere = folder / DATA, folder.parent / "secret"
    data.rename(elsewhere)
    told = "outside its folder"
    if kind == "missing":
        told = rf"weights are in {DATA}, which cannot be read: No such file.*beside model\.onnx"
    elif kind == "above":
        change(folder, location="../secret")
    elif kind == "absolute":
        change(folder, location=str(elsewhere))
    elif kind == "linked":
        data.symlink_to(elsewhere)
    elif kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes as files here")
        os.mkfifo(data)
        told = "not a file"
    else:
        data.mkdir()
        told = "not a file"
    for use in (find_model, load_model):
        with pytest.raises(MissingWeights, match=told) as caught:
            use(str(folder / "model.onnx"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"offset": "-4"}, {"offset": "99999999"}, {"length": "99999999"}, {"length": "-1"},
     {"offset": "much"}, {"length": "9" * 5000}, {"offset": "0", "length": "1"}],
)  # fmt: skip
def test_tensors_that_are_not_in_the_file(folder: Path, fields: dict[str, str]) -> None:
    change(folder, **fields)
    with pytest.raises(WeightsError, match=r"model\.onnx: "):
        load_model(str(folder / "model.onnx"))


def test_data_that_is_cut_off(folder: Path) -> None:
    with (folder / DATA).open("rb+") as file:
        file.truncate(100)
    with pytest.raises(DamagedWeights, match=rf"does not lie within {DATA}: that file is cut off"):
        load_model(str(folder / "model.onnx"))


def test_no_more_is_read_than_a_graph_can_hold(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(weights, "LARGEST", (folder / DATA).stat().st_size - 1)
    with pytest.raises(UnsupportedGraph, match="at most 2 GiB can be used"):
        load_model(str(folder / "model.onnx"))


def test_a_file_that_many_tensors_share_is_no_bomb(folder: Path, monkeypatch: Any) -> None:
    model = change(folder, offset="0", length="3000")
    first = model.graph.initializer[0]
    for _ in range(1000):
        model.graph.initializer.append(first)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setattr(weights, "LARGEST", 1_000_000)
    with pytest.raises(UnsupportedGraph, match="more than 2 GiB"):
        load_model(str(folder / "model.onnx"))
