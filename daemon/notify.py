"""Telling systemd how a service is, by the datagrams of sd_notify(3). Without systemd it does nothing."""

import os
import socket


def notify(*states: str) -> None:
    """Send states such as ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1`` or ``STATUS=...`` to the service manager."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        # A leading @ stands for the zero byte of an abstract socket.
        channel.sendto("\n".join(states).encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_seconds() -> float | None:
    """Return how often at the latest ``WATCHDOG=1`` is wanted of this process; None if it is not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    return microseconds / 1e6 if microseconds else None
