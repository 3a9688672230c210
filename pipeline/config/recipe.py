"""One recipe for all images: what a key is where nobody gives it, by what is known of the images and the weights.

The defaults of the schema are those for drawings (the embedded digits, IDX files): small, one thing in the middle, left
and right of different meaning. Two rules change them. What each gave on test, level accuracy in percent with the heap
(docs/RESULTS.md, "One recipe"), is written beside it; a key that a page or a word gives is as it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_PHOTO_SOURCES = ("folder", "csv", "hdf5", "packed")
"""Sources of files that people have taken; the others hold drawings."""
_NOISE = {
    "flip": None,
    "shift": 0.15,
    "zoom": 0.25,
    "rotate": 15.0,
    "operations": 1,
    "dropout": 0.2,
    "cutmix": 0.5,
    "cutmix_schedule": "constant",
}
_PRETRAINED_PX, _PHOTO_PX = 128, 64
_PRETRAINED_RATE = 0.001


@dataclass(frozen=True)
class Rule:
    """A key that follows from what is known."""

    key: str
    value: Any
    name: str
    """Name of the rule, as the origin of the value."""


def lay_under(page: dict[str, Any]) -> list[Rule]:
    """Add to a page what follows from it and is not given in it.

    Args:
        page: Keys and values as the schema wants them, changed in place. What is wrong in it is passed over here.

    Returns:
        What was added.
    """
    return [rule for rule in _rules(page) if _add(page, rule.key.split("."), rule.value)]


def _rules(page: Mapping[str, Any]) -> Iterator[Rule]:
    if _at(page, "data", "source") not in _PHOTO_SOURCES:
        return
    network, side = _pretrained_network(page), _at(page, "data", "image_size")
    # 300 labelled photos, from scratch: 56.9 -> 59.7, 57.0 -> 58.7 (seeds 0 and 1); the teacher 52.3 -> 57.7.
    for key, value in _NOISE.items():
        yield Rule(f"teacher.noise.{key}", value, "recipe for photos")
    # CIFAR-10 at 32 px: the teacher 71.4 -> 74.2, but a student from scratch 78.5 -> 76.4; it is only mirrored.
    small = network is None and isinstance(side, int) and side < _PHOTO_PX
    for key, value in ({"flip": None} if small else _NOISE | {"drop_path": 0.1}).items():
        yield Rule(f"student.noise.{key}", value, "recipe for photos")
    if network is None:
        yield Rule("data.image_size", _PHOTO_PX, "recipe for photos")
        return
    # Grocery, a quarter of the labels, ImageNet weights: 64 px 75.2, 128 px 80.4, with this noise and rate 83.1, and at
    # 224 px 85.3. 300 photos: 67.4, 72.3, 74.8 and 77.3. 224 px costs three times as much as 128: for a GPU.
    name = "recipe for pretrained networks"
    yield Rule("data.image_size", _PRETRAINED_PX, name)
    for section in ("teacher", "student"):
        yield Rule(f"{section}.learning_rate", _PRETRAINED_RATE, name)
    same = {key: network[key] for key in ("backbones", "backbone_options", "pretrained") if key in network}
    yield Rule("student.model", {**same, "head_width": 64}, name)


def _pretrained_network(page: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first member of the teacher that starts from weights, as it is written."""
    members = _at(page, "teacher", "members")
    for member in members if isinstance(members, list | tuple) else ():
        if isinstance(member, Mapping) and member.get("kind", "network") == "network" and member.get("pretrained"):
            return member
    return None


def _at(page: Any, *keys: str) -> Any:
    for key in keys:
        page = page.get(key) if isinstance(page, Mapping) else None
    return page


def _add(page: dict[str, Any], keys: list[str], value: Any) -> bool:
    """Whether the key was not there and could be added."""
    *groups, leaf = keys
    here = page
    for group in groups:
        below = here.get(group, {})
        if not isinstance(below, dict):
            return False
        here = below
    if leaf in here:
        return False
    here = page
    for group in groups:
        here = here.setdefault(group, {})
    here[leaf] = value
    return True
