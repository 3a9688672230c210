"""Every pixel mode and bit depth comes out from black to white, or is refused by name."""

import base64
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from nstudent.data.decode import decode
from nstudent.data.sources.kinds import heic_is_read
from nstudent.errors import ImageError
from PIL import Image

SIDE = 16
RAMP = np.kron(np.arange(16).reshape(4, 4), np.ones((4, 4))) / 15
"""Sixteen greys from 0 to 1, each in a block."""
GREYS = np.rint(RAMP * 255).astype(int)


def saved(pixels: npt.NDArray[Any] | Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, form)
    return buffer.getvalue()


def encoded(pixels: npt.NDArray[Any], suffix: str) -> bytes:
    content: bytes = cv2.imencode(suffix, pixels)[1].tobytes()
    return content


def retagged(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag that holds one short number."""
    changed = bytearray(content)
    (at,) = struct.unpack_from("<I", content, 4)
    for entry in range(struct.unpack_from("<H", content, at)[0]):
        if struct.unpack_from("<H", content, at + 2 + 12 * entry)[0] == tag:
            struct.pack_into("<H", changed, at + 2 + 12 * entry + 8, value)
    return bytes(changed)


def shown(content: bytes, bits: int | None = None) -> npt.NDArray[np.int64]:
    """The greys of an image, which has to be grey."""
    pixels = decode(content, SIDE, 5_000, bits).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def grey_and_alpha(values: npt.NDArray[np.uint16]) -> bytes:
    """An opaque PNG of two channels of 16 bits, which no library here writes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = np.dstack([values, np.full_like(values, 65_535)]).astype(">u2")
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 4, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def sixteen(bits: int, form: str) -> bytes:
    """The ramp with so many bits in a file of 16 bits a channel."""
    values = np.rint(RAMP * (2**bits - 1)).astype(np.uint16)
    colours = np.repeat(values[:, :, None], 3, axis=2)
    opaque = np.dstack([colours, np.full(values.shape, 65_535, np.uint16)])
    return {
        "grey TIFF": lambda: saved(values, "TIFF"),
        "grey TIFF, other end first": lambda: saved(Image.fromarray(values.astype(">u2")), "TIFF"),
        "grey PNG": lambda: saved(values, "PNG"),
        "grey JPEG 2000": lambda: saved(values, "JPEG2000"),
        "32 bits": lambda: saved(values.astype(np.int32), "TIFF"),
        "RGB PNG": lambda: encoded(colours, ".png"),
        "RGB TIFF": lambda: encoded(colours, ".tif"),
        "RGBA PNG": lambda: encoded(opaque, ".png"),
        "RGBA TIFF": lambda: encoded(opaque, ".tif"),
        # Tiles of this library have to be larger.
        "RGB JPEG 2000": lambda: encoded(np.kron(colours, np.ones((4, 4, 1), np.uint16)), ".jp2"),
        "grey and alpha PNG": lambda: grey_and_alpha(values),
    }[form]()


FORMS = [
    *("grey TIFF", "grey TIFF, other end first", "grey PNG", "grey JPEG 2000", "32 bits"),
    *("RGB PNG", "RGB TIFF", "RGBA PNG", "RGBA TIFF", "RGB JPEG 2000", "grey and alpha PNG"),
]


@pytest.mark.parametrize("form", FORMS)
def test_sixteen_bits_come_out_from_black_to_white(form: str) -> None:
    assert np.abs(shown(sixteen(16, form)) - GREYS).max() <= 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_fewer_bits_than_the_file_has_are_refused_unless_they_are_told(form: str, bits: int) -> None:
    content = sixteen(bits, form)

    with pytest.raises(ImageError, match=rf"numbers up to {2**bits - 1:,} alone, .* set data\.bits"):
        decode(content, SIDE, 5_000)
    assert np.abs(shown(content, bits) - GREYS).max() <= 1


@pytest.mark.parametrize("form", FORMS)
def test_a_dark_image_of_all_bits_is_dark_where_that_is_told(form: str) -> None:
    assert np.abs(shown(sixteen(12, form), 16) - GREYS / 16).max() <= 1


@pytest.mark.parametrize("form", FORMS)
def test_more_than_the_bits_that_are_told_is_refused(form: str) -> None:
    with pytest.raises(ImageError, match=r"out of the range of data\.bits=12"):
        decode(sixteen(16, form), SIDE, 5_000, 12)


@pytest.mark.parametrize("form", FORMS)
def test_a_black_image_is_black_at_any_depth(form: str) -> None:
    assert (shown(sixteen(0, form)) == 0).all()


@pytest.mark.parametrize("bits", [None, 12, 16])
def test_images_of_eight_bits_are_the_same_whatever_is_told_of_others(bits: int | None) -> None:
    for form in ("PNG", "TIFF", "BMP", "GIF"):
        assert (shown(saved(GREYS.astype(np.uint8), form), bits) == GREYS).all()


def test_eight_bits_in_an_array_of_thirty_two_are_eight_bits() -> None:
    assert (shown(saved(GREYS.astype(np.int32), "TIFF")) == GREYS).all()


@pytest.mark.parametrize(("least", "most"), [(-20, 200), (0, 70_000), (0, 2_000_000_000)])
def test_integers_out_of_range_are_refused_with_their_range(least: int, most: int) -> None:
    with pytest.raises(ImageError, match=f"from {least:,} to {most:,}, out of the range of 16 bits"):
        decode(saved((least + RAMP * (most - least)).astype(np.int32), "TIFF"), SIDE, 1_000)


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_floating_point_from_0_to_1_and_from_0_to_255(white: float) -> None:
    assert np.abs(shown(saved((RAMP * white).astype(np.float32), "TIFF")) - GREYS).max() <= 1


def test_other_floating_point_is_refused_unless_its_white_is_told() -> None:
    content = saved((RAMP * 4_095).astype(np.float32), "TIFF")

    with pytest.raises(ImageError, match=r"floating-point numbers from 0 to 4095, neither 0 to 1 nor 0 to 255: set"):
        decode(content, SIDE, 1_000)
    assert np.abs(shown(content, 12) - GREYS).max() <= 1


@pytest.mark.parametrize("low", [-1.0, np.nan, np.inf])
def test_floating_point_below_zero_or_not_finite_is_refused(low: float) -> None:
    values = np.where(RAMP == 0, low, RAMP).astype(np.float32)

    with pytest.raises(ImageError, match=r"floating-point numbers from -1|not finite"):
        decode(saved(values, "TIFF"), SIDE, 1_000)


@pytest.mark.parametrize("white", [255, 511, 1_023, 4_095, 16_383, 65_535])
def test_a_file_that_says_what_white_is_is_read_by_that(white: int) -> None:
    values = np.rint(RAMP * white)
    pixels = values.astype(">u2").tobytes() if white > 255 else values.astype(np.uint8).tobytes()

    assert np.abs(shown(f"P5 {SIDE} {SIDE} {white}\n".encode() + pixels) - GREYS).max() <= 1
    assert np.abs(shown(f"P5 {SIDE} {SIDE} {white}\n".encode() + pixels, 14) - GREYS).max() <= 1


def test_packed_twelve_bits_are_what_the_file_says() -> None:
    values = np.rint(RAMP * 4_095).astype(int).reshape(-1, 2)
    packed = b"".join(bytes([one >> 4, (one & 15) << 4 | other >> 8, other & 255]) for one, other in values.tolist())
    entries = [(256, SIDE), (257, SIDE), (258, 12), (259, 1), (262, 1), (277, 1), (278, SIDE)]
    longs = [(273, 8 + 2 + 12 * 9 + 4), (279, len(packed))]
    tags = sorted([(tag, 3, value) for tag, value in entries] + [(tag, 4, value) for tag, value in longs])
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4) + packed

    assert np.abs(shown(content) - GREYS).max() <= 1


