"""The files people start a cluster with: they parse, and call commands and options there are."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from faceqan_toolkit.cli import cli

FOLDER = Path(__file__).parents[1] / "docs" / "cluster"
TEXTS = [*sorted(FOLDER.iterdir()), FOLDER.parent / "scale.md"]


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.name)
def test_commands_and_options_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    if file.name == "rayjob.yaml":
        text = "\n".join(strings(yaml.safe_load(text)))
    text = re.sub(r'^#.* exec \S+ "(.*)"$', r"\1", text, flags=re.MULTILINE)
    found = 0
    for line in re.findall(r"^ *(faceqan-toolkit .*)$", text, re.MULTILINE):
        words = shlex.split(line)
        command = cli.get_command(click.Context(cli), words[1])
        assert command is not None, line
        with command.make_context(words[1], words[2:], resilient_parsing=False) as context:
            assert context.params["engine"] == "ray"
        found += 1
    assert found == 1


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [str(value)]


@pytest.mark.parametrize("file", TEXTS[:-1], ids=lambda file: file.name)
def test_ray_tells_nobody_of_its_use(file: Path) -> None:
    """`ray start --head` would, whatever the command that is started later has set."""
    assert re.search(r'RAY_USAGE_STATS_ENABLED(=|, value: ")0', file.read_text(encoding="utf-8"))


def test_manifests_have_what_their_readers_ask_for() -> None:
    cloud = yaml.safe_load((FOLDER / "cloud.yaml").read_text(encoding="utf-8"))
    assert cloud["head_node_type"] in cloud["available_node_types"]
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for group in (job["spec"]["rayClusterSpec"]["headGroupSpec"],
                  *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]):  # fmt: skip
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounted = {mount["name"] for box in pod["containers"] for mount in box["volumeMounts"]}
        assert mounted == volumes


@pytest.mark.skipif(sys.platform == "win32", reason="no bash")
def test_the_script_is_one() -> None:
    subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], check=True)
