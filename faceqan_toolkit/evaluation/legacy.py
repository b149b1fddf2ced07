"""What the published evaluation script writes, so that old notebooks go on working."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

from faceqan_toolkit.files import writing
from faceqan_toolkit.paths import path_from_text


def write_legacy_pickle(target: Path, root: Path, scores: Mapping[str, float]) -> None:
    """Write a pickle of {path of the photo: quality}.

    Differs from the published one in the type of the numbers: floats, which every version of
    numpy can load, for numpy's own, which only versions like the writing one can.

    Args:
        target: replaced if it exists.
        root: folder that paths are relative to; it stands before each, as it is given.
        scores: quality by path (`paths.path_text`). The published script scores every photo of
            the data set, not only those of the pairs. NaN, no face for instance, is left out.

    Raises:
        RunError: it cannot be written.

    Source: src/evaluation/xqlfw_eval.py of the published FaceQAN code.
    """
    content = {
        str(root / path_from_text(path)): float(quality)
        for path, quality in scores.items()
        if quality == quality
    }
    with writing(target) as temporary:
        temporary.write_bytes(pickle.dumps(content, protocol=4))
