"""How a network is trained: the sections that the trainings of a run have in common."""

from typing import Annotated, Literal

from nstudent.config.types import Count, ImageSize, Later, Number, Positive, Schedule, Section, Share, Whole
from pydantic import Field, model_validator


class NoiseConfig(Section):
    """What disturbs the images and the network while it trains. Labels are always made without noise."""

    shift: Share = 0.08
    """Largest translation, as a share of the side."""
    zoom: Share = 0.1
    """Largest change of scale, as a share."""
    rotate: Annotated[Number, Field(ge=0, le=180)] = 8.0
    """Largest rotation, in degrees."""
    flip: bool | None = False
    """Mirror left and right half of the time. null: unless the run's probe finds labels less likely so."""
    operations: Annotated[Whole, Field(ge=0)] = 0
    """RandAugment (arXiv 1909.13719): number of random operations an image, applied in random order."""
    magnitude: Annotated[Number, Field(ge=0, le=10)] = 5.0
    """RandAugment: strength of each operation, 0 to 10. Every operation has it in full, in a random direction."""
    magnitude_spread: Annotated[Number, Field(ge=0), Later(0.0)] = 0.0
    """RandAugment: standard deviation of the magnitude around `magnitude`, cut off at 0 and 10; 0: it is fixed."""
    erase: Share = 0.0
    """Random erasing (arXiv 1708.04896): probability that a rectangle of the image is painted over."""
    cutout: Annotated[Share, Later(0.0)] = 0.0
    """Cutout (arXiv 1708.04552): side of the grey square in every image, as a share of the image's; 0: none."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Share of the pooled features dropped before the head."""
    drop_path: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth (arXiv 1603.09382): share of residual branches dropped in the last block."""
    cutmix: Share = 0.0
    """CutMix (arXiv 1905.04899): probability that a batch is mixed, at the height of its schedule."""
    cutmix_alpha: Positive = 1.0
    """CutMix: parameter of the Beta distribution of the kept area."""
    cutmix_schedule: Schedule = "late"
    """When CutMix is on. late: in the second half of training; early: in the first; ramp: rising."""
    mixup: Share = 0.0
    """MixUp (arXiv 1710.09412): probability that a batch is blended instead, at the height of its schedule."""
    mixup_alpha: Positive = 0.2
    """MixUp: parameter of the Beta distribution of an image's share."""
    mixup_schedule: Schedule = "constant"
    """When MixUp is on, as with CutMix."""

    @model_validator(mode="after")
    def _mixed_once(self) -> "NoiseConfig":
        at_once = {self.cutmix_schedule, self.mixup_schedule} != {"early", "late"}
        if at_once and self.cutmix + self.mixup > 1 + 1e-9:
            raise ValueError(
                f"cutmix ({self.cutmix:g}) and mixup ({self.mixup:g}) add up to more than 1: a batch is mixed one way"
            )
        return self


LossName = Literal["cross_entropy", "bce", "hxe", "soft_labels", "tree_path_kl", "mcm"]
"""The losses; what each computes stands in the table of ``training.losses``."""
LevelScheduleName = Literal["constant", "b_cnn", "coarse_first"]
"""How the weights of the levels move; what each does stands in the table of ``training.schedules``."""
_KEYS_OF = {
    "hxe_alpha": ("loss", "hxe"),
    "hxe_first": ("loss", "hxe"),
    "soft_label_beta": ("loss", "soft_labels"),
    "tree_path_weight": ("loss", "tree_path_kl"),
    "class_weight_beta": ("class_weights", "effective_number"),
    "agc_factor": ("clip", "agc"),
    "step_epochs": ("schedule", "step"),
    "step_factor": ("schedule", "step"),
    "plateau_patience": ("schedule", "plateau"),
    "plateau_factor": ("schedule", "plateau"),
}
"""Keys that mean something with one choice of another key alone: they are refused where it is another."""
WITHOUT_SOFTMAX = frozenset({"bce", "mcm"})
"""Losses that do not compare the classes of a level with each other."""


