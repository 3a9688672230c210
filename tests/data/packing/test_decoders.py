"""Decoding in processes: the same images as without, and a crash that costs one image."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.decode import TOO_MUCH_MEMORY
from nstudent.data.packing import decoders
from nstudent.data.packing import reader as reader_module
from nstudent.data.packing.decoders import CRASHED, Decoders, EndlessImageError, reading
from nstudent.data.packing.reader import Decoded, Reader
from nstudent.data.sources import open_source
from nstudent.data.sources.seen import Seen
from nstudent.errors import DataError, ImageError, StoppedError

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


def every(read: Iterator[list[Decoded]]) -> list[Decoded]:
    """All images that a reader gives, piece by piece."""
    return [image for images in read for image in images]


def test_where_processes_cannot_be_forked_threads_give_the_same_images(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "_FORKS", False)
    before = threading.active_count()
    with reading(reader, spawn=False) as read:
        images = read(iter(range(NUM_IMAGES)))
        found = next(images)
        assert threading.active_count() > before
        assert active_children() == []
        found += every(images)
    assert threading.active_count() == before
    alone = reader(range(NUM_IMAGES))
    assert [(each.digest, each.reason) for each in found] == [(each.digest, each.reason) for each in alone]
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_threads_that_decode_end_when_nobody_wants_their_images(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "_FORKS", False)
    before = threading.active_count()
    with reading(reader, spawn=False) as read:
        assert len(next(read(range(100_000)))) > 0
    assert threading.active_count() == before


def _shown(image: Decoded) -> tuple[int | None, str]:
    return (None if image.pixels is None else int(image.pixels[0, 0, 0])), image.reason


def test_processes_give_what_one_process_gives(reader: Reader) -> None:
    here = reader(range(NUM_IMAGES))
    with reading(reader) as read:
        there = every(read(range(NUM_IMAGES)))
    assert [(i.digest, i.reason) for i in there] == [(i.digest, i.reason) for i in here]
    assert [_shown(i)[0] for i in there] == [None if i in (7, 11) else i for i in range(NUM_IMAGES)]
    assert there[7].reason == "it cannot be read"


def test_only_what_is_encoded_is_worth_processes(reader: Reader) -> None:
    digits = open_source(DataConfig(source="digits"))
    digits.catalogue()
    arrays = Reader(digits, SIDE, 10_000)
    with reading(reader) as read, reading(arrays) as read_arrays:
        assert isinstance(read, Decoders)
        assert [_shown(image) for image in every(read_arrays(range(40)))] == [_shown(i) for i in arrays(range(40))]
        assert not isinstance(read_arrays, Decoders)


@pytest.mark.slow
@pytest.mark.parametrize("crashing", [{0}, {17}, {3, 4, 49}, {30, 31}])
def test_an_image_that_crashes_its_decoder_is_left_out_alone(
    reader: Reader, crashing: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: the process reads address 0."""
    fatal = {cv2.imencode(".png", np.full((SIDE, SIDE, 3), i, np.uint8))[1].tobytes() for i in crashing}
    decode = reader_module.decode

    def patched(content: bytes, *given: Any) -> np.ndarray:
        if content in fatal:
            faulthandler.disable()
            ctypes.string_at(0)
        return decode(content, *given)

    monkeypatch.setattr(reader_module, "decode", patched)
    with Decoders(reader, 2) as read:
        images = every(read(range(NUM_IMAGES)))
        # The processes are there again, too.
        assert _shown(every(read([20]))[0]) == (20, "")
    for number, image in enumerate(images):
        if number in crashing:
            assert _shown(image) == (None, CRASHED)
        elif number not in (7, 11):
            assert _shown(image) == (number, "")


