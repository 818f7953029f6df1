"""Serve the models: `python -m service`, set up by the variables that service/settings.py lists."""

from __future__ import annotations

import signal
import sys

ENDS = {signal.SIGTERM: 0, signal.SIGINT: 130}


def main() -> None:
    """Serve until a signal; one that comes before there is a server ends the process, too.

    As process 1 of a container it would not hear SIGTERM otherwise, and SIGHUP would end any other one.
    """
    for number, status in ENDS.items():
        signal.signal(number, lambda *_, status=status: sys.exit(status))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the models are about to be looked at
    from service.start import serve  # what it imports takes a second

    sys.exit(serve(sys.argv[1:]))


if __name__ == "__main__":
    main()
