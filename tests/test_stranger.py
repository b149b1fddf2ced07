"""A run folder that a stranger made: what it names, holds and links to does no harm."""

from __future__ import annotations

import copy
import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faceqan_toolkit.cli import cli
from faceqan_toolkit.errors import FaceQANError, PhotoError, RunError, SettingsError
from faceqan_toolkit.evaluation.run_faces import crop_files, read_run_faces
from faceqan_toolkit.files import is_inside, replacing
from faceqan_toolkit.photos.find import locate_recorded
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.report.pictures import Pictures
from faceqan_toolkit.results.crops import RunCrops
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, parse_run_json, read_run
from faceqan_toolkit.runs.ledger import SCHEMA, Ledger, as_table
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Record
from tests.conftest import SAMPLES
from tests.ledgers import face, photo, tree, write_run
from tests.report.runs import face as shown_face
from tests.report.runs import make_run, write_photo

posix = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


def run_cli(*arguments: str | Path) -> Result:
    """Run a command in this process; nothing but an exit may come out of it."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A photo that nobody gave to a run."""
    write_photo(tmp_path / "home/secret.png", (200, 30, 60), (112, 112))
    return tmp_path / "home/secret.png"


def theirs(tmp_path: Path, secret: Path, **values: object) -> RunInfo:
    """Return a run whose ledger names the secret photo."""
    row = shown_face("secret.png", 0.5, str(secret.parent))
    return make_run(tmp_path / "run", [replace(row, **values)])


