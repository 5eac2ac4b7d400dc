"""The command line: ``kinesis-nb demo``, ``emulator``, ``lab``, ``agent``, ``agents`` and ``scheduler``."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from kinesis_nb import __version__
from kinesis_nb.core.names import check_stream_name
from kinesis_nb.errors import AgentError, ConfigError, KinesisError


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
    emulator.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name it may be called by; repeatable"
    )
    emulator.set_defaults(run=_emulator)
    lab = commands.add_parser("lab", help="open JupyterLab on a folder of notebooks; more options go to JupyterLab")
    lab.add_argument("folder", nargs="?", default="notebooks", help="default: notebooks")
    lab.set_defaults(run=_lab)
    _add_agents(commands)
    return parser


def _add_agents(commands: Any) -> None:
    agent = commands.add_parser("agent", help="run syncs and exports that notebooks give to a Dask scheduler")
    agent.add_argument("--scheduler", required=True, metavar="ADDRESS", help="for example tls://host:8786")
    agent.add_argument("--name", default=f"{platform.node()}-{os.getpid()}", help="default: the machine and process")
    agent.add_argument(
        "--maintenance",
        action="append",
        default=[],
        metavar="WINDOW",
        help='when this agent is away: "Sun 03:00-03:05 UTC", "daily 03:00-03:05"; repeatable',
    )
    agent.add_argument("--lifetime", type=_duration, help="replace the worker after so long, for example 48h")
    agent.add_argument(
        "--stagger", type=_duration, default=timedelta(hours=1), help="more or less up to so long (default 1h)"
    )
    agent.add_argument("--metrics-port", type=_port, help="serve metrics for Prometheus")
    agent.add_argument("--metrics-host", default="127.0.0.1", help="where they are served (default 127.0.0.1)")
    agent.set_defaults(run=_agent)
    scheduler = commands.add_parser("scheduler", help="run a Dask scheduler for agents")
    scheduler.add_argument("--host", default="127.0.0.1", help="where it listens (default 127.0.0.1)")
    scheduler.set_defaults(run=_scheduler, count=0)
    agents = commands.add_parser("agents", help="run a scheduler and agents on this machine, to try them")
    agents.add_argument("--count", type=_count, default=2, help="default 2")
    agents.set_defaults(run=_scheduler, host="127.0.0.1")
    for command in (scheduler, agents):
        command.add_argument("--port", type=_port, default=8786, help="0 takes a free one (default 8786)")
    for command in (agent, scheduler, agents):
        command.add_argument(
            "--ttl", type=_seconds, default=5.0, help="seconds until a silent agent is lost (default 5)"
        )
        for what in ("ca-file", "cert", "key"):
            command.add_argument(f"--tls-{what}", metavar="FILE", help="of Dask's TLS; all three or none")


def _demo(options: argparse.Namespace) -> int:
    from kinesis_nb.story import tell

    return 0 if tell(max(1.0, options.seconds)) else 1


def _emulator(options: argparse.Namespace) -> int:
    from kinesis_nb.emulator import AwsError, serve

    streams = dict(_stream(text) for text in options.stream)
    if len(streams) < len(options.stream):
        raise ConfigError("--stream names a stream twice", hint="every stream once, for example --stream orders:4")
    try:
        serve(
            options.port,
            quotas=options.quotas,
            streams=streams,
            transition_seconds=options.transition_seconds,
            allowed_hosts=options.allow_host,
        )
    except AwsError as error:
        raise ConfigError(str(error), hint="--stream takes NAME:SHARDS, for example orders:4") from error
    return 0


def _agent(options: argparse.Namespace) -> int:
    import asyncio

    from kinesis_nb.agents.agent import AgentOptions, serve
    from kinesis_nb.agents.maintenance import MaintenanceWindow

    logging.basicConfig(format="%(asctime)s %(message)s")
    security = _security(options)
    if security is None and options.scheduler.startswith("tls:") and not _has_certificates(options.scheduler):
        raise ConfigError(
            f"the connection to {options.scheduler} needs certificates",
            hint="give --tls-ca-file, --tls-cert and --tls-key, or set distributed.comm.tls in Dask's configuration;"
            " a scheduler that this user started on this machine needs neither",
        )
    windows = tuple(map(MaintenanceWindow.parse, options.maintenance))
    asyncio.run(
        serve(
            AgentOptions(
                options.scheduler,
                options.name,
                windows,
                options.lifetime,
                options.stagger,
                security,
                options.ttl,
                options.metrics_port,
                options.metrics_host,
            )
        )
    )
    return 0


def _scheduler(options: argparse.Namespace) -> int:
    import asyncio

    from kinesis_nb.agents.agent import SchedulerOptions, serve_scheduler

    logging.basicConfig(format="%(asctime)s %(message)s")
    security = _security(options)
    asyncio.run(serve_scheduler(SchedulerOptions(options.host, options.port, options.ttl, security), options.count))
    return 0


def _security(options: argparse.Namespace) -> Any:
    if importlib.util.find_spec("distributed") is None:
        raise AgentError("Dask is not installed", hint="pip install 'kinesis-nb[dask]'")
    from kinesis_nb.agents.certificates import security_of

    files = (options.tls_ca_file, options.tls_cert, options.tls_key)
    if not any(files):
        return None
    if not all(files):
        raise ConfigError(
            "TLS needs a CA, a certificate and a key", hint="give --tls-ca-file, --tls-cert and --tls-key"
        )
    security = security_of(*files)
    if missing := [file for file in files if not Path(file).is_file()]:
        raise ConfigError(f"there is no file {missing[0]}", hint="see --tls-ca-file, --tls-cert and --tls-key")
    try:
        security.get_connection_args("scheduler")
    except OSError as error:  # what ssl raises is one too
        raise ConfigError(
            f"these certificates cannot be used: {error}", hint="are they PEM, and of one pair?"
        ) from error
    return security


def _has_certificates(scheduler: str) -> bool:
    """Return whether this user has some for a scheduler, or Dask's own configuration names some."""
    from distributed.security import Security

    from kinesis_nb.agents.certificates import resolve

    return resolve(scheduler)[1] is not None or Security().get_connection_args("worker").get("ssl_context") is not None


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:  # noqa: PLR2004 - on one machine
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of agents: 1 to 64")
    return int(text)


def _duration(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    number, unit = text[:-1], units.get(text[-1:])
    if unit is None or not number.isdecimal() or not int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 48h, 30m or 10s")
    return timedelta(**{unit: int(number)})


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
