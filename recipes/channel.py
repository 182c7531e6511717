"""Joining a pure recipe to files: raw frames and calibrations in, products with their provenance out.

``reduce_channel`` is the first half of a recipe, on one channel; ``merge_channels`` puts the same product of several
channels into one file. A recipe whose products are of the whole instrument has a second half, ``combine_channels``.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from recipes.diskarray import DiskArray
from recipes.fits import AbsentChannel, FileSource, open_image, open_source, open_stack, read_table
from recipes.headers import CARD, Hdu, Header, read_hdus
from recipes.muse import extension_name
from recipes.products import NOT_INHERITED, OF_CHANNEL, POINTERS, copied, primary_header, sealed, write_product
from recipes.recipe import (
    Channel,
    Exposure,
    Instrument,
    Measurement,
    Params,
    Product,
    Recipe,
    RecipeError,
    Result,
    TableSource,
    Value,
)

PRO_DICTIONARY = "PRO-1.16"  # version of ESO's data dictionary that the PRO cards follow
DIGEST_LENGTH = 40  # hexadecimal digits of a SHA-256 that fit a card ``HIERARCH ESO PRO REC1 RAW123 SHA256``
MISSING = "ESO DRS MUSE CHANNELS MISSING"
# Calibrations that are neither an image with flags and variance (MASTER_...) nor one table: cubes, masks, and
# catalogues with a table for each star, field or filter.
SEVERAL_EXTENSIONS = frozenset(
    {
        "ASTROMETRY_REFERENCE",
        "ASTROMETRY_WCS",
        "FILTER_LIST",
        "LSF_PROFILE",
        "SKY_LINES",
        "STD_FLUX_TABLE",
        "TWILIGHT_CUBE",
        "VIGNETTING_MASK",
    }
)


@dataclass(frozen=True)
class Input:
    """A file that a product was made of.

    Parameters
    ----------
    name : str
        Archive name: of a raw frame its data-product identifier and ``.fits``.
    tag : str
        ``BIAS``, ``MASTER_BIAS`` and so on.
    digest : str
        SHA-256 of the file.
    """

    name: str
    tag: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a product was made, for its PRO cards. ``parameters`` are name, value, default."""

    recipe: str
    version: str
    raws: tuple[Input, ...]
    calibrations: tuple[Input, ...]
    parameters: tuple[tuple[str, Value, Value], ...]


@dataclass(frozen=True)
class Outcome:
    """Files and measurements by the name of the product, and sentences an operator should read.

    The name is PRO.CATG, with ``_0001`` and so on where a product is numbered. ``memory`` is the peak of another
    program that did the work, in bytes.
    """

    files: Mapping[str, Path]
    measurements: Mapping[str, tuple[Measurement, ...]]
    warnings: tuple[str, ...]
    memory: int = 0


@dataclass(frozen=True)
class Identity:
    """What a product is called in its own header.

    Parameters
    ----------
    arcfile : str
        Data-product identifier in the archive, with ``.fits``.
    origfile : str
        Name a person knows it by.
    pipefile : str
        Name the recipe gave it.
    created : datetime, optional
        Time for the DATE card. Take one that a repetition will take again, and the repetition gives the same bytes.
    """

    arcfile: str
    origfile: str
    pipefile: str
    created: datetime | None = None


def reduce_channel(
    recipe: Recipe,
    params: Params,
    *,
    channel: int,
    raws: Mapping[str, Sequence[Path]],
    calibrations: Mapping[str, Path],
    folder: Path,
    provenance: Provenance,
) -> Outcome:
    """Run a recipe on one channel and write ``folder/<name>-<NN>.fits`` for each product.

    Parameters
    ----------
    recipe, params
        What to run, and how.
    channel : int
        1 to 24.
    raws : mapping of raw tag to paths
        In order of time; the first frame of the recipe's main tag gives the header, of a numbered product its own.
    calibrations : mapping of PRO.CATG to path
    folder : Path
        Exists. Products appear in it complete or not at all.
    provenance : Provenance

    Raises
    ------
    RecipeError
        If the data cannot be reduced; nothing is left in the folder.
    """
    _check_inputs(recipe, raws, calibrations)
    with TemporaryDirectory(prefix=f"{extension_name(channel)}-", dir=folder) as name:
        scratch = Path(name)
        stacks = {tag: open_stack(paths, channel, scratch=scratch) for tag, paths in raws.items() if paths}
        main = stacks[main_tag(recipe, raws)]
        images = {tag: path for tag, path in calibrations.items() if tag.startswith("MASTER_")}
        result = recipe.reduce(
            Channel(
                number=channel,
                stacks=stacks,
                images={tag: open_image(path, channel, scratch=scratch) for tag, path in images.items()},
                tables=_tables(calibrations, channel, scratch),
                files=_files(calibrations, scratch),
                detector=main.detector,
            ),
            params,
        )
        record = _record(main.header, main.exposures, recipe, provenance, calibrations)
        outcome = _write(result, main.headers, record, scratch, f"-{channel:02d}.fits")
        return _moved(outcome, folder)


