"""`filter` on the real command line and real files; the runs' scores are made up."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from faceqan_toolkit.cli import cli
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.results import actions
from faceqan_toolkit.text import path_from_text, path_text, unguard
from faceqan_toolkit.types import Record
from tests.conftest import HANG, SAMPLES, CommandLine
from tests.ledgers import face, photo, tree, write_run
from tests.pausing import pausing, wait_for_pause

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def manifest(path: Path) -> list[dict[str, str]]:
    return rows_of(path.read_text(encoding="utf-8"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three folders of two photos with the run `run`, one of them without a face."""
    root = tmp_path / "photos"
    records = [
        face(root, "ann/1.jpg", 0.9),
        face(root, "ann/2.jpg", 0.5),
        face(root, "bob/1.jpg", 0.7, 0, crop="crops/bob/1.jpg.0.png"),
        face(root, "bob/1.jpg", 0.2, 1, crop="crops/bob/1.jpg.1.png"),
        face(root, "bob/2.jpg", 0.6),
        Record(**photo(root, "eve/1.jpg"), face=None, status="no_face", reason="no face"),
        face(root, "eve/2.jpg", 0.1),
    ]
    write_run(tmp_path / "run", records)
    for index in (0, 1):
        photo(tmp_path / "run" / "crops", f"bob/1.jpg.{index}.png")
    return root


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    folder = memory / f"faceqan-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_list_prints_what_is_kept(command_line: CommandLine, photos: Path, tmp_path: Path) -> None:
    done = command_line("filter", "run", "--min-quality", "0.6")
    assert done.returncode == 0, done.stderr
    kept = [str(photos / name) for name in ("ann/1.jpg", "bob/1.jpg", "bob/2.jpg")]
    assert done.stdout.splitlines() == kept
    assert "6 photos: 3 listed, 3 dropped (2 min-quality, 1 no-score)" in done.stderr
    # the conditions combine, and the worst face may speak
    done = command_line("filter", "run", "--min-quality", "0.6", "--by", "worst", "--keep-top",
                        "50%", "--min-per-identity", "1")  # fmt: skip
    assert done.stdout.splitlines() == [kept[0], kept[2]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]
    # what it prints, this tool reads
    sources = find_photos(["-"], stdin=io.BytesIO(done.stdout.encode()))
    assert [Path(source.place) for source in sources] == [Path(kept[0]), Path(kept[2])]


