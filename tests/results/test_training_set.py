"""Sets for training, read back by WebDataset, by hand, and by this tool."""

from __future__ import annotations

import csv
import gc
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import PhotoError, RunError
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.photos.recordio import RecordArchive
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.results.actions import Decision, Plan
from faceqan_toolkit.results.filtering import Rules, Selection, decide
from faceqan_toolkit.results.groups import IdentityRule
from faceqan_toolkit.results.training_set import Export, RecordWriter, Sample
from faceqan_toolkit.runs.folder import read_run
from faceqan_toolkit.types import FileState, Record
from tests.conftest import CommandLine
from tests.ledgers import face, tree, write_run
from tests.pausing import pausing, wait_for_pause
from tests.photos.makers import MAGIC, picture, write_tar

AS = ("filter", "run", "--to", "set", "--mode", "copy", "--min-quality", "0.5", "--as")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, bytes]:
    """Two people and a bad photo, with the run `run`; return what is to be kept, by path."""
    root = tmp_path / "photos"
    kept = {}
    records = []
    for number, name in enumerate(
        ["ann/1.jpg", "ann/b.c.jpg", "ann/z/1.png", "bob/2.jpg", "x.jpg"]
    ):
        data = picture(number, "PNG" if name.endswith("png") else "JPEG")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        records.append(face(root, name, 0.9 - number / 100, content=data))
        kept[name] = data
    records.append(face(root, "bob/1.jpg", 0.1))
    write_run(tmp_path / "run", records)
    return kept


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of webdataset
def test_webdataset_reads_the_shards(
    command_line: CommandLine, photos: dict[str, bytes], tmp_path: Path
) -> None:
    wds = pytest.importorskip("webdataset")
    done = command_line(*AS, "webdataset", "--shard-size", "2")
    assert done.returncode == 0, done.stderr
    assert "6 photos: 5 copied, 1 dropped (1 min-quality)" in done.stderr
    shards = sorted(path.name for path in (tmp_path / "set").glob("*.tar"))
    assert shards == [f"shard-{number:06d}.tar" for number in range(3)]
    urls = str(tmp_path / "set" / "shard-{000000..000002}.tar").replace("\\", "/")
    read = list(wds.WebDataset(f"file:{urls}", shardshuffle=False, empty_check=False))
    gc.collect()  # it leaves files open
    by_path = {json.loads(sample["json"])["path"]: sample for sample in read}
    assert {path: sample.get("jpg") or sample["png"] for path, sample in by_path.items()} == photos
    # a person's folder has one label, whatever lies deeper; a photo in no folder has none
    labels = {path: sample.get("cls") for path, sample in by_path.items()}
    assert labels == {
        "ann/1.jpg": b"0",
        "ann/b.c.jpg": b"0",
        "ann/z/1.png": b"0",
        "bob/2.jpg": b"1",
        "x.jpg": None,
    }
    told = "identity = first folder, 2 people; 1 photo without an identity: without a label"
    assert told in done.stderr
    # this tool too: the label is the first folder
    sources = list(find_photos([str(tmp_path / "set/*.tar")]))
    assert sorted(source.content.read()[0] for source in sources) == sorted(photos.values())
    assert {source.path.split(".tar/")[1].rpartition("/")[0] for source in sources} == {
        "00000/ann", "00000/ann/z", "00001/bob", "",
    }  # fmt: skip
    for row in rows(tmp_path / "set/manifest.csv"):
        if row["decision"] == "copy":
            (source,) = find_photos(["-"], stdin=_lines(row["destination"]))
            original = Path(row["source"]).relative_to(tmp_path / "photos").as_posix()
            assert source.content.read()[0] == photos[original]


def _lines(text: str):
    return io.BytesIO(text.encode())


