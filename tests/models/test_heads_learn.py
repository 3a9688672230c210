"""Every head can be taught: a network that has it knows a few images by heart, whatever ends early or is unknown."""

import numpy as np
import pytest
import torch
from nstudent.config.schema import ModelConfig
from nstudent.config.types import Absent
from nstudent.labels.targets import GivenTargets
from nstudent.models.heads import HEADS
from nstudent.models.network import build_network
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import UNKNOWN, Taxonomy
from torch.nn.functional import cross_entropy

IMAGES = 64
LEVELS = ("coarse", "mid", "fine")
PATHS = [("A", "A1", "a"), ("A", "A1", "b"), ("A", "A2", "-"), ("A", "A2", "c"), ("B", "-", "-"), ("B", "B1", "d")]
TREE = Taxonomy.from_labels([*PATHS, ("C", "-", "-")], LEVELS)


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["ignore", "class"])
@pytest.mark.parametrize("head", HEADS)
def test_a_network_with_the_head_knows_64_images_by_heart(head: str, absent: Absent) -> None:
    random, outputs = np.random.default_rng(0), Outputs(TREE, absent)
    images = torch.from_numpy(random.random((IMAGES, 3, 16, 16), dtype=np.float32))
    labels = TREE.terminal_rows[random.integers(len(TREE.terminals), size=IMAGES)]
    # Of every fourth image nobody knows what is below its coarse class.
    labels[::4, 1:] = UNKNOWN
    targets = [torch.from_numpy(level) for level in GivenTargets(labels, outputs)(np.arange(IMAGES))]
    network = build_network(ModelConfig.model_validate({"head": head}), outputs, ("by heart",))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        # Rows of zeros teach nothing.
        losses = [cross_entropy(said, mass) for said, mass in zip(network(images), targets, strict=True)]
        torch.stack(losses).sum().backward()
        optimizer.step()

    # As it was trained: with the statistics of this one batch.
    named = outputs.indices(labels)
    for level, said in enumerate(network(images)):
        known = named[:, level] != SILENT
        wrong = said.argmax(dim=1).numpy()[known] != named[known, level]
        assert wrong.sum() <= 1, f"{wrong.sum()} of {known.sum()} images of level {level} are not known"
