"""Static calibrations that go with a simulated night, in the formats that ESO's pipeline reads.

Each is true to the model behind the raw frames, as a perfect calibration would be.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from recipes.muse import INSTRUMENT, SLICES, Flag, extension_name
from recipes.simulator.atmosphere import SKY_LINES, extinction
from recipes.simulator.celestial import photons
from recipes.simulator.chip import Pixels, draw_chip
from recipes.simulator.field import PIXEL, slice_places
from recipes.simulator.linecatalog import qualities
from recipes.simulator.night import NightPlan
from recipes.simulator.optics import DISPERSION, Real, draw_slices, lsf_fwhm
from recipes.simulator.spectra import EFFICIENCY_KNOTS, FWHM_PER_SIGMA, GRID, smooth_curve
from recipes.simulator.stars import FIELDS, STANDARDS, Star, field_stars, sky_position

BEGINS = date(2014, 1, 1)  # of validity; statics of the instrument's first light serve every night
LINE_CATALOG_VERSION = 3  # the one that ESO MUSE pipeline 2.8.7 takes
LSF_SIZE, LSF_WAVELENGTHS = 150, 30  # samples of an LSF_PROFILE across and along wavelength; defaults of muse_lsf
LSF_REACH = 7.5  # Angstrom to either side
LSF_RANGE = (4650.0, 9300.0)  # Angstrom

Builder = Callable[[NightPlan], list[fits.hdu.base.ExtensionHDU]]


def write_statics(plan: NightPlan, folder: Path) -> tuple[Path, ...]:
    """Write every static calibration; one file each, LSF_PROFILE one a channel."""
    return tuple(path for catg in FILES for path in write_static(catg, plan, folder))


def write_static(catg: str, plan: NightPlan, folder: Path) -> tuple[Path, ...]:
    """Write one static calibration by its PRO.CATG; return its file or files."""
    folder.mkdir(parents=True, exist_ok=True)
    code, what = FILES[catg]
    stem = f"MU_{code}_{BEGINS:%y%m%d}A_{what.format(mode=plan.mode.lower())}"
    if catg == "LSF_PROFILE":
        return tuple(_write_lsf(plan, channel, folder / f"{stem}-{channel:02d}.fits") for channel in plan.channels)
    header, units = _primary(catg, plan), []
    if catg == "ASTROMETRY_WCS":
        header.update(_world_coordinates())
    elif catg == "VIGNETTING_MASK":
        units = [fits.PrimaryHDU(_vignetted(), header)]
    else:
        units = TABLES[catg](plan)
    if not units or not isinstance(units[0], fits.PrimaryHDU):
        units = [fits.PrimaryHDU(header=header), *units]
    path = folder / f"{stem}.fits"
    fits.HDUList(units).writeto(path, overwrite=True, checksum=True)
    return (path,)


def _primary(catg: str, plan: NightPlan) -> fits.Header:
    begins = datetime.combine(BEGINS, time(), UTC)
    header = fits.Header()
    header["ORIGIN"] = "ESO-PARANAL"
    header["TELESCOP"] = "ESO-VLT-U4"
    header["INSTRUME"] = INSTRUMENT
    header["DATE-OBS"] = f"{begins:%Y-%m-%dT%H:%M:%S}.000"
    header["MJD-OBS"] = ((begins - datetime(1858, 11, 17, tzinfo=UTC)).total_seconds() / 86400, "begin of validity")
    cards: list[tuple[str, object]] = [
        ("ESO PRO CATG", catg),
        ("ESO PRO TYPE", "REDUCED"),
        ("ESO PRO TECH", "GENERAL"),
        ("ESO PRO SCIENCE", False),
    ]
    if catg in {"LSF_PROFILE", "STD_RESPONSE"}:
        cards += [("ESO INS MODE", plan.mode), ("ESO DET READ CURNAME", "SCI1.0"), ("ESO DET READ CURID", 1)]
    if catg == "ASTROMETRY_WCS":
        cards += [("ESO INS OPTI2 NAME", plan.mode[:3])]
    if catg == "STD_RESPONSE":
        cards += [("ESO DRS MUSE FLUX FFCORR", True)]
    for name, value in cards:
        header[f"HIERARCH {name}"] = value
    if catg == "LINE_CATALOG":
        header["VERSION"] = (LINE_CATALOG_VERSION, "file format version")
    return header


def _table(
    columns: Sequence[tuple[str, str, str, Any]], name: str = "", cards: Mapping[str, object] = MappingProxyType({})
) -> fits.BinTableHDU:
    """Return a table of (name, TFORM, unit, values)."""
    made = [fits.Column(n, form, unit=unit or None, array=np.asarray(values)) for n, form, unit, values in columns]
    table = fits.BinTableHDU.from_columns(made, name=name or None)
    table.header.update(cards)
    return table


def _line_catalog(_: NightPlan) -> list[Any]:
    rows = qualities()
    return [
        _table(
            [
                ("lambda", "1E", "Angstrom", [line.wavelength for line, _ in rows]),
                ("flux", "1E", "", [line.flux for line, _ in rows]),
                ("ion", "8A", "", [line.ion for line, _ in rows]),
                ("quality", "1J", "", [int(quality) for _, quality in rows]),
                ("comment", "16A", "", [line.lamp.value for line, _ in rows]),
            ]
        )
    ]


def _geometry(_: NightPlan) -> list[Any]:
    rows = [
        (channel, k + 1, p.sky, p.x, p.y, p.angle, p.width)
        for channel in range(1, 25)
        for k, p in enumerate(slice_places(channel))
    ]
    rows.sort(key=lambda row: (row[0], row[2]))
    names = ("SubField", "SliceCCD", "SliceSky", "x", "y", "angle", "width")
    forms, units = ("1J", "1J", "1J", "1D", "1D", "1D", "1D"), ("", "", "", "pix", "pix", "deg", "pix")
    values = list(zip(*rows, strict=True))
    return [_table(list(zip(names, forms, units, values, strict=True)))]


def _extinction(_: NightPlan) -> list[Any]:
    wavelength = np.arange(3000.0, 11000.0, 50.0)
    return [
        _table(
            [
                ("lambda", "1D", "Angstrom", wavelength),
                ("extinction", "1D", "mag/airmass", extinction(wavelength)),
            ]
        )
    ]


def _standard_fluxes(_: NightPlan) -> list[Any]:
    wavelength = np.arange(4000.0, 10000.0, 2.0)
    unit = "erg/s/cm**2/Angstrom"
    tables = []
    for standard in STANDARDS:
        flux = Star(magnitude=standard.magnitude, temperature=standard.temperature).flux(wavelength)
        columns = [
            ("lambda", "1D", "Angstrom", wavelength),
            ("flux", "1D", unit, flux),
            ("fluxerr", "1D", unit, 0.005 * flux),
        ]
        tables.append(_table(columns, standard.name, {"RA": standard.ra, "DEC": standard.dec}))
    return tables


def _bad_pixels(plan: NightPlan) -> list[Any]:
    """Dark pixels of each chip, which no bias or dark shows; counted from 1 on the untrimmed frame."""
    tables = []
    for channel in plan.channels:
        chip = draw_chip(plan.seed, channel, plan.detector)
        rows, columns = _untrimmed(plan, chip.insensitive)
        count = len(chip.insensitive)
        tables.append(
            _table(
                [
                    ("xpos", "1J", "pix", columns),
                    ("ypos", "1J", "pix", rows),
                    ("status", "1J", "", np.full(count, int(Flag.DARK))),
                    ("value", "1E", "count", np.zeros(count)),
                ],
                extension_name(channel),
            )
        )
    return tables


def _untrimmed(plan: NightPlan, pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    margin, d = plan.detector.margin, plan.detector
    return (
        pixels.rows + 1 + margin + 2 * margin * (pixels.rows >= d.ny),
        pixels.columns + 1 + margin + 2 * margin * (pixels.columns >= d.nx),
    )


def _astrometric_stars(_: NightPlan) -> list[Any]:
    tables = []
    for field in FIELDS:
        stars = sorted(field_stars(field), key=lambda star: star.magnitude)
        positions = [sky_position(field, star) for star in stars]
        columns = [
            ("SourceID", "16A", "", [f"{field.name}-{number:04d}" for number in range(1, len(stars) + 1)]),
            ("RA", "1D", "deg", [ra for ra, _ in positions]),
            ("DEC", "1D", "deg", [dec for _, dec in positions]),
            ("filter", "4A", "", ["V"] * len(stars)),
            ("mag", "1D", "mag", [star.magnitude for star in stars]),
        ]
        tables.append(_table(columns, field.name, {"RA": field.ra, "DEC": field.dec}))
    return tables


def _filters(_: NightPlan) -> list[Any]:
    """Johnson V, Cousins R and I, as smooth curves of about their width."""
    tables = []
    bands = (("Johnson_V", 5450.0, 850.0), ("Cousins_R", 6450.0, 1400.0), ("Cousins_I", 7950.0, 1400.0))
    for name, middle, width in bands:
        wavelength = np.arange(middle - 1.2 * width, middle + 1.2 * width, 10.0)
        throughput = np.exp(-0.693 * (2 * (wavelength - middle) / width) ** 4)
        tables.append(_table([("lambda", "1D", "Angstrom", wavelength), ("throughput", "1D", "", throughput)], name))
    return tables


def _sky_lines(_: NightPlan) -> list[Any]:
    lines = sorted(SKY_LINES)
    return [
        _table(
            [
                ("name", "16A", "", [f"{name} {wavelength:.0f}" for wavelength, _, name, _ in lines]),
                ("group", "1J", "", [group for *_, group in lines]),
                ("lambda", "1D", "Angstrom", [line[0] for line in lines]),
                ("flux", "1D", "10**(-20)*erg/(s cm^2 arcsec^2)", [float(line[1]) for line in lines]),
                ("dq", "1J", "", np.zeros(len(lines), dtype=int)),
            ],
            "LINES",
        )
    ]


def _response(plan: NightPlan) -> list[Any]:
    """Response of the second kind (FFCORR): of data from which the lamp spectrum of the flat is taken out again."""
    wavelength = np.arange(4750.0 if plan.mode.endswith("-N") else 4600.0, 9450.0, DISPERSION)
    detected = photons(np.ones_like(GRID), plan.mode) / DISPERSION
    response = 2.5 * np.log10(np.interp(wavelength, GRID, detected))
    unit = "2.5*log10((count/s/Angstrom)/(erg/s/cm**2/Angstrom))"
    return [
        _table(
            [
                ("lambda", "1D", "Angstrom", wavelength),
                ("response", "1D", unit, response),
                ("resperr", "1D", unit, np.full(wavelength.shape, 0.01)),
                ("throughput", "1D", "", np.interp(wavelength, GRID, smooth_curve(EFFICIENCY_KNOTS))),
            ]
        )
    ]


def _world_coordinates() -> fits.Header:
    header = fits.Header()
    scale = PIXEL / 3600
    cards: tuple[tuple[str, object], ...] = (
        ("WCSAXES", 2), ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CUNIT1", "deg"), ("CUNIT2", "deg"),
        ("CRVAL1", 0.0), ("CRVAL2", 0.0), ("CRPIX1", -0.01), ("CRPIX2", -1.20),
        ("CD1_1", -scale), ("CD1_2", 0.0), ("CD2_1", 0.0), ("CD2_2", scale),
    )  # fmt: skip
    for name, value in cards:
        header[name] = value
    return header


def _vignetted() -> NDArray[np.int32]:
    """Return 1 in the lower right corner of the field, as before the baffle of March 2017."""
    y, x = np.mgrid[:300, :300]
    result: NDArray[np.int32] = (x - 240 > 2 * y).astype(np.int32)
    return result


def _write_lsf(plan: NightPlan, channel: int, path: Path) -> Path:
    """Write an LSF_PROFILE: each row the profile with the pixel, of integral 1 over Angstrom."""
    step, stride = 2 * LSF_REACH / (LSF_SIZE - 1), (LSF_RANGE[1] - LSF_RANGE[0]) / (LSF_WAVELENGTHS - 1)
    offset = np.linspace(-LSF_REACH, LSF_REACH, LSF_SIZE)
    wavelengths = LSF_RANGE[0] + stride * np.arange(LSF_WAVELENGTHS)
    slices = draw_slices(plan.seed, channel, plan.detector)
    cube = np.zeros((SLICES, LSF_WAVELENGTHS, LSF_SIZE), dtype=np.float32)
    for which in slices:
        cube[which.number - 1] = _profile(offset, lsf_fwhm(wavelengths) * which.blur, step)
    header = _primary("LSF_PROFILE", plan)
    header["EXTNAME"] = extension_name(channel)
    image = fits.ImageHDU(cube, name="LSF_PROFILE")
    cards: tuple[tuple[str, object], ...] = (
        ("WCSAXES", 2), ("CRPIX1", 1.0), ("CRVAL1", -LSF_REACH), ("CD1_1", step), ("CTYPE1", "PARAM"),
        ("CUNIT1", "Angstrom"), ("CRPIX2", 1.0), ("CRVAL2", LSF_RANGE[0]), ("CD2_2", stride), ("CTYPE2", "AWAV"),
        ("CUNIT2", "Angstrom"), ("CD1_2", 0.0), ("CD2_1", 0.0),
    )  # fmt: skip
    for name, value in cards:
        image.header[name] = value
    fits.HDUList([fits.PrimaryHDU(header=header), image]).writeto(path, overwrite=True, checksum=True)
    return path


def _profile(offset: Real, fwhm: Real, step: float) -> Real:
    sigma = np.hypot(fwhm / FWHM_PER_SIGMA, DISPERSION / np.sqrt(12))[:, None]
    rows = np.exp(-((offset / sigma) ** 2) / 2)
    result: Real = rows / (rows.sum(axis=1, keepdims=True) * step)
    return result


# PRO.CATG against product code and the end of the file name, as on ESO's calibration page.
FILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "LINE_CATALOG": ("GLNC", "line_cat"),
        "GEOMETRY_TABLE": ("GEOT", "geometry_table_wfm"),
        "EXTINCT_TABLE": ("GEXT", "extinct_table"),
        "STD_FLUX_TABLE": ("GSFT", "stdflux_table"),
        "BADPIX_TABLE": ("GBPT", "badpix_table"),
        "ASTROMETRY_REFERENCE": ("GASR", "astrom_cat"),
        "ASTROMETRY_WCS": ("GASW", "astrom_wcs_wfm"),
        "FILTER_LIST": ("GFIL", "filter_list"),
        "SKY_LINES": ("GSKL", "sky_lines"),
        "VIGNETTING_MASK": ("GVIM", "vignetting_mask"),
        "LSF_PROFILE": ("GLSP", "lsf_profile_slow_{mode}"),
        "STD_RESPONSE": ("GSDR", "std_response_{mode}"),
    }
)
TABLES: Mapping[str, Builder] = MappingProxyType(
    {
        "LINE_CATALOG": _line_catalog,
        "GEOMETRY_TABLE": _geometry,
        "EXTINCT_TABLE": _extinction,
        "STD_FLUX_TABLE": _standard_fluxes,
        "BADPIX_TABLE": _bad_pixels,
        "ASTROMETRY_REFERENCE": _astrometric_stars,
        "FILTER_LIST": _filters,
        "SKY_LINES": _sky_lines,
        "STD_RESPONSE": _response,
    }
)
