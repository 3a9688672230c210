"""What a filter has found and done, in words for the screen."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from nstudent.config.pseudolabel import PseudolabelConfig
from nstudent.runs.finding import listed
from nstudent.runs.step_metrics import FilterMetrics, LabelMetrics


def nothing_to_learn(made: LabelMetrics, config: PseudolabelConfig) -> str:
    """Why no student can be trained where no pseudo-label is left, and what to do.

    Args:
        made: Of the labels that were filtered.
        config: How they were made.
    """
    return (
        f"no pseudo-label was kept: of {made.labelled_images} images the surest has confidence "
        f"{made.highest_confidence:.2f} and pseudolabel.threshold is {config.threshold}: "
        "lower it, or train the teacher longer"
    )


def in_words(metrics: FilterMetrics, before: npt.NDArray[np.bool_]) -> Iterator[str]:
    """Say what a filter has found, a line each.

    Args:
        metrics: What it has found.
        before: Which pseudo-labels were kept before it, (images, levels).
    """
    if metrics.ended:
        yield metrics.ended
    yield from metrics.refused
    if metrics.validation is None or metrics.labeller_validation is None:
        return
    if metrics.validation < metrics.labeller_validation:
        yield (
            "the filter network is weaker on validation than the classifier whose labels it judges "
            f"({100 * metrics.validation:.1f} and {100 * metrics.labeller_validation:.1f})"
        )
    counts = zip(metrics.dropped.items(), before.sum(axis=0).tolist(), strict=True)
    if any(metrics.dropped.values()):
        said = ", ".join(f"{level} {dropped:,} of {had:,}" for (level, dropped), had in counts)
        yield f"pseudo-labels dropped: {said}"
    if metrics.given_error_rate is not None:
        said = ", ".join(f"{level} {rate:.1%}" for level, rate in metrics.given_error_rate.items())
        yield f"given labels that seem to be wrong: {said}"
    if any(metrics.dropped_given.values()):
        said = ", ".join(f"{level} {dropped:,}" for level, dropped in metrics.dropped_given.items())
        yield f"given labels dropped: {said}"
    if metrics.classes_gone:
        yield f"classes that no pseudo-label names any more: {listed(metrics.classes_gone)}"
