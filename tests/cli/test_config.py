"""Options from the environment and from TOML files; on the real commands, whose work is faked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from faceqan_toolkit.cli import cli, make_run
from faceqan_toolkit.cli.config import remember_options, with_options
from faceqan_toolkit.cli.options import is_given, make_settings
from tests.ledgers import face, write_run

COMMANDS = Path(__file__).parents[2] / "docs/commands.md"


class Work:
    """Takes the place of a run: keeps what the command line means."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: dict[str, Any] = {}
        self.given: set[str] = set()

    def __call__(self, task: str, inputs: object, **options: Any) -> None:
        self.options = options
        self.given = {name for name in click.get_current_context().params if is_given(name)}
        taken = {name: options[name] for name in options if name not in make_run.JOB_OPTIONS}
        taken.pop("output")
        make_settings(task, **taken)

    def run(self, *arguments: str, toml: str = "", **environment: str) -> Result:
        """Run align-and-score; keep its options."""
        if toml:
            (self.folder / "options.toml").write_text(toml, encoding="utf-8")
            arguments = (*arguments, "--config", "options.toml")
        words = ["align-and-score", "photos", *arguments]
        return CliRunner().invoke(cli, words, env=environment)


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Work:
    monkeypatch.chdir(tmp_path)
    work = Work(tmp_path)
    monkeypatch.setattr(make_run, "run_job", work)
    return work


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]


def test_precedence(work: Work) -> None:
    toml = 'faces = "all"\nsteps = 2\ncopies = 3\n[align-and-score]\nsteps = 4\n'
    environment = {"FACEQAN_FACES": "central", "FACEQAN_STEPS": "7"}
    done(work.run("-o", "run", "--faces", "largest", toml=toml, **environment))
    assert work.options["faces"] == "largest"  # command line
    assert work.options["steps"] == 7  # environment
    assert work.options["copies"] == 3  # file
    assert work.options["exponent"] == 5.0  # default
    done(work.run("-o", "run", toml=toml))
    assert work.options["steps"] == 4  # the command's own table


def test_the_variable_of_one_command_goes_before_that_of_all(work: Work) -> None:
    short, long = {"FACEQAN_STEPS": "2"}, {"FACEQAN_ALIGN_AND_SCORE_STEPS": "3"}
    other = {"FACEQAN_SCORE_STEPS": "4"}
    done(work.run("-o", "run", **short, **other))
    assert work.options["steps"] == 2
    done(work.run("-o", "run", **short, **long))
    assert work.options["steps"] == 3
    done(work.run("-o", "run", FACEQAN_STEPS=""))
    assert work.options["steps"] == 5


def test_the_documented_file(work: Work) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", COMMANDS.read_text(encoding="utf-8"), re.S)
    done(work.run("-o", "run", toml=example))
    assert work.options["preset"] == "fast"
    assert work.options["formats"] == ("csv", "parquet")
    assert work.options["keep_crops"] is False
    assert work.options["workers"] == 4


def test_flags_lists_required_options_and_names_that_differ_from_parameters(work: Work) -> None:
    toml = 'output = "there"\nformat = ["csv", "jsonl"]\ncrops = false\nrotate = true\nevery = 2\n'
    done(work.run(toml=toml))
    assert work.options["output"] == Path("there")
    assert work.options["formats"] == ("csv", "jsonl")
    assert work.options["rotate"] is True
    assert work.options["keep_crops"] is False
    environment = {"FACEQAN_OUTPUT": "here", "FACEQAN_FORMAT": "jsonl parquet"}
    done(work.run(**environment, FACEQAN_CROPS="no", FACEQAN_ROTATE="1"))
    assert work.options["output"] == Path("here")
    assert work.options["formats"] == ("jsonl", "parquet")
    assert work.options["rotate"] is True
    assert work.options["keep_crops"] is False
    done(work.run("-o", "run", toml='format = "parquet"\n'))
    assert work.options["formats"] == ("parquet",)


def test_values_from_elsewhere_are_choices_of_the_user(work: Work) -> None:
    done(work.run("-o", "run", toml="copies = 3\n", FACEQAN_STEPS="2"))
    assert {"copies", "steps", "output"} <= work.given
    assert "preset" not in work.given
    for given in ({"toml": "steps = 2\n"}, {"FACEQAN_STEPS": "2"}):
        message = refused(work.run("-o", "run", "--like-published", **given))
        assert "--like-published sets steps to 5" in message


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("prest = 'fast'", "options.toml: no option 'prest'. Did you mean preset?"),
        ("min_face = 3", "options.toml: no option 'min_face'. Did you mean min-face?"),
        ("[score]\ntop = 3", "options.toml in [score]: no option 'top'."),
        ("[rnak]\ntop = 3", "options.toml: no command 'rnak'. Did you mean rank?"),
        ("[rank.top]\nx = 3", "options.toml in [rank]: no command 'top'."),
        ("[evaluate.lwf]\nx = 3", "options.toml in [evaluate]: no command 'lwf'. Did you mean lfw"),
        ("config = 'x.toml'", "options.toml: no option 'config'."),
        ("steps = 2.5", "'2.5' is not a valid integer (from options.toml)."),
        ("preset = 'fats'", "(from options.toml)."),
        ("steps = true", "options.toml: steps takes a value, not true or false"),
        ("rotate = 1", "options.toml: rotate takes true or false"),
        ("steps = [1]", "options.toml: steps takes text or a number"),
        ("format = [1979-05-27]", "options.toml: format takes text, a number, or a list of these"),
        ("steps = ", "options.toml cannot be read: "),
    ],
)
def test_mistakes_in_a_file(work: Work, toml: str, expected: str) -> None:
    assert expected in refused(work.run("-o", "run", toml=f"{toml}\n"))


