"""What a file is by its first bytes, whatever its name."""

import io
from pathlib import Path

import numpy as np
import pytest
from nstudent.data.sources import kinds
from nstudent.data.sources.kinds import HEAD_BYTES, kind_of, why_not
from PIL import Image

HEIC = bytes.fromhex("0000001c6674797068656963000000006d696631686569636d696166") + bytes(200)
"""The first box of a HEIC photo."""


def saved(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        *(("JPEG", "JPEG"), ("PNG", "PNG"), ("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("WEBP", "WEBP")),
        *(("AVIF", "AVIF"), ("JPEG2000", "JPEG 2000"), ("PPM", "PPM")),
    ],
)
def test_a_kind_is_known_by_its_first_bytes(form: str, kind: str) -> None:
    assert kind_of(saved(form)[:HEAD_BYTES]) == kind


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM"])
def test_what_is_decoded_is_taken_under_any_name(form: str) -> None:
    assert [why_not(name, saved(form)[:HEAD_BYTES]) for name in ("x", "x.jfif", "x.heic", "x.txt")] == [None] * 4


@pytest.mark.parametrize(
    "content",
    [b"", b"BM is not a bitmap, but a text", b"P2P networks", b"hello", b"<html>", b"{}", bytes(400), b"RIFFxxxxWAVE"],
)
def test_other_content_is_no_image(content: bytes) -> None:
    assert kind_of(content[:HEAD_BYTES]) is None
    assert why_not("x.txt", content[:HEAD_BYTES]) == "not an image (.txt)"
    assert why_not("x", content[:HEAD_BYTES]) == "not an image (no suffix)"


def test_heic_is_taken_where_the_extra_is_installed_and_named_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "find_spec", lambda name: object())
    assert why_not("x.heic", HEIC) is None

    monkeypatch.setattr(kinds, "find_spec", lambda name: None)
    assert why_not("x.heic", HEIC) == "HEIC images (pip install 'nstudent[heic]', or convert them to JPEG)"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"8BPS\0\1" + bytes(30), "PSD"),
        (b"\0\0\1\0\1\0\x10\x10\0\0", "ICO"),
        (b"%PDF-1.7", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (bytes(128) + b"DICM", "DICOM"),
    ],
)
def test_an_image_of_a_kind_that_is_not_read_is_named(content: bytes, kind: str) -> None:
    assert why_not("x.jpg.x", content[:HEAD_BYTES]) == f"{kind} files (convert them to PNG or JPEG)"


def test_every_kind_that_is_taken_is_one_that_the_decoder_reads(tmp_path: Path) -> None:
    from nstudent.data.decode import decode, formats

    for form in set(formats()) - {"HEIF"}:
        content = saved(form)
        assert kind_of(content[:HEAD_BYTES]) in kinds._DECODED
        assert decode(content, 8, 100).shape == (8, 8, 3)
