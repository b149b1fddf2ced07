"""Merged runs against one run of all photos, and what must not be merged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faceqan_toolkit import files
from faceqan_toolkit.errors import RunError
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs import ledger, merging
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, read_run
from faceqan_toolkit.runs.ledger import Ledger
from faceqan_toolkit.runs.merging import check_alike, merge
from faceqan_toolkit.runs.todo import Shard
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.conftest import SAMPLES, CommandLine
from tests.ledgers import tree


def record(path: str, quality: float | None = 0.5, attempt: int = 0, **values) -> Record:
    status = "ok" if quality is not None else "no_face"
    values = {"root": "/photos", "sha256": path, "crop": f"crops/{path}.0.png", **values}
    return Record(path, face=0, status=status, quality=quality, attempt=attempt, **values)


def write(folder: Path, *records: Record, settings: Settings | None = None, **options) -> RunInfo:
    """Write a run with several parts and a crop for each record."""
    with RunWriter(
        folder, settings or Settings(), "weights", {"template": "arcface"}, **options
    ) as run:
        for number, row in enumerate(records, 1):
            run.append([row])
            if number % 3 == 0:
                run.flush()
            crop = folder / row.crop
            crop.parent.mkdir(parents=True, exist_ok=True)
            crop.write_text(f"{folder.name} {row.path} {row.attempt}")
        run.flush()
        run.write_info(Ranking(run.info).counts(), {"photos": len(records)})
    return read_run(folder)


def merged(output: Path, *runs: RunInfo) -> list[dict]:
    """Merge and return the ranking's rows."""
    check_alike(runs)
    with merge(runs, output) as run:
        run.write_info(Ranking(run.info).counts())
    return Ranking(read_run(output)).rows()


def shards(folder: Path, number: int = 3) -> tuple[list[RunInfo], RunInfo]:
    """Return runs of shards, and one of all their photos."""
    records = [record(f"{n // 5}/{n}.jpg", None if n % 4 == 0 else n / 20) for n in range(20)]
    records += [record("0/1.jpg", 0.9, attempt=1), record("1/8.jpg", 0.3, attempt=1)]
    split = [Shard(n, number) for n in range(1, number + 1)]
    found = [
        write(
            folder / f"s{shard.number}",
            *(r for r in records if shard.has(r.path)),
            shard=str(shard),
        )
        for shard in split
    ]
    return found, write(folder / "whole", *records)


def test_shards_are_as_one_run(tmp_path: Path) -> None:
    runs, whole = shards(tmp_path)
    before = tree(tmp_path)
    rows = merged(tmp_path / "merged", *runs)
    assert rows == Ranking(whole).rows()
    assert len(rows) == 20
    after = tree(tmp_path)
    assert {path: after[path] for path in before} == before, "the runs were touched"
    info = read_run(tmp_path / "merged").content
    assert info["counts"] == whole.content["counts"]
    for name in ("identity", "fingerprint", "model", "scale", "settings"):
        assert info[name] == whole.content[name]
    assert info["shard"] is None
    assert [call["run"] for call in info["invocations"]] == ["s1", "s2", "s3"]
    assert sum(call["photos"] for call in info["invocations"]) == 22
    crops = {row["crop"] for row in rows}
    assert {path for path in tree(tmp_path / "merged") if path.startswith("crops")} == crops
    # and once more
    again = {**tree(tmp_path / "merged")}
    assert merged(tmp_path / "merged", *runs) == rows
    assert tree(tmp_path / "merged") == again


def test_what_runs_have_got_since_is_taken_in(tmp_path: Path) -> None:
    runs, _ = shards(tmp_path)
    merged(tmp_path / "merged", *runs)
    write(runs[0].folder, record("new.jpg", 0.99), shard="1/3")
    rows = merged(tmp_path / "merged", read_run(runs[0].folder), *runs[1:])
    assert rows[0]["path"] == "new.jpg"
    assert len(rows) == 21


