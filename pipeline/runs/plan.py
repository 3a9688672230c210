"""The stages there are, and the steps of a run: what it will do, known before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nstudent.config.rules import decisions_of_probe, probe_members
from nstudent.errors import ConfigError
from nstudent.runs.stage import Stage, Step
from nstudent.runs.step_metrics import Role

if TYPE_CHECKING:
    from nstudent.config.schema import Config

_LENGTH_OF_META = ("finetune_epochs", "finetune_rate")
"""Keys of Meta Pseudo Labels that the baseline goes by as well."""


def _section(name: str, *, without: Sequence[str] = ()) -> Callable[[Config], dict[str, Any]]:
    """A section of the configuration, less the keys that change speed but not results."""

    def settings(config: Config) -> dict[str, Any]:
        asked: dict[str, Any] = getattr(config, name).asked()
        return {f"{name}.{key}": value for key, value in asked.items() if key not in without}

    return settings


def _training(name: str, *, without: Sequence[str] = ()) -> Callable[[Config], dict[str, Any]]:
    return _section(name, without=["checkpoint_activations", *without])


def _decoder(config: Config) -> dict[str, Any]:
    """The decoder that is asked for; nothing if it follows from the calibration, as before there was the key."""
    return {} if config.decoder == "auto" else {"decoder": config.decoder}


def _choosing(config: Config) -> dict[str, Any]:
    """The decoder, and how pools are weighed, where that is not as it was before there was the key."""
    return _decoder(config) | ({} if config.pool_weights == "likelihood" else {"pool_weights": config.pool_weights})


def _probes(config: Config) -> dict[str, Any]:
    members = [each.asked() for each in probe_members(config)]
    # One probe is what it was before several were weighed.
    return {"probe.members": members} | ({"probe.weights": "likelihood"} if len(members) > 1 else {})


def _student(config: Config) -> dict[str, Any]:
    meta = config.student.meta_pseudo_labels
    # What is left open counts as its default.
    own = {} if meta is None else {"student.meta": meta.asked()}
    return _training("student", without=["meta"])(config) | own | {"pseudolabel.targets": config.pseudolabel.targets}


def _baseline(config: Config) -> dict[str, Any]:
    """Nothing of what the student's own beliefs or its teacher go by, but how long the student trains."""
    meta = config.student.meta_pseudo_labels
    own = {} if meta is None else {f"student.meta.{key}": getattr(meta, key) for key in _LENGTH_OF_META}
    return _training("student", without=["consistency", "meta"])(config) | own


def _filter(config: Config) -> dict[str, Any]:
    """Probes count where people's labels are doubted."""
    own = _training("filter")(config) | _section("pseudolabel", without=["batch_size"])(config)
    return own | (_probes(config) if config.filter.labelled else {})


STAGES = {
    stage.name: stage
    for stage in (
        Stage("data", needs=(), provides="data", settings=_section("data"), version=3),
        Stage(
            "probe",
            needs=("data",),
            provides="classifier",
            provides_also=("probe",),
            settings=_probes,
            last_settings=lambda config: {"probe.heap": config.probe.heap} if config.probe.heap else {},
            resumes=False,
        ),
        Stage(
            "teacher",
            needs=("data",),
            provides="classifier",
            provides_also=("teacher",),
            settings=_training("teacher"),
            asks=lambda config: decisions_of_probe(config.teacher),
            version=3,
            shared=True,
            trains=True,
            apart=True,
        ),
        Stage(
            "baseline",
            needs=("data",),
            after=("probe",),
            provides="classifier",
            provides_also=("baseline",),
            settings=_baseline,
            asks=lambda config: decisions_of_probe(config.student),
            version=3,
            shared=True,
            trains=True,
            aside=True,
        ),
        Stage(
            "soup",
            needs=("data", "teacher"),
            provides="classifier",
            provides_also=("soup",),
            # Its batches are those of the teacher, which is made again where these change.
            settings=lambda config: {},
            resumes=False,
        ),
        Stage(
            "choose",
            needs=("data",),
            gathers=("classifier",),
            provides="labeller",
            settings=_choosing,
            # What is expected of a soup is not what is expected of a network that was trained.
            asks=lambda config: ("soup",) if config.teacher.soup != "none" else (),
            last_settings=_section("final", without=["refit"]),
            resumes=False,
        ),
        Stage(
            "pseudolabel",
            needs=("data", "labeller"),
            provides="labels",
            settings=_section("pseudolabel", without=["batch_size"]),
            version=4,
            shared=True,
            in_parts=True,
        ),
        Stage(
            "filter",
            needs=("data", "labeller", "labels"),
            provides="selection",
            settings=_filter,
            asks=lambda config: (
                decisions_of_probe(config.filter) if config.filter.enabled or config.filter.labelled else ()
            ),
            version=5,
            shared=True,
            trains=True,
        ),
        Stage(
            "student",
            needs=("data", "labeller", "labels", "selection"),
            provides="classifier",
            settings=_student,
            asks=lambda config: decisions_of_probe(config.student),
            version=3,
            shared=True,
            trains=True,
        ),
        Stage(
            "refit",
            needs=("data", "labeller", "teacher"),
            gathers=("classifier", "labels", "selection"),
            provides="refit",
            # What its trainings are like is asked of the steps that did them first.
            settings=lambda config: {},
            asks=lambda config: ("probe", "baseline", "soup"),
            shared=True,
            apart=True,
        ),
        Stage(
            "evaluate",
            needs=("data", "labeller"),
            gathers=("classifier", "labeller", "labels", "selection", "refit"),
            provides="scores",
            settings=lambda config: _section("evaluate", without=["batch_size"])(config) | _decoder(config),
            version=4,
            resumes=False,
        ),
    )
}


