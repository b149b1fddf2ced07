"""The file: whole, self-contained, closed to what names may hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.report import page
from faceqan_toolkit.report.page import columns_json, script_json, write_report
from faceqan_toolkit.results.ranking import Column
from tests.conftest import SAMPLES, CommandLine
from tests.report.runs import EVIL, WEIGHTS, face, failed, make_run, mixed_run, write_photo


class Parsed(HTMLParser):
    """Tags, texts of scripts, and everything a browser might load."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._open = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.inside:
            self._open = tag
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.text += " "
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open][-1] += data
        else:
            self.text += data

    def scripts(self, **attributes: str) -> list[str]:
        found = [attrs for tag, attrs in self.tags if tag == "script"]
        wanted = attributes.items()
        return [
            text
            for attrs, text in zip(found, self.inside["script"], strict=True)
            if all(attrs.get(key.rstrip("_")) == value for key, value in wanted)
        ]


def rows_of(file: Path) -> int:
    return sum(json.loads(text)["length"] for text in Parsed(file).scripts(class_="rows"))


def sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_nothing_is_loaded_and_only_our_script_may_run(tmp_path: Path) -> None:
    report = write_report(mixed_run(tmp_path / "run"), tmp_path / "run/report.html")
    assert report.folder is None
    parsed = Parsed(report.file)
    for tag, attributes in parsed.tags:
        assert not set(attributes) & {"src", "srcset", "style", "data", "poster"}, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith("#")
        assert tag not in ("link", "iframe", "object", "embed", "base")
    running = [attributes for tag, attributes in parsed.tags if tag == "script" and not attributes]
    assert len(running) == 1
    kinds = {
        attributes["type"] for tag, attributes in parsed.tags if tag == "script" and attributes
    }
    assert kinds <= {"application/json", "text/plain"}
    policy = next(
        attributes["content"]
        for _, attributes in parsed.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src '{sha256(parsed.inside['script'][-1])}'" in policy
    assert f"style-src '{sha256(parsed.inside['style'][0])}'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    script = parsed.inside["script"][-1]
    for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert risky not in script


def test_the_summary_says_what_the_run_was(tmp_path: Path) -> None:
    text = Parsed(write_report(mixed_run(tmp_path / "run"), tmp_path / "r.html").file).text
    words = " ".join(text.split())
    for expected in (WEIGHTS, "Faces scored 12", "No result 3", "Model sface",
                     "Preset exact", "1 h 2 min", "2026-01-02 03:04 UTC", "12 ok", "1 no_face",
                     "1 unreadable", "1 too_small", "max-side 1600", "torch"):  # fmt: skip
        assert expected in words, expected


def test_hostile_names_of_runs(tmp_path: Path) -> None:
    folder = tmp_path / "<b>run<b> & {{ 7*7 }} \"'"
    try:
        run = make_run(folder, [face("a.jpg", 0.5)])
    except OSError:
        pytest.skip("this file system does not allow such names")
    report = write_report(run, folder / "report.html")
    parsed = Parsed(report.file)
    assert "<b>run<b> & {{ 7*7 }}" in parsed.text
    assert "b" not in {tag for tag, _ in parsed.tags[:20]}
    assert json.loads(parsed.scripts(id="meta")[0])["name"] == folder.name


def test_every_row_is_there_with_the_rankings_values(tmp_path: Path) -> None:
    run = mixed_run(tmp_path / "run")
    (text,) = Parsed(write_report(run, tmp_path / "r.html").file).scripts(class_="rows")
    found = json.loads(text)
    assert found["length"] == 15
    assert set(EVIL) < set(found["path"])
    assert found["path"][0] == EVIL[-1]
    assert found["quality"][:3] == [0.57, 0.56, 0.55]


def photos_run(folder: Path, number: int) -> None:
    records = []
    for n in range(number):
        write_photo(folder / f"photos/{n}.png", (n, 90, 200))
        crop = f"crops/{n}.png.0.png"
        write_photo(folder / "run" / "crops_later" / f"{n}.png", (n, 90, 200), (112, 112))
        records.append(face(f"{n}.png", n / number, str(folder / "photos"), crop=crop))
    (folder / "run/crops_later").rename(folder / "later")
    (folder / "run").rmdir()
    make_run(folder / "run", records)
    (folder / "run/crops").mkdir()
    for n in range(number):
        (folder / f"later/{n}.png").rename(folder / f"run/crops/{n}.png.0.png")


def read(folder: Path):
    from faceqan_toolkit.runs.folder import read_run

    return read_run(folder)


def test_few_pictures_are_in_the_page_and_many_beside_it(tmp_path: Path, monkeypatch) -> None:
    photos_run(tmp_path, 70)
    run, target = read(tmp_path / "run"), tmp_path / "run/report.html"
    small = write_report(run, target)
    assert small.folder is None
    assert not (tmp_path / "run/report-files").exists()
    parsed = Parsed(target)
    assert len(parsed.scripts(type="text/plain")) == 2 + 70

    monkeypatch.setattr(page, "EMBED_FACES", 60)
    large = write_report(run, target)
    assert large.folder == tmp_path / "run/report-files"
    (own,) = large.folder.iterdir()
    assert {file.name for file in own.glob("*.jpg")} == {"sheet-0.jpg", "sheet-1.jpg"}
    assert len(list((own / "photos").iterdir())) == 70
    parsed = Parsed(target)
    assert "report-files" in parsed.text
    assert not "".join(parsed.scripts(type="text/plain"))
    assert target.stat().st_size < 120_000

    monkeypatch.setattr(page, "COPY_PHOTOS", 60)
    write_report(run, target)
    (other,) = large.folder.iterdir()
    assert other != own, "the earlier report's pictures are gone"
    assert not list((other / "photos").iterdir())
    assert json.loads(Parsed(target).scripts(id="meta")[0])["photos"] == "linked"

    for options, sheets in (({"pictures": False}, 0), ({"photos": False}, 2)):
        report = write_report(run, target, **options)
        assert (report.folder is None) is (sheets == 0)
        found = list((tmp_path / "run").rglob("report-files/*/sheet-*.jpg"))
        assert len(found) == sheets
        assert json.loads(Parsed(target).scripts(id="meta")[0])["photos"] == "none"


def test_redacted_reports_have_no_picture(tmp_path: Path) -> None:
    photos_run(tmp_path, 3)
    report = write_report(read(tmp_path / "run"), tmp_path / "r.html", pictures=False)
    text = report.file.read_text(encoding="utf-8")
    assert "/9j/" not in text, "how JPEG begins in base64"
    assert any("img-src 'none'" in str(tag) for _, tag in Parsed(report.file).tags)
    whole = write_report(read(tmp_path / "run"), tmp_path / "r.html")
    assert whole.file.read_text(encoding="utf-8").count("/9j/") == 4


def test_photos_that_have_vanished_are_no_error(tmp_path: Path) -> None:
    photos_run(tmp_path, 3)
    (tmp_path / "photos/1.png").unlink()
    (tmp_path / "run/crops/2.png.0.png").unlink()
    report = write_report(read(tmp_path / "run"), tmp_path / "r.html")
    parsed = Parsed(report.file)
    assert len(parsed.scripts(type="text/plain")) == 1 + 2
    (rows,) = map(json.loads, parsed.scripts(class_="rows"))
    assert rows["has_thumbnail"] == {"all": 1}, "the crop is cut from the photo again"


def test_a_failure_leaves_the_earlier_report(tmp_path: Path, monkeypatch) -> None:
    photos_run(tmp_path, 3)
    run, target = read(tmp_path / "run"), tmp_path / "out/report.html"
    monkeypatch.setattr(page, "EMBED_FACES", 1)
    target.parent.mkdir()
    write_report(run, target)
    before = {file: file.read_bytes() for file in target.parent.rglob("*") if file.is_file()}
    assert len(before) == 5

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "sheet", full)
    with pytest.raises(RunError, match="No space left"):
        write_report(run, target)
    assert {
        file: file.read_bytes() for file in target.parent.rglob("*") if file.is_file()
    } == before
    with pytest.raises(RunError, match=r"cannot write .*nowhere"):
        write_report(run, tmp_path / "nowhere/report.html")


