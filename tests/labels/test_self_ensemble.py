"""SELF's running average, level by level."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.errors import TrainingError
from nstudent.labels.self_ensemble import RunningAverage, check_memory
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

    # .9, then .7 x .9 + .3 x .4 = .75, then .7 x .75 + 0 = .525
    assert average.state_dict()["level-0"][0].tolist() == pytest.approx([0.525, 0.475])


def test_the_first_prediction_is_taken_as_it_is() -> None:
    average = average_of([([1], [[0.2, 0.8]])])

    assert average.state_dict()["level-0"][1].tolist() == pytest.approx([0.2, 0.8])


def test_a_label_is_dropped_and_can_come_back() -> None:
    labels = np.array([[0]], dtype=np.int32)
    average = RunningAverage(1, outputs_of(2), momentum=0.5)
    verdicts = []
    for first in (0.9, 0.0, 0.0, 1.0, 1.0):
        average.update(torch.tensor([0]), [torch.tensor([[first, 1 - first]])])
        verdicts.append(bool(average.agrees(labels)[0, 0]))

    assert verdicts == [True, False, False, True, True]


def test_a_wrong_fine_label_falls_and_its_coarse_one_stays() -> None:
    average = RunningAverage(2, outputs_of(2, 3), momentum=0.7)
    average.update(
        torch.tensor([0, 1]),
        [torch.tensor([[0.9, 0.1], [0.9, 0.1]]), torch.tensor([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])],
    )

    assert average.agrees(np.array([[0, 0], [0, 0]], np.int32)).tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("special", [-1, -2])
def test_a_level_without_a_class_is_never_doubted(special: int) -> None:
    average = average_of([([0, 1, 2], [[0.9, 0.1]] * 3)])

    assert average.agrees(np.full((3, 1), special, np.int32)).all()


def test_a_row_never_drawn_has_had_no_say() -> None:
    average = average_of([([1], [[0.9, 0.1]])])

    assert average.agrees(np.array([[1], [1], [1]], np.int32))[:, 0].tolist() == [True, False, True]


def test_rows_do_not_touch_each_other() -> None:
    average = average_of([([0, 2], [[0.9, 0.1], [0.3, 0.7]]), ([2], [[0.1, 0.9]])])

    assert average.state_dict()["level-0"][0].tolist() == pytest.approx([0.9, 0.1])
    assert average.state_dict()["level-0"][2].tolist() == pytest.approx([0.24, 0.76])


def test_the_average_goes_on_after_a_checkpoint() -> None:
    history = [([0, 1], [[0.9, 0.1], [0.5, 0.5]]), ([0], [[0.3, 0.7]]), ([1], [[0.0, 1.0]])]
    whole = average_of(history)
    resumed = RunningAverage(3, outputs_of(2), 0.7)
    resumed.load_state_dict({k: v.clone() for k, v in average_of(history[:1]).state_dict().items()})
    for rows, values in history[1:]:
        resumed.update(torch.tensor(rows), [torch.tensor(values)])

    assert torch.equal(resumed.state_dict()["level-0"], whole.state_dict()["level-0"])


def test_half_precision_predictions_are_averaged_in_full() -> None:
    average = RunningAverage(1, outputs_of(2), 0.7)
    average.update(torch.tensor([0]), [torch.tensor([[0.75, 0.25]], dtype=torch.bfloat16)])

    assert average.state_dict()["level-0"].dtype == torch.float32


def test_averages_that_do_not_fit_are_refused_in_one_line_with_the_way_out() -> None:
    with pytest.raises(TrainingError) as caught:
        check_memory(10_000_000_000_000, outputs_of(2, 3, 5))

    said = str(caught.value)
    assert "10 numbers for each of 10,000,000,000,000 images" in said
    assert f"{3 * 4 * 10_000_000_000_000 * 10:,} bytes" in said
    assert "filter.enabled=false" in said
    assert "\n" not in said


def test_averages_that_fit_are_let_pass() -> None:
    """No error is raised; 1000 rows of 5 numbers take 60 kB."""
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
    labels = np.stack([np.arange(50) % 3, np.arange(50) % 7], axis=1)
    assert torch.equal(here.agrees(labels), there.agrees(labels))
