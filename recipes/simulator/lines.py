"""Emission lines of the arc lamps between 4650 and 9350 Angstrom.

Air wavelengths of the neutral atoms as in the NIST Atomic Spectra Database; strengths are those of a discharge lamp,
to a factor of two, in the electrons that a column of a mean slice collects in one exposure of the usual time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from recipes.muse import Lamp

# Exposure times of real arcs of June 2017, in the order of the template; seconds.
ARC_EXPTIME: Mapping[Lamp, float] = MappingProxyType({Lamp.NEON: 1.012, Lamp.XENON: 8.76, Lamp.MERCURY_CADMIUM: 0.539})

NEON = """
4704.395 1500   4708.862 1100   4715.347 1600   4827.344 900    4884.917 900    4957.034 700    5037.751 900
5080.385 900    5116.503 800    5144.938 900    5203.896 800    5330.778 2600   5341.094 3800   5400.562 6100
5562.766 900    5656.659 900    5748.298 1400   5764.419 3300   5804.450 900    5820.156 1800   5852.488 60000
5881.895 16000  5944.834 27000  5975.534 7600   6029.997 8200   6074.338 27000  6096.163 41000  6128.450 900
6143.063 61000  6163.594 18500  6217.281 16500  6266.495 36000  6304.789 12400  6334.428 54000  6382.991 61000
6402.248 118000 6506.528 72000  6532.882 29500  6598.953 42000  6652.093 1200   6678.276 77000  6717.043 45000
6929.467 48000  7024.050 4700   7032.413 89000  7059.107 2100   7173.938 12500  7245.167 42000  7438.898 15200
7488.871 3300   7535.774 3800   7544.044 1900   7943.181 850    8082.458 1400   8136.406 1900   8266.077 800
8300.326 2700   8365.749 900    8377.608 9200   8418.427 3700   8463.358 900    8495.360 6100   8544.696 900
8571.352 1100   8591.259 3900   8634.647 5600   8654.383 6400   8679.493 1800   8681.921 2100   8704.112 800
8771.656 1000   8780.621 4700   8783.753 4500   8853.867 2700   8865.755 1500   8919.501 1200   9148.672 1300
9201.759 1200   9300.853 1100   9326.507 900
"""
XENON = """
4671.226 9800   4697.020 2600   4734.152 5200   4807.019 3100   4829.709 1900   4843.294 1300   4916.508 1600
4923.152 1700   5028.280 1100   5823.890 900    5894.988 600    6178.303 900    6182.420 1700   6318.062 2900
6469.705 1500   6472.841 700    6487.765 900    6498.717 700    6504.180 700    6533.159 700    6595.561 800
6668.920 1400   6728.008 1300   6827.315 1700   6872.107 1200   6882.155 3600   6976.182 1100   7119.598 2600
7386.003 800    7393.793 1200   7584.680 1500   7802.651 700    7881.320 900    7887.393 2100   7967.342 3300
8057.258 1300   8061.339 1100   8206.336 4300   8231.634 88000  8266.520 3200   8280.116 71000  8346.822 29000
8409.190 19000  8576.010 700    8648.540 900    8739.372 900    8819.411 104000 8862.320 800    8908.730 800
8930.830 1500   8952.251 14500  8987.570 900    9045.446 21000  9162.652 28000  9167.520 600
"""
MERCURY = """
4916.068 900   5460.735 74000 5769.598 13500 5790.663 15500 6072.713 450   6234.402 500   6716.429 350   6907.461 700
7081.900 500   7091.860 400   7728.825 300
"""
CADMIUM = """
4662.352 1100  4678.149 21000 4799.912 46000 5085.822 67000 5154.660 650   6099.142 350   6111.490 300   6325.166 700
6438.470 48000 6778.116 400   7345.670 900   8200.309 400
"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One emission line.

    Parameters
    ----------
    wavelength : float
        In air, Angstrom.
    ion : str
        ``NeI`` and so on.
    flux : float
        Electrons in a column of a mean slice in one exposure of the usual time.
    lamp : Lamp
    """

    wavelength: float
    ion: str
    flux: float
    lamp: Lamp

    @property
    def rate(self) -> float:
        """Electrons a second in a column."""
        return self.flux / ARC_EXPTIME[self.lamp]


def _read(text: str, ion: str, lamp: Lamp) -> tuple[Line, ...]:
    numbers = [float(word) for word in text.split()]
    return tuple(
        Line(wavelength=wavelength, ion=ion, flux=flux, lamp=lamp)
        for wavelength, flux in zip(numbers[::2], numbers[1::2], strict=True)
    )


@lru_cache(maxsize=1)
def all_lines() -> tuple[Line, ...]:
    """Return every line in order of wavelength."""
    lines = (
        *_read(NEON, "NeI", Lamp.NEON),
        *_read(XENON, "XeI", Lamp.XENON),
        *_read(MERCURY, "HgI", Lamp.MERCURY_CADMIUM),
        *_read(CADMIUM, "CdI", Lamp.MERCURY_CADMIUM),
    )
    return tuple(sorted(lines, key=lambda line: line.wavelength))


def lines_of(lamp: Lamp) -> tuple[Line, ...]:
    """Return the lines of an arc lamp in order of wavelength."""
    return tuple(line for line in all_lines() if line.lamp is lamp)
