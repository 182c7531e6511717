"""Joining a pure recipe to files: raw frames and calibrations of one channel in, products with their provenance out."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from recipes.fits import FileStack, open_image, open_stack, read_table
from recipes.headers import Hdu, Header, read_hdus
from recipes.muse import extension_name
from recipes.products import NOT_INHERITED, OF_CHANNEL, POINTERS, copied, primary_header, sealed, write_product
from recipes.recipe import Channel, Measurement, Params, Product, Recipe, RecipeError, Value

PRO_DICTIONARY = "PRO-1.16"  # version of ESO's data dictionary that the PRO cards follow
DIGEST_LENGTH = 40  # hexadecimal digits of a SHA-256 that fit a card ``HIERARCH ESO PRO REC1 RAW123 SHA256``
MISSING = "ESO DRS MUSE CHANNELS MISSING"


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
    """Files and measurements by PRO.CATG, and sentences an operator should read."""

    files: Mapping[str, Path]
    measurements: Mapping[str, tuple[Measurement, ...]]
    warnings: tuple[str, ...]


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
    """Run a recipe on one channel and write ``folder/<CATG>-<NN>.fits`` for each product.

    Parameters
    ----------
    recipe, params
        What to run, and how.
    channel : int
        1 to 24.
    raws : mapping of raw tag to paths
        In order of time; the first frame of the recipe's main tag gives the header.
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
        main = stacks[recipe.raw[0]]
        images = {tag: path for tag, path in calibrations.items() if tag.startswith("MASTER_")}
        result = recipe.reduce(
            Channel(
                number=channel,
                stacks=stacks,
                images={tag: open_image(path, channel, scratch=scratch) for tag, path in images.items()},
                tables={
                    tag: read_table(path, channel, scratch=scratch)
                    for tag, path in calibrations.items()
                    if tag not in images
                },
                detector=main.detector,
            ),
            params,
        )
        record = _record(main, recipe, provenance, calibrations)
        written = {}
        for product in result.products:
            file = f"{product.catg}-{channel:02d}.fits"
            write_product(scratch / file, _primary(main, product, record, file), product.content)
            written[product.catg] = file
        for file in written.values():
            (scratch / file).rename(folder / file)
    return Outcome(
        {catg: folder / file for catg, file in written.items()},
        {product.catg: product.measurements for product in result.products},
        result.warnings,
    )


def _check_inputs(recipe: Recipe, raws: Mapping[str, Sequence[Path]], calibrations: Mapping[str, Path]) -> None:
    tag = recipe.raw[0]
    if len(raws.get(tag, ())) < recipe.minimum:
        raise RecipeError(
            f"{recipe.name} needs {recipe.minimum} frames {tag} and was given {len(raws.get(tag, ()))}; give it more.",
            minimum=recipe.minimum,
            given=len(raws.get(tag, ())),
        )
    missing = [catg for catg in recipe.needed if catg not in calibrations]
    if missing:
        raise RecipeError(f"{recipe.name} needs {' and '.join(missing)}, which it was not given.")


def _primary(main: FileStack, product: Product, record: Header, file: str) -> Header:
    """Return the primary header of a product of one channel."""
    header = primary_header() | main.header.matching(NOT_INHERITED, inverted=True)
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


def _record(main: FileStack, recipe: Recipe, provenance: Provenance, calibrations: Mapping[str, Path]) -> Header:
    """Return the PRO cards that all products of one run share."""
    header = Header.of(
        ("ESO PRO TYPE", "REDUCED", "Product type"),
        ("ESO PRO TECH", main.header.get("ESO DPR TECH", "IFU"), "Observation technique"),
        ("ESO PRO SCIENCE", False, "Scientific product if T"),
        ("ESO PRO DID", PRO_DICTIONARY, "Data dictionary for PRO"),
        ("ESO PRO ANCESTOR", f"{main.exposures[0].name}.fits", "Archive name of the first raw frame"),
        ("ESO PRO DATANCOM", len(main.exposures), "Number of combined frames"),
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
    header.set(f"{name} NAME", item.name, f"File name of {what}")
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
    if identity.created:
        created = identity.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        header.set("DATE", created, "file creation date (YYYY-MM-DDThh:mm:ss UT)")
    header.set("ARCFILE", identity.arcfile, "Archive File Name")
    header.set("ORIGFILE", identity.origfile, "Original File Name")
    header.set("PIPEFILE", identity.pipefile, "Filename of data product")
    if channels_missing:
        numbers = ",".join(str(channel) for channel in sorted(channels_missing))
        header.set(MISSING, numbers, "Channels without data here")
    header.set("DATAMD5", "0" * 32, "MD5 checksum")
    return header


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
