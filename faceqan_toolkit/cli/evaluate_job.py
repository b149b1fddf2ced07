"""What `evaluate` does: make or take a run, embed its crops, compare, write, tell."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from faceqan_toolkit.cli import SOME_FAILED, options
from faceqan_toolkit.cli.evaluate_inputs import (
    Recogniser,
    is_weights_file,
    named,
    named_scores,
    refuse,
    scores_of,
    tell,
)
from faceqan_toolkit.cli.options import is_given
from faceqan_toolkit.cli.progress import Progress
from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.cli.show_evaluation import print_evaluation
from faceqan_toolkit.errors import RunError, ScoresError, SettingsError
from faceqan_toolkit.evaluation import assemble as job
from faceqan_toolkit.evaluation.compare import compared
from faceqan_toolkit.evaluation.datasets.base import Protocol
from faceqan_toolkit.evaluation.datasets.ijbc import write_landmarks
from faceqan_toolkit.evaluation.datasets.registry import read_protocol
from faceqan_toolkit.evaluation.embedding_store import EmbeddingStore, Source, stored_source
from faceqan_toolkit.evaluation.embeddings import Vectors, read_embeddings
from faceqan_toolkit.evaluation.legacy import write_legacy_pickle
from faceqan_toolkit.evaluation.matching import told_paths
from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.output import write_evaluation
from faceqan_toolkit.evaluation.run_faces import RunFaces, read_run_faces
from faceqan_toolkit.evaluation.summary import Method
from faceqan_toolkit.files import lock
from faceqan_toolkit.job import process_photos
from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.results.identities import IdentityRule
from faceqan_toolkit.runs.folder import RunInfo, read_run
from faceqan_toolkit.settings import DETECTION_VERSION, ModelOptions, Settings, setting_names
from faceqan_toolkit.wording import counted

SETTINGS = {*setting_names(), "detector_option", "method_option"}
OPTIONS = {item.name for item in fields(EvaluationOptions)}
RESULTS = "scores"
SCORING = ("quality_model", "noise_seed", "like_published", "retry_failed", "aligned")
ALIGNED_FOLDER = "xqlfw_aligned_112"


@dataclass
class Job:
    """One evaluation that is being made."""

    name: str
    root: Path
    chosen: Mapping[str, Any]
    options: EvaluationOptions
    protocol: Protocol
    output: Path
    files: dict[str, Path] = field(default_factory=dict)
    matched: dict[str, str] = field(default_factory=dict)

    def run(self) -> bool:
        """Do all of it; return whether every comparison could be made."""
        chosen = self.chosen
        recogniser = self._recogniser()
        faces = None if chosen["scores_only"] else self._faces()
        methods: dict[str, Method] = {}
        if faces is not None:
            counts = ", ".join(f"{count:,} {status}" for status, count in faces.counts().items())
            click.echo(f"Photos of the protocol: {counts}", err=True)
            methods |= job.own_method(faces, recogniser.sha256)
        # first, for lists of scores take more memory to read than to keep; embeddings stay
        self._add_scores(methods, recogniser)
        weights = self.protocol.confidences if chosen.get("detector_weights") else None
        for name, method in methods.items():
            if job.is_constant(method.quality):
                click.echo(
                    f"Warning: {name} gives all faces the same quality; its curve is meaningless",
                    err=True,
                )
        # the samples' embeddings, a gigabyte of IJB-C, are not needed after this
        vectors = compared(self.protocol, self._vectors(recogniser, faces), weights)
        if faces is not None:
            simple, left_out = job.baselines(faces, methods, recogniser.sha256)
            methods |= simple
            for line in left_out:
                click.echo(line, err=True)
        click.echo("Comparing", err=True)
        evaluation = job.evaluate_protocol(
            self.protocol,
            vectors,
            methods,
            dataset=chosen["name"] or self._dataset(),
            recogniser=recogniser.name + (" + flip" if chosen["flip"] else ""),
            options=self.options,
        )
        if weights is not None:
            click.echo("Templates: photos weighted by the detector's confidence", err=True)
        made = job.made_by(sys.argv[1:], self.files)
        made |= self.matched
        if self.protocol.people:
            made["people"] = self.protocol.people
        made["recognition model sha256"] = recogniser.sha256 or "unknown"
        made["detector weights in templates"] = "no" if weights is None else "yes"
        if faces is not None:
            made |= self._made_by_run(faces)
        if find_spec("matplotlib") is None:
            click.echo("No figures: pip install 'faceqan-toolkit[evaluate]'", err=True)
        written = write_evaluation([evaluation], self.output, made, figures=chosen["formats"])
        print_evaluation(evaluation, written)
        failed = evaluation.excluded + evaluation.non_mated_missing
        return not failed and not any(one.missing for one in evaluation.methods)

    def _dataset(self) -> str:
        generic = self.name in ("pairs", "folders")
        return self.root.absolute().name if generic else self.protocol.name

    def _recogniser(self) -> Recogniser:
        chosen = self.chosen
        if chosen["embeddings"]:
            refuse(("recogniser", "flip"), "--embeddings brings the model's work")
            name, file = named(chosen["embeddings"])
            self.files["embeddings"] = file
            source = stored_source(file)
            if source:
                return Recogniser(name or source.model, source.sha256, file)
            name = name or file.stem
            return Recogniser(name, self._sha256_of(name), file)
        if chosen["scores_only"]:
            raise SettingsError("--scores-only needs --embeddings")
        model = chosen["recogniser"] or chosen["quality_model"]
        given = ModelOptions(*(chosen[name] for name in _MODEL_OPTIONS))
        if chosen["recogniser"] is None and chosen["run"] is not None:
            settings = read_run(chosen["run"]).content["settings"]
            model = settings["model"]
            given = ModelOptions(*(settings.get(name) for name in _MODEL_OPTIONS))
        found = find_model(model, given if is_weights_file(model) else ModelOptions())
        if found.entry is not None and found.entry.notice and chosen["recogniser"]:
            click.echo(f"Note: {found.entry.notice}", err=True)
        return Recogniser(found.name, found.sha256, None, found)

    def _sha256_of(self, name: str) -> str:
        """Return the weights' checksum if a name is the quality model's, else ""."""
        if self.chosen["run"] is not None:
            model = read_run(self.chosen["run"]).content.get("model") or {}
            return str(model["sha256"]) if model.get("name") == name else ""
        return find_model(name).sha256 if name == self.chosen["quality_model"] else ""

    def _settings(self) -> Settings:
        """Return what the run is made with."""
        chosen = dict(self.chosen)
        aligned = chosen.get("aligned")
        if self.name == "bin":
            aligned = True
        elif aligned is None and "aligned" in chosen:
            aligned = ALIGNED_FOLDER in (self.protocol.photos, self.protocol.root.name)
            if aligned:
                click.echo(f"{ALIGNED_FOLDER}: aligned crops, nothing is detected", err=True)
        if aligned:
            refuse(_DETECTION, "aligned photos need no detection")
        given = {name: value for name, value in chosen.items() if name in SETTINGS}
        model = chosen["quality_model"]
        if (
            not is_weights_file(model)
            and chosen["recogniser"]
            and is_weights_file(chosen["recogniser"])
        ):
            given |= dict.fromkeys(_MODEL_OPTIONS)
        if self.name == "ijbc":
            self.output.mkdir(parents=True, exist_ok=True)
            landmarks = self.output / "landmarks.csv"
            write_landmarks(self.protocol, landmarks)
            # whoever made the lists chose the faces
            given |= {"landmarks": landmarks, "min_face": 1, "min_confidence": 0.0}
        return options.make_settings(
            "score" if aligned else "align-and-score",
            like_published=chosen["like_published"],
            **{**given, "model": model, "seed": chosen["noise_seed"]},
        )

    def _faces(self) -> RunFaces:
        """Return the protocol's faces, from a run that is there or is made now."""
        folder: Path | None = self.chosen["run"]
        pickle = self.chosen.get("legacy_pickle")
        everything = job.all_photos(self.protocol) if pickle else []
        if folder is None:
            settings = self._settings()
            folder = self.output / RESULTS
            self._refuse_other_default(settings, folder)
            wanted = {source.path: source for source in (*self.protocol.sources(), *everything)}
            retry = self.chosen["retry_failed"]
            process_photos(wanted.values(), folder, settings, retry_failed=retry, tell=Reporter())
        else:
            taken = SETTINGS - {"device"}
            recogniser = self.chosen["recogniser"]
            if recogniser and is_weights_file(recogniser):
                taken -= set(_MODEL_OPTIONS)
            refuse((*taken, *SCORING), "--run has its scores")
            self._warn_of_other_faces(read_run(folder))
        paths = [source.path for source in everything]
        found = read_run_faces(folder, (*self.protocol.paths, *paths))
        if pickle:
            values = found.match(paths)[0].values["quality"].tolist()
            write_legacy_pickle(pickle, self.root, dict(zip(paths, values, strict=True)))
            click.echo(f"Written: {pickle}", err=True)
        faces, match = found.match(self.protocol.paths)
        if self.chosen["run"] is not None:
            more = [f"{found.others:,} more are not in the data set"] if found.others else []
            tell(str(folder), match.lines() + more)
            if not sum(match.rules.values()):
                raise ScoresError(f"{folder} has none of the data set's photos")
        return faces

    def _refuse_other_default(self, settings: Settings, folder: Path) -> None:
        """Refuse to go on with an evaluation whose faces an earlier default chose.

        Raises:
            RunError: the folder was made with other faces, and nobody chose these.
        """
        if "faces" not in self.chosen or is_given("faces") or not (folder / "run.json").exists():
            return
        run = read_run(folder)
        if run.content["identity"].get("detection") != DETECTION_VERSION:
            return  # no choice of faces lets this version go on with it
        before = job.face_policy(run)
        if settings.task != "score" and before not in (None, settings.faces):
            raise RunError(
                f"{folder} was made with --faces {before}, and {self.name} takes --faces "
                f"{settings.faces} unless told otherwise: give --faces {before} to go on with it, "
                "or another -o"
            )

    def _warn_of_other_faces(self, run: RunInfo) -> None:
        policy = self.chosen.get("faces", self.protocol.faces)
        if warning := job.other_faces(run, self.protocol, policy):
            click.echo(warning, err=True)

    def _vectors(self, recogniser: Recogniser, faces: RunFaces | None) -> Vectors:
        """Return the samples' embeddings, (N, D), NaN for none."""
        if recogniser.embeddings is not None:
            table = read_embeddings(recogniser.embeddings)
            vectors, match = table.match(self.protocol.paths)
            lines = match.lines()
            lines += told_paths(
                ("several times in it with equal values", table.duplicates),
                ("left out, with different values", table.conflicting),
            )
            self.matched["embeddings"] = lines[0]
            tell(f"{recogniser.name}, {recogniser.embeddings}", lines)
            if not sum(match.rules.values()):
                raise ScoresError(f"{recogniser.embeddings} has none of the data set's photos")
            return vectors
        assert faces is not None
        faces = self._cut_for(recogniser, faces)
        store = EmbeddingStore(
            self.output / "embeddings.parquet",
            Source(recogniser.name, recogniser.sha256, self.chosen["flip"]),
            self.protocol.paths,
            job.crop_files(self.protocol, faces),
        )
        if not store.pending:
            return store.vectors
        number = len(store.pending)
        click.echo(f"Embedding {counted(number, 'crop')}", err=True)
        with Progress(number, "crop") as progress:

            def load() -> Any:
                assert recogniser.found is not None
                made = recogniser.found.load()
                progress.loaded()
                return made

            try:
                return store.complete(
                    load, lambda done: progress.advance([], done), device=self.chosen["device"]
                )
            except KeyboardInterrupt:
                click.echo("\nInterrupted; the same command goes on from there.", err=True)
                raise

    def _cut_for(self, recogniser: Recogniser, faces: RunFaces) -> RunFaces:
        """Return faces whose crops are cut as the recogniser wants them, made if need be."""
        template, size = recogniser.cut_as
        if faces.run.task == "score":
            has = faces.run.content["model"]["template"]
            if has != template:
                raise SettingsError(
                    f"{recogniser.name} wants faces cut another way ({template}) than these "
                    f"aligned photos ({has})"
                )
            return faces
        if faces.cut_as is None or faces.cut_as == recogniser.cut_as:
            return faces
        if self.chosen["run"] is not None:
            has = "{} {}".format(*faces.cut_as)
            raise SettingsError(
                f"{self.chosen['run']} has crops cut as {has}, {recogniser.name} wants "
                f"{template} {size}; leave --run out"
            )
        click.echo(f"Cutting faces anew: {recogniser.name} wants {template} {size}", err=True)
        settings = self._settings().replace(task="align", template=template, crop_size=size)
        folder = self.output / "crops"
        retry = self.chosen["retry_failed"]
        process_photos(
            self.protocol.sources(), folder, settings, retry_failed=retry, tell=Reporter()
        )
        return read_run_faces(folder, self.protocol.paths).match(self.protocol.paths)[0]

    def _add_scores(self, methods: dict[str, Method], recogniser: Recogniser) -> None:
        """Add the methods whose scores were made elsewhere."""
        for given in self.chosen["scores"]:
            table, file = scores_of(given)
            values, match = table.match(self.protocol.paths)
            lines = match.lines() + table.remarks()
            tell(f"{table.name}, {file}", lines)
            if np.isnan(values).all():
                raise ScoresError(f"{file} has a score for none of the data set's photos")
            if table.name in methods:
                raise SettingsError(f"two methods are called {table.name}; use --scores NAME=FILE")
            run = read_run(file) if file.is_dir() else None
            if run:
                self._warn_of_other_faces(run)
            note = job.model_note(run, recogniser.sha256) if run else ""
            methods[table.name] = Method(values, note=note)
            self.files[f"scores of {table.name}"] = file
            self.matched[f"scores of {table.name}"] = lines[0]

    def _made_by_run(self, faces: RunFaces) -> dict[str, str]:
        content = faces.run.content
        model = content.get("model") or {}
        counts = ", ".join(f"{count} {status}" for status, count in faces.counts().items())
        return {
            "quality model": str(model.get("name", "")),
            "quality model sha256": str(model.get("sha256", "")),
            "run fingerprint": str(content.get("fingerprint", "")),
            "faces": job.face_policy(faces.run) or "given",
            "photos": counts,
        }


