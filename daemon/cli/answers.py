"""``why`` for whatever people ask after: a row of the registry, or a file that the registry does not know."""

from pathlib import Path

from sqlalchemy import select

from archive.formats import Unfit
from archive.inspection import IncompleteFile, Inspection, UnreadableFile, inspect
from archive.models import Frame, Product
from archive.night import time_of
from archive.registry import Registry
from daemon.cli.errors import NotFoundError, UsageError
from daemon.cli.identifiers import find, label
from daemon.cli.standing import lying
from tasks.classify import classify
from tasks.settings import Settings
from tasks.site import Site
from tasks.statics import category_of, recognise
from tasks.why import Explanation, explain, explain_for


def answer(site: Site, text: str) -> Explanation:
    """Explain what a text means.

    Raises
    ------
    NotFoundError
        It is neither in the registry nor a file.
    UsageError
    """
    with site.registry.read() as session:
        try:
            return explain(session, find(session, text), site.settings)
        except NotFoundError:
            if not Path(text).is_file():
                raise
    return explain_stranger(site.registry, Path(text), site.settings)


def answer_for(site: Site, text: str, other: str) -> Explanation:
    """Explain whether a product is used for a step, a group or a frame, and why not.

    Raises
    ------
    NotFoundError
    UsageError
        They are not what they should be.
    """
    with site.registry.read() as session:
        product, row = find(session, text), find(session, other)
        if not isinstance(product, Product):
            raise UsageError(f"{text} is {label(product)}, no product; --for asks after a product.")
        try:
            return explain_for(session, product, row, site.settings)
        except LookupError as error:
            raise UsageError(f"{other} ({label(row)}): {error}") from error


def explain_stranger(registry: Registry, path: Path, settings: Settings) -> Explanation:
    """Explain a file that exists, by looking at it.

    Parameters
    ----------
    registry : Registry
        Tells whether the same content is there under another name.
    path : Path
    settings : Settings
    """
    path = path.absolute()
    awaited = lying(settings)
    if path in awaited:
        comes = awaited[path] or (
            "It lies in the incoming folder; if it runs (`musecal status`), the watcher takes it in "
            f"{settings.watch.settle_seconds:g} s after its last change."
        )
    else:
        comes = f"It does not lie in {settings.archive.incoming}; `musecal ingest {path}` takes it in."
    sentences = [f"The registry does not know {path}.", *_look(registry, path), comes]
    return Explanation(sentences, {"subject": "file", "path": str(path), "sentences": sentences, "next": comes})


def _look(registry: Registry, path: Path) -> list[str]:
    """Return what a file is, as the intake would find it."""
    try:
        inspection = inspect(path)
    except (IncompleteFile, UnreadableFile) as error:
        return [f"It cannot be taken in as it is: {error}"]
    if catg := category_of(inspection.primary, path.name):
        return _look_at_static(registry, path, inspection, catg)
    classified = classify(inspection.primary, name=path.name)
    with registry.read() as session:
        same = session.scalar(select(Frame).where(Frame.digest == inspection.digest))
    if same:
        return [f"It has the same content as {same.dp_id} (F{same.id})."]
    return [f"It is {classified.tag}. {classified.rule}", *classified.problems]


def _look_at_static(registry: Registry, path: Path, inspection: Inspection, catg: str) -> list[str]:
    with registry.read() as session:
        same = session.scalar(select(Product).where(Product.digest == inspection.digest))
    if same:
        return [f"It has the same content as {same.name} (P{same.id})."]
    try:
        static = recognise(inspection, path)
    except Unfit as error:
        return [f"It is a static {catg} that cannot be taken in: {error}"]
    return [f"It is a static {catg}, valid from {time_of(static.mjd):%Y-%m-%d} on, and would be {static.name}."]
