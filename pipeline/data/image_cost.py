"""What decoding an image may cost, known from its bytes before a decoder works on them.

Never from a clock: whether an image is taken must not depend on how busy the machine is. Beside the number of pixels
it is the scans of a progressive JPEG, each of which walks over all pixels for 200 bytes of file, and the parts that a
file is cut into, each of which Pillow reads in Python.
"""

import io
import re

from nstudent.errors import ImageError

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
