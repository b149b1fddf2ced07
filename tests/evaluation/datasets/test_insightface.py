"""Data sets as InsightFace ships them: `.bin` files, IJB-C and its templates."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.detection.landmarks_file import LandmarksFile
from faceqan_toolkit.errors import DatasetError, FaceQANError, SettingsError
from faceqan_toolkit.evaluation.datasets import base
from faceqan_toolkit.evaluation.datasets.base import Templates
from faceqan_toolkit.evaluation.datasets.insightface import BLOCK_BYTES, unpack, write_landmarks
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from faceqan_toolkit.settings import Settings
from tests.conftest import in_every_encoding, photo_of, read_rgb
from tests.evaluation.datasets.trees import all_pairs, encoded, ijbc_tree, lfw_tree

LABELS = [True, False, True, True, False, False, True, False, True, False]


def photos() -> list[bytes]:
    """Twenty, of which the fifth is the first again: pairs 0 and 2 are one person's."""
    made = [encoded(10 * index) for index in range(20)]
    made[4] = made[0]
    return made


def write(folder: Path, content: Any, name: str = "lfw.bin", protocol: int = 4) -> Path:
    (folder / name).write_bytes(pickle.dumps(content, protocol))
    return folder / name


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("kind", ["bytes", "arrays", "label array", "tuples"])
def test_ways_they_are_written(tmp_path: Path, protocol: int, kind: str) -> None:
    images: Any = photos()
    labels: Any = LABELS
    if kind == "arrays":
        images = [np.frombuffer(image, np.uint8) for image in images]
        labels = [np.bool_(label) for label in labels]
    elif kind == "label array":
        labels = np.array(labels)
    elif kind == "tuples":
        images, labels = tuple(images), tuple(map(int, labels))
    file = write(tmp_path, (images, labels), protocol=protocol)
    read = read_dataset("bin", file)
    assert read.encoded == tuple(photos())
    found = all_pairs(read)
    assert found.first.tolist() == list(range(0, 20, 2))
    assert found.second.tolist() == list(range(1, 20, 2))
    assert found.mated.tolist() == LABELS
    assert found.fold is not None
    assert found.fold.tolist() == list(range(10))
    assert read.paths[3] == "lfw/images/00003.jpg"
    assert list(read.sources()) == []


def test_python_2_wrote_the_official_ones(tmp_path: Path) -> None:
    """Its texts are bytes with their length in front."""

    def text(data: bytes) -> bytes:
        return b"T" + len(data).to_bytes(4, "little") + data

    body = b"\x80\x02](" + b"".join(map(text, photos())) + b"e](" + b"\x88\x89" * 5 + b"e\x86."
    (tmp_path / "agedb_30.bin").write_bytes(body)
    read = read_dataset("bin", tmp_path)
    assert read.name == "agedb_30"
    assert read.encoded == tuple(photos())
    assert all_pairs(read).mated.tolist() == [True, False] * 5


def test_people_are_what_pairs_and_copies_join(tmp_path: Path) -> None:
    read = read_dataset("bin", write(tmp_path, (photos(), LABELS)))
    people = read.identities
    assert len({people[0], people[1], people[4], people[5]}) == 1
    assert people[2] != people[3]
    assert people[6] == people[7] != people[0]


def test_photos_are_decoded_and_unpacked(tmp_path: Path) -> None:
    images = [encoded(200, ".png"), *photos()[1:]]
    read = read_dataset("bin", write(tmp_path, (images, LABELS)))
    assert read.paths[0] == "lfw/images/00000.png"
    unpack(read, tmp_path / "out")
    assert (read_rgb(tmp_path / "out" / read.paths[0]) == 200).all()
    assert [(tmp_path / "out" / path).read_bytes() for path in read.paths] == images
    with pytest.raises(DatasetError, match="cannot write"):
        unpack(read, tmp_path / "lfw.bin")


