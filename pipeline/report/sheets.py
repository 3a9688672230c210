"""Contact sheets: the images of a run that are worth a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.data.curation.split import TEST
from nstudent.data.dataset import OK, UNREADABLE, Ids
from nstudent.report.limits import Limits
from nstudent.report.material import Material, Round
from nstudent.report.pictures import Pictures
from nstudent.taxonomy.tree import UNKNOWN

Confidence = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """One image of a contact sheet."""

    uri: str | None
    """The picture; ``None`` if it cannot be shown."""
    name: str
    lines: tuple[str, ...]
    """What is said of it."""


@dataclass(frozen=True)
class Sheet:
    """Images that have something in common."""

    title: str
    about: str
    """What they are, and in which order."""
    pictures: tuple[Picture, ...]
    total: int
    """Number of images of this kind in the run, shown or not."""


def sheets(material: Material, pictures: Pictures, limits: Limits) -> list[Sheet]:
    """All contact sheets of a run; one without an image says so by its number."""
    maker = _Maker(material, pictures, limits.pictures)
    found = [maker.mistakes()] if material.has_scores else []
    if material.rounds:
        found += [maker.doubtful(material.rounds[-1]), maker.dropped(), maker.changed()]
    return [*found, maker.left_out()]


@dataclass(frozen=True)
class _Maker:
    """Makes the sheets of one run."""

    material: Material
    pictures: Pictures
    most: int

    def mistakes(self) -> Sheet:
        """The most confident mistakes of the final classifier on images that it has not learnt from."""
        final = self.material.final
        wrong = (final.paths != final.truth) & (final.truth != UNKNOWN)
        rows = np.flatnonzero(wrong.any(axis=1))
        # Where the label ends too early there is no class to be sure of: the last one that is named counts.
        at = np.maximum(np.minimum(wrong[rows].argmax(axis=1), (final.paths[rows] >= 0).sum(axis=1) - 1), 0)
        sure = final.confidence[rows, at]
        shown = np.argsort(-sure, kind="stable")[: self.most]
        found = [self._mistake(int(rows[i]), float(sure[i])) for i in shown]
        about = (
            "Test and validation images with a wrong label, the surest first. Some may be labelled wrongly by people."
        )
        return Sheet("Most confident mistakes", about, tuple(found), len(rows))

    def _mistake(self, row: int, sure: float) -> Picture:
        final, images = self.material.final, self.material.images
        split = "test" if final.split[row] == TEST else "validation"
        lines = (
            f"is {images.path(final.truth[row])}",
            f"taken for {images.path(final.paths[row])} ({100 * sure:.0f} %)",
            split,
        )
        return self._picture(int(final.images[row]), lines)

    def doubtful(self, last: Round) -> Sheet:
        """The unlabelled images whose labels are the least sure."""
        sure = np.concatenate([_deepest(part.paths, part.confidence) for part in last.made.labels.parts()])
        rows = np.argsort(sure, kind="stable")[: self.most]
        about = "The least sure labels of the last round. To label some of these images by hand teaches most."
        return Sheet("Most doubtful unlabelled images", about, self._heap(last, rows), len(sure))

    def dropped(self) -> Sheet:
        """Labels that a filter did not leave, the surest first, of all rounds."""
        found: list[Picture] = []
        total = 0
        for each in self.material.rounds:
            if each.filtered is None:
                continue
            rows = np.flatnonzero((each.made.keep & ~each.filtered.keep).any(axis=1))
            sure = each.made.labels.confidence[rows, 0]
            total += len(rows)
            found += self._heap(each, rows[np.argsort(-sure, kind="stable")][: self.most - len(found)])
        about = "Unlabelled images of whose label the filter doubts some level, the surest first."
        return Sheet("Dropped by the filter", about, tuple(found), total)

    def changed(self) -> Sheet:
        """Images whose label in the last round is another one than in the round before."""
        about = "Unlabelled images that the last round labels otherwise than the round before, the surest first."
        if len(self.material.rounds) < 2:
            return Sheet("Changed between rounds", "This run has one round of labels.", (), 0)
        before, after = (each.made.labels for each in self.material.rounds[-2:])
        if not np.array_equal(before.images, after.images):
            return Sheet("Changed between rounds", "The rounds label other images.", (), 0)
        old, new, sure = before.paths, after.paths, after.confidence
        rows = np.flatnonzero((old != new).any(axis=1))
        shown = rows[np.argsort(-_deepest(new[rows], sure[rows]), kind="stable")][: self.most]
        images = self.material.images
        found = [
            self._picture(
                int(after.images[row]),
                (
                    f"was {images.path(old[row])}",
                    f"is now {self._said(new[row], sure[row])}",
                    *self._truth(int(after.images[row])),
                ),
            )
            for row in shown.tolist()
        ]
        return Sheet("Changed between rounds", about, tuple(found), len(rows))

    def left_out(self) -> Sheet:
        """Images that the data step does not use, and why."""
        images = self.material.images
        ids = np.flatnonzero(images.status != OK)
        # Both are in the order of the ids.
        reasons = [str(entry.get("reason", "")) for entry in images.left_out]
        found = [
            self._picture(int(image), (reason,), visible=bool(images.status[image] != UNREADABLE))
            for image, reason in zip(ids[: self.most].tolist(), reasons, strict=False)
        ]
        return Sheet("Left out", "Images that are not used, and why.", tuple(found), len(ids))

    def _heap(self, each: Round, rows: Ids) -> tuple[Picture, ...]:
        store = each.made.labels
        confidence, found = store.confidence, []
        for row, path in zip(rows.tolist(), store.path_rows[rows], strict=True):
            image = int(store.images[row])
            lines = (f"labelled {self._said(path, confidence[row])}", *self._truth(image))
            found.append(self._picture(image, lines))
        return tuple(found)

    def _truth(self, image: int) -> tuple[str, ...]:
        """The true label of an unlabelled image, where the source knew it."""
        truth = self.material.images.truth[image]
        return () if (truth == UNKNOWN).all() else (f"is {self.material.images.path(truth)}",)

    def _said(self, path: Sequence[int] | npt.NDArray[np.int32], confidence: Confidence) -> str:
        """A label with the probability of its deepest class."""
        named = int((np.asarray(path) >= 0).sum())
        share = confidence[named - 1] if named else 0.0
        return f"{self.material.images.path(path)} ({100 * share:.0f} %)"

    def _picture(self, image: int, lines: tuple[str, ...], *, visible: bool = True) -> Picture:
        return Picture(self.pictures.uri(image) if visible else None, self.material.images.name(image), lines)


def _deepest(paths: npt.NDArray[np.int32], confidence: Confidence) -> Confidence:
    """Probability of the deepest class that each path names, (rows,); 0 where it names none."""
    depth = (paths >= 0).sum(axis=1)
    found: Confidence = np.where(depth > 0, confidence[np.arange(len(paths)), np.maximum(depth - 1, 0)], np.float32(0))
    return found