def read_rec(folder: Path) -> dict[int, tuple[list[float], bytes]]:
    """Return labels and photo of each record, as the layout has them."""
    data = (folder / "train.rec").read_bytes()
    found = {}
    for line in (folder / "train.idx").read_text().splitlines():
        key, offset = map(int, line.split("\t"))
        pieces = []
        while True:
            assert offset % 4 == 0
            magic, word = struct.unpack_from("<II", data, offset)
            assert magic == 0xCED7230A
            length = word & (1 << 29) - 1
            pieces.append(data[offset + 8 : offset + 8 + length])
            offset += 8 + (length + 3) // 4 * 4
            if word >> 29 in (0, 3):
                break
        payload = MAGIC.join(pieces)
        flag, label, own, _ = struct.unpack_from("<IfQQ", payload)
        assert own == key
        labels = list(struct.unpack_from(f"<{flag}f", payload, 24)) if flag else [label]
        found[key] = labels, payload[24 + 4 * flag :]
    assert offset == len(data)
    return found


def test_records_follow_the_layout(
    command_line: CommandLine, photos: dict[str, bytes], tmp_path: Path
) -> None:
    done = command_line(*AS, "recordio")
    assert done.returncode == 0, done.stderr
    assert "identity = first folder, 2 people; 1 photo without an identity: dropped" in done.stderr
    assert "4 copied, 2 dropped (1 min-quality, 1 no-identity)" in done.stderr
    found = read_rec(tmp_path / "set")
    in_order = ["ann/1.jpg", "ann/b.c.jpg", "ann/z/1.png", "bob/2.jpg"]
    assert found == {
        0: ([5, 7], b""),
        **{
            key: ([label], photos[name])
            for key, (name, label) in enumerate(zip(in_order, (0, 0, 0, 1), strict=True), 1)
        },
        5: ([1, 4], b""), 6: ([4, 5], b""),
    }  # fmt: skip
    sources = list(find_photos([tmp_path / "set/train.rec"]))
    assert [source.content.read()[0] for source in sources] == [photos[name] for name in in_order]
    assert [source.path.split("/")[-2] for source in sources] == [
        "00000", "00000", "00000", "00001",
    ]  # fmt: skip
    told = {row["destination"] for row in rows(tmp_path / "set/manifest.csv")} - {""}
    assert told == {source.place for source in sources}


@pytest.mark.parametrize("sink", ["webdataset", "recordio"])
def test_sets_from_python(photos: dict[str, bytes], tmp_path: Path, sink: str) -> None:
    run = read_run(tmp_path / "run")
    found = Selection(run, Rules(min_quality=0.3)).export(tmp_path / "set", sink)
    assert found["copy"] == len(photos) - (sink == "recordio")  # one is of no identity


def test_a_person_in_several_shards_has_one_label(tmp_path: Path) -> None:
    """Labels go over all shards and all clips; those of people of whom nothing is kept are none."""
    kept = {
        "t-0.tar/ann/2.jpg": 0, "t-0.tar/eve/clip/1.jpg": 1, "t-1.tar/ann/1.jpg": 0,
        "t-1.tar/eve/1.jpg": 1, "t-1.tar/7.jpg": None,
    }  # fmt: skip
    records = [Record(path, "/p", 0, "ok", quality=0.9) for path in kept]
    records.append(Record("t-0.tar/bob/1.jpg", "/p", 0, "ok", quality=0.1))
    run = write_run(tmp_path / "run", sorted(records, key=lambda record: record.path))
    rules = Rules(min_quality=0.5)
    by_path = {d.path: d.label for d in decide(run, rules, "path", labels=True) if d.kept}
    assert list(by_path.items()) == sorted(kept.items())
    in_records = [(d.label, d.path) for d in decide(run, rules, "identity") if d.kept]
    assert in_records == sorted((label, path) for path, label in kept.items() if label is not None)
    (tmp_path / "who.csv").write_text("path,identity\nt-1.tar/7.jpg,x\nt-0.tar/bob/1.jpg,y\n")
    named = Rules(min_quality=0.5, identity=IdentityRule(table=tmp_path / "who.csv"))
    assert [d.path for d in decide(run, named, "identity") if d.kept] == ["t-1.tar/7.jpg"]


