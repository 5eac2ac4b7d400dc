"""The peers' virtual environments: made on demand, one each, under `.build/peers`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".build" / "peers"
INSTALL_SECONDS = 600
REQUIREMENTS = {
    "async-kinesis": "async-kinesis==3.0.1",
    "kinesis-python": "kinesis-python==0.2.1",
    "quixstreams": "quixstreams[kinesis]==3.28.1",
}


def python_of(peer: str) -> str | None:
    """Return the Python that has a peer installed; None, and say why, when it cannot be had."""
    folder = FOLDER / peer
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists() and done.read_text() == REQUIREMENTS[peer]:
        return str(python)
    print(f"Installing {REQUIREMENTS[peer]} into {folder.relative_to(FOLDER.parent.parent)} …", file=sys.stderr)
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENTS[peer])
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        print(f"{peer} cannot be had here, and is left out: {said[-1] if said else error}", file=sys.stderr)
        return None
    done.write_text(REQUIREMENTS[peer])
    return str(python)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
