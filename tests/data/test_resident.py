"""Images on the device: the same ones, and none where a GPU would be left without memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.data.dataset import PixelStore
from nstudent.data.resident import ResidentPixels, fits_beside_training, free_memory
from nstudent.storage.hdf5 import write

CUDA = torch.device("cuda")


@pytest.fixture
def store(tmp_path: Path) -> PixelStore:
    """Five images in shards of two."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    shards = [tmp_path / f"{number}.h5" for number in range(3)]
    for number, shard in enumerate(shards):
        write(shard, {"pixels": pixels[2 * number : 2 * number + 2]}, {})
    return PixelStore(shards)


@pytest.mark.parametrize("together", [1, 2, 3, 100])
def test_they_are_those_of_the_store_whatever_is_copied_together(
    store: PixelStore, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.data.resident._COPIED_TOGETHER", together)
    ids = np.array([4, 0, 4, 3, 1, 2])
    resident = ResidentPixels(store, 5, 8, torch.device("cpu"))
    np.testing.assert_array_equal(resident[ids].numpy(), store[ids])


@pytest.mark.parametrize(("free", "fits"), [(4 * 192_000, True), (4 * 192_000 - 1, False)])
def test_they_may_take_a_quarter_of_a_gpu(free: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    assert fits_beside_training(192_000, CUDA) is fits


def test_memory_that_torch_holds_unused_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stage most of a GPU can belong to torch's cache, and the driver calls it taken."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert free_memory(CUDA) == 660


def test_a_cpu_maps_them() -> None:
    assert not fits_beside_training(1, torch.device("cpu"))
