"""``nstudent data check``: what the data of a run are, and whether its networks can be trained; nothing is made."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from nstudent.config.data import DataConfig
from nstudent.data.curation.report import report_on
from nstudent.progress import Silence
from PIL import Image

WORDS = ["data.source=folder", "data.root=photos", "data.levels=[x]", "rounds=0", "data.image_size=32"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(60):
        folder = tmp_path / "photos" / ("defect" if number < 8 else "ok")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "photos" / "ok" / "broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


def test_images_labels_and_a_few_pixels_are_looked_at(photos: Path) -> None:
    report = report_on(DataConfig(source="folder", root=str(photos), levels=("x",)), 0, Silence())
    assert sum(report.images.values()) == report.decoded == 61
    assert report.taxonomy.classes == (("defect", "ok"),)
    assert list(report.unreadable) == ["ok/broken.png"]
    assert report.rarest_in_validation().startswith("1 of defect, ")


@pytest.mark.slow
def test_a_run_that_would_work(nstudent: Callable[..., CompletedProcess[str]], photos: Path) -> None:
    done = nstudent("data", "check", *WORDS)
    assert done.returncode == 0, done.stderr
    assert "images: 43 labelled, 0 unlabelled, 6 validation, 12 test" in done.stdout
    assert "classes: 2 at level x" in done.stdout
    assert "validation has few images of some classes: 1 of defect" in done.stdout
    assert "decoded 61 for a look, of which 1 cannot be used" in done.stdout
    assert "  ok/broken.png: " in done.stdout
    assert done.stdout.endswith("networks: all can be trained at 32 px\n")
    assert [path.name for path in photos.parent.iterdir()] == ["photos"], "nothing is made"


@pytest.mark.slow
def test_a_network_that_cannot_be_trained(nstudent: Callable[..., CompletedProcess[str]], photos: Path) -> None:
    done = nstudent("data", "check", *WORDS, "teacher.members=[{backbones: [vit_tiny_patch16_224]}]")
    assert done.returncode == 2
    assert "teacher.members.0: 'vit_tiny_patch16_224' does not take images of 32 px" in done.stderr
