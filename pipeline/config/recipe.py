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
_PHOTO_PX = 64
PRETRAINED_PX, PRETRAINED_NETWORK_PX = 224, 128
"""Side of the images, which frozen features are taken of, and of what networks are trained on."""
_PRETRAINED_RATE = 0.001
_SAME_FOR_THE_STUDENT = ("backbones", "backbone_options", "pretrained", "image_size")


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
    # 224 px 85.3. 300 photos: 67.4, 72.3, 74.8 and 77.3. To train a network at 224 px costs three times as much as at
    # 128: for a GPU. A probe enlarges smaller squares to 224 px anyway; alone, of 300 photos: 66.0 from squares of 64
    # px and 73.3 from squares of 128.
    name = "recipe for pretrained networks"
    same = {key: network[key] for key in _SAME_FOR_THE_STUDENT if key in network}
    if side is None:
        yield Rule("data.image_size", PRETRAINED_PX, name)
        yield from _smaller_networks(page, name)
        same = {"image_size": PRETRAINED_NETWORK_PX, **same}
    for section in ("teacher", "student"):
        yield Rule(f"{section}.learning_rate", _PRETRAINED_RATE, name)
    yield Rule("student.model", {**same, "head_width": 64}, name)


def _smaller_networks(page: Mapping[str, Any], name: str) -> Iterator[Rule]:
    """The sizes by which all networks see less than the probe does."""
    members = _at(page, "teacher", "members")
    for number, member in enumerate(members if isinstance(members, list) else ()):
        if isinstance(member, Mapping) and member.get("kind", "network") == "network":
            yield Rule(f"teacher.members.{number}.image_size", PRETRAINED_NETWORK_PX, name)
    # A student that is not given is that of a member, with its size.
    if isinstance(_at(page, "student", "model"), Mapping):
        yield Rule("student.model.image_size", PRETRAINED_NETWORK_PX, name)
    yield Rule("filter.model.image_size", PRETRAINED_NETWORK_PX, name)


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
    here: Any = page
    for group in groups:
        if isinstance(here, list):
            here = here[int(group)]
        elif isinstance(here, dict):
            # Below a group that is made here nothing can be there, so that none is made in vain.
            here = here.setdefault(group, {})
    if not isinstance(here, dict) or leaf in here:
        return False
    here[leaf] = value
    return True
