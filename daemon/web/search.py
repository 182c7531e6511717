"""``/search/frames`` and ``/search/products``: rows by conditions, as JSON, VOTable or CSV."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from archive.search import Found, Page, find_frames, find_products
from daemon.listings import (
    FRAME_COLUMNS,
    PRODUCT_COLUMNS,
    VOTABLE_TYPE,
    Column,
    Listing,
    as_csv,
    as_votable,
    error_votable,
    list_page,
)
from daemon.searches import FrameParameters, Kind, ProductParameters, UnclearSearch, read_parameters
from tasks.site import Site


class Form(StrEnum):
    """Form of an answer."""

    JSON = "json"
    VOTABLE = "votable"
    CSV = "csv"


_MEDIA_TYPES: Mapping[str, Form] = MappingProxyType(
    {
        "application/json": Form.JSON,
        VOTABLE_TYPE: Form.VOTABLE,
        "text/xml": Form.VOTABLE,
        "application/xml": Form.VOTABLE,
        "text/csv": Form.CSV,
    }
)
_FORM_PARAMETERS = ("format", "responseformat")  # the second is that of DALI


def _described(kind: type[FrameParameters | ProductParameters]) -> dict[str, Any]:
    """Return the parameters for the description of the service (OpenAPI)."""
    schema = kind.model_json_schema(ref_template="{model}")
    named = schema.get("$defs", {})
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "description": field["description"], "schema": _plain(field, named)}
        for name, field in schema["properties"].items()
    ]
    forms = {"type": "string", "enum": list(Form)}
    return {"parameters": [*parameters, {"name": "format", "in": "query", "schema": forms}]}


def _plain(field: Any, named: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever a schema holds
    """Return a schema with the definitions that it refers to in their places."""
    match field:
        case {"$ref": str(name)}:
            return _plain(named[name], named)
        case dict():
            return {key: _plain(value, named) for key, value in field.items() if key not in ("title", "description")}
        case list():
            return [_plain(item, named) for item in field]
        case _:
            return field


router = APIRouter(prefix="/search")


@router.get("/frames", openapi_extra=_described(FrameParameters))
def frames(request: Request) -> Response:
    """List the raw frames that meet every condition."""
    return _answer(request, FrameParameters, lambda session, asked: find_frames(session, asked.search()), FRAME_COLUMNS)


@router.get("/products", openapi_extra=_described(ProductParameters))
def products(request: Request) -> Response:
    """List the products that meet every condition."""
    return _answer(
        request, ProductParameters, lambda session, asked: find_products(session, asked.search()), PRODUCT_COLUMNS
    )


def _answer(
    request: Request,
    kind: type[Kind],
    find: Callable[[Session, Kind], Page[Found]],
    columns: Sequence[Column[Found]],
) -> Response:
    pairs = request.query_params.multi_items()
    form = Form.JSON
    try:
        form = _form(
            [text for name, text in pairs if name.lower() in _FORM_PARAMETERS], request.headers.get("accept", "")
        )
        asked = read_parameters(kind, [pair for pair in pairs if pair[0].lower() not in _FORM_PARAMETERS])
    except UnclearSearch as error:
        return _refusal(str(error), form)
    site: Site = request.app.state.site
    with site.registry.read() as session:
        listing = list_page(find(session, asked), columns)
    return _written(listing, form, asked.maxrec)


def _form(asked: Sequence[str], accepted: str) -> Form:
    """Return the form that a parameter asks for, or else the first that the client accepts and there is."""
    if asked:
        word = asked[-1].lower().partition(";")[0].strip()
        if word in list(Form):
            return Form(word)
        if word in _MEDIA_TYPES:
            return _MEDIA_TYPES[word]
        raise UnclearSearch(f"format = {asked[-1]!r} cannot be given; there are {', '.join(Form)}.")
    types = [item.partition(";")[0].strip().lower() for item in accepted.split(",")]
    return next((_MEDIA_TYPES[name] for name in types if name in _MEDIA_TYPES), Form.JSON)


def _written(listing: Listing, form: Form, limit: int) -> Response:
    match form:
        case Form.VOTABLE:
            return Response(as_votable(listing, limit=limit), media_type=VOTABLE_TYPE)
        case Form.CSV:
            # The mark of the next page has no place in the table.
            headers = {} if listing.after is None else {"X-After": listing.after}
            return Response(as_csv(listing), media_type="text/csv", headers=headers)
        case Form.JSON:
            return JSONResponse(listing.document)


def _refusal(sentence: str, form: Form) -> Response:
    if form is Form.VOTABLE:
        return Response(error_votable(sentence), status_code=400, media_type=VOTABLE_TYPE)
    return JSONResponse({"detail": sentence}, status_code=400)
