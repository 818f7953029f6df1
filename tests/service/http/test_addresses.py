"""Addresses are taken once, at every address of a host, or refused in one line."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from service.errors import SettingsError
from service.http.addresses import take_address, url


def test_a_name_has_all_its_addresses_at_one_port() -> None:
    """A free port is the same for IPv4 and IPv6, and nobody else can have it."""
    with ExitStack() as stack:
        taken = [stack.enter_context(one) for one in take_address("localhost", 0, "COGAN_PORT")]
        ports = {one.getsockname()[1] for one in taken}
        assert len(ports) == 1
        with pytest.raises(SettingsError, match=r"COGAN_HOST = 'localhost', COGAN_PORT = \d+: .*in use"):
            take_address("localhost", ports.pop(), "COGAN_PORT")


def test_an_unknown_host_is_named() -> None:
    """What cannot be resolved is told with the setting, not as a traceback."""
    with pytest.raises(SettingsError, match=r"COGAN_HOST = 'no\.such\.host\.invalid', COGAN_HEALTH_PORT = 1"):
        take_address("no.such.host.invalid", 1, "COGAN_HEALTH_PORT")


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_address_is_written_as_browsers_take_it() -> None:
    """IPv6 stands in brackets."""
    assert url(("::1", 8000, 0, 0)) == "http://[::1]:8000"
    assert url(("127.0.0.1", 8000)) == "http://127.0.0.1:8000"
