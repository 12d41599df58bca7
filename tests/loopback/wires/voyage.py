"""Voyage's format: embeddings of texts, of texts and pictures, of chunks in their documents, and rerank (voyageai 0.5, 2026-11-21)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..answers import Json, Status
from ..content import image_at, packed, quantised, similarity, tokens
from ..serving import Handler, Serving, bearer

credential = bearer
_MOST_TEXTS = 1000
_PIXELS = 560 * 560  # of every picture, since nobody opens it here


def embeddings(serving: Serving) -> Status:
    refused = _refused(serving, "input")
    if refused is not None:
        return refused
    texts = serving.request.texts
    return _listed(serving, _coded(serving, texts), {"total_tokens": tokens(*texts)})


def multimodalembeddings(serving: Serving) -> Status:
    refused = _refused(serving, "inputs")
    if refused is not None:
        return refused
    described, images = [], 0
    for given in serving.body["inputs"]:
        parts = [_described(part) for part in given["content"]]
        images += sum(part["type"].startswith("image") for part in given["content"])
        described.append("\n".join(parts))
    text, pixels = tokens(*serving.request.texts), images * _PIXELS
    usage = {"text_tokens": text, "image_pixels": pixels, "video_pixels": 0, "total_tokens": text + pixels // 560}
    return _listed(serving, _coded(serving, described), usage)


def contextualizedembeddings(serving: Serving) -> Status:
    refused = _refused(serving, "inputs")
    if refused is not None:
        return refused
    documents = []
    for index, given in enumerate(serving.body["inputs"]):
        chunks = _coded(serving, [given] if isinstance(given, str) else given)
        documents.append({"object": "list", "index": index, "data": chunks})
    return _listed(serving, documents, {"total_tokens": tokens(*serving.request.texts)})


def rerank(serving: Serving) -> Status:
    refused = _refused(serving, "documents")
    if refused is not None:
        return refused
    body, texts = serving.body, serving.request.texts
    documents = [{"document": text} if body.get("return_documents") else {} for text in texts]
    results: list[dict[str, Any]] = [
        {"index": at, "relevance_score": similarity(body["query"], text), **documents[at]} for at, text in enumerate(texts)
    ]
    results = sorted(results, key=lambda result: -result["relevance_score"])[: body.get("top_k")]
    return _listed(serving, results, {"total_tokens": tokens(body["query"], *texts)})


def _refused(serving: Serving, name: str) -> Status | None:
    body, voice = serving.body, serving.vendor.voice
    given = body.get(name)
    if given is None or "model" not in body:
        return voice.invalid(f"Argument '{'model' if 'model' not in body else name}' is required.")
    if not given or given == [""]:
        return voice.invalid(f"Argument '{name}' should be a non-empty string or list of non-empty strings.")
    if isinstance(given, list) and len(given) > _MOST_TEXTS:
        kind = "documents" if name == "documents" else "batch"
        return voice.invalid(f"The {kind} size limit is {_MOST_TEXTS}. Your {kind} size is {len(given)}.")
    if body.get("input_type") not in (None, "query", "document"):
        return voice.invalid("Argument 'input_type' must be one of 'query', 'document' or null.")
    return None


def _described(part: Mapping[str, Any]) -> str:
    match part:
        case {"type": "text", "text": text}:
            return str(text)
        case {"type": "image_url", "image_url": address} | {"type": "image_base64", "image_base64": address}:
            return str(image_at(address))
    raise ValueError(f"no such content: {part['type']}")


def _coded(serving: Serving, texts: list[str]) -> list[dict[str, Any]]:
    body = serving.body
    kind = body.get("output_dtype") or "float"
    items = serving.embedded(texts, body.get("output_dimension"))
    for item in items:
        vector = item["embedding"]
        if not isinstance(vector, np.ndarray):
            continue
        if body.get("encoding_format") != "base64":
            item["embedding"] = vector.tolist() if kind == "float" else quantised(vector, kind)
        elif kind == "float":
            item["embedding"] = packed(vector)
        else:
            signed = "i1" if kind in ("int8", "binary") else "u1"
            item["embedding"] = base64.b64encode(np.asarray(quantised(vector, kind), dtype=signed).tobytes()).decode()
    return items


def _listed(serving: Serving, data: list[dict[str, Any]], usage: dict[str, int]) -> Status:
    return Json({"object": "list", "data": data, "model": serving.body["model"], "usage": usage})


ROUTES: Mapping[tuple[str, str], Handler] = {
    ("POST", r"/embeddings"): embeddings,
    ("POST", r"/multimodalembeddings"): multimodalembeddings,
    ("POST", r"/contextualizedembeddings"): contextualizedembeddings,
    ("POST", r"/rerank"): rerank,
}
