"""Files named in cells: read within bounds, known by their first bytes, never fetched from an address.

A cell is data, and data may come from anybody. A path is followed only below the folders that were allowed, what is read must be a
picture or sound by its own bytes (``/etc/passwd`` is neither), and an address is handed to the vendor as it is or refused, never visited
from here.
"""

from __future__ import annotations

import io
import os
import re
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from pybase64 import b64decode

from ..errors import BadInput, InvalidRequest

__all__ = ["FileRules", "picture_bytes", "picture_type", "public_address", "read_file", "seconds_at_most", "sound_bytes", "sound_type"]


@dataclass(frozen=True, slots=True)
class FileRules:
    """What may be read for a cell.

    Attributes
    ----------
    roots : tuple of Path
        Folders below which paths may lie, links resolved; empty is the working directory.
    most_bytes : int
        Of one file.
    """

    roots: tuple[Path, ...] = ()
    most_bytes: int = 20 * 1024 * 1024

    @classmethod
    def of(cls, roots: Any, most_bytes: int) -> FileRules:
        """The rules for a ``roots=`` argument: a folder, several, or ``None``."""
        if roots is None:
            given: Sequence[Any] = ()
        elif isinstance(roots, str | os.PathLike):
            given = (roots,)
        else:
            given = tuple(roots)
        folders = tuple(Path(root).expanduser().resolve() for root in given)
        for folder in folders:
            if not folder.is_dir():
                raise BadInput(f"roots names {str(folder)!r}, which is no folder")
        return cls(folders, most_bytes)

    def check(self, path: Path) -> Path:
        """The resolved path, if it may be read.

        Raises
        ------
        InvalidRequest
            It lies outside; ``kind="outside_roots"``.
        """
        try:
            found = path.expanduser().resolve()
        except (ValueError, RuntimeError, OSError):  # a NUL in the name, a user that there is not, links in a circle
            raise InvalidRequest("there is no such file", kind="no_file") from None
        folders = self.roots or (Path.cwd().resolve(),)
        if not any(found.is_relative_to(folder) for folder in folders):
            where = "the folders of roots" if self.roots else "the working directory"
            raise InvalidRequest(
                f"the file lies outside {where}; allow its folder with roots=[{str(found.parent)!r}]", kind="outside_roots"
            )
        return found


def read_file(path: Path, rules: FileRules) -> bytes:
    """The bytes of an allowed regular file of at most ``rules.most_bytes``."""
    found = rules.check(path)
    try:
        if not found.is_file():  # also no pipe and no device, which may never end
            raise InvalidRequest("there is no such file", kind="no_file")
        size = found.stat().st_size
        if size > rules.most_bytes:
            raise InvalidRequest(
                f"the file has {size / 2**20:,.1f} MiB, more than the {rules.most_bytes / 2**20:,.0f} allowed", kind="too_large"
            )
        return found.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"the file cannot be read ({error.strerror or type(error).__name__})", kind="no_file") from None


def picture_bytes(cell: Any, rules: FileRules) -> bytes:
    """The bytes behind a cell: a path, bytes, a data URL, a PIL image, or ``{"bytes": ...}`` as datasets leave them."""
    if hasattr(cell, "save") and hasattr(cell, "tobytes"):  # PIL, which is not imported for this
        buffer = io.BytesIO()
        try:
            # PNG has no word for the colours of print, which many JPEGs have.
            (cell if getattr(cell, "mode", "") in _PNG_MODES else cell.convert("RGB")).save(buffer, format="PNG")
        except Exception as error:  # a file that PIL opened and has only now read, a picture without pixels
            raise InvalidRequest(f"the picture cannot be written as PNG ({type(error).__name__})", kind="no_picture") from None
        return _bounded(buffer.getvalue(), rules)
    return _bytes_behind(cell, rules, "picture")


_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


def sound_bytes(cell: Any, rules: FileRules) -> bytes:
    """The bytes behind a cell: a path, bytes, a data URL, or ``{"bytes": ...}`` as datasets leave them."""
    return _bytes_behind(cell, rules, "recording")


