"""Serve the models: `python -m service`, configured by the variables that service/settings.py lists."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from argparse import SUPPRESS, ArgumentParser
from pathlib import Path

from service.errors import StartError
from service.telemetry.logs import configure_logs

STATUS_BY_SIGNAL = {signal.SIGTERM: 0, signal.SIGINT: 130}
PLATFORMS = {"AIP_HTTP_PORT", "SPACE_ID"}  # variables of Vertex AI and of Hugging Face's Spaces
HANGS_AFTER_S = 5.0  # a thread that is still running when the server has stopped
logger = logging.getLogger("cogan.start")
_ended = list[int]()  # statuses by signals that came before the server was up


def main() -> None:
    """Serve until a signal; one that arrives before the server is up ends the process, too.

    As process 1 of a container it would not get SIGTERM otherwise, and SIGHUP would end any process.
    """
    for number in STATUS_BY_SIGNAL:
        signal.signal(number, _end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the models are about to be loaded
    parser = ArgumentParser("cogan-serve", description="Serve models, configured by the variables COGAN_*.")
    parser.add_argument("command", nargs="?", choices=["serve"], help="as SageMaker starts it: on its port and routes")
    parser.add_argument("--child", nargs=2, help=SUPPRESS)  # socket and run folder of a supervised process
    arguments = parser.parse_args()
    sys.exit(_serve_child(*arguments.child) if arguments.child else _serve(arguments.command))


def _end(number: int, _frame: object) -> None:
    """Exit; compiled modules that are being imported may swallow that, so it is looked for again."""
    _ended.append(STATUS_BY_SIGNAL[signal.Signals(number)])
    sys.exit(_ended[0])


def _serve(command: str | None) -> int:
    """Serve in this process, or in several below this one; a wrong setting ends in one line and status 2."""
    from service.settings import load_settings, unknown_variables

    try:
        if command is not None or PLATFORMS & os.environ.keys():
            from service.api.clouds import adopt_platform

            adopt_platform(command, os.environ)
        settings = load_settings()
        configure_logs(settings.log_level)
        for name in unknown_variables():
            logger.warning("ignoring unknown setting %s", name)
        from service.server import hold_ports

        ports, _held = hold_ports(settings)
        from service.remote import local_models

        with local_models(settings) as folder:
            os.environ.update(ports, COGAN_MODELS_DIR=str(folder))
            if settings.processes == 1:
                return _run_server(None, None)
            from service.supervisor import Supervisor

            supervisor = Supervisor(settings)
            return _ended[0] if _ended else supervisor.run()
    except StartError as error:
        print(f"cogan-serve: {error}", file=sys.stderr)
        return 2


def _serve_child(descriptor: str, folder: str) -> int:
    """Serve as one of several processes; the supervisor reports why one cannot start."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # before prometheus_client is imported
    from service.server import FAILED

    supervisor = socket.socket(fileno=int(descriptor))
    try:
        return _run_server(supervisor, Path(folder))
    except StartError as error:
        supervisor.sendall(FAILED + str(error).encode())
        return 2


def _run_server(supervisor: socket.socket | None, run_folder: Path | None) -> int:
    from service.app import create_app  # what it imports takes a second
    from service.server import Server
    from service.settings import load_settings

    settings = load_settings()
    configure_logs(settings.log_level)
    server = Server(create_app(settings, run_folder), settings, supervisor)
    if _ended:
        return _ended[0]
    server.run()
    return _exit_status()


def _exit_status() -> int:
    """Return 0 once every thread has ended; do not wait for one that hangs, as Python would."""
    for number in STATUS_BY_SIGNAL:
        signal.signal(number, signal.SIG_IGN)  # it is exiting
    end = time.monotonic() + HANGS_AFTER_S
    others = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    for thread in others:
        thread.join(max(0.0, end - time.monotonic()))
    if hung := [thread.name for thread in others if thread.is_alive()]:
        logger.error("exiting although these threads still run: %s", ", ".join(hung))
        os._exit(1)
    return 0


if __name__ == "__main__":
    main()
