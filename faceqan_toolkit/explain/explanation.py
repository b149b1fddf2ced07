"""Explanations of scores: the attack's course, measures and hints, as files and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from faceqan_toolkit.alignment import resize_crop
from faceqan_toolkit.errors import PhotoError, RunError, SettingsError
from faceqan_toolkit.explain.pictures import Tile, contact_sheet, draw_face
from faceqan_toolkit.files import is_inside, write_text, writing
from faceqan_toolkit.hardware import one_thread
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.quality.faceqan import FaceQAN, Trace
from faceqan_toolkit.quality.measures import describe
from faceqan_toolkit.results.crops import RunCrops, model_of
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import crop_path, reason_of
from faceqan_toolkit.types import Photo, PhotoSource, Pixels, Record

SHOWN_SIDE = 1200
"""Pixels of a photo's longer side that suffice to show it."""


@dataclass(frozen=True)
class Explanation:
    """One face, or a photo without one.

    Attributes:
        record: record that a run would have.
        photo: None if it could not be read.
        crop: (S, S, 3) uint8, RGB; None without a face that could be aligned.
        trace: of the attack; None without a crop.
    """

    record: Record
    photo: Photo | None = None
    crop: Pixels | None = None
    trace: Trace | None = None

    @property
    def failed(self) -> bool:
        """Whether there is no score to explain."""
        return self.record.status != "ok"


