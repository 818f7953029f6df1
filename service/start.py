"""From the command line to a server that has ended: settings, one process or several, the exit status."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from fastapi import FastAPI

from service.app import create_app
from service.cluster import FirstServer, OtherServer
from service.errors import StartError
from service.http.server import Server
from service.processes.children import Inherited
from service.settings import Settings, load_settings, unknown_variables
from service.telemetry.logs import configure_logs

logger = logging.getLogger("cogan.start")
HANGS_AFTER_S = 5.0  # beyond the grace of requests


def serve(arguments: Sequence[str]) -> int:
    """Serve until a signal, and return the exit status; a wrong setting ends in one line and 2."""
    inherited = Inherited.of_arguments(arguments)
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        for name in unknown_variables() if inherited is None else ():  # the first process tells it for all
            logger.warning("%s is set, and is no setting", name)
        server = _make_server(create_app(settings), settings, inherited)
        server.run()
    except StartError as error:
        print(f"cogan-serve: {error}", file=sys.stderr)
        return 2
    return _leave(server.exit_status)


def _leave(status: int) -> int:
    """Return the status once every thread has ended; do not wait for one that hangs, as Python would."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it is ending
    end, own = time.monotonic() + HANGS_AFTER_S, threading.current_thread()
    others = [thread for thread in threading.enumerate() if thread is not own and not thread.daemon]
    for thread in others:
        thread.join(max(0.0, end - time.monotonic()))
    if hung := [thread.name for thread in others if thread.is_alive()]:
        logger.error("left behind, still at work: %s", ", ".join(hung))
        os._exit(status or 1)
    return status


def _make_server(app: FastAPI, settings: Settings, inherited: Inherited | None) -> Server:
    if inherited is not None:
        return OtherServer(app, settings, inherited)
    return FirstServer(app, settings) if settings.processes > 1 else Server(app, settings)
