"""Adding, keeping and removing models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from faceqan_toolkit.errors import (
    ChecksumMismatch,
    DamagedWeights,
    FaceQANError,
    MissingWeights,
    SettingsError,
    WeightsError,
    WrongArchitecture,
)
from faceqan_toolkit.models import registry
from faceqan_toolkit.models.architectures import build_backbone, official
from faceqan_toolkit.models.load import add_model, find_model, load_model
from faceqan_toolkit.models.registry import (
    added_names,
    entries,
    find_added,
    known_models,
    remove_added,
)
from faceqan_toolkit.settings import ModelOptions
from tests.models.layouts import fill, shapes
from tests.models.test_architectures import magface, named, saved

PLAIN = ModelOptions()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("FACEQAN_TOOLKIT_MODELS", str(folder))
    monkeypatch.setattr(registry, "checkout_folder", lambda: None)
    return folder


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    architecture = official("iresnet", 18, embedding_size=8)
    return fill(shapes(build_backbone(architecture, "meta").state_dict()))


@pytest.fixture
def file(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    path = tmp_path / "download (1).tmp"
    path.write_bytes(saved({"state_dict": named("module.", state), "head": torch.zeros(4, 4)}))
    return path


def test_a_model_of_ones_own(file: Path, folder: Path, state: dict[str, torch.Tensor]) -> None:
    model, embedder = add_model("mine", file, folder, ModelOptions(channels="BGR"), "CC0")
    assert embedder.assumed == ("pixel mean 127.5", "pixel std 127.5", "batch norm eps 1e-05")
    assert sorted(path.name for path in folder.iterdir()) == ["mine.json", "mine.safetensors"]
    kept = load_file(model.path)
    assert kept["conv1.weight"].equal(state["conv1.weight"])
    assert "head" not in kept
    found = find_added("mine")
    assert found == model
    assert added_names() == ["mine"]
    assert states() == {"sface": "built in", "magface_r100": "not here", "mine": "added"}
    loaded = load_model("mine")
    assert (loaded.name, loaded.sha256, loaded.assumed) == ("mine", model.identity, ())
    crops = torch.rand(1, 3, 112, 112)
    torch.testing.assert_close(loaded(crops), embedder(crops))
    assert model.entry.licence == "CC0"
    remove_added(model)
    assert list(folder.iterdir()) == []


def states() -> dict[str, str]:
    listed = {model.name: model.state for model in known_models()}
    return {name: listed[name] for name in ("sface", "magface_r100", "mine")}


def test_again_and_another_by_the_same_name(file: Path, folder: Path) -> None:
    first, _ = add_model("mine", file, folder, PLAIN)
    again, _ = add_model("mine", file, folder, PLAIN)
    assert again == first
    other = file.with_name("other")
    other.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(SettingsError, match="added before, from download"):
        add_model("mine", other, folder, PLAIN)


def test_a_file_that_is_not_that_model(file: Path, folder: Path) -> None:
    message = "looks like .* depth 18, 8-d; expected MagFace IResNet, depth 100, 512-d"
    with pytest.raises(WrongArchitecture, match=message):
        add_model("magface_r100", file, folder, PLAIN)
    assert not folder.exists()
    with pytest.raises(ChecksumMismatch, match=r"not the published w600k_r50\.onnx"):
        add_model("buffalo_l_w600k_r50", file, folder, PLAIN)


def test_tampering_is_found_at_every_load(file: Path, folder: Path) -> None:
    model, _ = add_model("mine", file, folder, PLAIN)
    content = bytearray(model.path.read_bytes())
    content[-1] ^= 1
    model.path.write_bytes(content)
    with pytest.raises(ChecksumMismatch, match="has changed"):
        load_model("mine")
    model.path.unlink()
    with pytest.raises(MissingWeights, match="No such file"):
        load_model("mine")


@pytest.mark.parametrize(
    "card", ["", "[]", "{}", '{"model": {"name": "mine"}}', "\xff", "[" * 100_000]
)
def test_a_damaged_card(file: Path, folder: Path, card: str) -> None:
    model, _ = add_model("mine", file, folder, PLAIN)
    model.card.write_text(card, encoding="latin-1")
    with pytest.raises(DamagedWeights, match="add the model again"):
        load_model("mine")
    assert states()["mine"] == "damaged"


def test_a_card_cannot_point_elsewhere(file: Path, folder: Path, tmp_path: Path) -> None:
    model, _ = add_model("mine", file, folder, PLAIN)
    card = json.loads(model.card.read_text())
    card["weights"] = f"../{file.name}"
    model.card.write_text(json.dumps(card))
    with pytest.raises(MissingWeights):
        load_model("mine")


@pytest.mark.parametrize("name", ["sface", "a.b", "../x", "", "a/b", "-x"])
def test_names_that_cannot_be_used(file: Path, folder: Path, name: str) -> None:
    with pytest.raises(SettingsError):
        add_model(name, file, folder, PLAIN)


def test_registered_models_take_no_options(file: Path, folder: Path) -> None:
    with pytest.raises(SettingsError, match="--channels cannot be given for magface_r100"):
        add_model("magface_r100", file, folder, ModelOptions(channels="RGB"))
    with pytest.raises(SettingsError, match="--licence"):
        add_model("magface_r100", file, folder, PLAIN, "mine now")


def test_a_folder_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot write"):
        add_model("mine", file, tmp_path / "file" / "models", PLAIN)
    with pytest.raises(MissingWeights):
        add_model("mine", tmp_path / "nothing", tmp_path, PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arcface_r50_ms1mv3", "magface_r100", "facenet_vggface2"])
def test_registered_models(name: str, tmp_path: Path, folder: Path) -> None:
    entry = entries()[name]
    architecture = official(entry.family, entry.depth)
    filled = fill(shapes(build_backbone(architecture, "meta").state_dict()))
    file = tmp_path / "anything"
    # MagFace's tensors are those of any IResNet: without its wrapping the entry says what it is
    file.write_bytes(saved(filled))
    _, embedder = add_model(name, file, folder, PLAIN)
    loaded = load_model(name)
    crops = torch.rand(1, 3, entry.input_size, entry.input_size)
    torch.testing.assert_close(loaded(crops), embedder(crops))
    assert loaded.preprocessing == architecture.preprocessing
    assert loaded.input_size == entry.input_size
    assert loaded.family == entry.family


def test_a_magface_checkpoint_is_no_arcface(file: Path, folder: Path) -> None:
    state = build_backbone(official("iresnet", 50), "meta").state_dict()
    blank = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}
    file.write_bytes(magface(blank))
    with pytest.raises(WrongArchitecture, match="looks like MagFace"):
        add_model("arcface_r50_ms1mv3", file, folder, PLAIN)


def test_what_was_told_of_a_model_is_part_of_it(file: Path, folder: Path) -> None:
    plain, _ = add_model("one", file, folder, PLAIN)
    other, _ = add_model("two", file, folder, ModelOptions(channels="BGR"))
    assert plain.sha256 == other.sha256
    assert plain.identity != other.identity
    assert find_model("one").sha256 == load_model("one").sha256 == plain.identity
    with pytest.raises(SettingsError, match="added before"):
        add_model("one", file, folder, ModelOptions(channels="BGR"))


def test_names_never_lead_elsewhere(file: Path, folder: Path) -> None:
    add_model("mine", file, folder, PLAIN)
    (folder.parent / "outside.json").write_text("{}")
    assert find_added("../outside") is None
    (folder / "a b.json").write_text("{}")
    assert added_names() == ["mine"]


def test_errors_are_ours() -> None:
    assert issubclass(WeightsError, FaceQANError)


def test_a_safetensors_file_that_begins_like_onnx(
    file: Path, folder: Path, state: dict[str, torch.Tensor]
) -> None:
    """Its first byte is the lowest of its header's length."""
    padding = (8 - save(state, metadata={"note": ""})[0]) % 256
    content = save(state, metadata={"note": "x" * padding})
    assert content[0] == 8
    file.write_bytes(content)
    _, embedder = add_model("mine", file, folder, PLAIN)
    assert embedder.family == "iresnet"