def combine_channels(
    recipe: Recipe,
    params: Params,
    *,
    channels: Mapping[int, Mapping[str, Path]],
    raws: Mapping[str, Sequence[Path]],
    calibrations: Mapping[str, Path],
    folder: Path,
    provenance: Provenance,
    missing: Sequence[int] = (),
) -> Outcome:
    """Run the second half of a recipe and write ``folder/<name>.fits`` for each product.

    The products have everything but their names in the archive, which ``identify`` puts into them.

    Parameters
    ----------
    recipe, params
        What to run, and how; ``recipe.combine`` is there.
    channels : mapping of channel to mapping of name to path
        What ``reduce_channel`` made of each channel; at least one.
    raws, calibrations, folder, provenance
        As for ``reduce_channel``.
    missing : sequence of int
        Channels of the raw frames that gave nothing; the primary HDU of the products says so.

    Raises
    ------
    RecipeError
        If the channels cannot be joined; nothing is left in the folder.
    """
    if recipe.combine is None:
        raise ValueError(f"{recipe.name} has nothing to combine; its channels are merged.")
    with TemporaryDirectory(prefix="all-", dir=folder) as name:
        scratch = Path(name)
        first = min(channels)
        stacks = {tag: open_stack(paths, first, scratch=scratch) for tag, paths in raws.items() if paths}
        main = stacks[main_tag(recipe, raws)]
        numbers = count(1)

        def allocate(shape: tuple[int, ...], dtype: type[np.generic]) -> DiskArray:
            return DiskArray.zeros(scratch / f"{next(numbers)}.array", shape, dtype)

        result = recipe.combine(
            Instrument(
                channels={
                    channel: {name: open_source(path) for name, path in files.items()}
                    for channel, files in sorted(channels.items())
                },
                missing=tuple(sorted(missing)),
                exposures={tag: stack.exposures for tag, stack in stacks.items()},
                tables=_tables(calibrations, first, scratch),
                files=_files(calibrations, scratch),
                allocate=allocate,
                detector=main.detector,
            ),
            params,
        )
        headers = [header.matching(OF_CHANNEL, inverted=True) for header in main.headers]
        record = _record(main.header, main.exposures, recipe, provenance, calibrations)
        if missing:
            record.set(*_missing(missing))
        _name(record, Identity("", "", "", datetime(1970, 1, 1, tzinfo=UTC)))  # keeps their places
        record.set("DATAMD5", "0" * 32, "MD5 checksum")
        return _moved(_write(result, headers, record, scratch, ".fits"), folder)


def identify(path: Path, identity: Identity, *, channels_missing: Sequence[int] = ()) -> None:
    """Put its names and the signature of its data into a file of the whole instrument; twice gives the same.

    A file that ``combine_channels`` wrote has room for them; any other is written anew beside its place.
    """
    signature = hashlib.md5(usedforsecurity=False)
    hdus = read_hdus(path)
    primary = next(hdus)
    with path.open("rb") as file:
        for hdu in hdus:
            file.seek(hdu.start)
            for block in copied(file, hdu.padded_size):
                signature.update(block)
    header = Header(primary.header.cards)
    _name(header, identity)
    if channels_missing:
        header.set(*_missing(channels_missing))
    header.set("DATAMD5", signature.hexdigest(), "MD5 checksum")
    unit = sealed(header, int(str(primary.header["DATASUM"])))
    if len(unit) == primary.start:
        with path.open("r+b") as file:
            file.write(unit)
        return
    anew = path.with_name(f"{path.name}.anew")
    with path.open("rb") as file, anew.open("wb") as target:
        target.write(unit)
        file.seek(primary.start)
        for block in copied(file, path.stat().st_size - primary.start):
            target.write(block)
    anew.rename(path)


def _tables(calibrations: Mapping[str, Path], channel: int, scratch: Path) -> dict[str, TableSource]:
    tables = {}
    for tag, path in calibrations.items():
        if not tag.startswith("MASTER_") and tag not in SEVERAL_EXTENSIONS:
            try:
                tables[tag] = read_table(path, channel, scratch=scratch)
            except AbsentChannel:
                if tag != "BADPIX_TABLE":  # a channel that it does not list has no bad pixels. Source: MP
                    raise
    return tables