def test_a_set_of_nobody_is_refused(command_line: CommandLine, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [face(tmp_path / "photos", "1.jpg", 0.9)])
    done = command_line(*AS, "recordio")
    assert done.returncode == 1
    assert "no photo of run has an identity (identity = first folder)" in done.stderr
    assert not (tmp_path / "set").exists()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from([MAGIC, b"a", b"bcd", b"e" * 4]), max_size=5), max_size=6))
def test_any_photo_survives_a_record(tmp_path_factory, parts: list[list[bytes]]) -> None:
    folder = tmp_path_factory.getbasetemp()
    writer = RecordWriter(folder / "train.rec", folder / "train.idx")
    data = [b"".join(part) for part in parts]
    names = [
        writer.add(Sample(number, number // 2, "", item, ".jpg", {}))
        for number, item in enumerate(data)
    ]
    writer.finish()
    assert [photo for _, photo in list(read_rec(folder).values())[1 : len(data) + 1]] == data
    archive = RecordArchive(LocalFile(folder / "train.rec"))
    assert [archive.find(name).read()[0] for name in names] == data


@pytest.mark.parametrize("sink", [("webdataset", "--shard-size", "2"), ("recordio",)])
def test_again_changes_nothing(
    command_line: CommandLine, photos: dict[str, bytes], tmp_path: Path, sink: tuple[str, ...]
) -> None:
    dry = command_line(*AS, *sink, "--dry-run")
    assert dry.returncode == 0
    assert len(dry.stdout.splitlines()) == 7
    assert not (tmp_path / "set").exists()
    command_line(*AS, *sink)
    before = tree(tmp_path / "set")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").glob("*.[tri][aed]*")}
    again = command_line(*AS, *sink)
    assert again.returncode == 0
    assert f"{4 if 'recordio' in sink else 5} already there" in again.stderr
    after = tree(tmp_path / "set")
    assert after.pop("manifest.csv") != before.pop("manifest.csv")
    assert after == before
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    # one that is lost is made again, the same
    lost = next(iter(times))
    lost.unlink()
    command_line(*AS, *sink)
    after = tree(tmp_path / "set")
    after.pop("manifest.csv")
    assert after == before
    # another selection, and files that are not ours
    other = command_line("filter", "run", "--to", "set", "--mode", "copy", "--keep-top", "1",
                         "--as", *sink)  # fmt: skip
    assert other.returncode == 1
    assert "another selection" in other.stderr
    (tmp_path / "set/shards.json").unlink()
    assert command_line(*AS, *sink).returncode == 1


@pytest.mark.parametrize("sink", [("webdataset", "--shard-size", "3"), ("recordio",)])
def test_what_cannot_be_read_is_an_error_and_tried_again(
    command_line: CommandLine, photos: dict[str, bytes], tmp_path: Path, sink: tuple[str, ...]
) -> None:
    changed, gone = tmp_path / "photos/ann/1.jpg", tmp_path / "photos/bob/2.jpg"
    changed.write_bytes(picture(77))
    gone.unlink()
    done = command_line(*AS, *sink)
    assert done.returncode == 3
    assert "changed since it was scored" in done.stderr
    assert "no such file" in done.stderr
    assert f"{2 if 'recordio' in sink else 3} copied" in done.stderr
    changed.write_bytes(photos["ann/1.jpg"])
    gone.write_bytes(photos["bob/2.jpg"])
    done = command_line(*AS, *sink)
    assert done.returncode == 0, done.stderr
    (tmp_path / "set").rename(tmp_path / "mended")
    command_line(*AS, *sink)
    for name, data in tree(tmp_path / "set").items():
        assert name == "manifest.csv" or data == (tmp_path / "mended" / name).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
@pytest.mark.parametrize("sink", [("webdataset", "--shard-size", "40"), ("recordio",)])
def test_kill_9_leaves_no_half_shard(
    command_line: CommandLine, tmp_path: Path, sink: tuple[str, ...]
) -> None:
    records = [face(tmp_path / "photos", f"{n % 9}/{n:04d}.jpg", 0.9) for n in range(300)]
    write_run(tmp_path / "run", sorted(records, key=lambda record: record.path))
    program = pausing(tmp_path, "results.training_set:_sample", 150)
    program += "\nfrom faceqan_toolkit.cli import main; main()"
    running = subprocess.Popen([sys.executable, "-c", program, *AS, *sink], cwd=tmp_path)
    wait_for_pause(tmp_path, running)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert "manifest.csv" in tree(tmp_path / "set")
    assert command_line(*AS, *sink).returncode == 0
    found = tree(tmp_path / "set")
    (tmp_path / "set").rename(tmp_path / "interrupted")
    assert command_line(*AS, *sink).returncode == 0
    expected = tree(tmp_path / "set")
    assert found.keys() == expected.keys()
    assert len(found) > 2
    assert all(found[name] == expected[name] for name in found if name != "manifest.csv")
    hidden = [path.name for path in (tmp_path / "interrupted").glob(".*.tmp")]
    assert hidden == []


def decisions(root: Path, kept: int, dropped: int) -> Iterator[Decision]:
    """Yield so many photos that are kept, and behind each so many that are not."""
    for number in range(kept):
        path = root / f"{number}.jpg"
        if not path.exists():
            path.write_bytes(picture(number))
        data = path.read_bytes()
        state = FileState(len(data), path.stat().st_mtime_ns, hashlib.sha256(data).hexdigest())
        yield Decision(str(root), path.name, "", 0.9, "", "", state, 0)
        for other in range(dropped):
            name = f"{number}/{other}.jpg"
            yield Decision(str(root), name, "", 0.1, "min-quality", f"{other}", state)


@pytest.mark.slow
@pytest.mark.parametrize("sink", ["webdataset", "recordio"])
def test_what_is_dropped_is_not_held(tmp_path: Path, sink: str) -> None:
    plan = Plan(tmp_path, "copy", "photos", tmp_path / "set")
    export = Export(lambda: decisions(tmp_path, 3, 5000), plan, sink, 2)
    tracemalloc.start()
    try:
        found = [outcome.source.removeprefix(f"{tmp_path}/") for outcome in export.outcomes()]
        peak = tracemalloc.get_traced_memory()[1]
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert found == [decision.path for decision in decisions(tmp_path, 3, 5000)]  # and in order
    assert peak - held < 1_500_000  # a batch; all that are dropped would be 5 MB and more


def test_a_run_that_grows_meanwhile_is_told(tmp_path: Path) -> None:
    counts = iter((2, 3))
    plan = Plan(tmp_path, "copy", "photos", tmp_path / "set")
    export = Export(lambda: decisions(tmp_path, next(counts), 0), plan, "webdataset", 2)
    with pytest.raises(RunError, match="changed during the export"):
        list(export.outcomes())


@pytest.mark.parametrize("sink", ["webdataset", "recordio"])
def test_a_run_that_changes_meanwhile_makes_no_set(tmp_path: Path, sink: str) -> None:
    counts = iter((3, 2))
    plan = Plan(tmp_path, "copy", "photos", tmp_path / "set")
    export = Export(lambda: decisions(tmp_path, next(counts), 1), plan, sink)
    with pytest.raises(RunError, match="changed during the export"):
        list(export.outcomes())
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["shards.json"]
    export.decide = lambda: decisions(tmp_path, 3, 1)
    assert sum(outcome.entry.decision == "copy" for outcome in export.outcomes()) == 3


def archived(tmp_path: Path) -> dict[str, bytes]:
    """Make a tar with a run of it; return its photos."""
    photos = {f"{who}/{number}.jpg": picture(number) for who in "ab" for number in range(3)}
    tar = write_tar(tmp_path / "photos.tar", photos)
    records = []
    for number, source in enumerate(find_photos([tar])):
        data, state = source.content.read()
        values = {"file_size": state.size, "mtime_ns": state.mtime_ns}
        records.append(
            Record(source.path, source.root, 0, "ok", quality=0.9 - number / 10,
                   sha256=hashlib.sha256(data).hexdigest(), **values)
        )  # fmt: skip
    records.append(Record(str(tar)[1:], "/", None, "unreadable", reason="left out 1"))
    write_run(tmp_path / "run", records)
    return photos


@pytest.mark.skipif(os.name == "nt", reason="roots are POSIX ones")
def test_archives_are_sources(command_line: CommandLine, tmp_path: Path) -> None:
    photos = archived(tmp_path)
    listed = command_line("filter", "run", "--per-identity", "1").stdout.splitlines()
    assert listed == [f"{tmp_path}/photos.tar/{name}" for name in ("a/0.jpg", "b/0.jpg")]
    copy = ("filter", "run", "--keep-top", "6", "--to", "out", "--mode", "copy")
    for report in ("6 copied", "6 already there"):
        done = command_line(*copy)
        assert done.returncode == 0, done.stderr
        assert report in done.stderr
    below = tmp_path / "out" / str(tmp_path / "photos.tar")[1:]
    assert tree(below) == photos
    (below / "a/0.jpg").write_bytes(b"mine")
    done = command_line(*copy)
    assert done.returncode == 3
    assert "another file is there" in done.stderr
    assert (below / "a/0.jpg").read_bytes() == b"mine"
    for mode in ("move", "link", "symlink"):
        done = command_line("filter", "run", "--keep-top", "6", "--to", "no", "--mode", mode)
        assert done.returncode == 3
        assert f"only copy takes it, not {mode}" in done.stderr
    # the row of the archive itself is no reason to take it away
    done = command_line("filter", "run", "--drop-status", "ok", "--to", "bad", "--mode", "move")
    assert done.returncode == 3
    assert "an archive, which stays where it is" in done.stderr
    assert (tmp_path / "photos.tar").exists()
    done = command_line("filter", "run", "--keep-top", "6", "--to", "set", "--mode", "copy",
                        "--as", "recordio")  # fmt: skip
    assert done.returncode == 0, done.stderr
    sources = list(find_photos([tmp_path / "set/train.rec"]))
    assert [source.content.read()[0] for source in sources] == list(photos.values())


def test_the_best_of_each_window(command_line: CommandLine, tmp_path: Path) -> None:
    root, qualities = tmp_path / "photos", [0.1, 0.5, 0.3, 0.9, 0.95, 0.2]
    records = [
        face(root, f"{clip}/{25 * second:08d}-{second:.3f}s.png", quality + clip / 1000)
        for clip in (1, 2)
        for second, quality in enumerate(qualities)
    ]
    write_run(tmp_path / "run", [*records, face(root, "1/no_frame.png", 0.01)])
    done = command_line("filter", "run", "--per-window", "3")
    found = {line.removeprefix(f"{root}/") for line in done.stdout.splitlines()}
    assert found == {
        "1/00000025-1.000s.png", "1/00000100-4.000s.png",
        "2/00000025-1.000s.png", "2/00000100-4.000s.png", "1/no_frame.png",
    }  # fmt: skip
    assert "8 per-window" in done.stderr
    assert command_line("filter", "run", "--per-window", "0").returncode == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--mode", "move", "--as", "recordio"), "needs --mode copy"),
        (("--mode", "copy", "--shard-size", "3"), "--shard-size is for"),
        (("--mode", "copy", "--as", "recordio", "--shard-size", "3"), "--shard-size is for"),
        (("--mode", "copy", "--as", "webdataset", "--shard-size", "0"), "at least 1"),
    ],
)
def test_options_that_make_no_sense(
    command_line: CommandLine, photos: dict[str, bytes], options: tuple[str, ...], reason: str
) -> None:
    done = command_line("filter", "run", "--keep-top", "1", "--to", "set", *options)
    assert done.returncode == 2
    assert reason in done.stderr


@pytest.mark.parametrize("text", ["[]", "[" * 100_000])
def test_a_damaged_list_of_shards(
    command_line: CommandLine, photos, tmp_path: Path, text: str
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/shards.json").write_text(text)
    done = command_line(*AS, "recordio")
    assert done.returncode == 1
    assert "shards.json cannot be read" in done.stderr
    with pytest.raises(PhotoError):
        RecordArchive(LocalFile(tmp_path / "set/train.rec")).find("00000/00000001.jpg")
