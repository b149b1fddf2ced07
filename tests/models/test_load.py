"""What `--model` may say, and which network it means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from faceqan_toolkit.errors import (
    ChecksumMismatch,
    FaceQANError,
    MissingWeights,
    SettingsError,
    UnknownModel,
    WeightsError,
)
from faceqan_toolkit.files import is_file
from faceqan_toolkit.models import registry
from faceqan_toolkit.models.architectures import architecture_of, build_backbone, official
from faceqan_toolkit.models.load import find_model, load_model
from faceqan_toolkit.models.registry import entries
from faceqan_toolkit.settings import ModelOptions, is_model_name
from tests.models.layouts import fill, shapes
from tests.models.test_architectures import saved

SMALL = official("iresnet", 18, embedding_size=8)


@pytest.fixture(autouse=True)
def _no_models(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FACEQAN_TOOLKIT_MODELS", str(tmp_path / "models"))


@pytest.fixture(scope="module")
def content() -> bytes:
    return saved(fill(shapes(build_backbone(SMALL, "meta").state_dict())))


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "anything.bin"
    path.write_bytes(content)
    return path


@pytest.fixture
def crops() -> Tensor:
    return torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


# the registry

NAMED = {
    "sface", "cosface_r100_glint360k", "arcface_r50_ms1mv3", "arcface_r100_ms1mv3",
    "arcface_r50_webface", "arcface_r100_webface", "elasticface_arc_r100", "elasticface_cos_r100",
    "magface_r100", "curricularface_ir101", "adaface_ir50", "adaface_ir101",
    "buffalo_l_w600k_r50", "antelopev2_glintr100", "facenet_vggface2", "facenet_casia_webface",
}  # fmt: skip


@given(
    st.one_of(st.text(), st.sampled_from(sorted(NAMED)), st.sampled_from(["a" * 5000, "./a\0b"]))
)
def test_any_text_is_a_model_or_an_error(model: str) -> None:
    # a factory would be code, and run; a file here, such as README.md, is a model
    if registry.is_factory(model) or is_file(Path(model)):
        return
    try:
        found = find_model(model)
    except FaceQANError as error:
        assert str(error)  # noqa: PT017
    else:
        assert found.name == model == "sface"


def test_the_registry_is_complete() -> None:
    assert set(entries()) == NAMED
    for name, entry in entries().items():
        assert is_model_name(name)
        assert entry.commercial in ("yes", "no", "unclear")
        for text in (entry.title, entry.trained_on, entry.paper, entry.licence, entry.source):
            assert text
        assert (entry.notice != "") == (entry.commercial == "no")


@pytest.mark.parametrize("name", sorted(NAMED - {"sface"}))
def test_registered_networks_are_the_official_ones(name: str) -> None:
    entry = entries()[name]
    if entry.family == "onnx":
        assert len(entry.sha256) == 64
        return
    mine = architecture_of(entry)
    theirs = official(entry.family, entry.depth)
    assert mine.layout == theirs.layout
    assert (mine.preprocessing, mine.eps) == (theirs.preprocessing, theirs.eps)


# names


def test_unknown_names() -> None:
    with pytest.raises(UnknownModel, match=r"did you mean arcface_r50_ms1mv3\?.*models list"):
        find_model("arcface_r50_ms1mv2")
    with pytest.raises(UnknownModel, match=r"did you mean adaface_ir50, adaface_ir101\?"):
        find_model("AdaFace")
    with pytest.raises(UnknownModel, match="unknown model 'zzz'"):
        find_model("zzz")


def test_a_folder_is_no_model(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModel, match="the folder of that name is no weights file"):
        find_model("photos")
    with pytest.raises(UnknownModel, match=r"a file needs its path, such as \./picture"):
        find_model("picture")


def test_a_known_model_that_is_not_here_says_how_to_get_it() -> None:
    message = r"Get backbone\.pth from .* then: faceqan-toolkit models add cosface_r100_glint360k"
    with pytest.raises(MissingWeights, match=message):
        find_model("cosface_r100_glint360k")


def test_a_name_is_no_path(file: Path, monkeypatch) -> None:
    """A file called like a model does not take its place."""
    monkeypatch.chdir(file.parent)
    (file.parent / "sface").write_bytes(file.read_bytes())
    assert find_model("sface").entry is entries()["sface"]
    assert find_model("./sface").entry is None


# files


def test_a_file_goes_by_its_content(file: Path, crops: Tensor) -> None:
    found = find_model(str(file))
    renamed = file.with_name("other.pth")
    renamed.write_bytes(file.read_bytes())
    embedder = found.load()
    assert found.name == embedder.name == f"anything.bin@{found.sha256[:8]}"
    assert embedder.sha256 == found.sha256 == find_model(str(renamed)).sha256
    assert embedder.title == "IResNet (ArcFace, CosFace, ElasticFace), depth 18, 8-d"
    assert embedder(crops).shape == (2, 8)
    assert embedder.assumed == (
        "RGB", "pixel mean 127.5", "pixel std 127.5", "batch norm eps 1e-05",
    )  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"channels": "BGR"}, {"pixel_mean": 0.0}, {"pixel_std": 255.0}, {"norm_eps": 1e-2},
    ],
)  # fmt: skip
def test_every_option_changes_the_embeddings(
    file: Path, crops: Tensor, options: dict[str, object]
) -> None:
    plain, other = load_model(str(file)), load_model(str(file), **options)
    assert (plain(crops) - other(crops)).norm() > 1e-3 * plain(crops).norm()
    assert len(other.assumed) == 3


def test_options_do_what_they_say(file: Path, crops: Tensor) -> None:
    plain = load_model(str(file))
    swapped = load_model(str(file), channels="BGR")
    torch.testing.assert_close(swapped(crops), plain(crops.flip(1)))
    # (x - 0) / 255 on x is (y - 127.5) / 127.5 on y = (x + 1) / 2 in [0, 1] units
    shifted = load_model(str(file), pixel_mean=0.0, pixel_std=255.0)
    torch.testing.assert_close(shifted(crops), plain((crops + 1) / 2), rtol=1e-4, atol=1e-4)


def test_files_that_are_not_there_or_change(file: Path) -> None:
    with pytest.raises(MissingWeights, match=r"nothing\.pth: No such file"):
        find_model("nothing.pth")
    with pytest.raises(MissingWeights, match="`model`"):
        find_model(str(file.parent) + "/")
    found = find_model(str(file))
    file.write_bytes(b"PK" + file.read_bytes())
    with pytest.raises(ChecksumMismatch, match="has changed"):
        found.load()
    with pytest.raises(WeightsError, match=r"anything\.bin: no checkpoint"):
        load_model(str(file))


def test_options_only_where_something_is_unknown() -> None:
    with pytest.raises(SettingsError, match="--channels and --norm-eps cannot be given for sface"):
        find_model("sface", ModelOptions(channels="BGR", eps=1e-3))
    for bad in ({"channels": "GBR"}, {"std": 0.0}, {"mean": float("nan")}, {"eps": 2.0}):
        with pytest.raises(SettingsError):
            ModelOptions(**bad)


# factories

MODULE = """
import torch
from faceqan_toolkit import BackboneEmbedder, Preprocessing

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 4, 8, 8)
        self.fc = torch.nn.Linear(4 * 8 * 8, 5)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))

