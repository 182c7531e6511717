"""The truth behind a simulated night: written beside it, one file a channel, for tests to compare with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recipes.muse import Quadrant, extension_name
from recipes.simulator.chip import READOUT as READOUT_SECONDS
from recipes.simulator.chip import Pixels, draw_chip, draw_cosmic_rays, draw_pixel_flat
from recipes.simulator.night import NightPlan
from recipes.simulator.optics import Real, coefficients, draw_slices

FOLDER = "truth"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a channel is made of. Tuples and first axes of four are by quadrant 1 to 4.

    Parameters
    ----------
    channel : int
    level, gain, read_noise, dark : float arrays (4,)
        Bias level in adu, electrons per adu, electrons, electrons an hour.
    column_bias : float array (4, rows)
        Bias in adu against raw row, from the lowest raw row of the quadrant upwards, prescan and overscan included.
    residual_bias : float array (4, columns)
        Bias in adu that a perfect overscan correction leaves, against the columns of the data, left to right.
    traces : float array (slices, 3, 4)
        Coefficients of y**0..3 for centre, left and right edge; x and y in pix from 1, as in TRACE_TABLE.
    wavelengths : float array (slices, 3, 4)
        Coefficients of x**i y**j in Angstrom, x and y in pix from 1, as in WAVECAL_TABLE.
    hot : Pixels
        Dark current of hot pixels, electrons an hour.
    insensitive : Pixels
        Sensitivity of dark pixels.
    bad : Pixels
        Excess of bad-column pixels, adu.
    flat : float32 array (rows, columns)
        Sensitivity of each pixel relative to its neighbours.
    cosmic_rays : mapping of file name to Pixels
        Electrons, for each raw frame; a pixel may occur twice.
    """

    channel: int
    level: Real
    gain: Real
    read_noise: Real
    dark: Real
    column_bias: Real
    residual_bias: Real
    traces: Real
    wavelengths: Real
    hot: Pixels
    insensitive: Pixels
    bad: Pixels
    flat: NDArray[np.float32]
    cosmic_rays: dict[str, Pixels]

    @classmethod
    def of(cls, plan: NightPlan, channel: int) -> Self:
        """Return the truth of a channel of a night."""
        chip = draw_chip(plan.seed, channel, plan.detector)
        slices = draw_slices(plan.seed, channel, plan.detector)
        down = [chip.column_bias(quadrant) for quadrant in Quadrant]
        return cls(
            channel=channel,
            level=np.array(chip.level),
            gain=np.array(chip.gain),
            read_noise=np.array(chip.read_noise),
            dark=np.array(chip.dark),
            column_bias=np.array([d[::-1] if q.is_upper else d for q, d in zip(Quadrant, down, strict=True)]),
            residual_bias=np.array([chip.residual_bias(quadrant) for quadrant in Quadrant]),
            traces=np.array([[coefficients(s.centre), coefficients(s.left), coefficients(s.right)] for s in slices]),
            wavelengths=np.array([s.wavelength_coefficients() for s in slices]),
            hot=chip.hot,
            insensitive=chip.insensitive,
            bad=chip.bad,
            flat=draw_pixel_flat(plan.seed, channel, plan.detector),
            cosmic_rays={
                exposure.archive_name: draw_cosmic_rays(
                    plan.frame_stream(exposure, channel), exposure.exptime + READOUT_SECONDS, plan.detector
                )
                for exposure in plan.exposures
            },
        )

    def edges(self, y: Real) -> tuple[Real, Real, Real]:
        """Return centre, left and right edge of every slice at rows y (from 1); each of shape (slices, len(y))."""
        powers = np.asarray(y, dtype=float)[None, :] ** np.arange(4)[:, None]
        centre, left, right = np.moveaxis(self.traces, 1, 0) @ powers
        return centre, left, right

    def wavelength(self, slice_number: int, x: Real, y: Real) -> Real:
        """Return air wavelengths in Angstrom of positions (from 1) in a slice (from 1)."""
        result: Real = np.polynomial.polynomial.polyval2d(x, y, self.wavelengths[slice_number - 1])
        return result


def truth_file(folder: Path, channel: int) -> Path:
    """Return where the truth of a channel stands below the folder given to ``write_truth``."""
    return folder / FOLDER / f"{extension_name(channel)}.npz"


def write_truth(plan: NightPlan, folder: Path) -> Path:
    """Write the truth of every channel of a night; return the folder it stands in."""
    for channel in plan.channels:
        truth, path = Truth.of(plan, channel), truth_file(folder, channel)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        for name, value in vars(truth).items():
            if isinstance(value, Pixels):
                arrays |= _packed(name, value)
            elif name != "cosmic_rays":
                arrays[name] = value
        arrays["frames"] = np.array(list(truth.cosmic_rays))
        for frame, pixels in truth.cosmic_rays.items():
            arrays |= _packed(frame, pixels)
        np.savez(path, **arrays)
    return folder / FOLDER


def read_truth(folder: Path, channel: int) -> Truth:
    """Return the truth of a channel, from the folder that ``write_truth`` was given."""
    with np.load(truth_file(folder, channel)) as arrays:
        values: dict[str, Any] = {name: arrays[name] for name in arrays if "/" not in name and name != "frames"}
        values |= {name: _unpacked(name, arrays) for name in ("hot", "insensitive", "bad")}
        values["channel"] = int(values["channel"])
        values["cosmic_rays"] = {str(name): _unpacked(str(name), arrays) for name in arrays["frames"]}
        return Truth(**values)


def _packed(name: str, pixels: Pixels) -> dict[str, NDArray[Any]]:
    return {f"{name}/rows": pixels.rows, f"{name}/columns": pixels.columns, f"{name}/values": pixels.values}


def _unpacked(name: str, arrays: Any) -> Pixels:  # noqa: ANN401 - numpy's archive has no public type
    return Pixels(rows=arrays[f"{name}/rows"], columns=arrays[f"{name}/columns"], values=arrays[f"{name}/values"])
