"""What a model proposes as a schema: names, types of a closed set, descriptions. No code of a model's is ever carried out."""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .json_schemas import class_name, model_of, spelled, titled
from .schemas import InferredSchema, fields_of

__all__ = ["Proposal", "ProposedField", "instructions", "proposed"]

Kind = Literal["text", "integer", "number", "boolean", "date", "datetime", "choice", "list of texts", "list of choices"]

_TYPES: dict[str, Any] = {
    "text": str, "integer": int, "number": float, "boolean": bool, "date": datetime.date, "datetime": datetime.datetime,
    "list of texts": list[str],
}  # fmt: skip

#: Choices of one field; a model that lists more has counted values and chosen none.
_MOST_CHOICES = 50


class ProposedField(BaseModel):
    """One column of the table."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="One to three words in snake_case.", max_length=80)
    type: Kind = Field(description='"choice" and "list of choices" wherever a few words cover what the samples say.')
    description: str = Field(description="One sentence that tells whoever fills the column in what to write, and in which unit.")
    optional: bool = Field(description="Whether some texts do not say it.")
    choices: list[str] | None = Field(
        None, description="Of a choice: all of its values, the last one for whatever fits none of the others."
    )


class Proposal(BaseModel):
    """The columns of a table."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="What one row of the table is, in one or two words.", max_length=80)
    description: str = Field(description="One sentence: what one row of the table tells.")
    fields: list[ProposedField] = Field(description="The most useful ones first.", min_length=1)


def instructions(goal: str, most: int) -> str:
    """What is asked of the model beside the samples."""
    return (
        "Design the columns of a table. Somebody will read many texts like the samples in the user's message and fill in a row for each. "
        f"This is what the table is for:\n\n{goal}\n\n"
        f"Propose at most {most} fields: those that this purpose needs and that the samples say something about, and no others. Each is "
        "filled in from one text alone, so ask for nothing that takes a comparison of texts."
    )


def proposed(proposal: Proposal, most: int) -> tuple[InferredSchema, int]:
    """The class that a proposal describes, and how many of its fields are left out since there are too many."""
    fields: dict[str, Any] = {}
    for one in proposal.fields[:most]:
        said = _snake(one.name)
        name, number = said, 1
        while name in fields:
            number += 1
            name = f"{said}_{number}"
        kind = _type_of(one)
        about = " ".join(one.description.split()) or None
        key, told = spelled(name)
        info: dict[str, Any] = {**told, "description": about}
        fields[key] = (kind | None, Field(None, **info)) if one.optional else (kind, Field(**info))
    model = model_of(class_name(titled(proposal.name)), fields, " ".join(proposal.description.split()) or None)
    return InferredSchema(model, fields_of(model).source), len(proposal.fields[most:])


def _type_of(one: ProposedField) -> Any:
    choices = list(dict.fromkeys(" ".join(choice.split()) for choice in one.choices or () if choice.strip()))[:_MOST_CHOICES]
    if one.type in _TYPES:
        return _TYPES[one.type]
    if len(choices) < 2:  # no choice at all
        return str if one.type == "choice" else list[str]
    chosen: Any = Literal[tuple(choices)]
    return chosen if one.type == "choice" else list[chosen]


def _snake(said: str) -> str:
    """``Date of Birth`` and ``dateOfBirth`` as ``date_of_birth``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", said)
    name = "_".join(re.findall(r"[^\W_]+", parted)).lower()
    return f"field_{name}".rstrip("_") if not name or name[0].isdigit() else name
