"""What can be known of a run without torch and before anything is read: whether all that it names is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nstudent.config.network_names import check_network_name
from nstudent.config.schema import Config
from nstudent.data.sources import NO_HEAP, may_have_heap, open_source
from nstudent.errors import DataError
from nstudent.runs.asked import by_content
from nstudent.runs.stage import Step


def check_named(config: Config, steps: Iterable[Step]) -> None:
    """Whether the data, the files behind keys and the networks that a configuration names are there.

    Args:
        config: Configuration of the run.
        steps: Steps of its plan that are to be made.

    Raises:
        ConfigError: A page of classes, a file of weights or a network is not there; the message names the key.
        DataError: The source is not there.
    """
    planned = list(steps)
    if any(step.stage.provides == "data" for step in planned):
        open_source(config.data)
    # Probes that nobody asked for are those of the teacher's backbones: it is the teacher's key that is to be named.
    for step in sorted(planned, key=lambda step: step.stage.name == "probe" and config.probe.members is None):
        check_networks(by_content(step.settings(config)))


def check_heap(config: Config, steps: Iterable[Step]) -> None:
    """Whether there can be unlabelled images for the rounds of a run, as far as that is known before any is listed.

    Args:
        config: Configuration of the run.
        steps: Steps of its plan that are to be made.

    Raises:
        DataError: There are none, or the source is not there.
    """
    planned = any(step.stage.provides == "data" for step in steps)
    if planned and config.rounds and not may_have_heap(config.data):
        raise DataError(NO_HEAP)


def check_networks(settings: Mapping[str, Any]) -> None:
    """Whether timm has the networks that the settings of a step name.

    Raises:
        ConfigError: It has not; the message names the key.
    """
    for key, model in _models_used(settings):
        for name in model["backbones"]:
            check_network_name(f"{key}.backbones", name)


def weights_to_download(settings: Mapping[str, Any]) -> dict[str, str]:
    """Backbones whose pretrained weights timm is to download for a step, each with the key that asks for them."""
    return {
        name: f"{key}.pretrained"
        for key, model in _models_used(settings)
        if model.get("pretrained") is True
        for name in model["backbones"]
    }


def _models_used(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, model in _models(settings):
        if key != "filter.model" or settings.get("filter.enabled") or settings.get("filter.labelled"):
            yield key, model


def _models(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Key and settings of every network."""
    for key, value in settings.items():
        several = value if isinstance(value, list) else [value]
        for number, each in enumerate(several):
            if isinstance(each, Mapping) and "backbones" in each:
                yield f"{key}.{number}" if several is value else key, each
