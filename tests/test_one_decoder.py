"""Scores, pseudo-labels and the classifier decode as the recipe says, so that they cannot disagree."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.classifier import Classifier
from nstudent.config.file import load_config
from nstudent.config.schema import ModelConfig
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import tally
from nstudent.labels.decoders import DECODERS
from nstudent.labels.decoding import Decoded
from nstudent.labels.store import Layout
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize
from nstudent.models.network import build_network
from nstudent.models.recipe import Recipe
from nstudent.runs.run import run_stage
from nstudent.stages.pseudolabel import _Labelling
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.outputs import Outputs
from PIL import Image
from torch import Tensor

WORDS = ("data.labelled=60", "data.unlabelled=90", "data.image_size=16", "threads=1", "workers=0", "device=cpu")
CHOSEN = 4


class _OneForAll:
    """Says the same final label of every image, and is a quarter sure of it."""

    def __init__(self, outputs: Outputs) -> None:
        self._path = torch.from_numpy(outputs.taxonomy.terminal_rows[CHOSEN])

    def decode(self, probabilities: Sequence[Tensor]) -> Decoded:
        rows = len(probabilities[0])
        return Decoded(self._path.repeat(rows, 1), torch.full((rows, len(self._path)), 0.25))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(Artifact(run_stage(load_config(None, WORDS), "data", tmp_path_factory.mktemp("data"))))


@pytest.fixture
def ensemble(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Ensemble:
    monkeypatch.setitem(DECODERS, "one_for_all", _OneForAll)
    model = ModelConfig()
    config = load_config(None, WORDS)
    recipe = Recipe.of(config, dataset.taxonomy, [model]).model_copy(update={"decoder": "one_for_all"})
    member = build_network(model, recipe.outputs, ("key",))
    return Ensemble.of_networks(recipe, [member], Placement(torch.device("cpu"), "float32"))


def test_scores_are_those_of_the_recipes_decoder(dataset: Dataset, ensemble: Ensemble) -> None:
    ids, taxonomy = dataset.validation, dataset.taxonomy
    said = np.repeat(taxonomy.terminal_rows[[CHOSEN]], len(ids), axis=0)
    expected = tally(said, dataset.labels[ids], taxonomy.levels)

    found = assess(ensemble, dataset, ids, 64).tallies

    for name, ratio in expected.items():
        assert np.array_equal(found[name], ratio), name


def test_pseudo_labels_are_those_of_the_recipes_decoder(dataset: Dataset, ensemble: Ensemble) -> None:
    outputs = ensemble.recipe.outputs
    labelling = _Labelling(dataset, ensemble, Layout.of(outputs, None), BatchSize(8))

    found = labelling._labels(tuple(torch.full((5, size), 1 / size) for size in outputs.sizes))

    assert found["path"].tolist() == [dataset.taxonomy.terminal_rows[CHOSEN].tolist()] * 5
    assert (found["confidence"] == 0.25).all()


def test_a_user_is_told_what_the_recipes_decoder_says(dataset: Dataset, ensemble: Ensemble, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20, 3), 90, dtype=np.uint8)).save(tmp_path / "photo.png")

    (prediction,) = Classifier(ensemble).predict([tmp_path / "photo.png"])

    names = dataset.taxonomy.names(dataset.taxonomy.terminals[CHOSEN])
    assert {level: entry.name for level, entry in prediction.labels.items()} == names
    assert {entry.probability for entry in prediction.labels.values()} == {0.25}
