"""The published evaluation script's pickle."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.evaluation.legacy import write_legacy_pickle
from faceqan_toolkit.evaluation.scores import read_scores


def test_it_is_read_as_the_published_one(tmp_path: Path) -> None:
    scores = {"A/A_0001.jpg": 0.25, "B/100%25.jpg": 0.5, "C/none.jpg": math.nan}
    write_legacy_pickle(tmp_path / "xqlfw_results.pkl", Path("data") / "xqlfw", scores)
    # as notebooks do it
    with (tmp_path / "xqlfw_results.pkl").open("rb") as file:
        content = pickle.load(file)
    root = Path("data") / "xqlfw"
    expected = {str(root / "A" / "A_0001.jpg"): 0.25, str(root / "B" / "100%.jpg"): 0.5}
    assert content == expected
    values, match = read_scores(tmp_path / "xqlfw_results.pkl").match(["A/A_0001.jpg"])
    assert values.tolist() == [0.25]
    assert match.rules["end"] == 1


def test_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        write_legacy_pickle(tmp_path / "no" / "folder.pkl", tmp_path, {"a": 1.0})
