"""Connections cross a door to another process."""

from __future__ import annotations

import socket

import pytest

from service.processes.listener import take_over


def test_a_connection_that_could_not_be_taken_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The kernel closes what a process has no room for: its log says so, and the next one is taken."""
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    client, served = socket.socketpair()
    with here, there, client, served:
        there.setblocking(False)
        here.send(b"+")  # as it comes where no file descriptor was free
        socket.send_fds(here, [b"+"], [served.fileno()])
        (taken,) = take_over(there)
        taken.sendall(b"hello")
        taken.close()
        assert client.recv(5) == b"hello"
    assert "a connection is lost: this process may open no more files" in caplog.text
