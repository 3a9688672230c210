"""Labels and a selection from them, opened as one: only if they belong together."""

from pathlib import Path

import numpy as np
import pytest
from nstudent.errors import ArtifactError
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import Selection
from nstudent.labels.targets import PseudoTargets, Teaches
from nstudent.storage.artifact import Artifact
from nstudent.storage.commit import commit, open_partial
from nstudent.taxonomy.outputs import Outputs
from test_store import TOTAL, TREE, content, write_store

KEEP = np.arange(2 * TOTAL).reshape(TOTAL, 2) % 3 > 0
LATER = KEEP & (np.arange(TOTAL)[:, None] > 2)


def _committed(folder: Path, keep: np.ndarray, inputs: dict[str, str], *, labels: bool = False) -> Artifact:
    partial = open_partial(folder, {"asked": {}, "inputs": inputs})
    if labels:
        write_store(partial)
    Selection(keep, keep.any(axis=1).astype(np.uint8)).save(partial)
    stage, role = ("pseudolabel", "labels") if labels else ("filter", "selection")
    fields = {"stage": stage, "role": role, "round": 1, "asked": {}, "inputs": inputs, "metrics": {}, "seconds": 0.0}
    return commit(folder, fields)


@pytest.fixture
def labels(tmp_path: Path) -> Artifact:
    return _committed(tmp_path / "04-pseudolabel", KEEP, {}, labels=True)


def _selection(labels: Artifact, keep: np.ndarray = LATER, id_: str | None = None) -> Artifact:
    inputs = {"00-data": "data", labels.name: id_ or labels.manifest.id}
    return _committed(labels.folder.with_name("05-filter"), keep, inputs)


def test_the_labels_of_a_step_come_with_its_own_selection(labels: Artifact) -> None:
    heap = HeapLabels.open(labels)
    assert len(heap) == TOTAL
    assert heap.images.tolist() == content()["images"].tolist()
    assert np.array_equal(heap.keep, KEEP)
    assert np.array_equal(heap.copies, KEEP.any(axis=1))


def test_a_later_step_leaves_a_selection_of_its_own(labels: Artifact) -> None:
    heap = HeapLabels.open(labels, _selection(labels))
    assert np.array_equal(heap.keep, LATER)
    assert np.array_equal(heap.copies, LATER.any(axis=1))
    paths = content()["paths"]
    assert np.array_equal(heap.kept_labels(), np.where(LATER, paths, -2))


@pytest.mark.parametrize("teaches", ["soft", "under_path", "hard"])
def test_what_is_learnt_of_a_row_is_of_its_label_at_the_levels_that_are_kept(
    labels: Artifact, teaches: Teaches
) -> None:
    keep = LATER & (content()["paths"] >= 0)
    heap, outputs = HeapLabels.open(labels, _selection(labels, keep)), Outputs(TREE)
    rows = np.arange(TOTAL)
    expected = PseudoTargets(heap.labels.probabilities, content()["paths"], keep, outputs, teaches)(rows)
    for level, mass in enumerate(heap.targets(teaches, outputs)(rows)):
        assert np.array_equal(mass, expected[level])
        assert np.array_equal(mass.any(axis=1), keep[:, level])


def test_the_share_of_a_level_is_that_of_the_shown_images_whose_path_reaches_it(labels: Artifact) -> None:
    """Kept or not; an image that is shown three times counts three times, one that is not shown not at all."""
    heap = HeapLabels.open(labels)
    reaches = content()["confidence"] > 0
    assert not reaches.all(), "a path of the example ends early"
    copies = np.arange(TOTAL) % 4
    expected = [copies[reaches[:, level]].sum() / copies.sum() for level in range(2)]
    assert heap.level_shares(copies.astype(np.uint8)) == pytest.approx(expected)
    assert heap.level_shares(np.zeros(TOTAL, dtype=np.uint8)) == (0.0, 0.0)


def test_a_selection_from_other_labels_is_refused(labels: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"05-filter was not made from .* 04-pseudolabel holds now: .*stage filter"):
        HeapLabels.open(labels, _selection(labels, id_="of other labels"))


def test_a_step_that_never_read_these_labels_is_refused(labels: Artifact) -> None:
    stranger = _committed(labels.folder.with_name("05-filter"), LATER, {"00-data": labels.manifest.id})
    with pytest.raises(ArtifactError, match="was not made from the labels"):
        HeapLabels.open(labels, stranger)


@pytest.mark.parametrize(
    "keep", [LATER[:-1], LATER[:, :1], np.concatenate([LATER, LATER])], ids=["rows", "levels", "more"]
)
def test_a_selection_of_other_rows_or_levels_is_refused(labels: Artifact, keep: np.ndarray) -> None:
    with pytest.raises(
        ArtifactError, match=rf"a selection of {len(keep)} labels does not fit a store of {TOTAL} labels"
    ):
        HeapLabels.open(labels, _selection(labels, keep))


def test_copies_of_other_rows_are_refused(labels: Artifact) -> None:
    store = HeapLabels.open(labels).labels
    with pytest.raises(ArtifactError, match="does not fit"):
        HeapLabels(store, Selection(LATER, np.ones(TOTAL - 1, dtype=np.uint8)))
