"""Where a network runs, in which precision, and with how many of the cores."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from nstudent.config.schema import Config, ModelConfig
from nstudent.errors import ConfigError
from nstudent.machine import available_cores, available_memory, is_one_of_several, may_start_processes
from nstudent.models.compilation import compile_network
from nstudent.randomness import Key, seed
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

_SMALLEST_BFLOAT16_PX = 32
"""On the CPU the bfloat16 gradient of a strided convolution whose input is one pixel wide reads memory that nobody
wrote (torch 2.14, oneDNN; not finite in 18 of 30 tries at 8 px, in 19 at 16 px, in none from 24 px on). Networks divide
the side by up to 32, so below that such an input occurs."""


_LARGEST_NOISED_IN_BATCHES_PX = 64
"""Largest side, in pixels, that a CPU noises by the batch; above it noise image by image is faster there."""

_MOST_WORKERS = 8
"""Number of loader processes that are started unasked; each prepares some 600 images of 224 px a second."""

_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable without which cuBLAS adds in an order of its own (torch's notes on reproducibility)."""

_MOST_SHARES = 4
"""The cores are divided among no more trainings than this: beside a student there is one other, not a whole teacher."""

_JOB_BYTES = 2 << 30
"""Memory without which no further training is started unasked: torch and its like take 1 GB in every process."""


@dataclass(frozen=True)
class Placement:
    """A device and the type that convolutions compute in; weights stay float32."""

    device: torch.device
    precision: str
    """float32, bfloat16, or auto: decided for each network."""
    compile_mode: str = "none"
    """For torch.compile; none: networks run as they are."""
    records: bool = False
    """Whether steps of a training are recorded as a CUDA graph, where they can be."""

    @classmethod
    def from_config(cls, config: Config) -> Placement:
        """Choose the device, and set the threads of this process: those of torch, of NumPy and of SciPy.

        Raises:
            ConfigError: the device asked for is not there.
        """
        _compute_in(training_threads(config))
        device, precision = _device(config.device), config.precision
        if device.type == "cuda":
            # With its number: threads that prepare batches begin on the first GPU, whichever their process has.
            device = torch.device("cuda", torch.cuda.current_device())
            _choose_kernels(config.deterministic)
        if precision == "auto" and device.type == "cpu" and config.data.image_size < _SMALLEST_BFLOAT16_PX:
            precision = "float32"
        return cls(device, precision, config.compile, device.type == "cuda" and config.cuda_graphs)

    def put(self, network: nn.Module) -> nn.Module:
        """The network on the device, in the layout that convolutions like (measured: 1.1 to 4 times faster)."""
        if self.device.type == "mps":
            return network.to(self.device)
        return network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def compile(self, network: nn.Module) -> None:
        """Let torch compile the network when it is first called, where that was asked for."""
        if self.compile_mode != "none":
            compile_network(network, self.compile_mode)

    def images(self, pixels: Tensor) -> Tensor:
        """uint8 (batch, side, side, 3), anywhere -> float32 (batch, 3, side, side) in 0..1 on the device.

        The result is a view with channels last in memory: no copy is made to change the layout.
        """
        return pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255.0)

    def seed(self, key: Key) -> None:
        """Set the generators that dropout on this device reads."""
        number = seed(*key)
        if self.device.type == "mps":
            torch.mps.manual_seed(number)
        # Not torch.manual_seed: it also leaves a note for every device that may yet be used, 0.1 to 1 ms each time.
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            index = self.device.index if self.device.index is not None else torch.cuda.current_device()
            torch.cuda.default_generators[index].manual_seed(number)

    def autocast(self, network: nn.Module) -> AbstractContextManager[None]:
        """Context in which the network's matrix products run in bfloat16 where that was asked for or pays."""
        wanted = self.precision == "bfloat16" or (self.precision == "auto" and self._gains_from_bfloat16(network))
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)

    def _gains_from_bfloat16(self, network: nn.Module) -> bool:
        if self.device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        if self.device.type == "cpu":
            # Measured on CPUs with these instructions: dense networks gain 1.4 to 2.2 times, and depthwise ones lose.
            # A rule instead of a stopwatch, so that the same run has the same bytes every time.
            return bool(torch.cpu._is_avx512_bf16_supported()) and not _is_depthwise(network)
        return False


