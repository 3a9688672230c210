"""Short trainings, and what tests compare of them."""

from collections.abc import Callable
from pathlib import Path

from nstudent.config import NoiseConfig
from nstudent.models.member import Member
from nstudent.progress import Progress, Silence
from nstudent.training.loop import Length, Loop, Trained
from torch import nn

MILD = NoiseConfig()
LENGTH = Length(epochs=3, steps_per_epoch=4)


def bytes_of(network: nn.Module) -> dict[str, bytes]:
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in network.state_dict().items()}


def fit(
    trainer: Loop,
    folder: Path,
    progress: Progress | None = None,
    validate: Callable[[Member], float] | None = None,
    name: str = "member",
) -> Trained:
    folder.mkdir(exist_ok=True)
    return trainer.fit(folder / "checkpoint.safetensors", progress or Silence(), name, validate)


def losses(trained: Trained) -> list[float]:
    return [entry["loss"] for entry in trained.history]
