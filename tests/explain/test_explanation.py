"""What explains a score: the trace of an attack, pictures, files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faceqan_toolkit import FaceQAN, Settings
from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.explain.explanation import Explainer, write_contact_sheet, write_explanation
from faceqan_toolkit.explain.pictures import heat_picture, noise_picture
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.quality.attack import attack, draw_noise
from faceqan_toolkit.quality.faceqan import Trace
from faceqan_toolkit.runs.folder import RunWriter, read_run
from faceqan_toolkit.types import Pixels, Score
from tests.conftest import BACKENDS, SAMPLES

QUICK = {"steps": 2, "copies": 2, "device": "cpu", "backend": "torch"}


class TestTrace:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_the_score_is_the_scores_own(self, crop: Pixels, backend: str) -> None:
        scorer = FaceQAN(steps=3, copies=3, device="cpu", backend=backend)
        (score,) = scorer.score([crop])
        trace = scorer.trace(crop)
        assert trace.score.quality == score.quality
        assert trace.score.embedding_norm == score.embedding_norm
        assert np.array_equal(trace.score.similarities, score.similarities)
        assert trace.after.shape == (3,)
        assert trace.after.mean() < score.similarities[-1].mean()

    def test_is_what_an_attack_of_one_copy_leaves(self, crop: Pixels) -> None:
        """Noise again, step by step, from the plain algorithm."""
        scorer = FaceQAN(steps=3, copies=1, eps=0.002, device="cpu", backend="torch")
        trace = scorer.trace(crop)
        face = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
        reference = torch.nn.functional.normalize(scorer._network(face), dim=1).detach()
        z, drop = face + draw_noise(1, 112, eps=0.002, seed=0), 0
        for _ in range(3):
            z = z.detach().requires_grad_()
            loss = 1 - (torch.nn.functional.normalize(scorer._network(z), dim=1) * reference).sum()
            (gradient,) = torch.autograd.grad(loss, z)
            z = z + 0.002 * gradient.sign()
            drop = drop + 0.002 * gradient.abs().sum(dim=1)[0]
        expected = (z - face)[0].permute(1, 2, 0).detach().numpy()
        # where a gradient is nearly nothing its sign is a matter of rounding
        assert np.mean(np.abs(trace.noise - expected) > 1e-5) < 0.01
        np.testing.assert_allclose(trace.sensitivity, drop.numpy(), rtol=0.05, atol=1e-6)

    def test_copies_in_parts_are_the_same(self, crop: Pixels) -> None:
        whole = FaceQAN(**QUICK).trace(crop)
        scorer = FaceQAN(**QUICK)
        scorer.block_copies = 1
        parts = scorer.trace(crop)
        assert np.mean(np.abs(parts.noise - whole.noise) > 1e-5) < 0.01
        assert parts.score.quality == pytest.approx(whole.score.quality, abs=1e-4)

    def test_watching_changes_nothing(self) -> None:
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(6, 48, generator=generator)
        crops, noise = torch.rand(2, 3, 4, 4), draw_noise(3, 4, eps=0.01, seed=1)
        seen = []

        def run(observe):
            return attack(
                lambda x: torch.tanh(x.flatten(1) @ weight.T), crops, torch.ones(2, 6), noise,
                eps=0.01, steps=4, bounds=(0.0, 1.0), observe=observe,
            )  # fmt: skip

        plain = run(None)
        assert torch.equal(plain, run(lambda gradient, copies: seen.append((gradient, copies))))
        assert len(seen) == 3
        step = seen[1][1] - seen[0][1]
        moved = (seen[0][1] > 0.02) & (seen[0][1] < 0.98)
        torch.testing.assert_close(step[moved], -0.01 * seen[1][0].sign()[moved])


def trace_of(noise: np.ndarray, sensitivity: np.ndarray) -> Trace:
    return Trace(Score(0.5, 1), np.zeros(1, np.float32), noise, sensitivity)


class TestPictures:
    def test_noise_is_grey_where_there_is_none(self) -> None:
        noise = np.zeros((112, 112, 3), np.float32)
        noise[:56], noise[56:, :20] = 0.004, -0.002
        picture, factor = noise_picture(trace_of(noise, np.zeros((112, 112), np.float32)))
        assert factor == pytest.approx(0.5 / 0.004)
        assert picture[0, 0].tolist() == [255] * 3
        assert picture[100, 0].tolist() == [64] * 3
        assert picture[100, 50].tolist() == [128] * 3
        nothing, _ = noise_picture(trace_of(0 * noise, noise[..., 0]))
        assert (nothing == 128).all()

    def test_heat_is_brightest_where_it_acts(self, crop: Pixels) -> None:
        sensitivity = np.zeros((112, 112), np.float32)
        sensitivity[30:40, 60:70] = 1e-4
        picture = heat_picture(trace_of(np.zeros((112, 112, 3), np.float32), sensitivity),
                               np.full_like(crop, 128))  # fmt: skip
        y, x = np.unravel_index(picture.sum(axis=2).argmax(), (112, 112))
        assert 28 <= y <= 42
        assert 58 <= x <= 72


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(Settings(**QUICK, faces="all"))


def explain(explainer: Explainer, photo: Path | str, folder: Path) -> list[Path]:
    return [
        file
        for source in find_photos([photo])
        for explanation in explainer.explain(source)
        for file in write_explanation(explanation, explainer, folder)
    ]


class TestFiles:
    def test_every_face_has_a_picture_and_its_numbers(
        self, explainer: Explainer, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.chdir(SAMPLES)
        files = explain(explainer, "two_people.jpg", tmp_path)
        assert [file.name for file in files] == [
            f"two_people.jpg.{face}.{kind}" for face in (0, 1) for kind in ("png", "json")
        ]
        records = list(Pipeline(explainer.settings).run(["two_people.jpg"]))
        for record, picture, numbers in zip(records, files[::2], files[1::2], strict=True):
            with Image.open(picture) as image:
                assert image.width == 1440
                assert image.height >= 800
            content = json.loads(numbers.read_text(encoding="utf-8"))
            assert content["quality"] == record.quality
            assert content["picture"] == picture.name
            assert content["attack"]["copies"] == 2
            assert [point["scored"] for point in content["curve"]] == [True, True, False]
            scored = [point["similarities"] for point in content["curve"] if point["scored"]]
            assert np.mean(scored) == pytest.approx(content["similarity_mean"], abs=1e-6)
            assert "; ".join(hint["hint"] for hint in content["hints"]) == record.hints
            assert all(hint["why"] for hint in content["hints"])

    def test_the_mark_is_on_the_face(self, explainer: Explainer, tmp_path: Path, monkeypatch):
        """Box and landmarks are drawn where they belong, also in a photo decoded smaller."""
        large = Image.open(SAMPLES / "hopper.jpg").convert("RGB").resize((3072, 3600))
        large.save(tmp_path / "large.jpg")
        monkeypatch.chdir(tmp_path)
        files = explain(explainer, "large.jpg", tmp_path / "out")
        content = json.loads(files[1].read_text(encoding="utf-8"))
        page = np.asarray(Image.open(files[0]).convert("RGB")).astype(int)
        # the panel is 324 pixels wide from (36, 112), the photo as high as it and in its middle
        scale, left = 324 / 3600, 36 + (324 - 3072 * 324 / 3600) / 2
        for name in ("left_eye", "right_eye", "nose"):
            x = round(left + content[f"{name}_x"] * scale)
            y = round(112 + content[f"{name}_y"] * scale)
            assert np.abs(page[y, x] - (255, 214, 10)).max() < 60, name

    def test_a_failure_is_a_file_that_says_why(self, explainer: Explainer, tmp_path: Path) -> None:
        (file,) = explain(explainer, SAMPLES / "corrupt.jpg", tmp_path)
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content["status"] == "unreadable"
        assert "truncated" in content["reason"]
        assert "quality" not in content

    @pytest.mark.skipif(os.name == "nt", reason="links need privileges there")
    def test_links_do_not_lead_out(self, explainer: Explainer, tmp_path: Path, monkeypatch) -> None:
        (tmp_path / "photos/sub").mkdir(parents=True)
        (tmp_path / "photos/sub/a.jpg").write_bytes((SAMPLES / "hopper.jpg").read_bytes())
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere")
        monkeypatch.chdir(tmp_path / "photos")
        with pytest.raises(RunError, match="a link leads out"):
            explain(explainer, "sub/a.jpg", tmp_path / "out")
        assert not list((tmp_path / "elsewhere").iterdir())

    @pytest.mark.skipif(os.name == "nt", reason="links need privileges there")
    def test_a_link_in_a_files_place_is_replaced(
        self, explainer: Explainer, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.chdir(SAMPLES)
        precious = tmp_path / "precious"
        precious.write_text("mine")
        (tmp_path / "out").mkdir()
        (tmp_path / "out/corrupt.jpg.failed.json").symlink_to(precious)
        explain(explainer, "corrupt.jpg", tmp_path / "out")
        assert precious.read_text() == "mine"

    def test_a_folder_in_a_files_place(
        self, explainer: Explainer, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.chdir(SAMPLES)
        (tmp_path / "hopper.jpg.0.png").mkdir()
        with pytest.raises(RunError, match="a folder has that name"):
            explain(explainer, "hopper.jpg", tmp_path)


def test_predictions_are_not_explained() -> None:
    with pytest.raises(SettingsError, match="preset is instant"):
        Explainer(Settings(preset="instant", device="cpu"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of three scored faces and a failure."""
    tmp_path = tmp_path_factory.mktemp("scored")
    settings = Settings(**QUICK)
    names = ("hopper.jpg", "hopper_dark.jpg", "astronaut.jpg", "corrupt.jpg")
    with RunWriter(tmp_path / "run", settings, "") as run:
        pipeline = Pipeline(settings, crops_folder=run.crops_folder)
        for records in pipeline.records(
            pipeline.prepare_ahead(find_photos(SAMPLES / name for name in names))
        ):
            run.append(records)
        run.flush()
        run.write_info({})
    return tmp_path / "run"


