"""A look at a source: what it counts, and what it finds odd."""

import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data import survey as module
from nstudent.data.packing import decoders, reader
from nstudent.data.survey import Survey, survey
from nstudent.errors import DataError
from nstudent.progress import Silence
from PIL import Image


def _image(path: Path, number: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number in range(12):
        _image(root / "fruit" / "apple" / f"{number}.png", number)
    for number in range(8):
        _image(root / "fruit" / "pear" / f"{number}.png", 100 + number)
    for number in range(3):
        _image(root / "tin" / f"{number}.png", 200 + number, (90, 20))
    for number in range(4):
        _image(root.parent / "heap" / "deep" / f"{number}.png", 300 + number)
    return root


def _survey(root: Path, **keys: object) -> Survey:
    config = DataConfig.model_validate(
        {"source": "folder", "root": str(root), "unlabelled_root": str(root.parent / "heap"), **keys}
    )
    return survey(config, 0, Silence())


def test_images_are_counted_by_class_at_every_level(root: Path) -> None:
    found = _survey(root)
    assert (found.images, found.labelled) == (27, 23)
    coarse, fine = found.levels
    assert (coarse.level, dict(coarse.images), coarse.absent) == ("coarse", {"fruit": 20, "tin": 3}, 0)
    assert (fine.level, dict(fine.images), fine.absent) == ("fine", {"apple": 12, "pear": 8}, 3)
    assert (found.sample.opened, found.sample.side) == (27, 30)
    assert found.rare == ("tin",)


def test_the_division_is_that_of_a_run(root: Path) -> None:
    found = _survey(root, test=5, validation=4, labelled=6)
    assert found.splits == {"train": 6, "validation": 4, "test": 5, "unlabelled": 12}
    assert found.given_splits == {"unlabelled"}
    assert found.no_splits == ""


def test_a_division_that_is_not_possible_is_said_and_stops_nothing(root: Path) -> None:
    found = _survey(root, test=500)
    assert found.splits == {}
    assert "lower data.test" in found.no_splits


def test_a_level_that_nobody_said_is_counted_apart_from_one_that_is_absent(tmp_path: Path) -> None:
    for number in range(6):
        _image(tmp_path / f"{number}.png", number)
    rows = ["a,x,p", "a,x,q", "a,x,", "a,-,-", "b,y,r", ",,"]
    (tmp_path / "t.csv").write_text(
        "path,coarse,mid,fine\n" + "".join(f"{i}.png,{row}\n" for i, row in enumerate(rows))
    )
    config = DataConfig(source="csv", root=str(tmp_path), table="t.csv")
    found = survey(config, 0, Silence())
    assert [(each.absent, each.unknown) for each in found.levels] == [(0, 0), (1, 0), (1, 1)]
    assert found.labelled == 5


def test_files_that_are_not_taken_and_images_that_cannot_be_read_are_named(root: Path) -> None:
    (root / "fruit" / "notes.txt").write_text("x")
    broken = root / "tin" / "broken.png"
    broken.write_bytes((root / "tin" / "0.png").read_bytes()[:200])
    found = _survey(root)
    assert [each.name for each in found.passed_over] == ["fruit/notes.txt"]
    assert list(found.sample.unreadable) == ["tin/broken.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the time of a process is not limited")
def test_an_image_whose_decoder_has_no_end_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless, decode = (root / "tin" / "1.png").read_bytes(), reader.decode

    def patched(content: bytes, *given: Any) -> np.ndarray:
        while content == endless:
            pass
        return decode(content, *given)

    monkeypatch.setattr(reader, "decode", patched)
    monkeypatch.setattr(decoders, "IMAGE_CPU_SECONDS", 0.2)
    found = _survey(root)
    assert found.sample.unreadable == {"tin/1.png": "its decoder has not ended after 300 s of processor time"}


def test_copies_are_found_wherever_they_lie_and_contradictions_among_them(root: Path) -> None:
    apple = (root / "fruit" / "apple" / "0.png").read_bytes()
    (root.parent / "heap" / "copy.png").write_bytes(apple)
    found = _survey(root)
    assert (found.copies, found.contradictions) == (1, ())
    (root / "tin" / "apple.png").write_bytes(apple)
    found = _survey(root)
    assert found.copies == 2
    assert [set(pair) for pair in found.contradictions] == [{"fruit/apple/0.png", "tin/apple.png"}]
    # The heap is nobody's test.
    assert found.leaks == ()


def test_equal_images_in_two_splits_of_the_source_are_named(root: Path) -> None:
    numbers = count(400)
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(3):
                _image(root.parent / "split" / part / name / f"{part}{number}.png", next(numbers))
    leak = root.parent / "split" / "val" / "cat" / "leak.png"
    leak.write_bytes((root.parent / "split" / "train" / "cat" / "train0.png").read_bytes())
    found = _survey(root.parent / "split")
    assert [{Path(name).name for name in pair} for pair in found.leaks] == [{"leak.png", "train0.png"}]
    assert found.given_splits == {"train", "validation", "unlabelled"}


def test_of_many_images_some_are_opened_evenly(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_OPENED", 5)
    (root.parent / "heap" / "zzz.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = _survey(root)
    assert found.sample.opened == 5
    # The last one is among them.
    assert list(found.sample.unreadable) == ["unlabelled:zzz.png"]


def test_pixels_without_a_file_are_compared_too_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = survey(DataConfig(), 0, Silence())
    assert (found.images, found.copies, found.sample.side) == (1797, 0, 8)
    assert found.splits["train"] == 100
    monkeypatch.setattr(module, "_MOST_COMPARED", 1000)
    assert survey(DataConfig(), 0, Silence()).copies == -1


def test_labels_that_fit_no_tree_are_an_error(tmp_path: Path) -> None:
    _image(tmp_path / "a" / "0.png", 0)
    with pytest.raises(DataError):
        _survey(tmp_path / "nowhere")
