"""What each stage can be told: the sections of the configuration beside those of data and of labelling."""

from typing import Annotated, Literal

from nstudent.config.members import AnyMember, MemberConfig, ModelConfig, UntrainedMember
from nstudent.config.training import NoiseConfig, TrainingConfig
from nstudent.config.types import Count, Later, Number, Positive, Section, Share, Whole
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
    soup: Annotated[Literal["none", "greedy"], Later("none")] = "none"
    """greedy: beside the teacher, one network with the averaged weights of its members, of those with which it scores
    no less on validation (arXiv 2203.05482). Needs equal members that start from weights (pretrained); all parts of
    them start alike then, the head included."""

    @model_validator(mode="after")
    def _soup_of_equals(self) -> "TeacherConfig":
        if self.soup == "none":
            return self
        first = self.members[0]
        if len(self.members) < 2 or any(member != first for member in self.members):
            raise ValueError(
                f"teacher.soup={self.soup} averages the weights of two or more equal members: write the same network "
                "several times into teacher.members, or set teacher.soup=none"
            )
        if not isinstance(first, ModelConfig) or not first.pretrained:
            raise ValueError(
                f"teacher.soup={self.soup} averages networks that start from the same weights: set pretrained in each "
                "of teacher.members, or set teacher.soup=none"
            )
        return self


class ProbeStageConfig(Section):
    """What the labels give in a minute: regressions on features that are not trained."""

    members: tuple[UntrainedMember, ...] | None = None
    """Probes, whose probabilities are averaged with the weights that make held-out labels most likely. null: one, of
    the backbones of the teacher's first pretrained member, or where there is none of gradient histograms. []: none."""
    heap: Annotated[Whole, Field(ge=0, le=50_000), Later(0)] = 0
    """Unlabelled images that the probes label by themselves, once, and learn from: as further probes beside those of
    the labels alone, on the side with the heap. 0: there are none."""

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
    """A level of a pseudo-label stays where its probability, by both of them, reaches this, and so do those above."""
    labelled_threshold: Annotated[Share, Later(0.85)] = 0.85
    """A level of a label that people gave stays where it is right with at least this probability, by what probe and
    self-ensemble say of the image and by how often labels seem to be wrong."""
    iterations: Count = 2
    """Largest number of rounds of training and filtering; it stops earlier where validation no longer improves."""
    epochs: Count = 8
    """Passes over the images, an iteration."""
    warmup_epochs: Annotated[Number, Field(ge=0)] = 0.5
    """Epochs over which the learning rate rises from a hundredth of its height; a shorter training rises to its end."""
    model: ModelConfig = ModelConfig()
    """The network of the self-ensemble."""
    unlabelled_ratio: Annotated[Number, Field(ge=0)] | None = None
    """Pseudo-labelled images a labelled one in a batch. null: 3, or as many as there are if that is less; 0: none."""
    average_momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    """Weight of the past in the running average of an image's predictions, a pass."""
    consistency_weight: Annotated[Number, Field(ge=0)] = 1.0
    """Height of the consistency loss, which every image feeds, dropped or not. The squared distances are summed over
    classes: Mean Teacher's 100 times their mean (arXiv 1703.01780) is 10 for ten classes."""
    consistency_ramp: Share = 0.3
    """Share of training over which the consistency loss rises (sigmoid ramp)."""
    max_dropped_share: Share = 0.5
    """If more than this share of the labels of any level would go, none do: the filter, not the labels, is wrong."""

    @model_validator(mode="after")
    def _doubts_labels(self) -> "FilterConfig":
        if not self.labelled and self.labelled_threshold != FilterConfig.model_fields["labelled_threshold"].default:
            raise ValueError("labelled_threshold is a key of labelled=true, and labelled is false: leave it out")
        return self


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


