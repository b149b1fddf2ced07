"""Paths of one tool against those of another."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.evaluation.path_matching import BARE_NAME_SQL, RULES, bare_name, match_paths

LFW = ["A_B/A_B_0001.jpg", "A_B/A_B_0002.jpg", "C_D/C_D_0001.jpg"]


@pytest.mark.parametrize(
    ("rule", "given_paths"),
    [
        ("exact", LFW),
        ("exact", [path.replace("/", "\\") for path in LFW]),
        ("exact", [f"./{path}" for path in LFW]),
        ("end", [f"/data/lfw/{path}" for path in LFW]),
        ("end", [rf"C:\data\{path}" for path in LFW]),
        ("end", [path.split("/")[1] for path in LFW]),
        ("end without extension", [f"/crops/{path[:-4]}.png" for path in LFW]),
        ("end without extension", [path[:-4] for path in LFW]),
        ("end without extension", [f"crops/{path}.0.png" for path in LFW]),
    ],
)
def test_rules(rule: str, given_paths: list[str]) -> None:
    match = match_paths(LFW, given_paths[::-1])
    assert match.index.tolist() == [2, 1, 0]
    assert match.rules == {**dict.fromkeys(RULES, 0), rule: 3}
    assert (match.missing, match.ambiguous, match.unused) == ((), (), ())


def test_folder_and_name() -> None:
    match = match_paths([f"images/{path}" for path in LFW], [f"aligned/{path}" for path in LFW])
    assert match.index.tolist() == [0, 1, 2]
    assert match.rules["folder and name"] == 3


def test_names_that_begin_with_their_folders() -> None:
    """CR-FIQA has all of XQLFW's photos in one folder."""
    wanted = [f"lfw_original_imgs_min_qual0.85variant11/{path}" for path in LFW]
    flat = [f"XQLFW/XQLFW/images/{path.split('/')[1]}" for path in LFW]
    for match in (match_paths(wanted, flat), match_paths(flat, wanted)):
        assert match.index.tolist() == [0, 1, 2]
        assert match.rules["name"] == 3
    # any other name may be another person's
    assert match_paths(["ann/front.jpg"], ["images/front.jpg"]).index.tolist() == [-1]
    assert match_paths(["an/ann_1.jpg"], ["images/ann_1.jpg"]).index.tolist() == [-1]
    assert match_paths(["001/001.jpg"], ["images/001.jpg"]).index.tolist() == [-1]
    assert match_paths(["001/001_01.jpg"], ["images/001_01.jpg"]).index.tolist() == [-1]
    twice = match_paths(wanted, [*flat, "CALFW/images/A_B_0001.jpg"])
    assert twice.index.tolist() == [-1, 1, 2]


def test_crops_of_faceqnet() -> None:
    """Its file on LFW has every face of a photo, in no order: `a.jpg_0.jpg`, `a.jpg_1.jpg`."""
    crops = [rf"A_B\A_B_0001.jpg_{face}.jpg" for face in (0, 1)]
    assert match_paths(LFW, crops[:1]).index.tolist() == [0, -1, -1]
    both = match_paths(LFW, crops)
    assert both.index.tolist() == [-1, -1, -1]
    assert both.ambiguous == (LFW[0],)
    assert match_paths(crops, crops).index.tolist() == [0, 1]


def test_numbers_of_another_data_set_are_not_matched() -> None:
    match = match_paths(["lfw/images/00000.jpg"], ["cfp_fp/images/00000.jpg"])
    assert match.index.tolist() == [-1]
    assert match.missing == ("lfw/images/00000.jpg",)
    assert match.unused == ("cfp_fp/images/00000.jpg",)
    assert match_paths(["lfw/images/0.jpg"], ["x/lfw/images/0.jpg"]).index.tolist() == [0]


def test_what_is_not_clear_is_not_matched() -> None:
    wanted = ["001/frontal/01.jpg", "002/frontal/01.jpg", "002/frontal/02.jpg"]
    match = match_paths(wanted, ["01.jpg", "02.jpg"])
    assert match.index.tolist() == [-1, -1, 1]
    assert match.ambiguous == tuple(wanted[:2])
    assert match.unused == ("01.jpg",)
    twice = match_paths(["A/a.jpg"], ["x/A/a.jpg", "y/A/a.jpg"])
    assert twice.index.tolist() == [-1]
    assert twice.ambiguous == ("A/a.jpg",)
    assert twice.unused == ("x/A/a.jpg", "y/A/a.jpg")


