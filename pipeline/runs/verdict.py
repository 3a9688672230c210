"""The last sentence of a run: whether the unlabelled images helped, by how much, and if not, why.

It speaks of points of level accuracy on test, of what is printed, rounded, and never of more than the interval allows.
"""

from __future__ import annotations

from collections.abc import Sequence

from nstudent.evaluation.scores import HEADLINE, Difference, Gap, HeapGain, Scores
from nstudent.runs.finding import Finding, Kind
from nstudent.runs.measured import Measured
from nstudent.runs.score_findings import FEWEST_DIFFERING

_REASONS: tuple[Kind, ...] = (
    "wrong labels",
    "other images",
    "filter weaker than the classifier it judges",
    "filter drops much",
    "classes gone",
    "few labels kept",
    "classes without labels",
    "still rising",
    "few unlabelled images",
    "labels alone are strong",
    "small validation",
)
"""Findings that can be the reason why a student that was trained does not help, the most likely first."""
_BEST = "the best that the labels alone gave"


def points(difference: Difference) -> str:
    """A difference and its interval in points, such as ``+1.4 points [0.6, 2.3]``."""
    value, low, high = (_tenths(share) / 10 for share in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points [{low:.1f}, {high:.1f}]" if value else f"0.0 points [{low:.1f}, {high:.1f}]"


def reason(found: Sequence[Finding]) -> Finding | None:
    """The most likely reason why a heap did not help; ``None`` if no finding is one."""
    return next((finding for kind in _REASONS for finding in found if finding.kind == kind), None)


def verdict(measured: Measured, found: Sequence[Finding]) -> str:
    """The last sentence of a run, and what follows from it.

    Args:
        measured: What the run measured.
        found: Its findings.
    """
    if measured.scored is None:
        return "The run has no scores yet: whether your unlabelled images help is not known."
    gain = measured.scored.heap_gain
    return _without_gain(measured) if gain is None else _by_gain(measured.scored, gain, found) + _refitted(measured)


def _by_gain(scores: Scores, gain: HeapGain, found: Sequence[Finding]) -> str:
    """The last sentence if the classifiers that saw the heap can be compared with those that did not."""
    if scores.final.name != gain.with_heap.name:
        return _labels_alone_final(gain, found)
    # Which of the classifiers without the heap is the best is known on test alone; a gain over a weaker one flatters.
    name, gap = gain.hardest
    difference, chosen = gap.difference[HEADLINE], gain.labels_alone.name
    best = _BEST if name == chosen else f"{_BEST} ({name}; on validation {chosen} was chosen)"
    if gap.differing >= FEWEST_DIFFERING and _tenths(difference.low) > 0:
        return f"Your unlabelled images helped: {points(difference)} over {best}."
    if _tenths(difference.value) > 0:
        return f"Your unlabelled images may have helped: {points(difference)} over {best}; {_doubt(gap)}."
    return f"Your unlabelled images did not help: {points(difference)} against {best}. {_why(found)}"


def _labels_alone_final(gain: HeapGain, found: Sequence[Finding]) -> str:
    """The last sentence if the classifier that was chosen on validation learnt nothing from the heap."""
    difference, name = gain.difference[HEADLINE], gain.labels_alone.name
    if gain.differing >= FEWEST_DIFFERING and _tenths(difference.low) > 0:
        return (
            f"Your unlabelled images are not in the final classifier: the one chosen on validation, {name}, is made "
            f"from the labels alone, but on test the best that saw them is better by {points(difference)}. "
            "Try: more validation images (data.validation)."
        )
    return (
        f"Your unlabelled images did not help: the classifier chosen on validation, {name}, is made from the labels "
        f"alone; on test the best that saw them differs from it by {points(difference)}. {_why(found)}"
    )


def _refitted(measured: Measured) -> str:
    """What the heap gave the classifier that a person takes home, where that is not the one that was chosen."""
    if measured.refit is None or measured.refit.gain is None:
        return ""
    return (
        f" In the classifier that the run gives, {measured.refit.final.name}, trained again on labels and validation "
        f"together, they are worth {points(measured.refit.gain[HEADLINE])} over {_BEST}, trained again in the same way."
    )


def _without_gain(measured: Measured) -> str:
    """The last sentence if no classifier that saw the heap can be compared."""
    scores = measured.scores
    given = f"The final classifier is made from the labels alone{_reached(scores)}."
    if not measured.labels:
        return f"No unlabelled image was used, because rounds is 0. {given}"
    if any(measured.rounds.get(part) for part in scores.final.parts):
        return (
            "Whether your unlabelled images helped is not known: every classifier made from the labels alone costs "
            "more than final.max_gmacs. Try: a smaller teacher, or a higher final.max_gmacs. "
            f"The final classifier learnt from them{_reached(scores)}."
        )
    if measured.students:
        return (
            "Your unlabelled images did not help: every classifier that saw them costs more than final.max_gmacs. Try: "
            f"a smaller student (student.model), or a higher final.max_gmacs. {given}"
        )
    if scores.ended:
        return f"Your unlabelled images did not help: {scores.ended.rstrip('.')}. {given}"
    return f"Your unlabelled images were not used: no student was trained. {given}"


def _reached(scores: Scores) -> str:
    reached = scores.final.test.get(HEADLINE)
    if reached is None:
        return ""
    value, low, high = (_tenths(share) / 10 for share in (reached.value, reached.low, reached.high))
    return f" and reaches {value:.1f}% [{low:.1f}, {high:.1f}] {HEADLINE} on test"


def _why(found: Sequence[Finding]) -> str:
    likely = reason(found)
    if likely is None:
        return "No measurement says why. Try: more unlabelled images, or a larger student (student.model)."
    sentence = f"Likely why: {likely.sentence[:1].lower()}{likely.sentence[1:]}"
    return f"{sentence} Try: {likely.remedy}." if likely.remedy else sentence


def _doubt(gap: Gap) -> str:
    if _tenths(gap.difference[HEADLINE].low) <= 0:
        return "the interval includes 0"
    return f"only {gap.differing} test images decide that"


def _tenths(share: float) -> int:
    """A share as it is shown, in tenths of a point."""
    return round(1000 * share)
