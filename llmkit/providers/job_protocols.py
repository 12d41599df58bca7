"""Whose batch jobs a provider of OpenAI's wire has: the quirk ``jobs`` of its row says whose protocol they follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..adapter import Jobs, Target
from ..errors import LLMError
from . import gemini_jobs, mistral_jobs, openai_jobs, together_jobs, xai_jobs

__all__ = ["PROTOCOLS", "jobs_of"]

_Classify = Callable[[int, Mapping[str, str], bytes], LLMError]

PROTOCOLS: Mapping[str, Callable[[Callable[[Target], Any], _Classify], Jobs]] = {
    "gemini": gemini_jobs.jobs_of,
    "mistral": mistral_jobs.jobs_of,
    "openai": openai_jobs.jobs_of,
    "together": together_jobs.jobs_of,
    "xai": xai_jobs.jobs_of,
}

#: The operations whose requests are JSON that a job's line can hold, and which the vendors with jobs name.
_OPERATIONS = {"/chat/completions": "chat", "/embeddings": "embed"}


def jobs_of(make: Callable[[Target], Any], classify_error: _Classify) -> Callable[[Target], Jobs | None]:
    """``Adapter.jobs`` of this wire: the jobs of a target, ``None`` where the vendor has none for what it is asked.

    Parameters
    ----------
    make : callable
        ``make(target) -> the openai SDK's client``, retries off.
    classify_error : callable
        The adapter's.
    """
    made: dict[str, Jobs] = {}

    def jobs(target: Target) -> Jobs | None:
        provider = target.provider
        protocol = provider.quirks.get("jobs", "openai")
        operation = _OPERATIONS.get(target.codec.path)
        if not protocol or operation not in provider.quirks.get("job_operations", ("chat", "embed")):
            return None
        if protocol == "gemini" and not provider.base_url.endswith(gemini_jobs.COMPATIBLE):
            return None  # a gateway: where its native API is, is not known
        if protocol not in made:
            made[protocol] = PROTOCOLS[protocol](make, classify_error)
        return made[protocol]

    return jobs
