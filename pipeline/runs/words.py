"""The words of a run in plain ones: for whoever reads a screen or a report and has never heard of pseudo-labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nstudent.evaluation.scores import HEADLINE, WHOLE_PATH

DOES: Mapping[str, str] = {
    "data": "reads and divides the images",
    "probe": "a quick regression on features of the labelled images",
    "teacher": "learns from the labelled images",
    "baseline": "the student's network, from the labelled images alone",
    "soup": "averages the weights of the teacher's networks",
    "choose": "takes the best classifier so far",
    "pseudolabel": "guesses labels of the unlabelled images",
    "filter": "decides which of these guesses are used",
    "student": "learns from the labels and from the guesses",
    "refit": "trains what was chosen again, on labels and validation together",
    "evaluate": "scores on the test images",
}
"""What each stage does, by its name."""

WOULD: Mapping[str, str] = {
    "done": "up to date",
    "partial": "goes on",
    "stale": "made again",
    "missing": "made",
    "perhaps": "perhaps made again",
    "refused": "refused: see below",
    "not needed": "not needed",
}
"""What a run that is made now does with a step, by the state of the step (``status.foreseen``)."""

_CLASSIFIERS: Mapping[str, str] = {
    "probe": "a quick regression on features of the images, as a yardstick",
    "teacher": "learnt from your labelled images; guesses labels of the others",
    "baseline": "the student's network, trained as long on your labels alone",
    "soup": "one network, with the averaged weights of the teacher's",
    "student": "learnt from your labels and from guessed labels of the others",
    "pool": "several of these, whose answers are averaged",
}
_SCORES: Mapping[str, str] = {
    HEADLINE: "the share of the levels of an image's label that are right",
    WHOLE_PATH: "the share of images whose whole label is right",
}
COSTS: Mapping[str, str] = {
    "GMACs": "billions of multiply-adds, the work of the networks",
    "image passes": "how often images were shown in training, all in all",
}
"""What the words of costs mean."""


def legend(names: Iterable[str], scores: Iterable[str]) -> dict[str, str]:
    """What the words of a table of classifiers mean: those that stand there, and no others.

    Args:
        names: Names of the classifiers: those of steps, such as ``02-teacher``, and of pools.
        scores: Names of the scores. If there is no other than the level accuracy, the classes have one level.
    """
    words, shown = " ".join(names), set(scores)
    found = {word: meaning for word, meaning in _CLASSIFIERS.items() if word in words}
    if shown.isdisjoint(_SCORES.keys() - {HEADLINE}):
        return found | {HEADLINE: "the share of images whose label is right"}
    return found | {word: meaning for word, meaning in _SCORES.items() if word in shown}
