"""What is asked for in the gold set: records, nested and recursive ones, rules over fields, lists of records, a choice, a list."""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator


class Review(BaseModel):
    """A product review."""

    product: str
    rating: Annotated[int, Field(ge=1, le=5)]
    pros: list[str]
    recommended: bool
    sentiment: Literal["positive", "mixed", "negative"]


class Invoice(BaseModel):
    """The head of an invoice."""

    number: str
    vendor: str
    total: float
    currency: Literal["EUR", "USD", "GBP", "PLN", "JPY"]
    due: date
    purchase_order: str | None = None


class Department(Enum):
    CARDIOLOGY = "cardiology"
    DERMATOLOGY = "dermatology"
    RADIOLOGY = "radiology"


class Appointment(BaseModel):
    """An appointment at a clinic."""

    patient: str
    department: Department
    start: datetime
    minutes: int
    reason: str | None


class Job(BaseModel):
    """A job advertisement."""

    title: str
    company: str
    city: str
    salary_from: int | None = None
    salary_to: int | None = None
    remote: bool
    skills: list[str]

    @model_validator(mode="after")
    def _in_order(self) -> Job:
        if self.salary_from is not None and self.salary_to is not None and self.salary_from > self.salary_to:
            raise ValueError("salary_from is above salary_to")
        return self


class Ingredient(BaseModel):
    name: str
    amount: float | None
    unit: str | None


class Recipe(BaseModel):
    """A recipe."""

    name: str
    servings: int
    ingredients: list[Ingredient]


class Part(BaseModel):
    """A part of a machine and the parts that it is made of."""

    name: str
    count: int
    parts: list[Part]


class Contact(BaseModel):
    """A person who is named, and how to reach them."""

    name: str
    email: str | None = None
    phone: str | None = None


class Formula(BaseModel):
    """A law of physics."""

    name: str
    latex: str


_LEVELS = {"low": 1, "normal": 2, "urgent": 3}


class Ticket(BaseModel):
    """A support ticket. Its rule has the mistake that rules have: a level it does not know is no ValueError."""

    customer: str
    subject: str
    level: str

    @field_validator("level")
    @classmethod
    def _known(cls, level: str) -> str:
        _LEVELS[level]
        return level


SCHEMAS: dict[str, Any] = {
    "review": Review,
    "invoice": Invoice,
    "appointment": Appointment,
    "job": Job,
    "recipe": Recipe,
    "part": Part,
    "formula": Formula,
    "ticket": Ticket,
    "flat": {
        "address": str,
        "rooms": float,
        "square_metres": int,
        "rent": (float, "a month, in euros"),
        "pets": (bool | None, "whether they are allowed"),
    },
    "contacts": list[Contact],
    "topic": Literal["billing", "delivery", "returns", "other"],
    "tags": list[str],
}