def _compute_in(threads: int) -> None:
    """Let every library of this process compute in so many threads.

    The products of a probe's regression are those of NumPy and SciPy, whose libraries take all cores unless they are
    told. Beside a training their threads wait for each other: on 2 busy cores a fit takes 2.4 times as long with 2
    threads as with one.
    """
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def noises_in_batches(config: Config) -> bool:
    """Whether training images are noised a batch at a time, and not one by one.

    Where nobody says, a GPU noises images of every size: a millisecond or two of its step at 300 px, and more than
    eight processes can do for it.
    """
    if config.augment == "auto":
        return config.data.image_size <= _LARGEST_NOISED_IN_BATCHES_PX or _device(config.device).type == "cuda"
    return config.augment == "batch"


def loader_workers(config: Config, mapped: bool = False) -> int:
    """Number of processes that prepare images.

    Unasked there are none where a thread does what there is to do: for small images, and for larger ones that are
    noised by the batch and lie in ``mapped`` files, so that nothing has to be decoded. Nor are there any where
    processes cannot be forked, and each would import torch anew.
    """
    if not may_start_processes():
        return 0
    if config.workers is not None:
        return config.workers
    is_small = config.data.image_size <= _LARGEST_NOISED_IN_BATCHES_PX
    if (noises_in_batches(config) and (is_small or mapped)) or sys.platform != "linux":
        return 0
    # A CPU that trains has little left; beside a GPU the cores have nothing else to do.
    most = _MOST_WORKERS if _device(config.device).type == "cuda" else 1
    return min(available_cores() - 1, most)


def _choose_kernels(deterministic: bool) -> None:
    """Let libraries take kernels that add in the same order every time, where that is asked for.

    cuDNN is not let time its kernels in either case: on an H200 the chosen ones were no faster (docs/PERFORMANCE.md).
    """
    if deterministic:
        os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def training_threads(config: Config) -> int:
    """CPU threads of a training, be there others beside it or not: another number would change its last digits."""
    if config.threads is not None:
        return config.threads
    shares = 1
    # Large images keep all cores busy, and several processes of one training have divided them already.
    if _runs_on_cpu(config) and noises_in_batches(config) and not is_one_of_several():
        shares = min(max(_num_networks(config), 2 if config.rounds else 1), _MOST_SHARES)
    return max(1, available_cores() // shares - _preparing_cores(config))


def trainings_at_once(config: Config) -> int:
    """How many trainings a run of one process has under way at the same time; 1: one after another."""
    if not _runs_on_cpu(config) or is_one_of_several() or not may_start_processes():
        return 1
    independent = max(1, _num_networks(config) + bool(config.rounds))
    if config.jobs is not None:
        return min(config.jobs, independent)
    with_cores = available_cores() // (training_threads(config) + _preparing_cores(config))
    memory = available_memory()
    with_memory = with_cores if memory is None else memory // _JOB_BYTES
    return max(1, min(independent, with_cores, with_memory))


def _num_networks(config: Config) -> int:
    """Members of the teacher that are trained as networks: the other kinds are fitted without a loop of steps."""
    return sum(isinstance(member, ModelConfig) for member in config.teacher.members)


def _preparing_cores(config: Config) -> int:
    """Cores of a training for what prepares its images: processes, or a thread."""
    return max(1, loader_workers(config))


def has_gpu() -> bool:
    """Whether `device=auto` is a GPU here."""
    return _device("auto").type != "cpu"


def device_or_cpu(config: Config) -> torch.device:
    """The device that the configuration means; the CPU where that is not here, for work that any device can do."""
    try:
        return _device(config.device)
    except ConfigError:
        return torch.device("cpu")


def _runs_on_cpu(config: Config) -> bool:
    return _device(config.device).type == "cpu"


def _device(name: str) -> torch.device:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in present.items() if there))
    if not present[name]:
        there = ", ".join(device for device, is_there in present.items() if is_there)
        raise ConfigError(f"device={name} is not available here: choose from {there}, or auto")
    return torch.device(name)


def _is_depthwise(network: nn.Module) -> bool:
    return any(isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels for layer in network.modules())
