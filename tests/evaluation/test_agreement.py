"""Agreement of two sets of scores, against scipy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from faceqan_toolkit.errors import ScoresError
from faceqan_toolkit.evaluation.agreement import agree
from faceqan_toolkit.evaluation.score_files import ScoreTable, read_scores


def table(name: str, scores: dict[str, float]) -> ScoreTable:
    return ScoreTable(name, "csv", tuple(scores), np.array(list(scores.values())))


def test_against_scipy() -> None:
    rng = np.random.default_rng(0)
    paths = [f"P{index}/P{index}_0001.jpg" for index in range(200)]
    a = np.round(rng.random(200), 1)  # many ties
    b = np.round(a + rng.normal(0, 0.3, 200), 2)
    others = {f"/x/{path}": value for path, value in zip(paths[::-1], b[::-1], strict=True)}
    found = agree(table("a", dict(zip(paths, a, strict=True))), table("b", others))
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)
    assert found.pearson == pytest.approx(scipy.stats.pearsonr(a, b).statistic, abs=1e-12)
    np.testing.assert_array_equal(found.first, a)
    np.testing.assert_array_equal(found.second, b)
    np.testing.assert_allclose(
        found.first_percentile, [scipy.stats.percentileofscore(a, v, "mean") + 0.25 for v in a]
    )
    moved = np.abs(found.second_percentile - found.first_percentile)
    assert [abs(mover["moved"]) for mover in found.movers(200)] == sorted(moved, reverse=True)
    json.dumps(found.as_dict())


def test_counts() -> None:
    first = table("a", {"p": 1, "q": 2, "r": np.nan, "only": 4})
    second = table("b", {"p": 3, "q": np.nan, "r": 5, "x": 6, "y": 7})
    found = agree(first, second)
    assert found.paths == ("p",)
    assert found.spearman is None
    told = found.as_dict()
    assert (told["common"], told["only_in_first"], told["only_in_second"]) == (1, 1, 2)
    assert told["without_score"] == [1, 1]


def test_extremes() -> None:
    up = {"p": 1.0, "q": 2.0, "r": 3.0}
    assert agree(table("a", up), table("b", {k: v**3 for k, v in up.items()})).spearman == 1
    assert agree(table("a", up), table("b", {k: -v for k, v in up.items()})).spearman == -1
    assert agree(table("a", up), table("b", dict.fromkeys(up, 1.0))).spearman is None
    with pytest.raises(ScoresError, match="in common"):
        agree(table("a", up), table("b", {"z": 1}))


def test_a_file_like_the_authors(tmp_path: Path) -> None:
    """Packed CSV with eight decimals, as the authors' scores of XQLFW; and our rankings."""
    rng = np.random.default_rng(1)
    names = [f"Some_One{i}/Some_One{i}_{j:04d}.jpg" for i in range(30) for j in (1, 2)]
    theirs = dict(zip(names, rng.random(60), strict=True))
    text = "image,quality\n" + "".join(f"{p},{q:.8f}\n" for p, q in theirs.items())
    (tmp_path / "theirs.csv.gz").write_bytes(gzip.compress(text.encode()))
    rows = sorted(theirs.items(), key=lambda item: -item[1])
    ours = "rank,path,face,quality\n" + "".join(
        f"{rank},lfw_original_imgs_min_qual0.85variant11/{path},0,{quality**2:.6f}\n"
        for rank, (path, quality) in enumerate(rows, start=1)
    )
    (tmp_path / "rankings.csv").write_text(ours)
    found = agree(read_scores(tmp_path / "theirs.csv.gz"), read_scores(tmp_path / "rankings.csv"))
    assert len(found.paths) == 60
    assert found.match.rules["end"] == 60
    assert found.spearman == pytest.approx(1, abs=1e-4)
