"""What the sections of the configuration are made of: their kinds of numbers, and a group that knows its keys."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict

# Strict: YAML reads on and yes as true, and pydantic would read true as 1.
Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict()]
Share = Annotated[Number, Field(ge=0.0, le=1.0)]
Positive = Annotated[Number, Field(gt=0.0)]
Count = Annotated[Whole, Field(ge=1)]
Amount = Annotated[Number, Field(gt=0.0)]
"""Below 1 a share of the images, from 1 a number of them."""

Schedule = Literal["constant", "late", "early", "ramp"]


class Section(BaseModel):
    """A frozen group of keys that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
