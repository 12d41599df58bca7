"""``df.llm.transcribe`` and ``df.llm.speak`` against a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.errors import BadInput, ConfigError, KeyRejected, Unsupported
from llmkit.frames.columns import TEXT
from llmkit.session import default
from tests.loopback import Json, Loopback, Upload, bad_key, error_of, heard_in, rate_limited, server_error, speech_of
from tests.operations.test_files import wav

from .asked import last

HEAR: dict[str, Any] = {"model": "lab/whisper-1", "show_progress": False}
SAY: dict[str, Any] = {"model": "lab/tts-1", "voice": "x", "format": "wav", "show_progress": False}
MP3 = b"ID3\x04" + bytes(range(256)) * 10


def frame(name: str, *cells: Any) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(list(cells), dtype=object)})


def priced(name: str, **price: float) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": name, "price": price}]})


def kinds() -> dict[int, str]:
    return last().errors().set_index("row")["kind"].to_dict()  # type: ignore[no-any-return]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "ms-smith.mp3").write_bytes(MP3)
    monkeypatch.chdir(folder)
    return folder


# ------------------------------------------------------------------------------------------------------------- transcribe


def test_a_recording_arrives_intact_and_nameless(lab: Loopback, here: Path) -> None:
    said = frame("audio", "ms-smith.mp3").llm.transcribe("audio", **HEAR)
    assert said.tolist() == [heard_in("recording.mp3", len(MP3), "whisper-1")]
    (request,) = lab.seen
    assert request.path == "/v1/audio/transcriptions"
    assert request.body["file"] == Upload("recording.mp3", "audio/mpeg", MP3)
    assert (request.body["model"], request.body["response_format"]) == ("whisper-1", "json")
    assert "smith" not in repr(request)


def test_bytes_that_look_like_the_edge_of_a_form_arrive_intact(lab: Loopback) -> None:
    odd = b"ID3\x04\r\n--boundary--\r\n\r\nContent-Disposition: form-data\r\n" + bytes(range(256))
    frame("audio", odd).llm.transcribe("audio", **HEAR)
    assert lab.seen[0].body["file"].data == odd


def test_a_recording_of_megabytes_arrives_intact(lab: Loopback) -> None:
    large = wav(200)
    frame("audio", large).llm.transcribe("audio", **HEAR)
    assert lab.seen[0].body["file"].data == large


def test_the_result_is_a_text_a_row_on_the_frames_own_index(lab: Loopback, here: Path) -> None:
    df = frame("audio", MP3, None, Path("ms-smith.mp3"), "", {"bytes": wav(1)}).set_axis(list("vwxyz"))
    said = df.llm.transcribe("audio", **HEAR)
    assert said.dtype == TEXT
    assert said.index.tolist() == list("vwxyz")
    assert said.isna().tolist() == [False, True, False, True, False]
    assert lab.requests == 2


def test_language_and_prompt_travel_and_ask_another_question(lab: Loopback) -> None:
    df = frame("audio", MP3)
    df.llm.transcribe("audio", language="en", prompt="Müller, «Ütz»", temperature=0.2, **HEAR)
    df.llm.transcribe("audio", language="de", **HEAR)
    first, second = (seen.body for seen in lab.seen)
    assert (first["language"], first["prompt"], first["temperature"], second["language"]) == ("en", "Müller, «Ütz»", "0.2", "de")
    assert "prompt" not in second


def test_the_same_recording_again_costs_nothing_wherever_it_lies(lab: Loopback, here: Path) -> None:
    first = frame("audio", "ms-smith.mp3").llm.transcribe("audio", **HEAR)
    assert frame("audio", MP3, MP3).llm.transcribe("audio", **HEAR).tolist() == first.tolist() * 2
    assert lab.requests == 1


@pytest.mark.parametrize(
    ("cell", "kind"), [(b"no sound", "no_sound"), ("none.mp3", "no_file"), ("/etc/passwd", "outside_roots"), ("http://x/a.mp3", "address")]
)
def test_what_is_no_recording_fails_its_row_only(lab: Loopback, here: Path, cell: Any, kind: str) -> None:
    said = frame("audio", MP3, cell).llm.transcribe("audio", **HEAR)
    assert said.isna().tolist() == [False, True]
    assert kinds() == {1: kind}
    assert lab.requests == 1


def test_a_first_path_outside_stops_the_call(lab: Loopback, here: Path) -> None:
    with pytest.raises(BadInput, match="outside the working directory"):
        frame("audio", "/etc/passwd").llm.transcribe("audio", **HEAR)
    assert lab.requests == 0


def test_a_recording_that_is_too_large_fails_its_row(lab: Loopback) -> None:
    frame("audio", MP3, wav(1)).llm.transcribe("audio", max_file_mb=0.005, **HEAR)
    assert kinds() == {1: "too_large"}


def test_seconds_are_billed_by_the_minute(lab: Loopback) -> None:
    priced("whisper-1", audio_minute=0.6)
    detail = frame("audio", wav(3), None).llm.transcribe("audio", detail=True, **HEAR)
    assert last().usage().audio_seconds == 3
    assert detail["cost"][0] == pytest.approx(0.03)
    assert detail["value"].isna().tolist() == [False, True]
    again = frame("audio", wav(3)).llm.transcribe("audio", detail=True, **HEAR)
    assert (again["source"][0], again["cost"][0]) == ("cache", 0.0)


def test_tokens_of_sound_are_billed_as_such(lab: Loopback) -> None:
    priced("gpt-4o-transcribe", input=2.5, audio_input=6.0, output=10.0)
    frame("audio", wav(3)).llm.transcribe("audio", model="lab/gpt-4o-transcribe", show_progress=False)
    usage = last().usage()
    assert usage.audio_input == usage.input > 0
    assert last().cost == pytest.approx((6 * usage.audio_input + 10 * usage.output) / 1e6)


def test_mistral_bills_the_time(server: Loopback) -> None:
    llmkit.add_provider("lab", server.compat_url_of("mistral"), "test-key-not-real")
    priced("voxtral", audio_minute=0.6)
    frame("audio", wav(3)).llm.transcribe("audio", model="lab/voxtral", show_progress=False)
    assert last().cost == pytest.approx(0.03)


def test_a_cost_that_nobody_told_is_unknown(lab: Loopback) -> None:
    priced("whisper-1", audio_minute=0.6)
    lab.fault(None, Json({"text": "some words"}))
    frame("audio", MP3).llm.transcribe("audio", **HEAR)
    assert last().cost is None


@pytest.mark.parametrize(
    ("name", "price"), [("whisper-1", {"audio_minute": 0.6}), ("gpt-4o-transcribe", {"input": 2.5, "audio_input": 600.0, "output": 1000.0})]
)
def test_a_budget_bounds_what_is_heard(lab: Loopback, name: str, price: dict[str, float]) -> None:
    priced(name, **price)
    df = frame("audio", *(wav(3 + number / 100) for number in range(20)))
    with pytest.warns(UserWarning, match="max_cost"):
        said = df.llm.transcribe("audio", max_cost=0.2, model=f"lab/{name}", show_progress=False)
    assert 0 < said.notna().sum() < 20
    assert 0 < last().cost <= 0.2


def test_a_budget_needs_a_price(lab: Loopback) -> None:
    with pytest.raises(ConfigError, match="max_cost needs a price"):
        frame("audio", MP3).llm.transcribe("audio", max_cost=1.0, **HEAR)
    assert lab.requests == 0


def test_a_dry_run_reads_the_files_and_sends_nothing(lab: Loopback, here: Path) -> None:
    priced("whisper-1", audio_minute=0.6)
    plan = frame("audio", wav(60), wav(60), None, "none.mp3").llm.transcribe("audio", dry_run=True, **HEAR)
    assert (plan.rows, plan.unique, plan.requests, lab.requests) == (4, 1, 1, 0)
    assert plan.cost == pytest.approx(0.6, rel=0.02)


def test_a_transcription_need_not_be_waited_for(lab: Loopback) -> None:
    run = frame("audio", MP3).llm.transcribe("audio", wait=False, **HEAR)
    assert run.result().notna().all()


@pytest.mark.parametrize("fault", [rate_limited(60), server_error()])
def test_what_passes_is_waited_out(lab: Loopback, fault: Any) -> None:
    lab.fault(None, fault)
    assert frame("audio", MP3).llm.transcribe("audio", **HEAR).notna().all()
    assert lab.requests == 2


def test_a_refused_key_stops_the_run(lab: Loopback) -> None:
    lab.fault(None, bad_key(), times=float("inf"))
    with pytest.raises(KeyRejected):
        frame("audio", MP3).llm.transcribe("audio", **HEAR)


def test_silence_is_a_row_error(lab: Loopback) -> None:
    lab.fault(None, Json({"text": " ", "usage": {"type": "duration", "seconds": 1}}))
    with pytest.warns(UserWarning, match="empty"):
        frame("audio", MP3).llm.transcribe("audio", **HEAR)
    assert kinds() == {0: "empty"}


# ------------------------------------------------------------------------------------------------------------------ speak


def test_a_row_becomes_the_bytes_of_a_recording(lab: Loopback) -> None:
    said = frame("text", "hello", None, "", "hello").set_axis(list("wxyz")).llm.speak("text", **SAY)
    assert said.dtype == object
    assert said["w"] == said["z"] == speech_of("hello", "x", "wav")
    assert said.isna().tolist() == [False, True, True, False]
    assert lab.requests == 1
    assert lab.seen[0].body == {"model": "tts-1", "input": "hello", "voice": "x", "response_format": "wav"}


def test_a_folder_gets_one_file_for_each_different_text(lab: Loopback, tmp_path: Path) -> None:
    said = frame("text", "hello", "bye", None, "hello").llm.speak("text", folder=tmp_path / "new" / "sound", **SAY)
    assert said.dtype == TEXT
    assert said[0] == said[3] != said[1]
    assert Path(said[1]).read_bytes() == speech_of("bye", "x", "wav")
    assert sorted(map(str, (tmp_path / "new" / "sound").iterdir())) == sorted({said[0], said[1]})
    assert {path.suffix for path in (tmp_path / "new" / "sound").iterdir()} == {".wav"}


def test_the_second_call_sends_nothing_and_files_that_were_deleted_are_there_again(lab: Loopback, tmp_path: Path) -> None:
    df = frame("text", "hello", "bye")
    first = df.llm.speak("text", folder=tmp_path, **SAY)
    Path(first[0]).unlink()
    Path(first[1]).write_bytes(b"half")
    assert df.llm.speak("text", folder=tmp_path, **SAY).tolist() == first.tolist()
    assert lab.requests == 2
    assert [Path(path).read_bytes() for path in first] == [speech_of(text, "x", "wav") for text in df["text"]]
    assert df.llm.speak("text", **SAY).tolist() == [speech_of(text, "x", "wav") for text in df["text"]]
    assert lab.requests == 2


def test_files_are_written_without_a_store_too(lab: Loopback, tmp_path: Path) -> None:
    said = frame("text", "hello").llm.speak("text", folder=tmp_path, cache="off", **SAY)
    assert Path(said[0]).read_bytes() == speech_of("hello", "x", "wav")


@pytest.mark.parametrize(("format", "start"), [("mp3", b"ID3"), ("wav", b"RIFF"), ("opus", b"OggS"), ("flac", b"fLaC")])
def test_each_format_has_its_ending(lab: Loopback, tmp_path: Path, format: str, start: bytes) -> None:
    (path,) = frame("text", "hello").llm.speak("text", folder=tmp_path, **{**SAY, "format": format})
    assert Path(path).suffix == f".{format}"
    assert Path(path).read_bytes().startswith(start)


def test_voice_speed_and_instructions_travel(lab: Loopback) -> None:
    frame("text", "hello").llm.speak("text", speed=2, instructions="Slowly.", **SAY)
    body = lab.seen[0].body
    assert (body["voice"], body["speed"], body["instructions"]) == ("x", 2.0, "Slowly.")


def test_a_voice_is_needed_where_there_is_no_usual_one(lab: Loopback) -> None:
    with pytest.raises(Unsupported, match="has no usual voice; name one with voice="):
        frame("text", "hello").llm.speak("text", model="lab/tts-1", show_progress=False)
    assert lab.requests == 0


def test_the_usual_voice_is_taken_where_there_is_one(server: Loopback) -> None:
    default().add_provider("lab", server.url, None, "openai", {"voice": "alloy"})
    frame("text", "hello").llm.speak("text", model="lab/tts-1", show_progress=False)
    assert (server.seen[0].body["voice"], server.seen[0].body["response_format"]) == ("alloy", "mp3")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"format": "ogg"}, "format is one of"),
        ({"speed": 9}, "speed is"),
        ({"voice": 3}, "voice is a text"),
        ({"on": "txet"}, "no column"),
        ({"folder": __file__}, "cannot be made"),
    ],
)
def test_what_cannot_be_spoken_is_told_before_anything_is_sent(lab: Loopback, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        frame("text", "hello").llm.speak(**{"on": "text", **SAY, **arguments})
    assert lab.requests == 0


def test_an_error_in_json_is_told_as_what_it_is(lab: Loopback) -> None:
    lab.fault("hello", error_of("openai", "bad_request"))
    said = frame("text", "hello", "bye").llm.speak("text", **SAY)
    assert said.isna().tolist() == [True, False]
    assert kinds() == {0: "invalid_request"}


def test_json_in_the_place_of_a_recording_is_no_recording(lab: Loopback) -> None:
    lab.fault("hello", Json({"error": {"message": "no", "code": "server_error"}}), Json({"audio": "?"}))
    said = frame("text", "hello").llm.speak("text", **SAY)
    assert said[0] == speech_of("hello", "x", "wav")
    assert lab.requests == 3


def test_characters_are_billed_by_the_million(lab: Loopback) -> None:
    priced("tts-1", million_characters=15.0)
    detail = frame("text", "hello", "hello", None).llm.speak("text", detail=True, **SAY)
    assert last().usage().characters == 5
    assert detail["cost"][0] == pytest.approx(75e-6)
    assert detail["value"][0] == speech_of("hello", "x", "wav")


def test_a_budget_bounds_what_is_spoken(lab: Loopback) -> None:
    priced("tts-1", million_characters=1000.0)
    df = frame("text", *(f"text {number:05}" for number in range(50)))
    with pytest.warns(UserWarning, match="max_cost"):
        said = df.llm.speak("text", max_cost=0.105, **SAY)
    assert said.notna().sum() == 10
    assert last().cost == pytest.approx(0.1)


def test_a_budget_is_refused_where_what_is_spoken_is_billed_by_tokens_that_nobody_tells(lab: Loopback) -> None:
    priced("tts-1", input=0.6, output=12.0)
    with pytest.raises(ConfigError, match="million_characters"):
        frame("text", "hello").llm.speak("text", max_cost=1.0, **SAY)
    frame("text", "hello").llm.speak("text", **SAY)
    assert last().cost is None


def test_a_dry_run_sends_nothing_and_makes_no_folder(lab: Loopback, tmp_path: Path) -> None:
    priced("tts-1", million_characters=15.0)
    plan = frame("text", "hello", None, "hello").llm.speak("text", folder=tmp_path / "new", dry_run=True, **SAY)
    assert (plan.rows, plan.missing, plan.unique, plan.requests, lab.requests) == (3, 1, 1, 1, 0)
    assert plan.cost == pytest.approx(75e-6)
    assert not (tmp_path / "new").exists()


def test_speech_need_not_be_waited_for(lab: Loopback, tmp_path: Path) -> None:
    run = frame("text", "hello").llm.speak("text", folder=tmp_path, wait=False, **SAY)
    assert Path(run.result()[0]).is_file()


@pytest.mark.parametrize("fault", [rate_limited(60), server_error()])
def test_what_passes_is_waited_out_in_speech_too(lab: Loopback, fault: Any) -> None:
    lab.fault("hello", fault)
    assert frame("text", "hello").llm.speak("text", **SAY).notna().all()


def test_no_rows_are_no_question(tmp_path: Path) -> None:
    assert frame("text").llm.speak("text", model="openai/tts-1", folder=tmp_path).dtype == TEXT
    assert frame("audio").llm.transcribe("audio", model="openai/whisper-1").dtype == TEXT
    assert frame("text", "a").llm.speak("text", model="openai/tts-1", limit=0, show_progress=False).isna().tolist() == [True]


def test_series_hear_and_speak_without_naming_a_column(lab: Loopback) -> None:
    assert pd.Series([MP3, None]).llm.transcribe(**HEAR).isna().tolist() == [False, True]
    assert pd.Series(["hello"], name="line").llm.speak(**SAY).tolist() == [speech_of("hello", "x", "wav")]
