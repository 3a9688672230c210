"""Every fixture is made here: the point is what decoders do to damaged, odd and hostile images, not the pictures."""

import io
import struct
import threading
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from nstudent.data.decode import decode, square
from nstudent.errors import ImageError
from pictures import encoded, jpeg, picture, png_chunk, rgba_of
from PIL import Image

MAX_PIXELS = 64_000_000
GREY = 127


def at_own_size(content: bytes, side: int) -> np.ndarray:
    """The centre square of an image whose shorter side is ``side``: nothing is resized."""
    return decode(content, side, MAX_PIXELS)


def with_wrong_crc(png: bytes) -> bytes:
    """Only the checksum of the pixels is wrong: the pixels themselves still decode."""
    at = png.index(b"IDAT")
    end = at + 4 + struct.unpack(">I", png[at - 4 : at])[0]
    return png[:end] + bytes(byte ^ 0xFF for byte in png[end : end + 4]) + png[end + 4 :]


# --- whole images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_lossless_format_gives_its_own_pixels(image_format: str) -> None:
    image = Image.fromarray(picture(16, 16)).quantize(64).convert("RGB")  # 64 colours: a GIF can hold them
    options = {"lossless": True} if image_format == "WEBP" else {}

    found = at_own_size(encoded(image, image_format, **options), 16)

    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(image))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_gives_its_pixels_but_for_compression(mode: str) -> None:
    expected = np.asarray(Image.fromarray(picture(64, 64)).convert(mode).convert("RGB")).astype(int)

    found = at_own_size(jpeg(mode=mode), 64)

    assert np.abs(found - expected).mean() < 2
    assert np.abs(found - expected).max() <= 16


def test_a_progressive_jpeg_is_the_same_picture() -> None:
    found = at_own_size(jpeg(progressive=True), 64).astype(int)

    assert np.abs(found - picture(64, 64)).mean() < 2


def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white() -> None:
    wide = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)

    found = at_own_size(encoded(Image.fromarray(wide), "PNG"), 16)

    assert np.array_equal(found[..., 0], np.arange(256).reshape(16, 16))
    assert np.array_equal(found[..., 0], found[..., 2])


def test_sixteen_bit_colour_is_scaled() -> None:
    colour = np.full((16, 16), 0x8000, dtype=">u2")
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, axis=1).tobytes() for row in colour)
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    )

    found = at_own_size(content, 16)

    assert np.abs(found.astype(int) - 128).max() <= 1


def test_eight_bit_grey_keeps_its_values() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)

    found = at_own_size(encoded(grey, "PNG"), 16)

    assert np.array_equal(found, np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    image = Image.fromarray(np.eye(16, dtype=np.uint8) * 255).convert("1", dither=Image.Dither.NONE)

    found = at_own_size(encoded(image, "PNG"), 16)

    assert np.array_equal(found[..., 1], np.eye(16, dtype=np.uint8) * 255)


def test_a_palette_is_looked_up() -> None:
    image = Image.fromarray(picture(16, 16)).quantize(8)

    found = at_own_size(encoded(image, "PNG"), 16)

    assert np.array_equal(found, np.asarray(image.convert("RGB")))


# --- transparency -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("alpha", "expected"), [(0, (GREY, GREY, GREY)), (255, (255, 0, 0))])
def test_alpha_is_laid_on_middle_grey(image_format: str, alpha: int, expected: tuple[int, int, int]) -> None:
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}

    found = at_own_size(encoded(rgba_of((255, 0, 0), alpha), image_format, **options), 16)

    assert tuple(found[0, 0]) == expected, "the hidden colour shows through"
    assert tuple(found[0, 15]) == (255, 0, 0)


def test_half_transparent_is_half_grey() -> None:
    found = at_own_size(encoded(rgba_of((255, 0, 0), 128), "PNG"), 16)

    assert np.abs(found[0, 0].astype(int) - (191, 63, 63)).max() <= 1


