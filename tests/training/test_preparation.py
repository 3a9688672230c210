"""Batches that a thread makes ahead: the same ones, with their errors, and nothing is left behind."""

import threading
import time
from collections.abc import Callable, Generator, Iterator

import pytest
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.data.batches import Batch
from nstudent.models.device import Placement
from nstudent.noise.build import Noise
from nstudent.noise.mixing import Mixing
from nstudent.noise.steps import BatchStep, Prepared
from nstudent.training.preparation import Ahead, Preparation

LONG_SECONDS = 30


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prepare")]


def until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_SECONDS
    while not met():
        assert time.monotonic() < end
        time.sleep(0.001)


def counted(number: int, made: list[int], *, together: threading.Event | None = None) -> Iterator[int]:
    """So many numbers, written down when they are made; with ``together`` none is before that is set."""
    for each in range(number):
        if together is not None:
            assert together.wait(LONG_SECONDS)
        made.append(each)
        yield each


def test_the_next_one_is_made_when_its_user_says_so_and_no_more_than_that() -> None:
    made = []
    walk = Ahead(counted(5, made))
    for number in range(5):
        assert next(walk) == number
        assert made == list(range(number + 1))
        walk.begin()
        walk.begin()
        until(lambda number=number: len(made) == min(5, number + 2))
        until(lambda: walk._coming[0].done())
    with pytest.raises(StopIteration):
        next(walk)
    assert threads() == []


def test_one_that_comes_too_late_again_and_again_is_begun_at_once() -> None:
    made = []
    walk = Ahead(counted(9, made))
    # Nobody ever says when: after the first, which has to be waited for, three are late.
    assert [next(walk) for _ in range(4)] == [0, 1, 2, 3]
    until(lambda: made == [0, 1, 2, 3, 4])
    assert next(walk) == 4
    until(lambda: made == [0, 1, 2, 3, 4, 5])
    walk.close()


def test_where_more_may_be_ahead_they_are_made_without_a_word() -> None:
    made, allowed = [], [1]
    walk = Ahead(counted(9, made), lambda: allowed[0])
    assert next(walk) == 0
    allowed[0] = 3
    assert next(walk) == 1
    until(lambda: made == [0, 1, 2, 3, 4])
    assert [next(walk) for _ in range(7)] == [2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(StopIteration):
        next(walk)
    assert threads() == []


def test_now_and_then_a_late_one_changes_nothing() -> None:
    made, free = [], threading.Event()
    walk = Ahead(counted(9, made, together=free))
    free.set()
    assert next(walk) == 0
    for number in range(1, 7):
        walk.begin()
        if number % 3:
            # Asked for before it is there.
            free.clear()
            threading.Timer(0.05, free.set).start()
        else:
            until(lambda: walk._coming[0].done())
        assert next(walk) == number
    time.sleep(0.05)
    assert made == list(range(7))
    walk.close()


def test_all_come_in_order_whoever_says_when() -> None:
    assert list(Ahead(counted(7, []))) == [0, 1, 2, 3, 4, 5, 6]
    assert list(Ahead(counted(0, []))) == []
    assert threads() == []


def test_an_error_comes_where_its_batch_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    walk = Ahead(items())
    assert next(walk) == 1
    with pytest.raises(OSError, match="gone"):
        next(walk)
    assert threads() == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_walk_that_is_given_up_ends_its_thread_and_its_source(begun: bool) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    walk = Ahead(items())
    assert next(walk) == 0
    if begun:
        walk.begin()
    walk.close()
    walk.close()
    assert threads() == []
    assert closed.is_set()


def test_what_was_only_asked_for_is_not_made_when_a_walk_is_given_up() -> None:
    made, free = [], threading.Event()
    walk = Ahead(counted(9, made, together=free), lambda: 5)
    walk.begin()
    threading.Timer(0.05, free.set).start()
    walk.close()
    assert made == [0]


def test_a_gpus_batches_are_made_ahead_of_those_that_are_noised_with_it() -> None:
    """One group is used while the next one is made; a CPU's come one by one."""
    for device, depths in (("cuda", [2, 16]), ("cpu", [1, 1])):
        preparation = Preparation(Placement(torch.device(device), "float32"), Noise())
        found = [preparation.depth]
        preparation._num_together = 8
        assert [*found, preparation.depth] == depths


def test_what_changes_a_batch_is_told_its_step_in_the_order_of_the_list() -> None:
    told = []

    def change(word: str) -> BatchStep:
        def changed(prepared: Prepared, step: int) -> Prepared:
            told.append((word, step))
            return prepared

        return changed

    def batches() -> Generator[Batch, None, None]:
        for _ in range(2):
            yield Batch(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), (torch.eye(1),), 1, torch.arange(1), (1, 0))

    noise = Noise(batch=(change("resize"), change("mix")))
    list(Preparation(Placement(torch.device("cpu"), "float32"), noise).each(batches(), 5))
    assert told == [("resize", 5), ("mix", 5), ("resize", 6), ("mix", 6)]


