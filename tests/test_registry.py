"""A detector and a method that are added by a decorator or an entry point alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from faceqan_toolkit import cli, registry
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.fields import option
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.quality.base import QualityEstimator
from faceqan_toolkit.registry import DETECTORS, METHODS, register_detector, register_method
from faceqan_toolkit.settings import DetectionSettings, QualitySettings, Settings
from faceqan_toolkit.types import Face, Photo, Score
from tests.conftest import SAMPLES, add_entry_points

LANDMARKS = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]


@dataclass(frozen=True)
class MiddleOptions:
    share: float = option(0.5, "Side of the box over the photo's shorter side.", above=0, at_most=1)
    twice: bool = option(False, "Report the face twice.")


@dataclass(frozen=True)
class BrightnessOptions:
    gain: float = option(1.0, "Factor of the quality.", above=0)
    channel: str = option("all", "Colour channel.", choices=("all", "red"))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that finds a face in the middle, and a method that takes the brightness."""
    import_module("faceqan_toolkit.cli.options")  # its defaults are those of the built-in ones
    for kind in (DETECTORS, METHODS):
        monkeypatch.setattr(kind, "_parts", {part.name: part for part in kind.imported})

    @register_detector("middle", min_confidence=0.25, max_side=500, options=MiddleOptions)
    class Middle:
        """The middle of the photo is a face."""

        def __init__(self, settings: Settings) -> None:
            self.options = settings.detection.options

        def detect(self, photo: Photo) -> list[Face]:
            side = min(photo.size) * self.options.share
            corner = (np.array(photo.size) - side) / 2
            box = np.concatenate([corner, corner + side])
            face = Face(box, corner + side * np.array(LANDMARKS), 0.5)
            return [face] * (1 + self.options.twice)

    class Brightness(QualityEstimator):
        gain, channels = 1.0, slice(None)

        def _score_block(self, faces):
            values = faces[:, self.channels].mean(dim=(1, 2, 3)) * self.gain
            return [Score(value, 1.0) for value in values.tolist()]

    @register_method("brightness", options=BrightnessOptions, uses=("seed",), title="Brightness")
    def brightness(settings, embedder):
        """Mean of the crop's pixels."""
        made = Brightness(embedder, settings.work.device)
        made.gain = settings.quality.options.gain
        made.channels = slice(0, 1) if settings.quality.options.channel == "red" else slice(None)
        return made


TOYS = {"detector": "middle", "method": "brightness", "device": "cpu"}


