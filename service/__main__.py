"""Serve the models: `python -m service`, set up by the variables that service/settings.py lists."""

from __future__ import annotations

import sys

from fastapi import FastAPI

from service.app import create_app
from service.cluster import FirstServer, OtherServer
from service.errors import StartError
from service.http.server import Server
from service.processes.children import Inherited
from service.settings import Settings, load_settings
from service.telemetry.logs import configure_logs


def main() -> None:
    """Serve until a signal; a wrong setting ends in one line and exit status 2."""
    inherited = Inherited.of_arguments(sys.argv[1:])
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        server = _make_server(create_app(settings), settings, inherited)
        server.run()
    except StartError as error:
        sys.exit(_complain(error))
    sys.exit(server.exit_status)


def _make_server(app: FastAPI, settings: Settings, inherited: Inherited | None) -> Server:
    if inherited is not None:
        return OtherServer(app, settings, inherited)
    return FirstServer(app, settings) if settings.processes > 1 else Server(app, settings)


def _complain(error: StartError) -> int:
    print(f"cogan-serve: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
