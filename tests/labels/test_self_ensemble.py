"""SELF's running average, level by level."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.errors import TrainingError
from nstudent.labels.evidence import LABELLER_ALONE, Weights
from nstudent.labels.self_ensemble import (
    RunningAverage,
    check_memory,
    standing_given_labels,
    standing_pseudo_labels,
)
from nstudent.labels.store import LabelStore, shards
from nstudent.taxonomy.outputs import Outputs
from test_store import LEVELS, TOTAL, TREE, write_store
from trees import outputs_of


def average_of(
    history: list[tuple[list[int], list[list[Any]]]], momentum: float = 0.7, num_rows: int = 3
) -> RunningAverage:
    """``history``: (rows, one distribution a row) per update, one level."""
    average = RunningAverage(num_rows, outputs_of(2), momentum)
    for rows, values in history:
        average.update(torch.tensor(rows), [torch.tensor(values)])
    return average


def test_golden_average() -> None:
    average = average_of([([0], [[0.9, 0.1]]), ([0], [[0.4, 0.6]]), ([0], [[0.0, 1.0]])])

    # Weights .49, .7 and 1 of the first to the last, times .3 / (1 - .343).
    assert average.distributions()[0][0].tolist() == pytest.approx([0.721 / 2.19, 1.469 / 2.19])


def test_the_first_prediction_is_taken_as_it_is() -> None:
    average = average_of([([1], [[0.2, 0.8]])])

    assert average.distributions()[0][1].tolist() == pytest.approx([0.2, 0.8])


def test_in_a_short_training_every_pass_counts_nearly_the_same() -> None:
    """An average that begins with the first prediction would give it .9^3 = .73 of four."""
    average = average_of([([0], [[float(number == first), 0.0]]) for first in [0] for number in range(4)], momentum=0.9)

    assert average.distributions()[0][0, 0] == pytest.approx(0.729 / 3.439)


def test_without_momentum_the_last_prediction_is_all_there_is() -> None:
    average = average_of([([0], [[0.9, 0.1]]), ([0], [[0.4, 0.6]])], momentum=0.0)

    assert average.distributions()[0][0].tolist() == pytest.approx([0.4, 0.6])


def test_rows_do_not_touch_each_other() -> None:
    average = average_of([([0, 2], [[0.9, 0.1], [0.3, 0.7]]), ([2], [[0.1, 0.9]])])

    assert average.distributions()[0][0].tolist() == pytest.approx([0.9, 0.1])
    assert average.distributions()[0][2].tolist() == pytest.approx([0.31 / 1.7, 1.39 / 1.7])
    assert average.has_seen().tolist() == [True, False, True]
    assert average.has_seen(slice(1, 2)).tolist() == [False]


def test_the_average_goes_on_after_a_checkpoint() -> None:
    history = [([0, 1], [[0.9, 0.1], [0.5, 0.5]]), ([0], [[0.3, 0.7]]), ([1], [[0.0, 1.0]])]
    whole = average_of(history)
    resumed = RunningAverage(3, outputs_of(2), 0.7)
    resumed.load_state_dict({k: v.clone() for k, v in average_of(history[:1]).state_dict().items()})
    for rows, values in history[1:]:
        resumed.update(torch.tensor(rows), [torch.tensor(values)])

    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_half_precision_predictions_are_averaged_in_full() -> None:
    average = RunningAverage(1, outputs_of(2), 0.7)
    average.update(torch.tensor([0]), [torch.tensor([[0.75, 0.25]], dtype=torch.bfloat16)])

    assert average.state_dict()["level-0"].dtype == torch.float32


# --- what stands ------------------------------------------------------------------------------------------------------

OUTPUTS = Outputs(TREE)
BOTH = Weights(1.0, 1.0)


def uniform(num_rows: int, outputs: Outputs = OUTPUTS) -> RunningAverage:
    average = RunningAverage(num_rows, outputs, 0.7)
    average.update(torch.arange(num_rows), [torch.full((num_rows, size), 1 / size) for size in outputs.sizes])
    return average


@pytest.fixture
def stored(tmp_path: Path) -> LabelStore:
    """Three shards; paths A/a, A/b and B."""
    return LabelStore(shards(write_store(tmp_path)), LEVELS)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6])
def test_a_labeller_that_is_heard_alone_is_held_to_its_own_threshold(stored: LabelStore, threshold: float) -> None:
    stands = standing_pseudo_labels(stored, uniform(TOTAL), [LABELLER_ALONE] * 2, OUTPUTS, threshold)

    named = stored.paths >= 0
    expected = np.logical_and.accumulate((stored.confidence >= np.float32(threshold)) | ~named, axis=1)
    assert np.array_equal(stands, expected)
    assert not expected.all() or threshold == 0


def test_an_ensemble_that_knows_nothing_drops_nothing_that_the_labeller_would_not_drop(stored: LabelStore) -> None:
    rows = np.arange(TOTAL)
    stands = standing_pseudo_labels(stored, uniform(TOTAL), [BOTH] * 2, OUTPUTS, 0.5)

    for level, probabilities in enumerate(stored.probabilities):
        named = stored.paths[:, level] >= 0
        sure = probabilities[rows][rows, stored.paths[:, level]] >= 0.5
        above = stands[:, level - 1] if level else np.ones(TOTAL, bool)
        assert np.array_equal(stands[named, level], (sure & above)[named])


def test_the_ensemble_can_turn_a_verdict_either_way(stored: LabelStore) -> None:
    sure = RunningAverage(TOTAL, OUTPUTS, 0.7)
    paths = torch.from_numpy(stored.paths.astype(np.int64))
    against = torch.arange(TOTAL) % 2 == 0
    said = []
    for level, size in enumerate(OUTPUTS.sizes):
        named = paths[:, level].clamp_min(0)
        named = torch.where(against, (named + 1) % size, named)
        said.append(torch.full((TOTAL, size), 1e-5).scatter_(1, named[:, None], 1.0))
    sure.update(torch.arange(TOTAL), said)

    stands = standing_pseudo_labels(stored, sure, [Weights(0.2, 1.0)] * 2, OUTPUTS, 0.5)

    assert not stands[::2, 0].any()
    assert stands[1::2].all()


def test_below_a_level_that_falls_nothing_stands(stored: LabelStore) -> None:
    stands = standing_pseudo_labels(stored, uniform(TOTAL), [BOTH] * 2, OUTPUTS, 0.5)

    assert not stands[:, 0].all()
    assert not (stands[:, 1] & ~stands[:, 0]).any()


def test_the_labels_of_an_image_that_was_never_predicted_stand(stored: LabelStore) -> None:
    average = RunningAverage(TOTAL, OUTPUTS, 0.7)
    average.update(torch.arange(5), [torch.full((5, size), 1 / size) for size in OUTPUTS.sizes])

    stands = standing_pseudo_labels(stored, average, [BOTH] * 2, OUTPUTS, 1.0)

    assert not stands[:5, 0].any()
    assert stands[5:].all()


def test_a_store_is_walked_in_parts_as_at_once(stored: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = standing_pseudo_labels(stored, uniform(TOTAL), [BOTH] * 2, OUTPUTS, 0.5)

    monkeypatch.setattr("nstudent.labels.self_ensemble._CELLS_AT_ONCE", 4)

    assert np.array_equal(standing_pseudo_labels(stored, uniform(TOTAL), [BOTH] * 2, OUTPUTS, 0.5), whole)


def given_verdict(
    labels: list[int], said: list[float], threshold: float = 0.8, probe: list[float] | None = None, weight: float = 0.5
) -> tuple[Any, Any]:
    """Verdict on labels of two levels that agree.

    Args:
        labels: The class of each image, 0 or 1, at both levels.
        said: Probability of class 0 by the self-ensemble, image by image.
        threshold: From which probability on a label stands.
        probe: The same by the probe; ``None``: there is none.
        weight: Of the self-ensemble beside the probe, whose weight is 1.
    """
    outputs, rows = outputs_of(2, 2), torch.arange(len(labels))
    average = RunningAverage(len(labels), outputs, 0.7)
    level = torch.tensor([[each, 1 - each] for each in said])
    average.update(rows, [level, level])
    first = None if probe is None else [np.array([[each, 1 - each] for each in probe], np.float32)] * 2
    weights = [Weights(0.0, 1.0) if probe is None else Weights(1.0, weight)] * 2
    given = np.array([[each, each] for each in labels], np.int32)
    stands, rates = standing_given_labels(given, first, average, weights, outputs, threshold)
    return stands.tolist(), rates


def test_a_given_label_that_the_ensemble_contradicts_falls_with_what_is_below_it() -> None:
    stands, rates = given_verdict([0] * 39 + [1], [0.99] * 40)

    assert stands == [[True, True]] * 39 + [[False, False]]
    # None of the four surest is contradicted: a sixth are wrong by Laplace's rule, and the label is right by
    # .83 x .01 / (.83 x .01 + .17 x .99) = .048. Each of the others is wrong with .2 %.
    assert rates == pytest.approx(((39 * 0.00202 + 1 - 0.04808) / 40,) * 2, abs=1e-4)


def test_what_the_probe_says_out_of_fold_counts_beside_the_ensemble() -> None:
    """The ensemble has learnt the wrong label by heart; the probe was never told it."""
    labels, by_heart = [0] * 39 + [1], [0.9] * 39 + [0.1]

    assert given_verdict(labels, by_heart)[0][-1] == [True, True]
    stands, _ = given_verdict(labels, by_heart, probe=[0.99] * 40)
    assert stands[-1] == [False, False]
    assert stands[:-1] == [[True, True]] * 39
    assert given_verdict(labels, by_heart, probe=[0.99] * 40, weight=5.0)[0][-1] == [True, True]


def test_a_label_of_whose_image_the_probe_says_nothing_stands() -> None:
    outputs = outputs_of(2)
    average = RunningAverage(40, outputs, 0.7)
    average.update(torch.arange(40), [torch.tensor([[0.99, 0.01]] * 40)])
    probe = np.full((40, 2), [0.99, 0.01], np.float32)
    probe[39] = 0.0
    given = np.array([[0]] * 38 + [[1]] * 2, np.int32)

    stands, _ = standing_given_labels(given, [probe], average, [Weights(1.0, 1.0)], outputs, 0.8)

    assert stands[:, 0].tolist() == [True] * 38 + [False, True]


@pytest.mark.parametrize("special", [-1, -2])
def test_a_given_level_without_a_class_is_never_doubted(special: int) -> None:
    stands, _ = given_verdict([special] * 4, [0.1] * 4)

    assert stands == [[True, True]] * 4


def test_a_given_label_never_drawn_stands() -> None:
    outputs = outputs_of(2)
    average = RunningAverage(40, outputs, 0.7)
    average.update(torch.arange(39), [torch.tensor([[0.99, 0.01]] * 39)])
    given = np.array([[0]] * 38 + [[1]] * 2, np.int32)

    stands, _ = standing_given_labels(given, None, average, [Weights(0, 1)], outputs, 0.8)

    assert stands[:, 0].tolist() == [True] * 38 + [False, True]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_averages_that_do_not_fit_are_refused_in_one_line_with_the_way_out() -> None:
    with pytest.raises(TrainingError) as caught:
        check_memory(10_000_000_000_000, outputs_of(2, 3, 5))

    said = str(caught.value)
    assert "11 numbers for each of 10,000,000,000,000 images" in said
    assert f"{3 * 4 * 10_000_000_000_000 * 11:,} bytes" in said
    assert "filter.enabled=false" in said
    assert "\n" not in said


def test_averages_that_fit_are_let_pass() -> None:
    """No error is raised; 1000 rows of 6 numbers take 72 kB."""
    check_memory(1000, outputs_of(2, 3))


@pytest.mark.gpu
def test_averages_on_a_gpu_are_those_on_a_cpu_and_no_step_waits_for_them(
    not_waiting: Callable[[], AbstractContextManager[None]],
) -> None:
    random = torch.Generator().manual_seed(0)
    here, there = (
        RunningAverage(50, outputs_of(3, 7), 0.7),
        RunningAverage(50, outputs_of(3, 7), 0.7, torch.device("cuda")),
    )
    for _ in range(5):
        rows = torch.randperm(50, generator=random)[:20]
        seen = [torch.rand(20, size, generator=random).softmax(1) for size in (3, 7)]
        here.update(rows, seen)
        sent = rows.cuda(), [level.cuda() for level in seen]
        with not_waiting():
            there.update(*sent)
    for ours, theirs in zip(here.distributions(), there.distributions(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
