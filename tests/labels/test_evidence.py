"""Labeller and self-ensemble as evidence: each counts as much as held-out labels say that it should."""

import numpy as np
import pytest
from nstudent.labels.evidence import LABELLER_ALONE, Heard, Weights, pooled
from nstudent.taxonomy.outputs import Outputs
from trees import outputs_of

NUM_IMAGES, CLASSES = 400, 6


def voice(labels: np.ndarray, right: float, sharp: float, seed: int, classes: int = CLASSES) -> np.ndarray:
    """Somebody who is calibrated: draws an opinion about each label, and is ``right`` about that share of them."""
    random = np.random.default_rng(seed)
    opinion = np.where(random.random(len(labels)) < right, labels, random.integers(0, classes, len(labels)))
    said = np.full((len(labels), classes), (1 - sharp) / (classes - 1))
    said[np.arange(len(labels)), opinion] = sharp
    return said.astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, CLASSES, (NUM_IMAGES, 1)).astype(np.int32)


def heard(labels: np.ndarray, labeller: np.ndarray, ensemble: np.ndarray, outputs: Outputs | None = None) -> Heard:
    return Heard([labeller], [ensemble], labels, outputs or outputs_of(labeller.shape[1]))


def test_a_voice_that_says_the_same_of_every_class_is_not_heard(labels: np.ndarray) -> None:
    uniform = np.full((NUM_IMAGES, CLASSES), 1 / CLASSES, np.float32)

    assert heard(labels, voice(labels[:, 0], 0.8, 0.8, 1), uniform).weights() == (LABELLER_ALONE,)


def test_a_voice_that_is_wrong_is_not_heard(labels: np.ndarray) -> None:
    """A negative weight would turn its words around: there is none."""
    wrong = voice((labels[:, 0] + 1) % CLASSES, 0.9, 0.9, 2)

    assert heard(labels, voice(labels[:, 0], 0.8, 0.8, 1), wrong).weights() == (LABELLER_ALONE,)


def test_a_voice_that_repeats_the_labeller_adds_nothing(labels: np.ndarray) -> None:
    labeller = voice(labels[:, 0], 0.8, 5 / 6, 1)

    (weights,) = heard(labels, labeller, labeller).weights()

    assert weights == LABELLER_ALONE


def test_two_independent_voices_are_both_heard(labels: np.ndarray) -> None:
    """Right four times out of five, and sure of it to that degree: both count fully."""
    both = heard(labels, voice(labels[:, 0], 0.8, 5 / 6, 1), voice(labels[:, 0], 0.8, 5 / 6, 2))

    (weights,) = both.weights()

    assert weights.labeller == pytest.approx(1, abs=0.2)
    assert weights.ensemble == pytest.approx(1, abs=0.2)
    assert both.log_likelihood([weights]) > both.log_likelihood([LABELLER_ALONE]) + 0.2


def test_the_weaker_of_two_voices_counts_less(labels: np.ndarray) -> None:
    """The weaker one is as sure of itself as the other."""
    strong, weak = voice(labels[:, 0], 0.8, 5 / 6, 1), voice(labels[:, 0], 0.4, 5 / 6, 2)

    (first,), (second,) = heard(labels, strong, weak).weights(), heard(labels, weak, strong).weights()

    assert 0 < first.ensemble < 0.5 < first.labeller
    assert 0 < second.labeller < 0.5 < second.ensemble


def test_the_log_likelihood_is_the_mean_over_the_labels_that_are_known() -> None:
    said = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]], np.float32)
    both = heard(np.array([[0], [1], [-2]], np.int32), said, said)

    assert both.log_likelihood([LABELLER_ALONE]) == pytest.approx(np.log([0.8, 0.5]).mean(), abs=1e-5)
    assert heard(np.full((3, 1), -2, np.int32), said, said).log_likelihood([LABELLER_ALONE]) == 0


