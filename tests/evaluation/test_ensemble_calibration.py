"""Cross-fitted members are calibrated on what each has not seen, and their pool as sure as it is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from nstudent.config.schema import Config, ModelConfig
from nstudent.data.dataset import Dataset, Ids
from nstudent.evaluation.calibration import calibration_error, fit_temperatures, images_to_fit
from nstudent.evaluation.ensemble_calibration import calibrated
from nstudent.evaluation.out_of_fold import OutOfFold, predict_out_of_fold
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.models.members import Levels
from nstudent.models.recipe import Recipe
from nstudent.taxonomy.tree import LabelArray
from torch import Tensor
from trees import outputs_of

OUTPUTS = outputs_of(3, 6)
FOLDS, LABELLED, VALIDATION, FRESH = 3, 1200, 500, 2500
CONFIG = Config.model_validate({"device": "cpu", "precision": "float32", "threads": 1})


class Speaker:
    """A member that has something to say of every image by its number, which the image shows."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels

    def distributions(self, images: Tensor) -> Levels:
        shown = (images[:, :2, 0, 0] * 255).round().long()
        return tuple(level[shown[:, 0] + 256 * shown[:, 1]] for level in self.levels)

    def compile(self) -> None:
        """Nothing here can be compiled."""

    def gmacs(self, image_size: int) -> float:
        return 0.0

    def tensors(self) -> Mapping[str, Tensor]:
        return {}


class Numbered:
    """Images that show their number; labels, folds and where validation comes from, as a data set has them."""

    def __init__(self, labels: LabelArray, drawn: bool) -> None:
        self.labels, self.drawn = labels, drawn
        self.labelled, self.validation, self.fresh = np.split(np.arange(len(labels)), [LABELLED, LABELLED + VALIDATION])
        self.pixels = self

    def read_into(self, ids: Ids, images: npt.NDArray[np.uint8]) -> None:
        images[:] = 0
        images[:, 0, 0, 0], images[:, 0, 0, 1] = ids % 256, ids // 256

    def folds(self) -> npt.NDArray[np.int16]:
        return np.arange(LABELLED, dtype=np.int16) * 7 % FOLDS

    def validation_is_drawn(self) -> bool:
        return self.drawn


def scene(drawn: bool, harder: float = 1.0) -> tuple[Ensemble, Dataset]:
    """Members that know by heart what they were trained on, and guess the rest alike well, each with errors of its own.

    Validation is ``harder`` times as noisy as everything else. They are twice as sure as they should be.
    """
    random = np.random.default_rng(5)
    fine = random.integers(0, 6, LABELLED + VALIDATION + FRESH)
    labels = np.stack([fine % 3, fine], axis=1).astype(np.int32)
    dataset = Numbered(labels, drawn)
    noise = np.ones(len(fine))
    noise[dataset.validation] = harder
    members = []
    for member in range(FOLDS):
        levels = []
        for level, size in enumerate(OUTPUTS.sizes):
            right = np.eye(size)[labels[:, level]]
            logits = 2.0 * (2.0 * right + noise[:, None] * random.normal(0, 1.4, right.shape))
            logits[dataset.labelled[dataset.folds() != member]] = 9 * right[dataset.labelled[dataset.folds() != member]]
            levels.append(torch.from_numpy(logits).float().softmax(dim=1))
        members.append(Speaker(tuple(levels)))
    recipe = Recipe.of(CONFIG, OUTPUTS.taxonomy, [ModelConfig()] * FOLDS)
    return Ensemble(recipe, members, Placement.from_config(CONFIG)), cast(Dataset, dataset)


def overconfidence(ensemble: Ensemble, dataset: Dataset) -> tuple[list[float], list[float]]:
    """Mean confidence less the share that is right, and the calibration error beyond chance, level by level."""
    fresh = cast(Any, dataset).fresh
    over, beyond = [], []
    for level, said in enumerate(predict(ensemble, dataset.pixels, fresh, 512)):
        sure, right = said.max(axis=1), said.argmax(axis=1) == dataset.labels[fresh, level]
        error = calibration_error(sure, right)
        over.append(float(sure.mean() - right.mean()))
        beyond.append(error.value - error.by_chance)
    return over, beyond


def own_folds(ensemble: Ensemble, dataset: Dataset) -> OutOfFold:
    return predict_out_of_fold(ensemble, dataset, 512)


def test_each_image_is_labelled_by_the_member_that_has_not_seen_it() -> None:
    ensemble, dataset = scene(drawn=True)

    said = own_folds(ensemble, dataset)

    assert np.array_equal(said.images, dataset.labelled)
    for image, member in zip(said.images[:30], said.members[:30], strict=True):
        assert member == dataset.folds()[image]
        for level, kept in zip(cast(Speaker, ensemble.members[member]).levels, said.levels, strict=True):
            assert np.array_equal(kept[image], level[image].numpy())


@pytest.mark.parametrize("drawn", [True, False])
def test_a_member_is_calibrated_on_its_own_fold_and_on_validation_only_if_that_was_drawn(drawn: bool) -> None:
    ensemble, dataset = scene(drawn, harder=2.0)
    found = calibrated(ensemble, dataset, 512, own_folds(ensemble, dataset))

    for member, temperatures in enumerate(found.recipe.member_temperatures or ()):
        ids = dataset.labelled[dataset.folds() == member]
        ids = np.concatenate([ids, dataset.validation]) if drawn else ids
        said = predict(ensemble.alone(member), dataset.pixels, ids, 512)
        assert temperatures == pytest.approx(fit_temperatures(said, dataset.labels[ids], OUTPUTS), rel=1e-3)


def test_of_a_large_fold_some_images_are_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.evaluation.calibration._FEWEST_TO_FIT", 60)
    monkeypatch.setattr("nstudent.evaluation.calibration._CELLS_TO_FIT", 0)
    ensemble, dataset = scene(drawn=False)
    found = calibrated(ensemble, dataset, 512, own_folds(ensemble, dataset))

    for member, temperatures in enumerate(found.recipe.member_temperatures or ()):
        some = images_to_fit(dataset.labelled[dataset.folds() == member], OUTPUTS)
        assert len(some) == 60
        said = predict(ensemble.alone(member), dataset.pixels, some, 512)
        assert temperatures == pytest.approx(fit_temperatures(said, dataset.labels[some], OUTPUTS), rel=1e-3)


@pytest.mark.parametrize("harder", [1.0, 1.5], ids=["validation alike", "validation harder"])
def test_where_the_source_gives_validation_the_pool_is_as_sure_as_it_is_right_on_images_like_the_labelled(
    harder: float,
) -> None:
    ensemble, dataset = scene(drawn=False, harder=harder)

    over, beyond = overconfidence(calibrated(ensemble, dataset, 512, own_folds(ensemble, dataset)), dataset)

    assert max(map(abs, over)) < 0.03
    assert max(beyond) < 0.03


def test_by_harder_validation_alone_the_pool_would_be_too_doubtful() -> None:
    """What the test before would also say of a calibration that needs no folds, if nothing were wrong with that."""
    ensemble, dataset = scene(drawn=False, harder=1.5)
    over, _ = overconfidence(calibrated(ensemble, dataset, 512), dataset)
    assert min(over) < -0.04


def test_drawn_validation_and_folds_together_leave_the_pool_as_sure_as_it_is_right() -> None:
    ensemble, dataset = scene(drawn=True)

    over, beyond = overconfidence(calibrated(ensemble, dataset, 512, own_folds(ensemble, dataset)), dataset)

    assert max(map(abs, over)) < 0.03
    assert max(beyond) < 0.03
