"""The rungs of the contest diary, climbed one after another: each adds one thing to the last.

    python benchmarks/ladder.py --data FOLDER                                  # three data sets, three seeds
    python benchmarks/ladder.py --data FOLDER --what beyond pairs decoders --seeds 0
    python benchmarks/ladder.py --tables                                       # Markdown, from the rows alone

The project began with such a diary: 0.23 for the first network, 0.933 for the last. Its images are private, so the
rungs are climbed on Fashion-MNIST (1,000 labels), Grocery photos (a quarter of the labels, ImageNet weights of Lite0
and Lite2) and a synthetic tree of the contest's shape. On ``rungs`` a network learns from the labels alone, by the same
number of passes on each. ``beyond`` puts what the contest left no time for on the rung that is best on validation,
whose rows must be there; ``pairs`` exchanges the head or the loss of one rung, and ``decoders`` decodes one trained
network in every way. Rows are kept as ``results.py`` keeps them, in benchmarks/rows/ladder.jsonl; a run whose row is
there is not made again.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import rows
from checkouts import HERE, package
from core_data import found
from ladder_decoders import decode_in_every_way
from ladder_tables import best_rung, ladder_tables
from pool import Asked, Code, Pool, tasks
from results import commit_of
from settings import LADDER, Data, one_core

ROWS = HERE / "benchmarks" / "rows" / "ladder.jsonl"


@dataclass(frozen=True)
class Networks:
    """What the networks of a data set are, as keys of a member, and how long they learn."""

    small: str
    better: str
    fused: str
    epochs: int


@dataclass(frozen=True)
class Rung:
    """Where the configuration stands; the next rung is a copy with one change."""

    name: str
    network: str = "small"
    head: str = "flat"
    loss: str = "cross_entropy"
    absent: str = "ignore"
    class_weights: str = "none"
    cutmix: float = 0.0
    members: int = 1
    further: tuple[str, ...] = ("rounds=0", "probe.members=[]")

    def words(self, networks: Networks) -> list[str]:
        """``KEY=VALUE`` words of it on a data set. The student is as the teacher is."""
        model = f"{{{getattr(networks, self.network)}, head: {self.head}}}"
        alike = (f"loss={self.loss}", f"class_weights={self.class_weights}", f"noise.cutmix={self.cutmix}")
        return [
            f"teacher.members=[{', '.join([model] * self.members)}]",
            f"student.model={model}",
            f"absent={self.absent}",
            f"teacher.epochs={networks.epochs}",
            *(f"{stage}.{word}" for stage in ("teacher", "student") for word in alike),
            *self.further,
        ]


def climbed() -> list[Rung]:
    """The rungs of the diary, in its order.

    What stood before its one BCE the diary does not say; a softmax over the final labels stands for it.
    """
    rungs = [Rung("one softmax over the final labels")]
    for name, change in (
        ("a better backbone", {"network": "better"}),
        ("one BCE over all classes", {"head": "independent", "loss": "bce"}),
        ("a cross-entropy per level, a class 'nothing'", {"loss": "cross_entropy", "absent": "class"}),
        ("missing levels masked", {"absent": "ignore"}),
        ("class weights", {"class_weights": "balanced"}),
        ("two backbones and a wide convolution fused", {"network": "fused"}),
        ("heads fine to coarse", {"head": "fine_to_coarse"}),
        ("late CutMix", {"cutmix": 0.5}),
    ):
        rungs.append(replace(rungs[-1], name=name, **change))
    return rungs


def beyond(rung: Rung) -> list[Rung]:
    """What the contest left no time for, each on top of a rung; Meta Pseudo Labels are for cross-entropy alone."""
    noisy = replace(rung, name=f"noisy student ({rung.name})", further=("probe.members=[]",))
    further = {"noisy student, SELF": "filter.enabled=true"}
    if rung.loss == "cross_entropy":
        further["Meta Pseudo Labels"] = "student.method=meta_pseudo_labels"
    return [
        replace(rung, name=f"two networks ({rung.name})", members=2),
        noisy,
        *(
            replace(noisy, name=f"{name} ({rung.name})", further=(*noisy.further, word))
            for name, word in further.items()
        ),
    ]


def pairs() -> list[Rung]:
    """Heads with cross-entropy, and losses on the default head: one network, a class 'nothing', no weights."""
    base = Rung("fine_to_coarse, cross_entropy", network="better", head="fine_to_coarse", absent="class")
    heads = ("independent", "coarse_to_fine", "flat", "hd_cnn", "branching")
    losses = ("bce", "mcm", "hxe", "soft_labels", "tree_path_kl")
    return [
        base,
        *(replace(base, name=f"{head}, cross_entropy", head=head) for head in heads),
        *(replace(base, name=f"fine_to_coarse, {loss}", loss=loss) for loss in losses),
    ]


PARTS: dict[str, Callable[[], list[Rung]]] = {
    "rungs": climbed,
    "beyond": lambda: [each for rung in climbed() for each in beyond(rung)],
    "pairs": pairs,
}
"""The rungs that there may be rows of; of those beyond the diary, only the ones on a data set's best rung are made."""


