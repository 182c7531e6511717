"""Headers of raw frames, card by card as the instrument writes them, in the order and types of real ones.

Source: header of a real exposure of 2017-06-16, rows of a real night of June 2017, ESO's data interface dictionaries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from astropy.io import fits

from recipes.muse import INSTRUMENT, LAMP_NUMBERS, Detector, Lamp, Quadrant, extension_name
from recipes.simulator.chip import Chip
from recipes.simulator.pointing import (
    LATITUDE,
    LONGITUDE,
    Pointing,
    airmass,
    altitude,
    parallactic_angle,
    sidereal_time,
)
from recipes.simulator.scenes import Scene

Card = tuple[str, object, str]
READOUT_NAME, READOUT_ID = "SCI1.0", 1
CHIPS_PER_CONTROLLER = 6
CARD_LENGTH = 80
# What stands in the lamps' and shutters' NAME; shutter 6 is the second, strong neon lamp.
SHUTTER_NAMES: Mapping[int, str] = {1: "ContB", 2: "ContR", 3: "Ne", 4: "Xe", 5: "HgCd", 6: "Ne"}
LAMP_NAMES: Mapping[int, str] = {number: f"CU-LAMP-{lamp.value}" for number, lamp in LAMP_NUMBERS.items()}


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """One raw frame of a night, before it has pixels.

    Parameters
    ----------
    number : int
        Unique in the night, whatever else is taken.
    category, type : str
        ``ESO DPR CATG`` and ``TYPE``.
    template : str
        ``ESO TPL ID``.
    template_start, start : datetime
        UTC.
    index, count : int
        ``ESO TPL EXPNO`` and ``NEXP``.
    exptime : float
        Seconds.
    stem : str
        What ORIGFILE begins with: ``MUSE_CAL_BIAS``.
    file_number : int
        What ORIGFILE ends with.
    target, block : str
        OBJECT and ``ESO OBS NAME``.
    mode : str
        ``ESO INS MODE``.
    lamps : tuple of Lamp
        Lamps on, shutter open.
    pointing : Pointing
    scene : Scene or None
        What shines; None with the shutter closed.
    mask : str
        ``ESO INS OPTI4 NAME``.
    mask_position : float
        Vertical position of the mask, mm.
    """

    number: int
    category: str
    type: str
    template: str
    template_start: datetime
    start: datetime
    index: int
    count: int
    exptime: float
    stem: str
    file_number: int
    target: str
    block: str
    mode: str
    pointing: Pointing
    scene: Scene | None = None
    lamps: tuple[Lamp, ...] = ()
    mask: str = "SingleP"
    mask_position: float = 13.833

    @property
    def template_number(self) -> int:
        """Number of the template in the night: the hundreds of the exposure number."""
        return self.number // 100

    @property
    def archive_name(self) -> str:
        """ARCFILE: the archive stamps milliseconds of its own."""
        milliseconds = (self.number * 617 + 211) % 1000
        return f"{INSTRUMENT}.{self.start + timedelta(milliseconds=milliseconds):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + ".fits"


def extension_index(channel: int) -> int:
    """Return ``ESO DET CHIP INDEX`` and the place of a channel in the file, from 1.

    Each of four controllers reads six chips, the highest first (real: CHAN01 is 6).
    """
    controller, chip = divmod(channel - 1, CHIPS_PER_CONTROLLER)
    return CHIPS_PER_CONTROLLER * (controller + 1) - chip


def primary_header(exposure: Exposure) -> fits.Header:
    """Return the header of the primary unit, which has no data."""
    header = fits.Header()
    header["SIMPLE"] = (True, "conforms to FITS standard")
    header["BITPIX"] = (8, "array data type")
    header["NAXIS"] = (0, "number of array dimensions")
    header["EXTEND"] = True
    for cards in (_identity(exposure), _observation(exposure), _telescope(exposure), _instrument(exposure)):
        _add(header, cards)
    _add(header, _detector_system(exposure))
    return header


def extension_header(chip: Chip, exposure: Exposure) -> fits.Header:
    """Return the header of a channel's image extension."""
    rows, columns = chip.detector.raw_shape
    header = fits.Header()
    header["XTENSION"] = ("IMAGE", "IMAGE extension")
    header["BITPIX"] = (16, "# of bits per pix value")
    header["NAXIS"] = (2, "# of axes in data array")
    header["NAXIS1"] = (columns, "# of pixels in axis1")
    header["NAXIS2"] = (rows, "# of pixels in axis2")
    header["PCOUNT"] = (0, "number of random group parameters")
    header["GCOUNT"] = (1, "number of random groups")
    header["BSCALE"] = (1.0, "pixel=FITS*BSCALE+BZERO")
    header["BZERO"] = (32768.0, "pixel=FITS*BSCALE+BZERO")
    name = extension_name(chip.channel)
    header["EXTNAME"] = (name, "Extension name")
    header["INHERIT"] = (True, "denotes the INHERIT keyword convention")
    header["DATE-OBS"] = (f"{exposure.start:%Y-%m-%dT%H:%M:%S}.000", "Observing date")
    header["EXPTIME"] = (float(exposure.exptime), "Integration time")
    _add(header, _chip(chip, name))
    for quadrant in Quadrant:
        _add(header, _output(chip, quadrant))
    return header


