"""From the labels a source spells to rows of class indices, and what is odd about them that a person should know."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import DataConfig
from nstudent.config.yaml_text import as_names, read_words
from nstudent.data.curation.split import TEST, TRAIN, VALIDATION
from nstudent.data.sources import Catalogue, Record
from nstudent.data.sources.source import levels_of, printable
from nstudent.errors import ConfigError, DataError
from nstudent.taxonomy.reading import UNKNOWN_ENTRY, paths_of_tree
from nstudent.taxonomy.tree import LabelArray, Taxonomy

_CLASSES_SHOWN = 5
_MOST_LEVELS = 16
_MIN_REVERSED = 3
"""Number of classes with one class below each, all sharing fewer, from which levels seem to be in the wrong order."""


def taxonomy_of(found: Catalogue, config: DataConfig) -> Taxonomy:
    """The tree that the configuration gives, or the one that the labels spell.

    A given tree may be deeper than the labels, unless ``data.levels`` names their levels: labels then name the finest
    classes of the tree, and what is above follows from it.

    Raises:
        DataError: a level has no class, there is but one label, or the levels stand in the wrong order.
        ConfigError: ``data.taxonomy`` is not a tree.
    """
    if config.taxonomy is None:
        taxonomy = Taxonomy.from_labels((record.label for record in found.records), found.levels)
        _check_order(taxonomy)
    else:
        tree = config.taxonomy
        content = as_names(read_words(Path(tree))) if isinstance(tree, str) else tree
        if not isinstance(content, dict | list):
            raise ConfigError("data.taxonomy is not a tree: write nested class names")
        taxonomy = Taxonomy.from_tree(content, _levels_of_tree(content, found, config))
    for level, num_classes in zip(taxonomy.levels, taxonomy.num_classes, strict=True):
        if not num_classes:
            raise DataError(f"no label names a class of the level '{level}': leave it out of data.levels")
    return taxonomy


def _levels_of_tree(content: Any, found: Catalogue, config: DataConfig) -> tuple[str, ...]:
    """Names of the levels of a given tree: those of the labels, or the usual ones if the tree is deeper."""
    deepest = max(map(len, paths_of_tree(content, _MOST_LEVELS)), default=0)
    if config.levels is not None or deepest <= len(found.levels):
        return found.levels
    return levels_of(None, deepest, "the tree of data.taxonomy")


def _check_order(taxonomy: Taxonomy) -> None:
    """Fine before coarse also spells a tree, one in which nothing is shared and nothing can be learnt."""
    for level in range(1, taxonomy.num_levels):
        above, below = taxonomy.levels[level - 1], taxonomy.levels[level]
        parents, names = taxonomy.parents[level], taxonomy.classes[level]
        if len(parents) >= _MIN_REVERSED and len(set(parents)) == len(parents) > len(set(names)):
            raise DataError(
                f"data.levels seems to be in the wrong order: {len(parents)} classes of '{above}' have one of "
                f"'{below}' each, and share {len(set(names))}. Write the coarsest level first, or give data.taxonomy"
            )


def encode_labels(records: Sequence[Record], taxonomy: Taxonomy) -> LabelArray:
    """Class indices, (images, levels). Labels with fewer entries than the tree has levels name its finest classes.

    Raises:
        DataError: names the first image whose label does not fit the tree, and how many there are.
    """
    known: dict[tuple[str, ...], tuple[int, ...]] = {}
    wrong: dict[tuple[str, ...], str] = {}
    for label in {record.label: None for record in records}:
        try:
            above = (UNKNOWN_ENTRY,) * (taxonomy.num_levels - len(label))
            known[label] = taxonomy.encode((*above, *label))
        except DataError as error:
            wrong[label] = str(error)
    if wrong:
        at_fault = [record for record in records if record.label in wrong]
        more = f" ({len(at_fault) - 1} more images have a label that does not fit)" if len(at_fault) > 1 else ""
        raise DataError(f"{printable(at_fault[0].name)}: {printable(wrong[at_fault[0].label])}{more}")
    rows = [known[record.label] for record in records]
    return np.array(rows, dtype=np.int32).reshape(len(rows), taxonomy.num_levels)


def findings(
    taxonomy: Taxonomy, truth: LabelArray, split: npt.NDArray[np.int8], usable: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Labels that are legal and yet worth a look, as JSON.

    ``truth`` is (images, levels); ``split`` and ``usable`` are (images,).

    Returns:
        ``one_training_image``: terminals with a single one; ``held_out_only``: terminals that validation or test
        shows and no training image has; ``several_parents``: names that stand under more than one class.
    """
    of_image = taxonomy.terminal_of(truth)
    num_labels = len(taxonomy.terminals)

    def count(parts: tuple[int, ...]) -> npt.NDArray[np.int64]:
        chosen = of_image[usable & np.isin(split, parts) & (of_image >= 0)]
        return np.bincount(chosen, minlength=num_labels)

    trained, held_out = count((TRAIN,)), count((VALIDATION, TEST))
    return {
        "one_training_image": _paths(taxonomy, trained == 1),
        "held_out_only": _paths(taxonomy, (trained == 0) & (held_out > 0)),
        "several_parents": _several_parents(taxonomy),
    }


def _paths(taxonomy: Taxonomy, chosen: npt.NDArray[np.bool_]) -> list[str]:
    return ["/".join(taxonomy.names(taxonomy.terminals[i]).values()) for i in np.flatnonzero(chosen)]


def _several_parents(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    found = []
    for level in range(1, taxonomy.num_levels):
        above: dict[str, list[str]] = {}
        for name, parent in zip(taxonomy.classes[level], taxonomy.parents[level], strict=True):
            above.setdefault(name, []).append(taxonomy.classes[level - 1][parent])
        found += [
            {"level": taxonomy.levels[level], "name": name, "parents": parents}
            for name, parents in above.items()
            if len(parents) > 1
        ]
    return found


def counted_labels(truth: LabelArray, taxonomy: Taxonomy) -> str:
    """How many images there are of each label, the rarest first, such as ``1 of defect, 15 of ok``.

    Args:
        truth: (images, levels).
        taxonomy: The classes.
    """
    names = ("/".join(taxonomy.names(row).values()) for row in truth.tolist())
    rarest = sorted(Counter(name for name in names if name).items(), key=lambda item: (item[1], item[0]))
    said = ", ".join(f"{count} of {name}" for name, count in rarest[:_CLASSES_SHOWN])
    return said + (f" and {len(rarest) - _CLASSES_SHOWN} more classes" if len(rarest) > _CLASSES_SHOWN else "")
