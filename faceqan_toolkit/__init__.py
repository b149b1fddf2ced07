"""Raw photos in, ranked face-quality reports out.

The names below are the public Python interface; each is imported when it is first used, so that
importing the package costs nothing (torch takes seconds).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faceqan_toolkit.api import Run, align, detect, evaluate, merge, open_run, run
    from faceqan_toolkit.errors import FaceQANError
    from faceqan_toolkit.models.base import BackboneEmbedder, Embedder, Preprocessing
    from faceqan_toolkit.models.load import load_model
    from faceqan_toolkit.pipeline import Pipeline
    from faceqan_toolkit.quality.faceqan import FaceQAN
    from faceqan_toolkit.settings import Settings
    from faceqan_toolkit.types import AlignedCrop, Face, Photo, Record, Score

__version__ = "0.1.0"

__all__ = [
    "AlignedCrop", "BackboneEmbedder", "Embedder", "Face", "FaceQAN", "FaceQANError", "Photo",
    "Pipeline", "Preprocessing", "Record", "Run", "Score", "Settings", "__version__", "align",
    "detect", "evaluate", "load_model", "merge", "open_run", "run",
]  # fmt: skip

_NAMES = {
    "api": ("Run", "align", "detect", "evaluate", "merge", "open_run", "run"),
    "errors": ("FaceQANError",),
    "models.base": ("BackboneEmbedder", "Embedder", "Preprocessing"),
    "models.load": ("load_model",),
    "pipeline": ("Pipeline",),
    "quality.faceqan": ("FaceQAN",),
    "settings": ("Settings",),
    "types": ("AlignedCrop", "Face", "Photo", "Record", "Score"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