def _files(calibrations: Mapping[str, Path], scratch: Path) -> dict[str, FileSource]:
    return {tag: open_source(path, scratch=scratch) for tag, path in calibrations.items() if tag in SEVERAL_EXTENSIONS}


def _write(result: Result, headers: Sequence[Header], record: Header, folder: Path, end: str) -> Outcome:
    """Write the products of a result, numbered ones with the header of their own exposure; return where they are."""
    for product in result.products:
        file, inherited = f"{product.name}{end}", headers[max(product.number - 1, 0)]
        write_product(folder / file, _primary(inherited, product, record, file), product.content)
    return Outcome(
        {product.name: folder / f"{product.name}{end}" for product in result.products},
        {product.name: product.measurements for product in result.products},
        result.warnings,
    )


def _moved(outcome: Outcome, folder: Path) -> Outcome:
    """Give the files of an outcome their places."""
    for path in outcome.files.values():
        path.rename(folder / path.name)
    files = {name: folder / path.name for name, path in outcome.files.items()}
    return Outcome(files, outcome.measurements, outcome.warnings)


def main_tag(recipe: Recipe, raws: Mapping[str, Sequence[Path]]) -> str:
    """Return the first raw tag of a recipe that there are frames of; its first one if there are none at all."""
    return next((tag for tag in recipe.raw if raws.get(tag)), recipe.raw[0])


def _check_inputs(recipe: Recipe, raws: Mapping[str, Sequence[Path]], calibrations: Mapping[str, Path]) -> None:
    tag = main_tag(recipe, raws)
    if len(raws.get(tag, ())) < recipe.minimum:
        raise RecipeError(
            f"{recipe.name} needs {recipe.minimum} frames {tag} and was given {len(raws.get(tag, ()))}; give it more.",
            minimum=recipe.minimum,
            given=len(raws.get(tag, ())),
        )
    missing = [catg for catg in recipe.needed if catg not in calibrations]
    if missing:
        raise RecipeError(f"{recipe.name} needs {' and '.join(missing)}, which it was not given.")


def _primary(inherited: Header, product: Product, record: Header, file: str) -> Header:
    """Return the primary header of a product."""
    header = primary_header() | inherited.matching(NOT_INHERITED, inverted=True)
    if "RADECSYS" in header:  # the keyword was RADESYS from FITS 1.0 on; ESO writes that too
        header.set("RADESYS", header["RADECSYS"], "Coordinate system")
        del header.cards["RADECSYS"]
    if product.exptime is not None:
        header.set("EXPTIME", product.exptime, "[s] Exposure time that the data are scaled to")
    header.set("PIPEFILE", file, "Filename of data product")
    header.set("ESO PRO CATG", product.catg, "Category of pipeline product frame")
    header |= record
    for keyword in product.keywords:
        header.set(keyword.name, keyword.value, keyword.comment)
    for measurement in product.measurements:
        header.set(f"ESO QC {measurement.name}", measurement.value, measurement.comment)
    return header


def _record(
    first: Header,
    exposures: Sequence[Exposure],
    recipe: Recipe,
    provenance: Provenance,
    calibrations: Mapping[str, Path],
) -> Header:
    """Return the PRO cards that all products of one run share."""
    header = Header.of(
        ("ESO PRO TYPE", "REDUCED", "Product type"),
        ("ESO PRO TECH", first.get("ESO DPR TECH", "IFU"), "Observation technique"),
        ("ESO PRO SCIENCE", False, "Scientific product if T"),
        ("ESO PRO DID", PRO_DICTIONARY, "Data dictionary for PRO"),
        ("ESO PRO ANCESTOR", f"{exposures[0].name}.fits", "Archive name of the first raw frame"),
        ("ESO PRO DATANCOM", len(exposures), "Number of combined frames"),
        ("ESO PRO REC1 ID", provenance.recipe, "Pipeline recipe (unique) identifier"),
        ("ESO PRO REC1 DRS ID", f"musecal-{version('musecal')}", "Data Reduction System identifier"),
        ("ESO PRO REC1 PIPE ID", f"musecal/{provenance.version}", "Pipeline (unique) identifier"),
    )
    for number, raw in enumerate(provenance.raws, 1):
        _record_input(header, f"ESO PRO REC1 RAW{number}", raw, "raw frame")
    for number, calibration in enumerate(provenance.calibrations, 1):
        name = f"ESO PRO REC1 CAL{number}"
        _record_input(header, name, calibration, "calibration frame")
        digest = next(read_hdus(calibrations[calibration.tag])).header.get("DATAMD5")
        if digest is not None:
            header.set(f"{name} DATAMD5", digest, "MD5 signature of the calibration's data")
    helps = {item.name: item.metadata["help"] for item in fields(recipe.params)}
    for number, (parameter, value, default) in enumerate(provenance.parameters, 1):
        name = f"ESO PRO REC1 PARAM{number}"
        header.set(f"{name} NAME", parameter, helps.get(parameter, ""))
        header.set(f"{name} VALUE", _spelled(value), f"Default: {_spelled(default)}")
    return header


