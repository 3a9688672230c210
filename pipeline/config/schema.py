"""Everything a user can set. The defaults are the embedded run: digits with 100 labels, on a laptop's CPU."""

from collections.abc import Iterator
from typing import Annotated, Literal

from nstudent.config.data import DataConfig as DataConfig
from nstudent.config.members import HEADS_OF_SEVERAL_LEVELS, LOG_PROBABILITY_HEADS
from nstudent.config.members import ModelConfig as ModelConfig
from nstudent.config.pseudolabel import PseudolabelConfig as PseudolabelConfig
from nstudent.config.stage_sections import ConsistencyConfig as ConsistencyConfig
from nstudent.config.stage_sections import EvaluateConfig as EvaluateConfig
from nstudent.config.stage_sections import FilterConfig as FilterConfig
from nstudent.config.stage_sections import FinalConfig as FinalConfig
from nstudent.config.stage_sections import MetaConfig as MetaConfig
from nstudent.config.stage_sections import ProbeStageConfig as ProbeStageConfig
from nstudent.config.stage_sections import StudentConfig as StudentConfig
from nstudent.config.stage_sections import TeacherConfig as TeacherConfig
from nstudent.config.training import WITHOUT_SOFTMAX
from nstudent.config.training import NoiseConfig as NoiseConfig
from nstudent.config.training import TrainingConfig as TrainingConfig
from nstudent.config.types import Absent, Count, DecoderName, Later, Number, Precision, RunName, Section, Whole
from pydantic import Field, model_validator


class Config(Section):
    """A whole run."""

    name: RunName | None = None
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
    pool_weights: Annotated[Literal["likelihood", "greedy"], Later("likelihood")] = "likelihood"
    """How the parts of a pool are weighed, by the validation labels. likelihood: the shares that make these most
    likely. greedy: parts come in one by one, and again, each time the one that helps most; the likeliest of these pools
    counts (Caruana et al. 2004)."""
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
    """CPU threads of networks and probes. null: all cores but those of the loader processes, or one for the thread. On
    a CPU that noises images by the batch, the cores are divided among the trainings that can run at once."""
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
        if self.student.meta_pseudo_labels is not None and not self.rounds:
            raise ValueError(
                "student.method=meta_pseudo_labels trains a student on unlabelled images, and rounds=0 none: set "
                "rounds=1, or leave the method out"
            )
        if self.student.meta_pseudo_labels is not None and self.pseudolabel.targets != "soft":
            raise ValueError(
                "student.method=meta_pseudo_labels does not learn the stored labels, which pseudolabel.targets is "
                "about: leave it out"
            )
        levels = self.data.known_levels
        problem = next(self.misfits(len(levels)), None) if levels is not None else None
        if problem is not None:
            raise ValueError(problem)
        return self

    def _networks(self) -> Iterator[tuple[str, ModelConfig, TrainingConfig]]:
        """Every network that may be trained: the key of its settings, these, and how it is trained."""
        members = [each for each in self.teacher.members if isinstance(each, ModelConfig)]
        yield from (("teacher.members", each, self.teacher) for each in members)
        yield "student.model", self.student.model, self.student
        yield "filter.model", self.filter.model, self.filter

    @model_validator(mode="after")
    def _trainings_make_sense(self) -> "Config":
        side = self.data.image_size
        for name, training in (("teacher", self.teacher), ("filter", self.filter), ("student", self.student)):
            seen = [model.side_seen(side) for _, model, of in self._networks() if of is training] or [side]
            if problem := next(filter(None, (training.misfit(side, each) for each in seen)), None):
                raise ValueError(f"{name}: {problem}")
        for name, training in (("teacher", self.teacher), ("student", self.student)):
            if self.final.refit and training.schedule == "plateau":
                raise ValueError(
                    f"{name}.schedule=plateau goes by the validation images, from which final.refit learns: choose "
                    "another schedule, or set final.refit=false"
                )
        if self.filter.finish_epochs:
            raise ValueError("filter.finish_epochs: the filter keeps no network that a finish could better: set 0")
        return self

    @model_validator(mode="after")
    def _heads_fit_losses(self) -> "Config":
        for name, model, training in self._networks():
            if model.head in LOG_PROBABILITY_HEADS and training.loss in WITHOUT_SOFTMAX:
                raise ValueError(
                    f"{name}: the head {model.head} compares all classes with each other, and loss={training.loss} "
                    "none: choose another head or another loss"
                )
        return self

    def misfits(self, depth: int) -> Iterator[str]:
        """Keys that are not for so many levels, a sentence each: those with one number a level, and those that mean
        something for several levels alone."""
        thresholds = self.pseudolabel.threshold
        if isinstance(thresholds, tuple) and len(thresholds) != depth:
            yield f"pseudolabel.threshold has {len(thresholds)} numbers for {depth} levels of data.levels"
        for section in ("teacher", "filter", "student"):
            weights = getattr(self, section).level_weights
            if weights is not None and len(weights) != depth:
                yield f"{section}.level_weights has {len(weights)} numbers for {depth} levels of data.levels"
            schedule = getattr(self, section).level_schedule
            if depth < 2 and schedule != "constant":
                yield (
                    f"{section}.level_schedule={schedule} moves weights between levels: set constant for the {depth} "
                    "level of data.levels"
                )
        for name, model, _ in self._networks():
            if depth < 2 and model.head in HEADS_OF_SEVERAL_LEVELS:
                yield (
                    f"{name}: the head {model.head} treats coarse levels apart: choose another for the {depth} level "
                    "of data.levels"
                )
