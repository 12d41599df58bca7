"""The one HTTP session: posts bodies with a target's request template and hands back what came.

No redirects (a 307 would carry prompts to another host), a bound on what a body may grow to (a gzip bomb of 300 KiB inflates to
300 MiB), one time limit around sending and reading together (a server that drips a byte a second never trips a per-read one).
"""

from __future__ import annotations

import asyncio
import functools
import io
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ..adapter import RequestTemplate
from ..errors import ConnectionLost, LLMError, ServerFault, TimedOut, Untrusted

__all__ = ["MAX_BODY", "Response", "Transport"]

#: Bytes an answer may have once it is unpacked.
MAX_BODY = 64 * 1024 * 1024

_PIECE = 256 * 1024

#: Seconds within which a closed connection was stale: the server had closed it while it lay idle in the pool (uvicorn: after 5 s). That is
#: nobody's failed attempt; a fresh connection gets one chance.
_STALE = 0.5


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. ``headers`` are looked up case-blind."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Address:
    url: URL
    headers: CIMultiDict[str] = field(repr=False)  # hold the key
    proxy: str | None = field(repr=False)  # may hold a password


class Transport:
    """One aiohttp session on the loop thread; made on the first request.

    Parameters
    ----------
    proxy_for : callable
        ``proxy_for(url) -> proxy URL or None``; the settings know the environment, this floor does not.
    max_body : int
        Bytes an answer may have once it is unpacked.
    """

    def __init__(self, proxy_for: Callable[[str], str | None] = lambda url: None, max_body: int = MAX_BODY) -> None:
        self._proxy_for = proxy_for
        self._max_body = max_body
        self._session: aiohttp.ClientSession | None = None
        self._addresses: dict[int, tuple[RequestTemplate, _Address]] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def post(self, template: RequestTemplate, body: bytes, timeout: float) -> Response:
        """Send one body; any status is a response.

        Raises
        ------
        ConnectionLost, TimedOut, Untrusted, ServerFault
            No answer, none in time, none from whom it should be, none that can be read.
        """
        session = self._session or self._open()
        address = self._address(template)
        limit = self._timeouts.get(timeout)
        if limit is None:
            limit = self._timeouts[timeout] = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 20.0))
        began = time.monotonic()
        try:
            try:
                return await self._exchange(session, address, body, limit)
            except aiohttp.ServerDisconnectedError:
                if time.monotonic() - began > _STALE:
                    raise
                return await self._exchange(session, address, body, limit)
        except TimeoutError as error:
            raise _too_late(error, f"no answer within {timeout:g} s") from None
        except LLMError as error:
            error.lost = True
            raise
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise _translated(error, address) from None

    async def get(self, url: str, timeout: float, headers: Mapping[str, str] | None = None) -> Response:
        """Fetch a small JSON page (a server's list of models); errors as in ``post``."""
        session = self._session or self._open()
        address = _Address(URL(url, encoded=True), CIMultiDict({"Accept": "application/json", **(headers or {})}), self._proxy_for(url))
        limit = aiohttp.ClientTimeout(total=timeout)
        try:
            async with session.get(
                address.url, headers=address.headers, timeout=limit, allow_redirects=False, proxy=address.proxy
            ) as answer:
                return Response(answer.status, answer.headers, await self._read(answer))
        except TimeoutError:
            raise TimedOut(f"no answer within {timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error, address) from None

    @asynccontextmanager
    async def open(
        self, template: RequestTemplate, body: bytes, timeout: float, idle: float
    ) -> AsyncIterator[tuple[Response, AsyncIterator[bytes]]]:
        """Send one body and hand over what comes, piece by piece as it comes; a refusal comes whole, in the response.

        Parameters
        ----------
        timeout, idle : float
            Seconds for all of it, and between two pieces.
        """
        session = self._session or self._open()
        address = self._address(template)
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 20.0), sock_read=idle)
        began = time.monotonic()
        try:
            try:
                answer = await self._send(session, address, body, limit)
            except aiohttp.ServerDisconnectedError:
                if time.monotonic() - began > _STALE:
                    raise
                answer = await self._send(session, address, body, limit)
            async with answer:
                refused = answer.status != 200
                response = Response(answer.status, answer.headers, await self._read(answer) if refused else b"")
                yield response, self._unpacked(answer)
        except TimeoutError as error:
            raise _too_late(error, f"the answer did not go on for {idle:g} s, or did not end within {timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise _translated(error, address) from None

    async def _unpacked(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        unpack, size = _unpacker(answer.headers.get("Content-Encoding", "").lower()), 0
        async for packed in answer.content.iter_any():
            rest = packed
            while rest:
                plain, rest = unpack(rest)
                size += len(plain)
                if size > self._max_body:
                    raise ServerFault(f"the answer grew beyond {self._max_body // 2**20} MiB and was dropped", kind="bad_response")
                if plain:
                    yield plain

    async def _exchange(self, session: aiohttp.ClientSession, address: _Address, body: bytes, limit: aiohttp.ClientTimeout) -> Response:
        async with await self._send(session, address, body, limit) as answer:
            return Response(answer.status, answer.headers, await self._read(answer))

    @staticmethod
    async def _send(session: aiohttp.ClientSession, address: _Address, body: bytes, limit: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        # aiohttp warns of bytes beyond a megabyte that are handed over at once; as a file they are sent in pieces.
        data: bytes | io.BytesIO = body if len(body) <= 2**20 else io.BytesIO(body)
        return await session.post(
            address.url, data=data, headers=address.headers, timeout=limit, allow_redirects=False, proxy=address.proxy
        )

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        packing = answer.headers.get("Content-Encoding", "").lower()
        declared = answer.content_length
        if not packing and declared is not None and declared <= self._max_body:
            return await answer.read()
        unpack = _unpacker(packing)
        pieces, size = [], 0
        async for packed in answer.content.iter_chunked(_PIECE):
            rest = packed
            while rest:
                plain, rest = unpack(rest)
                size += len(plain)
                if size > self._max_body:
                    raise ServerFault(f"the answer grew beyond {self._max_body // 2**20} MiB and was dropped", kind="bad_response")
                pieces.append(plain)
        return b"".join(pieces)

    def _address(self, template: RequestTemplate) -> _Address:
        known = self._addresses.get(id(template))
        if known is not None and known[0] is template:
            return known[1]
        headers: CIMultiDict[str] = CIMultiDict(template.headers)
        headers["Accept-Encoding"] = "gzip, deflate"
        address = _Address(URL(template.url, encoded=True), headers, self._proxy_for(template.url))
        if len(self._addresses) > 256:
            self._addresses.clear()
        self._addresses[id(template)] = (template, address)
        return address

    def _open(self) -> aiohttp.ClientSession:
        # No bound here: what may be in flight is the limiter's to say, and a pool smaller than it would hold requests that look sent.
        # aiohttp makes its own TLS context when it is imported; SSL_CERT_FILE, which our messages advise, is mostly set after that.
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, ssl=_trusting(ssl.get_default_verify_paths()))
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,  # unpacked here, within a bound
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            trust_env=False,
        )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


@functools.cache
def _trusting(paths: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """Who is trusted, by where their certificates are: reading them takes 30 to 120 ms, in which the loop does nothing else."""
    return ssl.create_default_context()


def _unpacker(packing: str) -> Callable[[bytes], tuple[bytes, bytes]]:
    """``unpack(piece) -> (plain, rest)``, never more than a piece of plain text at a time."""
    if packing in ("", "identity"):
        return lambda piece: (piece, b"")
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise ServerFault(f"the answer is packed as {packing[:20]!r}, which was not asked for", kind="bad_response")
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32 if packing != "deflate" else zlib.MAX_WBITS)

    def unpack(piece: bytes) -> tuple[bytes, bytes]:
        try:
            return inflate.decompress(piece, _PIECE), inflate.unconsumed_tail
        except zlib.error:
            raise ServerFault("the packed answer is damaged", kind="bad_response") from None

    return unpack


def _too_late(error: BaseException, message: str) -> TimedOut:
    made = TimedOut(message)
    made.lost = not isinstance(error, aiohttp.ConnectionTimeoutError)
    return made


def _translated(error: BaseException, address: _Address) -> LLMError:
    """aiohttp's and the socket's errors as ours; the one border where foreign exceptions are known."""
    made = _named(error, address)
    # Whoever could not be reached got nothing to bill.
    made.lost = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError)
    return made


