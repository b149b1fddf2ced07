"""Our networks against the official ones: names, shapes, and what they compute."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from facenet_pytorch import InceptionResnetV1
from torch import Tensor, nn

from faceqan_toolkit.models.architectures import (
    FAMILIES,
    Architecture,
    build,
    build_backbone,
    identify,
    official,
)
from faceqan_toolkit.models.checkpoints import load_network
from faceqan_toolkit.models.networks import IR_BLOCKS, IRESNET_BLOCKS, SqueezeExcitation
from tests.models.layouts import fill, inputs, layout, shapes

State = Mapping[str, Tensor]


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def named(prefix: str, state: State) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def insightface_training(state: State) -> bytes:
    optimiser = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []}
    return saved(
        {
            "epoch": 3,
            "state_dict_backbone": named("module.", state),
            "state_dict_softmax_fc": {"weight": torch.zeros(10, 512)},
            "state_optimizer": optimiser,
        }
    )


def magface(state: State) -> bytes:
    held = {**named("features.module.", state), "fc.weight": torch.zeros(512, 10)}
    return saved({"epoch": 25, "arch": "iresnet100", "state_dict": held, "best_prec1": 0.0})


def lightning(state: State) -> bytes:
    """As Lightning 1.4 wrote it: its callback's class among the keys."""
    held = {**named("model.", state), "head.kernel": torch.zeros(512, 10), "head.t": torch.ones(1)}
    path = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": path})
    parts = path.split(".")
    modules = {".".join(parts[: n + 1]): ModuleType(name) for n, name in enumerate(parts)}
    modules[path].ModelCheckpoint = callback  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        return saved(
            {
                "epoch": 24,
                "pytorch-lightning_version": "1.4.4",
                "state_dict": held,
                "callbacks": {callback: {"best_model_score": torch.tensor(0.9)}},
                "hyper_parameters": {"arch": "ir_101", "gpus": 1},
            }
        )


def bare(state: State) -> bytes:
    return saved(dict(state))


def converted(state: State) -> bytes:
    return safetensors.torch.save(dict(state))


OFFICIAL = {
    "insightface_iresnet18": (official("iresnet", 18), bare),
    "insightface_iresnet50": (official("iresnet", 50), insightface_training),
    "insightface_iresnet100": (official("iresnet", 100), converted),
    "magface_iresnet100": (official("magface", 100), magface),
    "curricularface_ir101": (official("ir", 101), bare),
    "adaface_ir50": (official("adaface", 50), lightning),
    "adaface_ir101": (official("adaface", 101), lightning),
}


@lru_cache(maxsize=1)  # MagFace's tensors are InsightFace's
def _filled(described: str) -> dict[str, Tensor]:
    return fill(json.loads(described))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if architecture.depth > 50 else [])
        for name, (architecture, _) in OFFICIAL.items()
    ],
)
def test_official_networks(name: str) -> None:
    architecture, wrap = OFFICIAL[name]
    expected = layout(name)
    assert shapes(build_backbone(architecture, "meta").state_dict()) == expected["state_dict"]
    loaded = load_network(wrap(_filled(json.dumps(expected["state_dict"]))))
    assert loaded.architecture == architecture
    with torch.no_grad():
        found = loaded.embedder.backbone(inputs())
    if architecture.family == "adaface":  # theirs are of length one
        assert (found.norm(dim=1) > 2).all()
        found = F.normalize(found)
    wanted = torch.tensor(expected["embeddings"])
    apart = (found - wanted).norm(dim=1) / wanted.norm(dim=1)
    # eps alone, MagFace's against InsightFace's, makes 7e-5
    assert apart.max() < 1e-5


def test_elasticface_is_insightface() -> None:
    """Nothing in a file tells them apart, and nothing needs to."""
    ours, theirs = layout("insightface_iresnet100"), layout("elasticface_iresnet100")
    assert ours["state_dict"] == theirs["state_dict"]
    assert ours["embeddings"] == theirs["embeddings"]


