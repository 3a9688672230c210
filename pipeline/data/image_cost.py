"""What decoding an image may cost, known from its bytes before a decoder works on them.

Never from a clock: whether an image is taken must not depend on how busy the machine is. Beside the number of pixels
it is the scans of a progressive JPEG, each of which walks over all pixels for 200 bytes of file, and the parts that a
file is cut into, each of which Pillow reads in Python.
"""

import io
import re
import struct
import zlib
from collections.abc import Sequence

from nstudent.errors import ImageError
from PIL import Image

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "HEIF")
"""The formats, by Pillow's names, that are read. Others have costs that nobody has looked at, and EPS a program that
Pillow runs: Ghostscript, on PostScript of whoever made the file."""
MAX_SCANS = 100
"""Scans of a JPEG. Encoders write about ten; the standard allows some thousands, and damage any number."""
MAX_PARTS = 100_000
"""Segments of a JPEG and chunks of a PNG: one of 64 megapixels without any compression has 25,000."""
_HEADER_READS = 20_000
"""Reads that Pillow may make to find out what an image is. A photo takes some hundreds."""
_BODY_READS = 1_000_000
"""Reads that it may make for the pixels: one for each row of a large TIFF, and some more."""

MAX_COMMENTS = 1_000
"""Comments in a PPM whose numbers are text: Pillow copies up to a mebibyte for each of them."""
_INFLATED_ALONE = 8 << 20
"""Compressed bytes of a PNG above which it is checked that they hold no more than its pixels. The decoder inflates all
of them, up to a thousand bytes for each one; below this number of bytes that takes some seconds at most."""
_PIECE = 1 << 20
_CHANNELS_OF_PNG = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Number of channels by the colour type of a PNG."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323
"""Tags of TIFF."""

_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""A marker of a JPEG, in a header or behind compressed data, where neither stuffed bytes nor restarts are one."""
_START, _END, _TEMPORARY, _SCAN_CODE = 0xD8, 0xD9, 0x01, 0xDA


class MeteredBytes(io.BytesIO):
    """The bytes of an image, for Pillow, which may not read them in any number of pieces."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._left = _HEADER_READS

    def begin_body(self) -> None:
        """The header is read: from now on it is pixels."""
        self._left = _BODY_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes.

        Raises:
            ImageError: The image is cut into too many pieces.
        """
        self._left -= 1
        if self._left < 0:
            raise ImageError("it is cut into more pieces than an image needs")
        return super().read(size)


def check_scans(content: bytes) -> None:
    """Check that a JPEG has no more scans and segments than a picture needs.

    Raises:
        ImageError: It has.
    """
    # No scan begins without these two bytes, so that a file with few of them needs no second look.
    if content.count(_SCAN) <= MAX_SCANS:
        return
    at = scans = parts = 0
    while found := _MARKER.search(content, at):
        code, at = found[1][0], found.end()
        if code == _END:
            return
        if code in (_START, _TEMPORARY):
            continue
        parts += 1
        scans += code == _SCAN_CODE
        if scans > MAX_SCANS:
            raise ImageError(f"a JPEG of more than {MAX_SCANS} scans: save it again, as baseline")
        if parts > MAX_PARTS:
            raise ImageError(f"a JPEG of more than {MAX_PARTS:,} segments")
        at += int.from_bytes(content[at : at + 2], "big")


def check_comments(content: bytes) -> None:
    """Check that a PPM whose numbers are text has no more comments than a person writes.

    Raises:
        ImageError: It has.
    """
    if content[1:2] in b"123" and content.count(b"#") > MAX_COMMENTS:
        raise ImageError(f"a PPM of more than {MAX_COMMENTS:,} comments: save it as PNG")


def check_tiles(image: Image.Image, max_pixels: int) -> None:
    """Check that the tiles of an opened TIFF are no larger than an image may be: a decoder holds a whole one.

    Raises:
        ImageError: They are.
    """
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if width * length > max_pixels:
        raise ImageError(f"its tiles of {width}x{length} pixels are more than data.max_pixels ({max_pixels:,})")


def check_inflated(content: bytes, spans: Sequence[slice]) -> None:
    """Check that the compressed data of a PNG do not hold more than its pixels.

    Args:
        content: Bytes of the file.
        spans: Where its compressed data are, in their order.

    Raises:
        ImageError: They hold more.
    """
    if sum(span.stop - span.start for span in spans) <= _INFLATED_ALONE:
        return
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    # Each row begins with a byte that is no pixel, and interlaced images have up to twice as many rows.
    left = width * height * depth * _CHANNELS_OF_PNG.get(colour, 4) // 8 + 4 * height + 64
    inflater = zlib.decompressobj()
    for span in spans:
        for start in range(span.start, span.stop, _PIECE):
            piece = content[start : min(start + _PIECE, span.stop)]
            while piece:
                left -= len(inflater.decompress(piece, _PIECE))
                piece = inflater.unconsumed_tail
                if left < 0:
                    raise ImageError("its compressed data hold more than its pixels")
