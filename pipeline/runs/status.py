"""Where a run stands: what is done, what is stale and why."""

from dataclasses import dataclass, replace
from pathlib import Path

from nstudent.errors import ArtifactError, NstudentError
from nstudent.runs.folder import STOPPED, Run
from nstudent.runs.stage import Step
from nstudent.runs.step_metrics import read_metrics
from nstudent.storage.artifact import Manifest, Metrics
from nstudent.storage.commit import partial_folder, refusal, refuse_other_work
from nstudent.storage.files import read_json
from nstudent.storage.links import refuse_links

_UNFINISHED = ("partial", "missing")
_GOES_ON = "the same command goes on from here"


@dataclass(frozen=True)
class StepState:
    """Where one step stands."""

    step: Step
    state: str
    """done, stale, partial, missing, or 'not needed' after a filter that left nothing to learn from."""
    reason: str
    metrics: Metrics | None = None
    """What it reported; ``None`` if it is not made, or what it reported cannot be read."""


def status(run_dir: str | Path) -> list[StepState]:
    """Where each step of a run folder stands, and why.

    Raises:
        ArtifactError: The folder holds no run, or something of it is a link.
        ConfigError: Its configuration cannot be read.
    """
    return _states(Run.reopen(run_dir))


def foreseen(run: Run) -> list[StepState]:
    """What a run that is made now does with each step, and why; nothing is made or written.

    The states are those of ``words.WOULD``: beside those of ``status``, ``perhaps`` if a step is up to date and reads
    one that is yet to be made, and ``refused`` if unfinished work for other settings lies there.

    Raises:
        ArtifactError: Something of the folder is a link.
    """
    found: list[StepState] = []
    changing: list[str] = []
    for state in _states(run):
        step, reason = state.step, "" if state.reason == _GOES_ON else state.reason
        read = next((name for name in step.reads if name in changing), None)
        state = replace(state, reason=reason)
        if state.state == "done" and read is not None:
            state = replace(state, state="perhaps", reason=f"if {read} comes out different")
        elif state.state == "stale" and read is not None and not run.folder(read).exists():
            state = replace(state, reason=f"{read} is not there")
        elif state.state == "partial":
            state = _of_unfinished(run, state, ready=read is None)
        if state.state not in ("done", "not needed"):
            changing.append(step.name)
        found.append(state)
    return found


def _of_unfinished(run: Run, state: StepState, *, ready: bool) -> StepState:
    """As ``foreseen``, of a step that was begun; ``ready``: what it reads is up to date."""
    folder = run.folder(state.step.name)
    if not state.step.stage.resumes or refusal(folder) is not None:
        return replace(state, state="missing")
    try:
        if ready:
            refuse_other_work(folder, run.request(state.step))
    except NstudentError as error:
        return replace(state, state="refused", reason=str(error))
    return state


def _states(run: Run) -> list[StepState]:
    refuse_links(run.run_dir, run.links())
    needed = set(run.needed_steps())
    states = [_state(run, step, step in needed) for step in run.steps]
    next_one = next((number for number, state in enumerate(states) if state.state in _UNFINISHED), len(states))
    # What is true of all that is yet to be made is said once.
    return [
        replace(state, reason="") if number > next_one and state.reason == _GOES_ON else state
        for number, state in enumerate(states)
    ]


def _why_unfinished(run: Run, folder: Path, partial: bool) -> str:
    refused = refusal(folder)
    if refused is not None:
        return refused
    note = run.run_dir / STOPPED
    if partial and note.exists():
        return str(read_json(note).get("why", ""))
    return _GOES_ON


def _state(run: Run, step: Step, needed: bool) -> StepState:
    folder = run.folder(step.name)
    if not needed:
        return StepState(step, "not needed", run.why_ended())
    if not folder.exists():
        partial = partial_folder(folder).exists()
        return StepState(step, "partial" if partial else "missing", _why_unfinished(run, folder, partial))
    try:
        reason = run.why_stale(step)
    except NstudentError as error:
        return StepState(step, "stale", str(error))
    return StepState(step, "stale" if reason else "done", reason or "", _metrics(folder))


def _metrics(folder: Path) -> Metrics | None:
    try:
        return read_metrics(Manifest.read(folder))
    except ArtifactError:
        return None