def run_evaluation(name: str, root: Path, chosen: Mapping[str, Any]) -> None:
    """Make an evaluation; exit with 3 if some comparisons could not be made.

    Raises:
        FaceQANError: whatever stops it; scores and embeddings made until then are kept.
    """
    if chosen["scores_only"]:
        if not chosen["scores"]:
            raise SettingsError("--scores-only needs --scores")
        taken = (*SETTINGS, *SCORING, "recogniser", "run", "legacy_pickle")
        refuse(taken, "--scores-only opens no photo")
    # what it refuses must not be found after hours of work
    wanted = EvaluationOptions(**{name: chosen[name] for name in chosen if name in OPTIONS})
    given = [named_scores(scores)[1] for scores in chosen["scores"]]
    given += [named(embeddings)[1] for embeddings in filter(None, [chosen["embeddings"]])]
    for file in given:
        if not file.exists():
            raise ScoresError(f"{file}: No such file or directory")
    protocol = read_protocol(
        name, root.absolute(), pairs=chosen.get("pairs"),
        non_mated=_non_mated(chosen.get("non_mated")),
        seed=chosen["seed"] if name == "folders" else 0,
        identity=IdentityRule.parse(chosen["identity"]) if name == "folders" else None,
    )  # fmt: skip
    if protocol.people:
        click.echo(protocol.people, err=True)
    report = job.check(protocol)
    for line in job.remarks(report):
        click.echo(line, err=True)
    click.echo(
        f"{protocol.name}: {report.counts['samples']:,} photos, {report.counts['mated']:,} mated "
        f"and {report.counts['non_mated']:,} non-mated comparisons",
        err=True,
    )
    output = chosen["output"]
    with _locked(output):
        if not chosen["scores_only"]:
            protocol = job.unpacked(protocol, output.absolute() / "photos")
        made = Job(name, root, chosen, wanted, protocol, output)
        if chosen.get("pairs"):
            made.files["pairs"] = chosen["pairs"]
        complete = made.run()
    if not complete:
        click.echo(
            "Exit code 3: some comparisons lack a face, an embedding or a score; "
            + ("they are left out." if chosen["fte"] == "exclude" else "they are discarded first."),
            err=True,
        )
        raise click.exceptions.Exit(SOME_FAILED)


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Keep other evaluations out of a folder, which is made if it is not there.

    Raises:
        RunError: it cannot be used, or another process does.
    """
    held = lock(output / ".lock", output)
    try:
        yield
    finally:
        held.release()


_MODEL_OPTIONS = ("channels", "pixel_mean", "pixel_std", "norm_eps")
_DETECTION = (*setting_names("detection", "alignment"), "detector_option")


def _non_mated(given: str | None) -> int | Literal["all"] | None:
    if given is None or given == "all":
        return "all" if given else None
    try:
        return int(given)
    except ValueError:
        raise SettingsError(f"--non-mated is a number or all, not {given}") from None