def test_grey_with_alpha_is_laid_on_middle_grey() -> None:
    found = at_own_size(encoded(rgba_of((255, 255, 255), 0).convert("LA"), "PNG"), 16)

    assert tuple(found[0, 0]) == (GREY, GREY, GREY)
    assert tuple(found[0, 15]) == (255, 255, 255)


def test_a_transparent_palette_entry_is_laid_on_middle_grey() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 8, 16))

    found = at_own_size(encoded(image, "PNG", transparency=0), 16)

    assert tuple(found[0, 0]) == (GREY, GREY, GREY)
    assert tuple(found[0, 15]) == (0, 0, 255)


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (255, 0, 0)), ("L", 200)])
def test_a_transparent_colour_key_is_laid_on_middle_grey(mode: str, colour: int | tuple[int, int, int]) -> None:
    """A PNG without an alpha channel can still name one colour as transparent (chunk tRNS)."""
    image = Image.new(mode, (16, 16), 0)
    image.paste(colour, (0, 0, 8, 16))

    found = at_own_size(encoded(image, "PNG", transparency=colour), 16)

    assert tuple(found[0, 0]) == (GREY, GREY, GREY)
    assert tuple(found[0, 15]) == (0, 0, 0)


# --- orientation and frames -------------------------------------------------------------------------------------------

STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera lays an upright picture down under each EXIF orientation."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_every_exif_orientation_gives_the_upright_picture(image_format: str, orientation: int) -> None:
    upright = Image.fromarray(picture(32, 48))
    turn = STORED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(image_format, {})

    found = at_own_size(encoded(stored, image_format, exif=exif, **options), 32)

    difference = np.abs(found.astype(int) - picture(32, 48)[:, 8:40])
    assert difference.max() <= (8 if image_format == "JPEG" else 0)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation_is_taken(image_format: str) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = encoded(first, image_format, save_all=True, append_images=[second], duration=50, **options)

    assert tuple(at_own_size(content, 16)[8, 8]) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_picture_of_an_animation_for_those_who_show_none_is_none_of_its_frames(mode: str) -> None:
    """OpenCV reads the one and Pillow the other: both take the first frame."""
    other, first = (Image.new("RGB", (16, 16), colour).convert(mode) for colour in ((255, 0, 0), (0, 0, 255)))
    content = encoded(other, "PNG", save_all=True, append_images=[first, other], default_image=True)

    assert tuple(at_own_size(content, 16)[8, 8]) == (0, 0, 255)


def test_a_png_that_lacks_its_palette_is_refused() -> None:
    content = encoded(Image.new("P", (16, 16), 1), "PNG")
    at = content.index(b"PLTE") - 4
    length = int.from_bytes(content[at : at + 4], "big")

    with pytest.raises(ImageError, match="it has no palette"):
        decode(content[:at] + content[at + 12 + length :], 16, 1_000)


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 48), (48, 16), (17, 16)])
def test_the_centre_is_cut_out(height: int, width: int) -> None:
    image = picture(height, width)
    top, left = (height - 16) // 2, (width - 16) // 2

    assert np.array_equal(at_own_size(encoded(image, "PNG"), 16), image[top : top + 16, left : left + 16])


def test_the_shorter_side_is_resized_and_areas_are_averaged() -> None:
    blocks = np.arange(0, 240, 15, dtype=np.uint8).reshape(4, 4)
    large = np.kron(blocks, np.ones((10, 10), dtype=np.uint8))  # 40 x 40, ten pixels a value

    assert np.array_equal(square(large, 4)[..., 0], blocks)


def test_golden_pixels_of_a_resized_image() -> None:
    """Drift of a decoder or resizer would change every label a trained network gives: it must be seen here."""
    found = decode(encoded(picture(40, 60), "PNG"), 4, MAX_PIXELS)

    top_row = [[223, 79, 63], [223, 112, 65], [223, 146, 68], [223, 180, 70]]
    left_column = [[223, 79, 63], [164, 79, 70], [105, 79, 78], [46, 79, 86]]
    assert np.abs(found[0].astype(int) - top_row).max() <= 1
    assert np.abs(found[:, 0].astype(int) - left_column).max() <= 1