class TestPhotosElsewhere:
    def test_with_its_content_known_it_is_shown(self, tmp_path: Path, secret: Path) -> None:
        run = theirs(tmp_path, secret)
        assert Pictures(run, cut=True).photo(next(rows(run))) is not None

    @pytest.mark.parametrize("sha256", ["", "0" * 64])
    def test_otherwise_not(self, tmp_path: Path, secret: Path, sha256: str) -> None:
        run = theirs(tmp_path, secret, sha256=sha256)
        (row,) = rows(run)
        assert Pictures(run, cut=True).photo(row) is None
        with pytest.raises(PhotoError, match="changed"):
            RunCrops(run).crop(row)
        done = run_cli("report", tmp_path / "run")
        assert done.exit_code == 0, done.output
        page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
        assert 'id="photo-' not in page
        assert 'id="sheet-' not in page

    @pytest.mark.parametrize("mode", ["copy", "move", "link", "symlink"])
    @pytest.mark.parametrize(
        "state", [(None, None, ""), (5, 5, ""), (None, None, "0" * 64)], ids=str
    )
    def test_filter_takes_nothing_that_the_run_has_not_read(
        self, tmp_path: Path, mode: str, state: tuple[int | None, int | None, str]
    ) -> None:
        root = tmp_path / "home"
        photo(root, "id_rsa", b"secret")
        size, mtime, sha256 = state
        record = Record("id_rsa", str(root), 0, "ok", quality=0.9, file_size=size, mtime_ns=mtime,
                        sha256=sha256)  # fmt: skip
        write_run(tmp_path / "run", [record])
        done = run_cli("filter", tmp_path / "run", "--mode", mode, "--to", tmp_path / "kept",
                       "--min-quality", "0.1")  # fmt: skip
        assert done.exit_code == 3, done.output
        assert set(tree(tmp_path / "kept")) == {"manifest.csv"}
        assert (root / "id_rsa").read_bytes() == b"secret"

    @pytest.mark.parametrize("sink", ["webdataset", "recordio"])
    def test_neither_do_sets_for_training(self, tmp_path: Path, sink: str) -> None:
        root = tmp_path / "home"
        state = photo(root, "ann/secret.jpg", b"secret")
        record = Record(**{**state, "sha256": ""}, face=0, status="ok", quality=0.9)
        write_run(tmp_path / "run", [record])
        done = run_cli("filter", tmp_path / "run", "--mode", "copy", "--to", tmp_path / "kept",
                       "--min-quality", "0.1", "--as", sink)  # fmt: skip
        assert done.exit_code == 3, done.output
        for path in (tmp_path / "kept").iterdir():
            assert b"secret" not in path.read_bytes().replace(b"secret.jpg", b"")

    @pytest.mark.parametrize(
        "path", ["../home/a.jpg", "/etc/passwd", "x/../../home/a.jpg", "..%2Fa"]
    )
    def test_filter_writes_nothing_outside(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "photos").mkdir()
        record = face(tmp_path / "photos", "a.jpg", 0.9)
        write_run(tmp_path / "run", [replace(record, path=path)])
        before = tree(tmp_path)
        done = run_cli("filter", tmp_path / "run", "--mode", "copy", "--to", tmp_path / "kept",
                       "--min-quality", "0.1")  # fmt: skip
        assert done.exit_code == 3, done.output
        assert set(tree(tmp_path)) == {*before, "kept/manifest.csv"}

    @pytest.mark.parametrize(
        "root", ["https://127.0.0.1:1/x", "s3://bucket", "file:///etc", "memory://x"]
    )
    def test_other_machines_are_not_asked(self, root: str, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "fsspec", None)
        monkeypatch.setitem(sys.modules, "fsspec.core", None)
        content = locate_recorded(root, "a.jpg").content
        for ask in (content.state, content.read):
            with pytest.raises(PhotoError, match=r"another machine.*--fetch"):
                ask()

    def test_unless_they_are_to_be(self, tmp_path: Path) -> None:
        fsspec = pytest.importorskip("fsspec")
        data = (SAMPLES / "hopper.jpg").read_bytes()
        with fsspec.open("memory://stranger/a.jpg", "wb") as file:
            file.write(data)
        found = locate_recorded("memory://stranger", "a.jpg", fetch=True).content.read()[0]
        assert found == data

    def test_its_limit_in_pixels_is_not_ours(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", [])
        change(run, lambda content: content["settings"].update(max_pixels=10**12))
        assert RunCrops(read_run(run.folder)).max_pixels == Settings().max_pixels


@posix
class TestLinks:
    @pytest.mark.parametrize("kind", ["absolute", "upwards", "link", "linked folder", "missing"])
    def test_crops_elsewhere(self, tmp_path: Path, secret: Path, kind: str) -> None:
        crops = tmp_path / "run/crops"
        names = {"absolute": str(secret), "upwards": "crops/../../home/secret.png",
                 "link": "crops/a.png", "linked folder": "crops/sub/secret.png",
                 "missing": "crops/../../nowhere.png"}  # fmt: skip
        run = theirs(tmp_path, secret, crop=names[kind], sha256="0" * 64, nose_x=None)
        crops.mkdir()
        (crops / "a.png").symlink_to(secret)
        (crops / "sub").symlink_to(secret.parent)
        (row,) = rows(run)
        with pytest.raises(PhotoError):
            RunCrops(run).crop(row)
        assert crop_files(None, read_run_faces(run.folder)) == [None]  # type: ignore[arg-type]
        for mode in ("list", "copy", "move", "link", "symlink"):
            to = () if mode == "list" else ("--to", tmp_path / "kept")
            conditions = ("--what", "crops", "--min-quality", "0.1")
            done = run_cli("filter", run.folder, *conditions, "--mode", mode, *to)
            assert done.exit_code == 3, done.output
        assert set(tree(tmp_path / "kept")) == {"manifest.csv"}
        assert secret.is_file()

    @pytest.mark.parametrize("name", [".lock", "records", "crops"])
    def test_a_run_does_not_go_on_in_a_folder_of_links(self, tmp_path: Path, name: str) -> None:
        run = make_run(tmp_path / "run", [])
        outside = tmp_path / "outside"
        if name == ".lock":
            outside.write_text("precious")
        else:
            outside.mkdir()
        place = run.folder / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.symlink_to(outside)
        before = tree(tmp_path)
        with pytest.raises(RunError, match="is a link"):
            RunWriter(run.folder, Settings(), "0123456789abcdef" * 4)
        assert tree(tmp_path) == before

    def test_crops_are_not_written_through_links(self, tmp_path: Path) -> None:
        (tmp_path / "photos/sub").mkdir(parents=True)
        for path in ("photos/sub/a.jpg", "photos/b.jpg"):
            shutil.copy(SAMPLES / "hopper.jpg", tmp_path / path)
        outside, crops = tmp_path / "outside", tmp_path / "run/crops"
        outside.mkdir()
        crops.mkdir(parents=True)
        (outside / "precious").write_text("precious")
        (crops / "b.jpg.0.png").symlink_to(outside / "precious")
        pipeline = Pipeline(Settings(task="align", device="cpu"), crops_folder=crops)
        (record,) = pipeline.run([tmp_path / "photos/b.jpg"])
        assert (outside / "precious").read_text() == "precious"
        assert not (tmp_path / "run" / record.crop).is_symlink()
        (crops / "sub").symlink_to(outside)
        with pytest.raises(RunError, match="leads out"):
            list(pipeline.run([tmp_path / "photos"]))
        assert set(tree(outside)) == {"precious"}

    def test_the_reports_folder(self, tmp_path: Path, secret: Path) -> None:
        run = theirs(tmp_path, secret)
        (tmp_path / "outside/0123abcd").mkdir(parents=True)
        (tmp_path / "outside/0123abcd/precious").write_text("precious")
        (run.folder / "report-files").symlink_to(tmp_path / "outside")
        done = run_cli("report", run.folder)
        assert done.exit_code == 1
        assert "is a link" in done.output
        assert (tmp_path / "outside/0123abcd/precious").is_file()

    def test_results_take_the_place_of_links(self, tmp_path: Path, secret: Path) -> None:
        run = theirs(tmp_path, secret)
        precious = tmp_path / "precious"
        precious.write_text("precious")
        for name in ("rankings.csv", "report.html", f".rankings.csv.{os.getpid()}.tmp"):
            (run.folder / name).symlink_to(precious)
        assert run_cli("rank", run.folder, "--format", "csv").exit_code == 0
        assert run_cli("report", run.folder).exit_code == 0
        assert precious.read_text() == "precious"
        assert not (run.folder / "rankings.csv").is_symlink()

    def test_a_temporary_name_that_is_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("precious")
        (tmp_path / f".a.txt.{os.getpid()}.tmp").symlink_to("precious")
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("mine")
        assert (tmp_path / "precious").read_text() == "precious"
        assert (tmp_path / "a.txt").read_text() == "mine"

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes as files here")
    def test_pipes_are_not_waited_for(self, tmp_path: Path, secret: Path) -> None:
        run = theirs(tmp_path, secret)
        os.mkfifo(run.folder / "records/part-000009.parquet")
        assert run_cli("rank", run.folder).exit_code == 0
        (run.folder / "run.json").unlink()
        os.mkfifo(run.folder / "run.json")
        done = run_cli("rank", run.folder)
        assert done.exit_code == 1
        assert "not a file" in done.output

    def test_inside(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a/loop").symlink_to("loop")
        (tmp_path / "a/up").symlink_to("..")
        assert is_inside(tmp_path / "a", tmp_path / "a/b/c")
        assert not is_inside(tmp_path / "a", tmp_path / "a/up/b")
        assert not is_inside(tmp_path / "a", tmp_path / "ab")
        assert is_inside(tmp_path / "a/up", tmp_path / "b")


class TestCode:
    """A model that is code is the one thing in a run folder that could run."""

    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch) -> Path:
        (tmp_path / "evil_module.py").write_text(
            "from pathlib import Path\nPath('pwned').touch()\ndef make(): raise SystemExit(7)\n"
        )
        monkeypatch.chdir(tmp_path)
        root = tmp_path / "photos"
        records = [face(root, f"{name}/{n}.jpg", n / 9, crop="crops/x.png")
                   for name in "ab" for n in range(4)]  # fmt: skip
        run = write_run(tmp_path / "run", records)
        change(run, lambda content: content["settings"].update(model="evil_module:make"))
        yield run.folder
        sys.modules.pop("evil_module", None)

    @pytest.mark.parametrize(
        "command",
        [("explain", "run", "-o", "why"), ("calibrate", "run", "--target-fnmr", "0.1"),
         ("report", "run"), ("rank", "run"), ("filter", "run", "--min-quality", "0")],
        ids=lambda command: command[0],
    )  # fmt: skip
    def test_it_is_not_run(self, run: Path, command: tuple[str, ...]) -> None:
        done = run_cli(*command)
        assert not Path("pwned").exists()
        if command[0] in ("explain", "calibrate"):
            assert done.exit_code == 1
            assert "--model evil_module:make" in done.output
        else:
            assert done.exit_code == 0, done.output

    @pytest.mark.parametrize(
        "command",
        [("explain", "run", "-o", "why"), ("calibrate", "run", "--target-fnmr", "0.1")],
        ids=lambda command: command[0],
    )
    def test_unless_the_user_says_so(self, run: Path, command: tuple[str, ...]) -> None:
        done = run_cli(*command, "--model", "evil_module:make")
        assert Path("pwned").exists()
        assert "SystemExit" in done.output

    def test_another_model_is_not_taken(self, run: Path) -> None:
        done = run_cli("explain", "run", "-o", "why", "--model", "sface")
        assert done.exit_code == 1
        assert "not sface" in done.output

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes as files here")
    def test_weights_that_are_a_pipe(self, run: Path, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "weights.pth")
        name = str(tmp_path / "weights.pth")
        change(read_run(run), lambda content: content["settings"].update(model=name))
        done = run_cli("explain", "run", "-o", "why")
        assert done.exit_code == 1
        assert "not a file" in done.output

    def test_a_name_that_no_file_has(self, run: Path) -> None:
        name = f"{'evil.' * 60}module:make"
        change(read_run(run), lambda content: content["settings"].update(model=name))
        done = run_cli("explain", "run", "-o", "why")
        assert done.exit_code == 1
        assert "was made with the code" in done.output


def rows(run: RunInfo):
    for batch in run.ledger.dataset().to_batches():
        yield from batch.to_pylist()


def change(run: RunInfo, how: Callable[[dict[str, Any]], Any]) -> None:
    """Change a run's run.json by hand."""
    file = run.folder / "run.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    how(content)
    file.write_text(json.dumps(content), encoding="utf-8")


ESCAPE = "\x1b]0;owned\x07\x1b[2J"


class TestRunJson:
    @pytest.fixture
    def run(self, tmp_path_factory) -> RunInfo:
        folder = tmp_path_factory.mktemp("stranger")
        return make_run(folder / "run", [shown_face("a.jpg", 0.5), shown_face("b.jpg", 0.25)])

    JSON = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
                  st.sampled_from([10**400, -1, 1e308, "x" * 300, ESCAPE, "<script>"])),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["title", "quality", "id", "x"]), inner, max_size=3),
        max_leaves=5,
    )  # fmt: skip

    @settings(
        deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_whatever_it_holds(self, run: RunInfo, data: st.DataObject) -> None:
        file = run.folder / "run.json"
        before = file.read_text(encoding="utf-8")
        content = copy.deepcopy(json.loads(before))
        for _ in range(data.draw(st.integers(1, 3))):
            place = content
            while True:  # something anywhere in it becomes something else
                key = data.draw(st.sampled_from(sorted(place)))
                if isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
                    place = place[key]
                    continue
                if data.draw(st.booleans()):
                    place[key] = data.draw(self.JSON)
                elif place is not content or len(place) > 1:
                    del place[key]
                break
        try:
            file.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
            for command in (("rank", run.folder), ("report", run.folder),
                            ("filter", run.folder, "--keep-top", "1")):  # fmt: skip
                done = run_cli(*command)
                assert done.exit_code in (0, 1, 3), done.output
                assert "\x1b]" not in done.output
                if done.exit_code == 1:
                    assert done.output.startswith("Error: "), done.output
        finally:
            file.write_text(before, encoding="utf-8")

    def test_whatever_it_lacks(self, run: RunInfo, tmp_path: Path) -> None:
        file = run.folder / "run.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        assert {"fingerprint", "identity", "settings"} <= set(content)
        for key in content:
            lacking = {name: value for name, value in content.items() if name != key}
            file.write_text(json.dumps(lacking), encoding="utf-8")
            done = run_cli("align-and-score", tmp_path, "-o", run.folder, "--no-report")
            assert done.exit_code in (0, 1, 3), done.output

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "null", "[" * 100_000, "[" * 900 + "]" * 900,
         '{"settings": {"task": "score"}, "x": NaN}',
         '{"settings": []}', '{"settings": {"task": "fly"}}', '{"settings": {"task": []}}',
         '{"settings": {"task": "score", "max_pixels": 1e999}}',
         '{"settings": {"task": "score", "steps": true}}',
         '{"settings": {"task": "score"}, "invocations": [{"seconds": 1e999}]}',
         '{"settings": {"task": "score"}, "model": {"input_size": 1000000}}',
         '{"settings": {"task": "score"}, "calibration": {"thresholds": [{"title": "x"}]}}',
         '{"settings": {"task": "score"}, "calibration": {"thresholds": null}}',
         '{"settings": {"task": "score"}, "calibration": {"id": "x"}}',
         '{"settings": {"task": "score"}, "invocations": null}',
         '{"settings": {"task": "score"}, "versions": null}',
         '{"settings": {"task": "score"}, "identity": null}',
         '{"settings": {"task": "score"}, "merged": {"runs": []}}'],
    )  # fmt: skip
    def test_what_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - whichever is wrong first
            parse_run_json(text)

    def test_what_runs_write_is_read(self, tmp_path: Path) -> None:
        for options in ({}, {"task": "detect"}, {"detector": "yunet"}, {"preset": "instant"},
                        {"landmarks": Path("x.csv")}, {"workers": 2}):  # fmt: skip
            text = json.dumps({"settings": Settings(**options).as_dict()})
            assert parse_run_json(text)["settings"] == json.loads(text)["settings"]

    def test_texts_do_not_control_the_terminal(self) -> None:
        text = json.dumps({"settings": {"task": "score"}, "versions": {ESCAPE: [ESCAPE]}})
        assert "\x1b" not in str(parse_run_json(text))

    def test_an_attack_that_never_ends_is_refused(self) -> None:
        for name in ("steps", "copies"):
            with pytest.raises(SettingsError, match=r"[01] to 1000"):
                Settings(**{name: 10**9})


