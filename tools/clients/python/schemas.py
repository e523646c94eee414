"""What answers are parsed into. Bounded in all its parts: a model of this size writes texts and lists without end."""

from typing import Annotated, Literal, Optional

from pydantic import BaseModel, Field


class Cat(BaseModel):
    colour: Literal["black", "white"]
    is_asleep: bool
    age: Optional[Annotated[int, Field(ge=0, le=30)]]
