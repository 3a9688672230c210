import pytest
from nstudent.training.schedules import linear_ramp, sigmoid_ramp


def test_the_sigmoid_ramp_is_that_of_the_paper() -> None:
    ramp = [round(sigmoid_ramp(t / 5, 1.0), 4) for t in range(6)]
    assert ramp == [0.0067, 0.0408, 0.1653, 0.4493, 0.8187, 1.0]


def test_the_ramp_is_over_after_its_length() -> None:
    assert sigmoid_ramp(0.15, 0.3) == pytest.approx(sigmoid_ramp(0.5, 1.0))
    assert sigmoid_ramp(0.3, 0.3) == sigmoid_ramp(0.9, 0.3) == 1.0


def test_a_ramp_without_length_is_always_up() -> None:
    assert sigmoid_ramp(0.0, 0.0) == 1.0


def test_golden_a_straight_line_from_where_it_begins_to_where_it_is_full() -> None:
    assert [linear_ramp(t / 5, 0.2, 0.8) for t in range(6)] == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])
    assert linear_ramp(1.0, 0.5, 1.0) == 1.0
