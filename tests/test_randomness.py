"""Random numbers that are a function of what they are for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nstudent.randomness import generator, seed

_keys = st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=4).map(tuple)


def test_golden_numbers() -> None:
    """A change here changes every run that was ever made: raise the versions of all stages with it."""
    assert generator(0, "student", 1, 2).integers(1000, size=5).tolist() == [67, 718, 690, 132, 921]
    assert seed(0, "student", 1, 2) == 3370644715106286440


def test_a_key_gives_the_same_stream_whatever_was_drawn_before() -> None:
    first = generator(0, "a").random(3)
    generator(0, "b").random(100)
    np.random.default_rng(0).random(5)
    assert generator(0, "a").random(3).tolist() == first.tolist()


@given(_keys, _keys)
def test_different_keys_give_different_streams(one: tuple[int | str, ...], other: tuple[int | str, ...]) -> None:
    assert (seed(*one) == seed(*other)) == (one == other)
    same = generator(*one).integers(2**63) == generator(*other).integers(2**63)
    assert same == (one == other)


@pytest.mark.parametrize("other", [("1", 2), (12,), ("12",), (1, 2, 0), (2, 1), (1, "2"), ("1, 2",)])
def test_keys_that_look_alike_are_kept_apart(other: tuple[int | str, ...]) -> None:
    assert seed(*other) != seed(1, 2)


@given(_keys)
def test_a_seed_fits_into_63_bits(key: tuple[int | str, ...]) -> None:
    assert 0 <= seed(*key) < 2**63


def test_a_numpy_integer_is_the_integer_it_holds() -> None:
    """An index drawn from an array is easily passed on; its repr differs, also between versions of numpy."""
    assert seed(np.int64(3), "x") == seed(3, "x")
    assert generator(np.int32(3)).integers(2**63) == generator(3).integers(2**63)


def test_neighbouring_keys_are_not_correlated() -> None:
    """The first number of 10,000 neighbouring keys: uniform, and with no memory of the key before."""
    first = np.array([generator(0, "noise", i).random() for i in range(10_000)])
    # Four standard errors each.
    assert abs(first.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(first))
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / np.sqrt(len(first))
