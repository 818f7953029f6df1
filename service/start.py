"""From the command line to a server that has ended: settings, one process or several, the exit status."""

from __future__ import annotations

import logging
import os
import sys
import threading
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
HANGS_AFTER_S = 1.0  # beyond the grace


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
    """Return the status once every thread has ended; end at once where one hangs, as Python would wait."""
    others = [
        one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon
    ]
    for thread in others:
        thread.join(HANGS_AFTER_S)
    if hung := [thread.name for thread in others if thread.is_alive()]:
        logger.error("left behind, still at work: %s", ", ".join(hung))
        os._exit(status or 1)
    return status


def _make_server(app: FastAPI, settings: Settings, inherited: Inherited | None) -> Server:
    if inherited is not None:
        return OtherServer(app, settings, inherited)
    return FirstServer(app, settings) if settings.processes > 1 else Server(app, settings)
