"""One finding of a run: a measurement that is worth a sentence, with its figures and what to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "nothing to learn from",
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
    "small test",
    "probabilities off",
    "answers too deep",
]

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was measured and is worth a sentence."""

    kind: Kind
    sentence: str
    """What was found, with its figures."""
    remedy: str
    """What to try, as words that can follow "Try: "; empty if there is nothing to do."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """The figures by name, shares as 0 to 1."""


def listed(names: Sequence[str]) -> str:
    """Some names as part of a sentence, the first of many."""
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