def test_failures_can_be_listed(command_line: CommandLine, photos: Path) -> None:
    done = command_line("filter", "run", "--drop-status", "ok")
    assert done.stdout.splitlines() == [str(photos / "eve/1.jpg")]
    done = command_line("filter", "run", "--drop-status", "no_face", "--drop-status", "ok")
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("mode", ["copy", "move", "link", "symlink"])
def test_folders_are_kept(
    command_line: CommandLine, photos: Path, tmp_path: Path, mode: str
) -> None:
    before = tree(photos)
    arguments = ("filter", "run", "--to", "out", "--mode", mode, "--per-identity", "1")
    done = command_line(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    kept = {"ann/1.jpg", "bob/1.jpg", "eve/2.jpg"}
    out = tmp_path / "out"
    for name in kept:
        assert (out / name).read_bytes() == before[name]
        assert (out / name).is_symlink() == (mode == "symlink")
        assert (photos / name).exists() == (mode != "move")
    assert set(tree(out)) - kept == {"manifest.csv"}
    rows = manifest(out / "manifest.csv")
    assert [row["decision"] for row in rows].count(mode) == 3
    assert {row["source"] for row in rows} == {str(photos / name) for name in before}
    by_name = {row["source"]: row for row in rows}
    best = by_name[str(photos / "ann/1.jpg")]
    assert (best["destination"], best["quality"]) == (str(out / "ann/1.jpg"), "0.900000")
    failed = by_name[str(photos / "eve/1.jpg")]
    assert (failed["decision"], failed["reason"]) == ("drop", "no_face: no face")
    # again: nothing left to do
    once = tree(out)
    again = command_line(*arguments)
    assert again.returncode == 0, again.stderr
    assert "3 already there" in again.stderr
    assert {**tree(out), "manifest.csv": b""} == {**once, "manifest.csv": b""}
    undone = command_line("filter", "--undo", "out/manifest.csv")
    assert undone.returncode == 0, undone.stderr
    assert tree(photos) == before
    if mode == "move":
        assert "Note:" not in undone.stderr
        assert "6 moves in the manifest: 3 put back, 3 already there" in undone.stderr
        return
    assert {**tree(out), "manifest.csv": b""} == {**once, "manifest.csv": b""}
    assert "Note: 3 files copied or linked by this manifest, not moved: " in undone.stderr
    assert "--undo leaves them where they are and deletes nothing" in undone.stderr
    assert undone.stderr.endswith("0 moves in the manifest\n")


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_files_of_an_earlier_selection_are_told(
    command_line: CommandLine, photos: Path, tmp_path: Path, mode: str
) -> None:
    def stderr(quality: str, *more: str) -> str:
        arguments = ("run", "--to", "out", "--mode", mode, "--min-quality", quality)
        done = command_line("filter", *arguments, *more)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "Note" not in stderr("0.5")
    assert "Note" not in stderr("0.5")
    assert "Note" not in stderr("0.3")
    assert "Note: 2 files of earlier selections still there" in stderr("0.65")
    (tmp_path / "out/bob/2.jpg").unlink()
    assert "Note: 1 file of" in stderr("0.65")
    assert "Note" not in stderr("0.65", "--dry-run")
    assert set(tree(tmp_path / "out")) - {"manifest.csv"} == {
        "ann/1.jpg", "ann/2.jpg", "bob/1.jpg",
    }  # fmt: skip


def test_crops(command_line: CommandLine, photos: Path, tmp_path: Path) -> None:
    arguments = ("filter", "run", "--to", "out", "--what", "crops", "--mode", "move")
    done = command_line(*arguments, "--min-quality", "0.15")
    assert done.returncode == 3, "the run kept few crops"
    assert done.stderr.count("the run kept no crop of it") == 3
    assert set(tree(tmp_path / "out")) == {"bob/1.jpg.0.png", "bob/1.jpg.1.png", "manifest.csv"}
    assert not tree(tmp_path / "run/crops")
    again = command_line(*arguments, "--min-quality", "0.15")
    assert "2 already there" in again.stderr
    assert command_line("filter", "--undo", "out/manifest.csv").returncode == 0
    assert set(tree(tmp_path / "run/crops")) == {"bob/1.jpg.0.png", "bob/1.jpg.1.png"}


def test_a_dry_run_tells_the_same_and_touches_nothing(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    (photos / "ann/1.jpg").write_bytes(b"changed")
    before = tree(tmp_path)
    arguments = ("filter", "run", "--to", "out", "--mode", "move", "--min-quality", "0.5")
    dry = command_line(*arguments, "--dry-run")
    assert dry.returncode == 3
    assert "Nothing was touched" in dry.stderr
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()
    assert command_line(*arguments).returncode == 3
    real = [{**row, "sha256": ""} for row in manifest(tmp_path / "out/manifest.csv")]
    assert rows_of(dry.stdout) == real
    undo = command_line("filter", "--undo", "out/manifest.csv", "--dry-run")
    assert [row["decision"] for row in rows_of(undo.stdout)] == ["back"] * 3
    assert not (photos / "bob/1.jpg").exists()


def test_other_photos_in_the_way_stay(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "out/ann/1.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    done = command_line("filter", "run", "--to", "out", "--mode", "move", "--keep-top", "3")
    assert done.returncode == 3
    assert f"Error: {photos / 'ann/1.jpg'}: another file is there" in done.stderr
    assert "2 moved, 3 dropped (2 keep-top, 1 no-score), 1 errors" in done.stderr
    assert other.read_bytes() == b"mine"
    assert (photos / "ann/1.jpg").exists()
    # what is somebody else's is not put back, even when the photo is gone
    (photos / "ann/1.jpg").unlink()
    assert command_line("filter", "--undo", "out/manifest.csv").returncode == 0
    assert other.read_bytes() == b"mine"
    assert (photos / "bob/1.jpg").exists()


def test_an_equal_file_of_somebody_else_never_costs_the_photo(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "out/ann/1.jpg"
    other.parent.mkdir(parents=True)
    shutil.copy2(photos / "ann/1.jpg", other)
    arguments = ("filter", "run", "--to", "out", "--mode", "move", "--min-quality", "0.9")
    for _ in range(3):
        done = command_line(*arguments)
        assert "1 already there" in done.stderr
        assert (photos / "ann/1.jpg").exists()


def test_a_look_at_undo_changes_nothing(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    arguments = ("filter", "run", "--to", "out", "--mode", "move", "--min-quality", "0.5")
    assert command_line(*arguments).returncode == 0
    file = tmp_path / "out/manifest.csv"
    with file.open("a", encoding="utf-8") as manifest_file:
        manifest_file.write("half a row")
    before = file.read_bytes()
    (tmp_path / "out/.manifest.csv.lock").unlink(missing_ok=True)
    done = command_line("filter", "--undo", "out/manifest.csv", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == before
    assert not (tmp_path / "out/.manifest.csv.lock").exists()


@posix
def test_links_in_the_target_are_no_tracebacks(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/ann").symlink_to("ann")
    done = command_line("filter", "run", "--to", "out", "--mode", "copy", "--min-quality", "0.5")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out/bob/2.jpg").exists()


def test_undo_puts_nothing_over_anything(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    arguments = ("filter", "run", "--to", "out", "--mode", "move", "--min-quality", "0.5")
    assert command_line(*arguments).returncode == 0
    out = tmp_path / "out"
    (out / "ann/1.jpg").write_bytes(b"edited since")
    (out / "ann/2.jpg").unlink()
    (photos / "bob/1.jpg").write_bytes(b"a new one")
    done = command_line("filter", "--undo", "out/manifest.csv")
    assert done.returncode == 3
    assert "ann/1.jpg: what is in its place now is not the file that was moved" in done.stderr
    assert "ann/2.jpg: it is neither where it was nor where it was moved to" in done.stderr
    assert "bob/1.jpg: another file is where it was" in done.stderr
    assert "1 put back, 3 errors" in done.stderr
    assert (out / "ann/1.jpg").read_bytes() == b"edited since"
    assert (photos / "bob/1.jpg").read_bytes() == b"a new one"
    assert (out / "bob/1.jpg").exists()
    assert (photos / "bob/2.jpg").exists()


@posix
def test_names_of_every_kind_and_hostile_ledgers(command_line: CommandLine, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    names = [b"=1+1.jpg", b"new\nline.jpg", b"\xff.jpg", "日本.jpg".encode(), b"100%41.jpg",
             b'say "hi".jpg', b"-x/[1].jpg", b"x" * 240 + b".jpg", b"%2E%2E%2Fa.jpg"]  # fmt: skip
    records = []
    for number, name in enumerate(names):
        known = photo(root, os.fsdecode(name)) | {"path": path_text(os.fsdecode(name))}
        records.append(Record(**known, face=0, status="ok", quality=number / 10))
    outside = photo(tmp_path, "secret.jpg", b"secret")
    for path in ("../secret.jpg", "%2E%2E/secret.jpg", "a/%2E%2E%2F..%2Fsecret.jpg",
                 path_text(tmp_path / "secret.jpg")):  # fmt: skip
        hostile = outside | {"path": path, "root": str(root)}
        records.append(Record(**hostile, face=0, status="ok", quality=0.5))
    crop = dict(photo(root, "crop.jpg"), crop="../../secret.jpg")
    records.append(Record(**crop, face=0, status="ok", quality=0.4))
    write_run(tmp_path / "run", records)
    arguments = ("filter", "run", "--to", "deep/out", "--min-quality", "0", "--mode", "move")
    done = command_line(*arguments)
    assert done.returncode == 3
    assert done.stderr.count("leads out of the folder") == 4
    out = tmp_path / "deep/out"
    moved = {os.fsencode(p.relative_to(out)) for p in out.rglob("*.jpg")}
    assert moved == {*names, b"crop.jpg"}
    assert (tmp_path / "secret.jpg").exists()
    assert not (tmp_path / "deep/secret.jpg").exists()
    for row in manifest(out / "manifest.csv"):
        assert row["source"].startswith("/"), "no spreadsheet runs it"
        if row["decision"] == "move":
            assert os.path.lexists(path_from_text(unguard(row["destination"])))
    assert command_line("filter", "--undo", "deep/out/manifest.csv").returncode == 0
    assert {os.fsencode(p.relative_to(root)) for p in root.rglob("*.jpg")} == moved
    crops = command_line(*arguments, "--what", "crops")
    assert "secret.jpg: its path leads out" in crops.stderr
    assert (tmp_path / "secret.jpg").exists()
    # as a list: a name with a line break needs NUL
    listed = command_line("filter", "run", "--keep-top", "20")
    assert listed.returncode == 3
    told = [line for line in listed.stderr.splitlines() if "line break" in line]
    assert told == [f"Error: {root}/new%0Aline.jpg: its name has a line break; use --null"]
    assert not [line for line in listed.stderr.splitlines() if line.endswith(": ")]
    zero = [sys.executable, "-m", "faceqan_toolkit", "filter", "run", "--keep-top", "20", "-0"]
    raw = subprocess.run(zero, cwd=tmp_path, capture_output=True, check=True, timeout=HANG).stdout
    assert {os.fsencode(root) + b"/" + name for name in names} <= set(raw.split(b"\0"))


@posix
def test_links_in_the_folder_lead_nowhere_else(
    command_line: CommandLine, photos: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/ann").symlink_to(victim)
    done = command_line("filter", "run", "--to", "out", "--mode", "copy", "--keep-top", "9")
    assert done.returncode == 3
    assert list(victim.iterdir()) == []
    assert "ann is a link that leads out of the folder" in done.stderr


@posix
def test_two_names_that_are_one_on_some_file_systems(
    command_line: CommandLine, tmp_path: Path, monkeypatch
) -> None:
    """Both photos would have one destination: as on a file system that knows no upper case."""
    root = tmp_path / "photos"
    records = [face(root, "a.jpg", 0.9), face(root, "A.jpg", 0.8)]
    write_run(tmp_path / "run", records)
    real = actions.place_below
    monkeypatch.setattr(actions, "place_below", lambda folder, path: real(folder, path.lower()))
    command = ("filter", "run", "--to", "out", "--mode", "move", "--keep-top", "5")
    for _ in range(2):
        done = command_line(*command)
        assert done.returncode == 3, done.stderr
        assert "A.jpg: another file is there" in done.stderr
        assert (root / "A.jpg").exists()
        assert (tmp_path / "out/a.jpg").read_bytes() == b"a.jpg" * 20
    # of two equal ones the second stays where it is
    shutil.rmtree(tmp_path / "run")
    twins = [
        Record(**photo(root, name, b"twin"), face=0, status="ok", quality=quality)
        for name, quality in (("b.jpg", 0.5), ("B.jpg", 0.4))
    ]
    write_run(tmp_path / "run", twins)
    done = command_line(*command)
    assert done.returncode == 0, done.stderr
    assert not (root / "b.jpg").exists()
    assert (root / "B.jpg").read_bytes() == b"twin"


def many(tmp_path: Path, number: int) -> dict[str, bytes]:
    root = tmp_path / "photos"
    records = [face(root, f"{n % 7}/{n:04d}.jpg", n / number) for n in range(number)]
    write_run(tmp_path / "run", records)
    return tree(root)


def stopped(tmp_path: Path, number: int, *arguments: str) -> subprocess.Popen[str]:
    """Return a command that has placed so many photos and stopped there."""
    program = pausing(tmp_path, "results.actions:place", number)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}\nfrom faceqan_toolkit.cli import main; main()",
         *arguments],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for_pause(tmp_path, process)
    return process


@posix
@pytest.mark.parametrize("then", ["go on", "undo"])
@pytest.mark.parametrize("where", ["same", "other"])
def test_kill_9_loses_and_doubles_nothing(
    command_line: CommandLine, tmp_path: Path, elsewhere: Path, where: str, then: str
) -> None:
    before = many(tmp_path, 250)
    root, out = tmp_path / "photos", elsewhere if where == "other" else tmp_path / "out"
    arguments = ("filter", "run", "--to", str(out), "--mode", "move", "--min-quality", "0.1")
    process = stopped(tmp_path, 60, *arguments)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    there = {name: content for name, content in tree(out).items() if name.endswith(".jpg")}
    assert len(there) == 60
    assert {**tree(root), **there} == before, "every photo is whole, at one of its places"
    if then == "go on":
        done = command_line(*arguments)
        assert done.returncode == 0, done.stderr
        assert len(tree(root)) == 25
        assert len(tree(out)) == 225 + 1
    undone = command_line("filter", "--undo", out / "manifest.csv")
    assert undone.returncode == 0, undone.stderr
    assert tree(root) == before
    # a copy that was complete when its process died is left: the photo is in its place as well
    assert len(tree(out)) <= (2 if where == "other" and then == "undo" else 1)
    assert not list(out.rglob("*.part"))


@posix
@pytest.mark.parametrize("moment", ["named", "half"])
def test_cut_off_at_the_worst_moment_on_another_file_system(
    command_line: CommandLine, tmp_path: Path, elsewhere: Path, moment: str
) -> None:
    """The process dies when the copy is complete but the photo is there too, or half way."""
    before = many(tmp_path, 3)
    root = tmp_path / "photos"
    arguments = ("filter", "run", "--to", str(elsewhere), "--mode", "move", "--keep-top", "3")
    probe = f"""
import os, sys
from pathlib import Path
from faceqan_toolkit.results import copying
if {moment!r} == "named":
    copying.sync_folder = lambda folder: os._exit(9)
else:
    os.fsync = lambda descriptor, real=os.fsync: (
        os._exit(9) if os.readlink(f"/proc/self/fd/{{descriptor}}").endswith(".part")
        else real(descriptor))
from faceqan_toolkit.cli import main
sys.argv = ["x", *{arguments!r}]
main()
"""
    for _ in range(2):
        died = subprocess.run(
            [sys.executable, "-c", probe], cwd=tmp_path, check=False, timeout=HANG
        )
        assert died.returncode == 9
        assert tree(root) | {n: c for n, c in tree(elsewhere).items() if n in before} == before
    done = command_line(*arguments)
    assert done.returncode == 0, done.stderr
    assert tree(root) == {}
    assert not list(elsewhere.rglob("*.part"))
    assert command_line("filter", "--undo", elsewhere / "manifest.csv").returncode == 0
    assert tree(root) == before


@posix
def test_ctrl_c(command_line: CommandLine, tmp_path: Path) -> None:
    before = many(tmp_path, 100)
    arguments = ("filter", "run", "--to", "out", "--mode", "copy", "--min-quality", "0")
    process = stopped(tmp_path, 20, *arguments)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 130, stderr
    assert "Interrupted; the same command goes on" in stderr
    assert "Traceback" not in stderr
    assert command_line(*arguments).returncode == 0
    assert {n: c for n, c in tree(tmp_path / "out").items() if n != "manifest.csv"} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "say what to keep"),
        (["run", "--mode", "copy", "--keep-top", "1"], "needs --to DIR"),
        (["run", "--keep-top", "many"], "keep-top is many"),
        (["run", "--keep-top", "0"], "at least 1"),
        (["run", "--keep-top", "120%"], "at most 100 %"),
        (["run", "--min-percentile", "-1"], "in 0..100"),
        (["run", "--min-quality", "70"], "no quality reaches 70: it is 1 at most"),
        (["run", "--drop-status", "nope"], "no such status"),
        (["run", "--keep-top", "1", "--mode", "copy", "--to", "x", "-0"], "--null is for"),
        (["photos", "--keep-top", "1"], "no run.json"),
        (["photos/ann/1.jpg", "--keep-top", "1"], "ann/1.jpg is not a run folder"),
        (["nowhere", "--keep-top", "1"], "no run.json"),
        (["run", "--keep-top", "1", "--identity", "last"], "--identity is for --per-identity"),
        (["run", "--per-identity", "1", "--identity", "0"], "identity is 0"),
        (["run", "--per-identity", "1", "--identity", "3"], "no photo of run has an identity"),
        (["run", "--per-identity", "1", "--identity", "who"], "identity is who: it must be first"),
        ([], "give the RUN"),
        (["run", "--undo", "run/run.json"], "the manifest alone"),
        (["--undo", "run/run.json", "--by", "best"], "without --by"),
        (["--undo", "run/run.json"], "not a manifest"),
        (["--undo", "empty.csv"], "empty.csv is empty: it is no manifest"),
        (["--undo", "empty.csv", "--dry-run"], "empty.csv is empty: it is no manifest"),
        (["run", "--keep-top", "1", "--manifest", "run/run.json"], "not a manifest"),
    ],
    ids=str,
)
def test_wrong_usage(photos: Path, arguments: list[str], message: str, monkeypatch) -> None:
    monkeypatch.chdir(photos.parent)
    Path("empty.csv").touch()
    done = CliRunner().invoke(cli, ["filter", *arguments])
    assert done.exit_code in (1, 2)
    assert isinstance(done.exception, SystemExit), "no traceback"
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_a_run_that_was_really_scored(command_line: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut.jpg", "hopper.jpg", "no_face.png"):
        shutil.copy2(SAMPLES / name, folder)
    quick = ("-k", "1", "-l", "1", "--device", "cpu", "--backend", "torch", "--workers", "1")
    assert command_line("align-and-score", folder, "-o", "run", *quick).returncode == 3
    assert json.loads((tmp_path / "run/run.json").read_text())["scale"] is None
    done = command_line("filter", "run", "--to", "out", "--mode", "copy", "--keep-top", "2")
    assert done.returncode == 0, done.stderr
    assert set(tree(tmp_path / "out")) == {"astronaut.jpg", "hopper.jpg", "manifest.csv"}
    done = command_line("filter", "run", "--to", "crops", "--mode", "move", "--what", "crops",
                        "--keep-top", "2")  # fmt: skip
    assert set(tree(tmp_path / "crops")) == {"astronaut.jpg.0.png", "hopper.jpg.0.png",
                                             "manifest.csv"}  # fmt: skip
