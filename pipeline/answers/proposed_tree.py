"""A tree proposed for classes that have none: from what is taken for what, or from what WordNet says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nstudent.classifier import final_step
from nstudent.config.members import ProbeConfig
from nstudent.config.rules import probe_members
from nstudent.config.schema import Config
from nstudent.data.curation.given_labels import taxonomy_of
from nstudent.data.dataset import Dataset
from nstudent.data.sources import catalogue_of, open_source
from nstudent.errors import ArtifactError, DataError
from nstudent.evaluation.confusion import Confusion, confusion_of, proposed_groups, quick_confusion
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.probe import build_features
from nstudent.progress import Progress
from nstudent.runs.finding import listed
from nstudent.runs.kept_config import kept_config, with_paths_found
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.taxonomy.proposal import Group, check_sizes, page_of
from nstudent.taxonomy.wordnet import WordNet, described, kinds_of, proposed_kinds

_FEW = 10
"""Held-out images a class below which a line says that a confusion rests on little."""
_RIGHT = 0.3
"""Share of right answers below which a line says that a confusion shows little but chance."""
_HOW = (
    "Each line is a group or a class, and what stands below it is in it. Rename groups, move lines, leave groups out;",
    "classes keep their names, and all stand at the same depth. Then run with data.taxonomy=THIS FILE.",
)


@dataclass(frozen=True)
class ProposedTree:
    """A tree, and what it rests on."""

    groups: tuple[Group, ...]
    origin: str
    """A sentence on where it comes from."""
    doubts: tuple[str, ...] = ()
    """Sentences on what a person should look at."""

    @property
    def page(self) -> str:
        """The tree as a page of YAML, with all of this in comments."""
        return page_of(self.groups, [self.origin, *self.doubts, *_HOW])

    @property
    def sizes(self) -> list[int]:
        """Number of groups or classes of each level, coarse first."""
        levels: list[int] = []
        here = list(self.groups)
        while here:
            levels.append(len(here))
            here = [below for each in here for below in each.below]
        return levels


def tree_from_run(run_dir: Path, sizes: Sequence[int], progress: Progress) -> ProposedTree:
    """A tree of the classes that the classifier of a run takes for each other on the validation images.

    Args:
        run_dir: A run that has a classifier.
        sizes: Number of groups of each level above the classes, coarse first; none: one level of a number that fits.
        progress: Told how far it is.

    Raises:
        ArtifactError: The folder holds no classifier, or not the images of its run.
        DataError: There are too few classes or images, or no tree with these numbers of groups.
    """
    final, config = final_step(run_dir), with_paths_found(kept_config(run_dir), run_dir)
    step = next((run_dir / name for name in sorted(final.manifest.inputs) if _is_data(run_dir / name)), None)
    if step is None:
        raise ArtifactError(f"{run_dir} holds no images: leave --run out, and name the data of the run instead")
    dataset = Dataset(Artifact(step), config.data)
    check_sizes(sizes, dataset.taxonomy.num_classes[-1])
    confusion = confusion_of(Ensemble.load(final, Placement.from_config(config)), dataset, progress)
    return _of_confusion(confusion, sizes, config.seed, f"the classifier of {run_dir.name}")


def tree_from_labels(config: Config, data: Path, sizes: Sequence[int], progress: Progress) -> ProposedTree:
    """A tree of the classes that a quick regression takes for each other, on labelled images that it has not seen.

    The regression is that of the run's probe; ``sizes`` and ``progress`` are as of ``tree_from_run``.

    Args:
        config: The configuration of the run.
        data: Its data step.
        sizes: As of ``tree_from_run``.
        progress: As of ``tree_from_run``.

    Raises:
        ConfigError: The backbone of the probe cannot be built.
        DataError: There are too few classes or images, or no tree with these numbers of groups.
    """
    dataset, placement = Dataset(Artifact(data), config.data), Placement.from_config(config)
    check_sizes(sizes, dataset.taxonomy.num_classes[-1])
    settings = next((each for each in probe_members(config) if isinstance(each, ProbeConfig)), ProbeConfig())
    features = build_features(settings)
    placement.put(features)
    confusion = quick_confusion(dataset, features, placement, (config.seed, "taxonomy"), progress)
    what = " + ".join(settings.backbones) if settings.features != "gradients" else "gradient histograms"
    return _of_confusion(confusion, sizes, config.seed, f"a five-fold kernel ridge regression on {what}")


def _is_data(folder: Path) -> bool:
    return folder.is_dir() and Manifest.read(folder).role == "data"


def _of_confusion(confusion: Confusion, sizes: Sequence[int], seed: int, whose: str) -> ProposedTree:
    groups = proposed_groups(confusion, sizes, (seed, "taxonomy"))
    doubts = []
    if confusion.images < _FEW * len(confusion.names):
        doubts.append(
            f"It rests on {confusion.images} images of {len(confusion.names)} classes: look at each, or label more."
        )
    if confusion.without:
        doubts.append(f"Add these classes by hand, because no held-out image shows them: {listed(confusion.without)}.")
    if confusion.right < _RIGHT:
        doubts.append(
            f"Only {confusion.right:.0%} are right, so that most of these groups are chance: take pretrained features "
            "(probe.members with backbones and pretrained), or the classifier of a run (--run)."
        )
    origin = (
        f"Proposed from the classes that {whose} confuses: {confusion.images} held-out images, of which "
        f"{confusion.right:.0%} are right (mean over the classes)."
    )
    return ProposedTree(groups, origin, tuple(doubts))


def tree_from_wordnet(config: Config, folder: Path, sizes: Sequence[int]) -> ProposedTree:
    """A tree of what the classes of a source are kinds of. No image is opened.

    Args:
        config: Names the source; its finest classes are nouns or synsets.
        folder: Folder of a WordNet database.
        sizes: Number of groups of each level above the classes, coarse first; none: one, of about as many groups as
            each then has classes.

    Raises:
        DataError: The source or the database cannot be read, WordNet knows too few of the classes, or there is no tree
            with these numbers of groups.
    """
    names = list(
        dict.fromkeys(taxonomy_of(catalogue_of(open_source(config.data), config.data), config.data).classes[-1])
    )
    wordnet = WordNet(folder)
    found = {name: meanings for name in names if (meanings := wordnet.find(name))}
    unknown = [name for name in names if name not in found]
    if len(found) < 3:
        raise DataError(
            f"WordNet knows {len(found)} of {len(names)} classes (not {listed(unknown)}): call them by nouns, or by "
            "synsets such as dog.n.01 or n02084071"
        )
    check_sizes(sizes, len(found))
    notes = {}
    for name, meanings in found.items():
        others = f"; or {', '.join(wordnet.name_of(each) for each in meanings[1:])}" if len(meanings) > 1 else ""
        notes[name] = described(wordnet, meanings[0]) + others
    tree = kinds_of(wordnet, {name: meanings[0] for name, meanings in found.items()})
    groups = proposed_kinds(tree, sizes or [max(2, round(len(found) ** 0.5))], notes)
    doubts = []
    ambiguous = sum(len(meanings) > 1 for meanings in found.values())
    if ambiguous:
        doubts.append(
            f"{ambiguous} classes have several meanings: the most frequent one was taken, the others follow it."
        )
    if unknown:
        doubts.append(f"Add these classes by hand, because WordNet does not know them: {listed(unknown)}.")
    return ProposedTree(groups, f"Proposed from WordNet ({folder}) for {len(found)} classes.", tuple(doubts))
