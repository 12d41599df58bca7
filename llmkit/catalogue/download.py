"""A newer ``models.json`` from the network: asked for by name, checked before it replaces anything.

What comes this way is data about models. Addresses, variables and aliases are never taken from it, so that no download can send a key
elsewhere.
"""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import event_loop
from ..errors import BadInput, ConnectionLost, LLMError, ServerFault, TimedOut
from .conversion import is_litellm, rows_of

__all__ = ["USUAL", "document_from", "fetched", "kept"]

#: LiteLLM's own file, MIT licence, which llmkit's rows are made from.
USUAL = "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"
#: Bytes. LiteLLM's file has 3 million.
LARGEST = 16_000_000


class _SameGuard(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _guarded(newurl)
        except BadInput:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _guarded(url: str) -> bool:
    """Whether the address is this computer's.

    Raises
    ------
    BadInput
        It is neither that nor reached by https.
    """
    parts = urlsplit(url)
    here = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or (parts.scheme != "https" and not (here and parts.scheme == "http")):
        raise BadInput(f"a catalogue is downloaded over https, not from {parts.scheme or 'nothing'}://{parts.hostname or ''}")
    return here


def fetched(url: str, timeout: float) -> bytes:
    """The body at an address, at most ``LARGEST`` bytes, within ``timeout`` seconds in all.

    In a thread of its own: the time of a socket is for each read, so that a server that drips its headers has any time it likes, and a
    name that is looked up has no time at all.
    """
    here = _guarded(url)
    found = event_loop.call(_in_time, url, here, timeout)
    if isinstance(found, LLMError):
        raise found
    return found


async def _in_time(url: str, here: bool, timeout: float) -> bytes | LLMError:
    work = asyncio.ensure_future(event_loop.apart(_outcome, url, here, timeout))
    # Not wait_for, which would cancel what a thread goes on with.
    done, _ = await asyncio.wait({work}, timeout=timeout)
    return work.result() if done else _too_late(url, timeout)


def _too_late(url: str, timeout: float) -> TimedOut:
    return TimedOut(f"{urlsplit(url).hostname} did not send the catalogue within {timeout:g} s; nothing was changed")


def _outcome(url: str, here: bool, timeout: float) -> bytes | LLMError:
    """What came, or why nothing did; not raised, since nobody listens any more once the time is up."""
    try:
        return _body(url, here, timeout)
    except LLMError as error:
        return error


def _body(url: str, here: bool, timeout: float) -> bytes:
    host = urlsplit(url).hostname
    until = time.monotonic() + timeout
    handlers: list[Any] = [_SameGuard(), *([urllib.request.ProxyHandler({})] if here else [])]
    parts = []
    length = 0
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=timeout) as response:
            while piece := response.read1(1 << 16):
                length += len(piece)
                if length > LARGEST:
                    raise BadInput(f"what {host} sends is more than {LARGEST // 1_000_000} MB, which no catalogue is; nothing was changed")
                if time.monotonic() > until:
                    raise TimeoutError
                parts.append(piece)
            missing = response.length
    except urllib.error.HTTPError as error:
        error.close()
        raise ServerFault(f"{host} answers {error.code}; nothing was changed", status=error.code) from None
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _too_late(url, timeout) from None
        raise ConnectionLost(f"{host} cannot be reached ({type(reason).__name__}); nothing was changed") from None
    if missing:
        raise ConnectionLost(f"{host} stopped before the end; nothing was changed")
    return b"".join(parts)


def document_from(body: bytes, served: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The document of a download, ours or LiteLLM's, in our form; its rows are not checked yet.

    Raises
    ------
    BadInput
        It is neither.
    """
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise BadInput("the download is no JSON; nothing was changed") from None
    try:
        if is_litellm(document):
            document = {"as_of": today.isoformat(), "models": list(rows_of(document, served, today.isoformat(), "litellm"))}
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise BadInput(f"the download is not in the form of LiteLLM's model data ({type(error).__name__}); nothing was changed") from None
    if not isinstance(document, Mapping) or not isinstance(document.get("models"), list) or not document["models"]:
        raise BadInput('the download has no "models"; a catalogue is {"as_of": "2026-11-21", "models": [...]}; nothing was changed')
    try:
        as_of = datetime.date.fromisoformat(document["as_of"])
    except (KeyError, TypeError, ValueError):
        raise BadInput('the download does not say "as_of", the day it is from; nothing was changed') from None
    if as_of > today + datetime.timedelta(days=1):
        raise BadInput(f"the download says that it is from {as_of}, which is to come; nothing was changed")
    return {"as_of": as_of.isoformat(), "models": document["models"]}


def kept(document: Mapping[str, Any], path: Path) -> None:
    """Write the whole file beside its place, then put it there: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".models-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(document).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
