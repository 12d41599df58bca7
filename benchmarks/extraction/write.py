"""``python -m benchmarks.extraction.write`` writes the gold set anew: texts with known answers, and how a model damages each of them.

A damage is written from what models are on record to answer (the kinds of the issues of instructor, langchain, pydantic-ai, mem0 and
json_repair), not from what llmkit can read. Each says what may be expected of any reader, by these rules:

``directly``  a person who knows the schema reads the true answer and no other;
``reask``     it can be read in several ways, contradicts the schema, or lacks something; asked again the model answers well;
``more``      it was cut at the token limit; with more room the model answers well;
``never``     the second answer is none either, or the model refuses: the row has an error of this class.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "gold"

Truth = Any
Said = tuple[str, str]

# ---------------------------------------------------------------------------------------------------------------- the texts

_NAMES = ["Ana Sousa", "Jürgen Weiß", "Siobhan O'Neill", "山田 花子", "Łukasz Nowak", "Maria Dell'Acqua", "Олена Коваль", "Amina El-Sayed"]
_PRODUCTS = ["kettle K-200", 'the 24" monitor', "Kaffeemühle Mia", "tienda Sol & Luna", "炊飯器 RZ-5", "bottes d'hiver", "Wi-Fi plug"]
_PROS = [
    ["heats fast", "quiet"],
    ["sharp picture", "light"],
    ["leise", "sieht gut aus"],
    ["fácil de montar"],
    ["chaudes", "l'eau n'entre pas"],
    [],
]


def _reviews(draw: random.Random, place: int) -> tuple[str, Truth]:
    product, pros = _PRODUCTS[place % 7], draw.choice(_PROS)
    rating, again = draw.randint(1, 5), draw.random() < 0.5
    mood = "positive" if rating > 3 else "mixed" if rating == 3 else "negative"
    text = draw.choice(
        [
            "I have had {product} for a month. {pros}. {rating} of 5. {again}",
            "Seit vier Wochen benutze ich {product}. Gut: {pros}. {rating} Sterne. {again}",
            "Reçu {product} lundi ; {pros}. Note : {rating}/5. {again}",
            "{product}を一か月使いました。{pros}。星{rating}つ。{again}",
        ]
    )
    said = "I would buy it again." if again else "I would not recommend it."
    truth = {"product": product, "rating": rating, "pros": pros, "recommended": again, "sentiment": mood}
    return text.format(product=product, pros=", ".join(pros) or "nothing stands out", rating=rating, again=said), truth


def _invoices(draw: random.Random, place: int) -> tuple[str, Truth]:
    vendor = ["Nordlicht GmbH", 'Bar "Zum Anker"', "Société Générale du Bois", "株式会社さくら", "Zakład O'Hara Sp. z o.o."][place % 5]
    currency = ["EUR", "EUR", "EUR", "JPY", "PLN"][place % 5]
    number, total = f"RE-{draw.randint(1000, 9999)}/{draw.randint(1, 12)}", round(draw.uniform(40, 9000), 2)
    due = f"2026-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}"
    order = draw.choice([None, f"PO-{draw.randint(100, 999)}"])
    text = (
        f"Rechnung {number} von {vendor}: {total} {currency}, zahlbar bis {due}."
        if place % 2
        else (f"{vendor} bills us {currency} {total} (invoice {number}), payable by {due}.")
    )
    truth = {"number": number, "vendor": vendor, "total": total, "currency": currency, "due": due, "purchase_order": order}
    return text + (f" Your order {order}." if order else ""), truth


def _appointments(draw: random.Random, place: int) -> tuple[str, Truth]:
    patient, department = _NAMES[place % 8], draw.choice(["cardiology", "dermatology", "radiology"])
    start = f"2026-0{draw.randint(1, 9)}-{draw.randint(10, 28)}T{draw.randint(8, 16):02d}:{draw.choice(['00', '15', '30'])}:00"
    minutes, reason = draw.choice([15, 20, 45]), draw.choice([None, "follow-up", 'pain in the "good" knee'])
    text = f"{patient} comes to {department} on {start.replace('T', ' at ')}, {minutes} minutes" + (f": {reason}." if reason else ".")
    return text, {"patient": patient, "department": department, "start": start, "minutes": minutes, "reason": reason}


def _jobs(draw: random.Random, place: int) -> tuple[str, Truth]:
    title = ["Data engineer", "Pflegefachkraft (m/w/d)", "Diseñadora UX", "développeur C++", "Sushi chef"][place % 5]
    company, city = draw.choice(["Acme & Sons", "Klinikum Süd", "L'Atelier"]), draw.choice(["Köln", "Kraków", "São Paulo", "Galway"])
    low = draw.choice([None, 42000, 55000])
    high = None if low is None else low + 8000
    skills, remote = draw.choice([["SQL", "Python 3.12"], ["night shifts"], ["Figma", "HTML/CSS"]]), draw.random() < 0.4
    pay = f"{low} to {high} a year" if low else "pay by agreement"
    text = f"{company}, {city}: {title}. {pay}. {'From home is fine.' if remote else 'On site.'} Needed: {', '.join(skills)}."
    truth = {"title": title, "company": company, "city": city, "salary_from": low, "salary_to": high, "remote": remote, "skills": skills}
    return text, truth


def _recipes(draw: random.Random, place: int) -> tuple[str, Truth]:
    name = ["Pfannkuchen", "crêpes", "お好み焼き", "Tortilla de patatas", "Aunt May's pancakes"][place % 5]
    things = [("flour", 250.0, "g"), ("milk", 0.5, "l"), ("eggs", 3.0, None), ("salt", None, None)][: draw.randint(2, 4)]
    servings = draw.randint(2, 8)
    listed = "; ".join(" ".join(str(part) for part in (amount, unit, what) if part is not None) for what, amount, unit in things)
    truth = {"name": name, "servings": servings, "ingredients": [dict(zip(("name", "amount", "unit"), one, strict=True)) for one in things]}
    return f"{name}, serves {servings}: {listed}.", truth


def _parts(draw: random.Random, place: int) -> tuple[str, Truth]:
    top = ["pump", "Getriebe", "bomba de agua", "hub"][place % 4]
    wheels, bolts = draw.randint(1, 4), draw.randint(2, 9)
    bolt = {"name": "bolt", "count": bolts, "parts": []}
    truth = {"name": top, "count": 1, "parts": [{"name": "wheel", "count": wheels, "parts": [bolt]}]}
    return f"1 {top} has {wheels} wheels, each of them with {bolts} bolts.", truth


def _formulas(draw: random.Random, place: int) -> tuple[str, Truth]:
    name, latex = [
        ("Newton's second law", r"F = m \ddot{x}"),
        ("Energie eines Photons", r"E = \hbar \omega"),
        ("loi de Coulomb", r"F = \frac{q_1 q_2}{4 \pi \epsilon_0 r^2}"),
        ("ley de Hooke", r"F = -k \beta"),
    ][place % 4]
    return f"{name} is written {latex} ({draw.randint(1700, 1950)}).", {"name": name, "latex": latex}


def _tickets(draw: random.Random, place: int) -> tuple[str, Truth]:
    customer, level = _NAMES[place % 8], draw.choice(["low", "normal", "urgent"])
    subject = draw.choice(["```pip install``` fails", "Rechnung doppelt", "no puedo pagar", "wrong size"]) + "\nsince Monday"
    return f"{customer} writes: {subject}. Priority {level}.", {"customer": customer, "subject": subject, "level": level}


def _flats(draw: random.Random, place: int) -> tuple[str, Truth]:
    address = ["Lindenstraße 4, Köln", "12 O'Connell St, Dublin", "ul. Długa 7, Gdańsk", "Rua Augusta 90, Lisboa"][place % 4]
    rooms, metres, rent = draw.choice([1.5, 2.5, 3.5]), draw.randint(28, 120), draw.randint(40, 200) * 10 + 0.5
    pets = draw.choice([True, False, None])
    text = f"{address}: {rooms} rooms, {metres} m², {rent} € a month" + {True: ", pets welcome.", False: ", no pets.", None: "."}[pets]
    return text, {"address": address, "rooms": rooms, "square_metres": metres, "rent": rent, "pets": pets}


def _contacts(draw: random.Random, place: int) -> tuple[str, Truth]:
    named = draw.sample(_NAMES, 2 + place % 2)
    truth = [{"name": name, "email": f"p{draw.randint(10, 99)}@example.org", "phone": None} for name in named]
    return "Present: " + "; ".join(f"{one['name']} <{one['email']}>" for one in truth), truth


def _topics(draw: random.Random, place: int) -> tuple[str, Truth]:
    text, topic = [
        ("I was charged twice for March.", "billing"),
        ("Das Paket ist seit neun Tagen unterwegs.", "delivery"),
        ("¿Cómo devuelvo los zapatos?", "returns"),
        ("営業時間を教えてください。", "other"),
    ][place % 4]
    return text, topic


def _tags(draw: random.Random, place: int) -> tuple[str, Truth]:
    tags = draw.sample(["refund", "late", "Größe", "color: red", "größer als 5", "broken"], 3)
    return f"Labels on the box: {' / '.join(tags)}", tags


TEXTS: dict[str, Callable[[random.Random, int], tuple[str, Truth]]] = {
    "review": _reviews,
    "invoice": _invoices,
    "appointment": _appointments,
    "job": _jobs,
    "recipe": _recipes,
    "part": _parts,
    "formula": _formulas,
    "ticket": _tickets,
    "flat": _flats,
    "contacts": _contacts,
    "topic": _topics,
    "tags": _tags,
}
_INNER = {"contacts": "items", "topic": "value", "tags": "value"}
_RECORDS = ["review", "invoice", "appointment", "job", "recipe", "part", "formula", "ticket", "flat"]
_PLAIN = ["review", "invoice", "appointment", "job", "recipe", "flat"]
_ALL = list(TEXTS)

# -------------------------------------------------------------------------------------------------------------- the damages

#: (name, expected, schemas, answer -> what the model says in the first, second, ... reply; the last is said again). An answer is the object
#: that the schema asks for. The rest of what is said after these is the clean answer.
Damage = tuple[str, str, list[str], Callable[[dict[str, Any]], list[Said]]]


def _json(value: Any, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **more)


def _one(write: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], list[Said]]:
    return lambda answer: [(write(answer), "stop")]


def _twice(*write: Callable[[dict[str, Any]], Said]) -> Callable[[dict[str, Any]], list[Said]]:
    return lambda answer: [one(answer) for one in write]


def _other(answer: Any) -> Any:
    """Another answer that fits the schema as well."""
    if isinstance(answer, bool) or answer is None:
        return answer
    if isinstance(answer, int | float):
        return answer + 1 if answer < 5 else answer - 1
    if isinstance(answer, list):
        return [_other(one) for one in answer]
    if isinstance(answer, dict):
        free = ("name", "product", "number", "address", "title", "subject", "patient")
        return {
            key: f"{value} B" if key in free else _other(value) if isinstance(value, dict | list) else value
            for key, value in answer.items()
        }
    return answer


def _with(answer: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**answer, **changes}


def _first_text(answer: dict[str, Any], write: Callable[[str], str]) -> str:
    """The JSON with its first text written in another way."""
    value = next(value for value in answer.values() if isinstance(value, str))
    return _json(answer).replace(_json(value), write(value), 1)


def _python(answer: dict[str, Any]) -> str:
    return repr(answer)


def _curly(answer: dict[str, Any]) -> str:
    said, opened = "", False
    for letter in _json(answer):
        said, opened = (said + ("”" if opened else "“"), not opened) if letter == '"' else (said + letter, opened)
    return said


def _bare_keys(answer: dict[str, Any]) -> str:
    said = _json(answer, indent=2)
    for key in answer:
        said = said.replace(f'"{key}":', f"{key}:", 1)
    return said


def _commented(answer: dict[str, Any]) -> str:
    lines = _json(answer, indent=2).split("\n")
    lines[1] += "  // as the text says"
    lines[-2] += "  /* see the end of it: { } */"
    return "\n".join(lines)


def _trailing(answer: dict[str, Any]) -> str:
    return _json(answer, indent=2).replace("\n}", ",\n}").replace("\n  ]", ",\n  ]")


def _numbers_as_text(answer: dict[str, Any]) -> str:
    return _json({key: str(value) if type(value) in (int, float) else value for key, value in answer.items()})


def _lists_as_text(answer: dict[str, Any]) -> str:
    return _json({key: _json(value) if isinstance(value, list) else value for key, value in answer.items()})


def _swapped(answer: dict[str, Any]) -> str:
    """The values of two fields of different kinds, each under the other's key."""
    keys = list(answer)
    first = next(key for key in keys if isinstance(answer[key], str))
    second = next(key for key in keys if type(answer[key]) in (int, float))
    return _json(_with(answer, **{first: answer[second], second: answer[first]}))


