"""What the batch jobs of all vendors have in common: an account that is asked by the official SDK, files that go up from the disk and
results that come down to it, and result lines in OpenAI's shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from ..adapter import JobAnswer, JobState, Target
from ..errors import ConnectionLost, InvalidRequest, LLMError, ModelGone, RequestError, ServerFault, TimedOut, Unreachable, Unsupported

__all__ = [
    "SLACK",
    "Account",
    "Classify",
    "answer_of",
    "by_openais_sdk",
    "counted",
    "is_gone",
    "line",
    "looked_at",
    "outputs_of",
    "submitting",
    "unix",
    "written",
]

#: Seconds by which a vendor's clock may be behind ours, where a job is looked for by its time.
SLACK = 600.0

#: How often in a row a download may break off without having come further than before.
_TRIES = 3

Classify = Callable[[int, Mapping[str, str], bytes], LLMError]


class Account:
    """An account as the client of an SDK reaches it (openai's or anthropic's: one generator wrote both). Answers are JSON objects, what the
    SDK raises is one of our errors.

    Parameters
    ----------
    sdk : module
        Whose exceptions the client raises.
    client : object
        The SDK's client, retries off; closed at the end of the ``with``.
    classify_error : callable
        The adapter's.
    """

    def __init__(self, sdk: Any, client: Any, classify_error: Classify) -> None:
        self._sdk, self._client, self._classify = sdk, client, classify_error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        self._client.close()
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError) and not isinstance(error, LLMError):
            # Not chained: what was read may hold anything.
            raise ServerFault("the answer is not what the provider documents", kind="bad_response") from None

    def get(self, path: str, query: Mapping[str, Any] | None = None, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What there is at ``path``: of the base URL, or a whole address."""
        import httpx2

        options = {"params": dict(query or {}), "headers": dict(headers or {}), "follow_redirects": False}
        with self._refusals():
            return self.json(self._client.get(path, cast_to=httpx2.Response, options=options))

    def post(self, path: str, body: Any = None, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.json(self.sent(path, headers, body=body))

    def sent(self, path: str, headers: Mapping[str, Any] | None = None, **what: Any) -> Any:
        """The response to a post of ``body`` (JSON), ``content`` (bytes, or an iterable of them) or ``files``; it is never redirected."""
        import httpx2

        options = {"headers": dict(headers or {}), "follow_redirects": False}
        with self._refusals():
            return self._client.post(path, cast_to=httpx2.Response, options=options, **what)

    def upload(self, path: str, file: Path, name: str, **form: str) -> dict[str, Any]:
        """Post a file as a part of a form. It is read from the disk as it is sent: given as a path, the SDK would read it whole."""
        with file.open("rb") as content:
            files = [("file", (f"{name}.jsonl", content, "application/jsonl"))]
            return self.json(self.sent(path, {"Content-Type": "multipart/form-data"}, files=files, body=form))

    def save(self, sources: Sequence[str], path: Path, headers: Mapping[str, Any] | None = None) -> None:
        """All of these as one file of lines, complete or not there at all."""

        def write(file: BinaryIO) -> None:
            for source in sources:
                self._append(source, file, headers or {})

        written(path, write)

    def _append(self, source: str, file: BinaryIO, headers: Mapping[str, Any]) -> None:
        """Download to the end of the file; what breaks off is taken up where it broke, or anew where the server takes no ranges."""
        import httpx2

        start = file.tell()
        furthest = idle = 0
        while True:
            have = file.tell() - start
            try:
                self._stream(source, file, start, headers)
                break
            except (Unreachable, httpx2.TransportError) as problem:
                came = file.tell() - start
                idle = 0 if came > max(have, furthest) else idle + 1
                furthest = max(furthest, came)
                if idle >= _TRIES:
                    raise problem if isinstance(problem, LLMError) else ConnectionLost("the download broke off again and again") from None
        if file.tell() > start:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # the next file's first line must not hang on this one's last
                file.write(b"\n")

    def _stream(self, source: str, file: BinaryIO, start: int, headers: Mapping[str, Any]) -> None:
        import httpx2

        have = file.tell() - start
        # Ranges count the bytes that travel, so they must not be packed.
        wanted = {"Accept": "application/binary", "Accept-Encoding": "identity", **headers}
        if have:
            wanted["Range"] = f"bytes={have}-"
        with self._refusals():
            response = self._client.get(source, cast_to=httpx2.Response, stream=True, options={"headers": wanted})
        try:
            if "html" in response.headers.get("content-type", ""):
                raise ServerFault("a page came where the results should be", kind="bad_response")
            if have and not (response.status_code == 206 and response.headers.get("content-range", "").startswith(f"bytes {have}-")):
                file.seek(start)
                file.truncate()
                if response.status_code == 206:
                    raise ServerFault("the results came from another place than was asked for", kind="bad_response")
            for piece in response.iter_bytes():
                file.write(piece)
        finally:
            response.close()

    @staticmethod
    def json(response: Any) -> dict[str, Any]:
        """The JSON object of a response; proxies answer 200 with pages."""
        try:
            data = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            data = None
        if isinstance(data, list):  # Together lists its jobs so
            return {"data": data}
        if not isinstance(data, dict):
            raise ServerFault("the answer is not a JSON object", kind="bad_response", status=response.status_code)
        return data

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What the SDK raises, as what it is. Its own words may quote a body or a key, so none is chained."""
        try:
            yield
        except self._sdk.APIStatusError as error:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            if "html" in headers.get("content-type", ""):
                # A hotel's network, a proxy: no word of the vendor's, so nothing is over because of it.
                raise ServerFault(
                    f"a page came in place of an answer ({error.response.status_code})", status=error.response.status_code
                ) from None
            raise self._classify(error.response.status_code, headers, error.response.content) from None
        except self._sdk.APITimeoutError:
            raise TimedOut("the provider was waited for in vain") from None
        except self._sdk.APIConnectionError:
            raise ConnectionLost("the connection was lost, or there was none") from None


def by_openais_sdk(make: Callable[[Target], Any], classify_error: Classify) -> Callable[[Target], Account]:
    """``account(target)``, reached by the openai SDK; ``make(target)`` is its client, retries off."""

    def account(target: Target) -> Account:
        import openai

        return Account(openai, make(target), classify_error)

    return account


def looked_at(
    account: Callable[[Target], Account], jobs: str, state_of: Callable[[Mapping[str, Any]], JobState]
) -> tuple[Callable[[Target, str], JobState], Callable[[Target, str], JobState]]:
    """``look`` and ``cancel`` of a vendor whose jobs are at ``<jobs>/<id>`` and end by a post to ``<jobs>/<id>/cancel``."""

    def look(target: Target, id: str) -> JobState:
        with account(target) as there:
            return state_of(there.get(f"{jobs}/{id}"))

    def cancel(target: Target, id: str) -> JobState:
        try:
            with account(target) as there:
                return state_of(there.post(f"{jobs}/{id}/cancel"))
        except RequestError as error:
            return is_gone(lambda: look(target, id), error)

    return look, cancel


def outputs_of(account: Callable[[Target], Account]) -> Callable[[Target, JobState, Path], None]:
    """``fetch`` of a vendor whose results are files at ``/files/<output>/content``."""

    def fetch(target: Target, state: JobState, path: Path) -> None:
        with account(target) as there:
            there.save([f"/files/{output}/content" for output in state.outputs], path)

    return fetch


@contextmanager
def submitting(target: Target) -> Iterator[None]:
    """An address that is not there has no jobs: a model that is not is told of in the job's own errors."""
    try:
        yield
    except ModelGone:
        raise Unsupported(f"{target.provider.name} has no batch jobs at this address") from None


def written(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """A file as ``write`` fills it, complete or not there at all."""
    partly = path.with_name(f"{path.name}.part")
    try:
        with partly.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partly.replace(path)
    except BaseException:
        partly.unlink(missing_ok=True)
        raise


def is_gone(state_of: Callable[[], JobState], error: LLMError) -> JobState:
    """The state of a job that was not to be cancelled because it had ended; ``error`` where that was not why."""
    state = state_of()
    if state.state != "ended":
        raise error
    return state


def unix(moment: Any) -> float | None:
    """Unix time of a moment as vendors write it: seconds, or RFC 3339 with up to nine digits behind the point."""
    if isinstance(moment, int | float) and not isinstance(moment, bool):
        return float(moment)
    if not isinstance(moment, str):
        return None
    try:
        read = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def counted(number: Any) -> int:
    """A count as vendors write it: Google's JSON has whole numbers as text."""
    if isinstance(number, str):
        return int(number) if number.isdecimal() else 0
    return number if type(number) is int and number >= 0 else 0


# -------------------------------------------------------------------------------------------------- lines in OpenAI's shape


def line(custom_id: str, body: bytes, **members: str) -> bytes:
    """``{"custom_id": ..., <members>, "body": ...}``: the body goes in as it is, it is JSON already."""
    head = orjson.dumps({"custom_id": custom_id, **members})
    return b'%s,"body":%s}' % (head[:-1], body)


def answer_of(line: bytes, classify_error: Classify) -> JobAnswer:
    """A result line: ``{"custom_id", "response": {"status_code", "body"}, "error"}``."""
    data = orjson.loads(line)
    custom_id = data.get("custom_id") if isinstance(data, dict) else None
    if not isinstance(custom_id, str):
        raise ValueError("not a result line")
    response, error = data.get("response"), data.get("error")
    if isinstance(response, dict) and response.get("body") is not None:
        status = counted(response.get("status_code")) or 200
        body = response["body"]
        raw = body.encode() if isinstance(body, str) else orjson.dumps(body)
        if status < 300:
            return JobAnswer(custom_id, raw)
        return JobAnswer(custom_id, error=classify_error(status, {}, raw))
    if not error:
        return JobAnswer(custom_id, error=InvalidRequest("the job has neither an answer nor an error for this request"))
    told = error if isinstance(error, dict) else {"message": str(error)}
    if told.get("code") in _NOT_ASKED:
        return JobAnswer(custom_id, asked=False)
    return JobAnswer(custom_id, error=classify_error(counted(told.get("status_code")) or 400, {}, orjson.dumps({"error": told})))


#: What stands for a request that was never asked: OpenAI's words in its error file (warmbly/warmbly#333, seen 2026-11-21).
_NOT_ASKED = {"batch_expired", "batch_cancelled"}
