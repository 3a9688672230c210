"""``nstudent data check``: what the data of a run are, and whether its networks can be trained; nothing is made."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from nstudent.cli.console import found_in_words
from nstudent.cli.look import print_survey
from nstudent.config.data import DataConfig
from nstudent.data.survey import survey
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
    found = survey(DataConfig(source="folder", root=str(photos), levels=("x",)), 0, Silence())
    assert found.images == sum(found.splits.values()) == found.sample.opened == 61
    assert dict(found.levels[0].images) == {"defect": 8, "ok": 53}
    assert list(found.sample.unreadable) == ["ok/broken.png"]
    assert found.few_validation.startswith("1 of defect, ")


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (("train", "val"), "divided (as your folders or columns say, test drawn)"),
        (("train", "test"), "divided (as your folders or columns say, validation drawn)"),
        (("train", "val", "test"), "divided (as your folders or columns say)"),
    ],
)
def test_what_is_said_of_the_division_names_what_is_drawn(
    tmp_path: Path, splits: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):
        folder = tmp_path / splits[number % len(splits)] / "ab"[number // 3 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    print_survey(survey(DataConfig(source="folder", root=str(tmp_path)), 0, Silence()))
    assert said in " ".join(capsys.readouterr().out.split())


def test_of_a_handful_of_images_no_figure_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 60 images 6 choose, by which a score of a half is known to ±40 points, and 12 test, known to ±28."""
    for number in range(60):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    print_survey(survey(DataConfig(source="folder", root=str(tmp_path)), 0, Silence()))
    said = " ".join(capsys.readouterr().out.split())
    assert "6 images to choose the best classifier by are few: a score says little then" in said
    assert "±" not in said
    print_survey(survey(DataConfig(source="folder", root=str(tmp_path), test=0.5), 0, Silence()))
    assert "are few: a score of 50 % is known to ±" in " ".join(capsys.readouterr().out.split())


def test_one_of_a_thing_is_said_in_the_singular() -> None:
    assert found_in_words({"held_out_only": 1, "near_duplicates": 0, "one_training_image": 1200}) == [
        "1,200 labels with one training image",
        "1 label without a training image",
    ]


@pytest.mark.slow
def test_a_run_that_would_work(nstudent: Callable[..., CompletedProcess[str]], photos: Path) -> None:
    done = nstudent("data", "check", *WORDS)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "divided (drawn): 43 to train on, 6 to choose by (validation), 12 to test on, 0 unlabelled" in said
    assert "level x: 2 classes ok 53, defect 8" in said
    assert "validation has few images of some classes: 1 of defect" in said
    assert "1 of 61 images that were opened cannot be read (ok/broken.png: " in said
    assert "networks: all can be trained at 32 px expected time: about " in said
    assert [path.name for path in photos.parent.iterdir()] == ["photos"], "nothing is made"


@pytest.mark.slow
def test_data_that_no_run_could_divide_are_shown_and_refused(
    nstudent: Callable[..., CompletedProcess[str]], photos: Path
) -> None:
    done = nstudent("data", "check", *WORDS, "data.test=500")
    assert done.returncode == 2
    assert "61 images" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("nstudent: the test split wants 500 images")


@pytest.mark.slow
def test_a_network_that_cannot_be_trained(nstudent: Callable[..., CompletedProcess[str]], photos: Path) -> None:
    done = nstudent("data", "check", *WORDS, "teacher.members=[{backbones: [vit_tiny_patch16_224]}]")
    assert done.returncode == 2
    assert "teacher.members.0: 'vit_tiny_patch16_224' does not take images of 32 px" in done.stderr
