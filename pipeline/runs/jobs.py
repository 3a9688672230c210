"""Independent trainings of a run side by side, in processes beside this one, where a CPU has cores for them.

A member of the teacher is trained ahead: the other process leaves the checkpoint of its last step, and the stage
resumes there with nothing left to train. The baseline, which needs none of the other trainings, is made as a whole
step. Each training has the threads that it would have alone, so the bytes are those of one training after another.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import wait
from types import ModuleType

from nstudent import errors
from nstudent.errors import ArtifactError, ConfigError, NstudentError, StoppedError, TrainingError
from nstudent.machine import out_of_working_folder, safe_start
from nstudent.progress import Task
from nstudent.runs.folder import Run
from nstudent.runs.job_process import Job, receive, send, work
from nstudent.runs.stage import Step
from nstudent.signals import OverdueStop

_WAIT_SECONDS = 0.1
"""While it waits for another process, this one asks so often whether it was told to stop."""


@contextmanager
def side_by_side(run: Run, steps: Sequence[Step]) -> Iterator[Jobs]:
    """Processes beside this one while these steps are made; none where nothing is gained by them.

    After an error that a person can put right, the others keep what they have done before they end.
    """
    jobs = Jobs(run)
    try:
        for _ in range(_processes_beside(run, steps)):
            jobs.start()
        yield jobs
    except (NstudentError, OverdueStop):
        jobs.stop()
        raise
    finally:
        jobs.end()


def _processes_beside(run: Run, steps: Sequence[Step]) -> int:
    """How many processes to start. Where all trainings are up to date this is known before torch takes its time."""
    trainings = [step for step in steps if step.stage.apart or step.stage.aside]
    if run.world.size > 1 or not any(is_to_be_made(run, step) for step in trainings):
        return 0
    with out_of_working_folder():
        from nstudent.models.device import trainings_at_once

    return trainings_at_once(run.config) - 1


def is_to_be_made(run: Run, step: Step) -> bool:
    """Whether a step is stale, or what it is made from: that will be made again, and so perhaps will it."""
    names = [*(name for _, name in step.inputs), step.name]
    try:
        return any(run.why_stale(each) for each in run.steps if each.name in names)
    except ArtifactError:
        return True


class Jobs:
    """What other processes do for a run, what still waits for them, and what they say."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stop = run.session.stop
        self._processes: list[_JobProcess] = []
        self._waiting: list[Job] = []
        self._offered: list[Job] = []

    def __bool__(self) -> bool:
        """Whether there is any process beside this one."""
        return bool(self._processes)

    def start(self) -> None:
        """Start one more process. It imports what it needs while this one goes on."""
        if not self._processes:
            self._run.train_beside(self._turns, self._poll)
        self._processes.append(_JobProcess(self._run))

    def offer(self, step: Step) -> None:
        """Have a whole step made, before any training of the steps that come next in this process."""
        # Both are waited for where the classifiers are compared, and a whole step is the longer one: a process that
        # begins with it ends no later than one that begins with a training.
        self._offered.append((step.index, None))
        self._waiting.append((step.index, None))

    def finish(self) -> Iterator[Step]:
        """The offered steps that nobody has begun, for the caller to make; it ends when all of them are made."""
        for index, _ in self._mine(self._offered):
            yield self._run.steps[index]

    def stop(self) -> None:
        """Tell every process to keep what it has done, and wait until it has."""
        busy = [process for process in self._processes if process.job is not None]
        for process in busy:
            process.tell_to_stop()
        with suppress(StoppedError), self._stop.patiently():
            for process in busy:
                process.hear_out()

    def end(self) -> None:
        """End every process at once. None that has ended its job has anything to lose."""
        for process in self._processes:
            process.end()
        self._processes.clear()

    def _turns(self, step: Step, count: int) -> Iterator[int]:
        """The trainings of a step that nobody has begun, and then those that the others have done."""
        jobs: list[Job] = [(step.index, number) for number in range(count)]
        self._waiting += jobs
        others = set(range(count))
        for _, number in self._mine(jobs):
            assert number is not None
            others.remove(number)
            yield number
        yield from sorted(others)

    def _mine(self, jobs: Container[Job]) -> Iterator[Job]:
        while job := next((job for job in self._waiting if job in jobs), None):
            self._waiting.remove(job)
            self._poll()
            yield job
        while any(process.job in jobs for process in self._processes):
            self._stop.check()
            self._poll(_WAIT_SECONDS)

    def _poll(self, seconds: float = 0.0) -> None:
        """Hear what the others say, for so long at most, and give work to those that have none.

        Raises:
            NstudentError: of another process.
        """
        said = wait([process.connection for process in self._processes], seconds)
        for process in self._processes:
            if process.connection in said:
                try:
                    process.hear()
                except EOFError:
                    # A signal may have reached all of them.
                    self._stop.check()
                    raise process.death() from None
            if process.job is None and self._waiting:
                process.give(self._waiting.pop(0))


