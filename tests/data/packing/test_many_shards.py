"""More shards than a process may hold open by itself: a heap of a million large images has thousands."""

import resource
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from nstudent import machine
from nstudent.data import dataset
from nstudent.data.dataset import PixelStore, _PixelShards
from nstudent.errors import ArtifactError
from nstudent.machine import allow_open_files
from nstudent.storage.hdf5 import write

SHARDS = 150


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One image each, its number in every pixel."""
    folder = tmp_path_factory.mktemp("shards")
    paths = [folder / f"pixels-{number:05d}.h5" for number in range(SHARDS)]
    for number, path in enumerate(paths):
        write(path, {"pixels": np.full((1, 2, 2, 3), number % 256, dtype=np.uint8)}, {})
    return paths


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SHARDS, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_files")
def test_the_limit_of_open_files_is_raised_where_shards_are_many(shards: list[Path]) -> None:
    images = PixelStore(shards)[np.arange(SHARDS)]
    assert images[:, 0, 0, 0].tolist() == [number % 256 for number in range(SHARDS)]


@pytest.mark.usefixtures("few_files")
def test_what_the_system_does_not_allow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (600, 1_000))
    with pytest.raises(ArtifactError, match=r"5,000 files have to be open at once, and the system allows 1,000: raise"):
        allow_open_files(5_000)


def test_many_megabytes_are_copied_by_several_threads_each_its_own_part(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, copy = [], dataset._PixelShards._copy

    def watched(self: _PixelShards, ids: np.ndarray, images: np.ndarray) -> None:
        copied.append(len(ids))
        copy(self, ids, images)

    monkeypatch.setattr(dataset._PixelShards, "_copy", watched)
    monkeypatch.setattr(machine, "_BYTES_WORTH_A_THREAD", 1)
    monkeypatch.setattr(machine, "available_cores", lambda: 4)
    ids = np.random.default_rng(0).permutation(SHARDS)
    images = PixelStore(shards)[ids]
    assert sorted(copied) == [37, 37, 38, 38]
    assert images[:, 1, 1, 2].tolist() == (ids % 256).tolist()


def test_loader_processes_and_few_megabytes_are_copied_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loader process has a core; threads of all of them together would have many times what there is."""
    monkeypatch.setattr(machine, "available_cores", lambda: 4)
    assert [machine.copying_threads(size << 20) for size in (0, 7, 8, 100)] == [1, 1, 2, 4]
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(machine.copying_threads, (100 << 20,)) == 1
