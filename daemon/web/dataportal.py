"""The files themselves, by data-product identifier, as ESO's data portal hands them out."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, status
from fastapi.responses import FileResponse

from archive.holdings import archive_name, find_holding, original_name
from archive.models import Frame, Product
from daemon.web.words import quoted
from tasks.retrieval import Names
from tasks.site import Site

MEDIA_TYPES: Mapping[str, str] = MappingProxyType({".gz": "application/gzip", ".Z": "application/x-compress"})
FITS = "application/fits"  # RFC 4047; a tile-compressed file (.fz) is FITS too
ROUTE = "file"

router = APIRouter()


@router.head("/dataPortal/file/{dp_id:path}", include_in_schema=False)
@router.get("/dataPortal/file/{dp_id:path}", name=ROUTE)
def file(request: Request, dp_id: str, names: Annotated[Names, Query()] = Names.ARCFILE) -> FileResponse:
    """Hand out a raw frame or a product; of a part of it that is asked for (``Range``), that part."""
    site: Site = request.app.state.site
    with site.registry.read() as session:
        row = find_holding(session, dp_id)
    if row is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"Nothing in the archive goes by {quoted(dp_id)}.")
    return _response(row, archive_name(row) if names is Names.ARCFILE else original_name(row))


def media_type(name: str) -> str:
    """Return the media type of a file of this name."""
    return MEDIA_TYPES.get(Path(name).suffix, FITS)


def _response(row: Frame | Product, name: str) -> FileResponse:
    path = Path(row.path)
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise HTTPException(
            status.HTTP_410_GONE, f"The file of {row.dp_id} is not in its place any more; `musecal verify` tells more."
        ) from error
    except OSError as error:
        raise HTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE, f"The file of {row.dp_id} cannot be reached: {error.strerror}."
        ) from error
    if found.st_size != row.size:
        raise HTTPException(
            status.HTTP_410_GONE,
            f"The file of {row.dp_id} has {found.st_size} bytes instead of {row.size}; `musecal verify` tells more.",
        )
    # Not by `filename`: a colon would have it written in a form that astroquery does not read.
    headers = {"content-disposition": f'attachment; filename="{name}"', "etag": f'"{row.digest}"'}
    return FileResponse(path, headers=headers, media_type=media_type(name), stat_result=found)
