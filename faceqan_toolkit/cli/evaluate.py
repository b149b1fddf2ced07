"""`faceqan-toolkit evaluate`: a command for each registered data set, and validate, agree, grid."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Command, Group
from faceqan_toolkit.cli.options import is_given, make_settings, stack
from faceqan_toolkit.cli.reporter import SOME_FAILED, Reporter
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation import options as edc
from faceqan_toolkit.evaluation.datasets.registry import (
    DATASETS,
    REQUIRED,
    DatasetEntry,
    DatasetOption,
    read_dataset,
)
from faceqan_toolkit.settings import (
    ModelOptions,
    ModelSettings,
    QualitySettings,
    Settings,
    setting_names,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from faceqan_toolkit.evaluation.datasets.base import Dataset

DEFAULTS = edc.EvaluationOptions()

SETTINGS = {*setting_names(), "detector_option", "method_option"}
OPTIONS = {item.name for item in fields(edc.EvaluationOptions)}
INPUTS = ("pairs", "flip", "run", "scores", "embeddings", "scores_only", "name", "figures",
          "detector_weights", "published_pickle", "retry_failed")  # fmt: skip
"""Options that are fields of `evaluation.evaluate.Inputs`."""
SCORING = ("quality_model", "noise_seed", "like_published", "retry_failed", "aligned")
DETECTION = (*setting_names("detection", "alignment"), "detector_option")

root_argument = click.argument("root", type=options.PATH)

input_options = stack(
    click.option("-o", "--output", type=options.FOLDER, required=True, metavar="OUT",
                 help="Folder for results, scores and embeddings; the same command continues "
                 "there."),
    click.option("--run", type=options.FOLDER, metavar="RUN",
                 help="Use the faces and scores of this run."),
    click.option("--scores", multiple=True, default=(), metavar="NAME=FILE[:COLUMN]",
                 help="Scores of another tool, or a run; may be repeated. COLUMN: name of the "
                 "score column, if it is not found."),
    click.option("--embeddings", metavar="NAME=FILE",
                 help="Embeddings (npz, parquet) of the recognition model NAME, made elsewhere."),
    click.option("--scores-only", is_flag=True,
                 help="Use --scores and --embeddings only; read no photo."),
    click.option("--name", metavar="NAME", help="Name of the data set in tables and figures."),
)  # fmt: skip

curve_options = stack(
    click.option("--edc", type=click.Choice(edc.EDC_VARIANTS), default=DEFAULTS.edc,
                 show_default=True, help="fixed: one threshold from all non-mated comparisons; "
                 "recompute: one for every discard share."),
    click.option("--fmr", "fmr_targets", type=float, multiple=True, default=DEFAULTS.fmr_targets,
                 show_default=True, metavar="RATE", help="False match rate; may be repeated."),
    click.option("--fnmr-start", "fnmr_starts", type=float, multiple=True,
                 default=DEFAULTS.fnmr_starts, show_default=True, metavar="RATE",
                 help="Also use the threshold with this FNMR before discarding; may be repeated."),
    click.option("--fte", type=click.Choice(edc.FTE_RULES), default=DEFAULTS.fte,
                 show_default=True, help="Comparisons without a detected face: exclude them, or "
                 "count them as errors of the worst quality."),
    click.option("--pair-quality", type=click.Choice(edc.PAIR_QUALITIES),
                 default=DEFAULTS.pair_quality, show_default=True,
                 help="Quality of a comparison, from those of its two faces."),
    click.option(
        "--bootstrap", "replicates", type=options.WHOLE, default=DEFAULTS.replicates,
        show_default=True, metavar="N",
        help="Bootstrap resamples (by identity) for the confidence intervals; 0 for none.",
    ),
    click.option("--seed", type=options.WHOLE, default=DEFAULTS.seed, show_default=True,
                 help="Random seed for pairs, bootstrap and the random baseline."),
    click.option("--format", "figures", type=click.Choice(edc.FIGURE_FORMATS), multiple=True,
                 default=edc.FIGURE_FORMATS, show_default=True,
                 help="Format of the figures; may be repeated."),
)  # fmt: skip

model_options = stack(
    click.option("--model", "recogniser", metavar="MODEL", show_default="the quality model",
                 help="Recognition model whose errors are counted."),
    click.option("--quality-model", metavar="MODEL", default=ModelSettings.name, show_default=True,
                 help="Recognition model for the quality scores."),
    click.option("--flip/--no-flip", default=False, show_default=True,
                 help="Add the embedding of the mirrored crop to each embedding."),
    options.method_options,
    click.option("--noise-seed", type=int, default=QualitySettings.seed, show_default=True,
                 help="Random seed of the attack's noise."),
    options.attack_options,
    options.like_published_option,
    options.retry_option,
    options.machine_options,
    options.workers_option,
)  # fmt: skip

aligned_option = click.option("--aligned/--raw", default=None,
                              show_default="raw; aligned in xqlfw_aligned_112",
                              help="Treat photos as aligned crops, without detection.")  # fmt: skip

pickle_option = click.option(
    "--legacy-pickle", "published_pickle", type=options.FILE, metavar="FILE",
    help="Score all photos and write the pickle of the published evaluation script.",
)  # fmt: skip

template_options = stack(
    click.option("--template-quality", type=click.Choice(edc.TEMPLATE_QUALITIES), default="min",
                 show_default=True, help="Quality of a template, from those of its photos."),
    click.option("--detector-weights/--no-detector-weights", default=False, show_default=True,
                 help="Weight the photos of a template by the detector's confidence."),
)  # fmt: skip


class _DatasetCommands(Group):
    """A command for each data set, made when it is used, and commands for all of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys([*DATASETS, *self.commands]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # no command if its package cannot be imported; `resolve_command` then says why
        if cmd_name in DATASETS and cmd_name not in self.commands:
            with suppress(SettingsError):
                self.add_command(_dataset_command(DATASETS.find(cmd_name)))
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in DATASETS:
            DATASETS.find(args[0])
        return super().resolve_command(ctx, args)


def _dataset_command(entry: DatasetEntry) -> click.Command:
    """Return the command that evaluates a data set."""
    added = list(_own_options(entry))
    if entry.templates:
        added.append(template_options)
    if entry.published:
        added.append(pickle_option)
    if entry.faces is not None:
        added += [aligned_option, options.faces_option(entry.faces), options.detector_options]
    if not entry.aligned:
        added.append(options.alignment_options)
    example = f"evaluate {entry.name} {entry.example} -o out"
    made: click.Command = stack(
        click.command(entry.name, cls=Command, help=entry.help, example=example),
        root_argument, input_options, *added, curve_options, model_options,
    )(lambda root, **chosen: _evaluate(entry, root, chosen))  # fmt: skip
    return made


def _own_options(entry: DatasetEntry) -> Iterator[Callable[[Any], Any]]:
    """Yield the options of a data set's reader; its seed is `--seed` of every evaluation."""
    for name, default in entry.options.items():
        if name == "identity":
            yield options.identity_option
        elif name != "seed":
            yield _own_option(name, default, entry.descriptions.get(name, DatasetOption()))


def _own_option(name: str, default: Any, described: DatasetOption) -> Callable[[Any], Any]:
    flag = name.replace("_", "-")
    if isinstance(default, bool):
        flag = f"{flag}/--no-{flag}"
    required = default is REQUIRED
    default = None if required else default
    return click.option(f"--{flag}", name, required=required, default=default,
                        type=options.INPUT_FILE if described.kind is Path else described.kind,
                        show_default=described.default or default is not None,
                        metavar=described.metavar or None,
                        help=described.help or "Option of the data set.")  # fmt: skip


@click.group("evaluate", cls=_DatasetCommands)
def command() -> None:
    """Measure how well quality scores predict recognition errors, by error-versus-discard curves.

    Detects, aligns, embeds and scores the photos of a data set, makes the comparisons of its
    protocol, and writes tables, figures and an HTML page to OUT.
    """


def _evaluate(entry: DatasetEntry, root: Path, chosen: Mapping[str, Any]) -> None:
    """Evaluate a data set; exit with 3 if some comparisons could not be made."""
    from faceqan_toolkit.cli.show_evaluation import print_evaluation
    from faceqan_toolkit.evaluation import evaluate

    _refuse_ignored(chosen)
    curves = edc.EvaluationOptions(**{name: chosen[name] for name in chosen if name in OPTIONS})
    reporter = Reporter()
    given = {name: chosen[name] for name in entry.options}
    dataset = evaluate.open_dataset(entry.name, root, tell=reporter, **given)
    inputs = evaluate.Inputs(
        settings=_settings(entry.name, dataset, chosen, reporter),
        chosen_faces="faces" not in chosen or is_given("faces"),
        model=chosen["recogniser"],
        model_options=ModelOptions(*(chosen[name] for name in evaluate.MODEL_OPTIONS)),
        command=sys.argv[1:],
        **{name: chosen[name] for name in INPUTS if name in chosen},
    )
    try:
        evaluation, written = evaluate.evaluate_opened(
            entry.name, root, dataset, chosen["output"], inputs, curves, reporter
        )
    except KeyboardInterrupt:
        reporter.message("\nInterrupted; the same command goes on from there.")
        raise
    print_evaluation(evaluation, written)
    if not evaluation.is_complete:
        reporter.exit(
            SOME_FAILED,
            "some comparisons lack a face, an embedding or a score; "
            + ("they are left out." if chosen["fte"] == "exclude" else "they are discarded first."),
        )


def _refuse_ignored(chosen: Mapping[str, Any]) -> None:
    """Refuse options that other options make useless."""
    from faceqan_toolkit.evaluation.evaluate import MODEL_OPTIONS, is_weights_file

    if chosen["scores_only"]:
        useless = (*SETTINGS, *SCORING, "recogniser", "run", "published_pickle")
        _refuse(useless, "--scores-only opens no photo")
    if chosen["embeddings"]:
        _refuse(("recogniser", "flip"), "--embeddings brings the model's work")
    if chosen["run"] is not None:
        used = {"device"}
        if chosen["recogniser"] and is_weights_file(chosen["recogniser"]):
            used.update(MODEL_OPTIONS)
        _refuse((*(SETTINGS - used), *SCORING), "--run has its scores")


def _settings(
    name: str, dataset: Dataset, chosen: Mapping[str, Any], reporter: Reporter
) -> Settings:
    """Return the settings of the run that is made."""
    from faceqan_toolkit.evaluation import evaluate

    aligned = evaluate.has_aligned_photos(name, dataset, chosen.get("aligned"), reporter)
    if aligned:
        _refuse(DETECTION, "aligned photos need no detection")
    given = {name: value for name, value in chosen.items() if name in SETTINGS}
    model, recogniser = chosen["quality_model"], chosen["recogniser"]
    is_file = evaluate.is_weights_file
    if not is_file(model) and recogniser and is_file(recogniser):
        given |= dict.fromkeys(evaluate.MODEL_OPTIONS)
    return make_settings(
        "score" if aligned else "align-and-score",
        like_published=chosen["like_published"],
        **{**given, "model": model, "seed": chosen["noise_seed"]},
    )


def _refuse(names: Sequence[str], why: str) -> None:
    """Raise SettingsError if one of some options was given."""
    for parameter in click.get_current_context().command.params:
        if parameter.name in names and is_given(parameter.name):
            raise SettingsError(f"{why}; leave {parameter.opts[-1]} out")


@command.command("validate", example="evaluate validate lfw LFW")
@click.argument("name", type=click.Choice(list(DATASETS)))
@root_argument
@_own_option("pairs", None, DATASETS["lfw"].descriptions["pairs"])
@options.identity_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def validate(
    name: str, root: Path, pairs: Path | None, identity: str | None, as_json: bool
) -> None:
    """Check that a data set is complete and readable; exit code 1 if it is not usable."""
    from faceqan_toolkit.evaluation.datasets import validation

    dataset = read_dataset(name, root, pairs=pairs, identity=identity, strict=False)
    if dataset.people:
        Reporter().message(dataset.people)
    report = validation.validate(dataset)
    click.echo(json.dumps(report.as_dict(), indent=1) if as_json else "\n".join(report.lines()))
    if not report.ok:
        raise click.exceptions.Exit(1)


@command.command("agree", example="evaluate agree run other.csv")
@click.argument("first", metavar="[NAME=]A")
@click.argument("second", metavar="[NAME=]B")
@click.option("-o", "--output", type=options.FILE, metavar="FILE",
              help="Scatter plot: png, pdf or svg.")  # fmt: skip
@click.option("--top", type=options.WHOLE, default=10, show_default=True, metavar="N",
              help="Show the N photos whose percentile differs most.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def agree(first: str, second: str, output: Path | None, top: int, as_json: bool) -> None:
    """Measure how alike two tools rank the same photos. A and B are score files or runs.

    FILE:COLUMN names the score's column of a table.
    """
    from faceqan_toolkit.cli.show_evaluation import print_agreement
    from faceqan_toolkit.evaluation import figures, statistics
    from faceqan_toolkit.evaluation.evaluate import scores_of
    from faceqan_toolkit.files import absolute

    if output is not None:
        figures.figure_format(output)
    given = [scores_of(text) for text in (first, second)]
    for table, file in given:
        if remarks := table.remarks():
            Reporter().message(f"{table.name}, {file}: {'; '.join(remarks)}")
    one, other = (table for table, _ in given)
    if one.name == other.name:
        one, other = (
            replace(table, name=f"{absolute(file).parent.name}/{table.name}")
            for table, file in given
        )
    found = statistics.agree(one, other)
    if as_json:
        click.echo(json.dumps(found.as_dict(top), indent=1))
    else:
        print_agreement(found, top)
    if output is not None:
        _save(figures.scatter_figure(found), output)


@command.command("grid", example="evaluate grid out1 out2 -o curves.pdf")
@click.argument("evaluations", metavar="OUT...", nargs=-1, required=True, type=options.FOLDER)
@click.option("-o", "--output", type=options.FILE, required=True, metavar="FILE",
              help="Figure: pdf, svg or png.")  # fmt: skip
@click.option("--fmr", type=float, default=1e-3, show_default=True, metavar="RATE",
              help="False match rate of the curves; all evaluations must have it.")  # fmt: skip
def grid(evaluations: tuple[Path, ...], output: Path, fmr: float) -> None:
    """Draw the curves of several evaluations: one row per model, one column per data set."""
    from faceqan_toolkit.evaluation import figures
    from faceqan_toolkit.evaluation.result_files import read_panels

    figures.figure_format(output)
    panels = [panel for folder in evaluations for panel in read_panels(folder, fmr)]
    _save(figures.grid_figure(panels, fmr), output)


def _save(figure: Figure, output: Path) -> None:
    from faceqan_toolkit.evaluation.figures import save

    save(figure, output)
    Reporter().message(f"Written: {output}")
