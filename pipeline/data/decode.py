"""The one way from bytes to pixels. Training, labelling and prediction see the same image.

Each decoder fails in its own way: OpenCV turns the missing half of a truncated JPEG grey without a word, Pillow accepts
a PNG whose checksum is wrong and clips 16-bit images to white, and only simplejpeg in strict mode notices damaged
JPEG data. So: Pillow reads the header, simplejpeg the JPEGs, OpenCV the PNGs, Pillow the rest.
"""

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from nstudent.data import depths
from nstudent.data.image_cost import (
    FORMATS,
    MAX_PARTS,
    MeteredBytes,
    check_comments,
    check_inflated,
    check_scans,
    check_tiles,
)
from nstudent.data.sources.kinds import HEAD_BYTES, HEIC, INSTALL_HEIC, heic_is_read, is_decoded, kind_of
from nstudent.errors import ImageError, summary
from PIL import Image, ImageOps, UnidentifiedImageError

VERSION = 3
"""Raised when the same bytes should give other pixels; stands in every data artifact."""

MIN_SIDE_PX = 2
_BACKGROUND = 127
"""Transparent images are laid on middle grey."""

TOO_MUCH_MEMORY = "its decoder asks for more memory than an image of its size needs"
_ORIENTATION = 0x0112
_PNG_COLOUR, _PALETTE = 25, 3
"""Offset of the byte that says what a pixel is, and what it says of numbers in a palette."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PILLOW = threading.Lock()
if hasattr(os, "register_at_fork"):
    # A process that is forked while another thread decodes would wait for that thread, which it does not have.
    os.register_at_fork(before=_PILLOW.acquire, after_in_parent=_PILLOW.release, after_in_child=_PILLOW.release)

Pixels = npt.NDArray[np.uint8]


def decode(content: bytes, size_px: int, max_pixels: int, bits: int | None = None) -> Pixels:
    """Decode one image to a square.

    EXIF orientation is applied, transparency laid on grey, more than 8 bits scaled, the first frame taken of an
    animation; the centre is cut out and resized.

    Args:
        content: Bytes of the file.
        size_px: Side of the square.
        max_pixels: Larger images are refused from their header.
        bits: ``data.bits``: depth of images of more than 8 bits, where their file does not say it.

    Returns:
        uint8, (size_px, size_px, 3), RGB.

    Raises:
        ImageError: the bytes are not an image, are damaged, have more than ``max_pixels``, would cost a decoder more
            than a picture does (``data.image_cost``), or have a depth that cannot be told (``data.depths``).
    """
    try:
        metered = MeteredBytes(content)
        with _quiet(), Image.open(metered, formats=formats()) as header:
            metered.begin_body()
            _check_size(header.size, max_pixels)
            orientation = _orientation(header)
            kind, mode, transparent = header.format, header.mode, "transparency" in header.info
            _check_cost(header, content, max_pixels)
            if kind not in ("JPEG", "PNG") or mode not in ("RGB", "L") or transparent:
                pixels = _with_pillow(header, content, bits)
                # Asked again: Pillow has turned a TIFF while it loaded it.
                return square(_oriented(pixels, _orientation(header)), size_px)
        pixels = _jpeg(content, header.size, size_px) if kind == "JPEG" else _png(content, bits)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(_not_an_image(content)) from error
    except (Image.DecompressionBombError, cv2.error) as error:
        raise ImageError(_reason(error)) from error
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError) as error:
        raise ImageError(_reason(error)) from error
    except (RuntimeError, MemoryError, struct.error, zlib.error) as error:
        raise ImageError(_reason(error)) from error
    return square(_oriented(pixels, orientation), size_px)


def shorter_side(content: bytes) -> int:
    """The shorter side of an image that ``decode`` has read, in pixels, as its header says it."""
    with _quiet(), Image.open(MeteredBytes(content), formats=formats()) as header:
        return min(header.size)


def square(pixels: Pixels, size_px: int) -> Pixels:
    """Cut out the centre and resize it: uint8 (height, width[, 3]) -> (size_px, size_px, 3). Grey becomes RGB."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    pixels = pixels[top : top + side, left : left + side]
    if side != size_px:
        method = cv2.INTER_AREA if side > size_px else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(pixels, (size_px, size_px), interpolation=method), dtype=np.uint8)
    return np.ascontiguousarray(pixels)


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow without its warnings. Filters belong to the whole process: threads take turns to change them."""
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def formats() -> tuple[str, ...]:
    """Formats, by Pillow's names, that are read here; the first call loads what reads them."""
    if heic_is_read():
        import pi_heif  # an extra

        pi_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels are more than data.max_pixels ({max_pixels:,})")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"{width}x{height} pixels are too few")


