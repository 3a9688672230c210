"""The most probable classes of many, and what is left."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.errors import ArtifactError
from nstudent.labels import top
from nstudent.labels.rows import JoinedRows, Shards
from nstudent.labels.targets import PseudoTargets, Teaches
from nstudent.labels.top import TopRows, class_type
from nstudent.storage.hdf5 import write
from trees import outputs_of


def top_classes(probabilities: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    return tuple(tensor.numpy() for tensor in top.top_classes(torch.from_numpy(probabilities), count))


def stored(tmp_path: Path, classes: list[list[int]], probabilities: list[list[float]], outputs: int) -> TopRows:
    """Distributions read from one shard."""
    arrays = {"class": np.asarray(classes, np.int16), "probability": np.asarray(probabilities, np.float16)}
    write(tmp_path / "shard.h5", arrays, {})
    shards = Shards([tmp_path / "shard.h5"])
    return TopRows(JoinedRows(shards, "class"), JoinedRows(shards, "probability"), outputs)


@settings(max_examples=80, deadline=None, database=None)
@given(seed=st.integers(0, 1000), outputs=st.integers(1, 60), rows=st.integers(0, 5), data=st.data())
def test_they_are_those_that_sorting_puts_first(seed: int, outputs: int, rows: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, outputs))
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(outputs), rows).astype(np.float32)

    classes, chosen = top_classes(probabilities, count)

    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    assert np.array_equal(classes, order)
    assert np.array_equal(chosen, np.take_along_axis(probabilities, order, axis=1))


def test_of_equal_ones_the_first_class_comes_first() -> None:
    classes, _ = top_classes(np.array([[0.1, 0.3, 0.1, 0.3, 0.2]], np.float32), 3)

    assert classes.tolist() == [[1, 3, 4]]


def test_of_many_equal_ones_all_stand_in_the_order_of_their_numbers() -> None:
    equal = np.sort(np.random.default_rng(0).permutation(1000)[:64])
    probabilities = np.zeros((1, 1000), np.float32)
    probabilities[0, equal] = 1 / 64

    classes, chosen = top_classes(probabilities, 64)

    assert classes[0].tolist() == equal.tolist()
    assert chosen[0].tolist() == [1 / 64] * 64


@pytest.mark.parametrize(("outputs", "top_k", "kept"), [(5, 64, 5), (5, 5, 5), (65, 64, 64), (256, None, 256)])
def test_no_more_classes_are_kept_than_a_level_has(outputs: int, top_k: int | None, kept: int) -> None:
    assert top.classes_kept(outputs, top_k) == kept


def test_what_is_left_is_spread_evenly(tmp_path: Path) -> None:
    whole = stored(tmp_path, [[2, 0]], [[0.5, 0.25]], 6)[np.array([0])]

    assert whole[0] == pytest.approx([0.25, 0.0625, 0.5, 0.0625, 0.0625, 0.0625])
    assert whole.dtype == np.float32


def test_of_paths_that_may_have_ended_above_only_what_the_others_share_is_spread(tmp_path: Path) -> None:
    """A level can be read from a distribution over paths: then its classes sum to less than one."""
    arrays = {
        "class": np.array([[2, 0]], np.int16),
        "probability": np.array([[0.5, 0.125]], np.float16),
        "rest": np.array([[0.0625]], np.float16),
    }
    write(tmp_path / "shard.h5", arrays, {})
    shards = Shards([tmp_path / "shard.h5"])
    whole = TopRows(*(JoinedRows(shards, name) for name in ("class", "probability")), 6, JoinedRows(shards, "rest"))

    assert whole[np.array([0])][0].tolist() == [0.125, 0.015625, 0.5, 0.015625, 0.015625, 0.015625]


def test_rounding_never_leaves_less_than_nothing(tmp_path: Path) -> None:
    """Two thirds and a third, each rounded up to half precision, are more than one."""
    whole = stored(tmp_path, [[0, 1]], [[0.6669922, 0.33349609]], 5)[np.array([0])]

    assert (whole >= 0).all()
    assert whole[0, 2:].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("teaches", "expected"), [("soft", 0.75), ("under_path", 0.75), ("hard", 1.0)])
def test_a_network_learns_from_them_as_from_a_whole_distribution(
    tmp_path: Path, teaches: Teaches, expected: float
) -> None:
    distributions = stored(tmp_path, [[2, 0], [5, 1]], [[0.5, 0.25], [0.75, 0.125]], 6)
    paths, keep = np.array([[2], [5]], np.int32), np.array([[True], [True]])

    (mass,) = PseudoTargets([distributions], paths, keep, outputs_of(6), teaches)(np.array([1, 0]))

    assert mass.sum(axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert mass.argmax(axis=1).tolist() == [5, 2]
    assert mass[0, 5] == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [6, -1])
def test_a_class_that_the_level_does_not_have_is_refused(tmp_path: Path, wrong: int) -> None:
    distributions = stored(tmp_path, [[0, 1], [wrong, 1]], [[0.5, 0.25]] * 2, 6)

    assert distributions[np.array([0])].shape == (1, 6)
    with pytest.raises(ArtifactError, match="beyond the 6"):
        distributions[np.array([0, 1])]


def test_no_rows_have_no_distribution(tmp_path: Path) -> None:
    assert stored(tmp_path, [[0, 1]], [[0.5, 0.25]], 6)[np.zeros(0, np.int64)].shape == (0, 6)


@pytest.mark.parametrize(("outputs", "dtype"), [(257, np.int16), (32_768, np.int16), (32_769, np.int32)])
def test_numbers_of_classes_fit_their_type(outputs: int, dtype: type[np.generic]) -> None:
    assert class_type(outputs) is dtype
    assert np.iinfo(dtype).max >= outputs - 1