def _named(error: BaseException, address: _Address) -> LLMError:
    host = address.url.host or "the host"
    where = f"{host}:{address.url.port}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return Untrusted(
            f"the TLS certificate of {where} could not be verified. If a proxy or a private authority issues it, name its "
            "certificate file in SSL_CERT_FILE"
        )
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return ConnectionLost(f"the proxy {_bare(address.proxy)} does not answer; see HTTPS_PROXY and NO_PROXY")
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return ConnectionLost(f"the name {host} is not known (DNS)")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectionLost(f"nothing answers at {where} ({(error.os_error.strerror or 'connection failed').lower()})")
    if isinstance(error, aiohttp.ClientPayloadError | asyncio.IncompleteReadError):
        return ConnectionLost(f"the answer of {where} broke off")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | OSError):
        return ConnectionLost(f"{where} closed the connection without an answer")
    if isinstance(error, aiohttp.ClientResponseError):
        return ServerFault(f"{where} answered with something that is not HTTP", kind="bad_response")
    return ConnectionLost(f"the connection to {where} failed ({type(error).__name__})")


def _bare(proxy: str | None) -> str:
    """A proxy's address without the password that may stand in it."""
    if not proxy:
        return "in use"
    url = URL(proxy)
    return f"{url.host}:{url.port}"