def test_validation(tmp_path: Path) -> None:
    images = photos()
    images[5] = b"no photo"
    read = read_dataset("bin", write(tmp_path, (images, LABELS)))
    report = validate(read)
    assert report.issue_counts == {"unreadable_photo": 1, "official_count": 1}
    # photo 4 is photo 0, and pairs 0 and 2 are mated: then 1 and 5 are one person's too
    contradicting = [*photos()[:6], photos()[1], photos()[5], *photos()[8:]]
    contradicting[5] = encoded(50)
    contradicting[7] = contradicting[5]
    labels = [*LABELS[:3], False, *LABELS[4:]]
    read = read_dataset("bin", write(tmp_path, (contradicting, labels)))
    assert validate(read).issue_counts["contradicting_identity"] == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ((photos(), LABELS[:9]), "row_count"),
        ((photos()[:19], LABELS), "row_count"),
        ((["text", *photos()[1:]], LABELS), "malformed_row"),
        (([b"", *photos()[1:]], LABELS), "malformed_row"),
        (([np.zeros((8, 8, 3), np.uint8), *photos()[1:]], LABELS), "malformed_row"),
        (([np.zeros(8, np.float32), *photos()[1:]], LABELS), "malformed_row"),
        ((photos(), [2, *LABELS[1:]]), "malformed_row"),
        ((photos(), ["yes", *LABELS[1:]]), "malformed_row"),
        ((photos(),), "unreadable_list"),
        ((photos(), np.array(1)), "unreadable_list"),
        ({"a": 1}, "unreadable_list"),
        ((photos(), [os.system]), "unreadable_list"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, content: Any, kind: str) -> None:
    file = write(tmp_path, content)
    report = validate(read_dataset("bin", file, strict=False))
    assert report.issue_counts[kind] == 1
    assert not report.ok
    with pytest.raises(DatasetError, match=r"lfw\.bin"):
        read_dataset("bin", file)


class Command:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_command_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    file = write(tmp_path, ([Command(f"echo > {marker}"), *photos()[1:]], LABELS))
    with pytest.raises(
        DatasetError, match=r"refused: the pickle would run .*system; nothing was run"
    ):
        read_dataset("bin", file)
    assert not marker.exists()


def test_which_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.bin"):
        read_dataset("bin", tmp_path)
    write(tmp_path, (photos(), LABELS))
    assert read_dataset("bin", tmp_path).name == "lfw"
    write(tmp_path, (photos(), LABELS), "cfp_fp.bin")
    with pytest.raises(DatasetError, match=r"cfp_fp\.bin, lfw\.bin"):
        read_dataset("bin", tmp_path)


@settings(deadline=None)
@given(st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject) -> None:
    whole = pickle.dumps(([b"\xff\xd8 one", np.arange(4, dtype=np.uint8)], [True]), 4)
    place = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:place] + data.draw(st.binary(max_size=4)) + whole[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lfw.bin"
        file.write_bytes(broken)
        validate(read_dataset("bin", file, strict=False))
        with contextlib.suppress(FaceQANError):
            read_dataset("bin", file)


@pytest.mark.parametrize("folder", ["", "IJBC"])
def test_official_layout_ijbc(tmp_path: Path, folder: str) -> None:
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
def test_what_is_wrong_is_named_ijbc(
    tmp_path: Path, name: str, line: int, text: str, kind: str
) -> None:
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
def test_every_encoding_ijbc(tmp_path: Path, place: int) -> None:
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
def test_any_list_is_read_or_refused_ijbc(names: str, media: str, pairs: str) -> None:
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


@pytest.fixture
def some() -> Templates:
    """Nine templates of 60 rows over 50 samples; a sample may be in several."""
    rng = np.random.default_rng(5)
    return Templates(
        names=np.arange(9, dtype=np.int64) * 2,
        template=np.concatenate([np.arange(9), rng.integers(0, 9, 51)]),
        sample=rng.integers(0, 50, 60),
        media=rng.integers(0, 4, 60),
    )


def looped(some: Templates, vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the same, template by template and medium by medium."""
    result = np.full((len(some), vectors.shape[1]), np.nan)
    for template in range(len(some)):
        total = np.zeros(vectors.shape[1])
        for medium in set(some.media[some.template == template]):
            rows = (some.template == template) & (some.media == medium)
            samples = [s for s in some.sample[rows] if np.isfinite(vectors[s]).all()]
            if samples:
                total += np.mean([weights[s] * vectors[s] for s in samples], axis=0)
        if total.any():
            result[template] = total / np.linalg.norm(total)
    return result


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [7, 1000])
def test_embeddings(
    some: Templates, weighted: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "ROWS_AT_ONCE", block)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 6)).astype(np.float32)
    vectors[rng.integers(0, 50, 12)] = np.nan
    vectors[some.sample[some.template == 3]] = np.nan
    weights = rng.uniform(0.1, 1, 50) if weighted else None
    found = some.embed(vectors, weights)
    assert found.dtype == np.float32
    wanted = looped(some, vectors, np.ones(50) if weights is None else weights)
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize(("how", "function"), [("min", min), ("mean", np.mean), ("max", max)])
def test_qualities(some: Templates, how: str, function) -> None:
    values = np.random.default_rng(1).random(50)
    values[::7] = np.nan
    values[some.sample[some.template == 3]] = np.nan
    found = some.quality(values, how)
    for template in range(len(some)):
        own = [v for v in values[some.sample[some.template == template]] if not np.isnan(v)]
        if own:
            assert found[template] == pytest.approx(function(own))
        else:
            assert np.isnan(found[template])
    assert np.isnan(some.quality(np.full(50, np.nan), how)).all()
    with pytest.raises(SettingsError, match="median"):
        some.quality(values, "median")