def networks_of(setting: str, data: Data) -> Networks:
    """The networks that a data set is climbed with."""
    if setting != "ladder_grocery":
        return Networks(
            small="backbones: [test_byobnet]",
            better="backbones: [test_resnet]",
            fused="backbones: [test_resnet, test_efficientnet], wide_channels: 32",
            epochs=40 if setting == "ladder_fashion" else 25,
        )
    small, better = "tf_efficientnet_lite0", "tf_efficientnet_lite2"
    where = "ImageNet weights of timm's EfficientNet-Lite0 and Lite2, weights/NAME.safetensors each."
    (weights,) = {found(data.folders, f"weights/{name}.safetensors", where).parent for name in (small, better)}
    return Networks(
        small=f"backbones: [{small}], pretrained: {weights}",
        better=f"backbones: [{better}], pretrained: {weights}",
        fused=f"backbones: [{small}, {better}], pretrained: {weights}, wide_channels: 32",
        epochs=12,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS, help="file that rows are read from and added to")
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder with files of the settings")
    parser.add_argument("--settings", nargs="+", default=list(LADDER), choices=list(LADDER))
    parser.add_argument("--what", nargs="+", default=["rungs"], choices=[*PARTS, "decoders"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="folder for the runs")
    parser.add_argument("--tables", action="store_true", help="make no run: print the tables of all rows")
    arguments = parser.parse_args()
    if not arguments.tables:
        measure(arguments)
    print(
        ladder_tables(
            rows.read([arguments.rows]), {part: [rung.name for rung in make()] for part, make in PARTS.items()}
        )
    )


def measure(arguments: argparse.Namespace) -> None:
    """Make the runs that have no row.

    Raises:
        SystemExit: a run has failed.
    """
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    commit = commit_of(HERE)
    code = Code(commit, package(HERE, work / f"code-{commit}"))
    data = Data.of([path.resolve() for path in arguments.data], work / "data")
    waiting = []
    for setting in arguments.settings:
        networks = networks_of(setting, data)
        made = rows.read([arguments.rows])
        variants = {rung.name: rung.words(networks) for rung in _asked(arguments.what, setting, made)}
        waiting += tasks(Asked([setting], variants, arguments.seeds, [code]), made, data, "cpu")
    pool = Pool({"cpu": arguments.jobs}, {commit: code.folder}, work, arguments.rows.resolve())
    pool.work(sorted(waiting, key=lambda task: task.key.seed))
    if pool.missing:
        raise SystemExit(f"{len(pool.missing)} of {len(waiting)} runs have no row")
    if "decoders" in arguments.what:
        for setting in arguments.settings:
            words = [*LADDER[setting].words(data, 0), *one_core(commit), *pairs()[0].words(networks_of(setting, data))]
            for seed in arguments.seeds:
                decode_in_every_way(setting, words, seed, code, arguments.rows.resolve(), work)


def _asked(what: Sequence[str], setting: str, made: Sequence[rows.Json]) -> list[Rung]:
    rungs: list[Rung] = []
    for part in what:
        if part == "beyond":
            diary = {rung.name: rung for rung in climbed()}
            rungs += beyond(diary[best_rung(made, setting, list(diary))])
        elif part in PARTS:
            rungs += PARTS[part]()
    return rungs


if __name__ == "__main__":
    main()