def test_the_weights_are_those_of_the_greatest_likelihood(labels: np.ndarray) -> None:
    both = heard(labels, voice(labels[:, 0], 0.7, 0.9, 1), voice(labels[:, 0], 0.5, 0.6, 2))
    (found,) = both.weights()

    def penalised(a: float, b: float) -> float:
        return NUM_IMAGES * both.log_likelihood([Weights(a, b)]) - ((a - 1) ** 2 + b**2) / 2

    here = penalised(found.labeller, found.ensemble)
    for a, b in [(0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05), (0.03, -0.03)]:
        assert penalised(found.labeller + a, found.ensemble + b) < here


def test_many_images_are_read_in_parts_as_at_once(labels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    both = heard(labels, voice(labels[:, 0], 0.7, 0.9, 1), voice(labels[:, 0], 0.5, 0.6, 2))
    (whole,) = both.weights()

    monkeypatch.setattr("nstudent.labels.evidence._CELLS_AT_ONCE", 7 * CLASSES)

    (parts,) = both.weights()
    assert (parts.labeller, parts.ensemble) == pytest.approx((whole.labeller, whole.ensemble), abs=1e-4)


@pytest.mark.parametrize(("count", "is_heard"), [(9, False), (10, True)])
def test_few_labels_change_nothing(labels: np.ndarray, count: int, is_heard: bool) -> None:
    few = labels.copy()
    few[count:] = -2

    both = heard(few, voice(labels[:, 0], 0.5, 0.9, 1), voice(labels[:, 0], 1.0, 0.9, 2))
    assert (both.weights() != (LABELLER_ALONE,)) == is_heard
    assert (both.ensemble_alone() != (Weights(0.0, 1.0),)) == is_heard


def test_unknown_labels_do_not_count(labels: np.ndarray) -> None:
    labeller, ensemble = voice(labels[:, 0], 0.7, 0.9, 1), voice(labels[:, 0], 0.6, 0.6, 2)
    known = labels.copy()
    known[200:] = -2

    assert heard(known, labeller, ensemble).weights() == heard(labels[:200], labeller[:200], ensemble[:200]).weights()


def test_an_ensemble_that_is_alone_is_made_to_mean_what_it_says(labels: np.ndarray) -> None:
    """It is right four times out of five and says .5: its words are to count more."""
    (weights,) = heard(labels, voice(labels[:, 0], 0.5, 0.5, 1), voice(labels[:, 0], 0.76, 0.5, 2)).ensemble_alone()

    assert weights.labeller == 0
    said = np.full((1, CLASSES), 0.1, np.float32)
    said[0, 0] = 0.5
    assert pooled(said, said, weights)[0, 0] == pytest.approx(0.8, abs=0.04)


def test_the_pool_is_the_product_of_what_both_say() -> None:
    labeller, ensemble = np.array([[0.6, 0.3, 0.1]], np.float32), np.array([[0.2, 0.7, 0.1]], np.float32)

    expected = np.array([0.6 * 0.2**0.5, 0.3 * 0.7**0.5, 0.1 * 0.1**0.5])

    assert pooled(labeller, ensemble, Weights(1.0, 0.5))[0] == pytest.approx(expected / expected.sum(), abs=1e-6)


def test_where_a_path_may_have_ended_the_pool_leaves_as_much_as_the_labeller() -> None:
    labeller, ensemble = np.array([[0.4, 0.2]], np.float32), np.array([[0.5, 0.5]], np.float32)

    assert pooled(labeller, ensemble, Weights(1.0, 1.0))[0] == pytest.approx([0.4, 0.2], abs=1e-6)


def test_a_labeller_alone_is_left_as_it_is_to_the_last_bit() -> None:
    labeller = np.random.default_rng(0).dirichlet(np.ones(7), 5).astype(np.float32)

    assert pooled(labeller, labeller[::-1], LABELLER_ALONE) is labeller


def test_a_class_that_half_precision_has_lost_is_unlikely_and_not_impossible() -> None:
    found = pooled(np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32), Weights(1.0, 1.0))

    assert found[0] == pytest.approx([0.5, 0.5])
