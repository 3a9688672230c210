"""Settings of the members of an ensemble: one section for each kind of member, in a table by the name of the kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from nstudent.config.types import Count, ImageSize, Later, Number, Section, Whole
from nstudent.errors import ConfigError
from pydantic import Field, PlainSerializer, PlainValidator, model_validator

HeadName = Literal["fine_to_coarse", "coarse_to_fine", "independent", "flat", "hd_cnn", "branching"]
"""The heads of a network; what each builds stands in the table of ``models.heads``."""
LOG_PROBABILITY_HEADS: frozenset[HeadName] = frozenset({"flat", "hd_cnn"})
"""Heads whose logits are logarithms of probabilities: a yes or no for each of them means nothing."""
HEADS_OF_SEVERAL_LEVELS: frozenset[HeadName] = frozenset({"hd_cnn", "branching"})
"""Heads that are what they are by the levels above the finest: on a tree of one level they would be another head."""
HEADS_ON_MAPS: frozenset[HeadName] = frozenset({"branching"})
"""Heads whose coarse levels read shallower maps than the last one: not every network of timm gives them."""

GRADIENTS_PX = 32
"""Side of the images that gradient histograms are taken of: their cells are so many pixels wide."""


class MemberConfig(Section):
    """One member of an ensemble. Each kind of member has a section of its own, with its row in ``MEMBERS``."""

    def asked(self) -> dict[str, Any]:
        """As of any section; the kind is asked for too, unless it is a network: so it was before there were kinds."""
        kind = kind_of(self)
        return super().asked() if kind == NETWORK else {"kind": kind, **super().asked()}

    def side_seen(self, image_size: int) -> int:
        """Side of the images that the member sees, of those that it is given with ``image_size``, in pixels."""
        return image_size


class ModelConfig(MemberConfig):
    """A network: one or several backbones whose pooled features are concatenated, and a hierarchical head."""

    backbones: Annotated[tuple[str, ...], Field(min_length=1)] = ("test_resnet",)
    """Names of timm models."""
    backbone_options: dict[str, bool | int | float | str | tuple[int, ...]] = Field(default={})
    """Further keyword arguments for timm.create_model, for every backbone of this member."""
    stem: Annotated[Literal["timm", "small"], Later("timm")] = "timm"
    """How a backbone begins. timm: as it is. small: for images of about 32 px, without its first two halvings of the
    side (stride 1 in the first convolution, no max-pool or stride 1 where the side would be halved next)."""
    image_size: Annotated[ImageSize | None, Later(None)] = None
    """Side, in pixels, that larger images are brought to before the network sees them. null: they stay as they are."""
    wide_channels: Annotated[Whole, Field(ge=0)] = 0
    """Channels of one wide convolution beside the backbones; 0: none."""
    pretrained: bool | str = False
    """true: timm's weights, downloaded. A path: a safetensors file, or a folder with <backbone>.safetensors in it."""
    head: HeadName = "fine_to_coarse"
    """fine_to_coarse: coarse levels also read the detached features of finer ones. coarse_to_fine: the reverse.
    independent: each level reads the pooled features alone. flat: one softmax over all places where a label may end,
    and a class at any level has the summed probability of those below it. hd_cnn: one softmax over the coarse classes,
    and for each of them an expert in what is below it. branching: coarse levels read shallower maps of a backbone."""
    head_width: Count = 64
    """Features that a level projects for itself (fine_to_coarse, coarse_to_fine, branching), or an expert (hd_cnn)."""
    routing_threshold: Annotated[Annotated[Number, Field(gt=0, le=1)] | None, Later(None)] = None
    """hd_cnn: the expert of a coarse class that is less probable is not asked when the network is used, and what is
    below the class is equally probable; that of the most probable class always is. null: all experts are asked."""
    logit_norm: Annotated[Annotated[Number, Field(ge=0.005, le=10)] | None, Later(None)] = None
    """LogitNorm (arXiv 2205.09310): the logits of a level are divided by their length times this temperature, so that
    a network cannot become surer by larger logits; 0.04 in the paper. null: they stay as they are."""

    @model_validator(mode="after")
    def _routes_with_experts(self) -> Self:
        if self.routing_threshold is not None and self.head != "hd_cnn":
            raise ValueError(
                f"routing_threshold is a key of head=hd_cnn, and head={self.head} has no experts: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _normalises_what_it_may(self) -> Self:
        if self.logit_norm is not None and self.head in LOG_PROBABILITY_HEADS:
            raise ValueError(
                f"logit_norm divides logits by their length, and those of the head {self.head} are logarithms of "
                "probabilities, whose length means nothing: leave it out, or choose another head"
            )
        return self

    def side_seen(self, image_size: int) -> int:
        """As of any member; smaller images stay as they are."""
        return min(image_size, self.image_size or image_size)

    def beside(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """As of any section; the options of its backbones hold for no others."""
        of_backbones = {"backbone_options", "stem"} if "backbones" in given else set()
        return {key: value for key, value in super().beside(given).items() if key not in of_backbones}


class ProbeConfig(MemberConfig):
    """A regression on features that are not trained, fitted in seconds: what the labels give without a training."""

    features: Literal["gradients", "backbones", "both"] = "gradients"
    """gradients: histograms of gradient orientations. backbones: the pooled features of frozen networks, which should
    be pretrained ones. both: side by side."""
    regression: Literal["kernel_ridge", "logistic"] = "kernel_ridge"
    """What is fitted to the features."""
    mirror: bool | None = None
    """Fit to mirror images, too. null: if held-out labels are more likely so."""
    backbones: Annotated[tuple[str, ...], Field(min_length=1)] = ("test_resnet",)
    """Names of timm models, whose features stand side by side."""
    backbone_options: dict[str, bool | int | float | str | tuple[int, ...]] = Field(default={})
    """Further keyword arguments for timm.create_model, for each of them."""
    pretrained: bool | str = False
    """true: timm's weights, downloaded. A path: a safetensors file, or a folder with <backbone>.safetensors in it."""
    image_size: ImageSize | None = None
    """Side, in pixels, that the images are brought to for the backbones, also from smaller ones. null: what a
    pretrained backbone was trained at; for others the images stay as they are."""

    def side_seen(self, image_size: int) -> int:
        """As of any member: no more is seen in an image that was made larger."""
        if self.features == "gradients":
            return min(image_size, GRADIENTS_PX)
        return min(image_size, self.image_size or image_size)


NETWORK = "network"
MEMBERS: dict[str, type[MemberConfig]] = {NETWORK: ModelConfig, "probe": ProbeConfig}
"""The settings of each kind of member, by the key ``kind``. What fits and loads a member stands in ``models.kinds``."""


def kind_of(settings: Section) -> str:
    """Name of the kind of member that these settings describe.

    Raises:
        ConfigError: They are of no kind in the table.
    """
    for name, section in MEMBERS.items():
        if type(settings) is section:
            return name
    raise ConfigError(f"{type(settings).__name__} describes no kind of member: choose from {', '.join(MEMBERS)}")


def read_member(given: Any) -> MemberConfig:
    """The settings of a member, as such or as a group of keys; a group without the key ``kind`` is a network.

    Raises:
        ConfigError: The settings are of no kind in the table.
        ValueError: It is not a group of keys, there is no such kind, or the keys do not fit the kind.
    """
    if isinstance(given, MemberConfig):
        kind_of(given)
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"{given!r:.80} is not a group of keys")
    kind = str(given.get("kind", NETWORK))
    if kind not in MEMBERS:
        raise ValueError(f"kind: there is no '{kind:.40}': choose from {', '.join(MEMBERS)}")
    return MEMBERS[kind].model_validate({key: value for key, value in given.items() if key != "kind"})


def member_entry(settings: MemberConfig) -> dict[str, Any]:
    """The JSON object that ``read_member`` reads back as these settings."""
    return {"kind": kind_of(settings), **settings.model_dump(mode="json")}


def _as_written(settings: MemberConfig) -> dict[str, Any]:
    """The same, less the kind of a network: configurations do without it."""
    entry = member_entry(settings)
    return {key: value for key, value in entry.items() if (key, value) != ("kind", NETWORK)}


@dataclass(frozen=True)
class Kinds:
    """Marks a key of the configuration whose members are of one of these kinds."""

    names: tuple[str, ...]

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        """The kinds by their names; ``config.json_schema`` puts their schemas in this place."""
        return {"kinds": list(self.names)}


AnyMember = Annotated[MemberConfig, PlainValidator(read_member), PlainSerializer(_as_written), Kinds(tuple(MEMBERS))]
"""A member of any kind, as a key of the configuration."""
UntrainedMember = Annotated[AnyMember, Kinds(tuple(name for name in MEMBERS if name != NETWORK))]
"""A member of a kind that is fitted and not trained, as a key of the configuration."""
