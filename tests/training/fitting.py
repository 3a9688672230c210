"""Short trainings, and what tests compare of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.labels.targets import GivenTargets
from nstudent.models.network import Network
from nstudent.progress import Progress, Silence
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import UNKNOWN
from nstudent.training.cross_entropy import CrossEntropy
from nstudent.training.loop import Length, Loop, Trained
from nstudent.training.losses import even_weights
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


def heap_labels(dataset: Dataset, outputs: Outputs) -> GivenTargets:
    """Labels of the heap as a bad labeller makes them: drawn at random and cut short, some of them to nothing."""
    draw, images = np.random.default_rng(0), len(dataset.unlabelled)
    paths = dataset.taxonomy.terminal_rows
    labels = paths[draw.integers(0, len(paths), images)].copy()
    labels[np.arange(labels.shape[1]) >= draw.integers(0, labels.shape[1] + 1, images)[:, None]] = UNKNOWN
    return GivenTargets(labels, outputs)


def labels_and_heap(dataset: Dataset, outputs: Outputs) -> list[tuple[Examples, int]]:
    """The parts of a lesson: 7 labelled images a step, and 9 of the heap with labels of a bad labeller."""
    given = dataset.labels[dataset.labelled]
    return [
        (Examples(dataset.labelled, GivenTargets(given, outputs)), 7),
        (Examples(dataset.unlabelled, heap_labels(dataset, outputs)), 9),
    ]


def bytes_of(network: nn.Module) -> dict[str, bytes]:
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in network.state_dict().items()}


def fit(
    loop: Loop,
    folder: Path,
    progress: Progress | None = None,
    validate: Callable[[Network], float] | None = None,
    name: str = "member",
    tell: Callable[[dict[str, float]], None] = lambda entry: None,
    begins: Callable[[Sequence[dict[str, float]]], None] = lambda behind: None,
) -> Trained:
    folder.mkdir(exist_ok=True)
    return loop.fit(folder / "checkpoint.safetensors", progress or Silence(), name, validate, tell, begins)


def check_goes_on(
    make: Callable[[], Loop], killed: Silence, folder: Path, whole: tuple[Loop, Trained], seed: int
) -> Loop:
    """Check that a killed training goes on to the same bits as one that nobody interrupts; returns its loop.

    Args:
        make: Makes the loop anew, as another process would.
        killed: Progress that ends the training at some step.
        folder: An empty folder for the checkpoint.
        whole: The loop and the outcome of the training that nobody interrupts.
        seed: Of torch's generator when the training goes on: another process would have another past.
    """
    with pytest.raises(KeyboardInterrupt):
        fit(make(), folder, killed)
    torch.manual_seed(seed)
    resumed = make()
    trained = fit(resumed, folder)
    assert trained.history == whole[1].history
    assert trained.spent == whole[1].spent
    assert bytes_of(trained.network) == bytes_of(whole[1].network)
    return resumed


def losses(trained: Trained) -> list[float]:
    return [entry["loss"] for entry in trained.history]
