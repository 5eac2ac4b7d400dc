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
from typing import TYPE_CHECKING, TypeAlias

from kinesis_nb import __version__
from kinesis_nb.core.names import check_stream_name
from kinesis_nb.errors import AgentError, ConfigError, KinesisError

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed.security import Security

    from kinesis_nb.agents.agent import AgentOptions

AddParser: TypeAlias = "Callable[..., argparse.ArgumentParser]"  # `add_parser` of the commands
_TUTORIALS = "kinesis_nb_tutorials"  # the folder where the tutorials are put


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; an error of the user's is two lines on stderr and code 2."""
    options = _options(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (KinesisError, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return code


def _options(arguments: list[str] | None) -> argparse.Namespace:
    options, more = _parser().parse_known_args(arguments)
    if more and options.run is not _lab:
        _parser().parse_args(arguments)  # complains
    options.more = more
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kinesis-nb", description="Amazon Kinesis Data Streams in the notebook")
    parser.add_argument("--version", action="version", version=f"kinesis-nb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (_add_demo, _add_emulator, _add_lab, _add_agent, _add_scheduler, _add_agents):
        add(commands.add_parser)
    return parser


def _add_command(add: AddParser, name: str, summary: str, description: str, example: str) -> argparse.ArgumentParser:
    """Add a command whose help says what it does, and shows how it is called."""
    return add(name, help=summary, description=description, epilog=f"example: {example}")


def _add_demo(add: AddParser) -> None:
    demo = _add_command(
        add,
        "demo",
        "explore, tail, sync, kill, resume and export on an embedded Kinesis",
        "Run the whole job on an embedded Kinesis, check the result against what was written, and keep the table."
        " It needs no AWS account and no network.",
        "kinesis-nb demo --seconds 10",
    )
    demo.add_argument(
        "--seconds", type=_seconds, default=4.0, help="how long to tail and to sync: 1 to 3600 (default 4)"
    )
    demo.set_defaults(run=_demo)


def _add_emulator(add: AddParser) -> None:
    emulator = _add_command(
        add,
        "emulator",
        "serve an embedded Kinesis on loopback",
        "Serve the Kinesis API on 127.0.0.1, for kinesis_nb, boto3, the AWS CLI and any other client."
        " Streams live in memory; Ctrl-C ends it.",
        "kinesis-nb emulator --port 4567 --stream orders:4 --stream clicks",
    )
    emulator.add_argument(
        "--port", type=_port, default=4567, help="where to listen; 0 takes a free port (default 4567)"
    )
    emulator.add_argument(
        "--quotas",
        action="store_true",
        help="throttle like AWS: per shard 5 reads/s, 2 MiB/s; 1,000 writes/s (default: no limits)",
    )
    emulator.add_argument(
        "--stream",
        action="append",
        default=[],
        metavar="NAME:SHARDS",
        help="create a stream, of 1 shard if SHARDS is left out; repeatable (default: no streams)",
    )
    emulator.add_argument(
        "--transition-seconds",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="how long streams stay CREATING, UPDATING or DELETING (default 0)",
    )
    emulator.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="accept requests to this host name too; repeatable (default: 127.0.0.1 and localhost only)",
    )
    emulator.set_defaults(run=_emulator)


def _add_lab(add: AddParser) -> None:
    lab = _add_command(
        add,
        "lab",
        "open JupyterLab on the tutorials, or on a folder of notebooks",
        "Open JupyterLab on a folder. One that is empty, or not there yet, gets the tutorials; what is there stays"
        " as it is. Options that are not listed here are passed to JupyterLab.",
        "kinesis-nb lab --port 8899",
    )
    lab.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help=f"the folder to open (default: notebooks where that is there, else {_TUTORIALS})",
    )
    lab.set_defaults(run=_lab)


def _add_agent(add: AddParser) -> None:
    agent = _add_command(
        add,
        "agent",
        "run syncs and exports that notebooks give to a Dask scheduler",
        "Run an agent: a Dask worker that runs the syncs and streaming exports of notebooks, and outlives them."
        " It needs the extra 'dask'.",
        "kinesis-nb agent --scheduler tls://scheduler.example.com:8786",
    )
    agent.add_argument(
        "--scheduler", required=True, metavar="ADDRESS", help="where the scheduler listens, for example tls://host:8786"
    )
    agent.add_argument(
        "--name",
        default=f"{platform.node()}-{os.getpid()}",
        help="what the agent is called in status() and logs (default: the machine and process)",
    )
    _add_absences(agent)
    agent.add_argument(
        "--metrics-port", type=_port, metavar="PORT", help="serve metrics for Prometheus (default: none are served)"
    )
    agent.add_argument("--metrics-host", default="127.0.0.1", help="where to serve metrics (default 127.0.0.1)")
    agent.set_defaults(run=_agent)
    _add_dask_options(agent)


def _add_absences(agent: argparse.ArgumentParser) -> None:
    agent.add_argument(
        "--maintenance",
        action="append",
        default=[],
        metavar="WINDOW",
        help='when this agent is away: "Sun 03:00-03:05 UTC", "daily 03:00-03:05"; repeatable (default: never)',
    )
    agent.add_argument(
        "--lifetime",
        type=_duration,
        metavar="DURATION",
        help="replace the worker after this time, for example 48h (default: never)",
    )
    agent.add_argument(
        "--stagger",
        type=_duration,
        default=timedelta(hours=1),
        metavar="DURATION",
        help="vary the lifetime by up to this time, so that agents are not replaced together (default 1h)",
    )


def _add_scheduler(add: AddParser) -> None:
    scheduler = _add_command(
        add,
        "scheduler",
        "run a Dask scheduler for agents",
        "Run the Dask scheduler that notebooks and agents connect to. It needs the extra 'dask'.",
        "kinesis-nb scheduler --port 8786",
    )
    scheduler.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    scheduler.set_defaults(run=_scheduler, count=0)
    _add_port(scheduler)
    _add_dask_options(scheduler)


def _add_agents(add: AddParser) -> None:
    agents = _add_command(
        add,
        "agents",
        "run a scheduler and agents on this machine, to try them",
        "Run a scheduler and agents on this machine, to try them before they run elsewhere. It needs the extra 'dask'.",
        "kinesis-nb agents --count 2",
    )
    agents.add_argument("--count", type=_count, default=2, help="how many agents: 1 to 64 (default 2)")
    agents.set_defaults(run=_scheduler, host="127.0.0.1")
    _add_port(agents)
    _add_dask_options(agents)


def _add_port(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--port", type=_port, default=8786, help="where the scheduler listens; 0 takes a free port (default 8786)"
    )


def _add_dask_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ttl",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long an agent may be silent before it counts as lost (default 5)",
    )
    for option, what in (("ca-file", "the CA"), ("cert", "the certificate"), ("key", "the key")):
        command.add_argument(
            f"--tls-{option}", metavar="FILE", help=f"{what} of Dask's TLS; give all three or none (default: none)"
        )


