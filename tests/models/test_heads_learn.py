"""Every head can be taught with every loss that fits it: a network knows a few images by heart, whatever is missing."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from nstudent.config.members import LOG_PROBABILITY_HEADS
from nstudent.config.schema import ModelConfig, TrainingConfig
from nstudent.config.training import WITHOUT_SOFTMAX
from nstudent.config.types import Absent
from nstudent.labels.targets import GivenTargets
from nstudent.models.heads import HEADS
from nstudent.models.links import LINKS, link_of
from nstudent.models.network import build_network
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import UNKNOWN, Taxonomy
from nstudent.training.losses import LOSSES, build_losses
from nstudent.training.objective import Part, mean_loss
from torch import Tensor, nn

IMAGES = 64
STEPS = 150
LEVELS = ("coarse", "mid", "fine")
PATHS = [("A", "A1", "a"), ("A", "A1", "b"), ("A", "A2", "-"), ("A", "A2", "c"), ("B", "-", "-"), ("B", "B1", "d")]
TREE = Taxonomy.from_labels([*PATHS, ("C", "-", "-")], LEVELS)
FITTING = [
    (head, loss) for head in HEADS for loss in LOSSES if not (head in LOG_PROBABILITY_HEADS and loss in WITHOUT_SOFTMAX)
]
CPU = torch.device("cpu")


def taught(
    network: nn.Module, images: Tensor, targets: Sequence[Tensor], loss: str, outputs: Outputs
) -> Iterator[None]:
    """Steps on all images at once, with a pause to look after every tenth."""
    config = TrainingConfig(loss=loss, label_smoothing=0.0)  # type: ignore[arg-type]
    of_labels, _ = build_losses(config, TREE.terminal_rows, outputs, CPU)
    whole = [level.sum(dim=0) for level in targets]
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        mean_loss(of_labels, Part(network(images), targets, whole), (1.0,) * len(LEVELS)).backward()
        optimizer.step()
        if step % 10 == 0:
            yield


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["ignore", "class"])
@pytest.mark.parametrize(("head", "loss"), FITTING)
def test_a_network_with_the_head_knows_64_images_by_heart(head: str, loss: str, absent: Absent) -> None:
    random, outputs = np.random.default_rng(0), Outputs(TREE, absent)
    images = torch.from_numpy(random.random((IMAGES, 3, 16, 16), dtype=np.float32))
    labels = TREE.terminal_rows[random.integers(len(TREE.terminals), size=IMAGES)]
    # Of every fourth image nobody knows what is below its coarse class.
    labels[::4, 1:] = UNKNOWN
    targets = [torch.from_numpy(level) for level in GivenTargets(labels, outputs)(np.arange(IMAGES))]
    network = build_network(ModelConfig.model_validate({"head": head}), outputs, ("by heart",))
    named = outputs.indices(labels)
    for _ in taught(network, images, targets, loss, outputs):
        # As it was trained: with the statistics of this one batch. As it is used: by the link of its loss.
        with torch.no_grad():
            levels = LINKS[link_of(loss)](outputs, CPU)(network(images))
        wrong = [
            int((said.argmax(dim=1).numpy() != named[:, level])[named[:, level] != SILENT].sum())
            for level, said in enumerate(levels)
        ]
        if max(wrong) <= 1:
            return
    pytest.fail(f"after {STEPS} steps {wrong} images of the levels are not known")
