import numpy as np
import pytest
import torch
from nstudent.config import Config
from nstudent.errors import ConfigError
from nstudent.models.device import Placement, loader_workers, noises_in_batches
from torch import nn

DENSE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))
GREY = nn.Sequential(nn.Conv2d(1, 8, 3))
CPU = torch.device("cpu")


def runs_in_bfloat16(placement, network):
    with placement.autocast(network):
        return torch.is_autocast_enabled("cpu")


@pytest.fixture(params=[True, False], ids=["CPU with bf16", "CPU without"])
def has_bf16(request, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    return request.param


@pytest.mark.parametrize(("precision", "expected"), [("float32", False), ("bfloat16", True)])
@pytest.mark.parametrize("network", [DENSE, DEPTHWISE], ids=["dense", "depthwise"])
def test_a_precision_that_was_asked_for_is_the_one_used(precision, expected, network, has_bf16):
    assert runs_in_bfloat16(Placement(CPU, precision), network) is expected


def test_auto_is_bfloat16_where_the_chip_has_it_and_the_network_is_dense(has_bf16):
    auto = Placement(CPU, "auto")
    assert runs_in_bfloat16(auto, DENSE) is has_bf16
    # One group of one channel is an ordinary convolution on a grey image.
    assert runs_in_bfloat16(auto, GREY) is has_bf16
    assert runs_in_bfloat16(auto, DEPTHWISE) is False


def test_autocast_ends_with_its_block():
    with Placement(CPU, "bfloat16").autocast(DENSE):
        pass
    assert not torch.is_autocast_enabled("cpu")


@pytest.fixture
def only_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(device, only_cpu):
    with pytest.raises(ConfigError, match=f"device={device} is not available here: choose from cpu, or auto"):
        Placement.from_config(Config(device=device, threads=1))


def test_auto_falls_back_to_the_cpu(only_cpu):
    assert Placement.from_config(Config(threads=1)).device == CPU


@pytest.fixture
def threads_put_back():
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("threads_put_back")
@pytest.mark.parametrize(
    ("cores", "settings", "threads"),
    [
        (8, {"threads": 2}, 2),
        (8, {"threads": 2, "workers": 8}, 2),
        (8, {"workers": 3}, 5),
        (8, {"workers": 0}, 7),
        (8, {}, 7),
        (2, {"workers": 4}, 1),
        (1, {}, 1),
    ],
)
def test_threads_are_those_asked_for_or_the_cores_that_preparing_images_leaves(cores, settings, threads, monkeypatch):
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: cores)
    Placement.from_config(Config(device="cpu", **settings))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("device", "cores", "platform", "side", "workers"),
    [
        *(("cpu", 2, "linux", 65, 1), ("cpu", 64, "linux", 224, 1), ("cpu", 1, "linux", 224, 0)),
        *(("cpu", 8, "darwin", 224, 0), ("cpu", 8, "linux", 64, 0)),
        *(("cuda", 4, "linux", 224, 3), ("cuda", 64, "linux", 224, 8), ("cuda", 64, "linux", 64, 0)),
    ],
)
def test_unasked_processes_prepare_large_images_where_they_are_cheap(
    device, cores, platform, side, workers, monkeypatch
):
    monkeypatch.setattr("nstudent.models.device.available_cores", lambda: cores)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    assert loader_workers(Config(data={"image_size": side}, device=device)) == workers
    assert loader_workers(Config(data={"image_size": side}, device=device, workers=3)) == 3


@pytest.mark.parametrize(
    ("augment", "side", "expected"),
    [("auto", 32, True), ("auto", 64, True), ("auto", 65, False), ("image", 32, False), ("batch", 224, True)],
)
def test_small_images_are_noised_by_the_batch_and_others_where_asked_for(augment, side, expected):
    assert noises_in_batches(Config(augment=augment, data={"image_size": side})) is expected


def test_images_become_floats_from_0_to_1_with_channels_first():
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
def test_cpu_and_gpu_agree_on_the_labels(make_ensemble, noise_images):
    here = make_ensemble(1, 2).probabilities(noise_images(16))
    there = make_ensemble(1, 2, placement=Placement(torch.device("cuda"), "float32")).probabilities(noise_images(16))
    for cpu, gpu in zip(here, there, strict=True):
        # Convolutions on the GPU may round their inputs to TF32: 10 bits of mantissa.
        np.testing.assert_allclose(cpu, gpu, atol=2e-3)


@pytest.mark.parametrize(("side", "expected"), [(8, "float32"), (16, "float32"), (31, "float32"), (32, "auto")])
def test_small_images_are_not_trained_in_bfloat16_on_the_cpu(side, expected):
    """oneDNN's gradient there depends on what lay in memory before."""
    assert Placement.from_config(Config(device="cpu", threads=1, data={"image_size": side})).precision == expected