def test_foreign_files_in_the_folder_stay(tmp_path: Path) -> None:
    run = mixed_run(tmp_path / "run")
    (tmp_path / "report-files/mine").mkdir(parents=True)
    (tmp_path / "report-files/deadbeef").mkdir()
    write_report(run, tmp_path / "report.html")
    assert [entry.name for entry in (tmp_path / "report-files").iterdir()] == ["mine"]


def test_more_than_a_page_can_hold_is_a_sample(tmp_path: Path, monkeypatch) -> None:
    records = [face(f"{n:03d}.jpg", n / 100) for n in range(100)]
    records += [failed(f"f{n}.jpg") for n in range(10)]
    run = make_run(tmp_path / "run", records)
    monkeypatch.setattr(page, "FACE_LIMIT", 40)
    monkeypatch.setattr(page, "FAILURE_LIMIT", 5)
    parsed = Parsed(write_report(run, tmp_path / "r.html").file)
    (rows,) = map(json.loads, parsed.scripts(class_="rows"))
    assert rows["rank"] == [*range(1, 101, 3), *[None] * 5]
    words = " ".join(parsed.text.split())
    assert "100 faces, more than a page can hold. One of every 3 is shown" in words
    assert "one of every 2 is listed" in words
    assert "Faces scored 100" in words


