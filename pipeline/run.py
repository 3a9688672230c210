"""Walk the steps of a run: skip what is up to date, make the rest, stop where a round no longer helps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstudent.artifact import FINAL, Artifact, Manifest, commit, finish_commit, open_partial, partial_folder
from nstudent.config import Config
from nstudent.config_file import dump_yaml, load_config
from nstudent.data.sources import source_stamp
from nstudent.errors import ArtifactError, ConfigError, NstudentError
from nstudent.lock import hold
from nstudent.progress import Progress, Silence
from nstudent.stage import Context, Metrics, Step
from nstudent.steps import STAGES, plan
from nstudent.storage import atomic_write, fingerprint_of, told_in_a_line, write_json

CONFIG = "config.yaml"


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
            if step.stage.name == "student" and self._promoted(step.name) is False:
                stopped_at = step.round

    def write_config(self) -> None:
        """Keep the complete configuration with the run."""
        text = dump_yaml(self.config.model_dump(mode="json"))
        path = self.run_dir / CONFIG
        if not path.exists() or path.read_bytes() != text.encode():
            atomic_write(path, text.encode())

    def write_final(self) -> None:
        """Point at the classifier that stands: the last labeller that was promoted and is still part of the run."""
        labellers = [step.name for step in self.needed_steps() if step.stage.provides == "labeller"]
        standing = [name for name in labellers if self._promoted(name)]
        if standing:
            write_json(self.run_dir / FINAL, {"step": standing[-1]})

    def _promoted(self, name: str) -> bool | None:
        """What the gate said of a labeller; ``None`` where it is not made or cannot be read."""
        try:
            return bool(Manifest.read(self.folder(name)).metrics["promoted"])
        except (ArtifactError, KeyError):
            return None


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
    with hold(run.run_dir), told_in_a_line(run.run_dir):
        run.write_config()
        for step in run.needed_steps():
            finish_commit(run.folder(step.name))
            reason = run.why_stale(step)
            if reason is None:
                run.progress.say(f"{step.name}: up to date")
                continue
            run.progress.say(f"{step.name}: {reason}")
            run.make(step)
            run.write_final()
        run.write_final()
    return run.run_dir


def run_stage(config: Config, stage: str, run_dir: str | Path | None = None, progress: Progress | None = None) -> Path:
    """Make the first step of one stage that is not up to date; its inputs must be there.

    Returns the folder of that step, or of the last one where all are up to date.
    """
    if stage not in STAGES:
        raise ConfigError(f"there is no stage '{stage}': choose from {', '.join(STAGES)}")
    run = _open(config, run_dir, progress)
    with hold(run.run_dir), told_in_a_line(run.run_dir):
        steps = [step for step in run.needed_steps() if step.stage.name == stage]
        if not steps:
            raise ConfigError(f"this run has no {stage} step: with rounds={config.rounds} none is planned")
        run.write_config()
        for step in steps:
            finish_commit(run.folder(step.name))
            reason = run.why_stale(step)
            if reason is not None:
                run.progress.say(f"{step.name}: {reason}")
                run.make(step)
                run.write_final()
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
    gone = [name for name in made["inputs"] if name not in asked["inputs"]]
    if gone:
        return f"{gone[0]} is not needed any more"
    inputs = [name for name, value in asked["inputs"].items() if made["inputs"].get(name) != value]
    return f"{inputs[0]} was asked for differently" if inputs else "made by another version of the stage"
