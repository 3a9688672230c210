import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.data.dataset import PixelStore
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize, batches, predict, told
from nstudent.progress import Silence
from nstudent.storage.hdf5 import write
from torch import nn


@pytest.fixture
def pixels(noise_images: Callable[[int], np.ndarray], tmp_path: Path) -> PixelStore:
    write(tmp_path / "pixels-00000.h5", {"pixels": noise_images(20)}, {})
    return PixelStore([tmp_path / "pixels-00000.h5"])


def test_an_images_labels_do_not_depend_on_how_many_images_there_are(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore
) -> None:
    ensemble = make_ensemble(1)
    whole = predict(ensemble, pixels, np.arange(20), batch_size=8)
    for count in (1, 7, 8, 9, 13):
        part = predict(ensemble, pixels, np.arange(count), batch_size=8)
        for few, many in zip(part, whole, strict=True):
            assert few.tobytes() == many[:count].tobytes()


def test_results_stand_in_the_order_of_the_ids(make_ensemble: Callable[..., Ensemble], pixels: PixelStore) -> None:
    ensemble = make_ensemble(1)
    forward = predict(ensemble, pixels, np.arange(20), batch_size=6)
    ids = np.array([19, 3, 3, 11, 0, 7, 12])
    for asked, every in zip(predict(ensemble, pixels, ids, batch_size=6), forward, strict=True):
        np.testing.assert_allclose(asked, every[ids], atol=1e-6)
    assert not np.allclose(forward[2][19], forward[2][3], atol=1e-4)


def test_no_images_give_no_rows(make_ensemble: Callable[..., Ensemble], pixels: PixelStore) -> None:
    probabilities = predict(make_ensemble(1), pixels, np.arange(0), batch_size=8)
    assert [level.shape for level in probabilities] == [(0, 2), (0, 3), (0, 5)]