VARIANTS = [
    *(official("iresnet", depth) for depth in IRESNET_BLOCKS),
    *(official("ir", depth, embedding_size=256) for depth in IR_BLOCKS),
    *(official("ir", depth, squeeze_excitation=True, output_affine=True) for depth in IR_BLOCKS),
    *(official("adaface", depth) for depth in IR_BLOCKS),
    official("adaface", 50, squeeze_excitation=True),
    official("facenet"),
]


@pytest.mark.parametrize("architecture", VARIANTS, ids=lambda variant: variant.title)
def test_every_variant_is_recognised_by_its_own_tensors(architecture: Architecture) -> None:
    state = build_backbone(architecture, "meta").state_dict()
    assert identify(state) == architecture
    assert {name.split(".")[0] for name in state} == FAMILIES[architecture.family].parts


def test_names_are_unique() -> None:
    plain = [one for one in VARIANTS if not one.output_affine]
    assert len({one.name for one in plain}) == len(plain)


def test_what_no_checkpoint_tells_is_said_to_be_assumed() -> None:
    assert official("adaface", 50).assumed == ("channels", "mean", "std", "eps")
    assert official("adaface", 50).preprocessing.channels == "BGR"
    assert official("facenet").assumed == ("channels", "mean", "std")


@pytest.mark.parametrize("inner_norm", [False, True])
def test_where_the_official_code_puts_squeeze_and_excitation(inner_norm: bool) -> None:
    family = "adaface" if inner_norm else "ir"
    variant = official(family, 50, squeeze_excitation=True)
    state = build_backbone(variant, "meta").state_dict()
    unit = "se_block" if inner_norm else "5"
    assert state[f"body.3.res_layer.{unit}.fc1.weight"].shape == (8, 128, 1, 1)
    assert state[f"body.3.res_layer.{unit}.fc2.weight"].shape == (128, 8, 1, 1)


def test_squeeze_and_excitation_by_hand() -> None:
    unit = SqueezeExcitation(32)
    x = torch.randn(2, 32, 5, 5, generator=torch.Generator().manual_seed(0))
    squeezed = torch.relu(x.mean(dim=(2, 3)) @ unit.fc1.weight.flatten(1).T)
    weight = torch.sigmoid(squeezed @ unit.fc2.weight.flatten(1).T)
    torch.testing.assert_close(unit(x), x * weight[:, :, None, None])


def test_squeeze_and_excitation_ends_the_branch() -> None:
    torch.manual_seed(0)
    block = build_backbone(official("ir", 18, squeeze_excitation=True)).body[1]
    x = torch.randn(1, 64, 6, 6)
    unit = block.res_layer[5]
    branch = unit(nn.Sequential(*list(block.res_layer)[:5])(x))
    torch.testing.assert_close(block(x), branch + x)


def test_facenet_is_facenet_pytorchs() -> None:
    torch.manual_seed(0)
    theirs = InceptionResnetV1(classify=True, num_classes=3).eval()
    loaded = load_network(saved(theirs.state_dict()))
    assert loaded.architecture == official("facenet")
    theirs.classify = False
    crops = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        expected = theirs((crops * 255 - 127.5) / 128)
        found = loaded.embedder(crops)
    assert ((found.norm(dim=1) - 1).abs() > 1e-3).all()
    torch.testing.assert_close(F.normalize(found), expected, atol=1e-5, rtol=0)


def test_embedder_normalises_before_its_backbone() -> None:
    torch.manual_seed(0)
    embedder = build(official("magface", 18, embedding_size=4))
    crops = torch.rand(1, 3, 112, 112)
    with torch.no_grad():
        assert torch.equal(embedder(crops), embedder.backbone(crops.flip(1)))
    assert (embedder.name, embedder.input_size) == ("magface18", 112)
