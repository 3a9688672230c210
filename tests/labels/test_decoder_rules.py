"""All decoders by their names: what each says of numbers worked out by hand, and that a path always exists."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.config.file import load_config
from nstudent.config.types import Absent
from nstudent.errors import ConfigError
from nstudent.evaluation.metrics import tally
from nstudent.evaluation.scores import HEADLINE
from nstudent.labels import path_tree
from nstudent.labels.decoders import DECODERS, build_decoder
from nstudent.labels.path_tree import PathTree
from nstudent.labels.worth import ConditionalRisk
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, Taxonomy
from trees import ragged_trees

LEVELS = ("coarse", "mid", "fine")
LEAVES = [("A", "A1", "a"), ("A", "A1", "b"), ("A", "A2", "c"), ("B", "B1", "d"), ("B", "B1", "e")]
TREE = Taxonomy.from_labels(LEAVES, LEVELS)
INNER = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("A", "-"), ("B", "c"), ("B", "-")], ("coarse", "fine"))
"""The paths in ascending order: A, A/a, A/b, B, B/c."""
RAGGED = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], ("coarse", "fine"))
every_decoder = pytest.mark.parametrize("name", DECODERS)


def decoded(name: str, masses: list[float], tree: Taxonomy, absent: Absent = "ignore") -> list[int]:
    """The answer where the paths, in ascending order, have these probabilities."""
    outputs = Outputs(tree, absent)
    levels = PathTree.of(outputs).marginals(torch.tensor([masses]))
    answer: list[int] = build_decoder(name, outputs).decode(levels).paths[0].tolist()
    return answer


def said(name: str, *levels: list[float], tree: Taxonomy, absent: Absent = "ignore") -> list[int]:
    """The answer to distributions of levels that may contradict each other."""
    found = build_decoder(name, Outputs(tree, absent)).decode([torch.tensor([level]) for level in levels])
    answer: list[int] = found.paths[0].tolist()
    return answer


def cost(first: tuple[int, ...], second: tuple[int, ...], tree: Taxonomy) -> int:
    """Height of the lowest common ancestor of two ends of labels, by looking at all classes below it."""
    if first == second:
        return 0
    shared = 0
    while shared < len(first) and first[shared] == second[shared] != ABSENT:
        shared += 1
    depths = [shared]
    for level, size in enumerate(tree.num_classes):
        below = any(tree.ancestors(level, c)[:shared] == first[:shared] for c in range(size))
        depths += [level + 1] if below and level >= shared else []
    return max(depths) - shared


def test_golden_the_mildest_expected_mistake_is_not_the_most_probable_path() -> None:
    """Risks of a to e: 1.55, 1.60, 2.30, 1.80, 2.20; d is the most probable."""
    masses = [0.30, 0.25, 0.05, 0.40, 0.0]
    risks = [
        sum(p * cost(each, true, TREE) for p, true in zip(masses, TREE.terminals, strict=True))
        for each in TREE.terminals
    ]

    assert risks == pytest.approx([1.55, 1.60, 2.30, 1.80, 2.20])
    assert decoded("crm", masses, TREE) == [0, 0, 0]
    assert decoded("most_probable", masses, TREE) == [1, 2, 3]


def test_golden_the_worth_of_a_path_is_the_height_of_the_root_minus_its_risk() -> None:
    outputs = Outputs(TREE)
    tree, rule = PathTree.of(outputs), ConditionalRisk.of(outputs)
    masses = torch.tensor([[0.30, 0.25, 0.05, 0.40, 0.0]])

    worth = rule(tree, tree.marginals(masses), masses)

    torch.testing.assert_close(3 - worth, torch.tensor([[1.55, 1.60, 2.30, 1.80, 2.20]]))


def test_golden_heights_of_the_lowest_common_ancestors() -> None:
    heights = [[cost(each, true, TREE) for true in TREE.terminals] for each in TREE.terminals]

    assert (heights[0], heights[2], heights[3]) == ([0, 1, 2, 3, 3], [2, 2, 0, 3, 3], [3, 3, 3, 0, 1])
    assert TREE.heights == ((2, 2), (1, 1, 1), (0, 0, 0, 0, 0))
    assert RAGGED.heights == ((1, 0), (0, 0))


def test_golden_ending_at_an_inner_class_is_a_mistake_of_its_height_for_what_goes_on_below_it() -> None:
    """A .2, A/a .25, A/b .15, B .4: risk of A 0.4 + 2 x .4 = 1.2, of A/a .35 + .8 = 1.15, of B 2 x .6 = 1.2."""
    assert decoded("crm", [0.2, 0.25, 0.15, 0.4, 0.0], INNER, "class") == [0, 0]
    # A .3, A/a .2, A/b .1, B .4: risk of A .3 + .8 = 1.1, of A/a .4 + .8 = 1.2, of B 1.2.
    assert decoded("crm", [0.3, 0.2, 0.1, 0.4, 0.0], INNER, "class") == [0, ABSENT]


def test_golden_level_accuracy_alone_goes_on_where_the_sum_of_both_scores_ends() -> None:
    """A .5, A/a .3, A/b .2: A matches .5 + .15 + .1 = .75 of the levels, A/a .9; as exact paths 1.25 and 1.2."""
    masses = [0.5, 0.3, 0.2, 0.0, 0.0]
    assert decoded("level_accuracy", masses, INNER, "class") == [0, 0]
    assert decoded("expected_score", masses, INNER, "class") == [0, ABSENT]


def test_argmax_decides_each_level_by_its_own_most_probable_output() -> None:
    """Fine alone says d. The levels above say A and A1, under which b is the most probable."""
    levels = [0.6, 0.4], [0.5, 0.1, 0.4], [0.1, 0.15, 0.05, 0.6, 0.1]
    assert said("argmax", *levels, tree=TREE) == [0, 0, 1]
    assert said("best_path", *levels, tree=TREE) == [1, 2, 3]


def test_argmax_ends_where_nothing_is_the_most_probable_output() -> None:
    assert said("argmax", [0.7, 0.3], [0.3, 0.1, 0.2, 0.4], tree=INNER, absent="class") == [0, ABSENT]
    # Below A c is no answer, however probable it is.
    assert said("argmax", [0.7, 0.3], [0.3, 0.1, 0.35, 0.25], tree=INNER, absent="class") == [0, 0]


def test_a_class_that_ends_the_tree_ends_the_path() -> None:
    assert said("argmax", [0.3, 0.7], [0.9, 0.1], tree=RAGGED) == [1, ABSENT]


@pytest.mark.parametrize(
    ("masses", "wanted"),
    [
        # A has .9, A/a .51: it goes on. With .5 of .9 it ends, although A itself is improbable.
        ([0.2, 0.51, 0.19, 0.1, 0.0], [0, 0]),
        ([0.1, 0.5, 0.3, 0.1, 0.0], [0, ABSENT]),
        # No label ends at the root: it takes the more probable class, and ends there.
        ([0.2, 0.1, 0.1, 0.2, 0.4], [1, ABSENT]),
    ],
)
def test_majority_goes_on_where_one_class_has_more_than_half_of_all_probability(
    masses: list[float], wanted: list[int]
) -> None:
    assert decoded("majority", masses, INNER, "class") == wanted


def test_stop_depth_decides_where_to_stop_before_what_to_say() -> None:
    """Paths of two classes have .25 + .2 + .15 = .6, though A alone is the most probable path."""
    masses = [0.3, 0.25, 0.2, 0.1, 0.15]
    assert decoded("stop_depth", masses, INNER, "class") == [0, 0]
    assert decoded("most_probable", masses, INNER, "class") == [0, ABSENT]


@every_decoder
@settings(max_examples=60, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000), sharp=st.booleans())
def test_every_path_that_a_decoder_gives_exists_and_ends_where_a_label_may_end(
    name: str, tree: Taxonomy, absent: Absent, seed: int, sharp: bool
) -> None:
    outputs, random = Outputs(tree, absent), np.random.default_rng(seed)
    drawn = [random.dirichlet(np.full(n, 0.01 if sharp else 1.0) + 1e-3, 7) for n in outputs.sizes]
    # Levels that contradict each other; and levels that say nothing, or nothing but one thing.
    levels = [
        torch.from_numpy(np.concatenate([level, np.zeros_like(level[:1]), np.ones_like(level[:1])])) for level in drawn
    ]
    known = PathTree.of(outputs)
    of_paths = known.marginals(torch.from_numpy(random.dirichlet(np.full(len(known.terminals), 0.3), 7)).float())

    for given_levels in ([level.float() for level in levels], of_paths):
        found = build_decoder(name, outputs).decode(given_levels)
        assert {tuple(path) for path in found.paths.tolist()} <= set(tree.terminals)
        assert found.confidence.shape == found.paths.shape
        assert ((found.confidence >= 0) & (found.confidence <= 1 + 1e-5)).all()


@settings(max_examples=60, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000))
def test_no_other_path_is_a_milder_expected_mistake_or_matches_more_levels(
    tree: Taxonomy, absent: Absent, seed: int
) -> None:
    outputs = Outputs(tree, absent)
    known = PathTree.of(outputs)
    masses = np.random.default_rng(seed).dirichlet(np.full(len(known.terminals), 0.5), 3)
    levels = known.marginals(torch.from_numpy(masses.astype(np.float32)))
    paths = [tuple(row) for row in known.terminals.tolist()]
    number = {path: index for index, path in enumerate(paths)}
    mild, deep = (
        [number[tuple(path)] for path in build_decoder(name, outputs).decode(levels).paths.tolist()]
        for name in ("crm", "level_accuracy")
    )

    risks = masses @ np.array([[cost(each, true, tree) for each in paths] for true in paths], dtype=np.float64)
    pairs = np.array(list(product(paths, paths)), dtype=np.int32)
    matched = tally(pairs[:, 0], pairs[:, 1], tree.levels)[HEADLINE][:, 0].reshape(len(paths), len(paths))
    accuracy = masses @ matched.T

    rows = np.arange(3)
    np.testing.assert_allclose(risks[rows, mild], risks.min(axis=1), atol=1e-5)
    np.testing.assert_allclose(accuracy[rows, deep], accuracy.max(axis=1), atol=1e-5)


@every_decoder
@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_many_images_are_decoded_in_parts_as_one_by_one(
    name: str, absent: Absent, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, random = Outputs(INNER, absent), np.random.default_rng(0)
    levels = [torch.from_numpy(random.dirichlet(np.ones(n), 50).astype(np.float32)) for n in outputs.sizes]
    before = [level.clone() for level in levels]
    whole = build_decoder(name, outputs).decode(levels)

    monkeypatch.setitem(path_tree._CELLS_AT_ONCE, "cpu", 9)
    parts = build_decoder(name, outputs).decode(levels)

    assert torch.equal(parts.paths, whole.paths)
    assert all(torch.equal(level, was) for level, was in zip(levels, before, strict=True)), "what goes in is left"
    assert build_decoder(name, outputs).decode([level[:0] for level in levels]).paths.shape == (0, 2)


@every_decoder
@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_all_that_a_decoder_knows_follows_the_distributions_to_their_device(name: str, absent: Absent) -> None:
    """The device meta stands in for a GPU: its tensors have shapes and no numbers."""
    outputs = Outputs(INNER, absent)
    found = build_decoder(name, outputs).decode([torch.empty(4, n, device="meta") for n in outputs.sizes])

    assert {found.paths.device.type, found.confidence.device.type} == {"meta"}


@pytest.mark.parametrize("name", ["majority", "stop_depth"])
def test_a_decoder_that_ends_labels_early_is_refused_where_nothing_speaks_for_an_end(name: str) -> None:
    with pytest.raises(ConfigError, match=f"decoder: {name} .* absent=ignore: set absent=class"):
        load_config(None, [f"decoder={name}"])
    assert load_config(None, [f"decoder={name}", "absent=class"]).decoder == name
