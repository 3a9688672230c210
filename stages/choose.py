"""Choose, among all classifiers that were trained so far, the one that labels next, or is the result of the run.

A choice can be one classifier that was trained, all that learnt from the labels alone pooled, or all there are pooled.
Nothing is trained here, and nothing ends a run: a student that is not better than what there was is left out of the
choice, or has a small share in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from nstudent.config.members import ProbeConfig
from nstudent.data.dataset import Dataset, Ids
from nstudent.errors import ArtifactError
from nstudent.evaluation.bootstrap import paired_difference
from nstudent.evaluation.calibration import fit_calibration, images_to_fit
from nstudent.evaluation.choice import Contender, Kind, best, expected_gains
from nstudent.evaluation.metrics import Ratio
from nstudent.evaluation.pool_weights import POOL_WEIGHTS, Weigh
from nstudent.models.cost import check_final_cost
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble, Probabilities, pool_ensembles
from nstudent.models.inference import predict, told
from nstudent.models.pooling import POOLINGS
from nstudent.models.recipe import Recipe
from nstudent.runs.contributions import headline_of
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import Candidate, ChoiceMetrics, Contribution, TrainedMetrics
from nstudent.tables import chosen
from nstudent.taxonomy.tree import LabelArray

_ALONE = "labels-alone pool"
_ALL = "pool of all"
_ORDER: Mapping[Kind, int] = {"labels": 0, "soup": 0, "probe": 1, "heap": 2}
"""The first one of all is the reference."""


@dataclass(frozen=True, eq=False)
class _Trained:
    """A classifier that was trained, and what it says of the validation images."""

    name: str
    kind: Kind
    """What is known of it beforehand."""
    saw_heap: bool
    """Whether it has learnt from labels of the heap."""
    gmacs: float
    ensemble: Ensemble
    raw: Probabilities
    """Before it is calibrated."""
    decoder: str
    """As the configuration names it: that of its ensemble, and of the pools that it is a part of."""
    weigh: Weigh
    """Gives the shares of the pools that it is a part of."""


@dataclass(frozen=True, eq=False)
class _Choice:
    """What can be chosen, and how it does on the validation images."""

    name: str
    parts: dict[str, float]
    """Weights of the classifiers that were trained, by name."""
    kind: Kind
    saw_heap: bool
    gmacs: float
    ensemble: Ensemble
    headline: Ratio
    """Headline score of each image, (images, 2)."""
    left_out: Mapping[_Trained, Ratio] = field(default_factory=dict)
    """The same of the pool without one part, by the part; nothing if it is no pool."""


def run(context: Context) -> ChoiceMetrics:
    """Save the ensemble of which most is expected, and report all that could have been chosen.

    Raises:
        ArtifactError: Nothing was trained yet.
        ConfigError: Nothing is within the limit of cost.
    """
    dataset = Dataset(context.inputs["data"], context.config.data)
    trained = _trained(context, dataset)
    limit = context.config.final.max_gmacs if context.step.is_last else None
    check_final_cost({each.name: each.gmacs for each in trained}, limit)
    labels = dataset.labels[_judged(dataset, trained[0].ensemble.recipe)]
    singles = [_single(each, labels) for each in trained]
    pools = _pools([each for each in trained if _is_within(each, limit)], labels, limit)
    gains = expected_gains(_contenders(singles, pools))
    choices = {each.name: each for each in (*singles, *pools) if _is_within(each, limit)}
    metrics = _chosen([_candidate(each, singles[0], gains[each.name]) for each in choices.values()])
    taken = choices[metrics.chosen].ensemble
    context.reserve(sum(tensor.nbytes for member in taken.members for tensor in member.tensors().values()))
    taken.save(context.folder)
    for line in _in_words(metrics, singles, limit):
        context.progress.say(line)
    return metrics


def _trained(context: Context, dataset: Dataset) -> list[_Trained]:
    """Everything that was trained so far: first what learnt from the labels alone, each in the order of the run.

    Raises:
        ArtifactError: Nothing has learnt from the labels alone.
    """
    placement, walk = Placement.from_config(context.config), context.walks.batches
    weigh = chosen(POOL_WEIGHTS, context.config.pool_weights, "pool_weights")
    made = context.all("classifier")
    found, soup = [], context.inputs.get("soup")
    ids = _judged(dataset, Recipe.read(made[0])) if made else dataset.validation
    with context.progress.task(f"compare {len(made)} classifiers", len(made) * len(ids), "images") as task:
        for each in made:
            ensemble = Ensemble.load(each, placement).decoded_by(context.config.decoder)
            batch_size, telling = context.config.evaluate.batch_size, told(walk, task)
            raw = predict(ensemble.calibrated(None), dataset.pixels, ids, batch_size, walk=telling)
            cost = TrainedMetrics.of(each.manifest).gmacs
            # What is of a round has learnt from labels that were made for the heap.
            saw, decoder = bool(each.manifest.round), context.config.decoder
            kind: Kind = "soup" if soup and each.name == soup.name else _kind(saw, ensemble)
            found.append(_Trained(each.name, kind, saw, cost, ensemble, raw, decoder, weigh))
    found.sort(key=lambda each: (each.saw_heap, _ORDER[each.kind]))
    if not found or found[0].kind != "labels":
        raise ArtifactError("choose needs a trained classifier, and none is made: run `nstudent stage teacher` first")
    return found


def _kind(saw_heap: bool, ensemble: Ensemble) -> Kind:
    if all(isinstance(member, ProbeConfig) for member in ensemble.recipe.members):
        return "probe"
    return "heap" if saw_heap else "labels"


def _judged(dataset: Dataset, recipe: Recipe) -> Ids:
    """Ids of the validation images that classifiers are compared on: all, or some of them if there are many classes."""
    return images_to_fit(dataset.validation, recipe.outputs)


def _is_within(each: _Trained | _Choice, limit: float | None) -> bool:
    return limit is None or each.gmacs <= limit


def _single(trained: _Trained, labels: LabelArray) -> _Choice:
    headline = headline_of(trained.ensemble, trained.raw, labels)
    whole, cost = {trained.name: 1.0}, trained.gmacs
    return _Choice(trained.name, whole, trained.kind, trained.saw_heap, cost, trained.ensemble, headline)


def _pools(trained: Sequence[_Trained], labels: LabelArray, limit: float | None) -> list[_Choice]:
    """The pool of what learnt from the labels alone, and that of all, if the heap has a share in it."""
    alone = _pool(_ALONE, [each for each in trained if not each.saw_heap], labels, limit)
    everything = _pool(_ALL, trained, labels, limit)
    return [each for each in (alone, everything) if each and (each is alone or each.saw_heap)]


def _pool(name: str, trained: Sequence[_Trained], labels: LabelArray, limit: float | None) -> _Choice | None:
    """The pool by held-out likelihood; above the limit of cost the part with the least weight is left out of it.

    Returns:
        ``None`` if fewer than two parts are left.
    """
    parts = list(trained)
    while len(parts) > 1:
        voting = _voting(parts, labels)
        if len(voting) > 1 and (limit is None or sum(part.gmacs for part in voting) <= limit):
            without = {part: _without(part, voting, labels) for part in voting}
            return replace(_pooled(name, voting, labels), left_out=without)
        least = min(voting, key=lambda part: voting[part])
        parts = [part for part in voting if part is not least]
    return None


def _voting(parts: Sequence[_Trained], labels: LabelArray) -> dict[_Trained, float]:
    """The shares of classifiers in their pool; those that have none are left out."""
    weights = parts[0].weigh([part.raw for part in parts], labels, parts[0].ensemble.recipe.outputs)
    return {part: weight for part, weight in zip(parts, weights, strict=True) if weight}


def _without(part: _Trained, voting: Mapping[_Trained, float], labels: LabelArray) -> Ratio:
    """Headline score of each image by the other parts of a pool, weighted anew."""
    others = [each for each in voting if each is not part]
    if len(others) == 1:
        return _single(others[0], labels).headline
    rest = _voting(others, labels)
    if len(rest) > 1:
        return _pooled(part.name, rest, labels).headline
    (alone,) = rest
    return _single(alone, labels).headline


def _pooled(name: str, voting: dict[_Trained, float], labels: LabelArray) -> _Choice:
    parts, weights = list(voting), list(voting.values())
    pool = pool_ensembles([part.ensemble for part in parts], weights)
    rule = POOLINGS[pool.recipe.pooling]
    raw: Probabilities = tuple(
        rule([torch.from_numpy(level) for level in levels], weights).numpy()
        for levels in zip(*(part.raw for part in parts), strict=True)
    )
    ensemble = pool.calibrated(fit_calibration(raw, labels, pool.recipe.outputs)).decoded_by(parts[0].decoder)
    return _Choice(
        name,
        {part.name: weight for part, weight in voting.items()},
        "pool",
        any(part.saw_heap for part in parts),
        round(sum(part.gmacs for part in parts), 6),
        ensemble,
        headline_of(ensemble, raw, labels),
    )


def _contenders(singles: Sequence[_Choice], pools: Sequence[_Choice]) -> Iterator[Contender]:
    """All that are compared, and what is known of each beforehand; the first one is the reference."""
    for number, each in enumerate(singles):
        yield Contender(each.name, each.kind if number else "reference", (), each.headline)
    for each in pools:
        yield Contender(each.name, each.kind, tuple(each.parts), each.headline)


def _candidate(choice: _Choice, reference: _Choice, expected: float) -> Candidate:
    ratio, recipe = choice.headline, choice.ensemble.recipe
    return Candidate(
        name=choice.name,
        parts=choice.parts,
        saw_heap=choice.saw_heap,
        gmacs=choice.gmacs,
        validation=float(ratio[:, 0].sum() / ratio[:, 1].sum()),
        gain=None if choice is reference else paired_difference(ratio, reference.headline),
        expected=expected,
        temperatures=recipe.temperatures,
        ends=recipe.ends,
        contributions={part.name: _contribution(choice, part) for part in choice.left_out} or None,
    )


def _contribution(pool: _Choice, part: _Trained) -> Contribution:
    gain = paired_difference(pool.headline, pool.left_out[part])
    return Contribution(weight=pool.parts[part.name], gmacs=part.gmacs, gain=gain)


def _chosen(candidates: Sequence[Candidate]) -> ChoiceMetrics:
    """The best of all, and of both sides."""
    alone = [each for each in candidates if not each.saw_heap]
    heap = [each for each in candidates if each.saw_heap]
    return ChoiceMetrics(
        chosen=best(candidates).name,
        labels_alone=best(alone).name if alone else None,
        with_heap=best(heap).name if heap else None,
        candidates=tuple(candidates),
    )


def _in_words(metrics: ChoiceMetrics, singles: Sequence[_Choice], limit: float | None) -> Iterator[str]:
    """What could have been chosen, and what was."""
    yield f"  score on validation, gain over {singles[0].name} to expect on new images,"
    yield "  and cost of one image (GMACs: billions of multiply-adds):"
    for each in metrics.candidates:
        score, expected = f"{100 * each.validation:5.1f} %", f"{100 * each.expected:+6.1f} points"
        yield f"  {each.name:<18}{score}{expected}{each.gmacs:9.4g} GMACs"
    for dear in (each for each in singles if not _is_within(each, limit)):
        yield f"  {dear.name:<18}needs {dear.gmacs:.4g} GMACs, more than final.max_gmacs ({limit:g})"
    taken = metrics.taken
    for name, part in (taken.contributions or {}).items():
        yield f"  {name:<18}adds {100 * part.gain.value:+.1f} points to the {taken.name}"
    shares = ", ".join(f"{share:.0%} {name}" for name, share in taken.parts.items())
    yield f"  taken is the {taken.name}: {shares}" if len(taken.parts) > 1 else f"  taken is {taken.name}"