@pytest.mark.parametrize("pixels", [(RAMP * 65_535).astype(np.uint16), RAMP.astype(np.float32), GREYS.astype(np.uint8)])
def test_where_white_is_zero_it_is_turned(pixels: npt.NDArray[Any]) -> None:
    assert np.abs(shown(retagged(saved(pixels, "TIFF"), 262, 0)) - (255 - GREYS)).max() <= 1


def test_signed_bytes_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(GREYS.astype(np.uint8)).save(buffer, "TIFF", tiffinfo={339: 2})

    with pytest.raises(ImageError, match="a TIFF of signed 8-bit numbers"):
        decode(buffer.getvalue(), SIDE, 1_000)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        *((mode, form) for mode in ("1", "L", "P", "LA", "RGB", "RGBA") for form in ("TIFF", "PNG", "WEBP", "GIF")),
        *(("PA", "TIFF"), ("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "JPEG"), ("LA", "JPEG2000")),
    ],
)
def test_every_mode_of_eight_bits_comes_out_from_black_to_white(mode: str, form: str) -> None:
    image = Image.fromarray(GREYS.astype(np.uint8)).convert("RGB").convert(mode)

    pixels = decode(saved(image, form), SIDE, 1_000).astype(int)

    assert pixels[0, 0].max() <= 8
    assert pixels[-1, -1].min() >= 247


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_a_pixel_are_scaled(depth: int) -> None:
    values = np.rint(RAMP * (2**depth - 1)).astype(np.uint8)
    content = encoded(values * (255 // (2**depth - 1)), ".png")
    few = io.BytesIO()
    Image.open(io.BytesIO(content)).quantize(2**depth).save(few, "PNG", bits=depth)

    assert (shown(few.getvalue()) == values.astype(int) * (255 // (2**depth - 1))).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparency_is_laid_on_grey(mode: str) -> None:
    image = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **({"transparency": image.getpixel((0, 0))} if mode == "P" else {}))

    assert (decode(buffer.getvalue(), SIDE, 1_000) == 127).all()


def test_the_transparent_value_of_a_grey_image_of_sixteen_bits_is_laid_on_grey() -> None:
    buffer = io.BytesIO()
    Image.fromarray((RAMP * 65_535).astype(np.uint16)).save(buffer, "PNG", transparency=65_535)

    greys = shown(buffer.getvalue())

    assert greys[0, 0] == 0
    assert greys[-1, -1] == 127


def keyed_png(depth: int, key: tuple[int, ...], rows: npt.NDArray[Any]) -> bytes:
    """A PNG of grey (height, width) or colours (height, width, 3) that names one colour as transparent."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = rows.shape[:2]
    bits = [format(value, f"0{depth}b") for value in rows.reshape(-1)]
    line = len(bits) // height
    lines = ("".join(bits[y * line : (y + 1) * line]) for y in range(height))
    data = b"".join(b"\0" + int(text, 2).to_bytes(len(text) // 8, "big") for text in lines)
    head = struct.pack(">IIBBBBB", width, height, depth, 2 if rows.ndim == 3 else 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", head),
        chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)),
        chunk(b"IDAT", zlib.compress(data)),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_transparent_value_of_a_grey_image_is_one_of_its_own_depth(depth: int) -> None:
    white = 2**depth - 1
    rows = np.tile(np.linspace(0, white, SIDE).round().astype(int), (SIDE, 1))
    found = shown(keyed_png(depth, (white,), rows))
    assert np.array_equal(found[0], np.where(rows[0] == white, 127, rows[0] * 255 // white))


@pytest.mark.parametrize("key", [(65_535, 65_535, 65_535), (30_000, 30_000, 30_000), (255, 255, 255)])
def test_the_transparent_colour_of_sixteen_bits_is_that_colour_and_no_other(key: tuple[int, int, int]) -> None:
    """Pillow takes white for the transparent one where that is (255, 255, 255), which is nearly black."""
    values = np.array([65_535, 30_000, 30_001, 255] * 4)
    found = shown(keyed_png(16, key, np.tile(values[:, None], (SIDE, 1, 3))))
    assert found[0, :4].tolist() == [127 if value == key[0] else value >> 8 for value in values[:4]]


HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA"
    "AAAERAAAEAAQAAAAABoAABAAAAAAAAAEMAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAA"
    "AADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkA"
    "AAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAA"
    "AChjbGFwAAAAEAAAAAEAAAAQAAAAAf///9AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAS2"
    "1kYXQAAAA/KAGvCcherNAjmJb/Z3/9v8hbf91IP6gAdw7P/bi6DBAq+ofAt9D2bn5V6QXT+s+foR3rCmP3yTbQw/3Lw58v"
)
"""A photo of 16 px as telephones take them, red above and blue below."""


def test_heic_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.data.decode.formats", lambda: ("JPEG", "PNG"))
    monkeypatch.setattr("nstudent.data.decode.heic_is_read", lambda: False)

    with pytest.raises(ImageError, match=r"a HEIC image: pip install 'nstudent\[heic\]'"):
        decode(HEIC, SIDE, 1_000)


@pytest.mark.skipif(not heic_is_read(), reason="the extra for HEIC is not installed")
def test_heic_is_decoded_where_the_extra_is_installed() -> None:
    pixels = decode(HEIC, SIDE, 10_000).astype(int)

    assert np.abs(pixels[2, 8] - (250, 20, 20)).max() < 12
    assert np.abs(pixels[-3, 8] - (20, 20, 250)).max() < 12
    with pytest.raises(ImageError):
        decode(HEIC[:-40], SIDE, 10_000)


@pytest.mark.skipif(not heic_is_read(), reason="the extra for HEIC is not installed")
@pytest.mark.parametrize("side", [0, 8, 63, 4096, 60_000])
def test_heic_whose_header_tells_another_size_than_its_pixels_is_refused(side: int) -> None:
    """As a bomb does: 64 megapixels of one colour are 15 kB."""
    lying, at = bytearray(HEIC), HEIC.index(b"ispe") + 8
    assert lying[at : at + 8] == struct.pack(">II", 64, 64)
    lying[at : at + 8] = struct.pack(">II", side, side)
    with pytest.raises(ImageError):
        decode(bytes(lying), SIDE, 100_000_000)
