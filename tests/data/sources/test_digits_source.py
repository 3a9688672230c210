"""The embedded data set: 1,797 digits, a tree of three levels, two digits that end early."""

from collections import Counter

import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.sources import open_source, source_seen
from nstudent.data.sources.source import Record, Source
from nstudent.taxonomy.tree import Taxonomy


@pytest.fixture(scope="module")
def digits() -> tuple[Source, list[Record]]:
    source = open_source(DataConfig())
    return source, source.catalogue().records


def test_every_digit_is_there_once(digits: tuple[Source, list[Record]]) -> None:
    _, records = digits

    assert len(records) == len({record.name for record in records}) == 1797
    assert {record.split for record in records} == {None}


def test_the_tree_has_three_levels_and_ten_terminals(digits: tuple[Source, list[Record]]) -> None:
    _, records = digits
    taxonomy = Taxonomy.from_labels((record.label for record in records), ("coarse", "mid", "fine"))

    assert taxonomy.num_classes == (3, 4, 8)
    assert len(taxonomy.terminals) == 10


def test_absent_levels_are_part_of_the_labels(digits: tuple[Source, list[Record]]) -> None:
    counts = Counter(record.label for record in digits[1])

    assert len(counts) == 10
    assert counts[("stroke", "-", "-")] == 182  # the ones
    assert counts[("loop", "two loops", "-")] == 174  # the eights


def test_labels_are_those_of_scikit_learn(digits: tuple[Source, list[Record]]) -> None:
    from sklearn.datasets import load_digits

    fine = [record.label[2] for record in digits[1]]
    target = load_digits().target
    assert [fine[i] for i in np.flatnonzero(target == 7)] == ["seven"] * 179
    assert [fine[i] for i in np.flatnonzero(target == 0)] == ["zero"] * 178


def test_pixels_use_the_whole_range(digits: tuple[Source, list[Record]]) -> None:
    source, records = digits
    images = np.stack([source.read(i) for i in range(len(records))])

    assert (images.shape, images.dtype) == ((1797, 8, 8), np.uint8)
    assert (images.min(), images.max()) == (0, 255)


def test_the_stamp_is_that_of_the_library(digits: tuple[Source, list[Record]]) -> None:
    assert source_seen(DataConfig()).stamp.startswith("scikit-learn ")
