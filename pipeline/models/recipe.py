"""Everything but the weights that is needed to build an ensemble again: what ``model.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Self

from nstudent.config.file import check_section
from nstudent.config.members import MemberConfig, member_entry, read_member
from nstudent.config.schema import Config
from nstudent.config.types import Absent, Bits, ImageSize, MaxPixels, Number, Precision, Section
from nstudent.errors import ArtifactError, ConfigError, DataError
from nstudent.labels.decoders import DECODERS
from nstudent.labels.path_posterior import Calibration
from nstudent.models.links import LINKS, link_of
from nstudent.models.pooling import POOLINGS
from nstudent.storage.artifact import Artifact
from nstudent.tables import chosen
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo, field_validator, model_validator

MODEL = "model.json"
# Limits on a file that may come from a stranger.
_MAX_LEVELS = 16
# A pool has the members of several classifiers of a run, of which one alone may have 64.
_MAX_MEMBERS = 256

_Weight = Annotated[Number, Field(ge=1e-6, le=1e6)]
_Temperature = Annotated[Number, Field(ge=1e-2, le=1e2)]
_End = Annotated[Number, Field(ge=-1e2, le=1e2)]


def _tree(given: Any) -> Taxonomy:
    """A taxonomy, or the JSON object of one, as a taxonomy that a model can have."""
    try:
        taxonomy = given if isinstance(given, Taxonomy) else Taxonomy.from_json(given)
    except DataError as error:
        raise ValueError(f"taxonomy is {error}") from error
    if not 0 < taxonomy.num_levels <= _MAX_LEVELS or not taxonomy.terminals:
        raise ValueError(f"taxonomy is not a tree of classes with 1 to {_MAX_LEVELS} levels")
    return taxonomy


_Member = Annotated[MemberConfig, PlainValidator(read_member), PlainSerializer(member_entry)]


class Recipe(Section):
    """How an ensemble is built, and how its answers become labels."""

    members: Annotated[tuple[_Member, ...], Field(min_length=1, max_length=_MAX_MEMBERS)]
    """Settings of the members, in the order of their files: a section of one of the kinds in ``config.members``."""
    pooling: str = "mean"
    """Name of the rule by which the members' distributions become one (``models.pooling``)."""
    weights: tuple[_Weight, ...] | None = None
    """Weight of each member's vote, in any unit; null: all votes count the same."""
    member_temperatures: tuple[tuple[_Temperature, ...], ...] | None = None
    """Temperature of each member's distribution at each level, coarse first, before the members are pooled: one that
    was trained to doubt (label smoothing, CutMix) would else have no say beside one that is sure. null: all 1."""
    temperatures: tuple[_Temperature, ...] | None = None
    """Temperature of each level in the path posterior (``labels.path_posterior``), coarse first; null: all 1."""
    ends: tuple[_End, ...] | None = None
    """Log-odds by depth of the paths that end there, in the path posterior; null: all 0. Where neither temperatures nor
    ends are given the pooled distributions are left as they are."""
    decoder: str = "best_path"
    """Name of what turns distributions into labels (``labels.decoders``)."""
    link: str = "softmax"
    """Name of what turns a network's logits into distributions (``models.links``)."""
    taxonomy: Annotated[Taxonomy, PlainValidator(_tree), PlainSerializer(Taxonomy.to_json)]
    """The classes that the ensemble knows."""
    absent: Absent
    """Whether 'nothing' is an output, as in the configuration."""
    image_size: ImageSize
    """Side of the square images that the members see, in pixels."""
    max_pixels: MaxPixels
    """Larger images are not decoded for it."""
    bits: Bits | None = None
    """Depth of images of more than 8 bits, where their file does not say it, as in the configuration."""
    precision: Precision = "auto"
    """Type that convolutions compute in, as in the configuration."""

    @field_validator("pooling", "decoder", "link")
    @classmethod
    def _known(cls, name: str, field: ValidationInfo) -> str:
        """A name that stands in its table."""
        tables: dict[str | None, Mapping[str, object]] = {"pooling": POOLINGS, "decoder": DECODERS, "link": LINKS}
        chosen(tables[field.field_name], name, str(field.field_name))
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key, numbers, wanted, what in (
            ("weights", self.weights, len(self.members), "members"),
            ("member_temperatures", self.member_temperatures, len(self.members), "members"),
            ("temperatures", self.temperatures, self.taxonomy.num_levels, "levels"),
            ("ends", self.ends, self.taxonomy.num_levels, "levels"),
        ):
            if numbers is not None and len(numbers) != wanted:
                raise ValueError(f"{key} has {len(numbers)} numbers for {wanted} {what}")
        shape = {len(each) for each in self.member_temperatures or ()}
        if shape - {self.taxonomy.num_levels}:
            raise ValueError(f"member_temperatures has not one number for each of {self.taxonomy.num_levels} levels")
        return self

    @classmethod
    def of(cls, config: Config, taxonomy: Taxonomy, members: Sequence[MemberConfig]) -> Recipe:
        """The recipe of an ensemble that a run with this configuration trains."""
        return cls(
            members=tuple(members),
            taxonomy=taxonomy,
            absent=config.absent,
            image_size=config.data.image_size,
            max_pixels=config.data.max_pixels,
            bits=config.data.bits,
            precision=config.precision,
            link=link_of(config.teacher.loss),
        )

    def changed(self, **keys: Any) -> Self:
        """The same recipe with other values of some keys, which are checked as all are.

        Raises:
            ValueError: A value is not one that a recipe can have.
        """
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | keys)

    @cached_property
    def outputs(self) -> Outputs:
        """What the ensemble, and each of its members, can say."""
        return Outputs(self.taxonomy, self.absent)

    @property
    def calibration(self) -> Calibration | None:
        """What the pooled distributions become levels of one posterior with; ``None``: they are left as they are."""
        if self.temperatures is None and self.ends is None:
            return None
        levels = self.taxonomy.num_levels
        return Calibration(self.temperatures or (1.0,) * levels, self.ends or (0.0,) * levels)

    @classmethod
    def read(cls, artifact: Artifact, prefix: str = "") -> Recipe:
        """The recipe of a committed step's classifier; ``prefix`` is what its file name begins with.

        Raises:
            ArtifactError: The file is missing, damaged, or does not describe a model.
        """
        return cls.from_json(artifact.json(f"{prefix}{MODEL}"))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back."""
        said = self.model_dump(mode="json")
        # Keys that came later: where they say nothing, the file is the one that it was before.
        of_members = ("logit_norm", "routing_threshold")
        later = [(said, "bits"), *((member, key) for member in said["members"] for key in of_members)]
        for group, key in later:
            if group.get(key, 0) is None:
                del group[key]
        return said

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """Read what ``to_json`` wrote, in this version or in an earlier one, which wrote fewer keys.

        Raises:
            ArtifactError: It does not describe a model that a configuration could have asked for.
        """
        if not isinstance(data, dict):
            raise ArtifactError(f"{MODEL} does not describe a model: it is not a group of keys")
        try:
            return check_section(cls, data, where="what it says")
        except ConfigError as error:
            raise ArtifactError(f"{MODEL} does not describe a model: {error}") from error
