"""What a client may send: nobody fills the memory of the service."""

from fastapi import status
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

LONGEST_BODY = 1_000_000  # bytes; a form with a hundred identifiers has 5000


class LimitedBody:
    """Refuses requests with a body that is too long, or that does not say how long it is.

    Parameters
    ----------
    application : ASGI application
        Gets all others.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        length = int(headers.get("content-length", 0))
        if length > LONGEST_BODY or "transfer-encoding" in headers:
            said = f"The request has a body of more than {LONGEST_BODY} bytes, or does not say how long it is."
            refusal = JSONResponse({"detail": said}, status.HTTP_413_CONTENT_TOO_LARGE)
            await refusal(scope, receive, send)
        else:
            await self._application(scope, receive, send)
