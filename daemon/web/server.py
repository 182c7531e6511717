"""``musecal web``: uvicorn serves the application until a signal."""

import socket
from threading import Event

import structlog
import uvicorn

from daemon.log import configure_log
from daemon.notify import notify
from daemon.web.application import make_application
from tasks.settings import Settings, WebSettings
from tasks.site import Site

BEAT_SECONDS = 2  # between two words to the service manager
STOP_SECONDS = 30  # a download under way may go on for so long; clients resume the rest

log = structlog.get_logger(__name__)


def serve(settings: Settings, *, stop: Event) -> None:
    """Serve until ``stop`` is set, which SIGTERM and SIGINT do.

    Raises
    ------
    RegistryOutdated
    OSError
        The port is taken, or the host is none of this machine.
    """
    configure_log(settings.log.level, settings.log.format)
    site = Site.of(settings)
    site.registry.check()
    with _listen(settings.web) as listening:
        config = uvicorn.Config(
            make_application(site),
            log_config=None,  # the log is set up already
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            timeout_notify=BEAT_SECONDS,
        )
        server = uvicorn.Server(config)

        async def beat() -> None:
            # uvicorn knows the signals that end it, but for SIGHUP.
            server.should_exit |= stop.is_set()
            notify("READY=1", "WATCHDOG=1")

        config.callback_notify = beat
        host, port = listening.getsockname()[:2]
        log.info("web started", host=host, port=port)
        try:
            server.run(sockets=[listening])
        finally:
            notify("STOPPING=1")
            site.registry.close()
    log.info("web stopped")


def _listen(web: WebSettings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
        listening = socket.create_server((web.host, web.port), family=family)
    except OSError as error:
        raise OSError(
            f"web.port {web.port} on web.host {web.host!r} cannot be listened to: {error.strerror or error}"
        ) from error
    # Connections inherit it. Without, the body of a short answer waits 40 ms for the acknowledgement of its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
