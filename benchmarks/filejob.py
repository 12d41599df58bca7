"""One contestant turns a file of rows into a folder of Parquet, in processes of its own. No package is needed: rivals import it too.

A contestant is a function from a ``FileJob`` to a function that does it. What it prepares (imports, a cluster) is not measured: it says
``ready``, does the job, and says ``done``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Mapping

from .contest import _end_with_parent


@dataclasses.dataclass(frozen=True)
class FileJob:
    url: str
    #: Parquet with the columns ``id`` (0, 1, 2 ...) and ``text``.
    source: str
    #: An empty folder before the first run; parts with ``id``, ``text`` and ``answer`` after the last.
    out: str
    #: Where anything may be kept from one run to the next.
    kept: str
    in_flight: int = 64
    #: The limit, where the tool can be told one; 0 is none.
    per_second: int = 0


Do = Callable[[], None]
FileContestant = Callable[[FileJob], Do]


def serve_as_file_contestant(contestants: Mapping[str, FileContestant]) -> None:
    """For the ``__main__`` of a module: ``python -m MODULE CONTESTANT JOB``, the job as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=contestants)
    parser.add_argument("job", type=json.loads)
    given = parser.parse_args()
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    do = contestants[given.contestant](FileJob(**given.job))
    print("ready", flush=True)
    try:
        do()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    print("done", flush=True)
    os._exit(0)  # some tools leave threads behind that never end