def _bytes_behind(cell: Any, rules: FileRules, what: str) -> bytes:
    if isinstance(cell, Mapping):
        held = cell.get("bytes")
        cell = cell.get("path") if held is None or not len(held) else held
    if hasattr(cell, "tobytes") and getattr(cell, "dtype", None) == "uint8":  # as Parquet leaves a list of bytes
        cell = cell.tobytes()
    if isinstance(cell, bytes | bytearray | memoryview):
        return _bounded(bytes(cell), rules)
    if isinstance(cell, str) and cell.startswith("data:"):
        return _bounded(_data_url(cell), rules)
    if isinstance(cell, str) and "://" in cell[:16]:
        raise InvalidRequest(f"addresses are not visited from here; download the {what} first", kind="address")
    if isinstance(cell, str | os.PathLike):
        try:
            return read_file(Path(cell), rules)
        except (ValueError, OSError):  # a NUL in the name, a name that is too long
            raise InvalidRequest("there is no such file", kind="no_file") from None
    raise InvalidRequest(f"a {type(cell).__name__} is no {what}: give a path, bytes or a data URL")


def _bounded(data: bytes, rules: FileRules) -> bytes:
    if len(data) > rules.most_bytes:
        raise InvalidRequest(f"{len(data) / 2**20:,.1f} MiB are more than the {rules.most_bytes / 2**20:,.0f} allowed", kind="too_large")
    return data


def _data_url(url: str) -> bytes:
    head, comma, rest = url.partition(",")
    try:
        return b64decode(rest, validate=True) if head.endswith(";base64") and comma else unquote_to_bytes(rest)
    except (NotBase64, ValueError):
        raise InvalidRequest("the data URL is damaged") from None


_PICTURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


def picture_type(data: bytes) -> str:
    """The media type by the first bytes: the four kinds that every vision model reads.

    Raises
    ------
    InvalidRequest
        It is none of them.
    """
    for mark, media_type in _PICTURES:
        if data.startswith(mark):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise InvalidRequest("this is no PNG, JPEG, GIF or WebP picture; convert it first", kind="no_picture")


_SOUNDS = (
    (b"ID3", "mp3", "audio/mpeg"),
    (b"fLaC", "flac", "audio/flac"),
    (b"OggS", "ogg", "audio/ogg"),
    (b"\x1aE\xdf\xa3", "webm", "audio/webm"),
)


def sound_type(data: bytes) -> tuple[str, str]:
    """(file name ending, media type) by the first bytes.

    Raises
    ------
    InvalidRequest
        It is no sound that the services take.
    """
    for mark, ending, media_type in _SOUNDS:
        if data.startswith(mark):
            return ending, media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav", "audio/wav"
    if data[4:8] == b"ftyp":
        return "m4a", "audio/mp4"
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "mp3", "audio/mpeg"
    raise InvalidRequest("this is no WAV, MP3, FLAC, Ogg, MP4 or WebM recording", kind="no_sound")


#: Speech is hardly ever stored in fewer bytes a second; a bound on how long a recording of unknown make may be.
_FEWEST_BYTES_A_SECOND = 2000


def seconds_at_most(data: bytes) -> float:
    """How long a recording can be: of a WAV as its header says, of anything else by its size."""
    is_wav = data[:4] == b"RIFF" and data[8:16] == b"WAVEfmt "
    a_second = int.from_bytes(data[28:32], "little") if is_wav else 0
    return len(data) / max(a_second, _FEWEST_BYTES_A_SECOND)


def public_address(url: str) -> str:
    """An address that may be handed to a vendor: one of the open web.

    Raises
    ------
    InvalidRequest
        It names a host inside a network; a server asked to fetch it would be asked to look there.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        inside = not host or bool(parts.username or parts.password) or not _is_public(host)
    except ValueError:
        inside = True
    if inside:
        raise InvalidRequest("only addresses of the open web are passed on; give the file or its bytes", kind="address")
    return url


def _is_public(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        # A number in disguise (0x7f.1, 2130706433) is no name of the open web, and those have a dot.
        last = host.rpartition(".")[2]
        return (
            # Readers of addresses differ in what they make of other characters: http://10.0.0.1\\.example.org is two hosts to two of them.
            re.fullmatch(r"[\w.-]+", host) is not None
            and "." in host
            and not last.isdigit()
            and not last.startswith("0x")
            and last not in ("local", "internal", "localhost", "lan", "home")
        )
