"""What the sections of the configuration are made of: their kinds of numbers, and a group that knows its keys."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, Strict, model_validator

# Strict: YAML reads on and yes as true, and pydantic would read true as 1.
Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict()]
Share = Annotated[Number, Field(ge=0.0, le=1.0)]
Positive = Annotated[Number, Field(gt=0.0)]
Count = Annotated[Whole, Field(ge=1)]
Amount = Annotated[Number, Field(gt=0.0), PlainSerializer(lambda amount: int(amount) if amount == 1 else amount)]
"""Below 1 a share of the images, from 1 a number of them. 1.0 may not be written, and is not."""

Schedule = Literal["constant", "late", "early", "ramp"]

# What a run and the recipe of its classifier both say.
Absent = Literal["ignore", "class"]
Precision = Literal["auto", "float32", "bfloat16"]
DecoderName = Literal[
    "best_path", "expected_score", "level_accuracy", "most_probable", "crm", "argmax", "majority", "stop_depth"
]
"""The decoders; what each does stands in ``labels.decoders``."""
_RUN_NAME = r"^\w[\w.-]*$"


def _run_name(name: str) -> str:
    if not re.match(_RUN_NAME, name) or name.endswith("\n"):
        raise ValueError(
            f"name is {name!r:.80}, and a folder is called that: use letters, digits, '_', '-' and '.', and begin with "
            "a letter, a digit or '_'"
        )
    return name


RunName = Annotated[str, AfterValidator(_run_name), Field(json_schema_extra={"pattern": _RUN_NAME})]
"""Name of a run, and of its folder."""
ImageSize = Annotated[Whole, Field(ge=8, le=1024)]
"""Side of a square image, in pixels."""
Bits = Annotated[Whole, Field(ge=8, le=16)]
"""Bits a channel that are used of an image of more than 8 bits."""
MaxPixels = Annotated[Count, Field(le=178_000_000)]
"""Pixels of the largest image that is decoded; the limit of it is Pillow's own."""


@dataclass(frozen=True)
class Later:
    """Marks a key that some released version did not know: ``Annotated[Number, Later(0.1)]``.

    If it is set to what was done before there was the key, it is left out of what is asked of a step
    (``Section.asked``), and the steps of an older run folder stay up to date.
    """

    before: Any
    """The value, as JSON, at which the same is done as without the key."""


class Section(BaseModel):
    """A frozen group of keys that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, given: Any) -> Any:
        """A group that is given in part keeps the rest of what this section has there by default.

        A student's noise has other defaults than noise has by itself: who asks for a flip beside it wants both.
        """
        if not isinstance(given, dict):
            return given
        groups = {
            name: field.default.beside(given[name]) | given[name]
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Section) and isinstance(given.get(name), dict)
        }
        return given | groups

    def beside(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What of this section, if it is a default, holds beside the keys that are given in its place."""
        return self.model_dump()

    def asked(self) -> dict[str, Any]:
        """A JSON object of the section, also of those within it, less the keys that came later and change nothing."""
        asked = self.model_dump(mode="json")
        for key, field in type(self).model_fields.items():
            value = getattr(self, key)
            if any(isinstance(mark, Later) and mark.before == asked[key] for mark in field.metadata):
                del asked[key]
            elif isinstance(value, Section):
                asked[key] = value.asked()
            elif isinstance(value, tuple) and value and all(isinstance(part, Section) for part in value):
                asked[key] = [part.asked() for part in value]
        return asked
