"""A classifier takes images as people have them, and sees each as it would see the file."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.data.decode import decode
from nstudent.data.given_images import named_images
from nstudent.errors import ImageError
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    return path


GIVEN: dict[str, Callable[[Path], Any]] = {
    "text": str,
    "path": Path,
    "bytes": Path.read_bytes,
    "bytearray": lambda file: bytearray(file.read_bytes()),
    "memoryview": lambda file: memoryview(file.read_bytes()),
    "array": lambda file: PIXELS,
    "PIL image": lambda file: Image.fromarray(PIXELS),
    "opened file": Image.open,
}


@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("shape", [lambda one: one, lambda one: [one], lambda one: (each for each in (one,))])
def test_every_kind_of_image_is_seen_as_the_file_is(file: Path, kind: str, shape: Callable[[Any], Any]) -> None:
    (image,) = named_images(shape(GIVEN[kind](file)))
    assert (decode(image.content(), 8, 10_000) == decode(file.read_bytes(), 8, 10_000)).all()
    assert image.name == (str(file) if kind in ("text", "path") else "#0")


@pytest.mark.parametrize("name", ["./a.png", "x//a.png", "https://host/a.png", "-a.png", "~/a.png"])
def test_a_path_is_named_as_it_was_given(name: str) -> None:
    assert [image.name for image in named_images([name])] == [name]


def test_one_array_of_several_images() -> None:
    images = list(named_images(np.stack([PIXELS, 255 - PIXELS])))
    assert [image.name for image in images] == ["#0", "#1"]
    assert (decode(images[1].content(), 12, 10_000)[:, 2:-2] == (255 - PIXELS)[:, 4:-4]).all()


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 1), (9, 9, 3), (9, 9, 4)])
def test_shapes_of_arrays(shape: tuple[int, ...]) -> None:
    (image,) = named_images(np.full(shape, 255, np.uint8))
    assert (decode(image.content(), 9, 100) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"])
def test_modes_of_pil_images(mode: str) -> None:
    plain = Image.fromarray(PIXELS)
    image = Image.fromarray(np.full((12, 16), 60_000, np.uint16)) if mode == "I;16" else plain.convert(mode)
    (given,) = named_images(image)
    assert decode(given.content(), 8, 10_000).shape == (8, 8, 3)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBa", "La"])
def test_modes_that_no_format_keeps_are_seen_in_their_colours(mode: str) -> None:
    steps = {"RGBa": ("RGBA", "RGBa"), "La": ("LA", "La")}.get(mode, (mode,))
    image = plain = Image.fromarray(PIXELS)
    for step in steps:
        image = image.convert(step)
    (given,) = named_images(image)
    seen = decode(given.content(), 12, 10_000).astype(int)
    expected = np.asarray(plain.convert("L" if mode == "La" else "RGB").convert("RGB"))[:, 2:-2].astype(int)
    assert abs(seen - expected).max() <= 8


def test_an_image_that_was_turned_in_memory_is_not_turned_again(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif, quality=100)
    (file,) = named_images(tmp_path / "a.jpg")
    (opened,) = named_images(Image.open(tmp_path / "a.jpg"))
    near = np.abs(decode(file.content(), 8, 10_000).astype(int) - decode(opened.content(), 8, 10_000))
    assert near.max() <= 2


def test_a_folder_is_all_images_below_it(file: Path) -> None:
    for name in ("b/c.jpg", "b/d/e.png", "notes.txt", ".hidden.png"):
        (file.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (file.parent / name).write_bytes(file.read_bytes())
    (file.parent / "notes.txt").write_text("no image")
    names = [os.path.relpath(image.name, file.parent) for image in named_images([str(file.parent), file])]
    assert names == ["a.png", "b/c.jpg", "b/d/e.png", "a.png"]


def test_a_folder_without_an_image(tmp_path: Path) -> None:
    (image,) = named_images(tmp_path)
    with pytest.raises(ImageError, match="holds no image"):
        image.content()
    assert image.name == str(tmp_path)


@pytest.mark.parametrize(
    "given",
    [
        *(None, 3, 2.5, True, object(), {"a.png": 1}, [None], [["a.png"]], [3], ["a.png", None], [b"x", 2]),
        *(np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((4,), np.uint8), np.zeros((4, 4), np.int64)),
        *(np.array(None), os.PathLike, io.BytesIO),
    ],
    # Not `repr`: the address of an object would give the test another name in every process.
    ids=lambda given: repr(given).split(" at 0x")[0],
)
def test_anything_else_is_a_type_error_that_says_what_is_taken(given: Any) -> None:
    with pytest.raises(TypeError, match=r"predict takes the path of an image .*bytes .*PIL image.*uint8 array"):
        list(named_images(given))
