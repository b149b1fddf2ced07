"""What the documents' commands need: tiny photos, archives, runs and models to type them among."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from faceqan_toolkit.models.architectures import build_backbone, official
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import read_run
from faceqan_toolkit.types import Record
from tests.cli.test_evaluate import fill
from tests.conftest import DATA, SAMPLES, run_here
from tests.evaluation.datasets.trees import lfw_tree
from tests.ledgers import write_run
from tests.models.layouts import fill as random_weights
from tests.models.layouts import shapes
from tests.models.test_architectures import saved
from tests.photos.makers import insightface_rec, write_tar

Done = subprocess.CompletedProcess[str]

NOT_HERE = {
    "s3://": "needs a network",
    "--ray-address": "needs a cluster of Ray",
    "move": "would take photos that other commands need",
    "--undo": "needs a manifest of photos that were moved",
}
"""Why a command with such a word cannot be run."""

README_RUN = ["align-and-score", "raw_photos/", "-o", "run"]
"""The README's own run, which most pages speak of."""
IN_A_HURRY = ["align-and-score", "raw_photos/", "-o", "quick", "--preset", "fast"]
SHORT = ["-l", "1", "--backend", "torch"]
SHORTEST = [*SHORT, "-k", "1"]
"""Options of short attacks; a preset may say how many copies there are."""


def why_not(arguments: list[str]) -> str:
    """Return why a command cannot be run here, or nothing."""
    for word, reason in NOT_HERE.items():
        if any(argument.startswith(word) for argument in arguments):
            return reason
    return ""


def invoke(folder: Path, arguments: list[str]) -> Done:
    return run_here(*arguments, cwd=folder, env={"FACEQAN_TOOLKIT_MODELS": str(folder / "models")})


class Page:
    """A page's commands, typed one after the other in a copy of the scene.

    Args:
        commands: of the page, in its order.
        known: results of commands whose folders the scene has.
    """

    def __init__(
        self, folder: Path, page: str, commands: list[list[str]], known: dict[str, Done]
    ) -> None:
        self.folder, self.commands = folder, commands
        self.known = known
        self.done: list[Done | None] = []
        PREPARE.get(page, lambda folder: None)(folder)

    def result(self, number: int) -> Done:
        """Return what came of a command; those before it on the page are typed first."""
        while len(self.done) <= number:
            arguments = self.commands[len(self.done)]
            self.done.append(None if why_not(arguments) else self._type(arguments))
        done = self.done[number]
        assert done is not None, "a command that cannot be run here"
        return done

    def _type(self, arguments: list[str]) -> Done:
        if " ".join(arguments) in self.known:
            return self.known[" ".join(arguments)]
        # a shell would do this
        typed = [re.sub("^~", str(self.folder), argument) for argument in arguments]
        if typed[0] in ("align-and-score", "score"):
            shutil.rmtree(self.folder / output(typed), ignore_errors=True)  # of other options
        if typed[0] == "calibrate":
            made_up_run(self.folder)
        return invoke(self.folder, [*typed, *quicker(typed)])


def output(arguments: list[str]) -> str:
    """Return what a command writes, as far as it says so."""
    places = [place for place, word in enumerate(arguments) if word in ("-o", "--to")]
    return arguments[places[0] + 1] if places else ""


def quicker(arguments: list[str]) -> list[str]:
    """Return options that save time, beside those that the page shows."""
    name = arguments[0]
    if name == "calibrate":
        return ["--embeddings", "e.npz", "--fmr", "0.01"]
    if name == "evaluate":
        return ["--preset", "instant", "--bootstrap", "20", "--format", "png"]
    if name == "explain":
        return [] if "RUN" in arguments else SHORTEST
    if name not in ("align-and-score", "score") or "--method" in arguments:
        return []  # other methods have no presets
    if "--preset" in arguments:
        return SHORT
    return SHORTEST if "--model" in arguments else ["--preset", "instant"]


def make_scene(folder: Path) -> dict[str, Done]:
    """Fill a folder with what most pages speak of; return the runs that were made for it."""
    shutil.copytree(SAMPLES, folder / "raw_photos")
    (folder / "samples").symlink_to(SAMPLES.parent)
    shutil.copy(SAMPLES / "hopper.jpg", folder / "photo.jpg")
    for name in ("photos", "more_photos", "people/ANN", "people/BOB", "more/BOB"):
        (folder / name).mkdir(parents=True)
        shutil.copy(SAMPLES / "hopper_tiny.jpg", folder / name)
    known = {}
    for arguments, copies in (
        (README_RUN, ("other_run", "run_exact")),
        (IN_A_HURRY, ("RUN", "run_fast")),
    ):
        known[" ".join(arguments)] = invoke(folder, [*arguments, *quicker(arguments)])
        for copy in copies:
            shutil.copytree(folder / output(arguments), folder / copy)
    rows = Ranking(read_run(folder / "run")).rows()
    people = [f"{row['path']},{('young', 'old')[n % 2]}" for n, row in enumerate(rows)]
    (folder / "people.csv").write_text("\n".join(["path,age", *people]) + "\n", encoding="utf-8")
    return known


def made_up_run(folder: Path) -> None:
    """Replace the run by one of many people, whose embeddings lie beside it."""
    shutil.rmtree(folder / "run")
    rng = np.random.default_rng(0)
    centre, quality = rng.normal(size=(300, 1, 32)), rng.random((300, 8))
    # the worse a face, the further off it lies
    spread = 0.3 + 1.7 * (1 - quality[..., None]) ** 2
    embeddings = centre + spread * rng.normal(size=(300, 8, 32))
    paths = [f"p{person:03d}/{number}.jpg" for person in range(300) for number in range(8)]
    faces = zip(paths, quality.ravel(), strict=True)
    rows = [Record(path, "/photos", 0, "ok", quality=q) for path, q in faces]
    write_run(folder / "run", rows, read_run(folder / "other_run").settings)
    np.savez(folder / "e.npz", paths=paths, embeddings=embeddings.reshape(-1, 32).astype("f4"))


def lfw(folder: Path) -> None:
    """Lay photos of ours out as LFW."""
    root = folder / "LFW"
    fill(root, lfw_tree(root, folds=2, per_fold=3).pairs)


def models(folder: Path) -> None:
    """Make the weights files that the page speaks of, with random weights, and its module."""
    for path, depth in (("weights.pth", 18), ("Downloads/backbone.pth", 100)):
        network = build_backbone(official("iresnet", depth), "meta")
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(saved(random_weights(shapes(network.state_dict()))))
    text = (Path(__file__).parents[1] / "docs/models.md").read_text(encoding="utf-8")
    (module,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (folder / "mymodel.py").write_text(module, encoding="utf-8")


def archives(folder: Path) -> None:
    """Make a tar, a set of crops and a film of two seconds."""
    (folder / "shards").mkdir()
    write_tar(folder / "shards/0.tar", {"ann/1.jpg": (SAMPLES / "hopper.jpg").read_bytes()})
    crops = [(DATA / f"{name}.png").read_bytes() for name in ("astronaut", "astronaut_dark")]
    insightface_rec(folder / "train.rec", [crops[:1], crops[1:]])
    frame = cv2.resize(cv2.imread(str(SAMPLES / "hopper.jpg")), (320, 400))
    writer = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (320, 400)
    )
    for _ in range(10):
        writer.write(frame)
    writer.release()


PREPARE: dict[str, Callable[[Path], None]] = {
    "docs/evaluation.md": lfw,
    "docs/models.md": models,
    "docs/sources.md": archives,
}
