from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nearest_mean import add_nearest_mean
from nstudent.config.schema import Config
from nstudent.errors import ConfigError
from nstudent.models.device import (
    Placement,
    loader_workers,
    noises_in_batches,
    training_threads,
    trainings_at_once,
)
from nstudent.models.ensemble import Ensemble
from threadpoolctl import ThreadpoolController, threadpool_limits
from torch import nn

DENSE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))
GREY = nn.Sequential(nn.Conv2d(1, 8, 3))
CPU = torch.device("cpu")
LARGE = {"image_size": 224}


def runs_in_bfloat16(placement: Placement, network: nn.Module) -> bool:
    with placement.autocast(network):
        return torch.is_autocast_enabled("cpu")


@pytest.fixture(params=[True, False], ids=["CPU with bf16", "CPU without"])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    return request.param


@pytest.mark.parametrize(("precision", "expected"), [("float32", False), ("bfloat16", True)])
@pytest.mark.parametrize("network", [DENSE, DEPTHWISE], ids=["dense", "depthwise"])
def test_a_precision_that_was_asked_for_is_the_one_used(
    precision: str, expected: bool, network: nn.Module, has_bf16: bool
) -> None:
    assert runs_in_bfloat16(Placement(CPU, precision), network) is expected


def test_auto_is_bfloat16_where_the_chip_has_it_and_the_network_is_dense(has_bf16: bool) -> None:
    auto = Placement(CPU, "auto")
    assert runs_in_bfloat16(auto, DENSE) is has_bf16
    # One group of one channel is an ordinary convolution on a grey image.
    assert runs_in_bfloat16(auto, GREY) is has_bf16
    assert runs_in_bfloat16(auto, DEPTHWISE) is False


def test_autocast_ends_with_its_block() -> None:
    with Placement(CPU, "bfloat16").autocast(DENSE):
        pass
    assert not torch.is_autocast_enabled("cpu")


@pytest.fixture
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(device: str, only_cpu: None) -> None:
    with pytest.raises(ConfigError, match=f"device={device} is not available here: choose from cpu, or auto"):
        Placement.from_config(Config(device=device, threads=1))


def test_auto_falls_back_to_the_cpu(only_cpu: None) -> None:
    assert Placement.from_config(Config(threads=1)).device == CPU


@pytest.fixture
def threads_put_back() -> Iterator[None]:
    yield
    torch.set_num_threads(1)
    threadpool_limits(1)


@pytest.mark.usefixtures("threads_put_back")
@pytest.mark.parametrize(
    ("cores", "settings", "threads"),
    [
        (8, {"threads": 2}, 2),
        (8, {"threads": 2, "workers": 8}, 2),
        (8, {"workers": 3, "data": LARGE}, 5),
        (8, {"workers": 0, "data": LARGE}, 7),
        (8, {"data": LARGE}, 7),
        (8, {"workers": 3}, 1),
        (8, {}, 3),
        (4, {}, 1),
        (2, {}, 1),
        (2, {"workers": 4}, 1),
        (1, {}, 1),
        (8, {"rounds": 0, "teacher": {"members": [{}]}}, 7),
        (8, {"rounds": 1, "teacher": {"members": [{}]}}, 3),
        (24, {"teacher": {"members": [{}] * 3}}, 7),
        (24, {"teacher": {"members": [{}] * 12}}, 5),
    ],
)
def test_threads_are_those_asked_for_or_a_trainings_share_less_what_prepares_its_images(
    cores: int, settings: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: cores)
    for jobs in (None, 1, 2):
        torch.set_num_threads(9)
        Placement.from_config(Config(device="cpu", jobs=jobs, **settings))
        assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("threads_put_back")
def test_the_regression_of_a_probe_computes_in_as_many_threads_as_a_network() -> None:
    libraries = ThreadpoolController().select(user_api="blas")
    assert len(libraries) >= 2, "NumPy and SciPy"
    for threads in (2, 1):
        Placement.from_config(Config(device="cpu", threads=threads))
        assert {library["num_threads"] for library in libraries.info()} == {threads}


@pytest.mark.parametrize(
    ("cores", "settings", "at_once"),
    [
        *((cores, {}, at_once) for cores, at_once in [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (64, 2)]),
        (64, {"threads": 1}, 3),
        (4, {"threads": 2}, 1),
        (6, {"threads": 2}, 2),
        (64, {"threads": 1, "rounds": 0}, 2),
        (64, {"threads": 1, "rounds": 3}, 3),
        (64, {"rounds": 0, "teacher": {"members": [{}]}}, 1),
        (16, {"teacher": {"members": [{}] * 5}}, 4),
        (64, {"data": LARGE}, 1),
        (64, {"data": LARGE, "threads": 4, "workers": 2}, 3),
        (2, {"jobs": 2}, 2),
        (2, {"jobs": 9}, 3),
        (64, {"jobs": 1}, 1),
    ],
)
def test_trainings_at_once_are_as_many_as_there_are_cores_for(
    cores: int, settings: dict[str, Any], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: cores)
    monkeypatch.setattr("nstudent.models.device.available_memory", lambda: None)
    assert trainings_at_once(Config(device="cpu", **settings)) == at_once


def test_a_member_that_is_not_a_network_takes_no_cores_from_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    add_nearest_mean(monkeypatch)
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: 8)
    monkeypatch.setattr("nstudent.models.device.available_memory", lambda: None)

    def counted(*members: dict[str, str]) -> tuple[int, int]:
        config = Config(device="cpu", rounds=0, teacher={"members": members})  # type: ignore[arg-type]
        return training_threads(config), trainings_at_once(config)

    other = {"kind": "nearest_mean"}
    assert counted({}, other, other) == counted({}) == (7, 1)
    assert counted({}, {}, other) == counted({}, {}) == (3, 2)
    assert counted(other) == (7, 1)


