"""Everything a user can set. The defaults are the embedded run: digits with 100 labels, on a laptop's CPU."""

from collections.abc import Iterator
from typing import Annotated, Literal

from nstudent.config.data import DataConfig as DataConfig
from nstudent.config.members import LOG_PROBABILITY_HEADS, AnyMember, MemberConfig, UntrainedMember
from nstudent.config.members import ModelConfig as ModelConfig
from nstudent.config.pseudolabel import PseudolabelConfig as PseudolabelConfig
from nstudent.config.training import WITHOUT_SOFTMAX
from nstudent.config.training import NoiseConfig as NoiseConfig
from nstudent.config.training import TrainingConfig as TrainingConfig
from nstudent.config.types import (
    Absent,
    Count,
    DecoderName,
    Later,
    Number,
    Positive,
    Precision,
    Section,
    Share,
    Whole,
)
from pydantic import Field, field_validator, model_validator


class TeacherConfig(TrainingConfig):
    """The first labeller: an ensemble trained on the labels alone."""

    epochs: Count = 100
    """Passes over the labelled images."""
    batch_size: Count = 50
    """Labelled images a step."""
    members: Annotated[tuple[AnyMember, ...], Field(min_length=1, max_length=64)] = (ModelConfig(), ModelConfig())
    """Members, trained apart, whose probabilities are averaged. The key kind names another kind than network."""
    max_gmacs: Positive | None = None
    """Limit on the multiply-adds of the whole ensemble for one image, in billions; null: none."""
    cross_fit: Annotated[bool, Later(False)] = False
    """Train each member without a fold of its own of the labelled images, so that every labelled image has a prediction
    by a member that has not seen it. Needs as many members as data.folds, three or more."""


class ProbeStageConfig(Section):
    """What the labels give in a minute: regressions on features that are not trained."""

    members: tuple[UntrainedMember, ...] | None = None
    """Probes, whose probabilities are averaged. null: one, of the backbones of the teacher's first pretrained
    member, or where there is none of gradient histograms. []: no probe."""

    @field_validator("members")
    @classmethod
    def _are_not_trained(cls, members: tuple[MemberConfig, ...] | None) -> tuple[MemberConfig, ...] | None:
        for number, member in enumerate(members or ()):
            if isinstance(member, ModelConfig):
                raise ValueError(f"probe.members.{number} is a network, which is trained: put it into teacher.members")
        return members


class FilterConfig(TrainingConfig):
    """SELF (arXiv 1910.01842): labels that labeller and self-ensemble together doubt are dropped, level by level."""

    enabled: bool = False
    """Doubt the pseudo-labels. false: every one of the step before goes on, with its probabilities as it is."""
    labelled: bool = False
    """Doubt the labels people gave, too."""
    threshold: Share = 0.5
    """A level stays where the probability of its label, by both of them, reaches this, and so do those above."""
    iterations: Count = 2
    """Largest number of rounds of training and filtering; it stops earlier where validation no longer improves."""
    epochs: Count = 8
    """Passes over the images, an iteration."""
    warmup_epochs: Annotated[Number, Field(ge=0)] = 0.5
    """Epochs over which the learning rate rises from a hundredth of its height."""
    model: ModelConfig = ModelConfig()
    """The network of the self-ensemble."""
    unlabelled_ratio: Annotated[Number, Field(ge=0)] = 3.0
    """Pseudo-labelled images a labelled one in a batch."""
    average_momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    """Weight of the past in the running average of an image's predictions, a pass."""
    consistency_weight: Annotated[Number, Field(ge=0)] = 1.0
    """Height of the consistency loss, which every image feeds, dropped or not. The squared distances are summed over
    classes: Mean Teacher's 100 times their mean (arXiv 1703.01780) is 10 for ten classes."""
    consistency_ramp: Share = 0.3
    """Share of training over which the consistency loss rises (sigmoid ramp)."""
    max_dropped_share: Share = 0.5
    """If more than this share of the labels of any level would go, none do: the filter, not the labels, is wrong."""