def make():
    return BackboneEmbedder(Net(), Preprocessing("BGR", 0.0, 255.0, 64, "box"))

def other():
    return BackboneEmbedder(Net(), Preprocessing("RGB", 0.0, 255.0, 64, "box"))

def bare():
    return Net()

def fails():
    raise ValueError("no weights today")

def leaves():
    raise SystemExit(0)

def differs():
    embedder = make()
    torch.seed()
    torch.nn.init.normal_(embedder.backbone.fc.weight)
    return embedder

def mixes():
    class Mixing(Net):
        def forward(self, x):
            return super().forward(x - x.mean(dim=0, keepdim=True))
    return BackboneEmbedder(Mixing(), Preprocessing("RGB", 0.0, 255.0, 64))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> str:
    name = f"model_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_in_the_current_folder(module: str) -> None:
    found = find_model(f"{module}:make")
    embedder = found.load()
    assert (embedder.input_size, embedder.template) == (64, "box")
    assert embedder(torch.rand(3, 3, 64, 64)).shape == (3, 5)
    assert not any(p.requires_grad for p in embedder.parameters())
    assert found.name == f"{module}:make"
    # the same weights behind another preprocessing are another model
    assert found.sha256 == find_model(f"{module}:make").sha256
    assert found.sha256 != find_model(f"{module}:other").sha256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bare", "returned a Net; it must return a"),
        ("fails", "ValueError: no weights today"),
        ("nothing", "AttributeError"),
        ("leaves", "SystemExit"),
        ("differs", "another model at every call"),
        ("mixes", "depends on the batch"),
    ],
)
def test_factories_that_cannot_be_used(module: str, name: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        find_model(f"{module}:{name}")
    with pytest.raises(WeightsError, match="ModuleNotFoundError"):
        find_model("no_such_module_at_all:make")


def test_models_that_packages_offer(module: str, monkeypatch) -> None:
    offered = {"theirs": f"{module}:make", "sface": f"{module}:make"}
    monkeypatch.setattr(registry, "offered", lambda: offered)
    assert find_model("theirs").load().name == "theirs"
    assert find_model("sface").entry is entries()["sface"]


def test_only_the_built_in_model_has_a_head() -> None:
    with pytest.raises(SettingsError, match="cosface_r100_glint360k has none"):
        registry.head_of("cosface_r100_glint360k")
