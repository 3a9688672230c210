"""Images with more than 8 bits a channel as 8 bits: scaled by what white is in their file, or refused with the reason.

A file of 16 bits does not say how many of them are used. A camera's 12 bits in it would come out nearly black, and a
dark image that uses all 16 would come out bright if it were taken for one of 12: where only ``data.bits`` could tell,
and does not, the image is refused.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from nstudent.errors import ImageError
from PIL import Image

Pixels = npt.NDArray[np.uint8]
_Values = npt.NDArray[Any]
"""Numbers as the file has them."""

_FULL = 65_535
_LEAST_OF_FULL = 16_384
"""Largest value from which an image of 16 bits is taken to use all of them: it reaches the second quarter."""
_BACKGROUND = 127
_ROWS = 64

PNG_DEPTH = 24
"""Offset of the byte of a PNG that says how many bits a channel has."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF."""
_WHITE_IS_ZERO, _SIGNED = 0, 2


def declared_bits(image: Image.Image, content: bytes) -> int:
    """Bits a channel of an opened image, as its file says; 8 where that is what its decoder makes of any depth."""
    if image.format == "PNG":
        return content[PNG_DEPTH]
    if image.format == "TIFF":
        return max(_tag(image, _BITS_PER_SAMPLE, 1))
    if image.format == "JPEG2000":
        # SIZ follows the start of the codestream; its 41st byte is the depth of the first channel, less one.
        at = content.find(b"\xff\x4f\xff\x51") + 42
        return (content[at] & 0x7F) + 1 if 42 <= at < len(content) else 8
    return 16 if image.mode.startswith("I") else 8


def is_wide(image: Image.Image) -> bool:
    """Whether Pillow gives one channel of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def refuse_signed(image: Image.Image) -> None:
    """Refuse a TIFF with signed numbers of 8 or 16 bits, which would be read as if they had no sign.

    Raises:
        ImageError: It is one.
    """
    if image.format == "TIFF" and _SIGNED in _tag(image, _SAMPLE_FORMAT, 1):
        bits = max(_tag(image, _BITS_PER_SAMPLE, 1))
        if bits < 32:
            raise ImageError(f"a TIFF of signed {bits}-bit numbers: convert it to 8 bits")


def grey(image: Image.Image, content: bytes, bits: int | None) -> Pixels:
    """The one channel of a loaded image that ``is_wide``: uint8 (height, width).

    Args:
        image: The image.
        content: Bytes of its file.
        bits: ``data.bits``.

    Raises:
        ImageError: It cannot be told what white is.
    """
    values: _Values = np.asarray(image)
    if image.mode == "F" and not np.isfinite(values).all():
        raise ImageError("it has numbers that are not finite: convert it to 8 bits")
    white = _white_of_floats(values, bits) if image.mode == "F" else _white_of_integers(image, content, values, bits)
    pixels = _scaled(values, white)
    if image.format == "TIFF" and _tag(image, _PHOTOMETRIC, 1) == (_WHITE_IS_ZERO,):
        pixels = 255 - pixels
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        pixels[values == transparent] = _BACKGROUND
    return pixels


def colour(pixels: Pixels, content: bytes, bits: int | None) -> Pixels:
    """Channels of 16 bits as 8 bits, where the decoder has kept the upper half of each.

    Args:
        pixels: What it has kept: uint8 (height, width, channels), the last of four is alpha.
        content: Bytes of the file.
        bits: ``data.bits``.

    Raises:
        ImageError: It cannot be told what white is.
    """
    if bits in (None, 16) and (bits == 16 or 256 * int(pixels[..., :3].max()) >= _LEAST_OF_FULL):
        return pixels
    values = _as_it_is(content)
    return _scaled(values, _white(values[..., :3], bits, 16))


def colour_of_jpeg_2000(content: bytes, declared: int, bits: int | None) -> Pixels:
    """Channels of more than 8 bits as 8 bits: Pillow 13 rounds white up to 256, which is black in a byte.

    Args:
        content: Bytes of the file.
        declared: Bits a channel, as the file says.
        bits: ``data.bits``.

    Raises:
        ImageError: It cannot be told what white is, or the channels are not those of a colour image.
    """
    values = _as_it_is(content)
    return _scaled(values, float(2**declared - 1) if declared < 16 else _white(values[..., :3], bits, declared))


def with_alpha(image: Image.Image, content: bytes) -> Image.Image:
    """A loaded image that has transparency, as RGBA.

    A PNG without alpha can name one colour as transparent, in numbers of its own depth. Pillow compares them with
    pixels that it has scaled to 8 bits, and would leave the colour as it is, or take another one for it.

    Args:
        image: The image.
        content: Bytes of its file.

    Raises:
        ImageError: It has channels of 16 bits that are not read.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB") or content[PNG_DEPTH] == 8:
        return image.convert("RGBA")
    if image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2 ** content[PNG_DEPTH] - 1)
        return image.convert("RGBA")
    colours = image.convert("RGB")
    colours.putalpha(Image.fromarray((_as_it_is(content)[..., 3] >> 8).astype(np.uint8)))
    return colours


