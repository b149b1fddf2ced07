"""The manifest survives whatever stops its writer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.results.actions import COLUMNS, Entry, Manifest
from faceqan_toolkit.text import path_text

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(path_text)
entries = st.builds(
    Entry,
    names,
    names,
    st.sampled_from(["", "0.500000", "-0.100000"]),
    st.sampled_from(["move", "drop", "error"]),
    st.sampled_from(["", "=HYPERLINK()", "'quoted'", 'say "no", twice']),
    st.sampled_from(["", "ab" * 32]),
)


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(entries, max_size=4), max_size=3), st.data())
def test_cut_anywhere_it_goes_on(tmp_path_factory, batches, data) -> None:
    path = tmp_path_factory.mktemp("m") / "manifest.csv"
    for batch in batches:
        with Manifest(path) as manifest:
            manifest.write(batch)
    written = [entry for batch in batches for entry in batch]
    with Manifest(path) as manifest:
        assert list(manifest.entries()) == written
    content = path.read_bytes()
    assert content.startswith(",".join(COLUMNS).encode())
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = max(0, content[:cut].count(b"\n") - 1)
    last = Entry("s", "d", "", "copy", "", "")
    with Manifest(path) as manifest:
        manifest.write([last])
    with Manifest(path) as manifest:
        assert list(manifest.entries()) == [*written[:whole], last]


def test_what_was_begun_before(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    with Manifest(path) as manifest:
        manifest.write(
            [Entry("/a", "/out/a", "", "move", "", ""), Entry("/b", "", "", "drop", "", "")]
        )
        assert not manifest.has("/a", "/out/a"), "only of earlier processes"
    with Manifest(path) as manifest:
        assert manifest.has("/a", "/out/a")
        assert not manifest.has("/b", "")
        assert not manifest.has("/a", "/out/b")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        Manifest(tmp_path / "m.csv"),
        pytest.raises(RunError, match="another process is writing"),
    ):
        Manifest(tmp_path / "m.csv")
    with Manifest(tmp_path / "m.csv"):
        pass


@pytest.mark.parametrize("content", [b"name,score\na,1\n", b"notes", b"\x00\xff\n", b"\n"])
def test_other_peoples_files_stay(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.csv"
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(RunError, match="not a manifest"):
            Manifest(path)
    assert path.read_bytes() == content


def test_rows_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(",".join(COLUMNS) + "\na,b\n")
    with Manifest(path) as manifest, pytest.raises(RunError, match=r"m.csv, line 2: not a"):
        list(manifest.entries())


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot"):
        Manifest(tmp_path / "file" / "m.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="cannot"):
        Manifest(tmp_path / "folder")