class ConsistencyConfig(Section):
    """A student that goes on learning: as far as its averaged network is sure of a weakly noised image, that belief
    takes the place of the stored label (after FixMatch, arXiv 2001.07685, and SoftMatch, arXiv 2301.10921)."""

    begins: Annotated[Number, Field(ge=0, lt=1)] = 0.3
    """Fraction of the training up to which the stored labels alone are taught."""
    full: Annotated[Number, Field(gt=0, le=1)] = 0.7
    """Fraction of the training from which on the share is at its height; it rises in a straight line."""
    share: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Height of the share: how far a belief that is certain takes the place of the stored label."""
    weak: Share = 0.5
    """Noise of the view that the averaged network looks at: this share of noise.shift, zoom and rotate, and mirrored as
    by noise.flip. 0: no moves."""
    temperature: Positive = 0.5
    """Sharpens the beliefs: probabilities of paths are raised to the power of 1 / temperature."""
    align: bool = True
    """Draw the mean of the beliefs to the shares of the classes among the labels (ReMixMatch, arXiv 1911.09785)."""
    sigmas: Annotated[Number, Field(ge=0)] = 2.0
    """How fast the weight of a belief falls with its confidence below the mean, in standard deviations (SoftMatch). 0:
    every belief has the weight 1."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.99
    """Weight of the past in the running means that alignment and weights go by, a step."""

    @model_validator(mode="after")
    def _rises(self) -> "ConsistencyConfig":
        if self.begins >= self.full:
            raise ValueError(f"begins ({self.begins:g}) is not before full ({self.full:g})")
        return self


class StudentConfig(TrainingConfig):
    """A network of at least the teacher's size, trained under noise on labels and kept pseudo-labels."""

    model: ModelConfig = ModelConfig(backbone_options={"channels": (48, 72, 96, 144)}, head_width=128)
    """The student, half as wide again as a member of the teacher; its supervised-only baseline has its architecture."""
    epochs: Count | None = None
    """Passes over the unlabelled heap: an epoch has as many steps as showing every image once would take. null: 30, and
    over a small heap so many more that the training has 400 steps."""
    warmup_epochs: Annotated[Number, Field(ge=0)] = 1.0
    """Epochs over which the learning rate rises from a hundredth of its height."""
    unlabelled_ratio: Annotated[Number, Field(gt=0)] | None = None
    """Pseudo-labelled images a labelled one in a batch. null: 3, or as many as there are if that is less, but one."""
    unlabelled_weight: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the pseudo-labels' loss beside that of the labels."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.995
    """Decay of the running average of the weights, a step; at step t at most (1 + t) / (10 + t)."""
    consistency: Annotated[ConsistencyConfig | None, Later(None)] = None
    """Own beliefs in place of stored labels later in the training; {} takes the defaults. null: stored labels alone."""
    noise: NoiseConfig = NoiseConfig(operations=2, dropout=0.2, drop_path=0.1, cutmix=0.5)

    @model_validator(mode="after")
    def _consistency_of_a_softmax(self) -> "StudentConfig":
        if self.consistency is not None and self.loss == "mcm":
            raise ValueError("consistency reads the networks of a softmax, and loss is mcm: set consistency to null")
        return self


class FinalConfig(Section):
    """What the final classifier may be. The labellers of the rounds have no such limits."""

    max_gmacs: Annotated[Positive | None, Later(None)] = None
    """Limit on its multiply-adds for one image, in billions; null: none. Of what fits, the best is taken."""
    refit: Annotated[bool, Later(False)] = False
    """Train what was chosen once more, on labels and validation together, after the last decision. It takes as long as
    its trainings took, and the best of the labels alone is trained again beside it, to be compared with."""


class EvaluateConfig(Section):
    """How the scores at the end are made."""

    resamples: Count = 1000
    """Bootstrap resamples behind each interval."""
    confidence: Annotated[Number, Field(gt=0, lt=1)] = 0.95
    """Coverage of the intervals."""
    batch_size: Count | None = None
    """Largest number of images scored at once; null: as in labelling."""