def test_a_small_image_is_enlarged() -> None:
    found = decode(encoded(np.full((2, 3, 3), 77, np.uint8), "PNG"), 32, MAX_PIXELS)

    assert found.shape == (32, 32, 3)
    assert (found == 77).all()


def test_a_reduced_jpeg_is_the_full_one() -> None:
    image = Image.fromarray(picture(256, 320))
    content = encoded(image, "JPEG", quality=95)

    reduced = decode(content, 32, MAX_PIXELS).astype(int)  # decoded at a quarter
    full = square(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), 32).astype(int)

    assert np.abs(reduced - full).mean() < 1.5
    assert np.abs(reduced - full).max() <= 6


# --- damage -----------------------------------------------------------------------------------------------------------


def refused(content: bytes, size_px: int = 16, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(ImageError) as caught:
        decode(content, size_px, max_pixels)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size_px", [8, 64])  # decoded at a reduced scale, and in full
def test_a_truncated_jpeg_is_refused(mode: str, size_px: int) -> None:
    whole = jpeg(mode=mode)

    for cut in (whole[: len(whole) // 2], whole[:-3]):
        refused(cut, size_px)


def test_damaged_jpeg_data_is_refused() -> None:
    damaged = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG"))
    middle = len(damaged) // 2
    damaged[middle : middle + 40] = b"\xff\xd9\x55\xaa" * 10

    refused(bytes(damaged))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "I;16"])
def test_a_png_with_a_wrong_checksum_is_refused(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((16, 16), 999, dtype=np.uint16))
    else:
        image = Image.fromarray(picture(16, 16)).convert(mode)

    refused(with_wrong_crc(encoded(image, "PNG")))


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_half_a_file_is_refused(image_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encoded(noise, image_format)

    refused(whole[: len(whole) // 2])


def test_an_empty_file_is_refused_by_name() -> None:
    assert refused(b"") == "the file is empty"


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>404</html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\xff\xd8\xff"]
)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    refused(content)


def test_the_reason_is_the_same_every_time() -> None:
    """It is stored in the data artifact, whose bytes must not depend on where an object lay in memory."""
    assert "0x" not in refused(b"<html>404</html>")


# --- size limits ------------------------------------------------------------------------------------------------------


def test_too_many_pixels_are_refused_with_the_key_to_change() -> None:
    message = refused(encoded(picture(40, 50), "PNG"), max_pixels=1999)

    assert "50x40" in message
    assert "data.max_pixels" in message
    assert decode(encoded(picture(40, 50), "PNG"), 16, 2000).shape == (16, 16, 3)


def test_an_image_of_one_row_is_refused() -> None:
    assert "too few" in refused(encoded(picture(2, 16)[:1], "PNG"))


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_leave_the_warning_filters_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data stage decodes in threads; two of them that overlap must not silence the whole program's warnings."""
    before, opened = list(warnings.filters), Image.open
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def slow_open(content: BytesIO, **options: object) -> Image.Image:
        if threading.current_thread().name == "first":
            first_in.set()
            second_in.wait(5)
        else:
            second_in.set()
            first_out.wait(5)
        return opened(content)

    content = encoded(picture(), "BMP")
    monkeypatch.setattr(Image, "open", slow_open)
    first = threading.Thread(name="first", target=decode, args=(content, 16, MAX_PIXELS))
    second = threading.Thread(name="second", target=decode, args=(content, 16, MAX_PIXELS))
    first.start()
    first_in.wait(5)
    second.start()
    first.join()
    first_out.set()
    second.join()
    after = list(warnings.filters)
    warnings.filters[:] = before  # whatever happened, the tests after this one keep theirs

    assert after == before


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("notes", [b"Exif\0\0" + bytes(50), b"garbage"])
def test_damaged_notes_beside_an_image_are_no_damage_of_it(form: str, notes: bytes) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(16, 16)).save(buffer, form, exif=notes, quality=95)
    assert np.abs(at_own_size(buffer.getvalue(), 16).astype(int) - picture(16, 16)).mean() < 12
