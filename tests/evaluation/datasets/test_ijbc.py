"""IJB-C: lists, templates, landmarks."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.detection.landmarks_file import LandmarksFile
from faceqan_toolkit.errors import DatasetError, FaceQANError
from faceqan_toolkit.evaluation.datasets.ijbc import BLOCK_BYTES, write_landmarks
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from faceqan_toolkit.settings import Settings
from tests.conftest import in_every_encoding, photo_of
from tests.evaluation.datasets.trees import all_pairs, ijbc_tree, lfw_tree


@pytest.mark.parametrize("folder", ["", "IJBC"])
def test_official_layout(tmp_path: Path, folder: str) -> None:
    tree = ijbc_tree(tmp_path / folder)
    dataset = read_dataset("ijbc", tmp_path)
    assert dataset.paths == tuple(f"loose_crop/{index}.jpg" for index in range(1, 41))
    assert all(Path(source.place).is_file() for source in dataset.sources())
    templates = dataset.templates
    assert templates is not None
    assert dataset.landmarks is not None
    assert dataset.confidences is not None
    np.testing.assert_array_equal(dataset.landmarks, tree.points[:, :10].reshape(-1, 5, 2))
    np.testing.assert_array_equal(dataset.confidences, tree.points[:, 10])
    np.testing.assert_array_equal(templates.names[templates.template], tree.rows[:, 0])
    np.testing.assert_array_equal(templates.media, tree.rows[:, 1])
    np.testing.assert_array_equal(templates.sample, np.arange(40))
    found = all_pairs(dataset)
    np.testing.assert_array_equal(templates.names[found.first], tree.pairs[:, 0])
    np.testing.assert_array_equal(templates.names[found.second], tree.pairs[:, 1])
    np.testing.assert_array_equal(found.mated, tree.pairs[:, 2] == 1)
    assert found.fold is None
    alike = dataset.identities[found.first] == dataset.identities[found.second]
    np.testing.assert_array_equal(alike, found.mated)
    report = validate(dataset)
    assert report.ok
    assert report.counts["templates"] == 12
    assert report.counts["comparisons"] == 36


def test_landmarks_as_input(tmp_path: Path) -> None:
    tree = ijbc_tree(tmp_path)
    dataset = read_dataset("ijbc", tmp_path)
    write_landmarks(dataset, tmp_path / "faces.csv")
    table = LandmarksFile(tmp_path / "faces.csv", Settings(min_face=1, min_confidence=0.0))
    for row in (0, 17, 39):
        (face,) = table.detect(photo_of(np.zeros((250, 250, 3), np.uint8), dataset.paths[row]))
        np.testing.assert_array_equal(face.landmarks.ravel(), tree.points[row, :10])
        assert face.confidence == tree.points[row, 10]
    lfw_tree(tmp_path / "lfw")
    without = read_dataset("lfw", tmp_path / "lfw")
    with pytest.raises(DatasetError, match="no landmarks"):
        write_landmarks(without, tmp_path / "faces.csv")
    with pytest.raises(DatasetError, match="cannot write"):
        write_landmarks(dataset, tmp_path / "no" / "faces.csv")


@pytest.mark.parametrize(
    ("name", "line", "text", "kind"),
    [
        ("template_pair_label", 5, "1 2 3 4", "malformed_row"),
        ("template_pair_label", 5, "1 x 0", "malformed_row"),
        ("template_pair_label", 5, "", "malformed_row"),
        ("template_pair_label", 5, "1 19 2", "malformed_row"),
        ("template_pair_label", 5, "2 19 1", "unknown_sample"),
        ("template_pair_label", 5, "1 99999 1", "unknown_sample"),
        ("template_pair_label", 36, "99999999999 1 1", "malformed_row"),
        ("face_tid_mid", 5, "5.jpg 1", "malformed_row"),
        ("face_tid_mid", 5, "x.jpg 1 100", "unknown_sample"),
        ("name_5pts_score", 5, "5.jpg 1 2 3", "malformed_row"),
        ("name_5pts_score", 5, "4.jpg 1 2 3 4 5 6 7 8 9 10 1", "malformed_row"),
        ("name_5pts_score", 5, "../../5.jpg 1 2 3 4 5 6 7 8 9 10 1", "malformed_row"),
        ("name_5pts_score", 5, "5.jpg 1 2 3 4 nan 6 7 8 9 10 1", "malformed_row"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, line: int, text: str, kind: str) -> None:
    tree = ijbc_tree(tmp_path)
    lines = tree.lines(name)
    lines[line - 1] = text
    tree.rewrite(name, lines)
    report = validate(read_dataset("ijbc", tmp_path, strict=False))
    found = [(issue.file, issue.line) for issue in report.issues if issue.kind == kind]
    assert (f"meta/ijbc_{name}.txt", line) in found
    with pytest.raises(DatasetError, match="meta/ijbc"):
        read_dataset("ijbc", tmp_path)


def test_duplicates_and_contradictions(tmp_path: Path) -> None:
    tree = ijbc_tree(tmp_path)
    lines = tree.lines("template_pair_label")
    first, second, label = lines[0].split()
    lines += [
        f"{second} {first} {label}",
        f"{first} {second} {1 - int(label)}",
        "1 1 1",
        "9999 1 0",
    ]
    tree.rewrite("template_pair_label", lines)
    report = validate(read_dataset("ijbc", tmp_path, strict=False))
    found = {(issue.kind, issue.line) for issue in report.issues if issue.line}
    assert found == {("duplicate_pair", 37), ("contradicting_label", 38), ("self_pair", 39),
                     ("unknown_sample", 40), *((k, n) for k, n in found
                                               if k == "contradicting_identity")}  # fmt: skip


def test_lines_are_right_beyond_the_first_block(tmp_path: Path) -> None:
    tree = ijbc_tree(tmp_path)
    first, second, label = tree.lines("template_pair_label")[0].split()
    good = f"{first} {second} {label}"
    number = 2 * BLOCK_BYTES // len(good)
    for text, kind in (("9999 1 0", "unknown_sample"), ("broken", "malformed_row")):
        tree.rewrite("template_pair_label", [*[good] * number, text, good])
        log = read_dataset("ijbc", tmp_path, strict=False).log
        found = [(issue.kind, issue.line) for issue in log.issues if issue.severity == "error"]
        assert found == [(kind, number + 1)]
    tree.rewrite("template_pair_label", [good] * number)
    dataset = read_dataset("ijbc", tmp_path)
    assert len(dataset.pairs) == number
    assert dataset.pairs.where(number - 1)[1] == number
    blocks = list(dataset.pairs.blocks(100_000))
    assert max(len(block.first) for block in blocks) == 100_000
    assert sum(len(block.first) for block in blocks) == number


@pytest.mark.parametrize("place", range(6))
def test_every_encoding(tmp_path: Path, place: int) -> None:
    ijbc_tree(tmp_path)
    before = read_dataset("ijbc", tmp_path)
    pairs = tmp_path / "meta/ijbc_template_pair_label.txt"
    broken = pairs.read_text(encoding="utf-8") + "broken\n"
    for file in (tmp_path / "meta").iterdir():
        file.write_bytes(in_every_encoding(file.read_text(encoding="utf-8"))[place])
    after = read_dataset("ijbc", tmp_path)
    assert after.paths == before.paths
    for name in ("first", "second", "mated"):
        found, expected = (getattr(all_pairs(one), name) for one in (after, before))
        np.testing.assert_array_equal(found, expected)
    pairs.write_bytes(in_every_encoding(broken)[place])
    with pytest.raises(DatasetError, match=r"pair_label\.txt, line 37: not 'first second label'"):
        read_dataset("ijbc", tmp_path)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    tree = ijbc_tree(tmp_path)
    text = "\n".join(tree.lines("face_tid_mid"))
    (tmp_path / "meta/ijbc_face_tid_mid.txt").write_bytes(text.encode("utf-16-le"))
    with pytest.raises(DatasetError, match="UTF-16 without a byte order mark; save it as UTF-8"):
        read_dataset("ijbc", tmp_path)


def test_missing_and_empty_lists(tmp_path: Path) -> None:
    tree = ijbc_tree(tmp_path)
    (tmp_path / "meta" / "ijbc_face_tid_mid.txt").unlink()
    tree.rewrite("template_pair_label", [])
    (tmp_path / "loose_crop" / "7.jpg").unlink()
    report = validate(read_dataset("ijbc", tmp_path, strict=False))
    assert report.issue_counts["missing_list"] == 1
    assert report.issue_counts["row_count"] == 1
    assert report.issue_counts["missing_file"] == 1


WORDS = st.one_of(st.sampled_from(["1.jpg", "1", "0", "-1", "2.5", "nan", ""]), st.text(max_size=3))
LIST = st.lists(st.lists(WORDS, max_size=4).map(" ".join), max_size=4).map("\n".join)


@settings(deadline=None)
@given(LIST, LIST, LIST)
def test_any_list_is_read_or_refused(names: str, media: str, pairs: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "meta").mkdir()
        good = "1.jpg 1 2 3 4 5 6 7 8 9 10 0.9\n"
        texts = {
            "name_5pts_score": good + names,
            "face_tid_mid": "1.jpg 1 1\n" + media,
            "template_pair_label": "1 1 1\n" + pairs,
        }
        for name, text in texts.items():
            file = root / "meta" / f"ijbc_{name}.txt"
            file.write_bytes(text.encode("utf-8", "surrogatepass"))
        assert validate(read_dataset("ijbc", root, strict=False)).lines()
        with contextlib.suppress(FaceQANError):
            read_dataset("ijbc", root)