def test_progress_counts_images_and_not_the_filling(make_ensemble: Callable[..., Ensemble], pixels: PixelStore) -> None:
    counted = []

    class Counter(Silence):
        def advance(self, amount: int, **shown: Any) -> None:
            counted.append(amount)

    predict(make_ensemble(1), pixels, np.arange(11), batch_size=8, walk=told(batches, Counter()))
    assert counted == [8, 3]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore
) -> None:
    """A first layer that refuses more than 3 images stands in for a small device."""
    ensemble = make_ensemble(1)
    whole = predict(ensemble, pixels, np.arange(20), batch_size=8)

    def refuse(_module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
        if len(images[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = ensemble.members[0].network.register_forward_pre_hook(refuse)
    for few, many in zip(predict(ensemble, pixels, np.arange(20), batch_size=8), whole, strict=True):
        np.testing.assert_allclose(few, many, atol=1e-6)
    handle.remove()
    ensemble.members[0].network.register_forward_pre_hook(lambda *_: refuse(None, [range(9)]))
    with pytest.raises(torch.OutOfMemoryError):
        predict(ensemble, pixels, np.arange(20), batch_size=8)


def refuse_more_than(ensemble: Ensemble, count: int) -> list[int]:
    """A first layer that refuses more images stands in for a small device; returns the sizes it was asked about."""
    asked = []

    def refuse(_module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
        asked.append(len(images[0]))
        if len(images[0]) > count:
            raise torch.OutOfMemoryError("CUDA out of memory")

    ensemble.members[0].network.register_forward_pre_hook(refuse)
    return asked


def test_the_size_that_was_found_is_remembered(make_ensemble: Callable[..., Ensemble], pixels: PixelStore) -> None:
    ensemble, size = make_ensemble(1), BatchSize(16)
    asked = refuse_more_than(ensemble, 4)

    predict(ensemble, pixels, np.arange(8), size)
    predict(ensemble, pixels, np.arange(8), size)

    assert asked == [16, 8, 4, 4, 4, 4]
    assert size.images == 4


def test_a_batch_is_halved_down_to_one_image(make_ensemble: Callable[..., Ensemble], pixels: PixelStore) -> None:
    ensemble, size = make_ensemble(1), BatchSize(5)
    asked = refuse_more_than(ensemble, 1)
    predict(ensemble, pixels, np.arange(3), size)
    assert asked == [5, 2, 1, 1, 1]
    assert size.images == 1


def by_number(levels: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    return {str(number): level for number, level in enumerate(levels)}


def test_batches_come_in_order_without_the_filling(make_ensemble: Callable[..., Ensemble], pixels: PixelStore) -> None:
    ensemble = make_ensemble(1)
    whole = predict(ensemble, pixels, np.arange(20), batch_size=8)

    parts = list(batches(ensemble, pixels, np.arange(20), BatchSize(8), by_number))

    assert [len(part["0"]) for part in parts] == [8, 8, 4]
    for level, every in enumerate(whole):
        assert np.concatenate([part[str(level)] for part in parts]).tobytes() == every.tobytes()


def test_a_batch_is_handed_out_when_the_next_one_is_under_way(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore
) -> None:
    """On a GPU the host would otherwise make of a batch what it has to, and the device would wait for it."""
    ensemble = make_ensemble(1)
    looked_at = refuse_more_than(ensemble, 8)
    walk = batches(ensemble, pixels, np.arange(20), BatchSize(8), by_number)
    seen = []
    for _ in walk:
        seen.append(len(looked_at))
    assert seen == [2, 3, 3]


def test_a_walk_that_is_given_up_leaves_no_thread(make_ensemble: Callable[..., Ensemble], pixels: PixelStore) -> None:
    before = threading.active_count()
    walk = batches(make_ensemble(1), pixels, np.arange(20), BatchSize(2), by_number)
    next(walk)
    walk.close()

    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("device", "side", "images"),
    [
        *(("cpu", 8, 256), ("cpu", 32, 256), ("cpu", 64, 64), ("cpu", 224, 8), ("cpu", 1024, 8)),
        *(("cuda", 32, 4096), ("cuda", 256, 1024), ("cuda", 224, 1024), ("cuda", 1024, 256)),
    ],
)
def test_without_a_limit_the_size_of_the_images_and_the_device_decide(
    device: str, side: int, images: int, make_ensemble: Callable[..., Ensemble]
) -> None:
    ensemble = make_ensemble(1)
    ensemble.recipe = ensemble.recipe.model_copy(update={"image_size": side})
    ensemble._placement = Placement(torch.device(device), "float32")

    assert BatchSize.starting(None, ensemble).images == images
    assert BatchSize.starting(7, ensemble).images == 7


@pytest.mark.gpu
def test_a_gpu_gives_every_image_its_own_labels(make_ensemble: Callable[..., Ensemble], pixels: PixelStore) -> None:
    """While a batch is worked on the next one is copied, and the one before is still on its way back."""
    there = make_ensemble(1, 2, placement=Placement(torch.device("cuda"), "float32"))
    ids = np.array([19, 3, 11, 0, 7, 12, 5, 1, 18, 2, 9])
    here = predict(make_ensemble(1, 2), pixels, ids, batch_size=2)
    for cpu, gpu in zip(here, predict(there, pixels, ids, batch_size=2), strict=True):
        np.testing.assert_allclose(cpu, gpu, atol=2e-3)


@pytest.mark.gpu
def test_a_gpu_that_runs_out_of_memory_looks_at_fewer_images(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore
) -> None:
    ensemble = make_ensemble(1, placement=Placement(torch.device("cuda"), "float32"))
    whole = predict(ensemble, pixels, np.arange(20), batch_size=4)

    def grab(_module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
        if len(images[0]) > 4:
            torch.empty(1 << 44, dtype=torch.uint8, device="cuda")

    ensemble.members[0].network.register_forward_pre_hook(grab)
    size = BatchSize(16)
    for few, many in zip(predict(ensemble, pixels, np.arange(20), size), whole, strict=True):
        np.testing.assert_allclose(few, many, atol=1e-5)
    assert size.images == 4


def test_images_that_do_not_fit_beside_the_networks_are_fetched_in_smaller_batches(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's memory can end in the thread that copies the next batch to it."""
    whole = predict(make_ensemble(1), pixels, np.arange(20), batch_size=8)
    read_into = PixelStore.read_into

    def short(store: PixelStore, ids: np.ndarray, out: np.ndarray) -> None:
        if len(out) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        read_into(store, ids, out)

    monkeypatch.setattr(PixelStore, "read_into", short)
    size = BatchSize(16)
    for few, many in zip(predict(make_ensemble(1), pixels, np.arange(20), size), whole, strict=True):
        np.testing.assert_allclose(few, many, atol=1e-6)
    assert size.images == 4


def test_filling_up_a_batch_reads_no_image_twice(
    make_ensemble: Callable[..., Ensemble], pixels: PixelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is decoded anew at every look would be decoded hundreds of times for the last batch."""
    read, read_into = [], PixelStore.read_into
    monkeypatch.setattr(PixelStore, "read_into", lambda store, ids, out: (read.extend(ids), read_into(store, ids, out)))
    predict(make_ensemble(1), pixels, np.arange(13), batch_size=8)
    assert read == list(range(13))