@pytest.mark.slow
def test_a_process_that_is_killed_costs_no_image(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system does when memory runs out: once, and not because of the image."""
    _once(tmp_path / "killed", lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)
    with Decoders(reader, 2) as read:
        images = every(read(range(NUM_IMAGES)))
    assert [_shown(i)[0] for i in images] == [None if i in (7, 11) else i for i in range(NUM_IMAGES)]


def test_a_source_that_is_gone_stops_the_whole(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_source: Photos, _index: int) -> bytes:
        raise DataError("the disk is not mounted")

    monkeypatch.setattr(Photos, "read", gone)
    with pytest.raises(DataError, match="not mounted"), Decoders(reader, 2) as read:
        every(read(range(NUM_IMAGES)))


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
        images = every(read(range(20)))
    faulthandler.enable()
    readable = [image.pixels is not None for image in images]
    assert readable == sorted(readable, reverse=True)
    assert 5 < sum(readable) < 15
    assert images[-1].reason == CRASHED


def _once(mark: Path, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    decode = reader_module.decode

    def patched(*given: Any) -> np.ndarray:
        if not mark.exists():
            mark.touch()
            act()
        return decode(*given)

    monkeypatch.setattr(reader_module, "decode", patched)


@pytest.mark.slow
def test_a_decoder_without_end_ends_the_run_and_names_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the processor time that the image takes: it is not dropped, for on a faster machine it might be read."""
    from nstudent.config.file import load_config
    from nstudent.runs.run import run_stage

    for number in range(24):
        path = tmp_path / "root" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Photos().read(number if number not in (7, 11) else number + 30))
    endless, decode = Photos().read(5), reader_module.decode

    def patched(content: bytes, *given: Any) -> np.ndarray:
        while content == endless:
            pass
        return decode(content, *given)

    monkeypatch.setattr(reader_module, "decode", patched)
    monkeypatch.setattr(decoders, "IMAGE_CPU_SECONDS", 0.3)
    words = [f"data.root={tmp_path / 'root'}", "data.source=folder", "data.levels=[fine]", "data.image_size=8"]
    config = load_config(None, [*words, "rounds=0"])
    with pytest.raises(DataError, match=r"the decoder of b/5\.png has not ended .* processor time: remove that file"):
        run_stage(config, "data", tmp_path / "run")
    monkeypatch.setattr(reader_module, "decode", decode)
    run_stage(config, "data", tmp_path / "run")


