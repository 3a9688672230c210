"""Decoding in processes: the same images as without, and a crash that costs one image."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.packing import decoders
from nstudent.data.packing.decoders import CRASHED, Decoded, Decoders, Reader, reading
from nstudent.data.sources import open_source
from nstudent.data.sources.seen import Seen
from nstudent.errors import DataError, ImageError

NUM_IMAGES, SIDE = 50, 8


class Photos:
    """Encoded images of one colour each; some are no images."""

    encoded = True

    def seen(self) -> Seen:
        return Seen()

    def records(self) -> list:
        return []

    def read(self, index: int) -> bytes:
        if index == 7:
            raise ImageError("it cannot be read")
        content: bytes = cv2.imencode(".png", np.full((SIDE, SIDE, 3), index, np.uint8))[1].tobytes()
        return content[:20] if index == 11 else content


@pytest.fixture
def reader() -> Reader:
    return Reader(Photos(), SIDE, 10_000)


def _shown(image: Decoded) -> tuple[int | None, str]:
    return (None if image.pixels is None else int(image.pixels[0, 0, 0])), image.reason


def test_processes_give_what_one_process_gives(reader: Reader) -> None:
    here = reader(range(NUM_IMAGES))
    with reading(reader) as read:
        there = read(range(NUM_IMAGES))
    assert [(i.digest, i.reason) for i in there] == [(i.digest, i.reason) for i in here]
    assert [_shown(i)[0] for i in there] == [None if i in (7, 11) else i for i in range(NUM_IMAGES)]
    assert there[7].reason == "it cannot be read"


def test_only_what_is_encoded_is_worth_processes(reader: Reader) -> None:
    arrays = Reader(open_source(DataConfig(source="digits")), SIDE, 10_000)
    with reading(reader) as read, reading(arrays) as read_arrays:
        assert isinstance(read, Decoders)
        assert read_arrays is arrays


@pytest.mark.slow
@pytest.mark.parametrize("crashing", [{0}, {17}, {3, 4, 49}, {30, 31}])
def test_an_image_that_crashes_its_decoder_is_left_out_alone(
    reader: Reader, crashing: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: the process reads address 0."""
    fatal = {cv2.imencode(".png", np.full((SIDE, SIDE, 3), i, np.uint8))[1].tobytes() for i in crashing}
    decode = decoders.decode

    def patched(content: bytes, *given: Any) -> np.ndarray:
        if content in fatal:
            faulthandler.disable()
            ctypes.string_at(0)
        return decode(content, *given)

    monkeypatch.setattr(decoders, "decode", patched)
    with Decoders(reader, 2) as read:
        images = read(range(NUM_IMAGES))
        # The processes are there again, too.
        assert _shown(read([20])[0]) == (20, "")
    for number, image in enumerate(images):
        if number in crashing:
            assert _shown(image) == (None, CRASHED)
        elif number not in (7, 11):
            assert _shown(image) == (number, "")


def test_a_process_that_is_killed_costs_no_image(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system does when memory runs out: once, and not because of the image."""
    _once(tmp_path / "killed", lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)
    with Decoders(reader, 2) as read:
        images = read(range(NUM_IMAGES))
    assert [_shown(i)[0] for i in images] == [None if i in (7, 11) else i for i in range(NUM_IMAGES)]


def test_a_source_that_is_gone_stops_the_whole(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_source: Photos, _index: int) -> bytes:
        raise DataError("the disk is not mounted")

    monkeypatch.setattr(Photos, "read", gone)
    with pytest.raises(DataError, match="not mounted"), Decoders(reader, 2) as read:
        read(range(NUM_IMAGES))


@pytest.mark.slow
def test_of_a_packed_file_that_is_cut_short_meanwhile_the_images_before_the_cut_are_read(tmp_path: Path) -> None:
    """Its map then ends in a place that no process can read and live."""
    path = tmp_path / "packed.h5"
    random = np.random.default_rng(0)
    blobs = [cv2.imencode(".png", random.integers(0, 256, (60, 60, 3), np.uint8))[1].tobytes() for _ in range(20)]
    with h5py.File(path, "w") as file:
        file["offset"], file["label"] = np.cumsum([0, *map(len, blobs)]), np.zeros((20, 1), np.int16)
        file["split"], file["jpeg"] = np.zeros(20, np.int8), np.frombuffer(b"".join(blobs), np.uint8)
        file.attrs["meta"] = json.dumps({"levels": [["a", "b"]]})
    source = open_source(DataConfig(source="hdf5", root=str(path), levels=("coarse",)))
    source.catalogue()
    faulthandler.disable()
    with Decoders(Reader(source, SIDE, 10_000), 2) as read:
        os.truncate(path, path.stat().st_size // 2)
        images = read(range(20))
    faulthandler.enable()
    readable = [image.pixels is not None for image in images]
    assert readable == sorted(readable, reverse=True)
    assert 5 < sum(readable) < 15
    assert images[-1].reason == CRASHED


def _once(mark: Path, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    decode = decoders.decode

    def patched(*given: Any) -> np.ndarray:
        if not mark.exists():
            mark.touch()
            act()
        return decode(*given)

    monkeypatch.setattr(decoders, "decode", patched)
