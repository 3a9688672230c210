"""Small networks, and run folders made by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.config.schema import Config, ModelConfig
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.network import build_network
from nstudent.models.recipe import Recipe
from nstudent.storage.artifact import Artifact
from nstudent.storage.commit import commit, open_partial
from nstudent.taxonomy.tree import Taxonomy

LEVELS = ("coarse", "mid", "fine")
TREE = {"A": {"A1": ["a", "b"], "A2": ["c"]}, "B": {"B1": ["d", "e"]}}


@pytest.fixture
def cpu() -> Placement:
    return Placement(torch.device("cpu"), "float32")


@pytest.fixture
def make_ensemble(cpu: Placement) -> Callable[..., Ensemble]:
    """An ensemble of untrained members on the toy tree, 32 px; ``seeds`` gives one member each."""

    def make(*seeds: int, dropout: float = 0.0, placement: Placement = cpu) -> Ensemble:
        taxonomy = Taxonomy.from_tree(TREE, LEVELS)
        recipe = Recipe.of(Config(), taxonomy, [ModelConfig()] * len(seeds))
        members = [build_network(ModelConfig(), recipe.outputs, (seed,), dropout=dropout) for seed in seeds]
        return Ensemble.of_networks(recipe, members, placement)

    return make


@pytest.fixture
def committed(tmp_path: Path) -> Callable[[Ensemble], Artifact]:
    """Save an ensemble as the finished step of a run."""

    def commit_it(ensemble: Ensemble, name: str = "01-teacher") -> Artifact:
        folder = tmp_path / name
        ensemble.save(open_partial(folder, "by hand"))
        fields = {
            "stage": "teacher",
            "role": "labeller",
            "round": 0,
            "asked": {},
            "inputs": {},
            "metrics": {},
            "seconds": 0.0,
        }
        return commit(folder, fields)

    return commit_it


@pytest.fixture
def noise_images() -> Callable[[int], np.ndarray]:
    """uint8 (count, 32, 32, 3) of noise; the first ones are the same whatever the count."""
    return lambda count: np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def run_folder_files() -> Callable[[Path], list[str]]:
    return lambda folder: sorted(path.name for path in folder.iterdir())