class _JobProcess:
    """One process, what it is doing, and the pieces of work that are shown for it."""

    def __init__(self, run: Run) -> None:
        self.job: Job | None = None
        """What it is doing; ``None``: nothing."""
        self._run = run
        # Not the progress of the run itself, which hears all processes: what one says must not make it hear more.
        self._session = run.session
        self._tasks: dict[int, tuple[Task, ExitStack]] = {}
        # A fork would hold the locks of threads that it does not have.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        settings = run.config.model_dump_json()
        self._process = context.Process(target=work, args=(theirs, settings, str(run.run_dir)), name="nstudent job")
        with _no_main_module(), safe_start():
            self._process.start()
        theirs.close()

    def give(self, job: Job) -> None:
        """Let it begin with a job."""
        self.job = job
        try:
            send(self.connection, *job)
        except OSError as error:
            raise self.death() from error

    def hear(self) -> None:
        """Take in what it has said.

        Raises:
            NstudentError: that it ended its job with.
            EOFError: it is gone.
        """
        while self.connection.poll():
            try:
                kind, *said = receive(self.connection)
            except OSError as error:
                raise EOFError from error
            self._take(kind, said)

    def hear_out(self) -> None:
        """Wait until it has ended its job, however that ends."""
        while self.job is not None:
            try:
                wait([self.connection])
                self.hear()
            except EOFError:
                self.job = None
            except Exception:
                # The run ends with the error that came first. This one is of the job, which has ended with it, or of
                # the listener, and then the job is still to be waited for.
                continue

    def tell_to_stop(self) -> None:
        """Ask it to keep what it has done, and to go no further."""
        self._process.terminate()

    def death(self) -> TrainingError:
        """The error of a process that is gone."""
        self._process.join()
        what = "before its first training"
        if self.job is not None:
            index, number = self.job
            what = f"at {self._run.steps[index].name}" + ("" if number is None else f", training {number}")
        return TrainingError(
            f"a process that trains beside this one was killed (exit code {self._process.exitcode}), {what}: "
            "probably out of memory; lower jobs, the same command goes on from there"
        )

    def end(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.join()
        self.connection.close()
        for _, shown in self._tasks.values():
            shown.close()

    def _take(self, kind: str, said: list[object]) -> None:
        match kind, said:
            case "say", [str(text)]:
                self._session.progress.say(text)
            case "begin", [int(number), str(name), int(total), str(unit), int(done)]:
                shown = ExitStack()
                self._tasks[number] = shown.enter_context(self._session.progress.task(name, total, unit, done)), shown
            case "advance", [int(number), int(amount), dict(figures)]:
                self._tasks[number][0].advance(amount, **figures)
            case "end", [int(number)]:
                self._tasks.pop(number)[1].close()
            case "begins", [str(training), list(behind)]:
                self._session.listener.begins(training, behind)
            case "epoch", [str(training), dict(entry)]:
                self._session.listener.epoch(training, entry)
            case "made", [str(step), dict(metrics)]:
                self._session.listener.made(step, metrics)
            case "done", []:
                self.job = None
            case "error", [str(name), str(text), list(problems)]:
                self.job = None
                raise _error(name, text, problems)
            case _:
                self.job = None
                raise RuntimeError(f"a job failed: {said}")


def _error(name: str, text: str, problems: list[str]) -> NstudentError:
    """The error of another process, as that process raised it."""
    kind: type[NstudentError] = getattr(errors, name)
    return ConfigError(text, problems) if kind is ConfigError else kind(text)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Let a process be started that does not run the user's script again: it has no need of what is in there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
