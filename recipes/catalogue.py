"""Catalogues that have a table for each star or field: which of them the telescope pointed at."""

import math
from dataclasses import dataclass

from recipes.recipe import Pointing, RecipeError, Source, TableSource, Value

NEAR, FAR = 20.0, 60.0  # arcsec from the pointing, beyond which a table is worth a warning, or is another's; MP


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A table of a catalogue.

    Parameters
    ----------
    name : str
        Its EXTNAME, or its number where it has none.
    source : TableSource
    distance : float
        From the pointing to the RA and DEC of its header, arcsec.
    """

    name: str
    source: TableSource
    distance: float


def nearest_entry(catalogue: Source, pointing: Pointing, what: str) -> Entry:
    """Return the table that is nearest to where the telescope pointed.

    Parameters
    ----------
    catalogue : Source
        Tables whose headers have RA and DEC in degrees; others are passed over.
    pointing : Pointing
    what : str
        What it is to be, for the error: ``star of STD_FLUX_TABLE``.

    Raises
    ------
    RecipeError
        If the nearest is more than 60 arcsec away.
    """
    found = [
        (_separation(pointing, table.keywords["RA"], table.keywords["DEC"]), number)
        for number, table in enumerate(catalogue.tables)
        if "RA" in table.keywords and "DEC" in table.keywords
    ]
    distance, number = min(found, default=(math.nan, 0))
    if not distance <= FAR:
        raise RecipeError(
            f"The nearest {what} is {distance:.1f} arcsec from RA {pointing.ra:.4f}, DEC {pointing.dec:.4f};"
            f" {FAR:g} is the limit. Give it a table of the {what.partition(' ')[0]} that was observed.",
            distance=distance,
        )
    source = catalogue.tables[number]
    name = str(source.keywords.get("EXTNAME", "")) or f"table {number + 1}"
    return Entry(name=name, source=source, distance=distance)


def distance_warning(name: str, distance: float) -> tuple[str, ...]:
    """Return a sentence about a star or field that is rather far from the pointing."""
    if distance <= NEAR:
        return ()
    return (f"The {name} is {distance:.1f} arcsec from the pointing; is it the right one?",)


def _separation(pointing: Pointing, ra: Value, dec: Value) -> float:
    """Return an angle on the sky in arcsec."""
    east, north, ra0, dec0 = (math.radians(float(angle)) for angle in (ra, dec, pointing.ra, pointing.dec))
    half = math.sin((north - dec0) / 2) ** 2 + math.cos(north) * math.cos(dec0) * math.sin((east - ra0) / 2) ** 2
    return math.degrees(2 * math.asin(min(math.sqrt(half), 1))) * 3600
