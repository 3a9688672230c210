"""Walk the steps of a run: skip what is up to date, make the rest, leave out rounds that cannot go on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nstudent.config.schema import Config
from nstudent.distributed.world import IndependentJob
from nstudent.errors import ConfigError
from nstudent.runs.folder import Run
from nstudent.runs.jobs import Jobs, is_to_be_made, side_by_side
from nstudent.runs.plan import STAGES, check_stage, needed_until
from nstudent.runs.preflight import check_heap
from nstudent.runs.rehearsal import rehearse
from nstudent.runs.stage import Step
from nstudent.session import Session
from nstudent.storage.commit import finish_commit, partial_folder, refuse_other_work


def run_all(
    config: Config,
    run_dir: str | Path | None = None,
    session: Session | None = None,
    *,
    until: str | None = None,
) -> Path:
    """Make every step of the run that is not up to date, and return the run folder.

    Args:
        config: From ``load_config``.
        run_dir: Default ``runs/<config.name>``.
        session: Who is told of the work and may stop it, and the processes that share it. Default: this process alone,
            which says nothing.
        until: Name of a stage: make its last step and what that is made from, directly or not, and nothing else. Until
            ``student`` the scores are not made, so no test image is looked at. A later call goes on from there.

    Raises:
        ConfigError: ``until`` is not a stage, or the run has no step of it.
        NstudentError: with a line that says what to put right. What was made stays; the same call goes on from there.
    """
    run = Run.open(config, run_dir, session)
    steps = needed_until(run.steps, until)
    with run.as_leader() as leads:
        if leads:
            _refuse_other_work(run, steps)
            check_heap(config, [step for step in steps[:1] if is_to_be_made(run, step)])
            run.write_config()
            _rehearse(run, steps)
            with run.foreseen(steps), side_by_side(run, steps) as jobs:
                _make_all(run, steps, jobs)
            run.write_final()
    return run.run_dir


def run_stage(config: Config, stage: str, run_dir: str | Path | None = None, session: Session | None = None) -> Path:
    """Make the first step of one stage that is not up to date; its inputs must be there.

    Returns the folder of that step, or of the last one where all are up to date.

    Raises:
        ConfigError: there is no such stage, or the run has no step of it.
        NstudentError: an input is missing, or the step fails.
    """
    check_stage(stage)
    run = Run.open(config, run_dir, session)
    with run.as_leader() as leads:
        if not leads:
            return run.run_dir
        steps = [step for step in run.needed_steps() if step.stage.name == stage]
        if not steps:
            why = run.why_ended() or f"with rounds={config.rounds} none is planned"
            raise ConfigError(f"this run has no {stage} step: {why}")
        asked = {name for step in steps for role, name in step.inputs if role in step.stage.asks(config)}
        before = [each for each in run.needed_steps() if each.stage.name in STAGES[stage].after or each.name in asked]
        wanted = next((step for step in steps if is_to_be_made(run, step)), steps[-1])
        _refuse_other_work(run, [*before, wanted])
        run.write_config()
        with run.foreseen([*before, wanted], of="stage"):
            for each in before:
                _make_if_stale(run, each)
            _rehearse(run, steps)
            with side_by_side(run, [step for step in steps if step.stage.apart]):
                made = next((step for step in steps if _make_if_stale(run, step)), steps[-1])
        return run.folder(made.name)


def run_part(
    config: Config,
    stage: str,
    part: IndependentJob,
    run_dir: str | Path | None = None,
    session: Session | None = None,
) -> Path:
    """Make one part of a labelling, beside other jobs that make the others; ``run_stage`` then puts them together.

    Returns the folder that the files lie in until then.

    Raises:
        ConfigError: the stage cannot be made in parts.
        NstudentError: nothing is to be labelled, an input is missing, or the labelling fails.
    """
    divisible = [name for name, each in STAGES.items() if each.in_parts]
    if stage not in divisible:
        raise ConfigError(f"--shard is for the stage {', '.join(divisible)}; {stage} cannot be made in parts")
    run = Run.open(config, run_dir, replace(session or Session(), world=part))
    steps = [step for step in run.needed_steps() if step.stage.name == stage]
    step = next((step for step in steps if run.why_stale(step)), None)
    if step is None:
        raise ConfigError(f"{run.run_dir} needs no labels: all of them are there, or rounds=0")
    run.make_part(step, part)
    return partial_folder(run.folder(step.name))


def _refuse_other_work(run: Run, steps: Sequence[Step]) -> None:
    """Refuse what a step would refuse later on, before the configuration in the folder becomes one that is refused."""
    for step in steps:
        folder = run.folder(step.name)
        finish_commit(folder)
        if not step.stage.resumes or folder.exists() or not partial_folder(folder).exists():
            continue
        inputs = [each for each in run.steps if each.name in (name for _, name in step.inputs)]
        if not any(is_to_be_made(run, each) for each in inputs):
            refuse_other_work(folder, run.request(step))


def _rehearse(run: Run, steps: Sequence[Step]) -> None:
    """Try the networks that are yet to be trained: those of the first step that is to be made, and of all after it."""
    first = next((number for number, step in enumerate(steps) if is_to_be_made(run, step)), len(steps))
    rehearse(run.config, steps[first:], run.progress, run.world.size)


def _make_all(run: Run, steps: Sequence[Step], jobs: Jobs) -> None:
    """Walk the steps. Where there are processes beside this one, those that stand aside are left to them."""
    aside = [step for step in steps if step.stage.aside] if jobs else []
    for step in run.needed_steps():
        if step not in steps:
            continue
        if any(other.name in step.reads for other in aside):
            _finish(run, jobs)
        if step in aside:
            continue
        _make_if_stale(run, step)
        for other in aside:
            if step.name in other.reads and _is_stale(run, other):
                jobs.offer(other)
    _finish(run, jobs)


def _finish(run: Run, jobs: Jobs) -> None:
    """Make what no other process has begun, and wait for what the others make."""
    for left in jobs.finish():
        run.make(left)


def _make_if_stale(run: Run, step: Step) -> bool:
    """Make a step where that is needed; returns whether it was."""
    if not _is_stale(run, step):
        # A run that was killed when its data were made has not come to that.
        run.note_source(step)
        return False
    run.make(step)
    run.write_final()
    return True


def _is_stale(run: Run, step: Step) -> bool:
    """Whether a step is to be made, and say why."""
    finish_commit(run.folder(step.name))
    reason = run.why_stale(step)
    run.progress.say(f"{step.name}: {reason or 'up to date'}")
    return reason is not None
