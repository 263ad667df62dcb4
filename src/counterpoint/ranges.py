"""Types of settings: numbers and the ranges that they must lie in."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Chance = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, lt=1e38)]  # float32 holds no more
NotNegative = Annotated[float, Field(ge=0, lt=1e38)]
