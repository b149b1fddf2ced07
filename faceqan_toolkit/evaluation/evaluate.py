"""Evaluation of a data set from start to end: run, embeddings, comparisons, tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from faceqan_toolkit.errors import RunError, ScoresError, SettingsError
from faceqan_toolkit.evaluation import run_faces
from faceqan_toolkit.evaluation.datasets.base import Dataset
from faceqan_toolkit.evaluation.datasets.insightface import unpack, write_landmarks
from faceqan_toolkit.evaluation.datasets.registry import DATASETS, read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from faceqan_toolkit.evaluation.embeddings import (
    EmbeddingCache,
    EmbeddingSource,
    Vectors,
    read_embeddings,
    stored_source,
)
from faceqan_toolkit.evaluation.options import FIGURE_FORMATS, EvaluationOptions
from faceqan_toolkit.evaluation.path_matching import told_paths
from faceqan_toolkit.evaluation.result import Evaluation, Method
from faceqan_toolkit.evaluation.result_files import made_by, write_evaluation
from faceqan_toolkit.evaluation.run_faces import RunFaces, face_policy, read_run_faces
from faceqan_toolkit.evaluation.score_files import ScoreTable, read_scores, write_published_pickle
from faceqan_toolkit.evaluation.statistics import compared_vectors, evaluate_dataset
from faceqan_toolkit.events import (
    Advanced,
    Listener,
    Loaded,
    Message,
    Note,
    Warned,
    counting,
    silent,
)
from faceqan_toolkit.files import is_file, lock
from faceqan_toolkit.job import process_photos
from faceqan_toolkit.models.load import FoundModel, find_model
from faceqan_toolkit.runs.folder import RunInfo, read_run
from faceqan_toolkit.settings import DETECTION_VERSION, ModelOptions, Settings, is_model_name
from faceqan_toolkit.text import counted
from faceqan_toolkit.types import PhotoSource

RESULTS = "scores"
ALIGNED_FOLDER = "xqlfw_aligned_112"
MODEL_OPTIONS = ("channels", "pixel_mean", "pixel_std", "norm_eps")


@dataclass(frozen=True)
class Recogniser:
    """The recognition model whose errors are counted.

    Attributes:
        sha256: checksum of its weights; "" if unknown.
        embeddings: file of its embeddings, if another tool computed them.
        found: the model, if the embeddings are computed here.
    """

    name: str
    sha256: str
    embeddings: Path | None = None
    found: FoundModel | None = None

    @cached_property
    def cut_as(self) -> tuple[str, int]:
        """Template and size of its crops."""
        assert self.found is not None
        known = self.found.entry or self.found.load()
        return known.template, known.input_size


@dataclass(frozen=True)
class Inputs:
    """Sources of an evaluation's faces, scores and embeddings.

    Attributes:
        settings: settings of a new run, with the quality model.
        chosen_faces: whether the user chose `settings.faces`; otherwise it is the data set's.
        model: recognition model whose errors are counted; None for the quality model.
        model_options: preprocessing of `model`, if it is a weights file.
        flip: add the mirror image's embedding.
        run: run with faces and scores; None to make one.
        scores: scores of other tools, NAME=FILE or NAME=FILE:COLUMN each.
        embeddings: embeddings of another tool, NAME=FILE.
        scores_only: open no photo; use only `scores` and `embeddings`.
        name: name of the data set in tables and figures; None for its own.
        detector_weights: weight the photos of a template by the detector's confidence.
        published_pickle: file for the pickle of the published evaluation script.
        retry_failed: retry every photo without a result.
        figures: formats of the figures.
        pairs: list of pairs of the data set, for the summary.
        command: arguments of the command line, for the summary.
    """

    settings: Settings = field(default_factory=Settings)
    chosen_faces: bool = True
    model: str | None = None
    model_options: ModelOptions = field(default_factory=ModelOptions)
    flip: bool = False
    run: Path | None = None
    scores: Sequence[str] = ()
    embeddings: str | None = None
    scores_only: bool = False
    name: str | None = None
    detector_weights: bool = False
    published_pickle: Path | None = None
    retry_failed: bool = False
    figures: Sequence[str] = FIGURE_FORMATS
    pairs: Path | None = None
    command: Sequence[str] = ()

    def check(self) -> None:
        """Refuse contradicting inputs and missing files, before hours of work."""
        for name in ("scores", "embeddings"):
            if self.scores_only and not getattr(self, name):
                raise SettingsError(f"`scores_only` needs `{name}`")
        files = [named_scores(given)[1] for given in self.scores]
        for file in [*files, named(self.embeddings)[1]] if self.embeddings else files:
            if not file.exists():
                raise ScoresError(f"{file}: No such file or directory")


@dataclass
class _Job:
    dataset_name: str
    given_root: Path
    dataset: Dataset
    output: Path
    inputs: Inputs
    options: EvaluationOptions
    tell: Listener
    files: dict[str, Path] = field(default_factory=dict)
    matched: dict[str, str] = field(default_factory=dict)

    def run(self) -> tuple[Evaluation, list[Path]]:
        """Return the evaluation and its files."""
        inputs = self.inputs
        recogniser = self._recogniser()
        faces = None if inputs.scores_only else self._faces()
        methods: dict[str, Method] = {}
        if faces is not None:
            counts = ", ".join(f"{count:,} {status}" for status, count in faces.counts().items())
            self._say(f"Photos of the data set: {counts}")
            methods |= run_faces.own_method(faces, recogniser.sha256)
        # before the embeddings: reading scores takes more memory than keeping them
        self._add_scores(methods, recogniser)
        for name, method in methods.items():
            if run_faces.is_constant(method.quality):
                text = f"{name} gives all faces the same quality; its curve is meaningless"
                self.tell(Warned(text))
        weights = self.dataset.confidences if inputs.detector_weights else None
        # the samples' embeddings (IJB-C: one gigabyte) are freed after this line
        vectors = compared_vectors(self.dataset, self._vectors(recogniser, faces), weights)
        if faces is not None:
            simple, left_out = run_faces.baselines(faces, methods, recogniser.sha256)
            methods |= simple
            for line in left_out:
                self._say(line)
        self._say("Comparing")
        is_own = DATASETS.find(self.dataset_name).own
        name = self.given_root.absolute().name if is_own else self.dataset.name
        evaluation = evaluate_dataset(
            self.dataset, vectors, methods, name=inputs.name or name, options=self.options,
            recogniser=recogniser.name + (" + flip" if inputs.flip else ""),
        )  # fmt: skip
        if weights is not None:
            self._say("Templates: photos weighted by the detector's confidence")
        pairs = {"pairs": inputs.pairs} if inputs.pairs else {}
        made = made_by(inputs.command, pairs | self.files) | self.matched
        if self.dataset.people:
            made["people"] = self.dataset.people
        made["recognition model sha256"] = recogniser.sha256 or "unknown"
        made["detector weights in templates"] = "no" if weights is None else "yes"
        if faces is not None:
            made |= _made_by_run(faces)
        if find_spec("matplotlib") is None:
            self._say("No figures: pip install 'faceqan-toolkit[evaluate]'")
        written = write_evaluation([evaluation], self.output, made, figures=inputs.figures)
        return evaluation, written

    def _say(self, text: str) -> None:
        self.tell(Message(text))

    def _recogniser(self) -> Recogniser:
        inputs = self.inputs
        if inputs.embeddings:
            name, file = named(inputs.embeddings)
            self.files["embeddings"] = file
            source = stored_source(file)
            if source:
                return Recogniser(name or source.model, source.sha256, file)
            name = name or file.stem
            return Recogniser(name, self._sha256_of(name), file)
        model, given = inputs.model or inputs.settings.model.name, inputs.model_options
        if inputs.model is None and inputs.run is not None:
            settings = read_run(inputs.run).content["settings"]
            model = settings["model"]
            given = ModelOptions(*(settings.get(name) for name in MODEL_OPTIONS))
        found = find_model(model, given if is_weights_file(model) else ModelOptions())
        if found.entry is not None and found.entry.notice and inputs.model:
            self.tell(Note(found.entry.notice))
        return Recogniser(found.name, found.sha256, None, found)

    def _sha256_of(self, name: str) -> str:
        """Return the weights' checksum if a name is the quality model's, else ""."""
        if self.inputs.run is not None:
            model = read_run(self.inputs.run).content.get("model") or {}
            return str(model["sha256"]) if model.get("name") == name else ""
        return find_model(name).sha256 if name == self.inputs.settings.model.name else ""

    def _settings(self) -> Settings:
        """Return the settings of the run that is made; write the landmarks that it reads."""
        settings = self.inputs.settings
        if self.dataset.landmarks is None:
            return settings
        self.output.mkdir(parents=True, exist_ok=True)
        landmarks = self.output / "landmarks.csv"
        write_landmarks(self.dataset, landmarks)
        # the lists' authors chose the faces
        return settings.replace(landmarks=landmarks, min_face=1, min_confidence=0.0)

    def _faces(self) -> RunFaces:
        """Return the data set's faces from the given run, or from a new one."""
        folder, pickle = self.inputs.run, self.inputs.published_pickle
        everything = self.dataset.all_photos() if pickle else []
        if folder is None:
            settings, folder = self._settings(), self.output / RESULTS
            self._refuse_other_default(settings, folder)
            wanted = {source.path: source for source in (*self.dataset.sources(), *everything)}
            self._process(wanted.values(), folder, settings)
        else:
            self._warn_of_other_faces(read_run(folder))
        paths = [source.path for source in everything]
        found = read_run_faces(folder, (*self.dataset.paths, *paths))
        if pickle:
            values = found.match(paths)[0].values["quality"].tolist()
            write_published_pickle(pickle, self.given_root, dict(zip(paths, values, strict=True)))
            self._say(f"Written: {pickle}")
        faces, match = found.match(self.dataset.paths)
        if self.inputs.run is not None:
            more = [f"{found.others:,} more are not in the data set"] if found.others else []
            self._say(f"{folder}: {'; '.join(match.lines() + more)}")
            if not sum(match.rules.values()):
                raise ScoresError(f"{folder} has none of the data set's photos")
        return faces

    def _process(self, photos: Iterable[PhotoSource], folder: Path, settings: Settings) -> None:
        retry = self.inputs.retry_failed
        process_photos(photos, folder, settings, retry_failed=retry, tell=self.tell)

    def _refuse_other_default(self, settings: Settings, folder: Path) -> None:
        """Raise RunError if the run to resume has another `--faces`, and the user chose none."""
        if self.inputs.chosen_faces or not (folder / "run.json").exists():
            return
        run = read_run(folder)
        if run.content["identity"].get("detection") != DETECTION_VERSION:
            return  # this version cannot resume the run with any `--faces`
        before = face_policy(run)
        if settings.task != "score" and before not in (None, settings.faces):
            raise RunError(
                f"{folder} was made with `faces` {before}, the default for {self.dataset_name} is "
                f"`faces` {settings.faces}: give `faces` {before} to resume it, or another -o"
            )

    def _warn_of_other_faces(self, run: RunInfo) -> None:
        policy = self.inputs.settings.detection.faces if self.dataset.faces else None
        if warning := run_faces.other_faces(run, self.dataset, policy):
            self._say(warning)

    def _vectors(self, recogniser: Recogniser, faces: RunFaces | None) -> Vectors:
        """Return the samples' embeddings, (N, D), NaN rows for none."""
        if recogniser.embeddings is not None:
            table = read_embeddings(recogniser.embeddings)
            vectors, match = table.match(self.dataset.paths)
            lines = match.lines() + told_paths(
                ("several times in it with equal values", table.duplicates),
                ("left out, with different values", table.conflicting),
            )
            self.matched["embeddings"] = lines[0]
            self._say(f"{recogniser.name}, {recogniser.embeddings}: {'; '.join(lines)}")
            if not sum(match.rules.values()):
                raise ScoresError(f"{recogniser.embeddings} has none of the data set's photos")
            return vectors
        assert faces is not None
        faces = self._cut_for(recogniser, faces)
        store = EmbeddingCache(
            self.output / "embeddings.parquet",
            EmbeddingSource(recogniser.name, recogniser.sha256, self.inputs.flip),
            self.dataset.paths,
            run_faces.crop_files(self.dataset, faces),
        )
        if not store.pending:
            return store.vectors
        number = len(store.pending)
        self._say(f"Embedding {counted(number, 'crop')}")
        with counting(self.tell, number, "crop"):
            assert recogniser.found is not None
            model = recogniser.found.load()
            self.tell(Loaded())
            device = self.inputs.settings.work.device
            return store.complete(model, lambda done: self.tell(Advanced(done)), device=device)

    def _cut_for(self, recogniser: Recogniser, faces: RunFaces) -> RunFaces:
        """Return faces with crops of the recogniser's template and size, cut again if needed."""
        template, size = recogniser.cut_as
        if faces.run.task == "score":
            has = faces.run.content["model"]["template"]
            if has != template:
                raise SettingsError(
                    f"{recogniser.name} needs crops of template {template}, the aligned photos "
                    f"have template {has}"
                )
            return faces
        if faces.cut_as is None or faces.cut_as == recogniser.cut_as:
            return faces
        if self.inputs.run is not None:
            has = "{} {}".format(*faces.cut_as)
            raise SettingsError(
                f"{self.inputs.run} has crops of {has}, {recogniser.name} needs {template} {size}: "
                "leave `run` out"
            )
        self._say(f"Cutting faces again: {recogniser.name} needs {template} {size}")
        settings = self._settings().replace(task="align", template=template, crop_size=size)
        folder = self.output / "crops"
        self._process(self.dataset.sources(), folder, settings)
        return read_run_faces(folder, self.dataset.paths).match(self.dataset.paths)[0]

    def _add_scores(self, methods: dict[str, Method], recogniser: Recogniser) -> None:
        for given in self.inputs.scores:
            table, file = scores_of(given)
            values, match = table.match(self.dataset.paths)
            lines = match.lines() + table.remarks()
            self._say(f"{table.name}, {file}: {'; '.join(lines)}")
            if np.isnan(values).all():
                raise ScoresError(f"{file} has a score for none of the data set's photos")
            if table.name in methods:
                raise SettingsError(f"two methods are called {table.name}; use `scores` NAME=FILE")
            run = read_run(file) if file.is_dir() else None
            if run:
                self._warn_of_other_faces(run)
            note = run_faces.model_note(run, recogniser.sha256) if run else ""
            methods[table.name] = Method(values, note=note)
            self.files[f"scores of {table.name}"] = file
            self.matched[f"scores of {table.name}"] = lines[0]


