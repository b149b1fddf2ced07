"""`models`, and `--model`, on the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from faceqan_toolkit.models.architectures import build_backbone, official
from tests.cli.jobs import read_csv
from tests.conftest import SAMPLES, CommandLine
from tests.models.layouts import fill, shapes
from tests.models.test_architectures import saved
from tests.models.test_load import MODULE

QUICK = ("-k", "1", "-l", "1", "--device", "cpu", "--backend", "torch", "--workers", "1")
PHOTO = SAMPLES / "astronaut.jpg"


@pytest.fixture
def models(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("FACEQAN_TOOLKIT_MODELS", str(folder))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "weights.pth"
    architecture = official("iresnet", 18, embedding_size=8)
    path.write_bytes(saved(fill(shapes(build_backbone(architecture, "meta").state_dict()))))
    return path


def test_list_and_show(command_line: CommandLine, models: Path) -> None:
    listed = command_line("models", "list")
    assert listed.returncode == 0, listed.stderr
    assert "sface" in listed.stdout
    assert "cosface_r100_glint360k" in listed.stdout
    shown = command_line("models", "show", "magface_r100").stdout
    for text in ("MagFace", "BGR, (pixel - 0) / 255", "CVPR 2021", "none stated", "not here"):
        assert text in shown
    unknown = command_line("models", "show", "nothing")
    assert unknown.returncode == 1
    assert "unknown model 'nothing'" in unknown.stderr


def test_an_added_model_from_first_to_last(
    command_line: CommandLine, models: Path, checkpoint: Path, tmp_path: Path
) -> None:
    added = command_line("models", "add", "mine", checkpoint, "--channels", "BGR")
    assert added.returncode == 0, added.stderr
    assert "depth 18, 8-d, verified" in added.stdout
    assert "pixel mean 127.5" in added.stderr
    assert "RGB" not in added.stderr
    done = command_line("align-and-score", PHOTO, "-o", "run", "--model", "mine", *QUICK)
    assert done.returncode == 0, done.stderr
    (row,) = read_csv(tmp_path / "run/rankings.csv")
    assert row["model"] == "mine"
    info = json.loads((tmp_path / "run/run.json").read_text())["model"]
    assert (info["name"], info["family"], info["channels"]) == ("mine", "iresnet", "BGR")
    assert command_line("models", "verify").returncode == 0
    weights = models / "mine.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    verified = command_line("models", "verify", "mine")
    assert verified.returncode == 1
    assert "has changed" in verified.stdout
    stopped = command_line("align-and-score", PHOTO, "-o", "run2", "--model", "mine", *QUICK)
    assert stopped.returncode == 1
    assert "has changed" in stopped.stderr
    assert command_line("models", "remove", "mine").returncode == 0
    assert not list(models.iterdir())


def test_a_checkpoint_by_its_path(
    command_line: CommandLine, models: Path, checkpoint: Path, tmp_path: Path
) -> None:
    run = ("align-and-score", PHOTO, "-o", "run", *QUICK)
    done = command_line(*run, "--model", checkpoint)
    assert done.returncode == 0, done.stderr
    assert "depth 18" in done.stderr
    assert "A weights file does not hold these values" in done.stderr
    info = json.loads((tmp_path / "run/run.json").read_text())
    name = f"weights.pth@{info['model']['sha256'][:8]}"
    assert info["model"]["name"] == name
    assert info["model"]["assumed"][0] == "RGB"
    assert read_csv(tmp_path / "run/rankings.csv")[0]["model"] == name
    # under another name it is the same model; with other preprocessing it is not
    renamed = tmp_path / "renamed.ckpt"
    renamed.write_bytes(checkpoint.read_bytes())
    assert command_line(*run, "--model", renamed).returncode == 0
    other = command_line(*run, "--model", checkpoint, "--channels", "BGR")
    assert other.returncode == 1
    assert "channels: not set in the run, BGR now" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--model", "nothing.pth"), 1, "nothing.pth: No such file"),
        (("--model", "arcface"), 1, "did you mean"),
        (("--model", "cosface_r100_glint360k"), 1, "models add cosface_r100_glint360k FILE"),
        (("--model", "sface", "--channels", "BGR"), 2, "its preprocessing is known"),
        (("--model", str(PHOTO)), 1, "no checkpoint"),
        (("--model", "nowhere:make"), 1, "ModuleNotFoundError"),
    ],
)
def test_models_that_cannot_be_used(
    command_line: CommandLine, models: Path, tmp_path: Path, arguments: tuple[str, ...],
    code: int, message: str,
) -> None:  # fmt: skip
    done = command_line("align-and-score", PHOTO, "-o", "run", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_instant_needs_a_head(command_line: CommandLine, models: Path, checkpoint: Path) -> None:
    done = command_line(
        "align-and-score", PHOTO, "-o", "run", "--model", checkpoint, "--preset", "instant"
    )
    assert done.returncode == 2
    assert "use --preset fast" in done.stderr


def test_a_factory_decides_how_crops_are_cut(
    command_line: CommandLine, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "mymodel.py").write_text(MODULE)
    run = ("align-and-score", PHOTO, "-o", "run", *QUICK, "--model", "mymodel:make")
    done = command_line(*run)
    assert done.returncode == 0, done.stderr
    (row,) = read_csv(tmp_path / "run/rankings.csv")
    assert row["model"] == "mymodel:make"
    with Image.open(tmp_path / "run" / row["crop"]) as crop:
        assert crop.size == (64, 64)
    aligned = command_line("align", PHOTO, "-o", "crops", "--template", "box", "--crop-size", "64")
    assert aligned.returncode == 0
    assert (tmp_path / "crops" / row["crop"]).read_bytes() == (
        tmp_path / "run" / row["crop"]
    ).read_bytes()


@pytest.mark.slow
def test_weights_that_forbid_commercial_use(
    command_line: CommandLine, models: Path, tmp_path: Path
) -> None:
    architecture = official("iresnet", 50)
    file = tmp_path / "renamed to anything"
    file.write_bytes(saved(fill(shapes(build_backbone(architecture, "meta").state_dict()))))
    added = command_line("models", "add", "arcface_r50_ms1mv3", file)
    assert added.returncode == 0, added.stderr
    done = command_line(
        "align-and-score", PHOTO, "-o", "run", "--model", "arcface_r50_ms1mv3", *QUICK
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("not for commercial use") == 1


def test_research_photos_are_told_of(command_line: CommandLine) -> None:
    done = command_line("models", "show", "sface")
    assert done.returncode == 0, done.stderr
    told = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert "research-only data" in told["--preset instant"]
    assert "research" in told["scale 0 to 100"]
