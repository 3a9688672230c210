"""Plan a run, and walk it: skip what is up to date, make the rest, stop where a round no longer helps."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nstudent.artifact import Artifact, Manifest, commit, finish_commit, open_partial, partial_folder
from nstudent.config import Config
from nstudent.config_file import load_config
from nstudent.data.sources import source_stamp
from nstudent.errors import ArtifactError, ConfigError, NstudentError
from nstudent.lock import hold
from nstudent.progress import Progress, Silence
from nstudent.stage import Context, Metrics, Stage, Step
from nstudent.storage import atomic_write, fingerprint_of

CONFIG = "config.yaml"


def _section(name: str, *, without: Sequence[str] = ()) -> Callable[[Config], dict[str, Any]]:
    """A section of the configuration, less the keys that change speed but not results."""

    def settings(config: Config) -> dict[str, Any]:
        section: dict[str, Any] = getattr(config, name).model_dump(mode="json")
        return {f"{name}.{key}": value for key, value in section.items() if key not in without}

    return settings


STAGES = {
    stage.name: stage
    for stage in (
        Stage("data", needs=(), provides="data", settings=_section("data")),
        Stage("teacher", needs=("data",), provides="labeller", settings=_section("teacher")),
        Stage(
            "baseline",
            needs=("data",),
            provides="baseline",
            settings=_section("student", without=["promote_above"]),
        ),
        Stage(
            "pseudolabel",
            needs=("data", "labeller"),
            provides="labels",
            settings=_section("pseudolabel", without=["batch_size"]),
        ),
        Stage(
            "filter",
            needs=("data", "labels"),
            provides="clean labels",
            settings=lambda config: (
                _section("filter")(config) | _section("pseudolabel", without=["batch_size"])(config)
            ),
        ),
        Stage(
            "student",
            needs=("data", "labeller", "labels", "clean labels"),
            provides="labeller",
            settings=lambda config: _section("student")(config) | {"pseudolabel.targets": config.pseudolabel.targets},
        ),
        Stage(
            "evaluate",
            needs=("data",),
            gathers=("labeller", "baseline", "labels", "clean labels"),
            provides="scores",
            settings=_section("evaluate", without=["batch_size"]),
        ),
    )
}


def plan(config: Config) -> tuple[Step, ...]:
    """The steps of a run: each stage reads the latest artifact of every role it needs.

    That a student is the next round's labeller is all the iteration there is.
    """
    walk = [("data", 0), ("teacher", 0)]
    if config.rounds:
        walk.append(("baseline", 0))
    for round_ in range(1, config.rounds + 1):
        walk += [("pseudolabel", round_), ("filter", round_), ("student", round_)]
    walk.append(("evaluate", 0))
    latest: dict[str, str] = {}
    everything: list[tuple[str, str]] = []
    steps = []
    for index, (name, round_) in enumerate(walk):
        stage = STAGES[name]
        inputs = tuple((role, latest[role]) for role in stage.needs)
        gathered = tuple(made for role, made in everything if role in stage.gathers)
        step = Step(index, stage, round_, inputs, gathered)
        steps.append(step)
        latest[stage.provides] = step.name
        everything.append((stage.provides, step.name))
    return tuple(steps)


@dataclass(frozen=True)
class StepState:
    """Where one step stands."""

    step: Step
    state: str
    """done, stale, partial, missing, or 'not needed' after a student that was not promoted."""
    reason: str
    metrics: Metrics


class Run:
    """A run folder and the plan for it."""

    def __init__(self, config: Config, run_dir: Path, progress: Progress) -> None:
        self.config = config
        self.run_dir = run_dir
        self.progress = progress
        self.steps = plan(config)
        self._stamp: str | None = None

    def folder(self, name: str) -> Path:
        """Folder of a step."""
        return self.run_dir / name

    def asked(self, step: Step, inputs: dict[str, Manifest]) -> dict[str, Any]:
        """Everything that decides what the step makes, as JSON."""
        common = {key: getattr(self.config, key) for key in ("seed", "absent", "precision")}
        if step.stage.name == "data":
            if self._stamp is None:
                self._stamp = source_stamp(self.config.data)
            common = {"seed": self.config.seed, "source": self._stamp}
        return {
            "stage": step.stage.name,
            "version": step.stage.version,
            "round": step.round,
            "settings": common | step.stage.settings(self.config),
            "inputs": {name: manifest.fingerprint for name, manifest in inputs.items()},
        }

    def inputs(self, step: Step) -> dict[str, Manifest]:
        """Manifests of the step's inputs; gathered steps that were not needed are left out."""
        needed = [name for _, name in step.inputs]
        for name in needed:
            if not self.folder(name).exists():
                missing = name.partition("-")[2]
                raise ArtifactError(
                    f"{step.stage.name} needs {name}, which is not in {self.run_dir}: "
                    f"run `nstudent stage {missing}` first"
                )
        planned = {other.name for other in self.needed_steps()} if step.gathered else set()
        gathered = [name for name in step.gathered if name in planned and self.folder(name).exists()]
        return {name: Manifest.read(self.folder(name)) for name in (*needed, *gathered)}

    def why_stale(self, step: Step) -> str | None:
        """Why the step has to be made (again), or ``None`` where it is up to date."""
        finish_commit(self.folder(step.name))
        if not self.folder(step.name).exists():
            return "not made yet"
        made = Manifest.read(self.folder(step.name))
        inputs = self.inputs(step)
        asked = self.asked(step, inputs)
        if made.fingerprint != fingerprint_of(asked):
            return _difference(made.asked, asked)
        changed = [name for name, manifest in inputs.items() if made.inputs.get(name) != manifest.id]
        return f"{changed[0]} was made again" if changed else None

    def make(self, step: Step) -> Manifest:
        """Run one step and commit what it made."""
        inputs = self.inputs(step)
        asked = self.asked(step, inputs)
        ids = {name: manifest.id for name, manifest in inputs.items()}
        began = time.monotonic()
        folder = self.folder(step.name)
        context = Context(
            config=self.config,
            step=step,
            folder=open_partial(folder, fingerprint_of([asked, ids])),
            inputs={role: Artifact(self.folder(name)) for role, name in step.inputs},
            gathered=tuple(Artifact(self.folder(name)) for name in step.gathered if name in inputs),
            progress=self.progress,
        )
        metrics = step.stage.load()(context)
        fields = {
            "stage": step.stage.name,
            "round": step.round,
            "asked": asked,
            "inputs": ids,
            "metrics": metrics,
            "seconds": round(time.monotonic() - began, 1),
        }
        return commit(folder, fields).manifest

    def needed_steps(self) -> Iterator[Step]:
        """The steps in order, less the rounds after a student that did not beat its teacher."""
        stopped_at: int | None = None
        for step in self.steps:
            if stopped_at is not None and step.round > stopped_at:
                continue
            yield step
            if step.stage.name == "student" and self.folder(step.name).exists():
                metrics = Manifest.read(self.folder(step.name)).metrics
                stopped_at = None if metrics["promoted"] else step.round

    def write_config(self) -> None:
        """Keep the complete configuration with the run."""
        text = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        path = self.run_dir / CONFIG
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            atomic_write(path, text.encode())


