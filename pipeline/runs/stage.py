"""What a stage is, and what it is given to work with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from nstudent.distributed.world import World
from nstudent.errors import StoppedError
from nstudent.listener import Listener
from nstudent.machine import out_of_working_folder
from nstudent.progress import Progress
from nstudent.runs.step_metrics import Role
from nstudent.session import Session
from nstudent.signals import OverdueStop
from nstudent.storage.artifact import Artifact, Metrics
from nstudent.storage.files import make_folder, reserve
from nstudent.storage.sealed import SCRATCH

if TYPE_CHECKING:
    # They take longer to import than all the rest, and `nstudent --help` needs neither.
    from nstudent.config.schema import Config
    from nstudent.models.kept_walks import KeptWalks
    from nstudent.randomness import Key
    from nstudent.training.trial import PlannedTraining

Work = Callable[["Context"], Metrics | None]
"""What a stage does: returns what it reports, or ``None`` in a process that does not lead."""


@dataclass(frozen=True)
class Stage:
    """One kind of work. The work itself is ``run`` in ``nstudent.stages.<name>``, imported when it is needed."""

    name: str
    needs: tuple[Role, ...]
    """Roles of the artifacts it reads; the latest artifact of each role is the one it gets."""
    provides: Role
    """Role of the artifact it makes."""
    settings: Callable[[Config], dict[str, Any]]
    """The part of the configuration that decides what it makes."""
    provides_also: tuple[Role, ...] = ()
    """Further roles of that artifact."""
    asks: Callable[[Config], tuple[Role, ...]] = lambda config: ()
    """Roles that it also reads where the run has such a step: the configuration leaves a decision to them, or it trains
    them again."""
    last_settings: Callable[[Config], dict[str, Any]] = lambda config: {}
    """The part of the configuration that decides, beside ``settings``, what the last of its steps makes."""
    gathers: tuple[Role, ...] = ()
    """Roles of which it gets every artifact that was made before it, beside the latest of those it needs."""
    after: tuple[str, ...] = ()
    """Stages whose steps are made first, where this one is asked for by itself: what it is to be compared with."""
    version: int = 1
    """Raised when the same inputs should give another artifact."""
    shared: bool = False
    """Whether every process of a run has a share of its work; else the leader does it alone."""
    resumes: bool = True
    """Whether it goes on with what an interrupted attempt left. Else nothing stays of that but what classifiers have
    said of images, and where something else is asked for all of it is thrown away without a question."""
    in_parts: bool = False
    """Whether separate jobs can each make a part of its files, which a later call puts together."""
    apart: bool = False
    """Whether it trains networks that are independent of one another, so that other processes can train some ahead."""
    aside: bool = False
    """Whether it needs nothing that is trained, so that another process can make it beside the trainings."""
    trains: bool = False
    """Whether it trains networks. Its module then says which (``planned``), so that they can be tried beforehand."""

    def load(self) -> Work:
        """Import the stage's module and return its ``run``."""
        return cast(Work, self._module().run)

    def work(self, context: Context) -> Metrics | None:
        """Do the work; what classifiers have said by then is kept if it is stopped."""
        try:
            return self.load()(context)
        except (StoppedError, OverdueStop):
            context.keep_walks()
            raise

    def load_training(self) -> Callable[[Context, int], None]:
        """Import the stage's module and return its ``train_ahead``, which trains one of its independent networks."""
        return cast(Callable[[Context, int], None], self._module().train_ahead)

    def _module(self) -> ModuleType:
        with out_of_working_folder():
            return importlib.import_module(f"nstudent.stages.{self.name}")

    def load_planned(self) -> Callable[[Config], Iterable[PlannedTraining]]:
        """Import the stage's module and return its ``planned``, which says what networks it trains."""
        return cast("Callable[[Config], Iterable[PlannedTraining]]", self._module().planned)


@dataclass(frozen=True)
class Step:
    """A stage at its place in a run."""

    index: int
    stage: Stage
    round: int
    """0 before the first round of pseudo-labels."""
    inputs: tuple[tuple[Role, str], ...]
    """(role, name of the step that makes it)."""
    gathered: tuple[str, ...] = ()
    """Names of the steps whose artifacts it gathers, in the order of the run."""
    is_last: bool = True
    """Whether no later step of the run is of the same stage."""

    @property
    def settings(self) -> Callable[[Config], dict[str, Any]]:
        """The part of the configuration that decides what it makes."""
        if not self.is_last:
            return self.stage.settings
        return lambda config: self.stage.settings(config) | self.stage.last_settings(config)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all the steps that it reads, each once, in the order of the run."""
        return tuple(sorted({*(name for _, name in self.inputs), *self.gathered}, key=_number))

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.index:02d}-{self.stage.name}"


def _number(step: str) -> int:
    return int(step.partition("-")[0])


@dataclass(frozen=True)
class Context:
    """Everything a stage may touch."""

    config: Config
    step: Step
    folder: Path
    """The partial folder to write into."""
    inputs: Mapping[Role, Artifact]
    """The latest artifact of each role that the stage needs."""
    gathered: tuple[Artifact, ...] = ()
    """Every artifact of the roles that the stage gathers, in the order of the run."""
    session: Session = field(default_factory=Session)
    turns: Callable[[int], Iterable[int]] = range
    """Number of independent trainings -> their numbers, in the order in which the stage should turn to them. One that
    comes late may have been trained ahead by another process: its checkpoint is then that of its last step."""

    @property
    def progress(self) -> Progress:
        """Is told of the work; it raises ``StoppedError`` if the run is to stop."""
        return self.session.progress

    @property
    def world(self) -> World:
        """The processes that share the work. Only the leader's files and metrics count."""
        return self.session.world

    @property
    def listener(self) -> Listener:
        """Hears of trainings, their epochs, and steps."""
        return self.session.listener

    @cached_property
    def walks(self) -> KeptWalks:
        """Walks through images with a classifier that go on where a stopped attempt at the step left them."""
        # It imports torch.
        from nstudent.models.kept_walks import KeptWalks

        return KeptWalks(self.folder, self.session)

    def keep_walks(self) -> None:
        """Write what classifiers have said in this attempt, if any was asked."""
        if "walks" in vars(self):
            self.walks.keep()

    @property
    def scratch(self) -> Path:
        """Folder for checkpoints: kept while the step is partial, gone when it is done."""
        path = self.folder / SCRATCH
        make_folder(path)
        return path

    def all(self, *roles: Role) -> tuple[Artifact, ...]:
        """Every artifact of some roles that there is, in the order of the run; the stage has to gather these roles."""
        foreign = set(roles) - set(self.step.stage.gathers)
        assert not foreign, f"the stage {self.step.stage.name} does not gather {', '.join(sorted(foreign))}"
        return tuple(made for made in self.gathered if made.manifest.role in roles)

    def training(self, name: str) -> str:
        """Name of one of the step's trainings, unique in the run: as a listener hears it."""
        return f"{self.step.name}/{name}"

    def key(self, *parts: int | str) -> Key:
        """Key for this step's randomness."""
        return (self.config.seed, self.step.stage.name, self.step.round, *parts)

    def reserve(self, num_bytes: int) -> None:
        """Check, before hours of work, that what the step will write fits on the disk.

        Raises:
            ArtifactError: it does not; the message says how much is needed and free.
        """
        reserve(self.folder, num_bytes)
