"""Trees of a wanted size, for tests that ask how many outputs a level has and not what they mean."""

from collections.abc import Sequence
from itertools import pairwise

from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy


def outputs_of(*sizes: int, levels: Sequence[str] | None = None) -> Outputs:
    """Outputs of a tree that has so many classes a level, coarse first: parents take turns in having a child."""
    classes = tuple(tuple(f"{level}-{number}" for number in range(size)) for level, size in enumerate(sizes))
    above = [tuple(number % wide for number in range(size)) for wide, size in pairwise(sizes)]
    parents: tuple[tuple[int, ...], ...] = ((), *above)
    names = tuple(levels or (f"level {level}" for level in range(len(sizes))))
    bare = Taxonomy(names, classes, parents, terminals=())
    leaves = tuple(bare.ancestors(len(sizes) - 1, number) for number in range(sizes[-1]))
    return Outputs(Taxonomy(names, classes, parents, leaves))
