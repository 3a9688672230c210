"""What a look at somebody's images has shown, in lines of at most 80 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from nstudent.cli.console import found_in_words, print_line
from nstudent.data.sources.listing import summary_of
from nstudent.data.survey import FEW, LevelCounts, Survey
from nstudent.errors import one_line

_WIDTH = 80
_MOST_CLASSES = 12
"""Classes of a level that are all listed; of more, the largest and the smallest."""
_MOST_NAMED = 5
_FEW_A_CLASS = 10
_FEW_TO_CHOOSE_BY = 100
_KNOWN = 25
"""Points either way from which on a score is not worth its figure."""
_HELD_OUT = ("validation", "test")
_USES = {
    "train": "to train on",
    "validation": "to choose by (validation)",
    "test": "to test on",
    "unlabelled": "unlabelled",
}


def print_survey(found: Survey) -> None:
    """Print what a source holds, and then what is worth knowing of it."""
    _print(f"{_number(found.images, 'image')}, {found.labelled:,} of them with a label")
    if found.sample.side is not None:
        _print(f"size: half of them have {found.sample.side} px or more on their shorter side", "  ")
    for level in found.levels:
        _print(_level(level), "  ")
        _print(_classes(level.images), "    ")
    if found.splits:
        used = ", ".join(f"{found.splits[name]:,} {use}" for name, use in _USES.items())
        _print(f"divided ({_divided(found)}): {used}", "  ")
    remarks = list(_remarks(found))
    if remarks:
        print_line("worth knowing:")
    for remark in remarks:
        _print(remark, "  - ", "    ")


def _divided(found: Survey) -> str:
    """Who said which images are held out: the source, or nobody, so that a run draws them from the labelled ones."""
    given = [name for name in _HELD_OUT if name in found.given_splits]
    if not given:
        return "drawn"
    drawn = [name for name in _HELD_OUT if name not in found.given_splits and found.splits[name]]
    return "as your folders or columns say" + (f", {drawn[0]} drawn" if drawn else "")


def _level(level: LevelCounts) -> str:
    said = f"level {one_line(level.level)}: {_number(len(level.images), 'class', 'classes')}"
    if level.absent:
        said += f", {_number(level.absent, 'label')} {'ends' if level.absent == 1 else 'end'} above it"
    if level.unknown:
        said += f", {_number(level.unknown, 'image')} without a label there"
    return said


def _classes(images: Mapping[str, int]) -> str:
    """Classes with their numbers of images, the largest first."""
    ordered = sorted(images.items(), key=lambda each: -each[1])
    if len(ordered) <= _MOST_CLASSES:
        return ", ".join(_counted(*each) for each in ordered)
    half = _MOST_CLASSES // 2
    first, last = (", ".join(_counted(*each) for each in part) for part in (ordered[:half], ordered[-half:]))
    return f"{first}, ... {last}"


def _counted(name: str, images: int) -> str:
    return f"{one_line(name)} {images:,}"


def _remarks(found: Survey) -> Iterator[str]:
    yield from map(one_line, found.notes)
    if found.passed_over:
        names = [each.name for each in found.passed_over]
        yield f"files that are not taken: {summary_of(found.passed_over)} ({_some(names)})"
    if found.sample.unreadable:
        wrong = [f"{name}: {reason}" for name, reason in found.sample.unreadable.items()]
        yield f"{len(wrong)} of {found.sample.opened:,} images that were opened cannot be read ({_some(wrong)})"
    if found.sample.opened < found.images:
        yield f"{found.sample.opened:,} of {found.images:,} images were opened; a run opens all of them"
    yield from _equal(found)
    yield from _few(found)


def _equal(found: Survey) -> Iterator[str]:
    if found.copies > 0:
        yield f"{_number(found.copies, 'image')} {'is a copy' if found.copies == 1 else 'are copies'} of others"
    if found.copies < 0:
        yield "copies were not looked for: there are too many images to read for it"
    for pairs, what in (
        (found.contradictions, "equal images with different labels"),
        (found.leaks, "equal images in different splits"),
    ):
        if pairs:
            yield f"{what}: {_some(f'{a} and {b}' for a, b in pairs)}"


def _few(found: Survey) -> Iterator[str]:
    if found.no_splits:
        yield f"a run cannot divide the images: {found.no_splits}"
    if found.rare:
        yield f"{_number(len(found.rare), 'class', 'classes')} with fewer than {FEW} images: {_some(found.rare)}"
    if found.few_validation:
        yield f"validation has few images of some classes: {found.few_validation}; a larger data.validation tells more"
    if odd := found_in_words(found.findings):
        yield ", ".join(odd)
    ends = max((len(level.images) for level in found.levels), default=0)
    train, unlabelled = found.splits.get("train", found.labelled), found.splits.get("unlabelled", 0)
    if ends and train < _FEW_A_CLASS * ends:
        yield f"{train / ends:.1f} images a class to train on are few: ten or more are better"
    for part, what in zip(_HELD_OUT, ("choose the best classifier by", "test it on"), strict=True):
        images = found.splits.get(part, 0)
        if 0 < images < _FEW_TO_CHOOSE_BY:
            spread = 100 * 1.96 * math.sqrt(0.25 / images)
            be = "is" if images == 1 else "are"
            known = f"a score of 50 % is known to ±{spread:.0f} points" if spread < _KNOWN else "a score says little"
            yield f"{_number(images, 'image')} to {what} {be} few: {known} then"
    if found.splits and not unlabelled:
        yield "there are no unlabelled images: a run can train on the labels alone (rounds: 0)"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _MOST_NAMED:,} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(map(one_line, listed[:_MOST_NAMED])) + more


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _print(text: str, start: str = "", further: str | None = None) -> None:
    wrapper = textwrap.TextWrapper(_WIDTH, start, further or start + "  ", break_on_hyphens=False)
    for line in wrapper.wrap(text):
        print_line(line)