def _check_cost(header: Image.Image, content: bytes, max_pixels: int) -> None:
    if header.format == "PNG":
        _check_png(content)
    elif header.format in ("JPEG", "MPO"):
        check_scans(content)
    elif header.format == "TIFF":
        check_tiles(header, max_pixels)
    elif header.format == "PPM":
        check_comments(content)


def _check_png(content: bytes) -> None:
    """Pillow shows black where a checksum is wrong, and says nothing."""
    at = len(_PNG_SIGNATURE)
    data: list[slice] = []
    has_palette = content[_PNG_COLOUR] != _PALETTE
    for _ in range(MAX_PARTS):
        if at >= len(content):
            raise ImageError("damaged PNG data: it is cut off")
        (length,) = struct.unpack(">I", content[at : at + 4])
        end = at + 8 + length
        (checksum,) = struct.unpack(">I", content[end : end + 4])
        if zlib.crc32(content[at + 4 : end]) != checksum:
            raise ImageError("damaged PNG data: a checksum is wrong")
        kind = content[at + 4 : at + 8]
        if kind == b"IEND":
            if not has_palette:
                raise ImageError("damaged PNG data: it has no palette")
            check_inflated(content, data)
            return
        has_palette = has_palette or kind == b"PLTE"
        if kind == b"IDAT":
            data.append(slice(at + 8, end))
        at = end + 4
    raise ImageError(f"a PNG of more than {MAX_PARTS:,} chunks")


def _jpeg(content: bytes, size: tuple[int, int], size_px: int) -> Pixels:
    # Scaled decoding: the DCT is inverted at 1/2, 1/4 or 1/8 where that is still twice the size asked for.
    least = 2 * size_px if min(size) >= 4 * size_px else 0
    array = simplejpeg.decode_jpeg(content, strict=True, min_height=least, min_width=least)
    return np.asarray(array, dtype=np.uint8)


def _png(content: bytes, bits: int | None) -> Pixels:
    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None:
        raise ImageError("damaged PNG data")
    pixels = np.asarray(array, dtype=np.uint8)
    return depths.colour(pixels, content, bits) if content[depths.PNG_DEPTH] > 8 else pixels


def _with_pillow(header: Image.Image, content: bytes, bits: int | None) -> Pixels:
    # The first frame, as OpenCV has it: an APNG can begin with a picture for those who show no animations.
    header.seek(int(getattr(header, "default_image", False)))
    depths.refuse_signed(header)
    declared = depths.declared_bits(header, content)
    header.load()
    if depths.is_wide(header):
        return depths.grey(header, content, bits)
    image: Image.Image = header
    if {"A", "a"} & set(header.getbands()) or "transparency" in header.info:
        image = depths.with_alpha(header, content)
    elif declared > 8 and header.mode not in ("RGB", "RGBX"):
        raise ImageError(f"{header.mode} with more than 8 bits a channel: convert it to 8 bits")
    else:
        image = header.convert("RGB")
    if declared > 8 and header.format == "JPEG2000":
        image = Image.fromarray(depths.colour_of_jpeg_2000(content, declared, bits))
    elif declared > 8:
        image = Image.fromarray(depths.colour(np.asarray(image), content, bits))
    if image.mode == "RGBA":
        below = Image.new("RGBA", image.size, (_BACKGROUND, _BACKGROUND, _BACKGROUND, 255))
        image = Image.alpha_composite(below, image).convert("RGB")
    return np.asarray(image)


def _orientation(image: Image.Image) -> int:
    """As EXIF says it; upright where that is damaged, which says nothing of the pixels."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error):
        return 1


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    if orientation == 1:
        return pixels
    turned = Image.fromarray(pixels)
    turned.getexif()[_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(turned))


def _not_an_image(content: bytes) -> str:
    if not content:
        return "the file is empty"
    kind = kind_of(content[:HEAD_BYTES])
    if kind == HEIC and not heic_is_read():
        return f"a HEIC image: {INSTALL_HEIC}, or convert it to JPEG"
    if kind is None:
        return "not an image, or of an unknown kind"
    if is_decoded(kind):
        return f"{kind} data that are damaged, or of channels or bits that are not read: save it as PNG"
    return f"{kind}, a kind of image that is not read"


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return TOO_MUCH_MEMORY
    return summary(error, 160) or type(error).__name__
