"""A protocol, a run and embeddings to an evaluation: what the command line puts together."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from faceqan_toolkit.errors import ProtocolError, RunError
from faceqan_toolkit.evaluation.compare import compare
from faceqan_toolkit.evaluation.datasets.base import Protocol
from faceqan_toolkit.evaluation.datasets.insightface_bin import unpack
from faceqan_toolkit.evaluation.datasets.issues import SEVERITY
from faceqan_toolkit.evaluation.datasets.validation import Validation, validate
from faceqan_toolkit.evaluation.embeddings import Vectors
from faceqan_toolkit.evaluation.evaluator import evaluate
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.run_faces import RunFaces
from faceqan_toolkit.evaluation.summary import Evaluation, Method
from faceqan_toolkit.files import sha256_of
from faceqan_toolkit.paths import path_from_text, path_text
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.registry import METHODS
from faceqan_toolkit.results.crops import crop_file
from faceqan_toolkit.results.ranking import FEW_PHOTOS, differ_by_rounding
from faceqan_toolkit.runs.folder import RunInfo, versions
from faceqan_toolkit.types import PhotoSource

FACES_NOT_FOUND = ("missing_file", "unreadable_photo")
"""Errors of a protocol that cost comparisons only, and do not stop an evaluation."""

BASELINES = {
    "face size": "face_px", "sharpness": "sharpness", "detector confidence": "confidence",
    "embedding norm": "embedding_norm",
}  # fmt: skip
"""Simple measures that stand beside every method, and where a run keeps them."""


def check(protocol: Protocol) -> Validation:
    """Return what a validation finds.

    Raises:
        ProtocolError: its lists contradict themselves.
    """
    report = validate(protocol)
    fatal = [
        kind
        for kind in report.issue_counts
        if SEVERITY[kind] == "error" and kind not in FACES_NOT_FOUND
    ]
    if fatal:
        raise ProtocolError(
            "\n".join(["the data set cannot be evaluated as it is", *report.lines()])
        )
    return report


def remarks(report: Validation) -> list[str]:
    """Return what is odd about a data set and does not stop an evaluation, for people."""
    told = []
    for kind, count in report.issue_counts.items():
        first = next(issue for issue in report.issues if issue.kind == kind)
        example = f", e.g. {path_text(str(first))}" if SEVERITY[kind] != "note" else ""
        told.append(f"{SEVERITY[kind]}: {kind.replace('_', ' ')}: {count:,}{example}")
    return told


def unpacked(protocol: Protocol, folder: Path) -> Protocol:
    """Return a protocol whose photos are files: those of a `.bin` are written to a folder."""
    if not protocol.encoded:
        return protocol
    unpack(protocol, folder)
    return dataclasses.replace(protocol, root=folder, encoded=())


def all_photos(protocol: Protocol) -> list[PhotoSource]:
    """Return all photos of a data set, those no pair names included."""
    prefix = f"{protocol.photos}/" if protocol.photos else ""
    return [
        PhotoSource(path_text(protocol.root), prefix + source.path, source.content)
        for source in find_photos([protocol.root / protocol.photos])
    ]


def crop_files(protocol: Protocol, faces: RunFaces) -> list[Path | None]:
    """Return where the samples' aligned crops are, None for a sample that has none.

    Args:
        protocol: the data set.
        faces: matched with its paths.

    Raises:
        RunError: the run did not keep its crops, or made none.
    """
    folder, task = faces.run.folder, faces.run.task
    if task == "score":  # the photos are crops
        return [
            protocol.root / path_from_text(path) if status == "ok" else None
            for path, status in zip(protocol.paths, faces.status, strict=True)
        ]
    if not any(faces.crops) and "ok" in faces.status:
        raise RunError(
            f"{folder} has no crops to embed: a run of align or align-and-score keeps them"
        )
    return [crop_file(folder, crop) for crop in faces.crops]


def face_policy(run: RunInfo) -> str | None:
    """Return which faces a run took; None if they were given, as crops or by landmarks."""
    settings = run.content["settings"]
    if run.task == "score" or settings.get("landmarks"):
        return None
    return str(settings.get("faces"))


def other_faces(run: RunInfo, protocol: Protocol, policy: str | None) -> str:
    """Return a warning if a run took other faces than an evaluation would; else "".

    Args:
        run: of whatever task.
        protocol: the data set.
        policy: which faces the evaluation takes, see `Protocol.faces`; None if they are given.
    """
    made = face_policy(run)
    if None in (policy, made) or made == policy:
        return ""
    return (
        f"Warning: {run.folder} was made with --faces {made}, {protocol.name} takes --faces "
        f"{policy}: in photos with several faces another person's may have been scored"
    )


def own_method(faces: RunFaces, recogniser_sha256: str) -> dict[str, Method]:
    """Return the quality that a run measured, by name; nothing if it measured none."""
    if np.isnan(faces.values["quality"]).all():
        return {}
    settings = faces.run.content["settings"]
    name = settings["method"]
    if method := METHODS.get(name):
        name = method.title
    if settings["method"] == "faceqan" and settings["preset"] != "exact":
        name += f" {settings['preset']}"
    if settings.get("eps_mode") == "contrast":
        name += ", eps by contrast"
    if settings.get("refine"):
        name += ", refined"
    return {name: Method(faces.values["quality"], note=model_note(faces.run, recogniser_sha256))}


def baselines(
    faces: RunFaces, taken: Mapping[str, Method], recogniser_sha256: str
) -> tuple[dict[str, Method], list[str]]:
    """Return the simple measures of a run, and lines that tell why some are left out.

    These are measures that it does not have of all faces, and those that are the same for all.

    Args:
        faces: matched with the protocol's paths.
        taken: methods whose names are not given again.
        recogniser_sha256: see `model_note`.
    """
    found = np.array([status == "ok" for status in faces.status])
    made, lacking, equal = {}, [], []
    for name, column in BASELINES.items():
        if name in taken:
            continue
        values = faces.values[column]
        if not found.any() or np.isnan(values[found]).any():
            lacking.append(name)
            continue
        if is_constant(values):
            equal.append(name)
            continue
        note = model_note(faces.run, recogniser_sha256) if column == "embedding_norm" else ""
        made[name] = Method(values, "simple", note)
    told = {"Not measured in this run": lacking, "Left out, the same for all faces": equal}
    return made, [f"{why}: {', '.join(names)}" for why, names in told.items() if names]


def is_constant(values: ArrayLike) -> bool:
    """Tell whether faces, at least three, all have the same value, up to rounding; NaN is none."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return known.size >= FEW_PHOTOS and differ_by_rounding(float(known.min()), float(known.max()))


