"""Images as a caller of a classifier has them: files, folders, encoded bytes, PIL images or arrays, one or many."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from nstudent.data.sources.listing import images_below
from nstudent.data.sources.source import read_once
from nstudent.errors import DataError, ImageError
from PIL import Image

GivenImage: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | npt.NDArray[np.uint8]"
"""A file, a folder of them, the bytes of a file, or an image in memory."""

_TAKEN = (
    "predict takes the path of an image or of a folder of images, the bytes of an image file, a PIL image, a uint8 "
    "array (height, width) or (height, width, 3), or several of these"
)
_AS_PNG = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""Modes of PIL images that PNG keeps as they are; TIFF keeps the others."""
_AS_ANOTHER = {"YCbCr": "RGB", "HSV": "RGB", "RGBa": "RGBA", "La": "LA"}
"""Modes that no format keeps, or that Pillow reads back differently, and those that they are saved in."""


@dataclass(frozen=True)
class NamedImage:
    """An image that is yet to be read."""

    name: str
    """Its path as it was given, or its number among those that were given."""
    content: Callable[[], bytes]
    """Gives the bytes of a file that holds it, in any process; it raises what reading that file raises."""


@dataclass(frozen=True)
class _Given:
    """Reads images as they were given (``data.packing.decoders.Readable``)."""

    encoded: bool = True

    def read(self, image: NamedImage, /) -> bytes:
        """The bytes of a file that holds the image.

        Raises:
            ImageError: They cannot be read.
        """
        try:
            return image.content()
        except OSError as error:
            raise ImageError(error.strerror or str(error)) from error
        except ValueError as error:
            # A path may hold what no path can (a null byte).
            raise ImageError(str(error)) from error


GIVEN = _Given()


def named_images(images: GivenImage | Iterable[GivenImage]) -> Iterator[NamedImage]:
    """Every image of what was given, in its order; the images of a folder in the order of their paths.

    Raises:
        TypeError: Something of it is no image; the message says what is taken.
    """
    for number, given in enumerate(_each(images)):
        if isinstance(given, str | os.PathLike):
            yield from _at_path(os.fspath(given))
        elif isinstance(given, bytes | bytearray | memoryview):
            content = bytes(given)
            yield NamedImage(f"#{number}", partial(bytes, content))
        elif isinstance(given, Image.Image | np.ndarray):
            yield NamedImage(f"#{number}", _encoded(given, number))
        else:
            raise TypeError(f"{_TAKEN}; image {number} is of type {type(given).__name__}")


def _each(images: Any) -> Iterable[Any]:
    one = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    if isinstance(images, one) or (isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype != object):
        return [images]
    if isinstance(images, Mapping) or not isinstance(images, Iterable) or getattr(images, "ndim", 1) == 0:
        raise TypeError(f"{_TAKEN}; this is of type {type(images).__name__}")
    return images


def _at_path(path: Any) -> Iterator[NamedImage]:
    if not isinstance(path, str):
        raise TypeError(f"{_TAKEN}; a path is text, this one is of type {type(path).__name__}")
    if not os.path.isdir(path):
        # Absolute, for the process that reads it may have begun in another working folder.
        yield NamedImage(path, partial(read_once, os.path.abspath(path)))
        return
    try:
        found = images_below(Path(path))
        why = "a folder that holds no image"
    except DataError as error:
        found, why = [], str(error)
    for file in found:
        yield NamedImage(str(file), partial(read_once, file.absolute()))
    if not found:
        yield NamedImage(path, partial(_unreadable, why))


def _unreadable(why: str) -> bytes:
    raise ImageError(why)


def _encoded(image: Image.Image | npt.NDArray[Any], number: int) -> Callable[[], bytes]:
    """The image as the bytes of a file without loss, so that it is seen as the same image on disk would be.

    A PIL image that is not loaded yet is decoded for that by Pillow, here, as its owner would have it.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            raise TypeError(f"{_TAKEN}; image {number} is an array of {image.dtype} with shape {image.shape}")
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    buffer = io.BytesIO()
    try:
        kept = image.convert(_AS_ANOTHER[image.mode]) if image.mode in _AS_ANOTHER else image
        form = {"format": "PNG", "compress_level": 1} if kept.mode in _AS_PNG else {"format": "TIFF"}
        kept.save(buffer, exif=image.getexif(), **form)
    except (OSError, ValueError) as error:
        # It may have been closed, or its file be damaged.
        return partial(_unreadable, str(error))
    return partial(bytes, buffer.getvalue())