def test_each_view_of_a_batch_gets_its_own_noise() -> None:
    def batches() -> Generator[Batch, None, None]:
        images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
        yield Batch(images, (torch.eye(2),), 2, torch.arange(2), (2, 0), views={"weak": images, "clean": images})

    noise, weak = (Noise(pixels=(lambda images, steps, by=by: images + by,)) for by in (9, 4))
    preparation = Preparation(Placement(torch.device("cpu"), "float32"), noise, {"weak": weak, "clean": Noise()})
    (prepared,) = preparation.each(batches(), 0)
    assert prepared.images.unique().tolist() == [pytest.approx(9 / 255)]
    assert {name: images.unique().tolist() for name, images in prepared.batch.views.items()} == {
        "weak": [4],
        "clean": [0],
    }


def test_batches_that_a_gpu_noises_together_come_one_by_one_with_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU stands in for the GPU: only how many are taken together differs."""
    seen, steps = [], 7
    mixing = Mixing(lambda step: NoiseConfig(cutmix=0.5, cutmix_schedule="constant"), steps, ("k",))

    def noised(images: torch.Tensor, which: range) -> torch.Tensor:
        seen.append(list(which))
        return torch.cat([part + step for part, step in zip(images.split(4), which, strict=True)])

    def batches() -> Iterator[Batch]:
        for step in range(2, steps):
            images = torch.full((4, 8, 8, 3), 10 * step, dtype=torch.uint8)
            mass = torch.eye(4)
            yield Batch(images, (mass,), 4, torch.arange(4), (4, 0))

    def prepared(together: int) -> list[Prepared]:
        noise = Noise(pixels=(noised,), batch=(mixing,))
        preparation = Preparation(Placement(torch.device("cpu"), "float32"), noise)
        monkeypatch.setattr(preparation, "_most_together", lambda images: together)
        return list(preparation.each(batches(), 2))

    one_by_one, together = prepared(1), prepared(3)
    assert seen[5:] == [[2], [3, 4, 5], [6]]
    for alone, beside in zip(one_by_one, together, strict=True):
        assert torch.equal(alone.images, beside.images)
        assert torch.equal(alone.targets[0], beside.targets[0])


@pytest.mark.parametrize(
    ("device", "shape", "together"),
    [
        ("cuda", (512, 32, 32, 3), 8),
        ("cuda", (64, 32, 32, 3), 16),
        ("cuda", (64, 300, 300, 3), 1),
        ("cpu", (64, 32, 32, 3), 1),
    ],
)
def test_how_many_batches_are_noised_together_is_a_matter_of_their_size(
    device: str, shape: tuple[int, ...], together: int
) -> None:
    placement = Placement(torch.device(device), "float32")
    preparation = Preparation(placement, Noise(pixels=(lambda images, steps: images,)))
    assert preparation._most_together(torch.empty(shape, dtype=torch.uint8, device="meta")) == together
    assert Preparation(placement, Noise())._most_together(torch.empty(shape)) == 1
