"""What a run has come to so far: which of its steps are still needed, and whose classifier stands."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from nstudent.errors import ArtifactError
from nstudent.runs.stage import Step
from nstudent.runs.step_metrics import ChoiceMetrics, FilterMetrics, RefitMetrics, read_metrics
from nstudent.storage.artifact import Manifest


def needed_steps(steps: Iterable[Step], run_dir: Path) -> Iterator[Step]:
    """The steps of a plan in order, without those of rounds that cannot go on.

    It reads what is made while it walks: a step that is made meanwhile counts.
    """
    ended = False
    for step in steps:
        if ended and step.round:
            continue
        yield step
        ended = ended or bool(_end(step, run_dir))


def why_ended(steps: Iterable[Step], run_dir: Path) -> str:
    """The reason why the rounds ended before the last planned one; empty if they did not."""
    return next((reason for step in steps if (reason := _end(step, run_dir))), "")


def standing(steps: Iterable[Step], run_dir: Path) -> str | None:
    """Name of the step whose classifier stands: the last choice that was made and is still part of the run, or the one
    that has trained that choice again."""
    choices = [step.name for step in needed_steps(steps, run_dir) if step.stage.provides in ("labeller", "refit")]
    return next((name for name in reversed(choices) if _gives_a_classifier(run_dir / name)), None)


def _end(step: Step, run_dir: Path) -> str:
    """The reason why no round can follow a step; empty if one can, or if nothing is known yet."""
    try:
        metrics = read_metrics(Manifest.read(run_dir / step.name))
    except ArtifactError:
        return ""
    return metrics.ended if isinstance(metrics, FilterMetrics) else ""


def _gives_a_classifier(folder: Path) -> bool:
    """Whether a choice was made there, or trained again, and can be read."""
    try:
        return isinstance(read_metrics(Manifest.read(folder)), ChoiceMetrics | RefitMetrics)
    except ArtifactError:
        return False
