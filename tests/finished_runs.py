"""Run folders with a classifier that nothing was trained for: its weights are drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nstudent.config.members import MemberConfig, ModelConfig, ProbeConfig
from nstudent.labels.path_tree import PathTree
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.members import Member
from nstudent.models.network import build_network
from nstudent.models.network_member import NetworkMember
from nstudent.models.probe import Probe, build_features
from nstudent.models.probe_member import ProbeMember
from nstudent.models.recipe import Recipe
from nstudent.storage.artifact import FINAL
from nstudent.storage.commit import commit, open_partial
from nstudent.storage.files import write_json
from nstudent.taxonomy.tree import Taxonomy
from PIL import Image

TREE = Taxonomy.from_labels(
    [("loop", "one loop", "six"), ("loop", "one loop", "nine"), ("loop", "two loops", "-"), ("stroke", "-", "-")],
    ("coarse", "mid", "fine"),
)
CPU = Placement(torch.device("cpu"), "float32")


def add_classifier(run_dir: Path, members: Sequence[MemberConfig], **recipe: Any) -> Path:
    """A run folder whose result has these members, with other keys of its recipe."""
    keys = {"taxonomy": TREE, "absent": "ignore", "image_size": 32, "max_pixels": 1_000_000, **recipe}
    made = Recipe(members=tuple(members), **keys)
    ensemble = Ensemble(made, [_member(made, number) for number in range(len(members))], CPU)
    folder = run_dir / "03-choose"
    ensemble.save(open_partial(folder, "by hand"))
    fields = {"stage": "choose", "role": "labeller", "round": 0, "asked": {}, "inputs": {}, "seconds": 0.0}
    commit(folder, fields | {"metrics": {}})
    write_json(run_dir / FINAL, {"step": folder.name})
    return run_dir


def _member(recipe: Recipe, number: int) -> Member:
    settings, generator = recipe.members[number], torch.Generator().manual_seed(number)
    images = CPU.images(torch.from_numpy(pixels(40, recipe.image_size)))
    if isinstance(settings, ModelConfig):
        network = build_network(settings, recipe.outputs, ("member", number))
        with torch.no_grad():
            # Batch statistics of images that differ, and a head that is sure.
            for _ in range(20):
                network.train()(images)
            for name, weights in network.state_dict().items():
                weights.mul_(8 if name.startswith("head.classify") else 1)
        return NetworkMember(network, recipe.link, recipe.outputs, CPU)
    assert isinstance(settings, ProbeConfig)
    probe = Probe(build_features(settings), len(PathTree.of(recipe.outputs).terminals), 5)
    probe.weights.copy_(3 * torch.randn(probe.weights.shape, generator=generator))
    probe.scale.fill_(1.0)
    assert probe.anchors is not None
    with torch.no_grad():
        probe.anchors.copy_(probe.features(images[:5]))
    return ProbeMember(probe, recipe.outputs, CPU)


def pixels(images: int, side: int = 32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Noise that is brighter, and of another colour, in each image."""
    random = np.random.default_rng(images)
    noise = random.integers(0, 256, (images, side, side, 3)) * random.random((images, 1, 1, 3))
    return noise.astype(np.uint8)


def photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (50, 40), seed: int = 0, **saving: Any) -> Path:
    """An image file of noise in coarse blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, len(mode)), dtype=np.uint8)
    Image.fromarray(blocks, mode).resize(size).save(path, **saving)
    return path
