"""Make `scales.json`, the constants of the built-in model's scale from 0 to 100.

    python weights/make_scale.py --lfw ROOT

The reference faces are the undamaged faces of LFW among the crops that were labelled with exact
scores for the instant head (`instant/labels.csv`); ROOT/pairs.txt tells which those are. One scale
serves all presets: the fast one estimates the exact scores, the instant one predicts them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "instant"))

from crops import digest, read_folds  # noqa: E402

from faceqan_toolkit.quality.scale import SCALES_FILE, UPPER, Scale  # noqa: E402
from faceqan_toolkit.settings import PRESETS  # noqa: E402

WEIGHTS = "sface.safetensors"
ID = "sface-lfw-1"


def qualities(lfw: Path) -> np.ndarray:
    """Return the exact scores of LFW's undamaged crops."""
    images = {path.name for fold in read_folds(lfw) for pair in fold for path in pair}
    undamaged = {digest(f"{name} 0") for name in images}
    with (HERE / "instant" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["key"] in undamaged]
    return np.array([float(row["quality"]) for row in rows])


def main() -> None:
    """Write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lfw", type=Path, required=True)
    found = qualities(parser.parse_args().lfw)
    median, upper = np.percentile(found, [50, UPPER])
    scale = Scale.from_quantiles(ID, round(float(median), 6), round(float(upper), 6))
    entry = {
        **scale.as_dict(),
        "width": round(scale.width, 6),
        "weights_sha256": hashlib.sha256((HERE / WEIGHTS).read_bytes()).hexdigest(),
        "presets": list(PRESETS),
        "source": f"exact scores of {len(found)} undamaged crops of LFW, folds 1 to 5",
    }
    text = json.dumps({"scales": [entry]}, indent=2) + "\n"
    (HERE / SCALES_FILE).write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
