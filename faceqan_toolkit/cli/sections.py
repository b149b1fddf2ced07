"""Sections of every command's help, and the order of the options in them."""

from __future__ import annotations

from collections.abc import Iterable

import click

SECTIONS = {
    "Most used": (
        "output", "to", "preset", "mode", "keep-top", "min-quality", "target-fnmr",
        "target-discard", "top", "bottom",
    ),
    "Input": (
        "run", "every", "image-column", "max-pixels", "aligned", "pairs", "non-mated", "identity",
        "scores", "embeddings", "scores-only", "name", "fetch", "worst", "best",
    ),
    "Faces": (
        "faces", "detector", "detector-option", "min-face", "min-confidence", "max-side", "rotate",
        "landmarks", "template", "crop-size",
    ),
    "Quality": (
        "model", "quality-model", "method", "method-option", "copies", "eps-mode", "hints",
        "calibration", "min-percentile", "per-identity", "min-per-identity", "per-window",
        "drop-status", "by", "like-published",
    ),
    "Error rates": (
        "fmr", "fnmr-start", "edc", "fte", "pair-quality", "template-quality", "bootstrap", "flip",
        "detector-weights",
    ),
    "Results": (
        "format", "crops", "report", "photos", "redact", "group-by", "groups", "below", "json",
        "what", "as", "shard-size", "manifest", "null", "dry-run", "undo", "legacy-pickle",
        "licence", "here",
    ),
    "Work": (
        "workers", "device", "backend", "retry-failed", "fail-on", "quiet", "verbose", "log-format",
        "photo-timeout", "shard", "engine", "ray-address",
    ),
    "Advanced": (
        "seed", "noise-seed", "eps", "steps", "exponent", "clamp", "precision", "antialias",
        "one-based", "channels", "pixel-mean", "pixel-std", "norm-eps", "config", "help",
    ),
}  # fmt: skip
"""Options by section, in the order in which people need them, without their two dashes."""

_PLACES = {
    option: (section, place)
    for section, options in SECTIONS.items()
    for place, option in enumerate(options)
}


def long_name(option: click.Parameter) -> str:
    """Return an option's long name without its dashes."""
    names = [name for name in option.opts if name.startswith("--")]
    return (names or option.opts)[0].lstrip("-")


def in_sections(options: Iterable[click.Parameter]) -> dict[str, list[click.Parameter]]:
    """Return options by section, both in order.

    An option that `SECTIONS` does not name stands behind the option declared before it; options of
    a detector or method are thus beside the option that chooses it.
    """
    placed: dict[str, list[tuple[int, click.Parameter]]] = {section: [] for section in SECTIONS}
    section, place = "Advanced", 0
    for option in options:
        section, place = _PLACES.get(long_name(option), (section, place))
        placed[section].append((place, option))
    return {
        section: [option for _, option in sorted(members, key=lambda member: member[0])]
        for section, members in placed.items()
        if members
    }