def _made_by_run(faces: RunFaces) -> dict[str, str]:
    """Return the provenance of a run's faces and scores."""
    content = faces.run.content
    model = content.get("model") or {}
    return {
        "quality model": str(model.get("name", "")),
        "quality model sha256": str(model.get("sha256", "")),
        "run fingerprint": str(content.get("fingerprint", "")),
        "faces": face_policy(faces.run) or "given",
        "photos": ", ".join(f"{count} {status}" for status, count in faces.counts().items()),
    }


def open_dataset(name: str, root: Path, *, tell: Listener = silent, **options: Any) -> Dataset:
    """Return a registered data set after checking its lists; opens no photo.

    `root` is its folder or file, `options` are those of its reader, see `read_dataset`.
    SettingsError for an unknown data set or an option it does not take; DatasetError if its lists
    are missing, malformed or contradict themselves.
    """
    dataset = read_dataset(name, root.absolute(), **options)
    if dataset.people:
        tell(Message(dataset.people))
    report = validate(dataset)
    report.require_usable()
    for line in report.remarks():
        tell(Message(line))
    counts = report.counts
    text = f"{dataset.name}: {counts['samples']:,} photos, {counts['mated']:,} mated and "
    tell(Message(f"{text}{counts['non_mated']:,} non-mated comparisons"))
    return dataset