def test_further_faces_are_not_the_photo() -> None:
    assert match_paths(["a.jpg"], ["a.jpg.1.png"]).index.tolist() == [-1]


def test_an_exact_match_is_not_disturbed_by_longer_ones() -> None:
    match = match_paths(["A/a.jpg"], ["x/A/a.jpg", "A/a.jpg"])
    assert match.index.tolist() == [1]


def test_summary_names_what_is_left() -> None:
    text = "\n".join(match_paths(LFW, [LFW[0], "other.jpg"]).lines(1))
    assert "1 of 3 matched (1 by exact)" in text
    assert "2 without one: A_B/A_B_0002.jpg, and 1 more" in text
    assert "1 not used: other.jpg" in text
    assert match_paths(["a"], []).lines()[0] == "none of 1 matched"


def naive(wanted: list[str], given_paths: list[str]) -> list[int]:
    """Return the same by comparing everything with everything."""

    def tells(path: PurePosixPath) -> bool:
        name, folder = path.name, path.parent.name
        return bool(folder) and name == folder and name.isalpha()

    def fits(rule: str, a: str, b: str) -> bool:
        if "extension" in rule or "name" in rule:
            a, b = (re.sub(r"\.(jpg|png)$", "", path) for path in (a, b))
        first, second = PurePosixPath(a).parts, PurePosixPath(b).parts
        if rule == "exact":
            return first == second
        if rule == "folder and name":
            return (len(first) > 1 and len(second) > 1 and first[-2:] == second[-2:]
                    and not first[-1].isdigit())  # fmt: skip
        if rule == "name":
            return first[-1] == second[-1] and (tells(PurePosixPath(a)) or tells(PurePosixPath(b)))
        short = min(len(first), len(second))
        return first[-short:] == second[-short:]

    result = [-1] * len(wanted)
    left, free = set(range(len(wanted))), set(range(len(given_paths)))
    for rule in RULES:
        edges = {(w, g) for w in left for g in free if fits(rule, wanted[w], given_paths[g])}
        for w in {w for w, _ in edges}:
            others = [g for x, g in edges if x == w]
            if len(others) == 1 and sum(g == others[0] for _, g in edges) == 1:
                result[w] = others[0]
                free.discard(others[0])
            left.discard(w)
        free -= {g for w, g in edges if result[w] != g}
    return result


PATHS = st.lists(
    st.lists(st.sampled_from(["a", "b", "1"]), min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(["", ".jpg", ".png"]).map(lambda end: "/".join(parts) + end)
    ),
    unique=True, max_size=6,
)  # fmt: skip


@settings(deadline=None)
@given(PATHS, PATHS)
def test_against_comparing_everything(wanted: list[str], given_paths: list[str]) -> None:
    match = match_paths(wanted, given_paths)
    assert match.index.tolist() == naive(wanted, given_paths)
    matched = sorted(place for place in match.index.tolist() if place >= 0)
    assert len(matched) == len(set(matched)) == sum(match.rules.values())
    assert len(match.missing) + len(match.ambiguous) + len(matched) == len(wanted)
    assert len(match.unused) + len(matched) == len(given_paths)


@settings(deadline=None)
@given(st.lists(st.text(), unique=True, max_size=5), st.lists(st.text(), unique=True, max_size=5))
def test_any_text(wanted: list[str], given_paths: list[str]) -> None:
    assert len(match_paths(wanted, given_paths).index) == len(wanted)


NAMES = st.lists(
    st.text(max_size=3)
    | st.sampled_from(
        [
            "a",
            ".jpg",
            ".JPG",
            ".png",
            ".0.png",
            ".0.PNG",
            "_1.jpg",
            "_0.png",
            "/",
            "\\",
            "\n",
            "'",
            ".",
        ]
    ),
    min_size=1,
    max_size=6,
).map("".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(NAMES, min_size=20))
def test_duckdb_sees_the_same_names(drawn: list[str]) -> None:
    paths = [path for path in drawn if path and path[-1] not in "./\\"]
    with duckdb.connect() as connection:
        connection.register("paths", pa.table({"path": paths}))
        found = connection.execute(f"SELECT {BARE_NAME_SQL} FROM paths").fetchall()
    assert [name for (name,) in found] == [bare_name(path) for path in paths]
