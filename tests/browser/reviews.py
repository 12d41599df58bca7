"""What customers wrote, and what three pretended models reply: the story of the test, and of the picture in README."""

from __future__ import annotations

import json
import re
from typing import Any

#: Would run where it became markup.
EVIL = "<img src=x onerror=\"window.ran = 'yes'\">"

REVIEWS = [
    "The kettle came two weeks late, and the box was torn. 2 stars.",
    "I was charged twice for one lamp. Please look into it. 1 star.",
    "Great headphones, the battery lasts for days. 5 stars.",
    "The manual of the drill is only in Finnish. 3 stars.",
    f"The mixer is fine. {EVIL} 4 stars.",
    *(f"The {thing} {what}. {stars} stars." for thing, what, stars in [
        ("toaster", "burns one side only", 2), ("lamp", "flickers at night", 2), ("chair", "is easy to put together", 5),
        ("desk", "wobbles on the carpet", 3), ("mouse", "fits small hands", 4), ("kettle", "whistles nicely", 5),
        ("rug", "smells of rubber", 2), ("clock", "loses a minute a day", 2), ("tent", "kept us dry for a week", 5),
        ("pump", "leaks at the valve", 1), ("bag", "has too few pockets", 3), ("pan", "heats evenly", 5),
        ("fan", "is louder than the street", 2), ("scale", "agrees with my doctor's", 4), ("radio", "finds every station", 5),
    ]),
]  # fmt: skip

_REPLIES = {
    "kettle came": (
        "Sorry for the delay.",
        "We are sorry about the wait and the torn box; a new kettle is on its way.",
        "Two weeks is too long, and a torn box makes it worse: a new kettle leaves today, and the old one is yours to keep.",
    ),
    "charged twice": (
        "Please contact support.",
        "We have found the second charge and are sending it back.",
        "You are right, the lamp was billed twice; the second charge goes back to your card and reaches you within three days.",
    ),
    "headphones": (
        "Thank you!",
        "Thank you, we are glad that the battery holds.",
        "Thank you for telling us: days between charges is what we hoped for.",
    ),
    "drill": (
        "The manual is online.",
        "Sorry about that: the manual is on our site in twelve languages.",
        "Finnish only was our mistake; we have mailed you the manual in English, and it is on our site in eleven languages more.",
    ),
}  # fmt: skip

_THINGS = "kettle lamp headphones drill mixer toaster chair desk mouse rug clock tent pump bag pan fan scale radio".split()

MODELS = ("small", "medium", "large")


def answer(body: dict[str, Any]) -> str:
    """What a model says to a request: a record where a schema came along, else a reply of the model's length."""
    text = str(body["messages"][-1]["content"])
    asked = body.get("response_format", {}).get("json_schema")
    if asked is not None:
        return json.dumps({name: _read(name, text) for name in asked["schema"]["properties"]})
    if EVIL in text:
        return f"{EVIL} {body['model']} repeats it."
    size = MODELS.index(body["model"]) if body["model"] in MODELS else 1
    known = next((replies for words, replies in _REPLIES.items() if words in text), None)
    if known is not None:
        return known[size]
    thing = _read("product", text)
    sentences = [f"Thank you for writing about the {thing}.", "We pass it on to those who make it.", "They will write to you."]
    return " ".join(sentences[: size + 1])


def _read(name: str, text: str) -> Any:
    if name == "product":
        return next((thing for thing in _THINGS if re.search(rf"\b{thing}\b", text)), EVIL)
    found = re.search(r"(\d) star", text)
    return int(found[1]) if found else 0