def run_all(config: Config, run_dir: str | Path | None = None, progress: Progress | None = None) -> Path:
    """Make every step of the run that is not up to date, and return the run folder.

    Args:
        config: From ``load_config``.
        run_dir: Default ``runs/<config.name>``.
        progress: Told of the work as it goes on; default: silence.

    Raises:
        NstudentError: with a line that says what to mend. What was made stays; the same call goes on from there.
    """
    run = _open(config, run_dir, progress)
    with hold(run.run_dir):
        run.write_config()
        for step in run.needed_steps():
            reason = run.why_stale(step)
            if reason is None:
                run.progress.say(f"{step.name}: up to date")
                continue
            run.progress.say(f"{step.name}: {reason}")
            run.make(step)
    return run.run_dir


def run_stage(config: Config, stage: str, run_dir: str | Path | None = None, progress: Progress | None = None) -> Path:
    """Make the first step of one stage that is not up to date; its inputs must be there.

    Returns the folder of that step, or of the last one where all are up to date.
    """
    if stage not in STAGES:
        raise ConfigError(f"there is no stage '{stage}': choose from {', '.join(STAGES)}")
    run = _open(config, run_dir, progress)
    with hold(run.run_dir):
        steps = [step for step in run.needed_steps() if step.stage.name == stage]
        if not steps:
            raise ConfigError(f"this run has no {stage} step: with rounds={config.rounds} none is planned")
        run.write_config()
        for step in steps:
            reason = run.why_stale(step)
            if reason is not None:
                run.progress.say(f"{step.name}: {reason}")
                run.make(step)
                return run.folder(step.name)
        run.progress.say(f"{steps[-1].name}: up to date")
        return run.folder(steps[-1].name)


def status(run_dir: str | Path) -> list[StepState]:
    """Where each step of a run folder stands, and why."""
    path = Path(run_dir) / CONFIG
    if not path.exists():
        raise ArtifactError(f"{run_dir} is not a run folder: it has no {CONFIG}")
    run = Run(load_config(path), Path(run_dir), Silence())
    needed = set(run.needed_steps())
    return [_state(run, step, step in needed) for step in run.steps]


def _state(run: Run, step: Step, needed: bool) -> StepState:
    folder = run.folder(step.name)
    if not needed:
        return StepState(step, "not needed", "the student before it did not beat its teacher", {})
    if not folder.exists():
        partial = partial_folder(folder).exists()
        return StepState(step, "partial" if partial else "missing", "the same command goes on from here", {})
    try:
        reason = run.why_stale(step)
        return StepState(step, "stale" if reason else "done", reason or "", Manifest.read(folder).metrics)
    except NstudentError as error:
        return StepState(step, "stale", str(error), {})


def _open(config: Config, run_dir: str | Path | None, progress: Progress | None) -> Run:
    folder = Path(run_dir) if run_dir is not None else Path("runs") / config.run_name
    return Run(config, folder, progress or Silence())


def _difference(made: dict[str, Any], asked: dict[str, Any]) -> str:
    before, now = made["settings"], asked["settings"]
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{key} changed from {before.get(key)!r:.60} to {now.get(key)!r:.60}{more}"
    inputs = [name for name, value in asked["inputs"].items() if made["inputs"].get(name) != value]
    return f"{inputs[0]} was asked for differently" if inputs else "made by another version of the stage"
