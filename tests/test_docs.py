"""What the documents say against what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from faceqan_toolkit import cli, errors, pipeline
from faceqan_toolkit.evaluation.datasets.registry import DATASETS
from faceqan_toolkit.fields import expected, kind_of
from faceqan_toolkit.geometry import MISTAKES
from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.quality.scale import builtin_scale
from faceqan_toolkit.registry import DETECTORS, METHODS
from faceqan_toolkit.results.ranking import SCORED_COLUMNS
from faceqan_toolkit.runs.todo import HEALABLE
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS
from tests.conftest import DATA, cases, read_rgb
from tests.ledgers import face, write_run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = (ROOT / "docs/models.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs/results.md").read_text(encoding="utf-8")


def commands() -> dict[str, click.Command]:
    context = click.Context(cli.cli)
    return {name: cli.cli.get_command(context, name) for name in cli.COMMANDS}


def members(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def documented_options() -> dict[str, str]:
    page = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(--[\w-]+)`[^|]*\| ([^|]+?) \|", page, re.M))


def shown_default(option: click.Option) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    if option.secondary_opts:
        return f"`{(option.opts if option.default else option.secondary_opts)[0].lstrip('-')}`"
    if option.is_flag:
        return "off"
    default = option.default
    if option.multiple:
        (default,) = option.default
    return "none" if option.name in ("landmarks", "calibration") else f"`{default}`"


def test_every_option_and_default_is_on_its_page() -> None:
    documented = documented_options()
    known = {}
    for name in ("align-and-score", "detect", "align", "score"):
        for parameter in commands()[name].params:
            if isinstance(parameter, click.Option) and parameter.name != "output":
                long = next(opt for opt in parameter.opts if opt.startswith("--"))
                known[long] = shown_default(parameter)
    assert documented == known


def test_every_option_of_a_method_is_on_its_page() -> None:
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    row = r"^\| `(\w+)` \| `(\w+)` \| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$"
    assert re.findall(row, page, re.M) == [
        (part.name, name, str(item.default), expected(item, kind_of(part.options, name)),
         item.metadata["help"][0].lower() + item.metadata["help"][1:].rstrip("."))
        for part in METHODS.values()
        for name, item in part.fields.items()
    ]  # fmt: skip
    assert set(METHODS) <= set(re.findall(r"^\| `(\w+)` \|", page, re.M))


def test_every_detector_is_on_its_page() -> None:
    page = (ROOT / "docs/detection.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+ \| ([\d.]+) \| (\d+) \|$", page, re.M)
    assert {name: (float(least), int(side)) for name, least, side in rows} == {
        part.name: tuple(part.defaults.values()) for part in DETECTORS.values()
    }


def test_every_command_has_help_and_is_in_the_readme() -> None:
    for name, command in commands().items():
        assert command.help
        assert f"| `{name}" in README
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def subclasses(kind: type[errors.PhotoError]) -> set[type[errors.PhotoError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def test_every_mistake_in_landmarks_is_documented() -> None:
    page = (ROOT / "docs/landmarks.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| (the landmarks[^|]+) \|", page, re.M)
    assert sorted(documented) == sorted(mistake.reason for mistake in MISTAKES)


def test_every_status_is_documented() -> None:
    table = RESULTS.split("## Statuses")[1]
    documented = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", table, re.M))
    statuses = {kind.status for kind in subclasses(errors.PhotoError)}
    assert pipeline.Crashed.status in statuses
    assert set(documented) == statuses | {"ok"}
    assert {name for name, again in documented.items() if again == "always"} == HEALABLE & statuses


def test_every_column_is_documented() -> None:
    table = RESULTS.split("## Columns")[1].split("## Statuses")[0]
    documented = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.+?) \|", table, re.M))))
    hidden = set(BOX_COLUMNS[1:-1]) | set(LANDMARK_COLUMNS[1:-1])
    assert documented == set(SCORED_COLUMNS) - hidden


def test_the_factory_of_the_models_page(tmp_path: Path, monkeypatch) -> None:
    from faceqan_toolkit import FaceQAN

    (example,) = re.findall(r"```python\n(.*?)```", MODELS, re.S)
    (tmp_path / "mymodel.py").write_text(example, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    score = FaceQAN("mymodel:make", copies=2, device="cpu").score(
        [read_rgb(DATA / "astronaut.png")]
    )
    assert 0 < score[0].quality <= 1


EXAMPLES = [
    pytest.param(example, id=f"{page.name} {number}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, example in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    )
    if page.name != "models.md"  # a module, tested above
]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch) -> None:
    """Make a checkout, in which examples are typed."""
    for name in ("samples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for registry in (DETECTORS, METHODS, DATASETS):  # examples add to them
        monkeypatch.setattr(registry, "_parts", {part.name: part for part in registry.imported})


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run(example: str, tmp_path: Path, capsys) -> None:
    if "open_run(" in example:
        faces = [face(tmp_path / "photos", f"ann/{quality}.jpg", quality) for quality in (0.4, 0.7)]
        write_run(tmp_path / "run", faces)
    exec(compile(example, "an example", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert "None" not in lines[0]
    if "open_run(" in example:
        assert lines == ["1 ann/0.7.jpg 0.7", "2 ann/0.4.jpg 0.4"]
        assert (tmp_path / "kept/ann/0.7.jpg").exists()


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / page).parent.joinpath(link).exists(), link
    for script in re.findall(r"`(?:benchmarks/)?(\w+\.py)[` ]", text):
        places = ("benchmarks", "faceqan_toolkit", "samples", "weights/instant")
        found = [path for place in places for path in ROOT.glob(f"{place}/{script}")]
        assert found or script == "mymodel.py", script  # the reader's own
    for file in re.findall(r"(?:tests|faceqan_toolkit)/[\w/]+\.py", text):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize(("command", "page"), [("filter", "filter"), ("calibrate", "calibration")])
def test_every_option_is_documented(command: str, page: str) -> None:
    page = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(--[\w-]+)[^|]*\| ([^|]+?) \|", page, re.M))
    known = {}
    for parameter in commands()[command].params:
        # those of every command are in options.md
        if isinstance(parameter, click.Option) and parameter.expose_value:
            long = next(opt for opt in parameter.opts if opt.startswith("--"))
            has_default = parameter.is_flag or parameter.show_default
            known[long] = shown_default(parameter) if has_default else "none"
    assert documented == known


def test_every_option_of_evaluate_is_documented() -> None:
    """Those it shares with the other commands stand in options.md."""
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(--[\w-]+)[^|]*\| ([^|]+?) \|", page, re.M))
    shared = documented_options()
    group = commands()["evaluate"]
    assert isinstance(group, click.Group)
    subcommands = members(group)
    known: dict[str, dict[str, None]] = {}
    for name in ("lfw", "xqlfw", "cfp-fp", "bin", "ijbc", "pairs", "folders"):
        for parameter in subcommands[name].params:
            if not isinstance(parameter, click.Option) or parameter.name == "output":
                continue
            long = next(opt for opt in parameter.opts if opt.startswith("--"))
            if isinstance(parameter.show_default, str):
                shown = parameter.show_default
            elif parameter.multiple:
                shown = ", ".join(f"`{value}`" for value in parameter.default) or "none"
            elif parameter.is_flag or parameter.show_default:
                shown = shown_default(parameter)
            else:
                shown = "none"
            if shared.get(long) != shown or long in documented:
                known.setdefault(long, {})[shown] = None
    assert documented == {long: ", ".join(shown) for long, shown in known.items()}
    for name, subcommand in subcommands.items():
        assert subcommand.help
        assert f"`evaluate {name}" in page
        for parameter in subcommand.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_the_command_line_has_the_evaluations_defaults() -> None:
    from faceqan_toolkit.evaluation.result import EvaluationOptions

    group = commands()["evaluate"]
    assert isinstance(group, click.Group)
    ours, checked = EvaluationOptions(), 0
    subcommands = members(group)
    for parameter in subcommands["ijbc"].params:
        if hasattr(ours, str(parameter.name)) and parameter.name != "template_quality":
            assert parameter.default == getattr(ours, str(parameter.name)), parameter.name
            checked += 1
    assert checked == 7
    assert set(subcommands) == {
        *(entry.name for entry in DATASETS.imported),
        "validate",
        "agree",
        "grid",
    }


def test_the_scale_is_as_documented() -> None:
    page = (ROOT / "docs/quality-scale.md").read_text(encoding="utf-8")
    scale = builtin_scale(Settings(), find_model("sface").weights("exact"))
    assert scale is not None
    assert f"| `{scale.id}` | `sface`" in page
    assert f"| {scale.midpoint} | {scale.width} |" in page
    header, values = re.findall(r"^\| quality(?:_100)? \| (.+) \|$", page, re.M)
    for quality, value in zip(header.split(" | "), values.split(" | "), strict=True):
        assert scale.of(float(quality)) == int(value), quality
    example = re.findall(r"^ *\d+   (0\.\d{4}) +(\d+) +\d", README, re.M)
    assert len(example) == 10
    for quality, value in example:
        assert scale.of(float(quality)) == int(value), quality


def test_the_scores_on_the_page_about_scores() -> None:
    page = (ROOT / "docs/score.md").read_text(encoding="utf-8")
    scores = {case["image"]: case["quality"] for case in cases()}
    for crop, sentence in (
        ("grey.png", "plain grey crop has {}"),
        ("astronaut_occluded.png", "lower half black\nhas {}"),
    ):
        assert sentence.format(f"{scores[crop]:.2f}") in page
