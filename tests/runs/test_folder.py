"""The run folder: ledger, resume, lock, and everything that may go wrong with a disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs import folder as runs
from faceqan_toolkit.runs import ledger
from faceqan_toolkit.runs.folder import RunWriter, read_run
from faceqan_toolkit.runs.ledger import Ledger
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record

SETTINGS = Settings()


def photo(folder: Path, name: str, content: bytes = b"photo") -> PhotoSource:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return PhotoSource(str(folder), name, LocalFile(folder / name))


def record(source: PhotoSource, status: str = "ok", face: int | None = 0, **values) -> Record:
    import hashlib

    data = Path(source.place).read_bytes()
    return Record(
        path=source.path, root=source.root, face=face, status=status,
        quality=0.5 if status == "ok" else None,
        file_size=len(data), mtime_ns=Path(source.place).stat().st_mtime_ns,
        sha256=hashlib.sha256(data).hexdigest(), **values,
    )  # fmt: skip


def open_run(folder: Path, settings: Settings = SETTINGS, **options) -> RunWriter:
    return RunWriter(folder, settings, "weights", **options)


def rows(folder: Path) -> list[dict]:
    return Ranking(read_run(folder)).rows()


@pytest.fixture
def source(tmp_path: Path) -> PhotoSource:
    return photo(tmp_path / "photos", "a.jpg")


def test_records_come_back(tmp_path: Path, source: PhotoSource) -> None:
    written = record(source, similarity_mean=0.9, confidence=None, crop="crops/a.jpg.0.png")
    with open_run(tmp_path / "run") as run:
        run.append([written])
    (part,) = (tmp_path / "run/records").iterdir()
    assert part.name.startswith("part-000000.")
    (row,) = pq.read_table(part).to_pylist()
    assert Record(**row) == written


def test_parts_follow_time_and_never_split_a_photo(tmp_path: Path, monkeypatch) -> None:
    sources = [photo(tmp_path / "photos", f"{n}.jpg") for n in range(3)]
    monkeypatch.setattr(runs, "FLUSH_RECORDS", 3)
    with open_run(tmp_path / "run") as run:
        for source in sources:
            run.append([record(source, face=0), record(source, face=1)])
    parts = sorted((tmp_path / "run/records").iterdir())
    assert [pq.read_table(part)["path"].to_pylist() for part in parts] == [
        ["0.jpg", "0.jpg", "1.jpg", "1.jpg"],
        ["2.jpg", "2.jpg"],
    ]
    clock = 100.0
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock)
    with open_run(tmp_path / "run") as run:
        run.append([record(photo(tmp_path / "photos", "3.jpg"))])
        assert len(list((tmp_path / "run/records").iterdir())) == 2
        clock += runs.FLUSH_SECONDS
        run.append([record(photo(tmp_path / "photos", "4.jpg"))])
        assert len(list((tmp_path / "run/records").iterdir())) == 3


def test_the_last_attempt_counts(tmp_path: Path, source: PhotoSource) -> None:
    with open_run(tmp_path / "run") as run:
        run.append([record(source, face=0), record(source, face=1)])
    Path(source.place).write_bytes(b"another photo")
    with open_run(tmp_path / "run") as run:
        run.append([record(source, "no_face", None, attempt=1)])
    assert [(row["face"], row["status"]) for row in rows(tmp_path / "run")] == [(None, "no_face")]


def test_other_settings_are_named(tmp_path: Path) -> None:
    with open_run(tmp_path / "run"):
        pass
    with pytest.raises(RunError, match=r"copies: 10 in the run, 3 now"):
        open_run(tmp_path / "run", Settings(copies=3))
    with pytest.raises(RunError, match=r"recognition model: weights in the run, other now"):
        RunWriter(tmp_path / "run", SETTINGS, "other")
    with pytest.raises(RunError, match=r"task: align-and-score in the run, score now"):
        open_run(tmp_path / "run", Settings(task="score"))
    with open_run(tmp_path / "run", Settings(device="cpu", max_pixels=5, keep_crops=False)):
        pass


def test_of_checksums_the_first_digits_are_shown(tmp_path: Path) -> None:
    model, head, other = "a1" * 32, "b2" * 32, "c3" * 32
    instant = Settings(preset="instant")
    with RunWriter(tmp_path / "run", instant, f"{model}+{head}"):
        pass
    expected = {
        ("exact", model): ["  preset: instant in the run, exact now"],
        ("instant", f"{model}+{other}"): [
            "  predictor of preset instant: b2b2b2b2b2b2 in the run, c3c3c3c3c3c3 now"
        ],
        ("exact", other): [
            "  preset: instant in the run, exact now",
            "  weights of the recognition model: a1a1a1a1a1a1 in the run, c3c3c3c3c3c3 now",
        ],
    }
    for (preset, weights), lines in expected.items():
        with pytest.raises(RunError) as refused:
            RunWriter(tmp_path / "run", Settings(preset=preset), weights)
        assert str(refused.value).splitlines()[1:-1] == lines


@pytest.mark.parametrize("written", [False, True])
def test_an_interrupt_of_a_write_doubles_and_loses_nothing(
    written: bool, tmp_path: Path, monkeypatch
) -> None:
    write = Ledger.write

    def interrupted(self: Ledger, tables) -> None:
        if written:
            write(self, tables)
        raise KeyboardInterrupt

    with open_run(tmp_path / "run") as run:
        run.append([record(photo(tmp_path / "photos", "a.jpg"))])
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run.flush()
    assert [row["path"] for row in rows(tmp_path / "run")] == ["a.jpg"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with open_run(tmp_path / "run"), pytest.raises(RunError, match="another process"):
        open_run(tmp_path / "run")
    with open_run(tmp_path / "run"):
        pass


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="not a run folder"):
        open_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="cannot use"):
        open_run(tmp_path / "run")


def test_a_damaged_part_is_moved_aside_and_its_photos_are_done_again(
    tmp_path: Path, source: PhotoSource
) -> None:
    other = photo(tmp_path / "photos", "b.jpg")
    for written in (source, other):
        with open_run(tmp_path / "run") as run:
            run.append([record(written)])
    part, _ = (part.file for part in run.ledger.parts)
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(RunError, match=r"part-000000\.\w+\.parquet is damaged.*run again"):
        rows(tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        (line,) = run.repaired
        assert line.startswith(f"{part} is damaged")
    assert (tmp_path / "run/records/damaged" / part.name).read_bytes()
    assert [row["path"] for row in rows(tmp_path / "run")] == ["b.jpg"]
    with open_run(tmp_path / "run") as run:
        assert run.repaired == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": {}}', '{"settings": 3}'])
def test_a_damaged_description(tmp_path: Path, text: str) -> None:
    with open_run(tmp_path / "run"):
        pass
    (tmp_path / "run/run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        read_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"run\.json"):
        open_run(tmp_path / "run")


def test_a_full_disk_keeps_what_was_written(tmp_path: Path, monkeypatch) -> None:
    first, second = (photo(tmp_path / "photos", name) for name in ("a.jpg", "b.jpg"))
    run = open_run(tmp_path / "run")
    run.append([record(first)])
    run.flush()
    run.append([record(second)])

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "write_part", full)
        with pytest.raises(
            RunError, match="No space left on device; parts written before are safe"
        ):
            run.flush()
    assert len(list((tmp_path / "run/records").iterdir())) == 1
    run.close()  # the disk has room again
    assert {row["path"] for row in rows(tmp_path / "run")} == {"a.jpg", "b.jpg"}


def test_what_a_kill_leaves_behind_does_not_disturb(tmp_path: Path, source: PhotoSource) -> None:
    with open_run(tmp_path / "run") as run:
        run.append([record(source)])
    (tmp_path / "run/records/.part-000001.parquet.77.tmp").write_bytes(b"half a part")
    (tmp_path / "run/.run.json.77.tmp").write_bytes(b"{")
    with open_run(tmp_path / "run") as run:
        run.append([record(photo(tmp_path / "photos", "b.jpg"))])
    assert len(rows(tmp_path / "run")) == 2


def test_run_json_keeps_its_history(tmp_path: Path) -> None:
    for number in range(2):
        with open_run(tmp_path / "run") as run:
            run.write_info({"ok": number}, {"photos": number})
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["invocations"] == [{"photos": 0}, {"photos": 1}]
    assert info["counts"] == {"ok": 1}
    assert info["fingerprint"] == SETTINGS.fingerprint("weights")
    assert "missing" not in info["versions"].values()


def test_a_run_belongs_to_one_shard(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", shard="2/8"):
        pass
    assert json.loads((tmp_path / "run/run.json").read_text())["shard"] == "2/8"
    with open_run(tmp_path / "run", shard="2/8"):
        pass
    with pytest.raises(RunError, match="is for shard 2/8 of the photos, not for shard 1/8"):
        open_run(tmp_path / "run", shard="1/8")
    with pytest.raises(RunError, match="not for all photos"):
        open_run(tmp_path / "run")


@pytest.mark.skipif(os.name == "nt", reason="paths are text on Windows")
def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"run\xff")
    for use in (open_run, read_run):
        with pytest.raises(RunError, match=r"run%FF is no text; choose another"):
            use(folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(preset="fast", landmarks=Path("faces.csv"), detector="mtcnn"),
        Settings(preset="instant"),
        Settings(method="norm", detector="yunet"),
        Settings(method="serfiq", seed=4),
        Settings(task="detect"),
    ],
)
def test_settings_come_back(tmp_path: Path, settings: Settings) -> None:
    with RunWriter(tmp_path / "run", settings, "weights"):
        pass
    assert read_run(tmp_path / "run").settings == settings


@pytest.mark.parametrize("sign", ["settings", "invocations"])
def test_a_refined_run_of_0_1_is_read_but_not_continued(tmp_path: Path, sign: str) -> None:
    with RunWriter(tmp_path / "run", Settings(preset="instant"), "weights"):
        pass
    file = tmp_path / "run/run.json"
    content = json.loads(file.read_text())
    content["settings"] |= {"refine": 0.0, "refine_at": None}
    file.write_text(json.dumps(content))
    with RunWriter(tmp_path / "run", Settings(preset="instant"), "weights"):
        pass  # it was not used
    if sign == "settings":
        content["settings"] |= {"refine": 0.2, "refine_at": 0.5}
    else:
        content["invocations"] = [{"photos": 3, "refined": {"faces": 1}}]
    file.write_text(json.dumps(content))
    assert read_run(tmp_path / "run").settings == Settings(preset="instant")
    with pytest.raises(RunError, match="made with --refine, which is no longer supported"):
        RunWriter(tmp_path / "run", Settings(preset="instant"), "weights")


def test_settings_of_another_version(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", Settings(), "weights"):
        pass
    text = (tmp_path / "run/run.json").read_text()
    (tmp_path / "run/run.json").write_text(text.replace('"exact"', '"thorough"'))
    with pytest.raises(RunError, match="settings of another version: preset is thorough"):
        _ = read_run(tmp_path / "run").settings
