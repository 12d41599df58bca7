"""When two names mean one model."""

from __future__ import annotations

import re

__all__ = ["meaning"]

#: Sizes: 8b, 8x7b, 0.6b, 270m, a3b (active parameters of a mixture).
_SIZE = re.compile(r"^[ae]?\d+(\.\d+)?(x\d+(\.\d+)?)?[bmt]$")
_WORD = re.compile(r"[ae]?\d+(?:\.\d+)?(?:x\d+(?:\.\d+)?)?[bmt](?![a-z0-9])|\d+(?:\.\d+)*|[^\W\d_]+")
#: How it is packed or tuned to be talked to, which canonical names leave off.
_PACKING = re.compile(
    r"(?<![a-z0-9])(?:i?q\d+(?:_[a-z0-9]+)*|[fb]p?f?(?:16|32|8)|mxfp4|nvfp4|fp4|int[48]|[48]-?bit|w\d+a\d+|gguf|awq|gptq|exl2|mlx|qat|hf"
    r"|instruct|chat|it|latest|v0\.\d+)(?![a-z0-9.])"
)


def meaning(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a model's name comes down to: its words in order, and its sizes. Names with one meaning are one model.

    The rule: in lower case, without the owner before a slash, without what only says how it is packed (``q4_K_M``, ``fp16``, ``gguf``,
    ``awq``, ...), that it can be talked to (``instruct``, ``chat``, ``it``), ``latest`` or a ``v0.N``, the same words and numbers
    remain in the same order, and the same sizes. So ``qwen3:8b`` is ``qwen3-8b``, and is neither ``qwen3`` nor ``qwen3:8b-thinking``.

    Examples
    --------
    >>> meaning("mistralai/Mixtral-8x7B-Instruct-v0.1") == meaning("mixtral-8x7b")
    True
    >>> meaning("mixtral:8x22b") == meaning("mixtral-8x7b")
    False
    """
    plain = name.lower().rpartition("/")[2].removesuffix(".gguf").replace("meta-llama", "llama")
    words = _WORD.findall(_PACKING.sub(" ", plain)) or [plain]
    return tuple(word for word in words if not _SIZE.match(word)), tuple(word for word in words if _SIZE.match(word))
