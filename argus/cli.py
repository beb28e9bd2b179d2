"""The command line of ``up`` and ``serve``: options become settings before settings are read, obstacles are found first.

Standard library only and free of the settings: ``run.py`` uses it on a machine where nothing is installed yet.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PORT = 8001
MOST_PROCESSES = 256
DEFAULT_TERMINAL = "127.0.0.1:58610"
"""Where a QMT terminal on this machine listens."""

UP_EXAMPLES = """\
examples:
  python3 run.py up                                              the simulated market, trading at any hour
  python3 run.py up --port 9000 --symbols 200                    a small market on another port
  python3 run.py up --source replay --file day.csv.gz --speed 10 a recorded session, ten times as fast
  python3 run.py up --source qmt --terminal 192.168.1.20:58610   a QMT terminal
  python3 run.py up --source qmt --terminal a=192.168.1.20:58610 --terminal b=192.168.1.21:58610
                                                                 two terminals that stand in for each other
  python3 run.py up --host 0.0.0.0                               reachable from other machines (set ARGUS_ALLOWED_HOSTS too)

Every option is also a setting in the environment: docs/settings.md. Ctrl-C ends it.
"""

SERVE_EXAMPLES = """\
examples:
  manage.py serve --host 0.0.0.0 --port 8001                 one web process
  manage.py serve --processes 4                              four on one port; one that ends is started again (Linux)
  manage.py serve --processes 4 --own-port 9001              and each on a port of its own too (9001 to 9004), for /metrics
  manage.py serve --share-port --own-port 9001               one of several on port 8001 that something else keeps running

With --processes: kill -HUP replaces all of them, one after the other (a rolling restart); SIGTERM ends all of them in order.
"""


class Refused(Exception):
    """Why it cannot start, in one line that says what to do."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"argus: {message}. See: {self.prog} --help\n")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes (1 to {MOST_PROCESSES})")
    return int(text)


def _terminal(text: str) -> str:
    name, equals, address = text.rpartition("=")
    host, colon, port = address.rpartition(":")
    if (equals and not name) or not host or not colon or not port.isdigit() or "," in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT or NAME=HOST:PORT")
    return text


def _file(text: str) -> str:
    path = Path(text).expanduser().resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    if "," in str(path):
        raise argparse.ArgumentTypeError(f"{text!r} has a comma in its path; rename it")
    return str(path)


def add_address(parser: argparse.ArgumentParser) -> None:
    """``--host`` and ``--port``, which ``up`` and ``serve`` have in common."""
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help=f"the port (default: {DEFAULT_PORT}; 0: any free one)")


def add_up(parser: argparse.ArgumentParser) -> None:
    """The options of ``up``."""
    add_address(parser)
    parser.add_argument(
        "--source", choices=("simulated", "replay", "qmt"), help="where the quotes come from (default: simulated)"
    )
    parser.add_argument("--record", action="store_const", const=True, help="record what passes (docs/recordings.md)")
    qmt = parser.add_argument_group("with --source qmt")
    qmt.add_argument(
        "--terminal",
        type=_terminal,
        action="append",
        metavar="[NAME=]HOST:PORT",
        help=f"a terminal; repeat it for several (default: those that there are, at first {DEFAULT_TERMINAL})",
    )
    simulated = parser.add_argument_group("with --source simulated")
    simulated.add_argument("--symbols", type=int, metavar="N", help="how many instruments (default: 5500)")
    simulated.add_argument("--seed", type=int, help="the same seed makes the same market (default: 1)")
    simulated.add_argument("--clock", choices=("virtual", "live"), help="trade at any hour, or in the exchange's hours only")
    replay = parser.add_argument_group("with --source replay")
    replay.add_argument(
        "--file", type=_file, action="append", metavar="PATH", help="a recorded file, or the folder of a day; repeatable"
    )
    replay.add_argument("--speed", type=float, help="how many times as fast; 0: as fast as possible (default: 1)")
    replay.add_argument("--loop", action="store_const", const=True, help="start again at the end")


def add_serve(parser: argparse.ArgumentParser) -> None:
    """The options of ``serve``."""
    add_address(parser)
    parser.add_argument("--server", choices=("uvicorn", "daphne"), default="uvicorn", help="the ASGI server (default: uvicorn)")
    several = parser.add_mutually_exclusive_group()
    several.add_argument("--processes", type=_count, metavar="N", help="run so many web processes on the port (Linux)")
    several.add_argument(
        "--share-port",
        action="store_true",
        help="let others that are started with this option listen on the port as well (Linux)",
    )
    parser.add_argument(
        "--own-port",
        type=_port,
        metavar="PORT",
        help="listen on this port as well; of several processes the second on the next one, and so on",
    )
    parser.add_argument("--line", type=int, help=argparse.SUPPRESS)  # What ties a process to its supervisor.


NEEDS = {"terminal": "qmt", "symbols": "simulated", "seed": "simulated", "clock": "simulated"} | dict.fromkeys(
    ("file", "speed", "loop"), "replay"
)
"""Options that mean something with one source only."""


