"""Numbers that are not finite, as a GPU's steps report them: on a CPU the same figures, only without a copy."""

import math

import pytest
import torch
from nstudent.errors import TrainingError
from nstudent.training.finite import FiniteCheck
from torch import nn

SOUND, NOT_A_LOSS = torch.tensor([1.0, 2.0]), torch.tensor([math.nan, 2.0])
ORDER = [torch.arange(5)]


@pytest.fixture
def finite() -> FiniteCheck:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return FiniteCheck(network, optimizer, ("coarse", "fine"), lambda step: [f"{step}/{place}" for place in range(5)])


def largest(*wrong: int) -> torch.Tensor:
    """float32 (5, 2): that of the images at the places ``wrong`` is not finite at the fine level."""
    found = torch.ones(5, 2)
    found[list(wrong), 1] = math.inf
    return found


def test_steps_are_looked_at_when_those_after_them_have_been_sent(finite: FiniteCheck) -> None:
    """At once, the GPU would have to be waited for; later, the weights would not be worth much any more."""
    finite.note(0, NOT_A_LOSS, largest(3), ORDER)
    for step in range(1, 31):
        finite.note(step, SOUND, largest(), ORDER)
    with pytest.raises(TrainingError, match=r"not a finite number in level fine at step 0 .*1 of 5 images: 0/3\)"):
        finite.note(31, SOUND, largest(), ORDER)


@pytest.mark.parametrize("steps", [3, 16, 20])
def test_reading_looks_at_every_step_wherever_its_figures_are(finite: FiniteCheck, steps: int) -> None:
    for step in range(steps):
        finite.note(step, NOT_A_LOSS if step == 2 else SOUND, largest(4) if step == 2 else largest(), ORDER)
    with pytest.raises(TrainingError, match=r"at step 2 .*2/4"):
        finite.read()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [((0, 2, 4), "3 of 5 images: 7/0, 7/2, 7/4)"), ((0, 1, 2, 4), "4 of 5 images: 7/0, 7/1, 7/2 and 1 more)")],
)
def test_three_images_are_named_and_the_others_counted(finite: FiniteCheck, wrong: tuple[int, ...], said: str) -> None:
    finite.note(7, NOT_A_LOSS, largest(*wrong), ORDER)
    with pytest.raises(TrainingError) as error:
        finite.read()
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("loss", "norm", "where"), [(1.0, math.inf, "the gradient"), (math.nan, math.nan, "the loss itself")]
)
def test_where_no_image_stands_out_the_whole_batch_is_named(
    finite: FiniteCheck, loss: float, norm: float, where: str
) -> None:
    finite.note(7, torch.tensor([loss, norm]), largest(), ORDER)
    with pytest.raises(TrainingError, match=rf"in {where} at step 7 .*5 of 5 images: 7/0, 7/1, 7/2 and 2 more\)"):
        finite.read()


@pytest.mark.parametrize(
    ("loss", "norm", "left_out"),
    [(1.0, 2.0, 0.0), (0.0, 0.0, 0.0), (math.nan, 2.0, 1.0), (-math.inf, 2.0, 1.0), (1.0, math.inf, 1.0)],
)
def test_the_optimiser_is_told_which_steps_to_leave_out(
    finite: FiniteCheck, loss: float, norm: float, left_out: float
) -> None:
    figures = finite.flag(torch.tensor(loss), torch.tensor(norm))
    assert finite._optimizer.found_inf.item() == left_out
    torch.testing.assert_close(figures, torch.tensor([loss, norm]), equal_nan=True)
