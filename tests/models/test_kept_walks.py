"""Walks through images that are stopped, and go on where they were, to the same bytes."""

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.data.dataset import Ids, PixelStore
from nstudent.errors import StoppedError
from nstudent.models import kept_walks
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize, Wanted, batches, predict
from nstudent.models.kept_walks import KeptWalks
from nstudent.models.members import Levels
from nstudent.progress import Silence
from nstudent.session import Session
from nstudent.signals import StopRequest
from nstudent.storage.hdf5 import encoded, write
from nstudent.storage.sealed import WALKS, SealedFiles

IMAGES = 20
ALL = np.arange(IMAGES)


def by_number(levels: Levels) -> dict[str, torch.Tensor]:
    return {f"level {number}": level for number, level in enumerate(levels)}


@pytest.fixture
def pixels(noise_images: Callable[[int], np.ndarray], tmp_path: Path) -> PixelStore:
    write(tmp_path / "pixels-00000.h5", {"pixels": noise_images(IMAGES)}, {})
    return PixelStore([tmp_path / "pixels-00000.h5"])


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """A partial folder."""
    folder = tmp_path / "08-evaluate.partial"
    folder.mkdir()
    return folder


class Attempt:
    """One attempt at a step, which is asked to stop after some batches."""

    def __init__(
        self, folder: Path, pixels: PixelStore, stop_after: int | None = None, *, passing: bool = False
    ) -> None:
        self.looked_at: list[int] = []
        """Number of images in each batch that the members have looked at."""
        self.said: list[str] = []
        self._pixels = pixels
        self._left = stop_after
        self._stop = StopRequest()
        attempt = self

        class Told(Silence):
            def say(self, text: str) -> None:
                attempt.said.append(text)

        session = Session(progress=Told(), stop=self._stop)
        self._walks = KeptWalks(folder, session, check=self._check, passing=passing)

    def walk(self, ensemble: Ensemble, ids: Ids = ALL, wanted: Wanted = by_number, size: int = 4) -> dict[str, bytes]:
        """Walk through images; returns every column."""
        member = ensemble.members[0]
        distributions = type(member).distributions

        def counted(images: torch.Tensor) -> Levels:
            self.looked_at.append(len(images))
            return distributions(member, images)  # type: ignore[arg-type]

        member.distributions = counted  # type: ignore[method-assign]
        found = list(self._walks.batches(ensemble, self._pixels, ids, BatchSize(size), wanted))
        # The step is stopped later on.
        self._walks.keep()
        return {name: np.concatenate([part[name] for part in found]).tobytes() for name in found[0]}

    def _check(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._stop.note(signal.SIGTERM)
        self._stop.check()


def at_once(ensemble: Ensemble, pixels: PixelStore, ids: Ids = ALL, wanted: Wanted = by_number) -> dict[str, bytes]:
    found = list(batches(ensemble, pixels, ids, BatchSize(4), wanted))
    return {name: np.concatenate([part[name] for part in found]).tobytes() for name in found[0]}


def files(step: Path) -> list[Path]:
    return sorted((step / WALKS).glob("*.h5"))


def test_each_attempt_gets_further_and_the_last_one_gives_the_same_bytes(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path
) -> None:
    ensemble = make_ensemble(1)
    expected = at_once(ensemble, pixels)
    for number in range(1, 5):
        attempt = Attempt(step, pixels, stop_after=1)
        with pytest.raises(StoppedError):
            attempt.walk(ensemble)
        assert files(step)[-1].stem.endswith(f"-{4 * number:09d}")
    last = Attempt(step, pixels)
    assert last.walk(ensemble) == expected
    assert last.looked_at == [4]
    assert last.said == []


def test_a_walk_that_has_ended_is_not_made_again(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path
) -> None:
    """A step walks with many classifiers, and is stopped while a later one is asked."""
    ensemble = make_ensemble(1)
    first, second = Attempt(step, pixels), Attempt(step, pixels)
    assert first.walk(ensemble) == second.walk(ensemble)
    assert (first.looked_at, second.looked_at) == ([4] * 5, [])


def test_a_step_that_is_left_alone_writes_nothing(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path
) -> None:
    walks = KeptWalks(step, Session())
    for seed in (1, 2):
        assert len(list(walks.batches(make_ensemble(seed), pixels, ALL, BatchSize(4), by_number))) == 5
    assert files(step) == []
    walks.keep()
    assert len(files(step)) == 2
    walks.keep()
    assert len(files(step)) == 2


def test_ended_walks_are_held_together_only_up_to_a_limit(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two walks of 20 images on 2, 3 and 5 classes.
    monkeypatch.setattr(kept_walks, "_FILE_BYTES", 2 * 20 * 10 * 4)
    walks, written = KeptWalks(step, Session()), []
    for seed in (1, 2, 3):
        list(walks.batches(make_ensemble(seed), pixels, ALL, BatchSize(4), by_number))
        written.append(len(files(step)))
    assert written == [0, 2, 2]


def test_memory_is_bounded_and_what_is_written_outlives_a_kill(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done at the end of a process that is killed: what lies there is what was written on the way."""
    ensemble = make_ensemble(1)
    expected = at_once(ensemble, pixels)
    # The distributions of 8 images on 2, 3 and 5 classes.
    monkeypatch.setattr(kept_walks, "_FILE_BYTES", 8 * 10 * 4)
    killed = KeptWalks(step, Session()).batches(ensemble, pixels, ALL, BatchSize(4), by_number)
    for _ in range(4):
        next(killed)
    assert [path.stem[-19:] for path in files(step)] == ["000000000-000000008"]
    killed.close()
    assert [path.stem[-19:] for path in files(step)] == ["000000000-000000008"], "nobody has asked to stop"
    again = Attempt(step, pixels)
    assert again.walk(ensemble) == expected
    assert again.looked_at == [4] * 3


def test_a_stop_that_is_noticed_elsewhere_keeps_what_was_made(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path
) -> None:
    ensemble, stop = make_ensemble(1), StopRequest()
    walk = KeptWalks(step, Session(stop=stop)).batches(ensemble, pixels, ALL, BatchSize(4), by_number)
    next(walk)
    next(walk)
    stop.note(signal.SIGTERM)
    walk.close()
    assert [path.stem[-19:] for path in files(step)] == ["000000000-000000008"]


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: b"", lambda content: content[::-1]])
@pytest.mark.parametrize("which", [0, 1])
def test_what_has_rotted_is_said_and_made_again_with_all_that_comes_after_it(
    make_ensemble: Callable[..., Ensemble],
    pixels: PixelStore,
    step: Path,
    which: int,
    damage: Callable[[bytes], bytes],
) -> None:
    ensemble = make_ensemble(1)
    expected = at_once(ensemble, pixels)
    for _ in range(2):
        with pytest.raises(StoppedError):
            Attempt(step, pixels, stop_after=2).walk(ensemble)
    path = files(step)[which]
    path.write_bytes(damage(path.read_bytes()))
    again = Attempt(step, pixels)
    assert again.walk(ensemble) == expected
    assert again.looked_at == [4] * (5 - 2 * which)
    (said,) = again.said
    assert f"{path} is not what was written there: it is made again" in said


def test_a_file_without_a_seal_is_not_believed(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path
) -> None:
    ensemble = make_ensemble(1)
    expected = Attempt(step, pixels).walk(ensemble)
    (path,) = files(step)
    for seal in (step / "scratch" / "sealed").rglob("*"):
        if seal.is_file():
            seal.unlink()
    content = path.read_bytes()
    path.write_bytes(content)
    again = Attempt(step, pixels)
    assert again.walk(ensemble) == expected
    assert again.looked_at == [4] * 5


@pytest.mark.parametrize(
    "columns",
    [
        {"level 0": np.zeros((20, 2), np.float32)},
        {f"level {number}": np.zeros((20, size)) for number, size in enumerate((2, 3, 5))},
        {f"level {number}": np.zeros((20, size), np.float32) for number, size in enumerate((2, 3, 4))},
        {f"level {number}": np.zeros((16, size), np.float32) for number, size in enumerate((2, 3, 5))},
    ],
)
def test_a_file_that_holds_something_else_is_not_used(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path, columns: dict[str, np.ndarray]
) -> None:
    ensemble = make_ensemble(1)
    expected = Attempt(step, pixels).walk(ensemble)
    (path,) = files(step)
    SealedFiles(step).drop(f"{WALKS}/{path.name}")
    SealedFiles(step).write(f"{WALKS}/{path.name}", encoded(columns, {}))
    assert Attempt(step, pixels).walk(ensemble) == expected


def test_nothing_is_taken_over_from_another_walk(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path
) -> None:
    """Of other weights, another recipe, other images, an order of them, or other columns."""

    def first_level(levels: Levels) -> Mapping[str, torch.Tensor]:
        return {"level 0": levels[0]}

    one = make_ensemble(1)
    tempered = one.with_member_temperatures([(2.0, 2.0, 2.0)])
    walks: list[tuple[Ensemble, Ids, Wanted]] = [
        (one, ALL, by_number),
        (make_ensemble(2), ALL, by_number),
        (tempered, ALL, by_number),
        (one, ALL[::-1], by_number),
        (one, ALL[:12], by_number),
        (one, ALL, first_level),
    ]
    for ensemble, ids, wanted in walks:
        attempt = Attempt(step, pixels)
        assert attempt.walk(ensemble, ids, wanted) == at_once(ensemble, pixels, ids, wanted)
        assert sum(attempt.looked_at) >= len(ids)
    assert len(files(step)) == len(walks)


def test_a_weight_that_has_changed_is_another_classifier(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path
) -> None:
    ensemble = make_ensemble(1)
    Attempt(step, pixels).walk(ensemble)
    tensors = dict(ensemble.members[0].tensors())
    name = next(name for name in sorted(tensors) if name.endswith("bias"))
    tensors[name].view(-1)[0] += 1
    again = Attempt(step, pixels)
    again.walk(ensemble)
    assert again.looked_at == [4] * 5


def test_columns_come_in_their_own_order(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path
) -> None:
    """Of more than ten levels the tenth stands before the second where they are sorted by name."""

    def backwards(levels: Levels) -> Mapping[str, torch.Tensor]:
        return {"level 2": levels[2], "level 10": levels[0]}

    ensemble = make_ensemble(1)
    Attempt(step, pixels).walk(ensemble, wanted=backwards)
    assert list(Attempt(step, pixels).walk(ensemble, wanted=backwards)) == ["level 2", "level 10"]


def test_no_images_leave_no_file(make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path) -> None:
    said = predict(make_ensemble(1), pixels, ALL[:0], 4, walk=KeptWalks(step, Session()).batches)
    assert [level.shape for level in said] == [(0, 2), (0, 3), (0, 5)]
    assert not files(step)


def test_a_walk_in_passing_writes_only_where_it_is_stopped_and_leaves_nothing(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_walks, "_FILE_BYTES", 1)
    ensemble = make_ensemble(1)
    expected = Attempt(step, pixels, passing=True).walk(ensemble)
    assert not (step / "scratch").exists()
    with pytest.raises(StoppedError):
        Attempt(step, pixels, 3, passing=True).walk(ensemble)
    assert len(files(step)) == 1
    again = Attempt(step, pixels, passing=True)
    assert again.walk(ensemble) == expected
    assert again.looked_at == [4] * 2
    assert not [path for path in step.rglob("*") if path.is_file()]
