"""Batches in portions: which images go into which, and how many portions come after how many."""

import pytest
import torch
from nstudent.errors import TrainingError
from nstudent.training.portions import halved, portions

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("size", "num_labelled", "number", "expected"),
    [
        (7, 3, 1, [([0, 1, 2, 3, 4, 5, 6], 3)]),
        (7, 3, 2, [([0, 3, 4], 1), ([1, 2, 5, 6], 2)]),
        (4, 1, 4, [([1], 0), ([2], 0), ([0, 3], 1)]),
        (3, 0, 2, [([0], 0), ([1, 2], 0)]),
        (3, 3, 2, [([0], 1), ([1, 2], 2)]),
    ],
)
def test_each_portion_has_its_share_of_the_labelled_images_and_of_the_others(
    size: int, num_labelled: int, number: int, expected: list[tuple[list[int], int]]
) -> None:
    found = [(portion.rows.tolist(), portion.num_labelled) for portion in portions(size, num_labelled, number)]
    assert found == expected


def test_portions_are_halved_down_to_one_image_each() -> None:
    numbers = [1]
    while numbers[-1] < 11:
        numbers.append(halved(numbers[-1], 11, CPU, 32))
    assert numbers == [1, 2, 4, 8, 11]


@pytest.mark.parametrize(("side_px", "smaller"), [(224, 112), (12, 8)])
def test_where_one_image_does_not_fit_a_smaller_side_is_named(side_px: int, smaller: int) -> None:
    with pytest.raises(TrainingError, match=rf"one image of {side_px} px .*data.image_size={smaller} needs"):
        halved(11, 11, CPU, side_px)
