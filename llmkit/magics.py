"""``%load_ext llmkit``: ``%%llm`` asks a model what stands in the cell, ``%llm`` lists models and chooses one."""

from __future__ import annotations

import argparse
import datetime
import numbers
import shlex
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import closing
from typing import Any, NoReturn

import pandas as pd
from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from .asking import stream
from .errors import BadInput, ConfigError
from .front import models, use
from .operations.template import Template

__all__ = ["filled", "register"]

#: What IPython itself puts into the namespace.
_ITS_OWN = {"In", "Out", "exit", "quit", "open", "get_ipython"}
#: What may stand in a prompt as ``str`` writes it: none of these is shortened.
_WRITTEN = (str, numbers.Number, datetime.date, datetime.time, datetime.timedelta, list, tuple, dict)
#: What ``str`` would leave rows out of.
_TABLES = (pd.DataFrame, pd.Series)
#: Control characters move the cursor, colour what follows or reach into a terminal; only these two are text.
_UNSEEN: dict[int, str] = {**dict.fromkeys([*range(32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}"), 9: "\t", 10: "\n"}
#: Seconds between two looks of the reader.
_FLUSH = 0.05
_SHOWN = ["model", "operations", "context_window", "input_price", "output_price", "key_found"]


def register(shell: Any) -> None:
    """Give an IPython shell the two magics."""

    def ask(line: str, cell: str) -> None:
        """Ask a chat model what stands in the cell, and show the answer as it comes; Ctrl-C stops it.

        %%llm [provider/model] [-o NAME] [--system TEXT]

        Without a model the session's own answers (%llm use). -o keeps the answer in a variable, --system gives instructions. {name} stands
        for a variable of yours, by its bare name only; other braces stay, and {{name}} gives {name}.
        """
        _ask(line, cell, shell.user_ns)

    def say(line: str) -> pd.DataFrame | None:
        """List models, or choose one.

        %llm models [words]     those that have all the words in their names, operations or capabilities
        %llm use provider/model [--embed provider/model] [--rerank provider/model]     what calls take that name none
        """
        what, *rest = line.split(maxsplit=1) or [""]
        if what == "models":
            return _known("".join(rest).lower().split())
        if what != "use":
            raise UsageError("say %llm models [words], %llm use provider/model, or %%llm at the top of a cell")
        chosen = _USE.read("".join(rest))
        if not any(vars(chosen).values()):
            raise UsageError("%llm use needs the name of a model, such as openai/gpt-5-mini")
        use(chosen.model, embed=chosen.embed, rerank=chosen.rerank)
        return None

    # IPython would evaluate whatever stands in braces on the line of a magic; here the template fills it, as in the cell.
    shell.register_magic_function(no_var_expand(ask), "cell", "llm")
    shell.register_magic_function(no_var_expand(say), "line", "llm")


class _Line(argparse.ArgumentParser):
    """The line of a magic; what is wrong with it is told without a traceback."""

    def read(self, line: str) -> argparse.Namespace:
        try:
            return self.parse_args(shlex.split(line))
        except ValueError:
            raise UsageError(f"{self.prog}: a quotation mark has no second") from None

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().strip()}")


_ASK = _Line("%%llm", add_help=False, allow_abbrev=False)
_ASK.add_argument("model", nargs="?")
_ASK.add_argument("-o", metavar="NAME")
_ASK.add_argument("--system", metavar="TEXT")
_USE = _Line("%llm use", add_help=False, allow_abbrev=False)
_USE.add_argument("model", nargs="?")
_USE.add_argument("--embed", metavar="MODEL")
_USE.add_argument("--rerank", metavar="MODEL")


def _ask(line: str, cell: str, variables: MutableMapping[str, Any]) -> None:
    asked = _ASK.read(line)
    if asked.o is not None and not asked.o.isidentifier():
        raise UsageError(f"-o takes the name of a variable, not {asked.o!r}")
    if not cell.strip():
        raise UsageError("there is nothing to ask: the prompt stands below the line with %%llm")
    system = None if asked.system is None else filled(asked.system, variables)
    answer = stream(filled(cell.strip(), variables), model=asked.model, system=system)
    flushed = 0.0
    # Closed here and not when it is collected: after Ctrl-C the traceback would hold it, and the provider would go on.
    with closing(iter(answer)) as pieces:
        for piece in pieces:
            sys.stdout.write(piece.translate(_UNSEEN))
            if (now := time.monotonic()) - flushed >= _FLUSH:
                sys.stdout.flush()
                flushed = now
    sys.stdout.write("" if answer.text.endswith("\n") else "\n")
    sys.stdout.flush()
    if answer.truncated:
        print("llmkit: the answer was cut at the model's limit", file=sys.stderr)  # noqa: T201 - said to a person at a keyboard
    if asked.o is not None:
        variables[asked.o] = answer.text


def filled(text: str, variables: Mapping[str, Any]) -> str:
    """``text`` with each ``{name}`` replaced by that variable.

    Raises
    ------
    BadInput
        There is no such variable (the nearest is named), or what it holds has no text that would be all of it.
    """
    names = [name for name in variables if not name.startswith("_") and name not in _ITS_OWN]
    # Those that can stand in a prompt first: where no name is near, the first few are named.
    template = Template(text, sorted(names, key=lambda name: not isinstance(variables[name], _WRITTEN + _TABLES)), "variable")
    return template.render({name: _written(name, variables[name]) for name in template.columns})


def _written(name: str, value: Any) -> str:
    if isinstance(value, _TABLES):
        return value.to_string()
    if not isinstance(value, _WRITTEN):
        raise BadInput(f"{{{name}}} is a {type(value).__name__}, which has no text of its own: put what you mean into a variable, as text")
    return str(value)


def _known(words: Sequence[str]) -> pd.DataFrame:
    """The models that have all the words; those whose key is there first."""
    known = models()
    known.insert(0, "model", known["provider"] + "/" + known["name"])
    said = (known["model"] + " " + known["canonical"] + " " + known["operations"] + " " + known["capabilities"]).str.lower()
    for word in words:
        known = known[said[known.index].str.contains(word, regex=False)]
    if known.empty:
        raise ConfigError(f"no model has {' and '.join(map(repr, words))} in its name, operations or capabilities; %llm models lists all")
    return known.sort_values("key_found", ascending=False, kind="stable")[_SHOWN].reset_index(drop=True)
