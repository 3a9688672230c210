"""Walk the steps of a run: skip what is up to date, make the rest, stop where a round no longer helps."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nstudent.artifact import FINAL, Artifact, Manifest
from nstudent.commit import commit, difference, finish_commit, open_partial, partial_folder
from nstudent.config import Config
from nstudent.config_file import dump_yaml, load_config
from nstudent.data.sources import source_stamp
from nstudent.errors import ArtifactError, ConfigError, StoppedError
from nstudent.lock import hold
from nstudent.progress import Progress, Silence, Watched
from nstudent.stage import Context, Step
from nstudent.steps import STAGES, plan
from nstudent.stopping import StopRequest
from nstudent.storage import atomic_write, explained, fingerprint_of, write_json
from nstudent.world import Alone, World

CONFIG = "config.yaml"
STOPPED = "stopped.json"
"""Why the run ended before it was done, where somebody asked it to; gone when it goes on."""


class Run:
    """A run folder and the plan for it."""

    def __init__(self, config: Config, run_dir: Path, progress: Progress, world: World) -> None:
        self.config = config
        self.run_dir = run_dir
        self.progress = progress
        self.world = world
        self.steps = plan(config)
        self._stamp: str | None = None

    @classmethod
    def open(
        cls,
        config: Config,
        run_dir: str | Path | None = None,
        progress: Progress | None = None,
        stop: StopRequest | None = None,
        world: World | None = None,
    ) -> "Run":
        """A run with the defaults filled in; where it counts its work, ``stop`` is asked whether to go on."""
        folder = Path(run_dir) if run_dir is not None else Path("runs") / config.run_name
        world = world or Alone()
        shown = progress if progress and world.leads else Silence()
        return cls(config, folder, Watched(shown, stop.check) if stop else shown, world)

    @classmethod
    def reopen(cls, run_dir: str | Path, progress: Progress | None = None, stop: StopRequest | None = None) -> "Run":
        """A run folder with the configuration it was last run with."""
        path = Path(run_dir) / CONFIG
        if not path.exists():
            raise ArtifactError(f"{run_dir} is not a run folder: it has no {CONFIG}")
        return cls.open(load_config(path), run_dir, progress, stop)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run folder; whatever its disk refuses meanwhile becomes one line."""
        with explained(self.run_dir, "use"), hold(self.run_dir):
            note = self.run_dir / STOPPED
            note.unlink(missing_ok=True)
            try:
                yield
            except StoppedError as error:
                write_json(note, {"why": str(error)})
                raise

    @contextmanager
    def led(self) -> Iterator[bool]:
        """Whether this process leads. One that does not has done its share of everything when it is told so."""
        if not self.world.leads:
            self.follow()
            yield False
            return
        with self.held():
            yield True
            self.world.agree(None)

    def folder(self, name: str) -> Path:
        """Folder of a step."""
        return self.run_dir / name

    def asked(self, step: Step, inputs: dict[str, Manifest]) -> dict[str, Any]:
        """Everything that decides what the step makes, as JSON."""
        common = {key: getattr(self.config, key) for key in ("seed", "absent", "precision", "augment")}
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
            return difference(made.asked, asked)
        changed = [name for name, manifest in inputs.items() if made.inputs.get(name) != manifest.id]
        return f"{changed[0]} was made again" if changed else None

    def make(self, step: Step) -> Manifest:
        """Run one step and commit what it made; the other processes of the run do their share."""
        inputs = self.inputs(step)
        asked = self.asked(step, inputs)
        ids = {name: manifest.id for name, manifest in inputs.items()}
        began = time.monotonic()
        folder = self.folder(step.name)
        open_partial(folder, {"asked": asked, "inputs": ids})
        if step.stage.shared:
            self.world.agree(step.index)
        metrics = step.stage.load()(self._context(step, inputs))
        fields = {
            "stage": step.stage.name,
            "round": step.round,
            "asked": asked,
            "inputs": ids,
            "metrics": metrics,
            "seconds": round(time.monotonic() - began, 1),
        }
        return commit(folder, fields).manifest

    def follow(self) -> None:
        """In a process that does not lead: do a share of every step that the leader makes, until it is done."""
        while (index := self.world.agree()) is not None:
            step = self.steps[index]
            step.stage.load()(self._context(step, self.inputs(step)))

    def _context(self, step: Step, inputs: Iterable[str]) -> Context:
        return Context(
            config=self.config,
            step=step,
            folder=partial_folder(self.folder(step.name)),
            inputs={role: Artifact(self.folder(name)) for role, name in step.inputs},
            gathered=tuple(Artifact(self.folder(name)) for name in step.gathered if name in inputs),
            progress=self.progress,
            world=self.world,
        )

    def needed_steps(self) -> Iterator[Step]:
        """The steps in order, less those of rounds that came to nothing."""
        ended = False
        for step in self.steps:
            if ended and step.round:
                continue
            yield step
            ended = ended or bool(self._end(step))

    def why_ended(self) -> str:
        """Why the rounds ended before the last planned one; empty where they did not."""
        return next((reason for step in self.steps if (reason := self._end(step))), "")

    def _end(self, step: Step) -> str:
        """Why no round can follow a step; empty where one can, or nothing is known yet."""
        try:
            metrics = Manifest.read(self.folder(step.name)).metrics
        except ArtifactError:
            return ""
        if metrics.get("promoted") is False:
            return f"{step.name} did not beat its teacher"
        return str(metrics.get("ended") or "")

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


def run_all(
    config: Config,
    run_dir: str | Path | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
    world: World | None = None,
) -> Path:
    """Make every step of the run that is not up to date, and return the run folder.

    Args:
        config: From ``load_config``.
        run_dir: Default ``runs/<config.name>``.
        progress: Told of the work as it goes on; default: silence.
        stop: Asked between pieces of work whether to go on; default: never stop.
        world: The processes that share the work; each of them makes the same call. Default: this one alone.

    Raises:
        NstudentError: with a line that says what to mend. What was made stays; the same call goes on from there.
    """
    run = Run.open(config, run_dir, progress, stop, world)
    with run.led() as leads:
        if leads:
            run.write_config()
            for step in run.needed_steps():
                _make_if_stale(run, step)
            run.write_final()
    return run.run_dir


def run_stage(
    config: Config,
    stage: str,
    run_dir: str | Path | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
    world: World | None = None,
) -> Path:
    """Make the first step of one stage that is not up to date; its inputs must be there.

    Returns the folder of that step, or of the last one where all are up to date.
    """
    if stage not in STAGES:
        raise ConfigError(f"there is no stage '{stage}': choose from {', '.join(STAGES)}")
    run = Run.open(config, run_dir, progress, stop, world)
    with run.led() as leads:
        if not leads:
            return run.run_dir
        steps = [step for step in run.needed_steps() if step.stage.name == stage]
        if not steps:
            why = run.why_ended() or f"with rounds={config.rounds} none is planned"
            raise ConfigError(f"this run has no {stage} step: {why}")
        run.write_config()
        made = next((step for step in steps if _make_if_stale(run, step)), steps[-1])
        return run.folder(made.name)


def _make_if_stale(run: Run, step: Step) -> bool:
    """Make a step where that is needed; returns whether it was."""
    finish_commit(run.folder(step.name))
    reason = run.why_stale(step)
    run.progress.say(f"{step.name}: {reason or 'up to date'}")
    if reason:
        run.make(step)
        run.write_final()
    return reason is not None
