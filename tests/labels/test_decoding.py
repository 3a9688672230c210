"""From one distribution a level to one legal path."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.errors import ConfigError
from nstudent.labels import best_path, decoding, path_tree
from nstudent.labels.decoders import build_decoder
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from trees import ragged_trees

LEVELS = ("coarse", "mid", "fine")
# A{A1{a,b},A2{c}}, B{B1{d,e}}; B and A2 are legal final labels too.
TREE = Taxonomy.from_labels(
    [
        ("A", "A1", "a"),
        ("A", "A1", "b"),
        ("A", "A2", "c"),
        ("A", "A2", "-"),
        ("B", "B1", "d"),
        ("B", "B1", "e"),
        ("B", "-", "-"),
    ],
    LEVELS,
)


def best_paths(levels: list[np.ndarray], tree: Taxonomy, absent: str = "ignore") -> np.ndarray:
    decoder = build_decoder("best_path", Outputs(tree, absent))
    return decoder.decode([torch.from_numpy(level) for level in levels]).paths.numpy()


def path_confidence(levels: list[np.ndarray], paths: np.ndarray, tree: Taxonomy, absent: str = "ignore") -> np.ndarray:
    outputs = Outputs(tree, absent)
    return decoding.path_confidence([torch.from_numpy(level) for level in levels], torch.tensor(paths), outputs).numpy()


def rows(*levels: list[float]) -> list[np.ndarray]:
    return [np.array(level, dtype=np.float32).reshape(-1, len(level)) for level in levels]


def decoded(*levels: list[float], tree: Taxonomy = TREE, absent: str = "ignore") -> list[int]:
    return best_paths(rows(*levels), tree, absent)[0].tolist()


def test_the_levels_agree() -> None:
    assert decoded([0.9, 0.1], [0.8, 0.1, 0.1], [0.1, 0.7, 0.1, 0.05, 0.05]) == [0, 0, 1]


def test_a_fine_class_against_its_parents_loses() -> None:
    """Alone, fine says d; coarse and mid say A, A1: the best consistent path is not the argmax of each level."""
    assert decoded([0.9, 0.1], [0.9, 0.05, 0.05], [0.25, 0.15, 0.1, 0.4, 0.1]) == [0, 0, 0]


def test_a_sure_fine_class_overrules_its_parents() -> None:
    assert decoded([0.6, 0.4], [0.5, 0.1, 0.4], [0.001, 0.001, 0.001, 0.996, 0.001]) == [1, 2, 3]


def test_a_path_goes_on_where_nothing_can_be_said_for_its_end() -> None:
    """B alone is a legal final label, but the model has no output for 'nothing' below it."""
    assert decoded([0.01, 0.99], [0.3, 0.3, 0.4], [0.2, 0.2, 0.2, 0.25, 0.15]) == [1, 2, 3]


RAGGED = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], ("coarse", "fine"))
"""B has no children: it is a final label also for a model without an output for 'nothing'."""


def test_the_mean_does_not_favour_short_paths() -> None:
    """A product would prefer B (0.45) to A/a (0.55 x 0.8)."""
    assert decoded([0.55, 0.45], [0.8, 0.2], tree=RAGGED) == [0, 0]


def test_of_a_path_without_children_only_the_levels_it_has_are_asked() -> None:
    """B (0.7) is more probable than A/a (root of 0.3 x 0.9), whatever the fine level says of A's children."""
    assert decoded([0.3, 0.7], [0.9, 0.1], tree=RAGGED) == [1, -1]


def test_a_level_that_is_certain_and_alone_does_not_decide() -> None:
    """Every path has a probability of zero somewhere; B/B1/d has it at one level, and all others at two."""
    assert decoded([1, 0], [0, 0, 1], [0, 0, 0, 1, 0]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("nothing_mid", "nothing_fine", "expected"), [(0.9, 0.9, [1, -1, -1]), (0.02, 0.02, [1, 2, 3])]
)
def test_an_output_for_nothing_has_a_say_where_the_path_ends(
    nothing_mid: float, nothing_fine: float, expected: list[int]
) -> None:
    mid = [*np.array([0.1, 0.1, 0.8]) * (1 - nothing_mid), nothing_mid]
    fine = [*np.array([0.1, 0.1, 0.1, 0.6, 0.1]) * (1 - nothing_fine), nothing_fine]

    assert decoded([0.2, 0.8], mid, fine, absent="class") == expected


def test_equal_scores_take_the_first_terminal_every_time() -> None:
    uniform = [np.full((5, n), 1 / n, dtype=np.float32) for n in (2, 2)]
    tree = Taxonomy.from_labels([("A", "a"), ("B", "b")], ("coarse", "fine"))

    assert best_paths(uniform, tree).tolist() == [[0, 0]] * 5


def test_a_path_that_is_certain_to_its_end_is_not_cut_short() -> None:
    """A saturated softmax says exactly 1: then c and its parent A2, a legal final label too, have equal scores."""
    assert decoded([1, 0], [0, 1, 0], [0, 0, 1, 0, 0]) == [0, 1, 2]


def test_no_image_gives_no_path() -> None:
    assert best_paths([np.zeros((0, n), np.float32) for n in (2, 3, 5)], TREE).shape == (0, 3)