class Config(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] | None = None
    """Name of the run; its folder is runs/NAME unless --run-dir says otherwise. null: that of the data source."""
    seed: Annotated[Whole, Field(ge=0)] = 0
    """Every random choice of the run follows from it."""
    rounds: Annotated[Whole, Field(ge=0)] = 1
    """Rounds of pseudo-labels, filter and student. 0: the teacher alone."""
    absent: Absent = "ignore"
    """A level below a label's end teaches nothing, or (where inner nodes are terminals) is a class 'nothing'."""
    decoder: Annotated[Literal["auto"] | DecoderName, Later("auto")] = "auto"
    """How probabilities become a path of the tree, wherever the labellers and the final classifier speak. auto:
    expected_score if the classifier is calibrated, else best_path. best_path: the highest mean of log-probabilities.
    expected_score: the best expected level accuracy and whole path together. level_accuracy: the best expected level
    accuracy alone. most_probable: the most probable path. crm: the mildest expected mistake, by the height of the
    lowest common ancestor. argmax: from the top, the most probable output of each level. majority: as deep as one class
    has more than half of all probability. stop_depth: the most probable depth, and the most probable path to it. The
    last two need absent=class."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: CUDA, else Apple's GPU, else the CPU."""
    precision: Precision = "auto"
    """auto: bfloat16 where the chip has it and the network gains (a CPU: from 32 px on). Weights stay float32."""
    compile: Literal["none", "default", "reduce-overhead"] = "none"
    """torch.compile, for training and labelling on a GPU: a minute or more each. reduce-overhead: with CUDA graphs."""
    cuda_graphs: bool = True
    """Steps of a training are recorded on a GPU and replayed, so that it need not wait for the host to launch its
    kernels one by one. The numbers are the same; false saves memory, about that of one step's activations."""
    deterministic: bool = False
    """Equal runs on the same GPU give equal results, with slower kernels. On a CPU they do in any case."""
    augment: Literal["auto", "image", "batch"] = "auto"
    """How training images are noised: one by one, or a batch at a time where the network runs (the same distributions,
    other draws). auto: by the batch on a GPU, and on a CPU up to 64 px."""
    workers: Annotated[Whole, Field(ge=0)] | None = None
    """Processes that fetch images and noise them one by one. null: none where a thread prepares whole batches (images
    up to 64 px; on a GPU also larger ones kept as pixels); else one, or up to 8 beside a GPU, where there are cores for
    them and a process starts cheaply (Linux)."""
    threads: Count | None = None
    """CPU threads of the networks. null: all cores but those of the loader processes, or one for the thread. On a CPU
    that noises images by the batch, the cores are divided among the trainings that can run at once."""
    jobs: Count | None = None
    """Independent trainings that run at once on a CPU: the teacher's members, and the baseline beside them. null: as
    many as there are cores and memory for. 1: one after another. No result changes. A GPU trains one at a time."""
    checkpoint_minutes: Annotated[Number, Field(ge=0)] = 0.2
    """A training is kept on disk so often, or less where that would cost it 2 % of its time. 0: after every step."""
    track: Annotated[Literal["none", "tensorboard"], Later("none")] = "none"
    """Where the curves of the trainings go beside curves/*.csv. tensorboard: RUN/tensorboard, for `tensorboard
    --logdir`; it needs the extra nstudent[track]."""
    data: DataConfig = DataConfig()
    probe: ProbeStageConfig = ProbeStageConfig()
    teacher: TeacherConfig = TeacherConfig()
    pseudolabel: PseudolabelConfig = PseudolabelConfig()
    filter: FilterConfig = FilterConfig()
    student: StudentConfig = StudentConfig()
    final: FinalConfig = FinalConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def run_name(self) -> str:
        """``name`` with its default filled in."""
        return self.name or self.data.source

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        folds, members = self.data.folds, len(self.teacher.members)
        if self.teacher.cross_fit and not 3 <= folds == members:
            raise ValueError(
                f"teacher.cross_fit needs a fold for each member, and three or more of both: data.folds is {folds}, "
                f"teacher.members has {members}"
            )
        if self.decoder in ("majority", "stop_depth") and self.absent != "class":
            raise ValueError(
                f"decoder: {self.decoder} decides where labels end early, which nothing speaks for with "
                f"absent={self.absent}: set absent=class, or choose another decoder"
            )
        constrained = [self.teacher.loss == "mcm", self.student.loss == "mcm"]
        if any(constrained) and not all(constrained):
            raise ValueError("networks of loss=mcm cannot be pooled with others: set teacher.loss and student.loss")
        if self.filter.loss == "mcm" or (any(constrained) and (self.filter.enabled or self.filter.labelled)):
            raise ValueError(
                "the filter cannot judge with loss=mcm: set filter.loss to another, and beside teacher.loss=mcm leave "
                "filter.enabled and filter.labelled false"
            )
        levels = self.data.known_levels
        problem = next(self.misfits(len(levels)), None) if levels is not None else None
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _heads_fit_losses(self) -> "Config":
        members = [each for each in self.teacher.members if isinstance(each, ModelConfig)]
        trained = [("teacher.members", each, self.teacher.loss) for each in members]
        trained += [("student.model", self.student.model, self.student.loss)]
        trained += [("filter.model", self.filter.model, self.filter.loss)]
        for name, model, loss in trained:
            if model.head in LOG_PROBABILITY_HEADS and loss in WITHOUT_SOFTMAX:
                raise ValueError(
                    f"{name}: the head {model.head} compares all classes with each other, and loss={loss} none: "
                    "choose another head or another loss"
                )
        return self

    def misfits(self, depth: int) -> Iterator[str]:
        """Keys with one number a level that are not for so many levels, a sentence each."""
        thresholds = self.pseudolabel.threshold
        if isinstance(thresholds, tuple) and len(thresholds) != depth:
            yield f"pseudolabel.threshold has {len(thresholds)} numbers for {depth} levels of data.levels"
        for section in ("teacher", "filter", "student"):
            weights = getattr(self, section).level_weights
            if weights is not None and len(weights) != depth:
                yield f"{section}.level_weights has {len(weights)} numbers for {depth} levels of data.levels"
