"""`faceqan-toolkit evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Group
from faceqan_toolkit.cli.options import stack
from faceqan_toolkit.evaluation.datasets.registry import DATASETS
from faceqan_toolkit.evaluation.result import (
    EDC_VARIANTS,
    FIGURE_FORMATS,
    FTE_RULES,
    PAIR_QUALITIES,
    TEMPLATE_QUALITIES,
    EvaluationOptions,
)
from faceqan_toolkit.settings import ModelSettings, QualitySettings

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
DEFAULTS = EvaluationOptions()

root_argument = click.argument("root", type=click.Path(path_type=Path))

input_options = stack(
    click.option(
        "-o", "--output", type=FOLDER, required=True, metavar="OUT",
        help="Folder for results, scores and embeddings; the same command continues there.",
    ),
    click.option(
        "--run", type=FOLDER, metavar="RUN", help="Use the faces and scores of this run.",
    ),
    click.option(
        "--scores", multiple=True, default=(), metavar="NAME=FILE[:COLUMN]",
        help="Scores of another tool, or a run; may be repeated. COLUMN: name of the score column, "
        "if it is not found.",
    ),
    click.option(
        "--embeddings", metavar="NAME=FILE",
        help="Embeddings (npz, parquet) of the recognition model NAME, made elsewhere.",
    ),
    click.option(
        "--scores-only", is_flag=True,
        help="Use --scores and --embeddings only; read no photo.",
    ),
    click.option("--name", metavar="NAME", help="Name of the data set in tables and figures."),
)  # fmt: skip

curve_options = stack(
    click.option(
        "--edc", type=click.Choice(EDC_VARIANTS), default=DEFAULTS.edc, show_default=True,
        help="fixed: one threshold from all non-mated comparisons; recompute: one for every "
        "discard share.",
    ),
    click.option(
        "--fmr", "fmr_targets", type=float, multiple=True, default=DEFAULTS.fmr_targets,
        show_default=True, metavar="RATE", help="False match rate; may be repeated.",
    ),
    click.option(
        "--fnmr-start", "fnmr_starts", type=float, multiple=True,
        default=DEFAULTS.fnmr_starts, show_default=True, metavar="RATE",
        help="Also use the threshold with this FNMR before discarding; may be repeated.",
    ),
    click.option(
        "--fte", type=click.Choice(FTE_RULES), default=DEFAULTS.fte, show_default=True,
        help="Comparisons without a detected face: exclude them, or count them as errors of the "
        "worst quality.",
    ),
    click.option(
        "--pair-quality", type=click.Choice(PAIR_QUALITIES), default=DEFAULTS.pair_quality,
        show_default=True, help="Quality of a comparison, from those of its two faces.",
    ),
    click.option(
        "--bootstrap", "replicates", type=click.IntRange(min=0), default=DEFAULTS.replicates,
        show_default=True, metavar="N",
        help="Bootstrap resamples (by identity) for the confidence intervals; 0 for none.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=DEFAULTS.seed, show_default=True,
        help="Random seed for pairs, bootstrap and the random baseline.",
    ),
    click.option(
        "--format", "formats", type=click.Choice(FIGURE_FORMATS), multiple=True,
        default=FIGURE_FORMATS, show_default=True,
        help="Format of the figures; may be repeated.",
    ),
)  # fmt: skip

model_options = stack(
    click.option(
        "--model", "recogniser", metavar="MODEL", show_default="the quality model",
        help="Recognition model whose errors are counted.",
    ),
    click.option(
        "--quality-model", metavar="MODEL", default=ModelSettings.name, show_default=True,
        help="Recognition model for the quality scores.",
    ),
    click.option(
        "--flip/--no-flip", default=False, show_default=True,
        help="Add the embedding of the mirrored crop to each embedding.",
    ),
    options.method_options,
    click.option(
        "--noise-seed", type=int, default=QualitySettings.seed, show_default=True,
        help="Random seed of the attack's noise.",
    ),
    options.attack_options,
    options.like_published_option,
    options.retry_option,
    options.machine_options,
    options.workers_option,
)  # fmt: skip

aligned_option = click.option(
    "--aligned/--raw", default=None, show_default="raw; aligned in xqlfw_aligned_112",
    help="Treat photos as aligned crops, without detection.",
)  # fmt: skip


def photo_options(name: str) -> Callable[[F], F]:
    """Return the options for photos in which faces are to be found, with a protocol's defaults."""
    faces = DATASETS[name].faces
    assert faces is not None
    return stack(
        aligned_option,
        options.faces_option(faces),
        options.detector_options,
        options.alignment_options,
    )


pairs_option = click.option(
    "--pairs",
    type=FILE,
    metavar="FILE",
    help="Use this list of pairs instead of the data set's own.",
)

pickle_option = click.option(
    "--legacy-pickle", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Score all photos and write the pickle of the published evaluation script.",
)  # fmt: skip

EXAMPLES = {
    "lfw": "evaluate lfw LFW -o out",
    "xqlfw": "evaluate xqlfw XQLFW -o out",
    "cfp-fp": "evaluate cfp-fp CFP -o out",
    "bin": "evaluate bin lfw.bin -o out",
    "ijbc": "evaluate ijbc IJBC -o out",
    "pairs": "evaluate pairs photos --pairs pairs.csv -o out",
    "folders": "evaluate folders people -o out",
}
"""Arguments that show how each protocol is used."""

