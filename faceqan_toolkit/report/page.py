"""The report of a run: one self-contained HTML page, with a folder of pictures for large runs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import refuse_links, replacing
from faceqan_toolkit.report.pictures import SHEET, Pictures, sheet
from faceqan_toolkit.results.calibration import below_thresholds
from faceqan_toolkit.results.groups import Grouping, GroupSummary, members, summarise
from faceqan_toolkit.results.ranking import PARTS, ROUNDED_DOWN, Column, Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import reason_of, rounded_down
from faceqan_toolkit.threads import prefetch_map
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS

EMBED_FACES = 200
"""Most rows with pictures inside the page; with more they are in a folder beside it."""
COPY_PHOTOS = 2_000
"""Most rows with reduced copies of photos; with more the page links the originals."""
FACE_LIMIT = 200_000
"""Most faces on the page; of more it shows every second, third, ..."""
FAILURE_LIMIT = 50_000
"""Most rows without a face; of more it shows every second, third, ..."""

THREADS = min(4, os.cpu_count() or 1)
"""Threads that read pictures."""

BLOCK = 64 * SHEET
"""Rows in one block of the page's data."""

GROUP_LIMIT = 10_000
"""Most groups on the page; those with the largest share below the threshold are listed."""
GROUP_QUALITIES = ("q05", "q25", "median", "q75", "q95")
"""Columns of the groups' table that are qualities, so they are rounded down like thresholds."""
GROUP_FIGURES = (
    "group", "faces", "unscored", *GROUP_QUALITIES,
    "share", "share_low", "share_high", "difference", "difference_low", "difference_high",
)  # fmt: skip
"""Columns of the groups' table."""

