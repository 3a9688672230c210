"""Trees for tests: of a wanted size, where only the number of outputs matters, or drawn at random."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st
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


@st.composite
def ragged_trees(draw: st.DrawFn) -> Taxonomy:
    """Trees of one to four levels whose labels end anywhere; every level has a class."""
    depth = draw(st.integers(1, 4))
    paths = draw(
        st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=depth), min_size=1, max_size=15, unique_by=tuple)
    )
    paths.append([0] * depth)
    labels = [tuple([f"{i}-{c}" for i, c in enumerate(path)] + ["-"] * (depth - len(path))) for path in paths]
    return Taxonomy.from_labels(labels, [f"level {i}" for i in range(depth)])