def test_of_a_photo_in_several_runs_one_counts(tmp_path: Path) -> None:
    """The one named last of those without a failure, with its crop."""
    one = write(tmp_path / "one", record("a", 0.1), record("b", 0.1), record("c", None),
                record("d", None), record("only", 0.8))  # fmt: skip
    two = write(tmp_path / "two", record("a", 0.2), record("b", None), record("c", 0.2),
                record("d", None, reason="two"), record("c", 0.25, attempt=1))  # fmt: skip
    rows = {row["path"]: row for row in merged(tmp_path / "merged", one, two)}
    found = {path: row["quality"] for path, row in rows.items()}
    assert found == {"a": 0.2, "b": 0.1, "c": 0.25, "d": None, "only": 0.8}
    assert rows["d"]["reason"] == "two"
    crops = {path: (tmp_path / "merged" / row["crop"]).read_text() for path, row in rows.items()}
    assert crops == {"a": "two a 0", "b": "one b 0", "c": "two c 1", "d": "two d 0",
                     "only": "one only 0"}  # fmt: skip
    # the other way round
    rows = {row["path"]: row for row in merged(tmp_path / "merged", two, one)}
    assert rows["a"]["quality"] == 0.1
    assert (tmp_path / "merged" / rows["a"]["crop"]).read_text() == "one a 0"


def test_different_photos_by_one_path_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one", record("a.jpg", sha256="1"))
    other = write(tmp_path / "two", record("a.jpg", root="/elsewhere", sha256="2"))
    with pytest.raises(RunError, match="one photo below /elsewhere and another below /photos"):
        merged(tmp_path / "merged", one, other)
    same = write(tmp_path / "three", record("a.jpg", root="/mounted/photos", sha256="1"))
    assert len(merged(tmp_path / "merged", one, same)) == 1


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    one = write(tmp_path / "one", record("a"))
    two = write(tmp_path / "two", record("b"), settings=Settings(copies=3, faces="all"))
    with pytest.raises(RunError, match=r"copies: 10 in \S+one, 3 in \S+two") as raised:
        merged(tmp_path / "merged", one, two)
    assert "faces: largest in" in str(raised.value)
    assert "exponent" not in str(raised.value)
    with pytest.raises(RunError, match="given twice"):
        merged(tmp_path / "merged", one, read_run(tmp_path / "two" / ".." / "one"))
    assert not (tmp_path / "merged").exists()


def test_folders_that_hold_something_are_left_alone(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, record(name)) for name in ("one", "two"))
    with pytest.raises(RunError, match="one of the runs"):
        merged(tmp_path / "one", one, two)
    write(tmp_path / "own", record("a"))
    with pytest.raises(RunError, match="a run of its own"):
        merged(tmp_path / "own", one, two)
    merged(tmp_path / "merged", one, two)
    with pytest.raises(RunError, match=r"also holds what was merged from \S+two; give all of its"):
        merged(tmp_path / "merged", one)
    assert len(Ranking(read_run(tmp_path / "merged")).rows()) == 2
    write(tmp_path / "merged", record("more"))
    with pytest.raises(RunError, match="continued since"):
        merged(tmp_path / "merged", one, two)
    assert len(Ranking(read_run(tmp_path / "merged")).rows()) == 3


def test_a_damaged_run_is_refused(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, record(name)) for name in ("one", "two"))
    (part,) = two.ledger.parts
    part.file.write_bytes(part.file.read_bytes()[:-1])
    with pytest.raises(RunError, match=f"{part.file.name} is damaged"):
        merged(tmp_path / "merged", one, two)
    assert not (tmp_path / "merged").exists()


