"""Short trainings, and what tests compare of them."""

from nstudent.config import NoiseConfig
from nstudent.progress import Silence
from nstudent.training.loop import Length

MILD = NoiseConfig()
LENGTH = Length(epochs=3, steps_per_epoch=4)


def bytes_of(network):
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in network.state_dict().items()}


def fit(trainer, folder, progress=None, validate=None, name="member"):
    folder.mkdir(exist_ok=True)
    return trainer.fit(folder / "checkpoint.safetensors", progress or Silence(), name, validate)


def losses(trained):
    return [entry["loss"] for entry in trained.history]