@pytest.mark.parametrize(("gigabytes", "at_once"), [(1, 1), (3, 1), (4, 2), (64, 3)])
def test_no_training_is_started_unasked_that_memory_is_short_for(
    gigabytes: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: 64)
    monkeypatch.setattr("nstudent.models.device.available_memory", lambda: gigabytes << 30)
    assert trainings_at_once(Config(device="cpu", threads=1)) == at_once
    assert trainings_at_once(Config(device="cpu", threads=1, jobs=3)) == 3


@pytest.mark.parametrize("jobs", [None, 3])
def test_a_gpu_trains_one_network_after_another_and_so_do_processes_of_torchrun(
    jobs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: 64)
    monkeypatch.setattr("nstudent.models.device.available_memory", lambda: None)
    assert trainings_at_once(Config(device="cpu", jobs=jobs)) > 1
    torchrun = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    for name, value in (torchrun | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    assert trainings_at_once(Config(device="cpu", jobs=jobs)) == 1
    assert training_threads(Config(device="cpu", jobs=jobs)) == 63
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert trainings_at_once(Config(device="cuda", jobs=jobs)) == 1
    assert training_threads(Config(device="cuda", jobs=jobs)) == 63


@pytest.mark.parametrize(
    ("device", "cores", "platform", "side", "workers"),
    [
        *(("cpu", 2, "linux", 65, 1), ("cpu", 64, "linux", 224, 1), ("cpu", 1, "linux", 224, 0)),
        *(("cpu", 8, "darwin", 224, 0), ("cpu", 8, "linux", 64, 0)),
        *(("cuda", 4, "linux", 224, 3), ("cuda", 64, "linux", 224, 8), ("cuda", 64, "linux", 64, 0)),
    ],
)
def test_unasked_processes_prepare_large_images_where_they_are_cheap(
    device: str, cores: int, platform: str, side: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: cores)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    assert loader_workers(Config(data={"image_size": side}, device=device)) == workers
    assert loader_workers(Config(data={"image_size": side}, device=device, workers=3)) == 3


@pytest.mark.parametrize(
    ("augment", "side", "expected"),
    [("auto", 32, True), ("auto", 64, True), ("auto", 65, False), ("image", 32, False), ("batch", 224, True)],
)
def test_small_images_are_noised_by_the_batch_and_others_where_asked_for(
    augment: str, side: int, expected: bool
) -> None:
    assert noises_in_batches(Config(augment=augment, data={"image_size": side})) is expected


@pytest.mark.parametrize(
    ("augment", "side", "mapped", "in_batches", "workers"),
    [
        ("auto", 32, False, True, 0),
        ("auto", 300, True, True, 0),
        # What has to be decoded is decoded by processes.
        ("auto", 300, False, True, 7),
        ("image", 300, True, False, 7),
        ("image", 32, True, False, 7),
    ],
)
def test_a_gpu_noises_images_of_every_size_itself(
    augment: str, side: int, mapped: bool, in_batches: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: 8)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = Config(augment=augment, data={"image_size": side}, device="cuda")
    assert noises_in_batches(config) is in_batches
    assert loader_workers(config, mapped) == workers


def test_a_process_keeps_the_gpu_that_it_has_chosen_also_in_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new thread begins on the first GPU: the device carries its number."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    placement = Placement.from_config(Config(device="cuda", threads=1))
    assert placement.device == torch.device("cuda", 3)
    assert placement.records
    assert not Placement.from_config(Config(device="cuda", threads=1, cuda_graphs=False)).records
    assert not Placement.from_config(Config(device="cpu", threads=1)).records


def test_large_images_that_are_mapped_and_noised_by_the_batch_need_no_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: 4)
    monkeypatch.setattr("sys.platform", "linux")
    by_the_batch, one_by_one = (Config(device="cpu", data=LARGE, augment=augment) for augment in ("batch", "image"))
    assert loader_workers(by_the_batch, mapped=True) == 0
    assert loader_workers(by_the_batch, mapped=False) == 1
    assert loader_workers(one_by_one, mapped=True) == 1


def test_images_become_floats_from_0_to_1_with_channels_first() -> None:
    pixels = np.zeros((2, 4, 5, 3), dtype=np.uint8)
    pixels[1, 2, 3] = (255, 51, 0)
    images = Placement(CPU, "float32").images(torch.from_numpy(pixels))
    assert images.dtype == torch.float32
    assert images.shape == (2, 3, 4, 5)
    assert images[1, :, 2, 3].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert images.sum().item() == pytest.approx(1.2)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert pixels[1, 2, 3].tolist() == [255, 51, 0], "the pixels themselves stay as they are"


@pytest.mark.gpu
def test_cpu_and_gpu_agree_on_the_labels(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    here = make_ensemble(1, 2).probabilities(noise_images(16))
    there = make_ensemble(1, 2, placement=Placement(torch.device("cuda"), "float32")).probabilities(noise_images(16))
    for cpu, gpu in zip(here, there, strict=True):
        # Convolutions on the GPU may round their inputs to TF32: 10 bits of mantissa.
        np.testing.assert_allclose(cpu, gpu, atol=2e-3)


@pytest.mark.parametrize(("side", "expected"), [(8, "float32"), (16, "float32"), (31, "float32"), (32, "auto")])
def test_small_images_are_not_trained_in_bfloat16_on_the_cpu(side: int, expected: str) -> None:
    """oneDNN's gradient there depends on what lay in memory before."""
    assert Placement.from_config(Config(device="cpu", threads=1, data={"image_size": side})).precision == expected