class TestContactSheet:
    def test_of_the_runs_own_crops(self, run: Path, tmp_path: Path) -> None:
        info = read_run(run)
        info.content["model"]["sha256"] = None  # the fixture did not say
        small, lost = write_contact_sheet(info, tmp_path / "a", worst=1, best=1, device="cpu")
        assert small == tmp_path / "a/contact_sheet.png"
        assert lost == 0
        large, _ = write_contact_sheet(info, tmp_path / "b", worst=0, best=12, device="cpu")
        with Image.open(small) as one, Image.open(large) as other:
            assert one.height > other.height  # two sections against one row of three faces
            # the best face's crop stands in the first place as it is
            crop = np.asarray(Image.open(next((run / "crops").rglob("hopper.jpg.0.png"))))
            for sheet in (one, other):
                page = np.asarray(sheet.convert("RGB"))
                assert (page[156 : 156 + 112, 36 : 36 + 112] == crop).all()

    def test_crops_that_are_gone_are_cut_again(self, run: Path, tmp_path: Path) -> None:
        run = Path(shutil.copytree(run, tmp_path / "run"))
        info = read_run(run)
        info.content["model"]["sha256"] = None
        kept, _ = write_contact_sheet(info, tmp_path / "a", worst=2, best=2, device="cpu")
        for crop in (run / "crops").rglob("*.png"):
            crop.unlink()
        again, lost = write_contact_sheet(info, tmp_path / "b", worst=2, best=2, device="cpu")
        assert lost == 0
        assert again.read_bytes() == kept.read_bytes()

    def test_another_models_run_is_refused(self, run: Path, tmp_path: Path) -> None:
        info = read_run(run)
        info.content["model"]["sha256"] = "0" * 64
        with pytest.raises(RunError, match="other weights"):
            write_contact_sheet(info, tmp_path / "out", worst=1, best=1, device="cpu")

    def test_runs_without_scores(self, tmp_path: Path) -> None:
        with RunWriter(tmp_path / "faces", Settings(task="detect"), ""):
            pass
        with pytest.raises(RunError, match="no scores"):
            write_contact_sheet(read_run(tmp_path / "faces"), tmp_path, worst=1, best=1)
        with RunWriter(tmp_path / "empty", Settings(), ""):
            pass
        with pytest.raises(RunError, match="no scored faces"):
            write_contact_sheet(read_run(tmp_path / "empty"), tmp_path, worst=1, best=1)