class TestLedgers:
    def rewritten(self, run: RunInfo, **columns: pa.Array) -> None:
        """Write a run's only part again with other columns."""
        (part,) = run.ledger.parts
        table = pq.read_table(part.file)
        part.file.unlink()
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, pa.field(name, values.type), values)
        pq.write_table(table, part.file.with_name("part-000000.parquet"))

    @pytest.mark.parametrize("name", [field.name for field in SCHEMA if not field.nullable])
    def test_values_that_are_missing(self, tmp_path: Path, name: str) -> None:
        run = make_run(tmp_path / "run", [shown_face("a.jpg", 0.5)])
        self.rewritten(run, **{name: pa.nulls(1, SCHEMA.field(name).type)})
        for command in ("rank", "report", "explain"):
            options = ("-o", tmp_path / "why") if command == "explain" else ()
            done = run_cli(command, run.folder, *options)
            assert done.exit_code == 1, command
            assert f"missing in {name}" in done.output.replace("path, ", "") or name in done.output

    @pytest.mark.parametrize("name", ["path", "quality", "face", "attempt", "nose_x"])
    def test_columns_of_other_types(self, tmp_path: Path, name: str) -> None:
        run = make_run(tmp_path / "run", [shown_face("a.jpg", 0.5)])
        self.rewritten(run, **{name: pa.array([{"x": 1}])})
        done = run_cli("rank", run.folder)
        assert done.exit_code == 1
        assert f"its column {name} is struct" in done.output

    def test_older_parts_are_read(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", [shown_face("a.jpg", 0.5)])
        (part,) = run.ledger.parts
        table = pq.read_table(part.file)
        nullable = pa.schema([field.with_nullable(True) for field in table.schema])
        part.file.unlink()
        old = table.cast(nullable).drop_columns(["method", "landmarks_id"])
        pq.write_table(old, part.file.with_name("part-000000.parquet"))
        assert run_cli("rank", run.folder).exit_code == 0

    def test_a_record_lacks_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "records").mkdir()
        record = replace(shown_face("a.jpg", 0.5), path=None)  # type: ignore[arg-type]
        with pytest.raises(pa.ArrowInvalid):
            Ledger(tmp_path / "records").write([as_table([record])])

    @settings(deadline=None, max_examples=15)
    @given(
        st.lists(
            st.floats(width=64) | st.sampled_from([1e300, -1e300, 2.0**63, 0.0]),
            min_size=16, max_size=16,
        ),
        st.integers(-(2**63), 2**63 - 1),
    )  # fmt: skip
    def test_faces_anywhere(self, tmp_path_factory, numbers: list[float], turn: int) -> None:
        folder = tmp_path_factory.mktemp("faces")
        write_photo(folder / "a.png", (9, 99, 199))
        names = (*BOX_COLUMNS, *LANDMARK_COLUMNS, "embedding_norm", "face_px")
        values = dict(zip(names, numbers, strict=True))
        row = replace(shown_face("a.png", 0.5, str(folder)), rotation=turn, **values)
        run = make_run(folder / "run", [row])
        done = run_cli("report", run.folder)
        assert done.exit_code == 0, done.output
        found = Pictures(run, cut=True).thumbnail(next(rows(run)))
        assert found is None or found.shape == (112, 112, 3)