def test_mistakes_in_variables_name_them(work: Work) -> None:
    message = refused(work.run("-o", "run", FACEQAN_PRESET="fats"))
    assert message.endswith("is not one of 'exact', 'fast', 'instant' (from FACEQAN_PRESET).")
    message = refused(work.run("-o", "run", FACEQAN_ALIGN_AND_SCORE_FAIL_ON="2"))
    assert message.endswith("(from FACEQAN_ALIGN_AND_SCORE_FAIL_ON).")


def test_files_that_cannot_be_read(work: Work) -> None:
    (work.folder / "latin.toml").write_bytes(b"# \xe9\n")
    assert "latin.toml cannot be read" in refused(work.run("--config", "latin.toml"))
    assert "does not exist" in refused(work.run("--config", "nowhere.toml"))
    assert "does not exist" in refused(work.run("-o", "run", FACEQAN_CONFIG="nowhere.toml"))


def test_the_projects_own_file(work: Work) -> None:
    file = work.folder / "pyproject.toml"
    file.write_text("[tool.faceqan-toolkit]\nsteps = 2\n[tool.faceqan-toolkit.rank]\ntop = 3\n")
    result = done(work.run("-o", "run"))
    assert work.options["steps"] == 2
    assert "Note: options from pyproject.toml: steps" in result.stderr
    result = done(work.run("-o", "run", "-l", "3"))
    assert "pyproject.toml" not in result.stderr
    assert "Options: " in done(work.run("-o", "run", "-v")).stderr
    done(work.run("-o", "run", toml="copies = 1\n"))
    assert work.options["steps"] == 5  # a named file takes the place of the project's
    done(work.run("-o", "run", "--config", "pyproject.toml"))
    assert work.options["steps"] == 2
    for text in ("[tool]\nfaceqan-toolkit = 3\n", "tool = 3 # faceqan-toolkit\n"):
        file.write_text(text)
        assert "is not a table" in refused(work.run("-o", "run"))


@pytest.mark.parametrize("text", ["[broken", "[tool.other]\nsteps = 'x'\n", "\xff"])
def test_a_project_of_something_else_is_not_read(work: Work, text: str) -> None:
    (work.folder / "pyproject.toml").write_text(text, encoding="latin-1")
    done(work.run("-o", "run"))
    assert work.options["steps"] == 5


def test_a_project_that_nobody_named_runs_no_code_and_redirects_nothing(work: Work) -> None:
    """Photos of strangers may come with a pyproject.toml and a module beside it."""
    file = work.folder / "pyproject.toml"
    for line in (
        'model = "evil:make"', 'ray-address = "ray://evil:1"\nengine = "ray"', 'output = "other"',
    ):  # fmt: skip
        file.write_text(f"[tool.faceqan-toolkit]\n{line}\n")
        message = refused(work.run("-o", "run"))
        assert "is used only if you trust the file: give --config pyproject.toml" in message
        done(work.run("-o", "run", "--config", "pyproject.toml"))
    file.write_text('[tool.faceqan-toolkit]\nmodel = "sface"\n')
    done(work.run("-o", "run"))


def test_options_of_runs_in_the_environment_do_not_hinder_other_commands(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifest.csv").write_text("")
    environment = {"FACEQAN_MIN_QUALITY": "0.5", "FACEQAN_QUIET": "1"}
    result = CliRunner().invoke(cli, ["filter", "--undo", "manifest.csv"], env=environment)
    assert "takes the manifest alone" not in result.output
    typed = ["filter", "--undo", "manifest.csv", "--min-quality", "0.5"]
    assert "takes the manifest alone" in CliRunner().invoke(cli, typed).output


def test_messages_of_the_library_name_options_of_the_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", [face(tmp_path, "a.jpg", 0.5)])
    words = ["filter", "run", "--calibration", "c.json", "--min-quality", "0.5"]
    told = "--calibration gives the quality: leave --min-quality out"
    assert told in CliRunner().invoke(cli, words).stderr
    as_json = CliRunner().invoke(cli, [*words, "--log-format", "json"]).stderr.splitlines()
    assert json.loads(as_json[-1])["text"] == told
    context = click.Context(click.Command("one", params=[click.Option(["--to", "folder"])]))
    with context:
        assert with_options("`folder` or `to`") == "`folder` or `to`"
        remember_options(context)
        assert with_options("`folder`, `to`, `mode`") == "--to, --to, `mode`"
    assert with_options("`folder`") == "`folder`"
