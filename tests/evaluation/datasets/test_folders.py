"""A folder of folders."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import DatasetError, SettingsError
from faceqan_toolkit.evaluation.datasets.folders import Joined, RowPairs
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from faceqan_toolkit.results.groups import IdentityRule
from tests.evaluation.datasets.trees import all_pairs, photo

PHOTOS = ["A/1.jpg", "A/2.jpg", "A/deep/3.jpg", "B/1.jpg", "C/1.png", "C/2.png", "D/1.jpg"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in PHOTOS:
        photo(tmp_path / path)
    (tmp_path / "B" / "notes.txt").write_text("no photo")
    return tmp_path


def expected(mated: bool) -> set[frozenset[str]]:
    return {
        frozenset(pair)
        for pair in itertools.combinations(PHOTOS, 2)
        if (pair[0][0] == pair[1][0]) == mated
    }


def test_all_pairs(root: Path) -> None:
    dataset = read_dataset("folders", root, non_mated="all")
    assert set(dataset.paths) == set(PHOTOS)
    found = all_pairs(dataset)
    for mated in (True, False):
        rows = np.flatnonzero(found.mated == mated)
        pairs = [frozenset((dataset.paths[found.first[r]], dataset.paths[found.second[r]]))
                 for r in rows]  # fmt: skip
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == expected(mated)
    assert len(dataset.pairs) == len(found.first) == 21
    report = validate(dataset)
    assert report.ok
    assert report.counts["identities"] == 4


def test_drawn_pairs(root: Path) -> None:
    def draw(**options: int) -> list[tuple[int, int]]:
        found = all_pairs(read_dataset("folders", root, **options))
        return list(zip(found.first[~found.mated].tolist(), found.second[~found.mated].tolist(),
                        strict=True))  # fmt: skip

    assert len(draw()) == 4  # as many as mated ones
    assert draw(non_mated=8) == draw(non_mated=8)
    assert draw(non_mated=8) != draw(non_mated=8, seed=1)
    assert len(set(draw(non_mated=8))) == 8
    assert set(draw(non_mated=8)) < set(draw(non_mated=17))
    assert len(draw(non_mated=10**9)) == 17
    assert draw(non_mated=0) == []


def test_a_draw_is_fair(root: Path) -> None:
    counts = np.zeros((7, 7))
    for seed in range(100):
        found = all_pairs(read_dataset("folders", root, non_mated=5, seed=seed))
        np.add.at(counts, (found.first[~found.mated], found.second[~found.mated]), 1)
    drawn = counts[counts > 0]
    assert len(drawn) == 17
    # 100 draws of 5 out of 17: 29 each, standard deviation 4.6
    assert drawn.min() > 14
    assert drawn.max() < 45


def test_photos_without_a_person(root: Path) -> None:
    photo(root / "alone.jpg")
    dataset = read_dataset("folders", root)
    assert set(dataset.paths) == set(PHOTOS)
    assert validate(dataset).issue_counts == {"no_identity": 1, "extra_file": 1}


def test_photos_of_several_people(root: Path) -> None:
    """The same photo in two people's folders is left out, twice in one person's is not."""
    for number, path in enumerate(PHOTOS):
        (root / path).write_bytes(b"%04d" % number * 2000)
    (root / "C/2.png").write_bytes((root / "A/2.jpg").read_bytes())
    (root / "B/copy.jpg").write_bytes((root / "B/1.jpg").read_bytes())
    (root / "D/begins_alike.jpg").write_bytes((root / "A/1.jpg").read_bytes()[:-1] + b"x")
    dataset = read_dataset("folders", root, non_mated="all")
    left_out = {"A/2.jpg", "C/2.png"}
    assert set(dataset.paths) == {
        *(set(PHOTOS) - left_out), "B/copy.jpg", "D/begins_alike.jpg"
    }  # fmt: skip
    told = [str(issue) for issue in dataset.log.issues]
    assert told == [
        "A/2.jpg: left out: the same photo as C/2.png, of another person",
        "C/2.png: left out: the same photo as A/2.jpg, of another person",
    ]
    assert validate(dataset).ok
    for path in PHOTOS:
        (root / path).write_bytes(b"")  # damaged files are not the same photo
    assert len(read_dataset("folders", root).paths) == 9


def test_other_people(root: Path, tmp_path: Path) -> None:
    assert read_dataset("folders", root).people == "identity = first folder, 4 people"
    deeper = read_dataset("folders", root, identity=IdentityRule(2), strict=False)
    assert deeper.people == "identity = folder 2, 1 person; 6 photos without an identity: left out"
    assert deeper.paths == ("A/deep/3.jpg",)
    table = tmp_path / "who.csv"
    table.write_text("path,identity\nA/1.jpg,x\nC/1.png,x\nD/1.jpg,y\n", encoding="utf-8")
    named = read_dataset("folders", root, non_mated="all", identity=IdentityRule(table=table))
    assert named.paths == ("A/1.jpg", "C/1.png", "D/1.jpg")
    assert named.identities.tolist() == [0, 0, 1]
    with pytest.raises(SettingsError, match="takes no --identity; it is for folders"):
        read_dataset("lfw", root, identity=IdentityRule())


def test_refusals(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="negative"):
        read_dataset("folders", root, non_mated=-1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="nothing to compare"):
        read_dataset("folders", tmp_path / "empty")
    with pytest.raises(DatasetError, match="no such folder"):
        read_dataset("folders", tmp_path / "nothing")
    with pytest.raises(SettingsError, match="no such folder"):
        read_dataset("folders", root / "A" / "1.jpg")


def listed(pairs: RowPairs | Joined, block: int) -> list[tuple[int, int]]:
    parts = list(pairs.blocks(block))
    assert all(0 < len(part.first) <= block for part in parts)
    return [
        pair
        for part in parts
        for pair in zip(part.first.tolist(), part.second.tolist(), strict=True)
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8),
    st.integers(1, 7),
    st.data(),
)
def test_blocks_against_loops(rows: list[tuple[int, int]], block: int, data: st.DataObject) -> None:
    start = np.cumsum([gap for gap, _ in rows])
    stop = start + np.array([length for _, length in rows])
    everything = [
        (row, other)
        for row, (begin, end) in enumerate(zip(start, stop, strict=True))
        for other in range(begin, end)
    ]
    pairs = RowPairs(start, stop, False)
    joined = Joined((pairs, pairs))
    assert listed(joined, block) == everything * 2
    assert len(joined) == 2 * len(everything)
    if everything:
        chosen = sorted(data.draw(st.sets(st.integers(0, len(everything) - 1))))
        some = RowPairs(start, stop, False, np.array(chosen, np.int64))
        assert listed(some, block) == [everything[place] for place in chosen]