def test_without_hard_links_everything_is_copied(tmp_path: Path, monkeypatch) -> None:
    runs, whole = shards(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(files.os, "link", refuse)
    for _ in range(2):
        assert merged(tmp_path / "merged", *runs) == Ranking(whole).rows()
        assert all(part.damage() == "" for part in read_run(tmp_path / "merged").ledger.parts)


def test_going_on_with_a_merged_run_does_not_touch_the_others(tmp_path: Path) -> None:
    """Crops are written anew, not over what is linked to."""
    from faceqan_toolkit.pipeline import Pipeline

    folder = tmp_path / "run" / "crops"
    pipeline = Pipeline(Settings(task="align", detector="yunet"), crops_folder=folder)
    (first,) = pipeline.run([SAMPLES / "astronaut.jpg"])
    crop = tmp_path / "run" / first.crop
    linked = tmp_path / "linked.png"
    os.link(crop, linked)
    crop.write_bytes(crop.read_bytes())  # in place
    before = linked.stat().st_mtime_ns
    list(pipeline.run([SAMPLES / "astronaut.jpg"]))
    assert linked.stat().st_mtime_ns == before
    assert not crop.samefile(linked)


class Stop(BaseException):
    """A kill, as near as a test in the same process can have it."""


@pytest.mark.parametrize(
    ("target", "step", "calls"),
    [(Ledger, "take", 6), (Ledger, "clear", 1), (merging, "link_or_copy", 20),
     (merging, "copy_rows", 1), (ledger, "publish", 1), (RunWriter, "write_info", 1)],
)  # fmt: skip
def test_merging_stopped_at_any_step(
    tmp_path: Path, monkeypatch, target, step: str, calls: int
) -> None:
    runs, _ = shards(tmp_path, 2)
    runs.append(write(tmp_path / "more", record("0/1.jpg", 0.95), record("0/2.jpg", 0.96)))
    expected = merged(tmp_path / "expected", *runs)
    real = getattr(target, step)
    for stop_after in {1, calls // 2, calls} - {0}:
        left = stop_after

        def stopping(*arguments, **options):
            nonlocal left
            left -= 1
            result = real(*arguments, **options)
            if left == 0:
                raise Stop
            return result

        with monkeypatch.context() as patched:
            patched.setattr(target, step, stopping)
            with pytest.raises(Stop):
                merged(tmp_path / "merged", *runs)
    assert merged(tmp_path / "merged", *runs) == expected
    one, other = (tree(tmp_path / name) for name in ("merged", "expected"))
    assert one == other


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_shards_on_the_command_line(command_line: CommandLine, tmp_path: Path) -> None:
    """Two shards, merged after a kill, are to the byte what one run is; it can go on."""
    (tmp_path / "photos").mkdir()
    for name in ("astronaut.jpg", "hopper.jpg", "hopper_dark.jpg", "corrupt.jpg", "no_face.png"):
        shutil.copy2(SAMPLES / name, tmp_path / "photos")
    given = ["photos", "--preset", "instant", "--device", "cpu", "--detector", "yunet"]
    for shard in ("1/2", "2/2"):
        done = command_line("align-and-score", *given, "-o", f"s{shard[0]}", "--shard", shard,
                            "--no-report")  # fmt: skip
        assert done.returncode in (0, 3), done.stderr
    whole = command_line("align-and-score", *given, "-o", "whole")
    assert whole.returncode == 3, whole.stderr
    command = [sys.executable, "-m", "faceqan_toolkit", "merge", "s1", "s2", "-o", "merged"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not (tmp_path / "merged/run.json").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = command_line("merge", "s1", "s2", "-o", "merged")
    assert done.returncode == 3, done.stderr
    one, other = tree(tmp_path / "merged"), tree(tmp_path / "whole")
    assert one["rankings.csv"] == other["rankings.csv"]
    assert [path for path in one if path.startswith("crops")] == [
        path for path in other if path.startswith("crops")
    ]
    assert all(one[path] == other[path] for path in one if path.startswith("crops"))
    assert "report.html" in one
    assert not list((tmp_path / "merged").glob(".spill-*/lock"))
    with RunWriter(tmp_path / "killed", read_run(tmp_path / "whole").settings, ""):
        pass  # before its first part
    content = json.loads((tmp_path / "whole/run.json").read_text())
    content |= {"counts": {}, "invocations": []}
    (tmp_path / "killed/run.json").write_text(json.dumps(content))
    done = command_line("merge", "s1", "killed", "s2", "-o", "three")
    assert done.stderr.count("Warning: ") == 1, "a shard may have no photos at all"
    assert "Warning: the last command on killed did not end" in done.stderr
    again = command_line("align-and-score", *given, "-o", "merged", "--no-report")
    assert "5 photos, 5 of them done before" in again.stderr
    assert json.loads((tmp_path / "s1/run.json").read_text())["shard"] == "1/2"