class Explainer:
    """Scores photos as a run would, and traces the attack on each face.

    Raises:
        SettingsError: a method or preset that does not attack; see also `Pipeline`.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.preset == "instant":
            raise SettingsError(
                "preset is instant, which predicts scores and attacks nothing; explain with "
                "`preset` exact or fast"
            )
        self.settings = settings.replace(hints=True)
        self.pipeline = Pipeline(self.settings)
        scorer = self.pipeline.scorer
        if not isinstance(scorer, FaceQAN):
            raise SettingsError(
                f"method {settings.method} attacks nothing that could be explained; explain with "
                "`method` faceqan"
            )
        self.scorer = scorer

    def explain(self, source: PhotoSource) -> Iterator[Explanation]:
        """Yield an explanation of each face that a run would score, or one of the failure.

        On a CPU it computes with one thread, so that scores equal those of a run.
        """
        with one_thread:
            prepared, photo = self.pipeline.prepare(source), None
            with suppress(PhotoError):  # a large photo is reduced if decoding can do that
                photo = decode(source, max_pixels=self.settings.max_pixels, at_least=SHOWN_SIDE)
            if prepared.failure:
                for (record,) in self.pipeline.records([prepared]):
                    yield Explanation(record, photo)
                return
            for cut in prepared.cuts:
                trace = None if cut.crop is None else self.scorer.trace(cut.crop)
                record = self.pipeline.face_record(prepared, cut, trace.score if trace else None)
                yield Explanation(record, photo, cut.crop, trace)


def as_dict(explanation: Explanation, explainer: Explainer) -> dict[str, Any]:
    """Return an explanation as JSON values: the record, the curve, the hints in words."""
    settings, record = explainer.settings, explanation.record
    row = record.to_dict()
    left_out = ("hints", "crop", "attempt", "landmarks_id")
    hints = record.hints.split("; ") if record.hints else []
    found: dict[str, Any] = {
        **{name: v for name, v in row.items() if v is not None and name not in left_out},
        "hints": [{"hint": hint, "why": describe(hint, row)} for hint in hints],
        "backend": explainer.scorer.backend,
        "attack": {
            name: getattr(settings, name)
            for name in ("eps", "eps_mode", "steps", "copies", "exponent", "seed", "clamp")
        },
        "weights_sha256": explainer.scorer.embedder.sha256,
    }
    trace = explanation.trace
    if trace is not None and not explanation.failed:
        rows = trace.score.similarities
        assert rows is not None
        found["curve"] = [
            {"step": step, "mean": float(row.mean()), "std": float(row.std()),
             "similarities": row.tolist(), "scored": step < len(rows)}
            for step, row in enumerate([*rows, trace.after])
        ]  # fmt: skip
    return found


def write_explanation(explanation: Explanation, explainer: Explainer, folder: Path) -> list[Path]:
    """Write a face's JSON and picture, or a failure's JSON, below a folder; return their paths.

    Raises:
        RunError: they cannot be written, or would lie outside the folder.
    """
    record = explanation.record
    # no face is called "failed", so no file of a face has that name
    name = crop_path(record.path, "failed" if record.face is None else record.face)
    content = as_dict(explanation, explainer)
    written = []
    crop, trace = explanation.crop, explanation.trace
    if crop is not None and trace is not None and not explanation.failed:
        picture = _inside(folder, name)
        eps = explainer.settings.eps
        _save(draw_face(record, explanation.photo, crop, trace, eps=eps), picture)
        content["picture"] = name.name
        written.append(picture)
    target = _inside(folder, name.with_suffix(".json"))
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return [*written, target]


def write_contact_sheet(
    run: RunInfo, folder: Path, *, worst: int, best: int, device: str = "auto",
    model: str | None = None, fetch: bool = False,
) -> tuple[Path, int]:  # fmt: skip
    """Write `contact_sheet.png` with the `worst` and `best` faces of a run with scores to a folder.

    Return its path, and the number of faces whose crops are gone. The attack runs on `device`;
    `model` is that of `model_of`; `fetch` allows to read photos on other machines.

    Raises:
        RunError: the run has no scores, another model made it, or the file cannot be written.
    """
    ranking = Ranking(run)
    if not ranking.scored:
        raise RunError(run.no_scores)
    ends = ranking.rows(top=max(best, 1), bottom=max(worst, 1), extra=["sha256"])
    rows = [row for row in ends if row["quality"] is not None]
    if not rows:
        raise RunError(f"{run.folder} has no scored faces to explain")
    # no face of a short run is shown twice
    best_rows = rows[:best]
    worst_rows = [row for row in rows[::-1] if row not in best_rows][:worst]
    model_of(run, model)
    preset = "exact" if run.settings.preset == "instant" else run.settings.preset
    # crops need no landmarks: the ledger has them
    settings = run.settings.replace(
        task="score", landmarks=None, device=device, backend="auto", preset=preset
    )
    scorer, crops = Explainer(settings).scorer, RunCrops(run, fetch=fetch)
    sections = [
        (end, [_tile(row, crops, scorer) for row in rows])
        for end, rows in (("Best", best_rows), ("Worst", worst_rows))
    ]
    lost = sum(tile.crop is None for _, tiles in sections for tile in tiles)
    target = _inside(folder, PurePosixPath("contact_sheet.png"))
    shown = " and ".join(f"the {end.lower()} {len(tiles)}" for end, tiles in sections if tiles)
    title = f"{run.folder.absolute().name}: {shown}"
    preset = run.content["settings"].get("preset", "exact")
    subtitle = f"model {settings.model.name}, preset {preset}"
    _save(contact_sheet(title, subtitle, sections, eps=settings.eps), target)
    return target, lost


def _tile(row: Mapping[str, Any], crops: RunCrops, scorer: FaceQAN) -> Tile:
    try:
        crop = resize_crop(crops.crop(row), scorer.embedder.input_size)
    except PhotoError:  # crop and photo are gone; the sheet says so
        return Tile(row)
    return Tile(row, crop, scorer.trace(crop))


def _inside(folder: Path, name: PurePosixPath) -> Path:
    """Return a file's path below a folder, and make its parents; RunError if it is outside."""
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise RunError(f"cannot write {target}: a folder has that name")
        outside = not is_inside(folder, target.parent)
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason_of(error)}") from error
    if outside:
        raise RunError(f"cannot write {target}: a link leads out of {folder}")
    return target


def _save(picture: Image.Image, target: Path) -> None:
    with writing(target) as temporary:
        picture.save(temporary, format="PNG")
