"""The calibrations of a frame over HTTP, as ESO's calSelector answers; its clients work here as they do there.

Source: https://archive.eso.org/cms/application_support/calselectorInfo.html; what astroquery and ESO's scripts send.
"""

import secrets
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response, status
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from archive.naming import cleaned
from daemon.web.answers import Answer, answer, answer_record
from daemon.web.associationxml import MEDIA_TYPE, Document, association_xml, document_name, multipart
from daemon.web.datalink import MEDIA_TYPE as DATALINK
from daemon.web.datalink import datalink
from daemon.web.dataportal import ROUTE
from tasks.associating import retrieval_policy
from tasks.associations import Mode
from tasks.site import Site

MOST_IDS = 100  # in one request; astroquery asks for so many at once

router = APIRouter()


class Format(StrEnum):
    """In which form the answer comes."""

    XML = "xml"
    VOTABLE = "votable"
    JSON = "json"


def _identifiers(given: list[str]) -> list[str]:
    """Return each identifier once."""
    found = list(dict.fromkeys(text for one in given if (text := one.strip())))
    if not found:
        raise ValueError("give the data-product identifier of a raw frame, for instance MUSE.2026-06-17T23:01:02.003")
    if len(found) > MOST_IDS:
        raise ValueError(f"{len(found)} identifiers are too many for one request; ask for at most {MOST_IDS} at once")
    return found


def _mode(given: object) -> object:
    """Take a mode in upper or lower case; what is none is left to be refused."""
    return next((mode for mode in Mode if isinstance(given, str) and given.lower() == mode.lower()), given)


class Asked(BaseModel):
    """The parameters of a request; what is not known is left alone, as ESO does."""

    dp_id: Annotated[list[str], AfterValidator(_identifiers), Field(validate_default=True)] = []
    mode: Annotated[Mode, BeforeValidator(_mode)] = Mode.RAW2RAW
    responseformat: Format = Format.XML


@router.get("/calselector/v1/associations", response_class=Response)
def associations(request: Request, asked: Annotated[Asked, Query()]) -> Response:
    """Return the calibrations of one or many raw frames."""
    return _respond(request, asked)


@router.post("/calselector/v1/associations", response_class=Response)
def associations_by_form(request: Request, asked: Annotated[Asked, Form()]) -> Response:
    """Return the calibrations of one or many raw frames."""
    return _respond(request, asked)


def _respond(request: Request, asked: Asked) -> Response:
    site: Site = request.app.state.site
    policy = retrieval_policy(site.settings)
    with site.registry.read() as session:
        answers = [answer(session, dp_id, asked.mode, policy) for dp_id in asked.dp_id]

    def url_of(dp_id: str) -> str:
        return str(request.url_for(ROUTE, dp_id=dp_id))

    # Of several, those that are there are answered; what is not there says so in its own answer.
    code = status.HTTP_200_OK if any(one.known for one in answers) else status.HTTP_404_NOT_FOUND
    match asked.responseformat:
        case Format.VOTABLE:  # DataLink 1.1, section 3.4: an identifier that is not known is a row, not a status
            return Response(datalink(answers, url_of), media_type=DATALINK)
        case Format.JSON:
            return JSONResponse({"associations": [answer_record(one, url_of) for one in answers]}, code)
        case Format.XML:
            return _xml(answers, code)


def _xml(answers: list[Answer], code: int) -> Response:
    documents = [
        Document(document_name(one.dp_id or cleaned(one.asked), one.tree.mode), association_xml(one.tree))
        for one in answers
    ]
    if len(documents) == 1:
        [document] = documents
        headers = {"content-disposition": f'attachment; filename="{document.name}"'}
        return Response(document.content, code, headers, MEDIA_TYPE)
    boundary = secrets.token_hex(16)
    return Response(multipart(documents, boundary), code, media_type=f"multipart/form-data; boundary={boundary}")
