"""How often labels are wrong, and how probable it is that one of them is right.

If a classifier finds a label improbable, the label is wrong, or the classifier knows too little. Which of the two is
likelier depends on how often labels are wrong at all. That is read from the images whose class the classifier is surest
of (the anchor points of Patrini et al., arXiv 1609.03683, section 4.2): a label that contradicts it there is counted as
wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.labels.evidence import Distribution, in_parts

_ONE_ANCHOR_IN = 10
"""Number of images, said to be of one class by the classifier, of which the one that it is surest of is an anchor."""
_SMALLEST = 1e-9


@dataclass(frozen=True, eq=False)
class WrongLabels:
    """Which label an image of each class is given, at one level."""

    given_of_true: npt.NDArray[np.float64]
    """Probability of each label, in columns, for an image of each class, in rows: (classes, classes)."""

    @classmethod
    def fit(cls, said: Distribution, given: npt.NDArray[np.int32]) -> WrongLabels:
        """Estimate it from labels, and what a classifier says of their images.

        Wrong labels are as frequent in every class. What they say is taken from the classes that the classifier finds
        probable for images with each label.

        Args:
            said: (images, classes), by a classifier that was not fitted to the labels of these images, or not by much.
            given: The labels, (images,).
        """
        classes = said.shape[1]
        seen, sure = said.argmax(axis=1), said.max(axis=1)
        anchors = contradicted = 0
        for each in range(classes):
            rows = np.flatnonzero(seen == each)
            surest = rows[np.argsort(-sure[rows], kind="stable")][: math.ceil(len(rows) / _ONE_ANCHOR_IN)]
            anchors += len(surest)
            contradicted += int((given[surest] != each).sum())
        # Laplace's rule of succession: that none of ten labels is wrong does not say that none ever is.
        wrong = (contradicted + 1) / (anchors + 2)
        mass = np.zeros((classes, classes))
        for part in in_parts(*said.shape):
            np.add.at(mass.T, given[part], said[part])
        np.fill_diagonal(mass, 0.0)
        mass += _SMALLEST * (1 - np.eye(classes))
        others = mass / np.maximum(mass.sum(axis=1, keepdims=True), _SMALLEST)
        return cls((1 - wrong) * np.eye(classes) + wrong * others)

    def right(self, said: Distribution, given: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """The probability that each label is right, (images,), by Bayes' theorem.

        Args:
            said: (images, classes).
            given: The labels, (images,).
        """
        right = np.empty(len(given))
        for part in in_parts(*said.shape):
            labels = given[part]
            as_given = said[part] * self.given_of_true[:, labels].T
            of_label = as_given[np.arange(len(labels)), labels]
            right[part] = of_label / np.maximum(as_given.sum(axis=1), _SMALLEST)
        return right
