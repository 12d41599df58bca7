"""Files and addresses named in cells: what is read, what is passed on, what is refused."""

from __future__ import annotations

import base64
import io
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmkit.errors import BadInput, InvalidRequest
from llmkit.operations.files import (
    FileRules,
    picture_bytes,
    picture_type,
    public_address,
    read_file,
    seconds_at_most,
    sound_bytes,
    sound_type,
)


def png(colour: str = "red", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (2, 2), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def wav(seconds: float, rate: int = 8000) -> bytes:
    size = int(seconds * rate * 2)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", size)
    return head + bytes(size)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An allowed working directory beside what is not allowed."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(cell: Any, rules: FileRules | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        picture_bytes(cell, rules or FileRules())
    return caught.value.kind


# ------------------------------------------------------------------------------------------------------------------ paths


def test_a_file_of_the_working_directory_is_read_by_its_name(here: Path) -> None:
    (here / "a.png").write_bytes(png())
    assert picture_bytes("a.png", FileRules()) == picture_bytes(here / "a.png", FileRules()) == png()


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "/etc/passwd", "~/secret.png"])
def test_a_path_that_leads_out_is_refused(here: Path, name: str) -> None:
    (here.parent / "secret.png").write_bytes(png())
    assert refused(name) == "outside_roots"


def test_a_link_that_leads_out_is_refused(here: Path) -> None:
    (here.parent / "secret.png").write_bytes(png())
    (here / "link.png").symlink_to(here.parent / "secret.png")
    assert refused("link.png") == "outside_roots"


def test_a_folder_that_is_a_link_leads_out_too(here: Path) -> None:
    (here.parent / "secret").mkdir()
    (here.parent / "secret" / "a.png").write_bytes(png())
    (here / "sub").symlink_to(here.parent / "secret")
    assert refused("sub/a.png") == "outside_roots"


def test_links_that_stay_inside_are_followed(here: Path) -> None:
    (here / "a.png").write_bytes(png())
    (here / "link.png").symlink_to("a.png")
    assert picture_bytes("link.png", FileRules()) == png()


def test_roots_allow_other_folders_and_then_only_those(here: Path) -> None:
    (here / "a.png").write_bytes(png())
    other = here.parent / "other"
    other.mkdir()
    (other / "b.png").write_bytes(png("blue"))
    rules = FileRules.of([other], 2**20)
    assert picture_bytes(other / "b.png", rules) == png("blue")
    assert refused("a.png", rules) == "outside_roots"


def test_a_folder_whose_name_only_begins_like_a_root_is_outside(here: Path) -> None:
    twin = here.parent / "here-too"
    twin.mkdir()
    (twin / "a.png").write_bytes(png())
    assert refused(twin / "a.png", FileRules.of(here, 2**20)) == "outside_roots"


def test_a_root_that_is_no_folder_is_told_at_once(here: Path) -> None:
    (here / "file").write_text("-")
    for root in ("nowhere", "file"):
        with pytest.raises(BadInput, match="no folder"):
            FileRules.of(root, 1)


@pytest.mark.parametrize("name", ["none.png", "", ".", "a\0b.png", "x" * 5000, "~no-such-user-at-all/a.png", "a/b/c.png"])
def test_what_is_not_there_is_no_file(here: Path, name: str) -> None:
    assert refused(name) == "no_file"


def test_links_in_a_circle_are_no_file(here: Path) -> None:
    (here / "one").symlink_to("two")
    (here / "two").symlink_to("one")
    assert refused("one") == "no_file"


def test_a_pipe_is_not_waited_for(here: Path) -> None:
    os.mkfifo(here / "pipe.png")
    assert refused("pipe.png") == "no_file"


def test_one_byte_too_many_is_too_large(here: Path) -> None:
    data = png()
    (here / "a.png").write_bytes(data)
    assert read_file(Path("a.png"), FileRules((), len(data))) == data
    for cell in ("a.png", data, "data:image/png;base64," + base64.b64encode(data).decode()):
        assert refused(cell, FileRules((), len(data) - 1)) == "too_large"


# ------------------------------------------------------------------------------------------------------------------ cells


@pytest.mark.parametrize(
    "cell",
    [
        png(),
        bytearray(png()),
        memoryview(png()),
        {"bytes": png(), "path": None},
        {"bytes": png(), "path": "/etc/passwd"},
        "data:image/png;base64," + base64.b64encode(png()).decode(),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in png()),
    ],
)
def test_bytes_are_found_however_a_cell_holds_them(cell: Any) -> None:
    assert picture_bytes(cell, FileRules()) == png()


def test_a_path_in_a_mapping_obeys_the_same_rules(here: Path) -> None:
    (here / "a.png").write_bytes(png())
    assert picture_bytes({"bytes": None, "path": "a.png"}, FileRules()) == png()
    assert refused({"bytes": None, "path": "/etc/passwd"}) == "outside_roots"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "F", "I"])
def test_a_pil_picture_of_any_mode_becomes_a_png(mode: str) -> None:
    shown = Image.new("RGB", (2, 3), "red")
    data = picture_bytes(shown.convert(mode) if mode not in ("LAB", "HSV", "YCbCr") else Image.new(mode, (2, 3)), FileRules())
    assert picture_type(data) == "image/png"
    assert Image.open(io.BytesIO(data)).size == (2, 3)


def test_a_pil_picture_whose_file_is_damaged_fails_its_row_only() -> None:
    assert refused(Image.open(io.BytesIO(png()[:50]))) == "no_picture"


