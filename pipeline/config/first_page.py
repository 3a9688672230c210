"""The rules by which a first configuration file is proposed for somebody's images, and the text of the file.

The recipe (``recipe.py``) decides how networks are trained; this decides what only a look at the images and the machine
can tell:

- Network: for photos (half of the images have a shorter side of 64 px or more) with pretrained weights
  ``tf_efficientnet_lite0`` as teacher and student, and ``mobilenetv3_large_100`` as the teacher's second member if timm
  downloads the weights: two networks of one kind repeat each other's mistakes. A file holds the weights of one
  backbone, so that with a file both members are of it. Otherwise those of the defaults.
- Size: 32 px for small images, 64 px for photos, with weights 224 px. Of these the networks are trained on 128 px, on a
  GPU on all.
- Rounds: none if there are no unlabelled images.
- Length: that of the defaults. If a run would take more than twelve hours, the student's is shortened to fit, down to a
  third of it.
- Equal images with different labels, or in two splits of the source: those of train are left out.
- Images that cannot be read: a share of twice those that were met stops no run.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nstudent.config.file import check
from nstudent.config.recipe import PRETRAINED_NETWORK_PX, PRETRAINED_PX, lay_under
from nstudent.config.schema import Config
from nstudent.config.yaml_text import dump_flow
from nstudent.errors import one_line

PHOTO_SIDE_PX = 64
"""Images whose shorter side has so many pixels are taken for photos, for which pretrained weights are worth having."""
BACKBONE = "tf_efficientnet_lite0"
"""Small (0.4 GMACs at 224 px), without operations that export badly, and measured on photos."""
OTHER_BACKBONE = "mobilenetv3_large_100"
"""Network of another kind, as good on ImageNet, and cheaper (0.2 GMACs), so that no run takes longer for it."""
_SMALL_PX = 32
_LONGEST_SECONDS = 12 * 3600
_SHORTEST_SHARE = 1 / 3
_EPOCHS = 30
"""Epochs of a student of the defaults over a heap that is not small."""
_COMMENT_COLUMN = 40
_WIDTH = 100


@dataclass(frozen=True)
class Situation:
    """What the rules go by."""

    data: Mapping[str, Any]
    """Keys of the section `data` that say where the images are."""
    name: str
    """What the run may be called: any text."""
    side: int | None
    """Median of the shorter sides of the images, in pixels; ``None`` if none could be read."""
    unlabelled: int
    """Number of unlabelled images."""
    weights: bool | str
    """Pretrained weights: the path of a file, ``True`` for those that timm downloads, or ``False``."""
    has_gpu: bool = False
    opened: int = 0
    unreadable: int = 0
    """Number of images that could not be read, of those that were opened."""
    contradictions: int = 0
    """Pairs of equal images with different labels."""
    leaks: int = 0
    """Pairs of equal images in different splits of the source."""


@dataclass(frozen=True)
class Entry:
    """A key of the proposed file."""

    key: str
    value: Any
    why: str = ""


def wants_weights(side: int | None) -> bool:
    """Whether images of this size are photos, as far as their size can tell."""
    return side is not None and side >= PHOTO_SIDE_PX


def propose(situation: Situation) -> list[Entry]:
    """The keys of a first configuration, in the order of the file, with the reason of each."""
    return [
        Entry("name", _name(situation.name), "the folder of the run is runs/NAME"),
        *_data(situation),
        *([] if situation.unlabelled else [Entry("rounds", 0, "there are no unlabelled images")]),
        *(_pretrained(situation) if situation.weights else []),
    ]


def shortened(entries: Sequence[Entry], student_seconds: float, seconds: float) -> list[Entry]:
    """The same, with a shorter student if the run would take too long.

    Args:
        entries: What ``propose`` gives.
        student_seconds: Time of the trainings that are as long as the student's.
        seconds: Time of the whole run.
    """
    too_much = seconds - _LONGEST_SECONDS
    if too_much <= 0 or student_seconds <= 0:
        return list(entries)
    share = max(_SHORTEST_SHARE, 1 - too_much / student_seconds)
    whole = next((each.value for each in entries if each.key == "student.epochs"), _EPOCHS)
    why = f"{whole} would take {seconds / 3600:.0f} hours here; more is better"
    others = [each for each in entries if each.key != "student.epochs"]
    return [*others, Entry("student.epochs", max(1, round(whole * share)), why)]


def configured(entries: Sequence[Entry]) -> Config:
    """The configuration that these keys give.

    Raises:
        ConfigError: One of them cannot be used.
    """
    page: dict[str, Any] = {}
    for entry in entries:
        *groups, leaf = entry.key.split(".")
        here = page
        for group in groups:
            here = here.setdefault(group, {})
        here[leaf] = entry.value
    lay_under(page)
    return check(page, "the proposal")


def as_text(entries: Sequence[Entry], head: Sequence[str]) -> str:
    """The file: comment lines, then the keys in groups, each with its reason."""
    lines = [*(f"# {one_line(line)}" for line in head), ""]
    seen: list[str] = []
    for entry in sorted(entries, key=lambda each: _group_order(entries, each)):
        *groups, leaf = entry.key.split(".")
        shared = next(
            (i for i, (a, b) in enumerate(zip(groups, seen, strict=False)) if a != b), min(len(groups), len(seen))
        )
        lines += [f"{'  ' * depth}{groups[depth]}:" for depth in range(shared, len(groups))]
        seen = groups
        lines += _written(entry, leaf, "  " * len(groups))
    return "\n".join(lines) + "\n"


def _group_order(entries: Sequence[Entry], entry: Entry) -> tuple[int, int]:
    """Keys without a group first, then group by group as they come."""
    groups = list(dict.fromkeys(each.key.rpartition(".")[0] for each in entries))
    top = list(dict.fromkeys(each.key.split(".")[0] for each in entries if "." in each.key))
    first = entry.key.split(".")[0]
    return (top.index(first) + 1 if first in top else 0, groups.index(entry.key.rpartition(".")[0]))


def _written(entry: Entry, leaf: str, indent: str) -> list[str]:
    if isinstance(entry.value, list) and any(isinstance(each, dict) for each in entry.value):
        items = [f"{indent}  - {dump_flow(each)}" for each in entry.value]
        return [*_explained(f"{indent}{leaf}:", entry.why, indent), *items]
    return _explained(f"{indent}{leaf}: {dump_flow(entry.value)}", entry.why, indent)


def _explained(line: str, why: str, indent: str) -> list[str]:
    """A line with its reason behind it, or above it where there is no room."""
    if not why:
        return [line]
    if len(line) > _COMMENT_COLUMN or _COMMENT_COLUMN + len(why) > _WIDTH:
        return [*(f"{indent}# {part}" for part in textwrap.wrap(why, _WIDTH)), line]
    return [f"{line:<{_COMMENT_COLUMN}}  # {why}"]


def _name(text: str) -> str:
    """A name that a run may have."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "mine"


