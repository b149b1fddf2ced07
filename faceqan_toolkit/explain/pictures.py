"""Pictures that explain a score, drawn with Pillow; docs/explain.md describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from faceqan_toolkit.quality.faceqan import Trace
from faceqan_toolkit.quality.measures import describe
from faceqan_toolkit.text import counted, down_text
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Photo, Pixels, Record

PAPER, INK, MUTED, LINE = (255, 255, 255), (27, 31, 36), (94, 103, 112), (214, 220, 226)
ACCENT, PALE, WARNING = (9, 105, 218), (198, 221, 250), (178, 72, 0)

WIDTH, MARGIN, GAP = 1440, 36, 24
PANEL = (WIDTH - 2 * MARGIN - 3 * GAP) // 4
TOP, ROW = 112, 522
"""y of the first and of the second row of panels, pixels."""

TILE = 112
"""Side of a crop on a contact sheet, pixels."""

CELL, COLUMNS = 3 * TILE, 4
SHEET_WIDTH = 2 * MARGIN + COLUMNS * CELL + (COLUMNS - 1) * GAP
FINER = 3
"""Lines are drawn this many times as large, then reduced, which smooths them."""


@dataclass(frozen=True)
class Tile:
    """A row of the ranking with its crop and the attack's trace; None if the crop is gone."""

    row: Mapping[str, Any]
    crop: Pixels | None = None
    trace: Trace | None = None


def noise_picture(trace: Trace) -> tuple[Pixels, float]:
    """Return the attack's noise as a picture, and the factor by which it is amplified.

    The picture is (S, S, 3) uint8: grey is no noise; the strongest 0.5 % of the values are clipped.
    """
    strongest = float(np.percentile(np.abs(trace.noise), 99.5))
    factor = 0.5 / strongest if strongest > 0 else 1.0
    shown = np.clip(0.5 + factor * trace.noise, 0, 1)
    return np.asarray(np.rint(255 * shown), np.uint8), factor


