"""A data step that is stopped or killed within a shard: what was decoded stays, what rots meanwhile does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import nstudent
import pytest
from nstudent.data.packing import decoders, pieces
from nstudent.data.packing import reader as reader_module
from nstudent.data.packing import shards as packing
from nstudent.errors import DataError, StoppedError
from nstudent.progress import Silence, Task
from nstudent.runs.verification import verify
from nstudent.session import Session
from nstudent.storage.artifact import Artifact
from small_folders import SIZE, Bench, Said, divided, plant

KINDS = ("pixels", "jpeg", "original")


class StopsAfter(Silence):
    """Asks to stop once so many images are decoded."""

    def __init__(self, images: int) -> None:
        self._left = images

    def task(self, name: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        return nullcontext(self if name == "decode" else Silence())

    def advance(self, amount: int, **shown: float) -> None:
        self._left -= amount
        if self._left < 0:
            raise StoppedError("somebody wants the machine")


@pytest.fixture
def photos(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A few images, one of them unreadable, that come one at a time."""
    plant(bench.root, divided() | {"test/pet/cat/00.png": b"<html>"})
    monkeypatch.setattr(
        decoders, "Decoders", lambda reader, _: nullcontext(lambda ids: (reader([image]) for image in ids))
    )
    return bench


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents that are decoded."""
    seen: list[bytes] = []
    decode = reader_module.decode
    monkeypatch.setattr(
        reader_module, "decode", lambda content, *given: seen.append(content) or decode(content, *given)
    )
    return seen


def run(bench: Bench, name: str, kind: str, progress: Silence | None = None) -> Artifact:
    keys = {"source": "folder", "root": bench.root, "levels": "[coarse,fine]", "image_size": SIZE, "labelled": "null"}
    words = [f"data.{key}={value}" for key, value in {**keys, "storage": kind, "max_bad_share": 0.1}.items()]
    config = nstudent.load_config(None, words)
    return Artifact(nstudent.run_stage(config, "data", bench.tmp_path / name, Session(progress=progress or Silence())))


def partial(bench: Bench) -> Path:
    return bench.tmp_path / "cut" / "00-data.partial"


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_again_and_again_within_a_shard_it_ends_with_the_same_bytes(
    photos: Bench, decoded: list[bytes], kind: str
) -> None:
    """Each attempt gets further than the one before: no image is decoded twice, but the one at which it was stopped."""
    whole = run(photos, "whole", kind)
    images, stops = len(decoded), 0
    decoded.clear()
    for _ in range(100):
        try:
            made = run(photos, "cut", kind, StopsAfter(10 * (stops + 1)))
            break
        except StoppedError:
            stops += 1
            assert len(decoded) <= 11 * stops + 1
            assert not list(partial(photos).glob("pixels-*")), "no shard is there yet"
    assert stops >= 3
    # Whoever compares near-duplicates of originals decodes them once more.
    assert len(decoded) == images
    assert made.manifest.files == whole.manifest.files
    assert not list(made.folder.glob("scratch*"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_decoded_for_long_is_kept_without_a_warning(
    photos: Bench, decoded: list[bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed is not asked."""
    whole = run(photos, "whole", kind)
    decoded.clear()
    monkeypatch.setattr(pieces, "_KEEP_SECONDS", 0.0)

    class Killed(StopsAfter):
        def advance(self, amount: int, **shown: float) -> None:
            self._left -= amount
            if self._left < 0:
                raise SystemExit

    with pytest.raises(SystemExit):
        run(photos, "cut", kind, Killed(12))
    before = len(decoded)
    assert run(photos, "cut", kind).manifest.files == whole.manifest.files
    assert before == 13
    assert decoded[: before - 1] == [*dict.fromkeys(decoded)][: before - 1]


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"", lambda content: content[::-1]])
def test_a_piece_that_rots_is_decoded_again(photos: Bench, damage: Callable[[bytes], bytes]) -> None:
    whole = run(photos, "whole", "pixels")
    with pytest.raises(StoppedError):
        run(photos, "cut", "pixels", StopsAfter(10))
    (piece,) = (partial(photos) / "scratch").glob("pixels-*.h5")
    piece.write_bytes(damage(piece.read_bytes()))
    said = Said()
    assert run(photos, "cut", "pixels", said).manifest.files == whole.manifest.files
    assert [line for line in said.lines if "is made again" in line] == [
        f"  {piece} is not what was written there: it is made again"
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100] + bytes([content[-100] ^ 4]) + content[-99:],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
    ],
)
def test_a_finished_shard_that_rots_before_the_step_is_there_is_made_again(
    photos: Bench, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit that flips, a drive that lost what it said was written: the same command ends with the same bytes."""
    monkeypatch.setattr(packing, "SHARD_BYTES", 8 * SIZE * SIZE * 3)
    whole = run(photos, "whole", "pixels")
    with pytest.raises(StoppedError):
        run(photos, "cut", "pixels", StopsAfter(20))
    first = partial(photos) / "pixels-00000.h5"
    kept = (partial(photos) / "pixels-00001.h5").stat().st_mtime_ns
    first.write_bytes(damage(first.read_bytes()))
    said = Said()
    made = run(photos, "cut", "pixels", said)
    assert made.manifest.files == whole.manifest.files
    assert f"  {first} is not what was written there: it is made again" in said.lines
    assert (made.folder / "pixels-00001.h5").stat().st_mtime_ns == kept
    assert verify(photos.tmp_path / "cut") == []


def test_of_a_root_that_is_gone_no_piece_is_kept(photos: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read while a disk is away is read when it is back."""
    whole = run(photos, "whole", "pixels")
    read = reader_module.Reader.__call__

    def gone(reader: reader_module.Reader, ids: Sequence[int]) -> list[reader_module.Decoded]:
        return [reader_module.Decoded(None, reason="the disk is away")] * len(ids)

    monkeypatch.setattr(reader_module.Reader, "__call__", gone)
    with pytest.raises((StoppedError, DataError)):
        run(photos, "cut", "pixels", StopsAfter(10))
    monkeypatch.setattr(reader_module.Reader, "__call__", read)
    assert run(photos, "cut", "pixels").manifest.files == whole.manifest.files
