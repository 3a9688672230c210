"""Short trainings, and what tests compare of them."""

from collections.abc import Sequence

import torch
from nstudent.config import NoiseConfig
from nstudent.outputs import Outputs
from nstudent.progress import Silence
from nstudent.training.loop import Length
from nstudent.training.losses import CrossEntropy, even_weights
from nstudent.training.objective import Supervised
from torch import nn

MILD = NoiseConfig()
CPU = torch.device("cpu")
LENGTH = Length(epochs=3, steps_per_epoch=4)


def supervised(
    outputs: Outputs,
    level_weights: Sequence[float],
    device: torch.device = CPU,
    *,
    smoothing: float = 0.1,
    unlabelled_weight: float = 0.0,
) -> Supervised:
    """Cross-entropy, the labels smoothed and every class of equal weight."""
    even = even_weights(outputs, device)
    return Supervised(CrossEntropy(even, smoothing), CrossEntropy(even), level_weights, unlabelled_weight)


def bytes_of(network: nn.Module):
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in network.state_dict().items()}


def fit(trainer, folder, progress=None, validate=None, name="member"):
    folder.mkdir(exist_ok=True)
    return trainer.fit(folder / "checkpoint.safetensors", progress or Silence(), name, validate)


def losses(trained):
    return [entry["loss"] for entry in trained.history]