def heat_picture(trace: Trace, crop: Pixels) -> Pixels:
    """Return a crop (S, S, 3) uint8 in grey, coloured where noise moves the embedding most."""
    smooth = cv2.GaussianBlur(trace.sensitivity, (0, 0), 2)
    most = max(float(np.percentile(smooth, 99.5)), 1e-12)
    levels = np.asarray(np.clip(255 * smooth / most, 0, 255), np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return np.asarray(np.clip(0.35 * grey + 0.7 * colours.astype(np.float32), 0, 255), np.uint8)


def draw_face(
    record: Record, photo: Photo | None, crop: Pixels, trace: Trace, *, eps: float
) -> Image.Image:
    """Return the picture that explains one face's score; without a photo it shows the crop.

    `trace` and `eps` are those of the attack on the crop, (S, S, 3) uint8 RGB.
    """
    page = Image.new("RGB", (WIDTH, 900), PAPER)
    draw = ImageDraw.Draw(page)
    _header(draw, record)
    lefts = [MARGIN + n * (PANEL + GAP) for n in range(4)]
    noise, factor = noise_picture(trace)
    assert trace.score.similarities is not None
    steps, copies = trace.score.similarities.shape
    shown = Image.fromarray(crop)
    if photo is not None and record.face_px is not None:
        shown = _marked_photo(photo, record)
    panels = (
        (shown, "Photo", _face_text(record)),
        (_enlarged(crop), "Aligned crop", f"{crop.shape[1]} x {crop.shape[0]} pixels"),
        (_enlarged(noise, smooth=False), f"Noise after {counted(steps, 'step')}",
         f"mean of {copies} copies, {factor:,.0f} times amplified"),
        (_enlarged(heat_picture(trace, crop)), "Where the noise acts",
         "bright: it moves the embedding most"),
    )  # fmt: skip
    for left, (picture, title, note) in zip(lefts, panels, strict=True):
        # in the middle of a grey panel
        draw.rectangle((left, TOP, left + PANEL - 1, TOP + PANEL - 1), fill=(246, 248, 250))
        picture.thumbnail((PANEL, PANEL), Image.Resampling.LANCZOS)
        x, y = left + (PANEL - picture.width) // 2, TOP + (PANEL - picture.height) // 2
        page.paste(picture, (x, y))
        _text(draw, (left, TOP + PANEL + 10), title, 18, width=PANEL)
        _text(draw, (left, TOP + PANEL + 34), note, 14, MUTED, width=PANEL)
    _chart(page, trace)
    _symmetry(page, lefts[2], crop, trace)
    bottom = _hints(draw, lefts[3], record)
    _formula(draw, record, trace, eps)
    return page.crop((0, 0, WIDTH, max(884, bottom + MARGIN)))


def contact_sheet(
    title: str, subtitle: str, sections: Sequence[tuple[str, Sequence[Tile]]], *, eps: float
) -> Image.Image:
    """Return a sheet of faces: crop, noise and heat map of each, with score and hints.

    `sections` are headings with their faces; those without faces are left out.
    """
    height, right = TILE + 88, SHEET_WIDTH - MARGIN
    filled = [(heading, tiles, -(-len(tiles) // COLUMNS)) for heading, tiles in sections if tiles]
    rows = sum(count for _, _, count in filled)
    page = Image.new("RGB", (SHEET_WIDTH, 120 + 48 * len(filled) + height * rows + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    _text(draw, (MARGIN, 30), title, 26, width=right - MARGIN)
    legend = (
        f"{subtitle}. Each face: aligned crop; noise of the attack (eps {eps:g}, amplified); where "
        "it moves the embedding most."
    )
    _text(draw, (MARGIN, 68), legend, 15, MUTED, width=right - MARGIN)
    y = 108
    for heading, tiles, rows in filled:
        draw.line((MARGIN, y, right, y), LINE)
        _text(draw, (MARGIN, y + 12), heading, 20)
        y += 48
        for number, tile in enumerate(tiles):
            row, column = divmod(number, COLUMNS)
            _draw_tile(page, MARGIN + column * (CELL + GAP), y + row * height, tile)
        y += height * rows
    return page


def _draw_tile(page: Image.Image, x: int, y: int, tile: Tile) -> None:
    draw = ImageDraw.Draw(page)
    if tile.crop is None or tile.trace is None:
        draw.rectangle((x, y, x + CELL - 1, y + TILE - 1), outline=LINE)
        _text(draw, (x + 12, y + 46), "crop and photo are gone or changed", 15, MUTED)
    else:
        pictures = (tile.crop, noise_picture(tile.trace)[0], heat_picture(tile.trace, tile.crop))
        for number, picture in enumerate(pictures):
            small = Image.fromarray(picture).resize((TILE, TILE))
            page.paste(small, (x + number * TILE, y))
    row = tile.row
    _text(draw, (x, y + TILE + 6), down_text(row["quality"], 4), 18)
    place = f"rank {row['rank']:,}, percentile {down_text(row['percentile'], 1)}"
    _text(draw, (x + 84, y + TILE + 9), place, 14, MUTED, width=CELL - 84)
    name = _name(row["path"], row["face"])
    _text(draw, (x, y + TILE + 31), name, 14, width=CELL, keep_end=True)
    _text(draw, (x, y + TILE + 51), row["hints"] or "", 14, WARNING, width=CELL)


def _name(path: str, face: int | None) -> str:
    return f"{path} [{face}]" if face else path


def _header(draw: ImageDraw.ImageDraw, record: Record) -> None:
    quality = "no score" if record.quality is None else down_text(record.quality, 4)
    name = _name(record.path, record.face)
    _text(draw, (MARGIN, 30), name, 26, width=WIDTH - 2 * MARGIN - 220, keep_end=True)
    details = f"model {record.model}, preset {record.preset}"
    _text(draw, (MARGIN, 68), details, 15, MUTED, width=WIDTH - 2 * MARGIN - 220)
    draw.text((WIDTH - MARGIN, 26), quality, INK, _font(42), anchor="rt")
    draw.text((WIDTH - MARGIN, 74), "quality; at most 1", MUTED, _font(15), anchor="rt")


def _face_text(record: Record) -> str:
    if record.face_px is None:
        return "given as an aligned crop"
    size = f"face of {down_text(record.face_px, 0)} pixels"
    if record.confidence is None:
        return size
    return f"{size}, confidence {down_text(record.confidence, 3)}"


def _marked_photo(photo: Photo, record: Record) -> Image.Image:
    """Return a photo with the face's box and landmarks, in the size of its panel."""
    width, height = photo.size
    scale = PANEL / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fine = Image.fromarray(photo.pixels).resize(
        (size[0] * FINER, size[1] * FINER), Image.Resampling.LANCZOS, reducing_gap=3
    )
    draw = ImageDraw.Draw(fine)

    def place(columns: Sequence[str]) -> list[float]:
        return [(float(getattr(record, name)) + 0.5) * scale * FINER for name in columns]

    box = place(BOX_COLUMNS)
    draw.rectangle(box, outline=PAPER, width=3 * FINER)
    draw.rectangle(box, outline=ACCENT, width=2 * FINER)
    points = place(LANDMARK_COLUMNS)
    radius = min(3.0, max(1.2, (box[2] - box[0]) / FINER / 30)) * FINER
    for centre in zip(points[::2], points[1::2], strict=True):
        draw.circle(centre, radius, fill=(255, 214, 10), outline=INK, width=FINER // 2)
    return fine.resize(size, Image.Resampling.LANCZOS)


def _enlarged(pixels: Pixels, *, smooth: bool = True) -> Image.Image:
    way = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return Image.fromarray(pixels).resize((PANEL, PANEL), way)


def _chart(page: Image.Image, trace: Trace) -> None:
    """Draw the similarity of each copy over the steps, their mean and spread."""
    assert trace.score.similarities is not None
    rows = np.vstack([trace.score.similarities, trace.after[None]]).astype(np.float64)
    left, top, width, height = MARGIN, ROW, 2 * PANEL + GAP, 290
    draw = ImageDraw.Draw(page)
    _text(draw, (left, top), "Similarity to the face's own embedding, step by step", 18)
    inner = (left + 44, top + 40, left + width - 12, top + height - 34)
    low = min(0.0, float(np.floor(rows.min() * 10) / 10)) if rows.min() < 0.5 else 0.5

    def x_of(step: float) -> float:
        return inner[0] + (inner[2] - inner[0]) * step / (len(rows) - 1)

    def y_of(value: float) -> float:
        return inner[3] - (inner[3] - inner[1]) * (value - low) / (1 - low)

    for tick in np.linspace(low, 1, 6):
        draw.line((inner[0], y_of(tick), inner[2], y_of(tick)), LINE)
        draw.text((inner[0] - 10, y_of(tick)), f"{tick:.1f}", MUTED, _font(13), anchor="rm")
    for step in range(len(rows)):
        draw.text((x_of(step), inner[3] + 9), str(step), MUTED, _font(13), anchor="mt")

    box = (inner[0] - 8, inner[1] - 8, inner[2] + 8, inner[3] + 8)
    fine = page.crop(box).resize(
        ((box[2] - box[0]) * FINER, (box[3] - box[1]) * FINER), Image.Resampling.NEAREST
    )
    lines = ImageDraw.Draw(fine)

    def points(values: NDArray[np.float64]) -> list[tuple[float, float]]:
        return [
            ((x_of(step) - box[0]) * FINER, (y_of(min(1.0, value)) - box[1]) * FINER)
            for step, value in enumerate(values.tolist())
        ]

    mean, spread = rows.mean(axis=1), rows.std(axis=1)
    band = [*points(mean + spread), *points(mean - spread)[::-1]]
    lines.polygon(band, fill=PALE)
    for copy in rows.T:
        lines.line(points(copy), fill=(150, 190, 238), width=FINER // 2 + 1)
    lines.line(points(mean), fill=ACCENT, width=FINER * 2, joint="curve")
    for step, centre in enumerate(points(mean)):
        fill = ACCENT if step < len(rows) - 1 else PAPER
        lines.circle(centre, 4.5 * FINER, fill=fill, outline=ACCENT, width=2 * FINER)
    page.paste(fine.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.LANCZOS), box)
    legend = "line: mean of the copies; band: its spread; thin: each copy; hollow: not scored"
    draw.text((inner[0], top + height - 2), legend, MUTED, _font(13), anchor="lt")


def _symmetry(page: Image.Image, left: int, crop: Pixels, trace: Trace) -> None:
    draw = ImageDraw.Draw(page)
    _text(draw, (left, ROW), "Symmetry", 18)
    side = (PANEL - 12) // 2
    for number, pixels in enumerate((crop, np.ascontiguousarray(crop[:, ::-1]))):
        small = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
        page.paste(small, (left + number * (side + 12), ROW + 40))
    value = trace.score.symmetry or 0.0
    _text(draw, (left, ROW + 52 + side), f"{value:.4f}", 24)
    note = "cosine of the crop's embedding and its mirror image's"
    _paragraph(draw, left, ROW + 84 + side, note)


def _hints(draw: ImageDraw.ImageDraw, left: int, record: Record) -> int:
    """Write the hints in words; return the y of their end."""
    _text(draw, (left, ROW), "Hints", 18)
    y = ROW + 40
    if not record.hints:
        _text(draw, (left, y), "nothing stands out", 16, MUTED)
        return y + 24
    for hint in record.hints.split("; "):
        _text(draw, (left, y), hint, 17, WARNING, width=PANEL)
        y = _paragraph(draw, left, y + 23, describe(hint, record.to_dict())) + 9
    return y


def _formula(draw: ImageDraw.ImageDraw, record: Record, trace: Trace, eps: float) -> None:
    """Write the score and its parts."""
    score = trace.score
    assert score.similarity_mean is not None
    assert score.similarity_std is not None
    text = (
        f"quality {down_text(score.quality, 4)}  from  "
        f"mean similarity {score.similarity_mean:.4f},  its spread {score.similarity_std:.4f},  "
        f"symmetry {score.symmetry or 0:.4f}"
    )
    y, right = ROW + 318, MARGIN + 3 * PANEL + 2 * GAP
    draw.line((MARGIN, y - 6, right, y - 6), LINE)
    _text(draw, (MARGIN, y + 4), text, 15)
    more = f"eps {eps:g}"
    if record.embedding_norm is not None:
        more += f"; embedding's length {record.embedding_norm:.2f}"
    draw.text((right, y + 6), more, MUTED, _font(13), anchor="rt")


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(
    draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, size: int,
    colour: tuple[int, int, int] = INK, *, width: float | None = None, keep_end: bool = False,
) -> None:  # fmt: skip
    """Write one line; if it is too long, three dots replace its end, or its beginning."""
    font = _font(size)
    if width is not None and draw.textlength(text, font) > width:
        while len(text) > 1 and draw.textlength(f"{text}...", font) > width:
            text = text[1:] if keep_end else text[:-1]
        text = f"...{text}" if keep_end else f"{text}..."
    draw.text(corner, text, colour, font)


def _paragraph(draw: ImageDraw.ImageDraw, x: float, y: float, text: str) -> int:
    """Write a paragraph as wide as a panel; return the y of its end."""
    font, line = _font(14), ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, font) > PANEL:
            draw.text((x, y), line, MUTED, font)
            y, line = y + 14 * 1.3, word
        else:
            line = longer
    draw.text((x, y), line, MUTED, font)
    return round(y + 14 * 1.3)