def test_waiting_costs_an_image_nothing(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy, or asleep, changes no result: only the time that the processor works counts."""
    _once(tmp_path / "slept", lambda: time.sleep(0.5), monkeypatch)
    monkeypatch.setattr(decoders, "IMAGE_CPU_SECONDS", 0.25)
    with Decoders(reader, 1) as read:
        images = every(read(range(20)))
    assert [_shown(i)[0] for i in images] == [None if i in (7, 11) else i for i in range(20)]


def test_while_nothing_is_ready_whoever_waits_is_asked_whether_to_go_on(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "_WAIT_SECONDS", 0.01)
    _once(tmp_path / "slept", lambda: time.sleep(0.3), monkeypatch)
    with Decoders(reader, 1) as read:
        assert next(read(range(20))) == []


@pytest.mark.slow
@pytest.mark.parametrize("decoding", ["many images", "one without end"])
def test_images_that_nobody_wants_any_more_are_not_waited_for(
    reader: Reader, decoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a run is asked to stop, a process ends after the image that it is at, or is made to."""
    decode = reader_module.decode

    def slow(*given: Any) -> np.ndarray:
        time.sleep(0.1 if decoding == "many images" else 600)
        return decode(*given)

    monkeypatch.setattr(reader_module, "decode", slow)
    monkeypatch.setattr(decoders, "_PATIENCE_SECONDS", 0.5)
    # Other tests of this process may have left some.
    before = {child.name for child in active_children()}
    with contextlib.suppress(StoppedError), Decoders(reader, 2) as read:
        next(read(range(NUM_IMAGES)))
        raise StoppedError("somebody wants the machine")
    # Where two threads wait for a process that ends, one of them learns of it a moment after the other.
    until = time.monotonic() + 30
    while [child for child in active_children() if child.name not in before]:
        assert time.monotonic() < until
        time.sleep(0.01)


def _let_image_5_ask_for_a_gibibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy, decode = Photos().read(5), reader_module.decode
    monkeypatch.setattr(decoders, "_BYTES_BESIDE", 64 << 20)

    def patched(content: bytes, *given: Any) -> np.ndarray:
        if content == greedy:
            np.ones(1 << 30, np.uint8)
        return decode(content, *given)

    monkeypatch.setattr(reader_module, "decode", patched)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the memory of a process is not limited")
def test_a_decoder_that_asks_for_any_amount_of_memory_costs_its_image(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_image_5_ask_for_a_gibibyte(monkeypatch)
    with Decoders(reader, 2) as read:
        images = every(read(range(10)))
    assert _shown(images[5]) == (None, "its decoder asks for more memory than an image of its size needs")
    assert [_shown(image)[0] for image in images] == [None if i in (5, 7) else i for i in range(10)]


def _read_in_worker(ids: list[int]) -> list[tuple[int | None, str]]:
    before = multiprocessing.current_process().daemon
    with reading(Reader(Photos(), SIDE, 10_000)) as read:
        found = [_shown(image) for image in every(read(ids))]
    assert before
    assert multiprocessing.current_process().daemon, "it is a worker as before"
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the memory of a process is not limited")
@pytest.mark.slow
def test_in_a_worker_of_a_pool_images_have_the_same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that crashes, one that asks for any amount of memory, and one that has no end."""
    crashing, greedy, endless, decode = Photos().read(3), Photos().read(5), Photos().read(25), reader_module.decode
    monkeypatch.setattr(decoders, "_BYTES_BESIDE", 64 << 20)
    monkeypatch.setattr(decoders, "IMAGE_CPU_SECONDS", 0.5)

    def patched(content: bytes, *given: Any) -> np.ndarray:
        if content == crashing:
            faulthandler.disable()
            ctypes.string_at(0)
        if content == greedy:
            np.ones(1 << 30, np.uint8)
        while content == endless:
            pass
        return decode(content, *given)

    monkeypatch.setattr(reader_module, "decode", patched)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply(_read_in_worker, (list(range(20)),))
        with pytest.raises(EndlessImageError, match="image 25"):
            pool.apply(_read_in_worker, (list(range(20, 30)),))
    reasons = {3: CRASHED, 5: TOO_MUCH_MEMORY}
    assert {number: reason for number, (_, reason) in enumerate(found) if number in reasons} == reasons
    assert [value for value, _ in found] == [None if i in (3, 5, 7, 11) else i for i in range(20)]


_WORKER_THAT_IS_TERMINATED = """
import multiprocessing, os, time
from nstudent.data.packing import decoders
from nstudent.data.packing.reader import Reader
from nstudent.data.sources.seen import Seen
class Photos:
    encoded = True
    def seen(self): return Seen()
    def records(self): return []
    def read(self, index):
        print(os.getpid(), flush=True)
        time.sleep(600)
def go():
    with decoders.reading(Reader(Photos(), 8, 10_000)) as read:
        list(read([0]))
with multiprocessing.get_context("fork").Pool(1) as pool:
    pool.apply_async(go)
    input()
    pool.terminate()
    pool.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.slow
def test_a_worker_of_a_pool_that_is_terminated_leaves_no_decoder_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER_THAT_IS_TERMINATED],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        decoder = int(run.stdout.readline())
        run.communicate("\n", timeout=60)
    until = time.monotonic() + 30
    while Path(f"/proc/{decoder}").exists() and "Z" not in Path(f"/proc/{decoder}/stat").read_text().split()[2]:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the memory of a process is not limited")
def test_an_image_that_is_read_alone_has_the_same_limit_of_memory(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was near a crash is read again in a process of its own."""
    _let_image_5_ask_for_a_gibibyte(monkeypatch)
    with Decoders(reader, 1) as read:
        ((image,),) = (found for found in read._alone(5) if found)
    assert _shown(image) == (None, "its decoder asks for more memory than an image of its size needs")


@pytest.mark.parametrize(("memory_gib", "processes"), [(0, 1), (2, 1), (8, 6), (1000, 16), (None, 16)])
def test_there_are_no_more_processes_than_memory_for_the_largest_image(
    memory_gib: int | None, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "available_cores", lambda: 16)
    monkeypatch.setattr(decoders, "available_memory", lambda: None if memory_gib is None else memory_gib << 30)
    assert decoders._processes(64_000_000) == processes
