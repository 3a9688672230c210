"""A run folder and the plan for it: what is up to date, and how a step is made there."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from nstudent.config.rules import with_decisions
from nstudent.config.schema import Config
from nstudent.distributed.world import IndependentJob, World
from nstudent.errors import ArtifactError, ConfigError, DataError, RefusedError, StoppedError
from nstudent.listener import Listener, NoListener, Several
from nstudent.progress import Progress, Silence, Watched
from nstudent.runs import asked, outcome
from nstudent.runs.curves import CurveFiles
from nstudent.runs.kept_config import CONFIG, STARTED, keep_config, kept_config, with_paths_found
from nstudent.runs.plan import plan
from nstudent.runs.remaining import Remaining
from nstudent.runs.source_seen import SOURCE_SEEN, SourceOfRun
from nstudent.runs.stage import Context, Step
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.runs.tensorboard import TensorBoard
from nstudent.runs.under_way import Followed
from nstudent.session import Session
from nstudent.signals import OverdueStop
from nstudent.storage.artifact import FINAL, Artifact, Manifest, Metrics
from nstudent.storage.commit import SOURCE_CHANGED, commit, note_refusal, open_partial, partial_folder, refusal
from nstudent.storage.files import explained, write_json
from nstudent.storage.links import links_of_run, refuse_links
from nstudent.storage.lock import HOLDER, LOCK, MARK, hold, hold_part

Turns = Callable[[Step, int], Iterable[int]]
"""Function of a step and the number of its independent trainings: their numbers, in the order in which the step should
turn to them."""

STOPPED = "stopped.json"
"""File with the reason why a run was stopped before its end; it is removed when the run goes on."""


class Run:
    """A run folder and the plan for it.

    Attributes:
        config: Configuration of the run.
        run_dir: The run folder.
        session: What the caller has brought.
        progress: Is told of the work. It asks whether to go on, and hears other processes, wherever it is told.
        steps: The plan: every step, whether it is needed or not.
    """

    def __init__(self, config: Config, run_dir: Path, session: Session) -> None:
        self.config = config
        self.run_dir = run_dir
        self.session = session
        self.progress: Progress = session.watched()
        self.steps = plan(config)
        self._source = SourceOfRun(config.data, run_dir)
        self._turns: Turns = lambda step, count: range(count)
        self._followed: Followed | None = None

    @classmethod
    def open(cls, config: Config, run_dir: str | Path | None = None, session: Session | None = None) -> "Run":
        """A run in the folder ``run_dir``, or in ``runs/<config.run_name>``."""
        folder = Path(run_dir) if run_dir is not None else Path("runs") / config.run_name
        return cls(config, folder, session or Session())

    @classmethod
    def reopen(cls, run_dir: str | Path, session: Session | None = None) -> "Run":
        """A run folder with the configuration it was last run with.

        Raises:
            ArtifactError: the folder does not hold a run.
            ConfigError: its configuration cannot be read.
        """
        folder = Path(run_dir)
        return cls.open(with_paths_found(kept_config(folder), folder), run_dir, session)

    @contextmanager
    def locked(self, *, beside_parts: bool = False) -> Iterator[None]:
        """Hold the lock of the run folder, where no link is allowed, and note there why the run was stopped, if it is.

        Args:
            beside_parts: Whether jobs that make parts of a labelling may be at work in the folder meanwhile.

        Raises:
            BusyError: another process holds the folder.
            ArtifactError: the disk refuses something, or something of the run is a link; the message is one line.
        """
        with explained(self.run_dir, "use"), hold(self.run_dir, beside_parts=beside_parts):
            refuse_links(self.run_dir, self.links())
            note = self.run_dir / STOPPED
            note.unlink(missing_ok=True)
            try:
                yield
            except (StoppedError, OverdueStop) as error:
                write_json(note, {"why": str(error)})
                raise

    def links(self) -> Iterator[str]:
        """Every link that stands in place of something of the run, by its path in the run folder."""
        return links_of_run(self.run_dir, (CONFIG, STARTED, FINAL, STOPPED, SOURCE_SEEN, LOCK, MARK, HOLDER))

    @contextmanager
    def as_leader(self) -> Iterator[bool]:
        """Take the part of this process in the run: ``with run.as_leader() as leads``.

        The process that leads gets ``True`` and holds the folder; the block makes the steps. Any other process gets
        ``False`` when the run has ended: until then it works on its share of each step that the leader makes.
        """
        if not self.world.leads:
            self._follow()
            yield False
            return
        with self.locked():
            yield True
            self.world.agree(None)

    @contextmanager
    def foreseen(self, steps: Sequence[Step], of: str = "run") -> Iterator[None]:
        """Tell beside the work, and keep in the folder, how long these steps, of a run or a stage, still take."""
        remaining = Remaining(self.config, steps, self.run_dir)
        self._followed = Followed(self.session.progress, remaining, self.run_dir, of)
        heard = Several(remaining, self.session.listener)
        self.session = replace(self.session, progress=self._followed, listener=heard)
        self.progress = self.session.watched()
        try:
            yield
        finally:
            self._followed.end()

    def train_beside(self, turns: Turns, check: Callable[[], None]) -> None:
        """Let other processes do some of the trainings.

        Args:
            turns: Tells a step which of its trainings are left to this process.
            check: Is called wherever the work of this process tells its progress: hears the other processes.
        """
        self._turns = turns
        self.progress = Watched(self.progress, check)

    @property
    def world(self) -> World:
        """The processes that share the work."""
        return self.session.world

    def folder(self, name: str) -> Path:
        """Folder of a step."""
        return self.run_dir / name

    def asked(self, step: Step, inputs: dict[str, Manifest]) -> dict[str, Any]:
        """Everything that decides what a step makes from these inputs (``runs.asked``)."""
        is_data = step.stage.provides == "data"
        return asked.of_step(step, self.config, self._source.now.stamp if is_data else None, inputs)

    def inputs(self, step: Step) -> dict[str, Manifest]:
        """Manifests of the step's inputs, by step; gathered steps that were not needed are left out.

        Raises:
            ArtifactError: an input is missing, or its manifest cannot be read.
        """
        needed = [name for _, name in step.inputs]
        for name in needed:
            if not self.folder(name).exists():
                said, before = f"{step.stage.name} needs {name}, which is not in {self.run_dir}", name.partition("-")[2]
                raise ArtifactError(f"{said}: run `nstudent stage {before}` with the same options first")
        planned = {other.name for other in self.needed_steps()} if step.gathered else set()
        gathered = [name for name in step.gathered if name in planned and self.folder(name).exists()]
        return {name: Manifest.read(self.folder(name)) for name in (*needed, *gathered)}

    def request(self, step: Step) -> dict[str, Any]:
        """What is asked for (``asked``) and the content id of each input: what a step that is made now is made from.

        It is kept in the partial folder, so that another request does not take over its work, and in the manifest.
        """
        inputs = self.inputs(step)
        return {"asked": self.asked(step, inputs), "inputs": {name: made.id for name, made in inputs.items()}}

    def why_stale(self, step: Step) -> str | None:
        """Why the step has to be made (again); ``None`` if it is up to date."""
        folder = self.folder(step.name)
        if not folder.exists():
            goes_on = step.stage.resumes and partial_folder(folder).exists() and refusal(folder) is None
            return "unfinished: goes on from where it was" if goes_on else "not made yet"
        made, inputs = Manifest.read(folder), self.inputs(step)
        wanted = self.asked(step, inputs)
        reason = asked.why_stale(made, wanted, inputs)
        if reason is None or not reason.startswith(SOURCE_CHANGED):
            return reason
        stamp = asked.stamp_of(made)
        if self._source.is_still(stamp, folder, self.progress):
            wanted["settings"]["source"] = stamp
            return asked.why_stale(made, wanted, inputs)
        said = self._source.changes()
        return reason.replace(SOURCE_CHANGED, f"{SOURCE_CHANGED}: {said}", 1) if said else reason

    def make(self, step: Step) -> Manifest:
        """Run one step, commit what it made, and tell the listener; the other processes of the run do their share."""
        request, began, folder = self.request(step), time.monotonic(), self.folder(step.name)
        open_partial(folder, request, anew=not step.stage.resumes)
        if self._followed:
            self._followed.begin(step.name)
        if step.stage.shared:
            self.world.agree(step.index)
        metrics = self._work(step, request["inputs"])
        assert metrics is not None, "the process that leads reports"
        reported = metrics.to_json()
        identity = {"stage": step.stage.name, "role": step.stage.provides, "round": step.round}
        fields = {**identity, **request, "metrics": reported, "seconds": round(time.monotonic() - began, 1)}
        manifest = commit(folder, fields).manifest
        self.note_source(step, anew=True)
        self.session.listener.made(step.name, reported)
        return manifest

    def note_source(self, step: Step, *, anew: bool = False) -> None:
        """Write down what the source of a data step that is up to date looks like, unless that stands there."""
        if step.stage.provides == "data":
            folder = self.folder(step.name)
            self._source.keep(asked.stamp_of(Manifest.read(folder)), folder, anew=anew)

    def _work(self, step: Step, inputs: Iterable[str]) -> Metrics | None:
        """Run the stage. What ends in a refusal is no unfinished work: the remedy is other settings."""
        try:
            return step.stage.work(self._context(step, inputs))
        except (ConfigError, DataError, RefusedError) as error:
            note_refusal(self.folder(step.name), str(error))
            raise

    def make_part(self, step: Step, part: IndependentJob) -> None:
        """Make one part of a step's files and leave them there: a later call that finds all of them commits it."""
        # Held for a moment alone: to open the folder, and to be sure that nobody works on the whole.
        with ExitStack() as parts:
            with self.locked(beside_parts=True):
                request = self.request(step)
                open_partial(self.folder(step.name), request, beside_others=True)
                parts.enter_context(hold_part(self.run_dir, part.rank, part.size))
            step.stage.work(self._context(step, request["inputs"]))

    def train_ahead(self, step: Step, number: int) -> None:
        """Do one of the trainings of a step that another process is making: its last checkpoint is left there."""
        step.stage.load_training()(self._context(step, self.inputs(step)), number)

    def _follow(self) -> None:
        """Work on a share of each step that the leader makes, until it says that the run has ended.

        It is silent: the leader speaks for all processes.
        """
        self.session = replace(self.session, progress=Silence(), listener=NoListener())
        self.progress = self.session.watched()
        while (index := self.world.agree()) is not None:
            step = self.steps[index]
            step.stage.work(self._context(step, self.inputs(step)))

    def _context(self, step: Step, inputs: Iterable[str]) -> Context:
        # What is needed and gathered is opened, and hashed, once.
        read = {name: Artifact(self.folder(name)) for name in step.reads if name in inputs}
        inputs_by_role = {role: read[name] for role, name in step.inputs}
        config, probe = self.config, inputs_by_role.get("probe")
        if step.stage.asks(config):
            config = with_decisions(config, TrainedMetrics.of(probe.manifest).mirrored if probe else None)
        return Context(
            config=config,
            step=step,
            folder=partial_folder(self.folder(step.name)),
            inputs=inputs_by_role,
            gathered=tuple(read[name] for name in step.gathered if name in read),
            session=replace(self.session, progress=self.progress, listener=self._listener()),
            turns=partial(self._turns, step),
        )

    @cached_property
    def _records(self) -> tuple[Listener, ...]:
        """Who writes down what this process trains. Other processes of the run write down what they train."""
        return (CurveFiles(self.run_dir), *([TensorBoard(self.run_dir)] if self.config.track == "tensorboard" else []))

    def _listener(self) -> Listener:
        """Who hears of the trainings of this process: of several that train together the leader's listener alone."""
        return Several(*self._records, self.session.listener) if self.world.leads else NoListener()

    def needed_steps(self) -> Iterator[Step]:
        """The steps in order, without those of rounds that cannot go on."""
        return outcome.needed_steps(self.steps, self.run_dir)

    def why_ended(self) -> str:
        """The reason why the rounds ended before the last planned one; empty if they did not."""
        return outcome.why_ended(self.steps, self.run_dir)

    def write_config(self) -> None:
        """Keep the complete configuration with the run."""
        keep_config(self.config, self.run_dir)

    def write_final(self) -> None:
        """Point at the classifier that stands, if there is one yet."""
        standing = outcome.standing(self.steps, self.run_dir)
        if standing is not None:
            write_json(self.run_dir / FINAL, {"step": standing})