EVIL = ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=1")


class TestReaders:
    """People who open what a run of a stranger's photos wrote."""

    def test_csv_files(self, tmp_path: Path) -> None:
        root = str(tmp_path / "photos")
        records = [
            replace(shown_face(f"{evil}/a.jpg", n / 9, root), hints=evil, model=evil, crop=evil,
                    preset=evil)
            for n, evil in enumerate(EVIL)
        ]  # fmt: skip
        records += [Record(f"{evil}.jpg", evil, None, evil, evil) for evil in EVIL]
        run = make_run(tmp_path / "run", records)
        make_run(tmp_path / "other", records)
        commands = [
            ("rank", run.folder, "--format", "csv"),
            ("rank", run.folder, "--group-by", "folder", "--format", "csv"),
            ("rank", run.folder, tmp_path / "other", "--format", "csv"),
            ("filter", run.folder, "--to", tmp_path / "kept", "--keep-top", "3"),
        ]
        for command in commands:
            done = run_cli(*command)
            assert done.exit_code == 0, done.output
        found = [*tmp_path.rglob("*.csv")]
        assert len(found) == 4
        for file in found:
            with file.open(newline="", encoding="utf-8") as lines:
                for cells in list(csv.reader(lines))[1:]:
                    for cell in cells:
                        is_number = cell.removeprefix("-").replace(".", "").isdigit()
                        assert is_number or not cell.startswith(tuple("=+-@\t\r")), (file, cell)

    def test_terminals(self, tmp_path: Path) -> None:
        records = [replace(shown_face(f"{ESCAPE}.jpg", 0.5), hints=ESCAPE, model=ESCAPE),
                   Record(f"x{ESCAPE}.jpg", "/", None, "unreadable", ESCAPE)]  # fmt: skip
        run = make_run(tmp_path / "run", records)
        for command in (("rank", run.folder), ("rank", run.folder, "--group-by", "folder"),
                        ("rank", run.folder, run.folder),
                        ("filter", run.folder, "--min-quality", "0", "--dry-run")):  # fmt: skip
            done = run_cli(*command)
            assert "\x1b" not in done.output, command


