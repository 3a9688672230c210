"""Is every file of a run what was committed, and how to make it so again."""

from dataclasses import dataclass
from pathlib import Path

from nstudent.errors import ArtifactError
from nstudent.runs.folder import Run
from nstudent.runs.stage import Step
from nstudent.session import Session
from nstudent.storage.artifact import MANIFEST, Manifest, damage, refuse_strays, strays
from nstudent.storage.commit import finish_commit, is_reopened, reopen
from nstudent.storage.links import LINK, refuse_links


@dataclass(frozen=True)
class Damage:
    """One file of a run folder that is not what was committed."""

    step: str
    file: str
    what: str


def verify(run_dir: str | Path, session: Session | None = None) -> list[Damage]:
    """Hash every file of every step again, and say which are not what was committed; links are named, not followed."""
    run = Run.reopen(run_dir, session)
    linked = [name.partition("/") for name in run.links()]
    # What is read to know the steps lies in their manifests, so that no link may stand above one.
    refuse_links(run.run_dir, (step for step, _, name in linked if not name or name == MANIFEST))
    steps = [step for step in run.needed_steps() if run.folder(step.name).exists()]
    found = [Damage(step, name, LINK) for step, _, name in linked if not (run.run_dir / step / MANIFEST).exists()]
    with run.progress.task("verify", len(steps), "steps") as task:
        for step in steps:
            found += [Damage(step.name, name, what) for name, what in damage(run.folder(step.name)).items()]
            task.advance(1)
    return found


def repair(run_dir: str | Path, session: Session | None = None) -> list[Damage]:
    """Make what is damaged again: of packed images and pseudo-labels the damaged shards alone, else the step.

    Returns what was damaged. What is made again has the bytes it had before, so nothing after it becomes stale.

    Raises:
        NstudentError: a step cannot be made again, because its data or settings are not what they were, or because
            files lie beside the damaged ones that are not its own and would become part of it.
    """
    run = Run.reopen(run_dir, session)
    found = []
    with run.locked():
        for step in run.needed_steps():
            folder = run.folder(step.name)
            finish_commit(folder)
            if is_reopened(folder):
                run.progress.say(f"{step.name}: going on with an interrupted repair")
                run.make(step)
            if not folder.exists():
                continue
            bad, foreign = damage(folder), strays(folder)
            found += [Damage(step.name, name, what) for name, what in bad.items()]
            damaged = [name for name in bad if name not in foreign]
            if damaged:
                _remake(run, step, damaged, foreign)
    return found


def _remake(run: Run, step: Step, damaged: list[str], foreign: list[str]) -> None:
    reason = run.why_stale(step)
    if reason is not None:
        raise ArtifactError(f"{step.name} is damaged and stale ({reason}): run the same command again to make it anew")
    folder = run.folder(step.name)
    refuse_strays(folder, foreign, f"{step.name}, which is damaged")
    before = Manifest.read(folder)
    reopen(folder, run.request(step), damaged)
    run.progress.say(f"{step.name}: making {', '.join(damaged)} again")
    if run.make(step).id != before.id:
        run.progress.say(f"  {step.name} came out with other bytes than before: what was made from it is stale now")
