"""The usual names of splits, in folders and in tables, in any spelling: ``val``, ``Valid``, ``training_set``."""

import re
from collections.abc import Iterable

from nstudent.data.sources.source import Split
from nstudent.taxonomy.spelling import alike

_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val", "dev", "development", "devel"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("unlabelled", "unlabeled", "unlabel", "unsup", "unsupervised"), "unlabelled"),
}
_AMBIGUOUS = {
    **dict.fromkeys(("eval", "evaluation", "holdout", "heldout"), "validation or test"),
    **dict.fromkeys(("trainval", "trainvalid", "traintest", "trainvaltest"), "train"),
}
"""Names that say a split, and not which; the names that they could be given."""
_AFFIX = re.compile("(set|data|dataset|images?|imgs?|pictures?|photos?|split|files|folder)$")


def split_named(name: str) -> Split | None:
    """The split that a name says, or ``None``."""
    return next((_WORDS[word] for word in _words(name) if word in _WORDS), None)


def ambiguous_split(name: str) -> str | None:
    """Names that a folder or value which says a split, and not which, could be given; ``None``: it says none."""
    return next((_AMBIGUOUS[word] for word in _words(name) if word in _AMBIGUOUS), None)


def says_split(name: str) -> bool:
    """Whether a name says a split, be it clear which or not."""
    return split_named(name) is not None or ambiguous_split(name) is not None


def says_membership(name: str) -> bool:
    """Whether a name asks of each image if it is in a split: ``is_valid``, ``in test``, ``isTrain``."""
    words = re.sub("(?<=[a-z])(?=[A-Z])", " ", name).split("_")
    first, *rest = [word for part in words for word in _parts(part)] or [""]
    if not rest and first[:2] in ("is", "in"):
        first, rest = first[:2], [first[2:]]
    return first in ("is", "in", "for", "use") and bool(rest) and says_split("".join(rest))


def all_say_splits(names: Iterable[str]) -> bool:
    """Whether there are names and each says a split."""
    listed = list(names)
    return bool(listed) and all(says_split(name) for name in listed)


def split_in(name: str) -> Split | None:
    """The split that one of the words of a name says, or ``None``."""
    return next((_WORDS[word] for word in _parts(name) if word in _WORDS), None)


def paired(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that differ in the split which one of their words says (``seg_train``, ``seg_test``), one of train.

    A name alone says nothing: ``freight_train`` and ``test_tube`` are classes.
    """
    rests: dict[tuple[str, ...], dict[Split, str]] = {}
    for name in names:
        split = split_in(name)
        if split is not None and split_named(name) is None:
            rest = tuple("*" if word in _WORDS else word for word in _parts(name))
            rests.setdefault(rest, {}).setdefault(split, name)
    for found in rests.values():
        others = [name for split, name in found.items() if split != "train"]
        if "train" in found and others:
            return found["train"], others[0]
    return None


def _parts(name: str) -> list[str]:
    return re.findall(r"[^\W_\d]+", alike(name))


def _words(name: str) -> tuple[str, str, str]:
    """A name without case, blanks and marks; without digits at its end; and without a word such as ``set`` there."""
    word = "".join(c for c in alike(name) if c.isalnum())
    bare = word.rstrip("0123456789")
    return word, bare, _AFFIX.sub("", bare)
