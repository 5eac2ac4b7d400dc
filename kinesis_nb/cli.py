"""The command line: ``kinesis-nb demo``, ``emulator`` and ``lab``."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from kinesis_nb import __version__
from kinesis_nb.config import check_stream_name
from kinesis_nb.errors import ConfigError, KinesisError


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; an error of the user's is two lines on stderr and code 2."""
    options, more = _parser().parse_known_args(arguments)
    if more and options.run is not _lab:
        _parser().parse_args(arguments)  # complains
    options.more = more
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
    parser.add_argument("--version", action="version", version=f"kinesis-nb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="explore, tail, sync, kill, resume and export on an embedded Kinesis")
    demo.add_argument("--seconds", type=_seconds, default=4.0, help="how long to tail and to sync (default 4)")
    demo.set_defaults(run=_demo)
    emulator = commands.add_parser("emulator", help="serve an embedded Kinesis on loopback")
    emulator.add_argument("--port", type=_port, default=4567, help="0 takes a free one (default 4567)")
    emulator.add_argument(
        "--quotas", action="store_true", help="throttle like AWS: per shard 5 reads/s, 2 MiB/s; 1,000 writes/s"
    )
    emulator.add_argument(
        "--stream", action="append", default=[], metavar="NAME:SHARDS", help="create a stream; repeatable"
    )
    emulator.add_argument(
        "--transition-seconds", type=_seconds, default=0.0, help="how long streams stay CREATING or UPDATING"
    )
    emulator.set_defaults(run=_emulator)
    lab = commands.add_parser("lab", help="open JupyterLab on a folder of notebooks; more options go to JupyterLab")
    lab.add_argument("folder", nargs="?", default="notebooks", help="default: notebooks")
    lab.set_defaults(run=_lab)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from kinesis_nb.story import tell

    return 0 if tell(max(1.0, options.seconds)) else 1


def _emulator(options: argparse.Namespace) -> int:
    from kinesis_nb.emulator import AwsError, serve

    streams = dict(_stream(text) for text in options.stream)
    if len(streams) < len(options.stream):
        raise ConfigError("--stream names a stream twice", hint="every stream once, for example --stream orders:4")
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


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:  # noqa: PLR2004 - TCP
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:  # noqa: PLR2004 - an hour
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds: 0 to 3600")
    return seconds


def _lab(options: argparse.Namespace) -> int:
    if shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)) is None:
        msg = "JupyterLab is not installed"
        raise ConfigError(msg, hint="pip install 'kinesis-nb[notebook]'")
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # as in a container
    return subprocess.call([sys.executable, "-m", "jupyterlab", *as_root, *options.more, options.folder])


if __name__ == "__main__":
    sys.exit(main())