def test_a_pil_picture_is_bounded_too() -> None:
    assert refused(Image.new("RGB", (2, 2)), FileRules((), 10)) == "too_large"


@pytest.mark.parametrize("cell", [17, 1.5, object(), {}, {"url": "https://example.org"}, ["a.png"]])
def test_what_is_no_picture_at_all_is_refused(cell: Any) -> None:
    assert refused(cell) == "invalid_request"


@pytest.mark.parametrize("url", ["data:image/png;base64,!!!", "data:image/png;base64,QQ", "data:;base64"])
def test_a_damaged_data_url_holds_nothing_usable(url: str) -> None:
    with pytest.raises(InvalidRequest):
        picture_type(picture_bytes(url, FileRules()))


@pytest.mark.parametrize("cell", ["file:///etc/passwd", "ftp://example.org/a.png", "HTTP://169.254.169.254/", "gopher://x/"])
def test_other_addresses_are_not_visited(cell: str) -> None:
    assert refused(cell) == "address"


def test_no_refusal_repeats_what_stands_in_a_file(here: Path) -> None:
    (here / "notes.txt").write_text("the secret of the file")
    with pytest.raises(InvalidRequest) as caught:
        picture_type(picture_bytes("notes.txt", FileRules()))
    assert caught.value.kind == "no_picture"
    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------------ kinds


@pytest.mark.parametrize(("format", "kind"), [("PNG", "png"), ("JPEG", "jpeg"), ("GIF", "gif"), ("WEBP", "webp")])
def test_a_picture_is_known_by_its_own_bytes(format: str, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, format=format)
    assert picture_type(buffer.getvalue()) == f"image/{kind}"


@pytest.mark.parametrize("data", [b"", b"BM" + bytes(60), b"<svg xmlns='x'/>", b"%PDF-1.7", b"RIFF1234WAVE", b"root:x:0:0:"])
def test_anything_else_is_no_picture(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        picture_type(data)
    assert caught.value.kind == "no_picture"


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (b"ID3\x04", "mp3"),
        (b"\xff\xfb\x90\x00", "mp3"),
        (b"\xff\xf1\x50\x80", "mp3"),
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"\x1aE\xdf\xa3", "webm"),
        (b"\0\0\0\x20ftypM4A ", "m4a"),
        (wav(0), "wav"),
    ],
)
def test_sound_is_known_by_its_own_bytes(data: bytes, ending: str) -> None:
    assert sound_type(data)[0] == ending


@pytest.mark.parametrize("data", [b"", b"\xff", b"RIFF1234WEBP", b"hello there", png()])
def test_anything_else_is_no_sound(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sound_type(data)
    assert caught.value.kind == "no_sound"


def test_sound_is_read_by_the_same_rules_as_pictures(here: Path) -> None:
    (here / "a.wav").write_bytes(wav(1))
    assert sound_bytes("a.wav", FileRules()) == wav(1)
    for cell, kind in (("/etc/passwd", "outside_roots"), ("http://example.org/a.wav", "address"), ("none.wav", "no_file")):
        with pytest.raises(InvalidRequest) as caught:
            sound_bytes(cell, FileRules())
        assert caught.value.kind == kind


def test_a_wav_lasts_as_long_as_its_header_says() -> None:
    assert seconds_at_most(wav(3)) == pytest.approx(3, rel=0.01)
    assert seconds_at_most(wav(3, rate=44100)) == pytest.approx(3, rel=0.01)


def test_what_does_not_say_how_long_it_lasts_is_taken_for_long() -> None:
    assert seconds_at_most(b"ID3\x04" + bytes(19_996)) == 10
    forged = bytearray(wav(3))
    forged[28:32] = bytes(4)
    assert seconds_at_most(bytes(forged)) == pytest.approx(24, rel=0.01)


# -------------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.png",
        "https://example.org:8443/a.png?size=2#x",
        "https://sub.example.co.uk/a%20b.png",
        "https://bücher.example/a.png",
        "https://93.184.215.14/a.png",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/a.png",
        "http://example.org/a.png",
        "https://example.org./a.png",
    ],
)
def test_an_address_of_the_open_web_is_passed_on_as_it_is(url: str) -> None:
    assert public_address(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:8888/api",
        "http://[::ffff:127.0.0.1]/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://localhost/a.png",
        "http://localhost./a.png",
        "http://LOCALHOST:8080/a.png",
        "http://a.localhost/a.png",
        "http://127.0.0.1/a.png",
        "http://127.1/a.png",
        "http://0/a.png",
        "http://0.0.0.0/a.png",
        "http://10.0.0.5/a.png",
        "http://192.168.1.1/a.png",
        "http://172.16.0.1/a.png",
        "http://100.64.0.1/a.png",
        "http://2130706433/a.png",
        "http://0x7f000001/a.png",
        "http://0x7f.0x1/a.png",
        "http://0177.0.0.1/a.png",
        "http://127.0.0.0x1/a.png",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://printer.local/a.png",
        "http://intranet/a.png",
        "http://user:pass@example.org/a.png",
        "http://user@example.org/a.png",
        "http://example.org@127.0.0.1/a.png",
        "http://127.0.0.1\\.example.org/a.png",
        "http://127.0.0.%31/a.png",
        "http://127。0。0。1/a.png",
        "http:///a.png",
        "http://",
        "http://[::1/a.png",
        "http://exa mple.org/a.png",
    ],
)
def test_an_address_inside_a_network_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        public_address(url)
    assert caught.value.kind == "address"
