import pytest
from nstudent.training.schedules import LEVEL_SCHEDULES, linear_ramp, sigmoid_ramp


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


@pytest.mark.parametrize(
    ("epoch", "shares"),
    [
        # B-CNN on CIFAR-10: 60 epochs, the weights change with the tenth, the twentieth and the thirtieth.
        (0, (0.98, 0.01, 0.01)),
        (9.9, (0.98, 0.01, 0.01)),
        (10, (0.1, 0.8, 0.1)),
        (19.9, (0.1, 0.8, 0.1)),
        (20, (0.1, 0.2, 0.7)),
        (29.9, (0.1, 0.2, 0.7)),
        (30, (0.0, 0.0, 1.0)),
        (59.9, (0.0, 0.0, 1.0)),
    ],
)
def test_golden_branch_training_on_three_levels(epoch: float, shares: tuple[float, ...]) -> None:
    schedule = LEVEL_SCHEDULES["b_cnn"]
    assert schedule is not None
    assert schedule(epoch / 60, 3) == pytest.approx(shares)


def test_the_coarse_levels_first_and_then_all_alike() -> None:
    first, paper = LEVEL_SCHEDULES["coarse_first"], LEVEL_SCHEDULES["b_cnn"]
    assert first is not None
    assert paper is not None
    for done in (0, 0.2, 0.4, 0.499):
        assert first(done, 3) == paper(done, 3)
    assert first(0.5, 3) == first(1, 3) == pytest.approx((1 / 3,) * 3)


@pytest.mark.parametrize("name", ["b_cnn", "coarse_first"])
@pytest.mark.parametrize("levels", range(1, 17))
def test_shares_of_any_number_of_levels_go_from_the_coarsest_to_the_finest(name: str, levels: int) -> None:
    schedule = LEVEL_SCHEDULES[name]  # type: ignore[index]
    assert schedule is not None
    foremost = []
    for step in range(200):
        shares = schedule(step / 200, levels)
        assert len(shares) == levels
        assert min(shares) >= 0
        assert sum(shares) == pytest.approx(1)
        if step < 100:
            foremost.append(shares.index(max(shares)))
    assert foremost == sorted(foremost)
    assert set(foremost) == set(range(levels))