def has_aligned_photos(name: str, dataset: Dataset, given: bool | None, tell: Listener) -> bool:
    """Return whether the photos are aligned crops; `given` is the choice of the user, or None."""
    if DATASETS.find(name).aligned:
        return True
    if given is None and ALIGNED_FOLDER in (dataset.photos, dataset.root.name):
        tell(Message(f"{ALIGNED_FOLDER}: aligned crops, nothing is detected"))
        return True
    return bool(given)


def evaluate_opened(
    name: str, root: Path, dataset: Dataset, output: Path, inputs: Inputs,
    options: EvaluationOptions, tell: Listener = silent,
) -> tuple[Evaluation, list[Path]]:  # fmt: skip
    """Evaluate a data set from `open_dataset`; return the result and its files.

    `name` and `root` are the data set's as given. `output` is a folder for results and intermediate
    files; the same call resumes there. A FaceQANError leaves finished scores and embeddings there.
    """
    inputs.check()
    held = lock(output / ".lock", output)
    try:
        if not inputs.scores_only:
            dataset = unpack(dataset, output.absolute() / "photos")
        return _Job(name, root, dataset, output, inputs, options, tell).run()
    finally:
        held.release()


def scores_of(given: str) -> tuple[ScoreTable, Path]:
    """Return the scores of NAME=FILE or NAME=FILE:COLUMN, and the file."""
    name, file, column = named_scores(given)
    name = name or (file.name if file.is_dir() else file.stem)
    return read_scores(file, name, quality_column=column), file


def named_scores(given: str) -> tuple[str, Path, str | None]:
    """Return name, file and column of NAME=FILE:COLUMN; NAME and COLUMN are optional."""
    name, file = named(given)
    place, colon, column = str(file).rpartition(":")
    if colon and column and not file.exists() and Path(place).exists():
        return name, Path(place), column
    return name, file, None


def named(given: str) -> tuple[str, Path]:
    """Return name and file of NAME=FILE, or "" and the file."""
    name, equals, rest = given.partition("=")
    if not equals or Path(given).exists():
        return "", Path(given)
    return name.strip(), Path(rest)


def is_weights_file(model: str) -> bool:
    """Return whether `--model` names a weights file."""
    return not is_model_name(model) and is_file(Path(model))
