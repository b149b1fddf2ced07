"""`evaluate` on a data set: options to inputs, the evaluation, its result, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import click

from faceqan_toolkit.cli.options import is_given, make_settings
from faceqan_toolkit.cli.reporter import SOME_FAILED, Reporter
from faceqan_toolkit.cli.show_evaluation import print_evaluation
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.datasets.base import Dataset
from faceqan_toolkit.evaluation.evaluate import (
    MODEL_OPTIONS,
    Inputs,
    evaluate_opened,
    has_aligned_photos,
    is_complete,
    is_weights_file,
    open_dataset,
)
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.settings import ModelOptions, Settings, setting_names

SETTINGS = {*setting_names(), "detector_option", "method_option"}
OPTIONS = {item.name for item in fields(EvaluationOptions)}
SCORING = ("quality_model", "noise_seed", "like_published", "retry_failed", "aligned")
DETECTION = (*setting_names("detection", "alignment"), "detector_option")


def run_evaluation(name: str, root: Path, chosen: Mapping[str, Any]) -> None:
    """Make an evaluation; exit with 3 if some comparisons could not be made.

    Raises:
        FaceQANError: whatever stops it; scores and embeddings made until then are kept.
    """
    _refuse_ignored(chosen)
    options = EvaluationOptions(**{name: chosen[name] for name in chosen if name in OPTIONS})
    reporter = Reporter()
    dataset = open_dataset(
        name, root, pairs=chosen.get("pairs"), non_mated=_non_mated(chosen.get("non_mated")),
        seed=chosen["seed"] if name == "folders" else None, identity=chosen.get("identity"),
        tell=reporter,
    )  # fmt: skip
    inputs = Inputs(
        settings=_settings(name, dataset, chosen, reporter),
        chosen_faces="faces" not in chosen or is_given("faces"),
        model=chosen["recogniser"],
        model_options=ModelOptions(*(chosen[name] for name in MODEL_OPTIONS)),
        flip=chosen["flip"],
        run=chosen["run"],
        scores=chosen["scores"],
        embeddings=chosen["embeddings"],
        scores_only=chosen["scores_only"],
        name=chosen["name"],
        detector_weights=chosen.get("detector_weights", False),
        published_pickle=chosen.get("legacy_pickle"),
        retry_failed=chosen["retry_failed"],
        figures=chosen["formats"],
        command=sys.argv[1:],
    )
    files = {"pairs": chosen["pairs"]} if chosen.get("pairs") else {}
    try:
        evaluation, written = evaluate_opened(
            name, root, dataset, chosen["output"], inputs, options, files=files, tell=reporter
        )
    except KeyboardInterrupt:
        reporter.message("\nInterrupted; the same command goes on from there.")
        raise
    print_evaluation(evaluation, written)
    if not is_complete(evaluation):
        reporter.exit(
            SOME_FAILED,
            "some comparisons lack a face, an embedding or a score; "
            + ("they are left out." if chosen["fte"] == "exclude" else "they are discarded first."),
        )


def _refuse_ignored(chosen: Mapping[str, Any]) -> None:
    """Refuse options that other options make useless."""
    if chosen["scores_only"]:
        taken = (*SETTINGS, *SCORING, "recogniser", "run", "legacy_pickle")
        refuse(taken, "--scores-only opens no photo")
    if chosen["embeddings"]:
        refuse(("recogniser", "flip"), "--embeddings brings the model's work")
    if chosen["run"] is not None:
        taken = tuple(SETTINGS - {"device"})
        if chosen["recogniser"] and is_weights_file(chosen["recogniser"]):
            taken = tuple(set(taken) - set(MODEL_OPTIONS))
        refuse((*taken, *SCORING), "--run has its scores")


def _settings(
    name: str, dataset: Dataset, chosen: Mapping[str, Any], reporter: Reporter
) -> Settings:
    """Return the settings of the run that is made."""
    aligned = has_aligned_photos(name, dataset, chosen.get("aligned"), reporter)
    if aligned:
        refuse(DETECTION, "aligned photos need no detection")
    given = {name: value for name, value in chosen.items() if name in SETTINGS}
    model, recogniser = chosen["quality_model"], chosen["recogniser"]
    if not is_weights_file(model) and recogniser and is_weights_file(recogniser):
        given |= dict.fromkeys(MODEL_OPTIONS)
    return make_settings(
        "score" if aligned else "align-and-score",
        like_published=chosen["like_published"],
        **{**given, "model": model, "seed": chosen["noise_seed"]},
    )


def refuse(names: Sequence[str], why: str) -> None:
    """Raise SettingsError if one of some options was given."""
    for parameter in click.get_current_context().command.params:
        if parameter.name in names and is_given(parameter.name):
            raise SettingsError(f"{why}; leave {parameter.opts[-1]} out")


def _non_mated(given: str | None) -> int | Literal["all"] | None:
    if given is None or given == "all":
        return "all" if given else None
    try:
        return int(given)
    except ValueError:
        raise SettingsError(f"--non-mated is a number or all, not {given}") from None