SCRIPTS = (
    "table", "csv", "pictures", "histogram", "grid", "detail", "intervals", "groups", "main",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        file: the HTML page.
        folder: folder of the pictures; None if they are inside the page or left out.
    """

    file: Path
    folder: Path | None


def write_report(
    run: RunInfo,
    target: Path,
    *,
    pictures: bool = True,
    photos: bool = True,
    grouping: Grouping | None = None,
    below: float | None = None,
    fetch: bool = False,
) -> Report:
    """Write a run's report atomically, in bounded memory.

    Args:
        run: any run.
        target: the HTML file, replaced if it exists. Pictures of more than `EMBED_FACES` rows go
            to a folder beside it, `report-files` for `report.html`.
        pictures: show crops and photos.
        photos: show the photos, not only the crops.
        grouping: show a table of these groups.
        below: initial quality threshold of the page; None keeps all faces.
        fetch: also read photos from URLs.

    Raises:
        RunError: the ledger is damaged, the report cannot be written, or groups or a threshold
            are requested for a run without scores.
        SettingsError: `below` is not finite, or the grouping is unusable.
    """
    if below is not None and not math.isfinite(below):
        raise SettingsError(f"`below` {below}: not a finite number")
    page = _Page(run, target, pictures=pictures, photos=pictures and photos, fetch=fetch)
    if below is not None and not page.ranking.scored:
        raise RunError(run.no_scores)
    page.below = below
    page.groups = _groups(page, grouping, below) if grouping else None
    try:
        with ExitStack() as failing:
            if page.folder:
                failing.callback(shutil.rmtree, page.folder, ignore_errors=True)
            with replacing(target) as temporary:
                page.write(temporary)
            failing.pop_all()
        _remove_earlier(page.files, page.folder)
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason_of(error)}") from error
    return Report(target, page.files if page.folder else None)


class _Page:
    """Writer of one page.

    Pictures go to a new subfolder of `files`, so that an earlier report keeps its pictures until
    the new page replaces it.
    """

    def __init__(
        self, run: RunInfo, target: Path, *, pictures: bool, photos: bool, fetch: bool
    ) -> None:
        self.run = run
        self.ranking = Ranking(run)
        self.columns = self.ranking.described()
        self.counts = self.ranking.counts()
        self.faces = self.counts.get("ok", 0)
        self.failures = sum(self.counts.values()) - self.faces
        rows = self.faces + self.failures
        self.embedded = rows <= EMBED_FACES
        self.copied = photos and rows <= COPY_PHOTOS and run.task != "score"
        self.linked = photos and rows > COPY_PHOTOS and run.task != "score"
        self.source = Pictures(run, cut=rows <= COPY_PHOTOS, fetch=fetch) if pictures else None
        self.files = target.with_name(f"{target.stem}-files")
        self.folder: Path | None = None
        if pictures and not self.embedded:
            self.folder = self.files / uuid.uuid4().hex[:8]
        self.every = max(1, -(-self.faces // FACE_LIMIT))
        self.every_failure = max(1, -(-self.failures // FAILURE_LIMIT))
        self.rows_of_photos: dict[str, dict[str, Any]] = {}
        self.below: float | None = None
        self.groups: _Groups | None = None

    def write(self, file: Path) -> None:
        """Write the page and its pictures."""
        refuse_links(self.files)
        if self.folder:
            (self.folder / "photos").mkdir(parents=True)
        environment = Environment(
            loader=PackageLoader("faceqan_toolkit.report"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["thousands"] = "{:,}".format
        template = environment.get_template("report.html")
        # "replace": a path with surrogates must not stop the report
        with file.open("w", encoding="utf-8", errors="replace", newline="\n") as out:
            out.writelines(template.generate(**self.context()))

    def context(self) -> dict[str, Any]:
        """Return the variables of the template."""
        content = self.run.content
        scripts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
        style, script = _asset("report.css"), f'(() => {{\n"use strict";\n{scripts}}})();'
        images = "'self' data: blob: file:" if self.source else "'none'"
        return {
            "policy": (
                f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
                f"img-src {images}; base-uri 'none'; form-action 'none'"
            ),
            "style": Markup(style),
            "script": Markup(script),
            "name": self.run.folder.absolute().name,
            "scored": self.ranking.scored,
            "page": self,
            "preset": content["settings"].get("preset", "") if self.ranking.scored else "",
            "model": content.get("model") or {},
            "started": _started(content),
            "seconds": _duration(_seconds(content)),
            "written": _time(datetime.now(timezone.utc)),
            "details": _details(self.run),
            "settings": {
                key.replace("_", "-"): _shown(value) for key, value in content["settings"].items()
            },
            "versions": content.get("versions", {}),
            "folder": self.files.name if self.folder else "",
            "meta": script_json(self.meta()),
            "blocks": self.blocks(),
            "photos": self.photos(),
        }

    def meta(self) -> dict[str, Any]:
        """Return the data for the page's script, except the rows."""
        settings = self.run.content["settings"]
        folder = f"{self.files.name}/{self.folder.name}" if self.folder else None
        return {
            "name": self.run.folder.absolute().name,
            "columns": [vars(column) for column in self.columns],
            "parts": list(PARTS),
            "box": list(BOX_COLUMNS),
            "landmarks": list(LANDMARK_COLUMNS),
            "scored": self.ranking.scored,
            "exponent": settings.get("exponent"),
            "pictures": self.source is not None,
            "folder": folder and quote(os.fsencode(folder)),
            "photos": "copied" if self.copied else "linked" if self.linked else "none",
            "below": self.below,
            "groups": self.groups and self.groups.meta(),
        }

    def blocks(self) -> Iterator[dict[str, Any]]:
        """Yield the rows in blocks: their JSON and the embedded sheets of thumbnails."""
        names = [*self.ranking.columns, "sha256"]
        start = 0
        for rows in self.ranking.blocks(
            BLOCK, extra=["sha256"], every=self.every, every_failure=self.every_failure
        ):
            mappings = [dict(zip(names, row, strict=True)) for row in rows]
            has_thumbnail: list[int] = []
            sheets = {}
            for first in range(0, len(rows), SHEET):
                if jpeg := self._sheet(mappings[first : first + SHEET], has_thumbnail):
                    number = (start + first) // SHEET
                    sheets[number] = self._store(f"sheet-{number}.jpg", jpeg)
            more = {"has_thumbnail": has_thumbnail or [0] * len(rows)}
            if self.copied:
                for row in mappings:
                    self.rows_of_photos.setdefault(row["path"], row)
                places = {path: place for place, path in enumerate(self.rows_of_photos)}
                more["photo"] = [places[row["path"]] for row in mappings]
            if self.groups and self.groups.places:
                # -1 for a photo whose group is not listed
                more["group"] = [self.groups.places.get(row["path"], -1) for row in mappings]
            yield {
                "json": columns_json(self.columns, rows, more),
                "sheets": {number: text for number, text in sheets.items() if text},
            }
            start += len(rows)

    def photos(self) -> Iterator[dict[str, Any]]:
        """Yield size and content of each copied photo; call it after `blocks`."""
        if not self.copied or self.source is None:
            return
        found = prefetch_map(self.source.photo, self.rows_of_photos.values(), 8, THREADS)
        for number, photo in enumerate(found):
            if photo:
                text = self._store(f"photos/{number}.jpg", photo.jpeg)
                size = script_json([photo.width, photo.height])
                yield {"number": number, "size": size, "text": text}

    def _sheet(self, rows: list[dict[str, Any]], has_thumbnail: list[int]) -> bytes | None:
        """Return the rows' thumbnails as one JPEG, None without any; note which rows have one."""
        if self.source is None:
            return None
        thumbnails = list(prefetch_map(self.source.thumbnail, rows, SHEET, THREADS))
        has_thumbnail += [int(thumbnail is not None) for thumbnail in thumbnails]
        return sheet(thumbnails) if any(has_thumbnail[-len(rows) :]) else None

    def _store(self, name: str, jpeg: bytes) -> str:
        """Write a picture to the folder and return "", or return it in base64 for the page."""
        if self.folder is None:
            return base64.b64encode(jpeg).decode()
        (self.folder / name).write_bytes(jpeg)
        return ""


@dataclass(frozen=True)
class _Groups:
    """Groups on the page.

    Attributes:
        by: name of the grouping.
        below: threshold of the shares in `summaries`.
        summaries: the listed groups.
        number: number of all groups.
        places: index in `summaries` of each photo's group, by path, so that the page can update
            the shares; empty if the page shows a sample of the rows, which cannot count shares.
    """

    by: str
    below: float | None
    summaries: list[GroupSummary]
    number: int
    places: dict[str, int]

    def meta(self) -> dict[str, Any]:
        """Return the data for the page's script: one row of `GROUP_FIGURES` for each group."""
        rows = [
            [_short(name, getattr(item, name)) for name in GROUP_FIGURES] for item in self.summaries
        ]
        return {"by": self.by, "below": self.below, "figures": GROUP_FIGURES, "rows": rows,
                "follow": bool(self.places)}  # fmt: skip


def _groups(page: _Page, grouping: Grouping, below: float | None) -> _Groups | None:
    """Return the groups of a page; None if the run has no rows."""
    found = summarise(page.run, grouping, below=below)
    listed = found[:GROUP_LIMIT]
    numbers = {item.group: number for number, item in enumerate(listed)}
    whole = page.every == page.every_failure == 1
    groups = members(page.run, grouping) if whole else {}
    places = {path: numbers[group] for path, group in groups.items() if group in numbers}
    return _Groups(grouping.by, below, listed, len(found), places) if found else None


def _short(name: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return rounded_down(value, 6) if name in GROUP_QUALITIES else round(value, 6)


def _remove_earlier(files: Path, keep: Path | None) -> None:
    """Remove the picture folders of earlier reports."""
    if not files.is_dir():
        return
    for entry in files.iterdir():
        if entry != keep and re.fullmatch("[0-9a-f]{8}", entry.name) and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
    if not any(files.iterdir()):
        files.rmdir()


def _asset(name: str) -> str:
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash of an inline script or style for the content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _details(run: RunInfo) -> dict[str, str]:
    """Return the run's model, fingerprint, time and thresholds, for people."""
    content = run.content
    model, calls = content.get("model") or {}, content.get("invocations", [])
    photos = sum(int(call.get("photos", 0)) for call in calls)
    backends = dict.fromkeys(str(call["backend"]) for call in calls if call.get("backend"))
    found = {
        "Model": model.get("name", ""),
        "Model's SHA-256": model.get("sha256", ""),
        "Head's SHA-256": model.get("head_sha256", ""),
        "Fingerprint": content.get("fingerprint", ""),
        "Backend": ", ".join(backends),
        "Photos processed": f"{photos:,}" if calls else "",
        "Started": _started(content),
        "Time": _duration(_seconds(content)),
        "Commands": f"{len(calls):,}" if len(calls) > 1 else "",
    }
    return {label: text for label, text in {**found, **below_thresholds(run)}.items() if text}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _seconds(content: Mapping[str, Any]) -> float:
    return sum(float(call.get("seconds", 0)) for call in content.get("invocations", []))


def _started(content: Mapping[str, Any]) -> str:
    calls = content.get("invocations", [])
    try:
        return _time(datetime.fromisoformat(calls[0]["started"])) if calls else ""
    except (KeyError, TypeError, ValueError):
        return ""


def _time(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _duration(seconds: float) -> str:
    """Return a duration such as 8 s, 3 min 20 s or 2 h 5 min; "" for 0."""
    if seconds <= 0:
        return ""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def script_json(value: Any) -> Markup:
    """Return JSON in ASCII that cannot end the surrounding script tag."""
    return Markup(_safe(json.dumps(value, separators=(",", ":"))))


def columns_json(
    columns: Sequence[Column], rows: Sequence[Sequence[Any]], more: Mapping[str, Sequence[int]]
) -> Markup:
    """Return rows, at least one, as a JSON object with a member for each column and `length`.

    A column is a list of its values, {"all": value} if all are equal, or, where that is shorter,
    {"values": [...], "at": [...]} with indices into the values. Numbers have the decimals of CSV.
    Values of a row beyond `columns` are left out; `more` has additional columns of integers.
    """
    literals = {
        column.name: [_literal(column, row[place]) for row in rows]
        for place, column in enumerate(columns)
    }
    literals |= {name: list(map(str, numbers)) for name, numbers in more.items()}
    parts = [f'"length":{len(rows)}']
    parts += [f"{_text(name)}:{_values(values)}" for name, values in literals.items()]
    return Markup("{" + ",".join(parts) + "}")


def _values(literals: list[str]) -> str:
    distinct = list(dict.fromkeys(literals))
    if len(distinct) == 1:
        return f'{{"all":{distinct[0]}}}'
    if len(distinct) > len(literals) // 4:
        return f"[{','.join(literals)}]"
    place = {literal: str(index) for index, literal in enumerate(distinct)}
    at = ",".join(place[literal] for literal in literals)
    return f'{{"values":[{",".join(distinct)}],"at":[{at}]}}'


def _literal(column: Column, value: Any) -> str:
    """Return a value as JSON."""
    if value is None:
        return "null"
    if column.kind == "text":
        return _text(value)
    if column.kind == "integer":
        return str(int(value))
    if not math.isfinite(value):
        return "null"
    if column.name in ROUNDED_DOWN:
        value = rounded_down(value, column.decimals)
    digits = f"{value:.{column.decimals}f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _text(value: str) -> str:
    return _safe(json.dumps(value))


def _safe(text: str) -> str:
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