def _add(header: fits.Header, cards: tuple[Card, ...]) -> None:
    for name, value, comment in cards:
        room = CARD_LENGTH - len(f"HIERARCH {name} = {value!r} / ") - 2  # ESO's comments end where the card does
        header[f"HIERARCH {name}" if name.startswith("ESO ") else name] = (value, comment[: max(room, 0)])


def _identity(e: Exposure) -> tuple[Card, ...]:
    seconds = (e.start - e.start.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
    return (
        ("DATE", f"{e.start + timedelta(seconds=e.exptime + 60):%Y-%m-%dT%H:%M:%S}", "file creation date"),
        ("ORIGIN", "ESO-PARANAL", "European Southern Observatory"),
        ("TELESCOP", "ESO-VLT-U4", "ESO <TEL>"),
        ("INSTRUME", INSTRUMENT, "Instrument used."),
        ("RA", round(e.pointing.ra, 6), "[deg] RA (J2000) pointing"),
        ("DEC", round(e.pointing.dec, 5), "[deg] DEC (J2000) pointing"),
        ("EQUINOX", 2000.0, "Standard FK5"),
        ("RADECSYS", "FK5", "Coordinate system"),
        ("EXPTIME", float(e.exptime), "Integration time"),
        ("MJD-OBS", round(_mjd(e.start), 8), "Obs start"),
        ("DATE-OBS", f"{e.start:%Y-%m-%dT%H:%M:%S}.000", "Observing date"),
        ("UTC", seconds, "[s] UTC"),
        ("LST", round(sidereal_time(e.start) * 3600, 3), "[s] LST"),
        ("PI-COI", "UNKNOWN", "PI-COI name."),
        ("OBSERVER", "UNKNOWN", "Name of observer."),
        ("OBJECT", e.target, "Original target."),
        ("ARCFILE", e.archive_name, "Archive File Name"),
        ("ORIGFILE", f"{e.stem}{e.start:%j}_{e.file_number:04d}.fits", "Original File Name"),
    )


def _observation(e: Exposure) -> tuple[Card, ...]:
    programme = "60.A-9100(G)" if e.category == "SCIENCE" else "60.A-9022(C)"
    return (
        ("ESO OBS DID", "ESO-VLT-DIC.OBS-2.0", "OBS Dictionary"),
        ("ESO OBS ID", 200000000 + e.number // 100 if e.category == "SCIENCE" else -1, "Observation block ID"),
        ("ESO OBS NAME", e.block, "OB name"),
        ("ESO OBS NTPL", 1, "Number of templates within OB"),
        ("ESO OBS PI-COI NAME", "UNKNOWN", "PI-COI name"),
        ("ESO OBS PROG ID", programme, "ESO program identification"),
        ("ESO OBS START", f"{e.template_start - timedelta(seconds=12):%Y-%m-%dT%H:%M:%S}", "OB start time"),
        ("ESO OBS TARG NAME", e.target, "OB target name"),
        ("ESO OBS TPLNO", 1, "Template number within OB"),
        ("ESO TPL DID", "ESO-VLT-DIC.TPL-1.9", "Data dictionary for TPL"),
        ("ESO TPL EXPNO", e.index, "Exposure number within template"),
        ("ESO TPL ID", e.template, "Template signature ID"),
        ("ESO TPL NEXP", e.count, "Number of exposures within template"),
        ("ESO TPL START", f"{e.template_start:%Y-%m-%dT%H:%M:%S}", "TPL start time"),
        ("ESO DPR CATG", e.category, "Observation category"),
        ("ESO DPR TECH", "IFU", "Observation technique"),
        ("ESO DPR TYPE", e.type, "Observation type"),
    )


def _telescope(e: Exposure) -> tuple[Card, ...]:
    end = e.start + timedelta(seconds=e.exptime)
    return (
        ("ESO TEL AIRM END", round(airmass(e.pointing, end), 3), "Airmass at end"),
        ("ESO TEL AIRM START", round(airmass(e.pointing, e.start), 3), "Airmass at start"),
        ("ESO TEL ALT", round(altitude(e.pointing, e.start), 3), "[deg] Alt angle at start"),
        ("ESO TEL AMBI FWHM END", e.pointing.seeing, "[arcsec] Observatory Seeing"),
        ("ESO TEL AMBI FWHM START", e.pointing.seeing, "[arcsec] Observatory Seeing"),
        ("ESO TEL AMBI PRES END", 746.9, "[hPa] Observatory ambient air pressure"),
        ("ESO TEL AMBI PRES START", 746.93, "[hPa] Observatory ambient air pressure"),
        ("ESO TEL AMBI RHUM", 12.5, "[%] Observatory ambient relative humidity"),
        ("ESO TEL AMBI TEMP", 11.75, "[deg C] Observatory ambient temperature"),
        ("ESO TEL FOCU ID", "NB", "Telescope focus station ID"),
        ("ESO TEL FOCU LEN", 121.561, "[m] Focal length"),
        ("ESO TEL FOCU SCALE", 1.705, "[arcsec/mm] Focal scale"),
        ("ESO TEL GEOELEV", 2648.0, "[m] Elevation above sea level"),
        ("ESO TEL GEOLAT", LATITUDE, "[deg] Tel geo latitute (+=North)"),
        ("ESO TEL GEOLON", LONGITUDE, "[deg] Tel geo longitude (+=East)"),
        ("ESO TEL IA FWHM", e.pointing.seeing, "[arcsec] Delivered seeing corrected by airmass"),
        ("ESO TEL PARANG END", round(parallactic_angle(e.pointing, end), 3), "[deg] Parallactic angle at end"),
        ("ESO TEL PARANG START", round(parallactic_angle(e.pointing, e.start), 3), "[deg] Parallactic angle at start"),
    )


def _instrument(e: Exposure) -> tuple[Card, ...]:
    nominal = e.mode.endswith("-N")
    name = ("Blue-Na2" if "-AO-" in e.mode else "Blue") if nominal else "Clear"
    cards: list[Card] = [
        ("ESO INS DROT MODE", e.pointing.rotator_mode, "Instrument derotator mode"),
        ("ESO INS DROT POSANG", e.pointing.position_angle, "[deg] Derotator position angle"),
        ("ESO INS ID", "MUSE/176642", "Instrument ID"),
    ]
    for number, lamp in LAMP_NUMBERS.items():
        on = lamp in e.lamps
        cards += [
            (f"ESO INS LAMP{number} ID", f"CUL{number}", "Lamp ID"),
            (f"ESO INS LAMP{number} NAME", LAMP_NAMES[number], "Lamp name"),
            (f"ESO INS LAMP{number} ST", on, "Lamp activated"),
            (f"ESO INS LAMP{number} SWSIM", False, "If T, lamp software simulated"),
        ]
    cards += [
        ("ESO INS LAMPNUM", len(LAMP_NUMBERS), "Number of lamps"),
        ("ESO INS MODE", e.mode, "Instrument mode used."),
        ("ESO INS OPTI1 NAME", name, "Pupil Filter Wheel filter name"),
        ("ESO INS OPTI1 TYPE", "FILTER", "Pupil Filter Wheel element type"),
        ("ESO INS OPTI2 NAME", e.mode[:3], "Mode Switching Unit field mode"),
        ("ESO INS OPTI3 NAME", e.mode[:3], "Calibration Unit Pickup Mirror Status"),
        ("ESO INS OPTI4 NAME", e.mask, "CU Focal Plan mask Wheel mask name"),
        ("ESO INS OPTI4 TYPE", "MASK", "Optical function element"),
        *_mask_stage(e.mask_position),
    ]
    for number in LAMP_NUMBERS:
        cards += [
            (f"ESO INS SHUT{number} ID", f"CSH{number}", "Lamp shutter ID"),
            (f"ESO INS SHUT{number} NAME", SHUTTER_NAMES[number], "Lamp shutter name"),
            (f"ESO INS SHUT{number} ST", LAMP_NUMBERS[number] in e.lamps, "Lamp shutter open"),
        ]
    cards += [
        ("ESO INS SWSIM", "NORMAL", "Software simulation."),
        ("ESO INS TEMP4 VAL", 10.37, "[C] Ambient temperature"),
        ("ESO INS TEMP7 VAL", 12.53, "[C] Right IFU temperature"),
        ("ESO INS TEMP11 VAL", 12.73, "[C] Left IFU temperature"),
    ]
    return tuple(cards)


def _mask_stage(position: float) -> tuple[Card, ...]:
    """Stage positions; 48596 encoder steps a mm, as in the real header."""
    stages = ((1, 12.8, 734003), (2, 14.541, 706631), (3, position, round(position * 48596)), (4, 13.9, 675481))
    return tuple(
        card
        for number, millimetres, steps in stages
        for card in (
            (f"ESO INS POS{number} ENC", steps, "[Enc] Position function absolute position"),
            (f"ESO INS POS{number} POS", round(millimetres, 4), "[mm] Stage position"),
        )
    )


def _detector_system(e: Exposure) -> tuple[Card, ...]:
    return (
        ("ESO DET BINX", 1, "Setup binning factor along X"),
        ("ESO DET BINY", 1, "Setup binning factor along Y"),
        ("ESO DET CHIPS", 24, "Number of chips in the mosaic"),
        ("ESO DET DID", "ESO-VLT-DIC.NGCDCS,ESO-VLT-DIC.NGCCON", "Used dictionaries"),
        ("ESO DET DIT1", float(e.exptime), "[s] Actual subintegration time"),
        ("ESO DET DKTM", float(e.exptime), "[s] Dark current time"),
        ("ESO DET EXP NO", e.number, "Unique exposure ID number"),
        ("ESO DET EXP TYPE", "Dark" if e.type in {"BIAS", "DARK"} else "Normal", "Exposure type"),
        ("ESO DET NAME", "MUSE-NGCOPT", "Name of detector system"),
        ("ESO DET NDIT", 1, "Number of Sub-Integrations"),
        ("ESO DET OUTPUTS", 96, "Number of outputs"),
        ("ESO DET READ CURID", READOUT_ID, "Used readout mode id"),
        ("ESO DET READ CURNAME", READOUT_NAME, "Used readout mode name"),
        ("ESO DET UIT1", float(e.exptime), "[s] User defined subintegration time"),
    )


def _chip(chip: Chip, name: str) -> tuple[Card, ...]:
    index = extension_index(chip.channel)
    rows, columns = chip.detector.shape
    return (
        ("ESO DET CHIP DATE", "2012-10-12", "[YYYY-MM-DD] Date of installation"),
        ("ESO DET CHIP ID", f"sim{chip.channel:02d}", "Detector chip identification"),
        ("ESO DET CHIP INDEX", index, "Chip index"),
        ("ESO DET CHIP LIVE", True, "Detector alive"),
        ("ESO DET CHIP NAME", name, "Detector chip name"),
        ("ESO DET CHIP NX", columns, "Physical active pixels in X"),
        ("ESO DET CHIP NY", rows, "Physical active pixels in Y"),
        ("ESO DET CHIP PSZX", 15.0, "[um] Size of pixel in X"),
        ("ESO DET CHIP PSZY", 15.0, "[um] Size of pixel in Y"),
        ("ESO DET CHIP X", index, "X location in array"),
        ("ESO DET CHIP Y", index, "Y location in array"),
    )


def _output(chip: Chip, quadrant: Quadrant) -> tuple[Card, ...]:
    """Cards of one port. GAIN is what ESO's recipes multiply adu by, whatever the dictionary's comment says."""
    d: Detector = chip.detector
    q, out = quadrant - 1, f"ESO DET OUT{quadrant.value}"
    return (
        (f"{out} CONAD", float(np.round(1 / chip.gain[q], 2)), "[e-/ADU] Conversion ADUs to electrons"),
        (f"{out} GAIN", chip.gain[q], "[ADU/e-] Conversion electrons to ADU"),
        (f"{out} ID", "EFGH"[q], "Output ID as from manufacturer"),
        (f"{out} INDEX", quadrant.value, "Output index"),
        (f"{out} NAME", f"NO{quadrant.value}", "Description of output"),
        (f"{out} NX", d.nx, "Valid pixels along X"),
        (f"{out} NY", d.ny, "Valid pixels along Y"),
        (f"{out} OVSCX", d.margin, "Overscan region in X"),
        (f"{out} OVSCY", d.margin, "Overscan region in Y"),
        (f"{out} PRSCX", d.margin, "Prescan region in X"),
        (f"{out} PRSCY", d.margin, "Prescan region in Y"),
        (f"{out} RON", float(np.round(chip.read_noise[q], 2)), "[e-] Readout noise per output"),
        (f"{out} X", 2 * d.nx if quadrant.is_right else 1, "X location of output"),
        (f"{out} Y", 2 * d.ny if quadrant.is_upper else 1, "Y location of output"),
    )


def _mjd(time: datetime) -> float:
    return (time - datetime(1858, 11, 17, tzinfo=time.tzinfo)) / timedelta(days=1)
