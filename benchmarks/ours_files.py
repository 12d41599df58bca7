"""llmkit's own entries, Parquet to Parquet: ``stream_file`` in one process, and a Dask cluster of two on this machine."""

from __future__ import annotations

import os
from typing import Any

from .contest import KEY, MODEL
from .filejob import Do, FileContestant, FileJob, serve_as_file_contestant


def _told(job: FileJob) -> str:
    import llmkit

    # A key travels by its name only: a cluster's workers find it where they are.
    os.environ["BENCH_API_KEY"] = KEY
    llmkit.add_provider("bench", job.url)
    if job.per_second:
        llmkit.limit("bench", rpm=60 * job.per_second)
    return f"bench/{MODEL}"


def stream(job: FileJob) -> Do:
    import llmkit

    model = _told(job)

    def do() -> None:
        llmkit.stream_file(
            job.source,
            "chat",
            prompt="{text}",
            into="answer",
            model=model,
            out=job.out,
            max_concurrency=job.in_flight,
            show_progress=False,
        )

    return do


def dask(job: FileJob) -> Do:
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    from llmkit.scale.dask import on_cluster

    model = _told(job)
    workers = 2
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
    client: Any = Client(cluster)

    def do() -> None:
        rows = dd.read_parquet(job.source)
        asked = on_cluster(rows, client, out=f"{job.kept}/parts", chunk_rows=500)
        rows["answer"] = asked.chat("{text}", model=model, max_concurrency=job.in_flight // workers, show_progress=False)
        rows.to_parquet(job.out)

    return do


FILE_CONTESTANTS: dict[str, FileContestant] = {"llmkit stream_file": stream, "llmkit Dask": dask}

if __name__ == "__main__":
    serve_as_file_contestant(FILE_CONTESTANTS)
