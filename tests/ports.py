"""Ports for ranks that meet on this machine."""

import random
import socket


def free_port():
    """A free port that no outgoing connection gets by chance (Linux gives those 32768 and up), so it stays free until used."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
