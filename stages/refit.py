"""Train the last choice once more, on labels and validation together, now that nothing is left to decide.

Until here the validation images have told which classifier to take, how its parts are weighed, and how sure it may be.
Their labels are worth as much for learning as any others. So each part of the choice is trained again with them, for as
many steps and from the same start, and the weights and temperatures of the choice stay: there is no held-out image left
to fit others to. The best that the labels alone gave is trained again in the same way, so that the heap's gain can be
stated between two classifiers that know the same labels.

The labels of the heap stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nstudent.config.members import MemberConfig, ProbeConfig
from nstudent.config.schema import TrainingConfig
from nstudent.data.dataset import Dataset, Ids
from nstudent.errors import RefusedError
from nstudent.lessons import Lessons
from nstudent.models.cost import total
from nstudent.models.ensemble import Ensemble
from nstudent.models.kinds import kind_for
from nstudent.models.members import FitInputs, Fitted
from nstudent.models.network_member import NetworkMember
from nstudent.models.recipe import Recipe
from nstudent.models.soup import plain_batches, soup_of
from nstudent.randomness import Key
from nstudent.runs.candidate_ensembles import ensemble_of
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import Candidate, ChoiceMetrics, RefitMetrics, RefittedPart, TrainedMetrics
from nstudent.storage.artifact import Artifact
from nstudent.trainer import Trainer
from nstudent.training.build import Lesson


@dataclass(frozen=True, eq=False)
class _Again:
    """A member of a classifier that is to be fitted again."""

    part: str
    """Name of the step that fitted the classifier at first, or averaged it of such members."""
    settings: MemberConfig
    inputs: FitInputs

    def fit(self) -> Fitted:
        """The member that has learnt from the validation images, too."""
        return kind_for(self.settings).fit(self.settings, self.inputs)


def run(context: Context) -> RefitMetrics | None:
    """Fit every part of the choice, and of the best of the labels alone, again; save both ensembles.

    Raises:
        RefusedError: A part that grows with the images it is fitted to would make the result cost more than it may.
    """
    trainer = Trainer(context, Dataset(context.inputs["data"], context.config.data))
    choice = ChoiceMetrics.of(context.inputs["labeller"].manifest)
    sides = _sides(choice)
    again = _again(context, trainer, sides)
    _check_cost(context, trainer.dataset.image_size, choice.taken, again)
    turns = {number: again[number].fit() for number in context.turns(len(again))}
    if not context.world.leads:
        return None
    fitted: dict[str, list[Fitted]] = {}
    for number, each in enumerate(again):
        fitted.setdefault(each.part, []).append(turns[number])
    classifiers = {name: _classifier(context, trainer, name, members) for name, members in fitted.items()}
    ensembles = [ensemble_of(side, classifiers, context.config.decoder) for side in sides]
    other = len(sides) > 1
    labelled = len(Lessons(trainer, context.config, with_validation=True).ids)
    context.progress.say(
        f"  trained again on {labelled:,} images, those of validation among them: {', '.join(fitted)}. Weights and "
        "temperatures stay those of the choice, because no held-out image is left to fit others to"
    )
    metrics = RefitMetrics(
        name=choice.chosen,
        gmacs=round(ensembles[0].gmacs, 6),
        labels_alone=sides[1].name if other else None,
        labels_alone_gmacs=round(ensembles[1].gmacs, 6) if other else None,
        labelled=labelled,
        parts={name: _part(members) for name, members in fitted.items()},
    )
    for ensemble, prefix in zip(ensembles, metrics.prefixes, strict=True):
        context.reserve(sum(tensor.nbytes for member in ensemble.members for tensor in member.tensors().values()))
        ensemble.save(context.folder, prefix)
    return metrics


def train_ahead(context: Context, number: int) -> None:
    """Train one network, in another process than the one that makes the step, and leave its last checkpoint there.

    A member of a kind that leaves nothing to go on from is fitted in the process that makes the step.
    """
    trainer = Trainer(context, Dataset(context.inputs["data"], context.config.data))
    sides = _sides(ChoiceMetrics.of(context.inputs["labeller"].manifest))
    each = _again(context, trainer, sides)[number]
    if kind_for(each.settings).resumes:
        each.fit()


def _sides(choice: ChoiceMetrics) -> list[Candidate]:
    """What was chosen, and if it has seen the heap the best that did not."""
    sides = [choice.taken]
    if choice.taken.saw_heap and choice.labels_alone is not None:
        sides.append(choice.candidate(choice.labels_alone))
    return sides


def _again(context: Context, trainer: Trainer, sides: Sequence[Candidate]) -> list[_Again]:
    """All members that are to be fitted, each once, in the order of the run."""
    parts = sorted({name for side in sides for name in side.parts})
    return [each for name in parts for each in _members(context, trainer, _made(context, name))]


def _classifier(context: Context, trainer: Trainer, name: str, fitted: Sequence[Fitted]) -> Ensemble:
    """The classifier of a step, from what was fitted for it: a soup is averaged of all of that."""
    recipe, members = Recipe.read(_made(context, name)), [each.member for each in fitted]
    networks = [each.network for each in members if isinstance(each, NetworkMember)]
    if not _is_soup(context, name):
        return Ensemble(recipe, members, trainer.placement)
    ids = Lessons(trainer, context.config, with_validation=True).ids
    batches = plain_batches(trainer.dataset.pixels, ids, context.config.teacher.batch_size, trainer.placement)
    return Ensemble.of_networks(recipe, [soup_of(networks, batches, trainer.placement)], trainer.placement)


def _is_soup(context: Context, name: str) -> bool:
    soup = context.inputs.get("soup")
    return soup is not None and soup.name == name


def _made(context: Context, name: str) -> Artifact:
    return next(made for made in context.all("classifier") if made.name == name)


def _members(context: Context, trainer: Trainer, made: Artifact) -> Iterator[_Again]:
    """The members of a classifier, with the lessons of their first training and more labels.

    The keys are those of the first training: a network starts with the same weights.
    """
    config, seed, round_ = context.config, context.config.seed, made.manifest.round
    lessons = Lessons(trainer, config, with_validation=True)
    roles = {role: found.name for role, found in context.inputs.items()}
    for number, settings in _first_fitted(context, made):
        training: TrainingConfig = config.student
        key: Key = (seed, "student", round_, "network")
        heap: Ids | None = None
        if isinstance(settings, ProbeConfig) and (round_ or made.name == roles.get("probe")):
            training, lesson, key = config.teacher, lessons.probe(), (seed, "probe", round_, "member", 0)
            heap = lessons.heap_of_probe(key) if round_ else None
        elif round_:
            lesson = _student_lesson(context, lessons, made)
        elif made.name == roles.get("baseline"):
            lesson, key = lessons.baseline(), (seed, "baseline", 0, "network")
        else:
            training, lesson, key = config.teacher, lessons.teacher(number), (seed, "teacher", 0, "member", number)
        inputs = trainer.fit_inputs(f"{made.name} {number}", training, lesson, key)
        yield _Again(made.name, settings, inputs if heap is None else replace(inputs, heap=heap))


def _first_fitted(context: Context, made: Artifact) -> Iterator[tuple[int, MemberConfig]]:
    """Numbers and settings of the members that a classifier was fitted as; of a soup those of its ingredients."""
    members = Recipe.read(made).members
    if not _is_soup(context, made.name):
        yield from enumerate(members)
    else:
        # They are trained for it, also where the teacher is trained again: what each part costs stays its own.
        yield from ((number, members[0]) for number in TrainedMetrics.of(made.manifest).ingredients or ())


def _student_lesson(context: Context, lessons: Lessons, student: Artifact) -> Lesson:
    """The lesson of a student, from the labels and the selection that it was made from."""
    inputs = student.manifest.inputs
    read = {each.manifest.role: each for each in context.all("labels", "selection") if each.name in inputs}
    return lessons.student(read["labels"], read["selection"])


def _check_cost(context: Context, image_size: int, choice: Candidate, again: Sequence[_Again]) -> None:
    """Hold the limit of the final classifier before anything is trained: a probe grows with its images."""
    limit = context.config.final.max_gmacs
    if limit is None:
        return
    # A soup costs what one of its ingredients does.
    single = {each.part: each for each in again if _is_soup(context, each.part)}
    voices = [*(each for each in again if each.part not in single), *single.values()]
    costs = [kind_for(each.settings).cost(each.settings, each.inputs) for each in voices if each.part in choice.parts]
    cost = sum(cost(image_size) for cost in costs)
    if cost > limit:
        raise RefusedError(
            f"trained again on more images the final classifier would need {cost:.4g} GMACs for one image, and "
            f"final.max_gmacs is {limit:g}: set final.refit=false, or a limit with room for it"
        )


def _part(members: Sequence[Fitted]) -> RefittedPart:
    spent = total(each.spent for each in members)
    return RefittedPart(spent.image_passes, spent.training_gmacs, tuple(each.history for each in members))
