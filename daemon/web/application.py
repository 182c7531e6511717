"""The application that ``musecal web`` serves: the parts put together, and errors turned into sentences."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError

from daemon.web import calselector, dataportal, search
from daemon.web.limits import LimitedBody
from tasks.site import Site

RETRY_SECONDS = 10  # after which a client may ask again while the registry is away


def make_application(site: Site) -> FastAPI:
    """Return the application of a site.

    Every endpoint is a plain function, which FastAPI runs in a thread: a slow registry or disk keeps nobody waiting.
    """
    application = FastAPI(
        title="musecal",
        version=version("musecal"),
        # The pages that show an API in a browser load their scripts from foreign hosts; the description itself stays.
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            RequestValidationError: _refuse,
            OperationalError: _ask_for_patience,
            InterfaceError: _ask_for_patience,
        },
    )
    application.add_middleware(LimitedBody)
    application.state.site = site
    for part in (calselector, dataportal, search):
        application.include_router(part.router)

    @application.get("/health")
    def health() -> dict[str, str | None]:
        """Tell that the service and its registry answer."""
        return {"version": application.version, "registry": site.registry.revision()}

    return application


async def _refuse(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer parameters that cannot be used with a sentence, as every other error."""
    return JSONResponse({"detail": " ".join(_sentences(error.errors()))}, status_code=400)


def _sentences(errors: Sequence[Any]) -> list[str]:
    return [
        f"{'.'.join(str(part) for part in error['loc'][1:])}: {error['msg'].removeprefix('Value error, ')}."
        for error in errors
    ]


async def _ask_for_patience(_request: Request, _error: OperationalError | InterfaceError) -> JSONResponse:
    return JSONResponse(
        {"detail": f"The registry cannot be reached; ask again in {RETRY_SECONDS} s."},
        status_code=503,
        headers={"Retry-After": str(RETRY_SECONDS)},
    )
