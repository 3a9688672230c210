"""What the sections of the configuration are made of: their kinds of numbers, and a group that knows its keys."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

# Strict: YAML reads on and yes as true, and pydantic would read true as 1.
Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict()]
Share = Annotated[Number, Field(ge=0.0, le=1.0)]
Positive = Annotated[Number, Field(gt=0.0)]
Count = Annotated[Whole, Field(ge=1)]
Amount = Annotated[Number, Field(gt=0.0)]
"""Below 1 a share of the images, from 1 a number of them."""

Schedule = Literal["constant", "late", "early", "ramp"]

# What a run and the recipe of its classifier both say.
Absent = Literal["ignore", "class"]
Precision = Literal["auto", "float32", "bfloat16"]
ImageSize = Annotated[Whole, Field(ge=8, le=1024)]
"""Side of a square image, in pixels."""
MaxPixels = Annotated[Count, Field(le=178_000_000)]
"""Pixels of the largest image that is decoded; the limit of it is Pillow's own."""


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
            name: field.default.model_dump() | given[name]
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Section) and isinstance(given.get(name), dict)
        }
        return given | groups
