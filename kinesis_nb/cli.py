"""The command line: ``kinesis-nb demo``, ``emulator`` and ``lab``."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from kinesis_nb.config import check_stream_name
from kinesis_nb.errors import ConfigError, KinesisError


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; an error of the user's is two lines on stderr and code 2."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (KinesisError, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kinesis-nb", description="Amazon Kinesis Data Streams in the notebook")
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="explore, tail, sync, kill, resume and export on an embedded Kinesis")
    demo.add_argument("--seconds", type=float, default=4.0, help="how long to tail and to sync (default 4)")
    demo.set_defaults(run=_demo)
    emulator = commands.add_parser("emulator", help="serve an embedded Kinesis on loopback")
    emulator.add_argument("--port", type=int, default=4567, help="0 takes a free one (default 4567)")
    emulator.add_argument(
        "--quotas", action="store_true", help="throttle like AWS: per shard 5 reads/s, 2 MiB/s; 1,000 writes/s"
    )
    emulator.add_argument(
        "--stream", action="append", default=[], metavar="NAME:SHARDS", help="create a stream; repeatable"
    )
    emulator.add_argument(
        "--transition-seconds", type=float, default=0.0, help="how long streams stay CREATING or UPDATING"
    )
    emulator.set_defaults(run=_emulator)
    lab = commands.add_parser("lab", help="open JupyterLab on a folder of notebooks")
    lab.add_argument("folder", nargs="?", default="notebooks", help="default: notebooks")
    lab.set_defaults(run=_lab)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from kinesis_nb.story import tell

    return 0 if tell(options.seconds) else 1


def _emulator(options: argparse.Namespace) -> int:
    from kinesis_nb.emulator import AwsError, serve

    streams = dict(_stream(text) for text in options.stream)
    try:
        serve(options.port, quotas=options.quotas, streams=streams, transition_seconds=options.transition_seconds)
    except AwsError as error:
        raise ConfigError(str(error), hint="--stream takes NAME:SHARDS, for example orders:4") from error
    return 0


def _stream(text: str) -> tuple[str, int]:
    name, _, shards = text.partition(":")
    if shards and not shards.isdecimal():
        msg = f"{text!r} is not a stream to create"
        raise ConfigError(msg, hint="--stream takes NAME:SHARDS, for example orders:4")
    return check_stream_name(name), int(shards or 1)


def _lab(options: argparse.Namespace) -> int:
    if shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)) is None:
        msg = "JupyterLab is not installed"
        raise ConfigError(msg, hint="pip install 'kinesis-nb[notebook]'")
    return subprocess.call([sys.executable, "-m", "jupyterlab", options.folder])


if __name__ == "__main__":
    sys.exit(main())
