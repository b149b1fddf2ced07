"""What is to do: the rules one by one, repeated photos against a dictionary, little memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.photos.find import find_photos, stream_photos
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.runs import ledger
from faceqan_toolkit.runs.folder import RunWriter
from faceqan_toolkit.runs.todo import HEALABLE, Shard, Todo
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record
from tests.runs.test_folder import open_run, photo, record


@pytest.fixture
def source(tmp_path: Path) -> PhotoSource:
    return photo(tmp_path / "photos", "a.jpg")


def todo(folder: Path, *sources: PhotoSource, retry: bool = False) -> list[PhotoSource]:
    with Todo(folder, sources) as found, open_run(folder) as run:
        found.compare(run, retry_failed=retry)
        listed = list(found)
        assert len(listed) == len(found)
        assert found.asked >= len(listed)
        return listed


def write(folder: Path, *records: Record) -> None:
    with open_run(folder) as run:
        run.append([*records])


def test_a_new_run_has_everything_to_do(tmp_path: Path) -> None:
    sources = [photo(tmp_path / "photos", f"{n}.jpg") for n in (3, 1, 2)]
    assert todo(tmp_path / "run", *sources) == sources
    assert todo(tmp_path / "run") == []


@pytest.mark.parametrize("status", ["ok", "no_face", "unreadable", *sorted(HEALABLE)])
@pytest.mark.parametrize("retry", [False, True])
def test_what_is_tried_again(tmp_path: Path, source: PhotoSource, status: str, retry: bool) -> None:
    write(tmp_path / "run", record(source, status))
    again = todo(tmp_path / "run", source, retry=retry)
    assert bool(again) == (status in HEALABLE or (retry and status != "ok"))
    assert all(photo.attempt == 1 for photo in again)


def test_a_photo_with_one_failed_face_counts_as_failed(tmp_path: Path, source: PhotoSource) -> None:
    faces = (record(source), record(source, "unalignable", 1), record(source, face=2))
    write(tmp_path / "run", *faces)
    assert todo(tmp_path / "run", source, retry=True)
    assert not todo(tmp_path / "run", source)


def test_changed_photos_are_done_again(tmp_path: Path, source: PhotoSource) -> None:
    write(tmp_path / "run", record(source, landmarks_id="one"))

    def pending(landmarks_id: str = "one") -> bool:
        with Todo(tmp_path / "run", [source]) as found, open_run(tmp_path / "run") as run:
            found.compare(run, lambda _: landmarks_id)
            return len(found) == 1

    file = source.content.file
    assert not pending()
    assert pending("two")
    os.utime(file, ns=(1, 1))
    assert not pending(), "touched, but the same"
    file.write_bytes(b"p h o t o")
    assert pending(), "another size"
    file.write_bytes(b"other")
    assert pending(), "the same size"
    file.unlink()
    assert pending()


def test_the_last_attempt_decides(tmp_path: Path, source: PhotoSource) -> None:
    write(tmp_path / "run", record(source))
    for attempt in (1, 2):
        write(tmp_path / "run", record(source, "no_face", None, attempt=attempt))
    (again,) = todo(tmp_path / "run", source, retry=True)
    assert again.attempt == 3
    write(tmp_path / "run", record(source, attempt=3))
    assert not todo(tmp_path / "run", source, retry=True)


def test_another_root_with_the_same_path(tmp_path: Path, source: PhotoSource) -> None:
    write(tmp_path / "run", record(source))
    other = photo(tmp_path / "elsewhere", "a.jpg", b"someone else")
    with pytest.raises(RunError, match="common parent"):
        todo(tmp_path / "run", other)
    # the folder was moved
    moved = photo(tmp_path / "moved", "a.jpg")
    os.utime(moved.content.file, ns=(source.content.file.stat().st_mtime_ns,) * 2)
    assert not todo(tmp_path / "run", moved)
    source.content.file.unlink()
    assert todo(tmp_path / "run", other)


def test_photos_of_a_damaged_part_are_to_do(tmp_path: Path, source: PhotoSource) -> None:
    other = photo(tmp_path / "photos", "b.jpg")
    write(tmp_path / "run", record(source))
    write(tmp_path / "run", record(other))
    with open_run(tmp_path / "run") as run:
        part = run.ledger.parts[0].file
    part.write_bytes(part.read_bytes()[:100])
    assert todo(tmp_path / "run", source, other) == [source]


ROOTS = st.sampled_from(["", "c", "c/d", "other"])


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(ROOTS, st.sampled_from(["a", "b", "c/a", "d/a", "c/d/a"])), max_size=8))
def test_photos_given_twice_and_paths_of_two_photos(
    tmp_path_factory, given_: list[tuple[str, str]]
) -> None:
    """As a dictionary of all paths and places finds them."""
    folder = tmp_path_factory.mktemp("t")
    sources = []
    for below, path in given_:
        root = folder / below
        sources.append(PhotoSource(root.as_posix(), path, LocalFile(root / path)))
    expected: dict[Path, PhotoSource] = {}
    for source in sources:
        expected.setdefault(Path(source.place), source)
    paths = [source.path for source in expected.values()]
    if len(set(paths)) == len(paths):
        with Todo(folder / "run", sources) as found, open_run(folder / "run") as run:
            found.compare(run)
            assert list(found) == list(expected.values())
    else:
        with pytest.raises(SettingsError, match="give a common parent folder"):
            Todo(folder / "run", sources)
        assert not (folder / "run").exists()


def test_the_command_line_takes_photos_as_python_does(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.jpg", "sub/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    inputs = [folder, folder / "a.jpg", folder / "sub", f"{folder}/*.jpg"]
    assert len(list(stream_photos(inputs))) == 7
    assert todo(tmp_path / "run", *stream_photos(inputs)) == list(find_photos(inputs))


def test_input_that_cannot_be_found_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        Todo(tmp_path / "new" / "run", stream_photos([tmp_path / "nothing"]))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    with pytest.raises(SettingsError, match="no such file"):
        Todo(tmp_path / "run", stream_photos([tmp_path / "nothing"]))
    assert list((tmp_path / "run").iterdir()) == []


NUMBER = 80_000


def made_up() -> Iterator[PhotoSource]:
    for number in range(NUMBER):
        path = f"{number // 100:06d}/{'long' * 20}{number:08d}.jpg"
        yield PhotoSource("/photos", path, LocalFile(Path("/photos") / path))


@pytest.mark.slow
def test_neither_photos_nor_ledger_have_to_fit_into_memory(tmp_path: Path, monkeypatch) -> None:
    """DuckDB has less memory than the photos take."""
    monkeypatch.setattr(ledger, "_memory", lambda: 40_000_000)
    monkeypatch.setattr(ledger, "usable_cores", lambda: 1)
    with RunWriter(tmp_path / "run", Settings(), "weights") as run:
        for source in made_up():
            if int(source.path[-12:-4]) % 2:
                run.append([Record(source.path, source.root, None, "missing")])
    with Todo(tmp_path / "run", made_up()) as found, open_run(tmp_path / "run") as run:
        found.compare(run)
        assert found.asked == len(found) == NUMBER
        attempts = [source.attempt for source in found]
    assert attempts == [0, 1] * (NUMBER // 2)


@given(st.text(max_size=30), st.integers(1, 50))
def test_every_photo_is_in_one_shard(path: str, total: int) -> None:
    assert sum(Shard(number, total).has(path) for number in range(1, total + 1)) == 1


def test_shards_are_about_equal() -> None:
    counts = [
        sum(Shard(number, 8).has(f"person/{photo}.jpg") for photo in range(8000))
        for number in range(1, 9)
    ]
    assert all(900 < count < 1100 for count in counts)


def test_the_split_stays_as_it_is() -> None:
    """Machines with other versions must agree."""
    found = "".join(
        str(next(number for number in range(1, 5) if Shard(number, 4).has(f"{letter}.jpg")))
        for letter in "abcdefghé"
    )
    assert found == "233434121"


@pytest.mark.parametrize(
    ("text", "message"),
    [("0/4", "1..4"), ("5/4", "1..4"), ("1/0", "1..0"), ("1", "2/8"), ("a/b", "2/8"), ("", "2/8"),
     ("-1/4", "2/8"), ("1/4/2", "2/8")],
)  # fmt: skip
def test_what_is_no_shard(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Shard.parse(text)


def test_text() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"
