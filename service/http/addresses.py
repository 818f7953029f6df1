"""Where a service listens: addresses are taken before it begins, and one in use ends the start at once."""

from __future__ import annotations

import socket

from service.errors import SettingsError

BACKLOG = 2048  # as uvicorn has it


def take_address(host: str, port: int, variable: str) -> list[socket.socket]:
    """Return a listening socket for every address of a host, all at one port; 0 is a free one.

    Raises SettingsError, which names `variable` beside the host's, where an address cannot be had.
    """
    taken: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            if taken and not port:
                address = (address[0], taken[0].getsockname()[1], *address[2:])
            taken.append(_bind(family, address))
    except OSError as error:
        for one in taken:
            one.close()
        raise SettingsError(f"COGAN_HOST = {host!r}, {variable} = {port}: {error.strerror}") from error
    return taken


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # of two who have bound an address, Linux refuses one only here
    except OSError:
        bound.close()
        raise
    return bound


def url(address: tuple[object, ...]) -> str:
    """Return where browsers find an address."""
    host, port = str(address[0]), address[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