class TrainingConfig(Section):
    """How one network is trained."""

    batch_size: Count = 32
    """Labelled images a step."""
    optimizer: str = "adamw"
    """Name of a timm optimizer: sgd (with Nesterov momentum), momentum (SGD without), adagrad, rmsprop, adam, adamw,
    and what timm.optim.list_optimizers() names beyond."""
    optimizer_options: Annotated[dict[str, bool | int | float | str | tuple[float, ...]], Later({})] = Field(default={})
    """Options of that optimizer beside rate and decay, such as {momentum: 0.8} or {betas: [0.9, 0.99]}."""
    learning_rate: Positive = 0.003
    """Start of the schedule, and what the warm-up rises to before it joins in."""
    schedule: Annotated[Literal["cosine", "step", "plateau", "constant"], Later("cosine")] = "cosine"
    """How the learning rate goes on after the warm-up. cosine: it falls to zero over the training. step: it drops every
    step_epochs. plateau: it drops where the validation score no longer rises. constant: it stays."""
    step_epochs: Annotated[Positive | None, Later(None)] = None
    """step: epochs from one drop to the next. null: a third of the training."""
    step_factor: Annotated[Annotated[Number, Field(gt=0, lt=1)] | None, Later(None)] = None
    """step: what the learning rate is multiplied by at each drop. null: 0.1."""
    plateau_patience: Annotated[Annotated[Whole, Field(ge=0)] | None, Later(None)] = None
    """plateau: number of scores in a row without a new best that are waited through; a training has about ten scores.
    null: 1."""
    plateau_factor: Annotated[Annotated[Number, Field(gt=0, lt=1)] | None, Later(None)] = None
    """plateau: what the learning rate is multiplied by at each drop. null: 0.1."""
    layer_decay: Annotated[Annotated[Number, Field(gt=0, le=1)], Later(1.0)] = 1.0
    """Layer-wise decay of the learning rate (BEiT, arXiv 2106.08254): each layer of a backbone learns so many times as
    fast as the one after it, the last one so many times as fast as the head. 1: all alike."""
    head_rate: Annotated[Positive, Later(1.0)] = 1.0
    """The head learns so many times as fast as learning_rate says."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.02
    """Weight decay, as the optimizer has it: adamw takes so much from each weight, in proportion to its learning rate;
    sgd, adagrad, rmsprop and adam add it to the gradient."""
    warmup_epochs: Annotated[Number, Field(ge=0)] = 3.0
    """Epochs over which the learning rate rises from a hundredth of its height; a shorter training rises to its end."""
    clip: Annotated[Literal["norm", "agc"], Later("norm")] = "norm"
    """How a gradient that is too long is shortened. norm: all weights by the same factor, to clip_norm. agc: each row
    of a weight by itself, to a share of the row's own length, the classifier's not at all (arXiv 2102.06171)."""
    clip_norm: Positive | None = 5.0
    """norm: largest norm of the gradient; null: unlimited."""
    agc_factor: Annotated[Positive | None, Later(None)] = None
    """agc: largest length of a row's gradient as a share of the row's own. null: 0.01."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.99
    """Decay of the running average of the weights, a step. The average is what is kept and what labels. At step t it is
    at most (1 + t) / (10 + t), so that a short training forgets its start: 0.99 holds from step 890 on."""
    loss: Annotated[LossName, Later("cross_entropy")] = "cross_entropy"
    """What is minimised at each level. cross_entropy: that between the labels' mass and the network's softmax. bce: one
    yes or no for every class. hxe: the classes above count by themselves (arXiv 1912.09393). soft_labels: near classes
    are taught, too (same paper). tree_path_kl: cross_entropy, and one softmax over all levels (arXiv 2512.21529). mcm:
    bce, a class being at least as likely as those below it (arXiv 2010.10151); for both teacher and student."""
    hxe_alpha: Annotated[Annotated[Number, Field(ge=0, le=10)] | None, Later(None)] = None
    """hxe: an edge of the tree weighs exp(-alpha) times as much as the one before it. null: 0.1. 0: cross_entropy."""
    hxe_first: Annotated[Literal["top", "bottom"] | None, Later(None)] = None
    """hxe: which edge has the weight 1. top: as in the authors' code, mistakes become milder. bottom: as in their
    equation, fine classes are told apart better. null: top."""
    soft_label_beta: Annotated[Annotated[Number, Field(gt=0, le=100)] | None, Later(None)] = None
    """soft_labels: a class is taught in proportion to exp(-beta x distance); the largest distance is 1. null: 10."""
    tree_path_weight: Annotated[Annotated[Number, Field(gt=0)] | None, Later(None)] = None
    """tree_path_kl: weight of the divergence beside the cross-entropy. null: 1."""
    logit_adjustment: Annotated[Number, Field(ge=0), Later(0.0)] = 0.0
    """Logit adjustment (arXiv 2007.07314): so many times the logarithm of a class's share of the labels is added to its
    logit while the network trains, so that rare classes are not at a disadvantage when it is used. 0: none."""
    coarse_prior_weight: Annotated[Annotated[Number, Field(ge=0)], Later(0.0)] = 0.0
    """Coarse category consistency of HD-CNN (arXiv 1410.0736, where it is 20): weight of the squared distance between
    the mean of the first level over the labelled images of a batch and its share among the labels. 0: none."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    """Mass spread over all classes of a level, for given labels."""
    level_weights: tuple[Positive, ...] | None = None
    """Weight of each level's loss, coarse first; null: equal."""
    level_schedule: Annotated[LevelScheduleName, Later("constant")] = "constant"
    """How the weights of the levels move while the network trains; level_weights count beside it. constant: they stay.
    b_cnn: from the coarsest level to the finest, which has the second half alone (arXiv 1709.09890). coarse_first: the
    same first half, and then all levels alike."""
    class_weights: Literal["none", "balanced", "effective_number"] = "none"
    """balanced: an image counts inverse to its class's frequency among the labels, per level. Smoothing stays even.
    effective_number: inverse to (1 - beta^images) / (1 - beta) of its class (arXiv 1901.05555)."""
    class_weight_beta: Annotated[Annotated[Number, Field(ge=0, lt=1)] | None, Later(None)] = None
    """effective_number: beta. 0: all classes weigh the same; towards 1 they are balanced. null: 0.999."""
    class_weight_cap: Annotated[Number, Field(ge=1)] = 10.0
    """Largest weight of a class."""
    class_weight_missing: Literal["one", "cap", "zero"] = "one"
    """Weight of a class without a labelled image, which only pseudo-labels can name."""
    checkpoint_activations: bool = False
    """Less memory for more time: most activations are computed again in the backward pass. No number changes."""
    train_image_size: Annotated[ImageSize | None, Later(None)] = None
    """Side, in pixels, that the images are brought to while the network learns from them; the finished network sees
    them at data.image_size (arXiv 1906.06423). null: data.image_size."""
    progressive_stages: Annotated[Count, Later(1)] = 1
    """Number of stages in which images and noise grow (EfficientNetV2, arXiv 2104.00298, where there are 4). 1: the
    same size and noise throughout."""
    progressive_start: Annotated[ImageSize | None, Later(None)] = None
    """Side, in pixels, from which images grow: the first stage lies one step above it. null: half of the last side."""
    finish_epochs: Annotated[Whole, Field(ge=0), Later(0)] = 0
    """Epochs at the end that train the head and the last normalisation of each backbone alone, at data.image_size, on
    images without noise (FixRes, arXiv 1906.06423). Needs a smaller train_image_size."""
    finish_rate: Annotated[Positive | None, Later(None)] = None
    """Learning rate at the start of the finish, as a multiple of learning_rate; it falls to zero. null: 0.1."""
    noise: NoiseConfig = NoiseConfig()

    @model_validator(mode="after")
    def _one_clip(self) -> "TrainingConfig":
        if self.clip != "norm" and self.clip_norm not in (None, TrainingConfig.model_fields["clip_norm"].default):
            raise ValueError(f"clip_norm is a key of clip=norm, and clip is {self.clip}: leave it out")
        return self

    @model_validator(mode="after")
    def _grows(self) -> "TrainingConfig":
        if self.progressive_start is not None and self.progressive_stages == 1:
            raise ValueError("progressive_start is for trainings in stages: set progressive_stages=4, or leave it out")
        if self.finish_rate is not None and not self.finish_epochs:
            raise ValueError("finish_rate is for trainings with a finish: set finish_epochs=1, or leave it out")
        if self.finish_epochs and self.train_image_size is None:
            raise ValueError(
                "finish_epochs are for trainings on smaller images: set train_image_size, or leave them out"
            )
        epochs = getattr(self, "epochs", None)
        if epochs is not None and self.finish_epochs >= epochs:
            raise ValueError(f"finish_epochs are the last of the {epochs} epochs, and {self.finish_epochs} leave none")
        return self

    def sides(self, image_size: int) -> tuple[int, int]:
        """Sides of the images between which a training grows, in pixels: below its first stage, and of its last.

        Args:
            image_size: Side of the images that the finished network sees.
        """
        last = self.train_image_size or image_size
        return self.progressive_start or last // 2, last

    def misfit(self, image_size: int, seen: int) -> str | None:
        """What is wrong with the sizes of the training if the finished network is given images of ``image_size``.

        Args:
            image_size: Side of the images, in pixels.
            seen: Side that the network brings larger images to.

        Returns:
            A sentence, or ``None``.
        """
        start, last = self.sides(image_size)
        if last > image_size or (last == image_size and self.finish_epochs):
            return f"train_image_size={last} is not below data.image_size={image_size}: lower it, or leave it out"
        if self.progressive_start is not None and self.progressive_start >= last:
            return f"images cannot grow from progressive_start={self.progressive_start} to {last} px: lower it"
        if seen < image_size and self.train_image_size is not None and last >= seen:
            return f"train_image_size={last} changes nothing for a network of image_size={seen}: lower it"
        first = start + (last - start) // self.progressive_stages
        if seen < image_size and self.progressive_stages > 1 and first >= seen:
            return f"images grow from {first} px on, which a network of image_size={seen} never sees: lower the sizes"
        return None

    @model_validator(mode="after")
    def _one_loss(self) -> "TrainingConfig":
        for key, (choice, of) in _KEYS_OF.items():
            if getattr(self, key) is not None and getattr(self, choice) != of:
                raise ValueError(
                    f"{key} is a key of {choice}={of}, and {choice} is {getattr(self, choice)}: leave it out"
                )
        if self.logit_adjustment and self.loss in WITHOUT_SOFTMAX:
            raise ValueError(f"logit_adjustment is for losses of a softmax, and loss is {self.loss}: set it to 0")
        if self.coarse_prior_weight and self.loss in WITHOUT_SOFTMAX:
            raise ValueError(f"coarse_prior_weight is for losses of a softmax, and loss is {self.loss}: set it to 0")
        if self.logit_adjustment and self.class_weights != "none":
            raise ValueError(
                f"logit_adjustment and class_weights={self.class_weights} both make up for rare classes: choose one"
            )
        return self

    @model_validator(mode="after")
    def _one_frequency(self) -> "TrainingConfig":
        if self.class_weights == "none":
            for key in ("class_weight_cap", "class_weight_missing"):
                if getattr(self, key) != TrainingConfig.model_fields[key].default:
                    raise ValueError(f"{key} is a key of class_weights, and these are none: leave it out")
        evened = "logit_adjustment" if self.logit_adjustment else f"class_weights={self.class_weights}"
        if self.coarse_prior_weight and evened != "class_weights=none":
            raise ValueError(
                f"coarse_prior_weight draws the first level to the frequencies of the labels, and {evened} away from "
                "them: choose one"
            )
        return self