def _first_of(answer: dict[str, Any], *kinds: type) -> str:
    return next(key for key, value in answer.items() if type(value) in kinds)


def _of(kinds: type | tuple[type, ...], change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], str]:
    """The first field of such a value, changed."""
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)

    def write(answer: dict[str, Any]) -> str:
        key = _first_of(answer, *wanted)
        return _json(_with(answer, **{key: change(answer[key])}))

    return write


def _raw_of(kinds: type | tuple[type, ...], said: str) -> Callable[[dict[str, Any]], str]:
    """The first field of such a value, written in words that are no JSON."""
    write = _of(kinds, lambda _: "\0")
    return lambda answer: write(answer).replace(_json("\0"), said)


def _cut(share: float) -> Callable[[dict[str, Any]], str]:
    return lambda answer: _json(answer)[: int(len(_json(answer)) * share)]


_FENCED = "```json\n{}\n```"
_HARD = "Sure! I looked at the text closely.\n\n"
_REFUSES = "I'm sorry, but I can't help with that."
_SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}

DAMAGES: list[Damage] = [
    # read directly
    ("clean", "directly", _ALL, _one(_json)),
    ("pretty printed", "directly", _ALL, _one(lambda a: _json(a, indent=4))),
    ("ascii escapes", "directly", ["review", "job", "contacts"], _one(lambda a: json.dumps(a))),
    ("fence", "directly", _ALL, _one(lambda a: _FENCED.format(_json(a, indent=2)))),
    ("fence without its word", "directly", _PLAIN[:3], _one(lambda a: f"```\n{_json(a)}\n```")),
    ("fence that never ends", "directly", _PLAIN[:3], _one(lambda a: f"```json\n{_json(a)}")),
    ("fence, carriage returns", "directly", _PLAIN[3:], _one(lambda a: _FENCED.format(_json(a, indent=2)).replace("\n", "\r\n"))),
    ("fence in a text of the answer", "directly", ["ticket"], _one(lambda a: f"Here:\n{_json(a)}\nRun ```json\nit\n``` again.")),
    ("prose before", "directly", ["review", "contacts", "tags", "flat"], _one(lambda a: _HARD + _json(a))),
    (
        "prose after",
        "directly",
        ["invoice", "contacts", "part", "job"],
        _one(lambda a: _json(a) + "\n\nLet me know if you need {more} [1]."),
    ),
    (
        "prose with braces around",
        "directly",
        ["recipe", "appointment"],
        _one(lambda a: f"As {{asked}} in [2], the {{fields}}:\n{_json(a)}\nDone :}}"),
    ),
    ("the word json before", "directly", ["review", "flat"], _one(lambda a: "json\n" + _json(a))),
    ("byte order mark", "directly", ["invoice", "review"], _one(lambda a: "\ufeff" + _json(a))),
    ("token of the template after", "directly", ["job", "recipe"], _one(lambda a: _json(a) + "<|im_end|>")),
    ("tags around", "directly", ["review", "ticket"], _one(lambda a: f"<answer>\n{_json(a)}\n</answer>")),
    (
        "thought before",
        "directly",
        ["review", "appointment", "topic", "part"],
        _one(lambda a: f"<think>\nThe text says... \n</think>\n\n{_json(a)}"),
    ),
    ("draft in a thought", "directly", ["review", "recipe", "flat"], _one(lambda a: f"<think>{_json(_other(a))} no...</think>{_json(a)}")),
    (
        "thought whose beginning is the template's",
        "directly",
        ["invoice", "job"],
        _one(lambda a: f"Maybe {_json(_other(a))}?\n</think>\n{_json(a)}"),
    ),
    ("trailing commas", "directly", ["review", "invoice", "job", "recipe", "flat"], _one(_trailing)),
    ("Python literal", "directly", ["review", "invoice", "appointment", "job", "flat"], _one(_python)),
    ("Python literal in a fence", "directly", ["recipe", "part"], _one(lambda a: f"```python\n{_python(a)}\n```")),
    ("comments", "directly", ["review", "appointment", "flat"], _one(_commented)),
    ("typographic quotation marks", "directly", ["ticket", "job", "flat"], _one(_curly)),
    ("keys without quotation marks", "directly", ["review", "invoice", "job"], _one(_bare_keys)),
    ("line break in a text", "directly", ["ticket"], _one(lambda a: _json(a).replace("\\n", "\n"))),
    ("full-width punctuation", "directly", ["ticket", "review"], _one(lambda a: _json(a).replace('": ', '"：').replace(', "', '， "'))),
    ("escaped apostrophe", "directly", ["flat", "appointment", "formula"], _one(lambda a: _json(a).replace("'", "\\'"))),
    ("last brace missing", "directly", ["review", "job", "ticket", "recipe"], _one(lambda a: _json(a)[:-1])),
    ("last brace missing in a fence", "directly", ["review", "ticket"], _one(lambda a: _FENCED.format(_json(a)[:-1]))),
    ("a brace too many", "directly", ["review", "invoice", "part"], _one(lambda a: _json(a) + "}")),
    ("braces doubled", "directly", ["flat", "ticket"], _one(lambda a: "{" + _json(a) + "}")),
    ("numbers as text", "directly", ["review", "invoice", "flat", "appointment"], _one(_numbers_as_text)),
    ("whole number with a point", "directly", ["review", "appointment"], _one(_of(int, float))),
    ("yes for true", "directly", ["review", "job"], _one(_of(bool, lambda v: "yes" if v else "no"))),
    ("list as text", "directly", ["review", "recipe", "part"], _one(_lists_as_text)),
    ("under the schema's name", "directly", ["review", "invoice", "part", "contacts"], _one(lambda a: _json({"Answer": a}))),
    ("under a key as text", "directly", ["review", "recipe"], _one(lambda a: _json({"response": _json(a)}))),
    (
        "call written out",
        "directly",
        ["review", "ticket", "flat"],
        _one(lambda a: f"<tool_call>\n{_json({'name': 'Answer', 'arguments': a})}\n</tool_call>"),
    ),
    ("list of the one", "directly", ["review", "invoice", "job"], _one(lambda a: _json([a]))),
    ("encoded twice", "directly", ["review", "contacts"], _one(lambda a: _json(_json(a)))),
    (
        "said twice",
        "directly",
        ["review", "invoice", "tags"],
        _one(lambda a: f"{_json(a)}\n\nIn a fence:\n{_FENCED.format(_json(a, indent=2))}"),
    ),
    ("key twice, same value", "directly", ["flat", "ticket"], _one(lambda a: "{" + _json(a)[1:-1] + ", " + _json(a)[1:])),
    ("key too many", "directly", ["flat", "ticket", "review"], _one(lambda a: _json(_with(a, confidence=0.9)))),
    ("schema before the answer", "directly", ["review", "invoice"], _one(lambda a: f"Schema:\n{_json(_SCHEMA)}\nAnswer:\n{_json(a)}")),
    ("wrapping left out", "directly", ["contacts", "tags"], _one(lambda a: _json(next(iter(a.values()))))),
    ("wrapping left out, in a fence", "directly", ["contacts", "tags"], _one(lambda a: _FENCED.format(_json(next(iter(a.values())))))),
    ("the bare word", "directly", ["topic"], _one(lambda a: str(a["value"]))),
    ("the bare word in quotation marks", "directly", ["topic"], _one(lambda a: _json(a["value"]))),
    ("another wrapping", "directly", ["topic", "tags"], _one(lambda a: _json({"result": a["value"]}))),
    # asked again
    ("prose alone", "reask", ["review", "invoice", "topic", "contacts"], _one(lambda a: "The text is about something else, mostly.")),
    ("prose with lines of fields", "reask", ["review", "flat"], _one(lambda a: "\n".join(f"{key}: {value}" for key, value in a.items()))),
    ("empty", "reask", ["review", "tags"], _one(lambda a: "\n")),
    ("empty object", "reask", ["review", "invoice"], _one(lambda a: "{}")),
    ("empty list", "reask", ["job"], _one(lambda a: "[]")),
    (
        "two objects",
        "reask",
        ["review", "invoice", "recipe", "flat", "contacts"],
        _one(lambda a: f"{_json(_other(a))}\n{_json(a)}" if "items" not in a else f"{_json(a)}\n{_json({'items': a['items'][:1]})}"),
    ),
    (
        "draft in prose, answer in a fence",
        "reask",
        ["review", "ticket", "job"],
        _one(lambda a: f"First {_json(_other(a))}, then:\n{_FENCED.format(_json(a))}"),
    ),
    ("list of two", "reask", ["review", "appointment"], _one(lambda a: _json([a, _other(a)]))),
    ("key twice, other value", "reask", ["review", "flat", "ticket"], _one(lambda a: "{" + _json(_other(a))[1:-1] + ", " + _json(a)[1:])),
    ("values swapped", "reask", ["review", "invoice", "appointment", "recipe", "flat"], _one(_swapped)),
    ("true for a number", "reask", ["review", "flat", "appointment", "recipe"], _one(_of((int, float), lambda v: True))),
    ("number in words", "reask", ["review", "appointment"], _one(_of(int, lambda v: "four"))),
    ("number with its unit", "reask", ["flat", "appointment", "invoice"], _one(_of((int, float), lambda v: f"{v} units"))),
    ("thousands with a comma", "reask", ["invoice", "flat"], _one(_raw_of(float, "1,234.50"))),
    ("thousands with a comma, as text", "reask", ["invoice", "flat"], _one(_raw_of(float, '"1,234.50"'))),
    ("decimal comma", "reask", ["invoice", "flat"], _one(_of(float, lambda v: str(v).replace(".", ",")))),
    ("half a whole number", "reask", ["review"], _one(_of(int, lambda v: v + 0.5))),
    ("Infinity", "reask", ["invoice", "flat"], _one(_raw_of(float, "Infinity"))),
    ("NaN", "reask", ["invoice", "flat"], _one(_raw_of(float, "NaN"))),
    ("NaN as text", "reask", ["invoice", "flat"], _one(_of(float, lambda v: "NaN"))),
    ("a number too large", "reask", ["invoice"], _one(_raw_of(float, "1e999"))),
    ("null for what is required", "reask", ["review", "invoice", "ticket"], _one(_of(str, lambda v: None))),
    ("null as text", "reask", ["appointment"], lambda a: [(_json(_with(a, reason="null")), "stop")]),
    ("number for a text", "reask", ["review", "ticket"], _one(_of(str, lambda v: 7))),
    ("text for a list", "reask", ["review", "job"], _one(_of(list, lambda v: "heats fast, quiet"))),
    ("list for a text", "reask", ["review", "ticket"], _one(_of(str, lambda v: [v]))),
    ("object for a text", "reask", ["flat", "ticket"], _one(_of(str, lambda v: {"value": v}))),
    (
        "year for a date",
        "reask",
        ["invoice", "appointment"],
        lambda a: [(_json(_with(a, **{"due" if "due" in a else "start": 2026})), "stop")],
    ),
    ("year for a time, as text", "reask", ["appointment"], lambda a: [(_json(_with(a, start="2026")), "stop")]),
    ("seconds for a time", "reask", ["appointment"], lambda a: [(_json(_with(a, start=1767225600)), "stop")]),
    ("date as it is written here", "reask", ["invoice"], lambda a: [(_json(_with(a, due="03.04.2026")), "stop")]),
    (
        "word of no list",
        "reask",
        ["review", "appointment"],
        lambda a: [(_json(_with(a, **{"sentiment" if "sentiment" in a else "department": "very good"})), "stop")],
    ),
    ("word of the list, otherwise written", "reask", ["review"], lambda a: [(_json(_with(a, sentiment=a["sentiment"].title())), "stop")]),
    ("out of range", "reask", ["review"], lambda a: [(_json(_with(a, rating=9)), "stop")]),
    ("against a rule over fields", "reask", ["job"], lambda a: [(_json(_with(a, salary_from=90000, salary_to=20000)), "stop")]),
    ("field missing", "reask", ["review", "invoice", "ticket", "part"], _one(lambda a: _json(dict(list(a.items())[1:])))),
    (
        "optional field misspelt",
        "reask",
        ["invoice"],
        lambda a: [
            (
                _json(
                    {
                        ("purchaseOrder" if key == "purchase_order" else key): "PO-1" if key == "purchase_order" else value
                        for key, value in a.items()
                    }
                ),
                "stop",
            )
        ],
    ),
    (
        "optional field misspelt in a list",
        "reask",
        ["contacts"],
        lambda a: [(_json({"items": [{"name": one["name"], "e_mail": one["email"]} for one in a["items"]]}), "stop")],
    ),
    ("keys otherwise written", "reask", ["review", "flat"], _one(lambda a: _json({key.title(): value for key, value in a.items()}))),
    (
        "keys translated",
        "reask",
        ["review"],
        lambda a: [(_json(dict(zip(["Produkt", "Bewertung", "Vorteile", "empfohlen", "Stimmung"], a.values(), strict=True))), "stop")],
    ),
    ("quotation marks in a text", "reask", ["ticket", "review"], lambda a: [(_first_text(a, lambda v: f'"{v} or "so""'), "stop")]),
    ("comma missing", "reask", ["review", "invoice", "flat"], _one(lambda a: _json(a).replace(', "', ' "', 1))),
    ("colon missing", "reask", ["ticket"], _one(lambda a: _json(a).replace('": ', '" ', 1))),
    ("dots for the rest", "reask", ["review", "recipe"], _one(lambda a: _json(dict(list(a.items())[:1]))[:-1] + ", ...}")),
    ("half in the middle", "reask", ["review", "recipe", "invoice", "contacts"], _one(_cut(0.6))),
    ("last brace missing after a number", "reask", ["formula"], lambda a: [("{" + f'"name": {_json(a["name"])}, "latex": 12', "stop")]),
    (
        "last brace and a field missing",
        "reask",
        ["invoice"],
        lambda a: [(_json({key: value for key, value in a.items() if key != "purchase_order"})[:-1], "stop")],
    ),
    ("two braces missing", "reask", ["recipe", "part"], _one(lambda a: _json(a)[:-3])),
    ("broken outside, whole inside", "reask", ["part"], _one(lambda a: _json(a)[:-1] + ', "note": oops}')),
    ("backslashes once", "reask", ["formula"] * 4, _one(lambda a: _json(a).replace("\\\\", "\\"))),
    ("schema for an answer", "reask", ["review", "ticket"], _one(lambda a: _json(_SCHEMA))),
    ("answer within the schema's words", "reask", ["review", "flat"], _one(lambda a: _json({"type": "object", "properties": a}))),
    ("answer only in a thought", "reask", ["review", "flat"], _one(lambda a: f"<think>{_json(a)}</think>")),
    ("thought that never ends", "reask", ["review", "invoice"], _one(lambda a: f"<think>\nPerhaps {_json(_other(a))} but")),
    ("error for an answer", "reask", ["review", "tags"], _one(lambda a: _json({"errors": ["the text could not be read"]}))),
    ("sentence for a word", "reask", ["topic"], _one(lambda a: "It could be billing or delivery.")),
    ("word of no list, bare", "reask", ["topic"], _one(lambda a: "complaint")),
    ("object for a word", "reask", ["topic"], _one(lambda a: _json({"value": {"label": a["value"]}}))),
    # cut at the token limit
    ("cut", "more", ["review", "invoice", "recipe", "contacts", "job", "tags"], lambda a: [(_cut(0.55)(a), "length")]),
    ("cut before the last brace", "more", ["review", "ticket"], lambda a: [(_json(a)[:-1], "length")]),
    (
        "cut in a number",
        "more",
        ["flat"],
        lambda a: [(_json({key: a[key] for key in ("address", "pets", "rooms", "square_metres", "rent")})[:-3], "length")],
    ),
    ("cut, whole inside", "more", ["part"], lambda a: [(_json(a)[:-1], "length")]),
    ("cut in the second object", "more", ["review"], lambda a: [(f"{_json(_other(a))}\n{_json(a)[:-9]}", "length")]),
    ("cut in a thought", "more", ["review", "job"], lambda a: [(f"<think>\nPerhaps {_json(_other(a))} but", "length")]),
    # never
    (
        "cut twice",
        "never:Truncated",
        ["review", "recipe", "part", "contacts"],
        lambda a: [(_cut(0.5)(a), "length"), (_cut(0.7)(a), "length")],
    ),
    ("cut twice before the last brace", "never:Truncated", ["review", "ticket"], lambda a: [(_json(a)[:-1], "length")] * 2),
    ("prose twice", "never:BadOutput", ["review", "invoice", "topic"], lambda a: [("The text is about something else.", "stop")] * 2),
    ("empty twice", "never:BadOutput", ["review", "tags"], lambda a: [(" ", "stop")] * 2),
    ("two objects twice", "never:BadOutput", ["review", "flat"], lambda a: [(f"{_json(_other(a))}\n{_json(a)}", "stop")] * 2),
    (
        "swapped, then missing",
        "never:BadOutput",
        ["review", "invoice"],
        _twice(lambda a: (_swapped(a), "stop"), lambda a: (_json(dict(list(a.items())[1:])), "stop")),
    ),
    (
        "broken, then key twice",
        "never:BadOutput",
        ["flat", "ticket"],
        _twice(
            lambda a: (_json(a).replace(', "', ' "', 1), "stop"), lambda a: ("{" + _json(_other(a))[1:-1] + ", " + _json(a)[1:], "stop")
        ),
    ),
    ("word of no list twice", "never:BadOutput", ["review"], lambda a: [(_json(_with(a, sentiment="great")), "stop")] * 2),
    ("true for a number twice", "never:BadOutput", ["review", "recipe"], lambda a: [(_of(int, lambda v: True)(a), "stop")] * 2),
    ("seconds for a time twice", "never:BadOutput", ["appointment"], lambda a: [(_json(_with(a, start=1767225600)), "stop")] * 2),
    (
        "invalid, then cut",
        "never:Truncated",
        ["review"],
        lambda a: [(_json({}), "stop"), (_cut(0.5)(a), "length"), (_cut(0.5)(a), "length")],
    ),
    ("a rule that raises", "never:BadOutput", ["ticket"], lambda a: [(_json(_with(a, level="catastrophic")), "stop")] * 2),
    ("refusal", "never:ContentBlocked", ["review", "invoice", "contacts", "topic"], lambda a: [(_REFUSES, "refusal")] * 2),
    ("filter", "never:ContentBlocked", ["review", "job"], lambda a: [("", "filter")] * 2),
    ("refusal in words", "never:BadOutput", ["review", "flat"], lambda a: [(_REFUSES, "stop")] * 2),
]


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """(schema, row), each damage on a text of each of its schemas."""
    places = dict.fromkeys(TEXTS, 0)
    number = 0
    for damage, expected, schemas, write in DAMAGES:
        for schema in schemas:
            number += 1
            while True:
                text, truth = TEXTS[schema](random.Random(f"{schema} {places[schema]}"), places[schema])
                places[schema] += 1
                answer = {_INNER[schema]: truth} if schema in _INNER else truth
                said = [{"text": words, "finish": finish} for words, finish in write(answer)]
                if damage == "clean" or said[0] != {"text": _json(answer), "finish": "stop"}:
                    break  # else it does nothing to this text
            expects, _, error = expected.partition(":")
            if expects != "never":
                said.append({"text": _json(answer), "finish": "stop"})
            yield (
                schema,
                {
                    "id": f"g{number:03d}",
                    "text": f"(g{number:03d}) {text}",
                    "truth": truth,
                    "damage": damage,
                    "expects": expects,
                    "error": error,
                    "said": said,
                },
            )


def main() -> None:
    HERE.mkdir(exist_ok=True)
    by_schema: dict[str, list[dict[str, Any]]] = {}
    for schema, row in rows():
        by_schema.setdefault(schema, []).append(row)
    for schema, found in by_schema.items():
        (HERE / f"{schema}.jsonl").write_text("".join(_json(row) + "\n" for row in found), "utf-8")
    print({schema: len(found) for schema, found in by_schema.items()}, sum(map(len, by_schema.values())))


if __name__ == "__main__":
    main()