@pytest.mark.usefixtures("toys")
def test_settings_know_them() -> None:
    plain = Settings(**TOYS)
    assert (plain.detection.min_confidence, plain.max_side) == (0.25, 500)
    assert plain.quality.options == BrightnessOptions()
    other = Settings(**TOYS, share=0.4, gain=2.0, seed=3, max_side=0)
    assert other.detection.options == MiddleOptions(share=0.4)
    assert other.quality.options == BrightnessOptions(gain=2.0)
    nested = Settings(
        detection=DetectionSettings(detector="middle", options=MiddleOptions(0.4), max_side=0),
        quality=QualitySettings("brightness", seed=3, options=BrightnessOptions(2.0)),
        device="cpu",
    )
    assert nested == other
    assert Settings.from_dict(json.loads(json.dumps(other.as_dict()))) == other
    # only what differs from the defaults is recorded, so that a new option changes no old run
    assert not {"share", "twice", "gain", "channel"} & {*plain.as_dict(), *plain.identity("w")}
    assert set(other.as_dict()) - set(plain.as_dict()) == {"share", "gain"}
    assert set(other.identity("w")) - set(plain.identity("w")) == {"share", "gain"}
    assert {"gain"} == set(other.replace(task="score").identity("w")) & {"share", "gain"}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": 0.0}, "gain is 0.0; it must be above 0 and finite"),
        ({"gain": "much"}, "gain is 'much'; it must be a number"),
        ({"share": 2.0}, "share is 2.0; it must be above 0 and at most 1"),
        ({"channel": "blue"}, "channel is blue; it must be one of all, red"),
        ({"chanel": "red"}, r"there is no setting chanel; did you mean channel\?"),
        ({"passes": 3}, r"there is no setting passes \(method serfiq has such an option\)"),
        ({"eps": 0.1}, "eps is 0.1; it must be left out: method brightness would ignore it"),
        ({"one_based": True}, "one-based is True; .* detector middle would ignore it"),
        ({"landmarks": "a.csv"}, "landmarks is a.csv; it must be used without another detector"),
    ],
)
def test_wrong_options(options, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(**TOYS, **options)


@pytest.mark.usefixtures("toys")
def test_options_belong_to_their_part() -> None:
    given = Settings(**TOYS, share=0.4, gain=2.0)
    changed = given.replace(detector="yunet", method="norm")
    assert changed == Settings(detector="yunet", method="norm", device="cpu")
    with pytest.raises(SettingsError, match=r"options is .* it must be a MiddleOptions or None"):
        DetectionSettings(detector="middle", options=BrightnessOptions())

    @register_method("other", options=MiddleOptions)
    def other(settings, embedder):
        """Another method with an option that the detector has as well."""

    with pytest.raises(SettingsError, match="both have an option share"):
        Settings(detector="middle", method="other", share=0.1)
    with pytest.raises(ValueError, match="method norm is registered twice"):
        register_method("norm")(other)


@pytest.mark.usefixtures("toys")
def test_a_pipeline_uses_them() -> None:
    photo = SAMPLES / "hopper.jpg"
    (plain,) = Pipeline(Settings(**TOYS, preset="exact")).run([photo])
    assert (plain.status, plain.method, plain.preset) == ("ok", "brightness", "")
    assert 0 < plain.quality < 1
    one, two = Pipeline(Settings(**TOYS, faces="all", twice=True, gain=3.0)).run([photo])
    assert one.quality == two.quality == pytest.approx(3 * plain.quality)


@pytest.mark.usefixtures("toys")
def test_the_command_line_uses_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = ["align-and-score", str(SAMPLES / "hopper.jpg"), "-o", str(run), "--engine", "inline",
           "--device", "cpu", "--detector", "middle", "--method", "brightness", "--no-report",
           "--format", "parquet"]  # fmt: skip
    given = ["--detector-option", "share=0.4", "--method-option", "gain=2"]
    done = CliRunner().invoke(cli.cli, [*job, *given])
    assert done.exit_code == 0, done.output
    (row,) = pq.read_table(run / "rankings.parquet").to_pylist()
    settings = Settings(**TOYS, share=0.4, gain=2.0)
    (record,) = Pipeline(settings).run([SAMPLES / "hopper.jpg"])
    assert (row["method"], row["quality"]) == ("brightness", record.quality)
    content = json.loads((run / "run.json").read_text())
    assert content["identity"]["share"] == content["settings"]["share"] == 0.4
    assert content["settings"]["gain"] == 2
    again = CliRunner().invoke(cli.cli, job)
    assert again.exit_code == 1
    assert "share: 0.4 in the run, default now" in again.output

    for wrong, message in (
        (["--method-option", "gian=2"], "method brightness has no option gian; did you mean gain?"),
        (["--method-option", "gain"], "method-option is gain; it must be NAME=VALUE"),
        (["--method-option", "gain=big"], "gain is big; it must be a number"),
        (["--detector-option", "twice=maybe"], "twice is maybe; it must be true or false"),
    ):
        done = CliRunner().invoke(cli.cli, [*job, *wrong])
        assert done.exit_code == 2
        assert message in done.output
    done = CliRunner().invoke(cli.cli, [*job, "--method", "bright"])
    assert "one of faceqan, serfiq, grafiqs, magface, norm, brightness" in done.output


@pytest.mark.usefixtures("toys")
def test_help_knows_them() -> None:
    done = CliRunner().invoke(cli.cli, ["align-and-score", "--help"], terminal_width=300)
    assert "--detector [mtcnn|yunet|middle]" in done.output
    assert "middle: share [0.5], twice [False]." in done.output
    assert "brightness: gain [1.0], channel [all]." in done.output


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    """Install a package with entry points of methods: name to source of its module."""
    add_entry_points(folder, "methods", {name: f"offered_{name}" for name in modules})
    for name, source in modules.items():
        (folder / f"offered_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    registry._entry_points.cache_clear()


@pytest.mark.usefixtures("toys")
def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = '''
from dataclasses import dataclass
from faceqan_toolkit.fields import option
from faceqan_toolkit.registry import register_method

@dataclass(frozen=True)
class Options:
    depth: int = option(2, "Depth.", at_least=1)

@register_method("good", options=Options)
def good(settings, embedder):
    """A method of another package."""
'''
    broken, silent = "import nothing_of_this_name", ""
    offer(tmp_path, monkeypatch, good=source, broken=broken, silent=silent)
    try:
        done = CliRunner().invoke(cli.cli, ["score", "--help"], terminal_width=300)
        assert "norm|brightness|good|broken|silent]" in done.output
        assert "good: depth [2]." in done.output
        assert Settings(method="good", depth=3).quality.options.depth == 3
        assert len(METHODS) == len(list(METHODS)) == 9
        with pytest.raises(SettingsError, match=r"method broken: .* cannot be imported: ModuleNot"):
            Settings(method="broken")
        with pytest.raises(SettingsError, match="importing offered_silent does not register it"):
            Settings(method="silent")
    finally:
        registry._entry_points.cache_clear()