def _as_it_is(content: bytes) -> _Values:
    """Red, green, blue and alpha if there is one, as the file has them: (height, width, channels)."""
    log = cv2.utils.logging
    before = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    finally:
        log.setLogLevel(before)
    if found is None or found.ndim != 3 or found.shape[2] not in (3, 4) or found.dtype != np.uint16:
        raise ImageError("channels of more than 8 bits that are not read: convert it to 8 bits")
    return np.asarray(found)[..., [2, 1, 0, *range(3, found.shape[2])]]


def _scaled(values: _Values, white: float) -> Pixels:
    pixels = np.empty(values.shape, dtype=np.uint8)
    # Some rows at a time: as floating-point numbers all of them would take many times the memory of the image.
    for first in range(0, len(values), _ROWS):
        rows = slice(first, first + _ROWS)
        pixels[rows] = np.clip(np.rint(values[rows] / (white / 255)), 0, 255)
    return pixels


def _white_of_floats(values: _Values, bits: int | None) -> float:
    least, most = float(values.min()), float(values.max())
    if least >= 0 and most <= 1:
        return 1.0
    if bits is not None:
        return _white(values, bits, 32)
    if least < 0 or not _LEAST_OF_FULL / 256 <= most <= 255:
        raise ImageError(
            f"floating-point numbers from {least:g} to {most:g}, neither 0 to 1 nor 0 to 255: set data.bits (16 for "
            "white at 65,535), or convert it to 8 bits"
        )
    return 255.0


def _white_of_integers(image: Image.Image, content: bytes, values: _Values, bits: int | None) -> float:
    declared = declared_bits(image, content)
    if image.format == "PPM" or (image.format == "JPEG2000" and declared < 16):
        # Pillow has scaled them by the largest value that the file gives.
        return _FULL
    if 8 < declared < 16:
        return float(2**declared - 1)
    if declared > 16 and bits is None and values.min() >= 0 and values.max() <= 255:
        # Nothing but 8 bits is kept in 32 by those who have 8 bits: the arrays of programs are of this type.
        return 255.0
    return _white(values, bits, declared)


def _white(values: _Values, bits: int | None, declared: int) -> float:
    least, most = int(values.min()), int(values.max())
    white = _FULL if bits is None else 2**bits - 1
    if least < 0 or most > white:
        said = "16 bits" if bits is None else f"data.bits={bits}"
        raise ImageError(f"{declared}-bit numbers from {least:,} to {most:,}, out of the range of {said}")
    if bits is None and 0 < most < _LEAST_OF_FULL:
        raise ImageError(
            f"{declared}-bit numbers up to {most:,} alone, so that it cannot be told what white is: set data.bits "
            f"(12 for white at 4,095, 16 if it is a dark image), or convert it to 8 bits"
        )
    return float(white)


def _tag(image: Image.Image, number: int, default: int) -> tuple[int, ...]:
    tags = getattr(image, "tag_v2", {})
    found = tags.get(number, default)
    return tuple(found) if isinstance(found, tuple) else (int(found),)
