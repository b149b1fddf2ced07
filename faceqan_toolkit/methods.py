"""The quality measures there are, and the settings each of them listens to; no torch."""

from __future__ import annotations

from collections.abc import Mapping

METHODS: Mapping[str, tuple[str, ...]] = {
    "faceqan": (
        "preset", "eps", "eps_mode", "steps", "copies", "exponent", "seed", "clamp", "precision",
        "backend",
    ),
    "serfiq": ("seed",),
    "grafiqs": (),
    "magface": (),
    "norm": (),
}  # fmt: skip
"""Settings of a method beside model and device; the first has all there are."""
