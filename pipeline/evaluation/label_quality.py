"""How right machine-made labels are, held against the truth that training never saw."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import Assessed
from nstudent.evaluation.scores import DetectionQuality, LevelLabelling, LevelQuality
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import deep_enough, load_given_keep
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.tree import UNKNOWN, LabelArray, Taxonomy

Keep = npt.NDArray[np.bool_]


class KeptQuality:
    """Per level, the precision of the kept labels and the share of images that have one, added up part by part."""

    def __init__(self, levels: Sequence[str]) -> None:
        self._levels = tuple(levels)
        self._rows = 0
        self._judged, self._right, self._kept = (np.zeros(len(self._levels), dtype=np.int64) for _ in range(3))

    def add(self, labels: LabelArray, truth: LabelArray, keep: Keep) -> None:
        """Take in some rows.

        Args:
            labels: (rows, levels).
            truth: (rows, levels); negative where it is absent or unknown.
            keep: (rows, levels).
        """
        # A class where the truth is that there is none is a wrong label; an unknown truth says nothing.
        judged = keep & (truth >= -1)
        self._rows += len(keep)
        self._judged += judged.sum(axis=0)
        self._right += (judged & (labels == truth)).sum(axis=0)
        self._kept += keep.sum(axis=0)

    def found(self) -> dict[str, LevelQuality]:
        """What the rows taken in so far amount to, by level."""
        counts = zip(self._levels, self._judged.tolist(), self._right.tolist(), self._kept.tolist(), strict=True)
        return {
            name: LevelQuality(
                precision=right / judged if judged else None,
                kept=kept,
                share=kept / self._rows if self._rows else 0.0,
            )
            for name, judged, right, kept in counts
        }


def held_out_quality(
    found: Assessed,
    truth: LabelArray,
    heap: HeapLabels,
    threshold: Sequence[float] | float,
    levels: Sequence[str],
) -> dict[str, LevelLabelling]:
    """Per level, how good the labels of a heap are as far as held-out images tell, which are labelled in the same way.

    Args:
        found: What the heap's labeller says of the held-out images.
        truth: Their labels, (images, levels).
        heap: The labels of the heap, as they were made.
        threshold: Probability from which on a label is kept, one number or one a level.
        levels: Names of the levels.
    """
    judged = deep_enough(found.confidence, threshold) & (found.paths >= 0) & (truth != UNKNOWN)
    right = judged & (found.paths == truth)
    sure, said = np.zeros(len(levels)), np.zeros(len(levels), dtype=np.int64)
    for part in heap.labels.parts():
        named = part.paths >= 0
        sure += (part.confidence * named).sum(axis=0, dtype=np.float64)
        said += named.sum(axis=0)
    quality = {}
    for i, name in enumerate(levels):
        named, count = found.paths[:, i] >= 0, int(judged[:, i].sum())
        quality[name] = LevelLabelling(
            precision=int(right[:, i].sum()) / count if count else None,
            judged=count,
            share=float(heap.keep[:, i].mean()) if len(heap) else 0.0,
            confidence=float(sure[i] / said[i]) if said[i] else None,
            validation_confidence=float(found.confidence[named, i].mean()) if named.any() else None,
        )
    return quality


def labels_without_images(given: LabelArray, heap: HeapLabels, taxonomy: Taxonomy) -> tuple[str, ...]:
    """Whole labels that some image was given and that no image of a heap is taught, as ``coarse/mid/fine``, sorted.

    Args:
        given: Labels that people gave, (images, levels).
        heap: The labels of the heap, and which of them are taught.
        taxonomy: The classes.
    """
    whole = given[(given != UNKNOWN).all(axis=1)]
    taught: set[tuple[int, ...]] = set()
    for part in heap.labels.parts():
        shown = (heap.copies[part.rows] > 0) & (heap.keep[part.rows] | (part.paths < 0)).all(axis=1)
        taught.update(map(tuple, np.unique(part.paths[shown], axis=0).tolist()))
    wanted = {tuple(row) for row in np.unique(whole, axis=0).tolist()}
    return tuple(sorted("/".join(taxonomy.names(row).values()) for row in wanted - taught))


def detection_quality(
    given: LabelArray, truth: LabelArray, keep: Keep, levels: Sequence[str]
) -> dict[str, DetectionQuality]:
    """Per level, how well dropping finds wrong labels: precision and recall of 'dropped' for 'wrong'.

    Args:
        given: Labels as people gave them, (rows, levels).
        truth: What is right, (rows, levels).
        keep: False where the filter dropped the label, (rows, levels).
        levels: Names of the levels.
    """
    quality = {}
    for i, name in enumerate(levels):
        judged = (given[:, i] >= 0) & (truth[:, i] >= -1)
        wrong = judged & (given[:, i] != truth[:, i])
        dropped = judged & ~keep[:, i]
        found = int((wrong & dropped).sum())
        quality[name] = DetectionQuality(
            judged=int(judged.sum()),
            wrong=int(wrong.sum()),
            dropped=int(dropped.sum()),
            precision=found / int(dropped.sum()) if dropped.any() else None,
            recall=found / int(wrong.sum()) if wrong.any() else None,
            right_among_kept=float((judged & keep[:, i] & ~wrong).sum() / max(1, (judged & keep[:, i]).sum())),
        )
    return quality


def heap_label_quality(
    steps: Iterable[Artifact], judged: dict[str, Artifact], dataset: Dataset
) -> dict[str, dict[str, LevelQuality]]:
    """How right the labels of the heap are before the filter and after it, for every round.

    Args:
        steps: The steps that labelled, and those that filtered.
        judged: By step that filtered, the labels that it judged.
        dataset: Knows the truth, if anything does.

    Returns:
        By step, by level.
    """
    truth = dataset.hidden_truth()
    quality = {}
    for made in steps:
        heap = HeapLabels.open(judged[made.name], made) if made.name in judged else HeapLabels.open(made)
        kept = KeptQuality(dataset.taxonomy.levels)
        for part in heap.labels.parts():
            kept.add(part.paths, truth[part.images], heap.keep[part.rows])
        quality[made.name] = kept.found()
    return quality


def given_label_quality(filters: Iterable[Artifact], dataset: Dataset) -> dict[str, dict[str, DetectionQuality]]:
    """How well each filter found wrong given labels, by step and level; empty where none is known to be wrong."""
    ids = dataset.labelled
    given, truth = dataset.labels[ids], dataset.hidden_truth()[ids]
    if np.array_equal(given, truth):
        return {}
    return {
        made.name: detection_quality(given, truth, load_given_keep(made), dataset.taxonomy.levels) for made in filters
    }