def _demo(options: argparse.Namespace) -> int:
    from kinesis_nb.story import tell

    if options.seconds < 1:
        raise ConfigError(
            f"--seconds {options.seconds:g} is too short: nothing would arrive", hint="give 1 to 3600 seconds"
        )
    return 0 if tell(options.seconds) else 1


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
        raise ConfigError(str(error), hint="give --stream NAME:SHARDS, for example orders:4") from error
    return 0


def _agent(options: argparse.Namespace) -> int:
    import asyncio

    from kinesis_nb.agents.agent import serve

    logging.basicConfig(format="%(asctime)s %(message)s")
    asyncio.run(serve(_agent_options(options)))
    return 0


def _agent_options(options: argparse.Namespace) -> AgentOptions:
    from kinesis_nb.agents.agent import AgentOptions
    from kinesis_nb.agents.maintenance import MaintenanceWindow

    security = _security(options)
    if security is None:
        _check_certificates(options.scheduler)
    windows = tuple(map(MaintenanceWindow.parse, options.maintenance))
    absences = (windows, options.lifetime, options.stagger)
    metrics = (options.metrics_port, options.metrics_host)
    return AgentOptions(options.scheduler, options.name, *absences, security, options.ttl, *metrics)


def _scheduler(options: argparse.Namespace) -> int:
    import asyncio

    from kinesis_nb.agents.agent import SchedulerOptions, serve_scheduler

    logging.basicConfig(format="%(asctime)s %(message)s")
    security = _security(options)
    asyncio.run(serve_scheduler(SchedulerOptions(options.host, options.port, options.ttl, security), options.count))
    return 0