COMMON = (input_options, curve_options, model_options)


@click.group("evaluate", cls=Group)
def command() -> None:
    """Measure how well quality scores predict recognition errors, by error-versus-discard curves.

    Detects, aligns, embeds and scores the photos of a data set, makes the comparisons of its
    protocol, and writes tables, figures and an HTML page to OUT.
    """


def _protocol(name: str, *extra: Callable[[Any], Any]) -> Callable[[F], click.Command]:
    """Return a decorator that makes the command of a protocol."""
    return stack(command.command(name, example=EXAMPLES[name]), root_argument, *COMMON, *extra)


def _run(name: str, root: Path, chosen: dict[str, Any]) -> None:
    from faceqan_toolkit.cli import evaluate_job

    evaluate_job.run_evaluation(name, root, chosen)


@_protocol("lfw", pairs_option, pickle_option, photo_options("lfw"))
def lfw(root: Path, **chosen: Any) -> None:
    """LFW: ROOT holds pairs.txt and a folder for each person."""
    _run("lfw", root, chosen)


@_protocol("xqlfw", pairs_option, pickle_option, photo_options("xqlfw"))
def xqlfw(root: Path, **chosen: Any) -> None:
    """XQLFW: ROOT holds its pairs and lfw_original_imgs_min_qual0.85variant11."""
    _run("xqlfw", root, chosen)


@_protocol("cfp-fp", photo_options("cfp-fp"))
def cfp_fp(root: Path, **chosen: Any) -> None:
    """CFP-FP: ROOT holds the folders Protocol and Data."""
    _run("cfp-fp", root, chosen)


@_protocol("bin")
def insightface_bin(root: Path, **chosen: Any) -> None:
    """InsightFace's .bin: ROOT is the file, or a folder with one; its photos are aligned."""
    _run("bin", root, chosen)


@_protocol(
    "ijbc",
    click.option(
        "--template-quality", type=click.Choice(TEMPLATE_QUALITIES), default="min",
        show_default=True, help="Quality of a template, from those of its photos.",
    ),
    click.option(
        "--detector-weights/--no-detector-weights", default=False, show_default=True,
        help="Weight the photos of a template by the detector's confidence.",
    ),
    options.alignment_options,
)  # fmt: skip
def ijbc(root: Path, **chosen: Any) -> None:
    """IJB-C 1:1: ROOT holds meta and loose_crop; landmarks come from its lists."""
    _run("ijbc", root, chosen)


@_protocol(
    "pairs",
    click.option(
        "--pairs", type=FILE, required=True, metavar="FILE",
        help="CSV file with the columns a, b (paths below ROOT) and label (1 mated, 0 not).",
    ),
    photo_options("pairs"),
)  # fmt: skip
def pairs(root: Path, **chosen: Any) -> None:
    """Your own list of pairs of photos below ROOT."""
    _run("pairs", root, chosen)


@_protocol(
    "folders",
    click.option(
        "--non-mated", metavar="N|all", show_default="as many as mated",
        help="Number of random non-mated comparisons.",
    ),
    options.identity_option,
    photo_options("folders"),
)  # fmt: skip
def folders(root: Path, **chosen: Any) -> None:
    """Your own photos: ROOT holds a folder for each person, or as --identity says."""
    _run("folders", root, chosen)


@command.command("validate", example="evaluate validate lfw LFW")
@click.argument("protocol", type=click.Choice(list(DATASETS)))
@root_argument
@pairs_option
@options.identity_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def validate(
    protocol: str, root: Path, pairs: Path | None, identity: str | None, as_json: bool
) -> None:
    """Check that a data set is complete and readable; exit code 1 if it is not usable."""
    from faceqan_toolkit.cli import evaluate_tools

    if not evaluate_tools.validate(protocol, root, pairs, identity, as_json=as_json):
        raise click.exceptions.Exit(1)


@command.command("agree", example="evaluate agree run other.csv")
@click.argument("first", metavar="[NAME=]A")
@click.argument("second", metavar="[NAME=]B")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Scatter plot: png, pdf or svg.",
)  # fmt: skip
@click.option(
    "--top", type=click.IntRange(min=0), default=10, show_default=True, metavar="N",
    help="Show the N photos whose percentile differs most.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def agree(first: str, second: str, output: Path | None, top: int, as_json: bool) -> None:
    """Measure how alike two tools rank the same photos. A and B are score files or runs.

    FILE:COLUMN names the score's column of a table.
    """
    from faceqan_toolkit.cli import evaluate_tools

    evaluate_tools.agree(first, second, output, top, as_json=as_json)


@command.command("grid", example="evaluate grid out1 out2 -o curves.pdf")
@click.argument("evaluations", metavar="OUT...", nargs=-1, required=True, type=FOLDER)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True,
    metavar="FILE", help="Figure: pdf, svg or png.",
)  # fmt: skip
@click.option(
    "--fmr", type=float, default=1e-3, show_default=True, metavar="RATE",
    help="False match rate of the curves; all evaluations must have it.",
)  # fmt: skip
def grid(evaluations: tuple[Path, ...], output: Path, fmr: float) -> None:
    """Draw the curves of several evaluations: one row per model, one column per data set."""
    from faceqan_toolkit.cli import evaluate_tools

    evaluate_tools.grid(evaluations, output, fmr)