def _data(situation: Situation) -> list[Entry]:
    reasons = {
        "unlabelled_root": "unlabelled images, at any depth",
        "root": "relative to where the command is run",
        "levels": "columns of the table with the classes, coarse first"
        if situation.data["source"] == "csv"
        else "coarse first; of so many levels the names are yours to choose",
        "path_column": "column of the table with the paths",
        "split_column": "column of the table with the splits",
        "class_paths": "names of the classes 0, 1, ... in this order: write your own",
    }
    found = [Entry(f"data.{key}", value, reasons.get(key, "")) for key, value in situation.data.items()]
    found.append(Entry("data.image_size", *_size(situation)))
    if situation.contradictions:
        why = f"{situation.contradictions} pairs of equal images have different labels"
        found.append(Entry("data.conflicting_labels", "drop", why))
    if situation.leaks:
        found.append(Entry("data.duplicates", "drop", f"{situation.leaks} images lie in two of your splits"))
    if situation.unreadable > 2:
        share = min(1.0, round(2 * situation.unreadable / max(1, situation.opened), 4))
        why = f"{situation.unreadable} of {situation.opened} images that were opened cannot be read"
        found.append(Entry("data.max_bad_share", share, why))
    return found


def _size(situation: Situation) -> tuple[int, str]:
    seen = "side of what the networks see, in pixels"
    if not wants_weights(situation.side):
        return _SMALL_PX, f"{seen}; your images are small"
    if situation.weights and situation.has_gpu:
        return PRETRAINED_PX, f"{seen}; 128 takes a third of the time and sees less"
    if situation.weights:
        return PRETRAINED_PX, "side of what is kept of an image, in pixels; networks may see less"
    return PHOTO_SIDE_PX, f"{seen}; 128 shows finer details, in 4 times the time"


def _pretrained(situation: Situation) -> list[Entry]:
    weights = situation.weights
    where = "ImageNet weights; true: timm downloads them once" if weights is True else "ImageNet weights from this file"
    second = OTHER_BACKBONE if weights is True else BACKBONE
    networks: list[dict[str, Any]] = [{"backbones": [name], "pretrained": weights} for name in (BACKBONE, second)]
    if wants_weights(situation.side) and not situation.has_gpu:
        networks = [{**network, "image_size": PRETRAINED_NETWORK_PX} for network in networks]
        where += f"; without image_size the networks see all {PRETRAINED_PX} px, in 3 times the time: for a GPU"
    return [Entry("teacher.members", networks, where)]