def settings_of(options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that the options of ``up`` stand for, as environment variables."""
    source = options.source or environment.get("ARGUS_SOURCE") or "simulated"
    for name, needed in NEEDS.items():
        if getattr(options, name) is not None and source != needed:
            raise Refused(f"--{name} needs --source {needed} (the source is {source})")
    if source == "replay" and not options.file and not environment.get("ARGUS_REPLAY_FILES"):
        raise Refused("--source replay needs a recorded file: add --file PATH")
    terminals = options.terminal
    found = {
        "ARGUS_SOURCE": options.source,
        "ARGUS_TERMINALS": ",".join(_named(terminals)) if terminals else None,
        "ARGUS_SIMULATED_SYMBOLS": options.symbols,
        "ARGUS_SIMULATED_SEED": options.seed,
        "ARGUS_SIMULATED_CLOCK": options.clock,
        "ARGUS_REPLAY_FILES": ",".join(options.file) if options.file else None,
        "ARGUS_REPLAY_SPEED": options.speed,
        "ARGUS_REPLAY_LOOP": "true" if options.loop else None,
        "ARGUS_RECORD": "true" if options.record else None,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _named(terminals: Sequence[str]) -> list[str]:
    """Every terminal under a name: the first without one is ``main``, the others carry their number."""
    return [
        text if "=" in text else f"{'main' if number == 1 else f'terminal-{number}'}={text}"
        for number, text in enumerate(terminals, 1)
    ]


def bind(host: str, port: int, *, share: bool = False) -> list[socket.socket]:
    """Sockets bound to every address of the host, not yet listening; ``Refused`` if that cannot be.

    Port 0 becomes the same free port on all of them. ``share``: others of the same user who share it may bind it as well.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise Refused(f"the host {host!r} is not known here; choose another: --host 127.0.0.1") from None
    sockets: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            bound = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # The name has an address of a family that this machine does not speak.
        sockets.append(bound)
        if sys.platform == "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            bound.bind((address[0], port, *address[2:]))
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise _refusal(host, port, error) from None
        port = bound.getsockname()[1]
    return sockets


def _refusal(host: str, port: int, error: OSError) -> Refused:
    name = error.strerror or str(error)
    if isinstance(error, PermissionError) and port < 1024:
        return Refused(f"port {port} may not be used without special rights; choose one from 1024 on: --port {DEFAULT_PORT}")
    if error.errno == errno.EADDRNOTAVAIL:
        return Refused(f"{host} is not an address of this machine; choose another: --host 127.0.0.1")
    return Refused(f"port {port} on {host} is taken ({name.lower()}); stop what uses it or choose another: --port {port + 1}")


def unwritable(directory: Path) -> OSError | None:
    """The reason why nothing can be written into the directory (made if it is missing), found by writing."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return error


def data_dir(environment: Mapping[str, str]) -> Path:
    """Where the service will write."""
    return Path(environment.get("ARGUS_DATA_DIR") or ROOT / "var")


class Port(NamedTuple):
    """One to listen on. ``share``: others who share it may have it, too."""

    number: int
    share: bool


def ports_of_serve(options: argparse.Namespace) -> list[Port]:
    """What ``serve`` will listen on, in this process or in those that it starts. Raises ``Refused``."""
    count = options.processes or 1
    if options.processes or options.share_port:
        apart = "run each web process on a port of its own, behind a proxy (docs/operations.md)"
        if sys.platform != "linux":
            raise Refused(f"this system does not divide a port's connections among processes as Linux does; {apart}")
        if options.server != "uvicorn":
            raise Refused(f"{options.server} cannot share its port; use --server uvicorn, or {apart}")
    ports = [Port(options.port, options.share_port)]
    if options.own_port is not None:
        own = range(options.own_port, options.own_port + count)
        if own[0] == 0 or own[-1] > 65535 or options.port in own:
            raise Refused(
                f"--own-port {options.own_port} is not the first of {count} ports from 1 to 65535 beside {options.port}"
            )
        # A process and its successor share it for a moment.
        ports += [Port(number, options.line is not None) for number in own]
    return ports


def check(ports: Iterable[Port], options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Raise ``Refused`` if the service could not start: a folder that cannot be written, a port that is taken."""
    folder = data_dir(environment)
    if error := unwritable(folder):
        raise Refused(
            f"the folder {folder} cannot be written ({error.strerror}); make it writable or name another in ARGUS_DATA_DIR"
        )
    for port in ports:
        for bound in bind(options.host, port.number, share=port.share):
            bound.close()


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "up": (add_up, "Run the whole service in this one process."),
    "serve": (add_serve, "Run one web process, or several; workers run beside them (needs REDIS_URL)."),
}


def prepare(command: str, arguments: Sequence[str], *, program: str) -> dict[str, str]:
    """Read the command line of ``up`` or ``serve``, check it, and return the settings that it stands for.

    Ends the process for ``--help`` (0) and, with one line, for a wrong option or an impossible start (2).
    """
    add, description = COMMANDS[command]
    parser = _Parser(
        prog=f"{program} {command}",
        description=description,
        epilog=UP_EXAMPLES if command == "up" else SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add(parser)
    options = parser.parse_args(arguments)
    try:
        settings = settings_of(options, os.environ) if command == "up" else {}
        ports = [Port(options.port, False)] if command == "up" else ports_of_serve(options)
        check(ports, options, os.environ)
    except Refused as refusal:
        parser.exit(2, f"argus: {refusal}.\n")
    return settings