def _record_input(header: Header, name: str, item: Input, what: str) -> None:
    room = CARD - len(f"HIERARCH {name} NAME = ''")
    fitting = item.name if len(item.name) <= room else item.name.removesuffix(".fits")[:room]  # the checksum is whole
    header.set(f"{name} NAME", fitting, f"File name of {what}")
    header.set(f"{name} CATG", item.tag, f"Category of {what}")
    header.set(f"{name} SHA256", item.digest[:DIGEST_LENGTH], f"First {DIGEST_LENGTH} digits")


def _spelled(value: Value) -> str:
    """Return a parameter as esorex spells it: true, 30, vpoly."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def merge_channels(
    catg: str,
    files: Mapping[int, Path],
    target: Path,
    *,
    identity: Identity,
    channels_missing: Sequence[int] = (),
) -> None:
    """Join the files that ``reduce_channel`` wrote of one product into one, as ESO's recipes do with ``--merge``.

    Extensions are ``CHAN01.DATA``, ``CHAN01.DQ``, ``CHAN01.STAT``, ``CHAN02.DATA`` and so on, or ``CHAN01`` for tables.
    Cards of detector, QC and DRS stand in each extension of their channel, all others in the primary HDU, as the lowest
    channel has them. Data are copied in blocks, and keep the DATASUM they were written with.

    Parameters
    ----------
    catg : str
        PRO.CATG that all of them must have.
    files : mapping of channel to path
    target : Path
        Written anew.
    identity : Identity
    channels_missing : sequence of int
        Channels that should be there and are not; the primary HDU says so.

    Raises
    ------
    ValueError
        If there is no file, or one is of another category.
    """
    if not files:
        raise ValueError(f"There is no channel of {catg} to merge.")
    with target.open("wb") as merged:
        signature, header = hashlib.md5(usedforsecurity=False), Header()
        for channel, path in sorted(files.items()):
            hdus = read_hdus(path)
            primary = next(hdus).header
            if primary.get("ESO PRO CATG") != catg:
                raise ValueError(f"{path.name} is a {primary.get('ESO PRO CATG')}; a {catg} is needed to be merged.")
            if not header:
                header = _common(primary, identity, channels_missing)
                merged.write(sealed(header, 0))
            with path.open("rb") as source:
                for hdu in hdus:
                    merged.write(sealed(_of_channel(hdu, primary, channel), int(str(hdu.header["DATASUM"]))))
                    source.seek(hdu.start)
                    for block in copied(source, hdu.padded_size):
                        signature.update(block)
                        merged.write(block)
        header.set("DATAMD5", signature.hexdigest(), "MD5 checksum")
        merged.seek(0)
        merged.write(sealed(header, 0))


def _common(primary: Header, identity: Identity, channels_missing: Sequence[int]) -> Header:
    """Return the primary header of a file of all channels from that of its first channel."""
    header = primary.matching(OF_CHANNEL, inverted=True)
    _name(header, identity)
    if channels_missing:
        header.set(*_missing(channels_missing))
    header.set("DATAMD5", "0" * 32, "MD5 checksum")
    return header


def _name(header: Header, identity: Identity) -> None:
    if identity.created:
        created = identity.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        header.set("DATE", created, "file creation date (YYYY-MM-DDThh:mm:ss UT)")
    header.set("ARCFILE", identity.arcfile, "Archive File Name")
    header.set("ORIGFILE", identity.origfile, "Original File Name")
    header.set("PIPEFILE", identity.pipefile, "Filename of data product")


def _missing(channels: Sequence[int]) -> tuple[str, str, str]:
    return MISSING, ",".join(str(channel) for channel in sorted(channels)), "Channels without data here"


def _of_channel(hdu: Hdu, primary: Header, channel: int) -> Header:
    """Return the header of one extension in a file of all channels."""
    prefix = extension_name(channel)
    header = Header(hdu.header.cards)
    header.set("EXTNAME", f"{prefix}.{hdu.name}" if hdu.name else prefix, "FITS Extension name")
    for name in POINTERS:
        if name in header:
            header.set(name, f"{prefix}.{header[name]}", header.comment(name))
    own = primary.matching(OF_CHANNEL)
    own.cards.pop("EXTNAME", None)
    return header | own
