"""``python -m benchmarks.peers [NAME ...]``: make the rivals' environments, with uv where it is there."""

from __future__ import annotations

import shutil
import subprocess
import sys

from . import ENVIRONMENTS, pinned


def main() -> int:
    failed = []
    uv = shutil.which("uv")
    for name, packages in pinned().items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        folder = ENVIRONMENTS / name
        python = str(folder / "bin" / "python")
        print(f"{name}: {', '.join(packages)}", flush=True)
        make = (
            [uv, "venv", "-q", "--allow-existing", "-p", sys.executable, str(folder)] if uv else [sys.executable, "-m", "venv", str(folder)]
        )
        install = [uv, "pip", "install", "-q", "-p", python] if uv else [python, "-m", "pip", "install", "-q"]
        if subprocess.run(make, check=False).returncode or subprocess.run([*install, *packages], check=False).returncode:
            failed.append(name)
            shutil.rmtree(folder, ignore_errors=True)
    if failed:
        print(f"not installed, and left out of the benchmarks: {', '.join(failed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
