"""A proposed tree of classes, as a page of YAML that a person edits and ``data.taxonomy`` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nstudent.config.yaml_text import dump_flow
from nstudent.errors import DataError

_INDENT = "  "


@dataclass(frozen=True)
class Group:
    """A group of classes, or a class if nothing is below it."""

    name: str
    note: str = ""
    """What a person should know of it, on one line; it stands behind the name as a comment."""
    below: tuple[Group, ...] = ()

    @property
    def classes(self) -> list[str]:
        """Names of the classes in it, in their order."""
        return [name for each in self.below for name in each.classes] if self.below else [self.name]

    @property
    def depth(self) -> int:
        """Number of levels from here down, itself included."""
        return 1 + max((each.depth for each in self.below), default=0)


def page_of(groups: Sequence[Group], heading: Sequence[str]) -> str:
    """The text of the page.

    Args:
        groups: The groups of the first level. Names beside each other differ.
        heading: Lines of the comment at its head.

    Raises:
        DataError: Two groups beside each other have one name.
    """
    lines = [f"# {' '.join(line.split())}".rstrip() for line in heading]
    for group in groups:
        lines += _lines(group, "")
    _refuse_twins(groups)
    return "\n".join(lines) + "\n"


def _lines(group: Group, indent: str) -> Iterator[str]:
    note = f"  # {' '.join(group.note.split())}" if group.note else ""
    yield f"{indent}{dump_flow(group.name)}:{note}"
    for each in group.below:
        yield from _lines(each, indent + _INDENT)


def _refuse_twins(groups: Sequence[Group]) -> None:
    names = [group.name for group in groups]
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        raise DataError(f"two groups beside each other would be called '{twin}': rename one of the classes")
    for group in groups:
        _refuse_twins(group.below)


def check_sizes(sizes: Sequence[int], num_classes: int) -> None:
    """Refuse numbers of groups that make no tree over so many classes.

    Args:
        sizes: Number of groups of each level above the classes, coarse first.
        num_classes: Number of classes.

    Raises:
        DataError: They do not grow from level to level, or are not between 2 and the number of classes.
    """
    if num_classes < 3:
        raise DataError(f"{num_classes} classes make no tree: there have to be three or more")
    if list(sizes) != sorted(set(sizes)) or (sizes and not 2 <= sizes[0] <= sizes[-1] < num_classes):
        said = " ".join(map(str, sizes))
        raise DataError(
            f"--groups {said}: write numbers of groups, coarse first, each larger than the one before, from 2 to "
            f"{num_classes - 1}, for there are {num_classes} classes"
        )


def nested(
    leaves: Sequence[Group], levels: Sequence[Sequence[int]], name: Callable[[Sequence[str]], tuple[str, str]]
) -> tuple[Group, ...]:
    """The tree of classes that several divisions of them make, each of which divides the groups of the one before.

    Args:
        leaves: The classes.
        levels: Per level, coarse first, the number of the group of each class.
        name: Gives the name of a group, and what is to be known of it, from the names of its classes.
    """
    if not levels:
        return tuple(leaves)
    groups = []
    for number in dict.fromkeys(levels[0]):
        rows = [row for row, of in enumerate(levels[0]) if of == number]
        below = nested([leaves[row] for row in rows], [[level[row] for row in rows] for level in levels[1:]], name)
        groups.append(Group(*name([leaves[row].name for row in rows]), below))
    return tuple(groups)
