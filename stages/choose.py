"""Choose, among all classifiers that were trained so far, the one that labels next, or is the result of the run."""

from nstudent.errors import ArtifactError
from nstudent.evaluation.scores import HEADLINE
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import Candidate, ChoiceMetrics, TrainedMetrics
from nstudent.storage.artifact import Artifact


def run(context: Context) -> ChoiceMetrics:
    """Save the ensemble that is chosen."""
    made = context.all("classifier")
    if not made:
        raise ArtifactError("choose needs a classifier, and none is made: run `nstudent stage teacher` first")
    placement = Placement.from_config(context.config)
    candidates = tuple(_candidate(each, placement) for each in made)
    Ensemble.load(made[-1], placement).save(context.folder)
    alone = [each.name for each in candidates if not each.saw_heap]
    heap = [each.name for each in candidates if each.saw_heap]
    return ChoiceMetrics(
        chosen=candidates[-1].name,
        labels_alone=alone[-1] if alone else None,
        with_heap=heap[-1] if heap else None,
        candidates=candidates,
    )


def _candidate(made: Artifact, placement: Placement) -> Candidate:
    metrics, recipe = TrainedMetrics.of(made.manifest), Ensemble.load(made, placement).recipe
    return Candidate(
        name=made.name,
        parts={made.name: 1.0},
        saw_heap=made.manifest.round > 0,
        gmacs=metrics.gmacs,
        validation=metrics.validation[HEADLINE] or 0.0,
        gain=None,
        expected=0.0,
        temperatures=recipe.temperatures,
        ends=None,
    )