class MetaConfig(Section):
    """Meta Pseudo Labels (arXiv 2003.10580), experimental: a teacher that learns beside the student, by how much better
    the student is on labelled images after a step on its labels. For student.method=meta_pseudo_labels alone."""

    weak: Share = 0.5
    """Noise of the view that the teacher labels: this share of noise.shift, zoom and rotate, and mirrored as by
    noise.flip. 0: no moves."""
    feedback: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of what the teacher learns from the student's gains. 0: nothing."""
    baseline: Annotated[Number, Field(ge=0, lt=1)] | None = 0.99
    """Weight of the past, a step, in the running mean of the gains that is subtracted from each. null: none is."""
    uda_weight: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the teacher's consistency: it is to say of the strong view what it says of the weak one (UDA, arXiv
    1904.12848)."""
    uda_temperature: Positive = 0.7
    """Sharpens what it says of the weak view: logits are divided by it."""
    uda_threshold: Share = 0.6
    """Smallest probability of its most probable class with which a level counts there."""
    uda_ramp: Share = 0.1
    """Share of the training over which uda_weight is reached, in a straight line."""
    finetune_epochs: Annotated[Whole, Field(ge=0)] = 10
    """Passes of the finished student over the labelled images, which it has not learnt from until then; its baseline
    makes them, too. 0: none."""
    finetune_rate: Positive = 0.1
    """Learning rate of these passes at their start, as a multiple of learning_rate; it falls to zero."""


class StudentConfig(TrainingConfig):
    """A network of at least the teacher's size, trained under noise on labels and kept pseudo-labels."""

    model: ModelConfig = ModelConfig(backbone_options={"channels": (48, 72, 96, 144)}, head_width=128)
    """The student, half as wide again as a member of the teacher; its supervised-only baseline has its architecture."""
    epochs: Count | None = None
    """Passes over the images: an epoch has as many steps as showing every image of the heap once would take, and where
    no unlabelled_ratio is given every labelled one. null: 30, and of few images as many more as make 400 steps."""
    warmup_epochs: Annotated[Number, Field(ge=0)] = 1.0
    """Epochs over which the learning rate rises from a hundredth of its height; a shorter training rises to its end."""
    unlabelled_ratio: Annotated[Number, Field(gt=0)] | None = None
    """Pseudo-labelled images a labelled one in a batch. null: 3, or as many as there are if that is less."""
    unlabelled_weight: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the pseudo-labels' loss beside that of the labels."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.995
    """Decay of the running average of the weights, a step; at step t at most (1 + t) / (10 + t)."""
    consistency: Annotated[ConsistencyConfig | None, Later(None)] = None
    """Own beliefs in place of stored labels later in the training; {} takes the defaults. null: stored labels alone."""
    method: Annotated[Literal["noisy_student", "meta_pseudo_labels"], Later("noisy_student")] = "noisy_student"
    """Who labels the heap for the student. noisy_student: the labeller, before its training. meta_pseudo_labels,
    experimental: a teacher of the student's architecture that learns beside it (arXiv 2003.10580)."""
    meta: Annotated[MetaConfig | None, Later(None)] = None
    """How that teacher and the student learn. null: by the defaults of its keys."""
    noise: NoiseConfig = NoiseConfig(operations=2, dropout=0.2, drop_path=0.1, cutmix=0.5)

    @property
    def meta_pseudo_labels(self) -> MetaConfig | None:
        """The settings of Meta Pseudo Labels; ``None`` if the student learns by another method."""
        return (self.meta or MetaConfig()) if self.method == "meta_pseudo_labels" else None

    @model_validator(mode="after")
    def _one_method(self) -> "StudentConfig":
        if self.method != "meta_pseudo_labels":
            if self.meta is not None:
                raise ValueError(f"meta is for method=meta_pseudo_labels, and method is {self.method}: leave it out")
            return self
        if self.consistency is not None:
            raise ValueError("method=meta_pseudo_labels and consistency both replace the stored labels: choose one")
        if self.loss != "cross_entropy":
            raise ValueError(f"method=meta_pseudo_labels is derived for loss=cross_entropy, and loss is {self.loss}")
        if self.unlabelled_weight != 1:
            raise ValueError(
                "method=meta_pseudo_labels has no loss beside that of the heap to weigh: leave unlabelled_weight out"
            )
        if self.finish_epochs:
            raise ValueError("method=meta_pseudo_labels ends with meta.finetune_epochs: set finish_epochs=0")
        return self

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