def test_many_images_are_decoded_in_parts_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    levels = [random.dirichlet(np.ones(n), 50).astype(np.float32) for n in (2, 3, 5)]
    whole = best_paths(levels, TREE)

    monkeypatch.setitem(path_tree._CELLS_AT_ONCE, "cpu", 20)

    assert np.array_equal(best_paths(levels, TREE), whole)
    assert np.array_equal(np.concatenate([best_paths([p[i : i + 1] for p in levels], TREE) for i in range(50)]), whole)


@settings(max_examples=80, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000), sharp=st.booleans())
def test_whatever_is_predicted_the_path_is_a_legal_terminal(
    tree: Taxonomy, absent: str, seed: int, sharp: bool
) -> None:
    random = np.random.default_rng(seed)
    weight = 0.01 if sharp else 1.0
    levels = [random.dirichlet(np.full(n, weight) + 1e-3, 7).astype(np.float32) for n in Outputs(tree, absent).sizes]

    paths = best_paths(levels, tree, absent)

    assert {tuple(path) for path in paths.tolist()} <= set(tree.terminals)
    confidence = path_confidence(levels, paths, tree, absent)
    if absent == "ignore":
        assert (confidence[paths < 0] == 0).all()
    assert ((confidence >= 0) & (confidence <= 1 + 1e-6)).all()


def test_confidence_below_the_end_is_that_of_nothing() -> None:
    """A student can only learn that a path ends where the level that says so is kept."""
    tree = Taxonomy.from_labels([("A", "-"), ("A", "a")], ("coarse", "fine"))
    confidence = path_confidence(rows([1.0], [0.2, 0.8]), np.array([[0, -1]]), tree, "class")

    assert np.allclose(confidence, [[1.0, 0.8]])


def test_confidence_is_that_of_the_path() -> None:
    levels = rows([0.3, 0.7], [0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.15, 0.25])

    found = path_confidence([np.repeat(level, 2, axis=0) for level in levels], np.array([[0, 1, 2], [1, -1, -1]]), TREE)

    assert np.allclose(found, [[0.3, 0.3, 0.3], [0.7, 0, 0]])


def test_a_decoder_gives_the_confidence_of_the_paths_that_it_finds() -> None:
    levels = [torch.from_numpy(level) for level in rows([0.9, 0.1], [0.8, 0.1, 0.1], [0.1, 0.7, 0.1, 0.05, 0.05])]
    before = [level.clone() for level in levels]

    found = build_decoder("best_path", Outputs(TREE)).decode(levels)

    assert found.paths.tolist() == [[0, 0, 1]]
    assert np.allclose(found.confidence, [[0.9, 0.8, 0.7]])
    assert all(torch.equal(level, was) for level, was in zip(levels, before, strict=True))


def test_a_decoder_that_there_is_not_is_an_error_that_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="decoder: there is no 'worst_path': choose from best_path, expected_score"):
        build_decoder("worst_path", Outputs(TREE))


@pytest.mark.parametrize("absent", ["ignore", "class"])
@pytest.mark.parametrize("tree", [TREE, RAGGED], ids=["of three levels", "ragged"])
def test_all_that_a_decoder_knows_follows_the_distributions_to_their_device(tree: Taxonomy, absent: str) -> None:
    """The device meta stands in for a GPU: its tensors have shapes and no numbers."""
    outputs = Outputs(tree, absent)
    decoder = best_path.BestPath(outputs)
    found = decoder.decode([torch.empty(4, size, device="meta") for size in outputs.sizes])
    known = decoder._tree
    tensors = [found.paths, found.confidence, known.terminals, known.speaks, known.depths]
    for level in known._levels:
        tensors += [level.above.index, level.output.index] + ([] if level.silent is None else [level.silent])
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert found.paths.shape == found.confidence.shape == (4, tree.num_levels)


@pytest.mark.gpu
@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_cpu_and_gpu_find_the_same_labels(absent: str) -> None:
    from nstudent.labels.path_posterior import Calibration, PathPosterior
    from nstudent.labels.store import Layout

    random = np.random.default_rng(0)
    outputs = Outputs(TREE, absent)
    drawn = [torch.from_numpy(random.dirichlet(np.ones(n), 500).astype(np.float32)) for n in outputs.sizes]
    decoder, layout, found = build_decoder("best_path", outputs), Layout.of(outputs, 2), {}
    posterior = PathPosterior(outputs, Calibration((1.4, 2.0, 1.0), (0.5, -0.5, 0.0)))
    for device in ("cpu", "cuda"):
        levels = posterior.marginals([level.to(device) for level in drawn])
        decoded = decoder.decode(levels)
        made = layout.columns(levels, decoded.paths, decoded.confidence)
        found[device] = {name: tensor.cpu().numpy() for name, tensor in made.items()}
    assert (found["cpu"]["path"] == found["cuda"]["path"]).mean() > 0.99
    same = (found["cpu"]["path"] == found["cuda"]["path"]).all(axis=1)
    for name, rows in found["cpu"].items():
        np.testing.assert_allclose(rows[same], found["cuda"][name][same], atol=1e-3, err_msg=name)