def test_rows_come_in_blocks(tmp_path: Path, monkeypatch) -> None:
    run = make_run(tmp_path / "run", [face(f"{n:03d}.jpg", n / 200) for n in range(200)])
    monkeypatch.setattr(page, "BLOCK", 64)
    blocks = Parsed(write_report(run, tmp_path / "r.html").file).scripts(class_="rows")
    assert [json.loads(text)["length"] for text in blocks] == [64, 64, 64, 8]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, ""), (0.2, "1 s"), (61, "1 min 1 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert page._duration(seconds) == text


def test_the_command(command_line: CommandLine, tmp_path: Path) -> None:
    quick = ("-k", "1", "-l", "1", "--device", "cpu", "--backend", "torch", "--workers", "1")
    photos = (SAMPLES / "hopper.jpg", SAMPLES / "corrupt.jpg")
    done = command_line("align-and-score", *photos, "-o", "run", *quick)
    assert f"Written: {Path('run/report.html')}" in done.stderr
    written = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert len(re.findall("/9j/", written)) == 2, "crop and photo"
    done = command_line("report", "run", "-o", "other.html", "--no-photos")
    assert (done.returncode, done.stdout, done.stderr) == (0, "other.html\n", "")
    assert (tmp_path / "other.html").read_text(encoding="utf-8").count("/9j/") == 1
    (tmp_path / "photo.png").write_bytes(b"\x89PNG a photo")
    refused = command_line("report", "run", "-o", "photo.png")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "photo.png is there and is no HTML page; choose another name" in refused.stderr
    assert (tmp_path / "photo.png").read_bytes() == b"\x89PNG a photo"
    done = command_line("report", "run", "--redact")
    assert done.returncode == 0
    assert "/9j/" not in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    done = command_line("report", tmp_path)
    assert done.returncode == 1
    assert "no run.json" in done.stderr
    crops = tmp_path / "run/crops"
    assert command_line("score", crops, "-o", "again", *quick, "--no-report").returncode == 0
    page = tmp_path / "again/report.html"
    assert not page.exists()
    refused = command_line("score", crops, "-o", "again", *quick, "--no-report", "--redact")
    assert refused.returncode == 2
    for arguments in (("score", crops, *quick), ("merge", "again")):
        done = command_line(*arguments, "-o", page.parent.name, "--redact")
        assert done.returncode == 0, done.stderr
        written = page.read_text(encoding="utf-8")
        assert "hopper.jpg" in written
        assert "/9j/" not in written
        page = tmp_path / "merged/report.html"


COLUMNS = [
    Column("text", "text"),
    Column("whole", "integer"),
    Column("number", "number", 6),
    Column("other", "number", 2),
]
HOSTILE = st.sampled_from(["</script>", "<!--", "\u2028", "\u2029", "]]>", "&lt;", "\ud800", "\0"])
texts = st.one_of(st.none(), st.text(), HOSTILE, st.builds(str.__add__, st.text(), HOSTILE))
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.5, 0.25]))
rows_of_values = st.lists(
    st.tuples(texts, st.one_of(st.none(), st.integers(-5, 2**53)), numbers, numbers),
    min_size=1, max_size=40,
)  # fmt: skip


def values(encoded: Any, length: int) -> list[Any]:
    """Return a column's values as docs of `columns_json` say."""
    if isinstance(encoded, list):
        return encoded
    if "all" in encoded:
        return [encoded["all"]] * length
    return [encoded["values"][place] for place in encoded["at"]]


@given(rows_of_values)
def test_every_value_comes_back(rows: list[tuple[Any, ...]]) -> None:
    text = columns_json(COLUMNS, rows, {"more": [n % 2 for n in range(len(rows))]})
    found = json.loads(text)
    assert found["length"] == len(rows)
    decoded = [values(found[column.name], len(rows)) for column in COLUMNS]
    expected = [list(column) for column in zip(*rows, strict=True)]
    assert decoded[0] == expected[0]
    assert decoded[1] == expected[1]
    assert decoded[2] == [None if n is None else float(f"{n:.6f}") for n in expected[2]]
    assert decoded[3] == [None if n is None else float(f"{n:.2f}") for n in expected[3]]
    assert values(found["more"], len(rows)) == [n % 2 for n in range(len(rows))]


@given(rows_of_values)
def test_nothing_ends_the_script_tag(rows: list[tuple[Any, ...]]) -> None:
    for text in (
        columns_json(COLUMNS, rows, {}),
        script_json([list(map(repr, row)) for row in rows]),
    ):
        assert text.isascii()
        assert not set("<>&") & set(text)


def test_repeated_values_are_short() -> None:
    rows = [("no_face" if n % 2 else "unreadable", 3, None, 0.5) for n in range(1000)]
    assert len(columns_json(COLUMNS, rows, {})) < 2300


def test_numbers_that_are_none() -> None:
    rows = [("a", 1, float("nan"), float("inf")), ("b", 2, 0.5, 1e-9)]
    found = json.loads(columns_json(COLUMNS, rows, {}))
    assert found["number"] == [None, 0.5]
    assert found["other"] == [None, 0]
