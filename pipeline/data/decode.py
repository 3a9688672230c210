"""The one way from bytes to pixels. Training, labelling and prediction see the same image.

Each decoder fails in its own way: OpenCV turns the missing half of a truncated JPEG grey without a word, Pillow accepts
a PNG whose checksum is wrong and clips 16-bit images to white, and only simplejpeg in strict mode notices damaged
JPEG data. So: Pillow reads the header, simplejpeg the JPEGs, OpenCV the PNGs, Pillow the rest.
"""

import io
import warnings

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from nstudent.errors import ImageError
from PIL import Image, ImageOps

VERSION = 1
"""Raised when the same bytes should give other pixels; stands in every data artifact."""

MIN_SIDE_PX = 2
_BACKGROUND = 127
"""Transparent images are laid on middle grey."""

Pixels = npt.NDArray[np.uint8]


def decode(content: bytes, size_px: int, max_pixels: int) -> Pixels:
    """Decode one image to a square.

    EXIF orientation is applied, transparency laid on grey, 16-bit scaled, the first frame taken of an animation; the
    shorter side becomes ``size_px`` and the centre is cut out.

    Returns:
        uint8, (size_px, size_px, 3), RGB.

    Raises:
        ImageError: the bytes are not an image, are damaged, or have more than ``max_pixels``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as header:
                _check_size(header.size, max_pixels)
                pixels = _pixels(content, header, size_px)
                orientation = header.getexif().get(0x0112, 1)
    except ImageError:
        raise
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        TypeError,
        KeyError,
        OverflowError,
        MemoryError,
    ) as error:
        raise ImageError(_reason(content, error)) from error
    except (Image.DecompressionBombError, cv2.error) as error:
        raise ImageError(_reason(content, error)) from error
    return square(_oriented(pixels, orientation), size_px)


def square(pixels: Pixels, size_px: int) -> Pixels:
    """Resize so that the shorter side is ``size_px``, and cut out the centre. Grey becomes RGB."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    height, width = pixels.shape[:2]
    if (height, width) != (size_px, size_px):
        scale = size_px / min(height, width)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        new = (max(size_px, round(width * scale)), max(size_px, round(height * scale)))
        pixels = cv2.resize(pixels, new, interpolation=method)
    top, left = (pixels.shape[0] - size_px) // 2, (pixels.shape[1] - size_px) // 2
    return np.ascontiguousarray(pixels[top : top + size_px, left : left + size_px])


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels are more than data.max_pixels ({max_pixels:,})")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"{width}x{height} pixels are too few")


def _pixels(content: bytes, header: Image.Image, size_px: int) -> Pixels:
    if header.format == "JPEG" and header.mode in ("RGB", "L"):
        # Scaled decoding: the DCT is inverted at 1/2, 1/4 or 1/8 where that is still twice the size asked for.
        least = 2 * size_px if min(header.size) >= 4 * size_px else 0
        array = simplejpeg.decode_jpeg(content, strict=True, min_height=least, min_width=least)
        return np.asarray(array, dtype=np.uint8)
    if header.format == "PNG" and not _sixteen_bit(header) and header.mode in ("RGB", "L"):
        array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if array is None:
            raise ImageError("damaged PNG data")
        return np.asarray(array, dtype=np.uint8)
    header.seek(0)
    header.load()
    if _sixteen_bit(header):
        wide = np.asarray(header, dtype=np.float64)
        return np.clip(np.rint(wide / 257.0), 0, 255).astype(np.uint8)
    if "A" in header.getbands() or "transparency" in header.info:
        image = header.convert("RGBA")
        below = Image.new("RGBA", image.size, (_BACKGROUND, _BACKGROUND, _BACKGROUND, 255))
        return np.asarray(Image.alpha_composite(below, image).convert("RGB"))
    return np.asarray(header.convert("RGB"))


def _sixteen_bit(header: Image.Image) -> bool:
    return header.mode.startswith("I")


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    if orientation == 1:
        return pixels
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(turned))


def _reason(content: bytes, error: Exception) -> str:
    if not content:
        return "the file is empty"
    return " ".join(str(error).split())[:160] or type(error).__name__