def _security(options: argparse.Namespace) -> Security | None:
    if importlib.util.find_spec("distributed") is None:
        raise AgentError("Dask is not installed", hint="pip install 'kinesis-nb[dask]'")
    from kinesis_nb.agents.certificates import security_of

    files = _tls_files(options)
    if files is None:
        return None
    security = security_of(*files)
    _check_usable(security)
    return security


def _tls_files(options: argparse.Namespace) -> tuple[str, str, str] | None:
    files = (options.tls_ca_file, options.tls_cert, options.tls_key)
    if not any(files):
        return None
    if not all(files):
        raise ConfigError(
            "TLS needs a CA, a certificate and a key", hint="give --tls-ca-file, --tls-cert and --tls-key"
        )
    if missing := [file for file in files if not Path(file).is_file()]:
        raise ConfigError(f"there is no file {missing[0]}", hint="see --tls-ca-file, --tls-cert and --tls-key")
    return files


def _check_usable(security: Security) -> None:
    try:
        security.get_connection_args("scheduler")
    except OSError as error:  # what ssl raises is one too
        raise ConfigError(
            f"these certificates cannot be used: {error}", hint="are they PEM, and of one pair?"
        ) from error


def _check_certificates(scheduler: str) -> None:
    if scheduler.startswith("tls:") and not _has_certificates(scheduler):
        raise ConfigError(
            f"the connection to {scheduler} needs certificates",
            hint="give --tls-ca-file, --tls-cert and --tls-key, or set distributed.comm.tls in Dask's configuration;"
            " a scheduler that this user started on this machine needs neither",
        )


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
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 48h, 30m or 10s")
    return timedelta(**{unit: int(number)})


def _stream(text: str) -> tuple[str, int]:
    name, _, shards = text.partition(":")
    if shards and not shards.isdecimal():
        msg = f"--stream {text}: {shards!r} is not a number of shards"
        raise ConfigError(msg, hint="give NAME:SHARDS, for example orders:4")
    if shards and not int(shards):
        raise ConfigError(f"--stream {text}: a stream has at least 1 shard", hint="for example orders:4")
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
    """Open JupyterLab on a folder, with the tutorials in it if it is a new one."""
    if shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)) is None:
        msg = "JupyterLab is not installed"
        raise ConfigError(msg, hint="pip install 'kinesis-nb[notebook]'")
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # as in a container
    folder = _with_notebooks(options.folder)
    return subprocess.call([sys.executable, "-m", "jupyterlab", *as_root, *options.more, str(folder)])


def _with_notebooks(folder: Path | None) -> Path:
    """Return the folder to open; a new or an empty one gets the tutorials."""
    chosen = folder or next(filter(Path.is_dir, (Path("notebooks"), Path(_TUTORIALS))), Path(_TUTORIALS))
    if chosen.exists() and not chosen.is_dir():
        raise ConfigError(f"{chosen} is a file", hint="give a folder of notebooks, or one that is not there yet")
    if chosen.is_dir() and any(chosen.iterdir()):
        return chosen
    if not (found := _tutorials()):
        raise ConfigError("this installation has no tutorials", hint="give a folder that has notebooks")
    chosen.mkdir(parents=True, exist_ok=True)
    for tutorial in found:
        with (chosen / tutorial.name).open("xb") as copy:  # never over a file that is there
            copy.write(tutorial.read_bytes())
    print(f"the tutorials are in {chosen}: begin with {found[0].name}")
    return chosen


def _tutorials() -> list[Path]:
    """Return the tutorials: those that were installed with the package, or of the checkout it is in."""
    package = Path(__file__).parent
    places = (package / "tutorials", package.parent / "notebooks")
    return next(filter(None, (sorted(place.glob("*.ipynb")) for place in places)), [])


if __name__ == "__main__":
    sys.exit(main())