def test_messages_about_a_strangers_file_do_not_control_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(f"{ESCAPE},b\n1,2\n", encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("a,b,label\n", encoding="utf-8")
    done = run_cli("evaluate", "validate", "pairs", tmp_path, "--pairs", tmp_path / "pairs.csv")
    assert "\x1b" not in done.output
    landmarks = tmp_path / "l.csv"
    landmarks.write_text(f"a.jpg,{ESCAPE},1,1,1,1,1,1,1,1,1\n", encoding="utf-8")
    photo(tmp_path, "a.jpg")
    done = run_cli("detect", tmp_path / "a.jpg", "-o", tmp_path / "run", "--landmarks", landmarks)
    assert done.exit_code in (1, 2)
    assert "\x1b" not in done.output


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300))
def test_any_bytes_are_no_run(tmp_path_factory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_bytes(content)
    with pytest.raises(FaceQANError):
        read_run(folder)


def test_crops_of_a_stranger_are_limited(tmp_path: Path, secret: Path) -> None:
    run = theirs(tmp_path, secret, crop="crops/large.png", sha256="0" * 64, nose_x=None)
    write_photo(run.folder / "crops/large.png", (1, 2, 3), (4097, 4096))
    with pytest.raises(PhotoError):
        RunCrops(run).crop(next(rows(run)))
    assert np.isfinite(next(rows(run))["quality"])