def model_note(run: RunInfo, recogniser_sha256: str) -> str:
    """Return "S" for a run of the recogniser's own model, "C" for another, "" for none."""
    model = run.content.get("model")
    if not model:
        return ""
    return "S" if model["sha256"] == recogniser_sha256 else "C"


def evaluate_protocol(
    protocol: Protocol,
    vectors: Vectors,
    methods: Mapping[str, Method],
    *,
    dataset: str,
    recogniser: str,
    options: EvaluationOptions,
) -> Evaluation:
    """Evaluate methods on a data set.

    Args:
        protocol: the data set.
        vectors: (M, D) of what it compares, see `compared`.
        methods: qualities of its samples by name.
        dataset: name.
        recogniser: name.
        options: `template_quality` must be given if templates are compared.

    Raises:
        EvaluationError: nothing can be compared.
        SettingsError: options that make no sense.
    """
    largest = None if options.edc == "recompute" else max(options.fmr_targets)
    comparisons, accuracy = compare(protocol, vectors, largest_fmr=largest)
    if protocol.templates is not None:
        how = options.template_quality or "min"
        methods = {
            name: dataclasses.replace(
                method,
                quality=protocol.templates.quality(np.asarray(method.quality, np.float64), how),
            )
            for name, method in methods.items()
        }
    return evaluate(
        comparisons, methods, dataset=dataset, recogniser=recogniser, options=options,
        accuracy=accuracy,
    )  # fmt: skip


def made_by(arguments: Sequence[str], files: Mapping[str, Path]) -> dict[str, str]:
    """Return what made an evaluation: the command, versions, and checksums of files.

    Args:
        arguments: of the command line.
        files: that were read, by what they are.
    """
    command = shlex.join(["faceqan-toolkit", *arguments])
    made = {"command": path_text(command) if os.sep == "/" else command}
    made["python"] = f"{platform.python_version()} on {sys.platform} {platform.machine()}"
    made |= {name: text for name, text in versions().items() if text != "missing"}
    for what, file in files.items():
        if file.is_file():
            made[f"{what} sha256"] = sha256_of(file)
    return made
