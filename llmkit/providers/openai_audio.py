"""Speech on OpenAI's wire: recordings go up as forms, recordings come back as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..adapter import Codec, Target, to_json, whole
from ..errors import BadOutput, InvalidRequest, LLMError, ServerFault, Unsupported
from ..types import Reply, Request, Usage
from .bodies import named, parse, tokens
from .openai_errors import classify_error

__all__ = ["SPEAK", "TRANSCRIBE"]

#: Between the parts of a form. The same for every form, since bodies are hashed into the cache's key; 128 random bits, drawn once.
_BOUNDARY = b"llmkit-8d0f6e4bb7c24f3c9a51e2d07a6c1f93"


def _form(fields: Sequence[tuple[str, str]], name: str, media_type: str, data: bytes) -> bytes:
    if _BOUNDARY in data:
        raise InvalidRequest("this recording holds the very bytes that separate the parts of a form")
    part = b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    parts = [part % (_BOUNDARY, field.encode(), value.encode()) for field, value in fields]
    head = b'--%b\r\ncontent-disposition: form-data; name="file"; filename="%b"\r\ncontent-type: %b\r\n\r\n'
    parts += [head % (_BOUNDARY, name.encode(), media_type.encode()), data, b"\r\n--%b--\r\n" % _BOUNDARY]
    return b"".join(parts)


def _transcribe_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    fields = [("model", target.model.name), ("response_format", "json")]
    fields += [(name, whole(str(value))) for name, value in request.options.items()]
    recording = request.payload
    return _form(fields, recording.name, recording.media_type, recording.data)


def _transcribe_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    data = parse(body, classify_error)
    text = data.get("text")
    if not isinstance(text, str):
        raise ServerFault("the answer has no text", kind="bad_response")
    usage = _heard(data)
    if not text.strip():
        return [BadOutput("no words were heard", kind="empty", usage=usage)]
    return [Reply(value=whole(text.strip()), usage=usage, model=named(data))]


def _heard(data: dict[str, Any]) -> Usage:
    """What a transcription was billed: tokens, or seconds, as the model has it; Groq and Mistral tell the length in other places."""
    reported = data.get("usage")
    reported = reported if isinstance(reported, dict) else {}
    details = reported.get("input_token_details")
    # Mistral counts tokens as well, and bills the time (docs.mistral.ai/capabilities/audio_transcription, seen 2026-11-21).
    seconds = _seconds(reported.get("prompt_audio_seconds") or reported.get("seconds"))
    if not seconds and ("input_tokens" in reported or "prompt_tokens" in reported):
        return Usage(
            input=tokens(reported.get("input_tokens", reported.get("prompt_tokens"))),
            output=tokens(reported.get("output_tokens", reported.get("completion_tokens"))),
            audio_input=tokens(details.get("audio_tokens")) if isinstance(details, dict) else 0,
            requests=1,
        )
    seconds = seconds or _seconds(data.get("duration"))
    return Usage(requests=1, audio_seconds=seconds, unreported=0 if seconds else 1)


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e7 else 0.0


def _speak_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    options = dict(request.options)
    voice = options.pop("voice", None) or target.provider.quirks.get("voice")
    if not voice:
        raise Unsupported(f"{target.name} has no usual voice; name one with voice=...")
    form = options.pop("format", "mp3")
    return to_json({"model": target.model.name, "input": request.payload, "voice": voice, "response_format": form, **options})


def _speak_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    if not body:
        raise ServerFault("the recording is empty", kind="bad_response")
    if body[:1] in (b"{", b"["):  # an error that came as a success
        parse(body, classify_error)
        raise ServerFault("the answer is JSON and no recording", kind="bad_response")
    characters = len(requests[0].payload)
    return [Reply(value=bytes(body), usage=Usage(requests=1, characters=characters))]


TRANSCRIBE = Codec(
    "/audio/transcriptions",
    _transcribe_body,
    _transcribe_replies,
    content_type=f"multipart/form-data; boundary={_BOUNDARY.decode()}",
    options=frozenset({"language", "prompt", "temperature"}),
)
SPEAK = Codec("/audio/speech", _speak_body, _speak_replies, options=frozenset({"voice", "format", "speed", "instructions"}))