def plan(config: Config) -> tuple[Step, ...]:
    """The steps of a run: each stage reads the latest artifact of every role it needs, and all of the roles it gathers.

    That a student is among those of which the next round's labeller is chosen is all the iteration there is. The last
    choice is of no round: it is made also where the rounds end early.
    """
    walk = [("data", 0), *([("probe", 0)] if probe_members(config) else [])]
    if probe_members(config) and config.probe.heap and config.rounds:
        # Of the first round, because it learns from the heap.
        walk.append(("probe", 1))
    walk.append(("teacher", 0))
    if config.rounds:
        walk.append(("baseline", 0))
    if config.teacher.soup != "none":
        walk.append(("soup", 0))
    for round_ in range(1, config.rounds + 1):
        walk += [("choose", round_ - 1), ("pseudolabel", round_), ("filter", round_), ("student", round_)]
    walk += [("choose", 0), *([("refit", 0)] if config.final.refit else []), ("evaluate", 0)]
    latest: dict[Role, str] = {}
    everything: list[tuple[Role, str]] = []
    steps = []
    last = {name: index for index, (name, _) in enumerate(walk)}
    for index, (name, round_) in enumerate(walk):
        stage = STAGES[name]
        asked = (role for role in stage.asks(config) if role in latest)
        inputs = tuple((role, latest[role]) for role in (*stage.needs, *asked))
        gathered = tuple(made for role, made in everything if role in stage.gathers)
        step = Step(index, stage, round_, inputs, gathered, is_last=index == last[name])
        steps.append(step)
        # What learns from the labels alone never goes by what the heap has taught.
        latest |= dict.fromkeys((stage.provides, *(() if round_ else stage.provides_also)), step.name)
        everything.append((stage.provides, step.name))
    return tuple(steps)


def check_stage(name: str) -> None:
    """Refuse a name that is not that of a stage.

    Raises:
        ConfigError: it is not; the message lists the stages.
    """
    if name not in STAGES:
        raise ConfigError(f"there is no stage '{name}': choose from {', '.join(STAGES)}")


def needed_until(steps: Sequence[Step], stage: str | None) -> tuple[Step, ...]:
    """The last step of a stage and the steps that it is made from, directly or not, in order; ``None``: all steps.

    Args:
        steps: The plan of a run.
        stage: Name of the stage.

    Raises:
        ConfigError: it is not a stage, or none of the steps is of it.
    """
    if stage is None:
        return tuple(steps)
    check_stage(stage)
    last = next((step for step in reversed(steps) if step.stage.name == stage), None)
    if last is None:
        raise ConfigError(f"this run has no {stage} step: with rounds=0 none is planned")
    needed = {last.name}
    # A step reads only what earlier steps make.
    for step in reversed(steps):
        if step.name in needed:
            needed.update(step.reads)
    return tuple(step for step in steps if step.name in needed)
