"""The instrument setup of a frame or product: what calibrations are matched and named by."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Self


class SetupKey(StrEnum):
    """What two setups can be compared by; each is an attribute of ``Setup``. Beside it, its keyword."""

    MODE = "mode"  # INS.MODE, WFM-NOAO-N and so on
    READOUT = "readout"  # DET.READ.CURNAME, SCI1.0
    READOUT_ID = "readout_id"  # DET.READ.CURID, 1
    BINX = "binx"  # DET.BINX
    BINY = "biny"  # DET.BINY
    FILTER = "filter"  # INS.OPTI1.NAME, Blue or Blue-Na2
    OPTICS = "optics"  # INS.OPTI2.NAME, WFM or NFM


# What ESO's names of static calibrations call a mode is a range of wavelengths: the file serves with adaptive optics
# and without. Source: ESO's page of static calibrations has wfm-n and wfm-e alone; OCA-O leaves the optics out too.
MODE_FAMILIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"WFM-N": ("WFM-NOAO-N", "WFM-AO-N"), "WFM-E": ("WFM-NOAO-E", "WFM-AO-E")}
)


_NAMES = tuple(key.value for key in SetupKey)


@dataclass(frozen=True, kw_only=True, order=True)
class Setup:
    """Setup of one frame. A keyword that the header lacks is '' or 0."""

    mode: str = ""
    readout: str = ""
    readout_id: int = 0
    binx: int = 1
    biny: int = 1
    filter: str = ""
    optics: str = ""

    @classmethod
    def of(cls, *values: str | int) -> Self:
        """Return the setup with these values, in the order of ``SetupKey``."""
        return cls(**dict(zip(_NAMES, values, strict=True)))  # type: ignore[arg-type]  # mixed

    def __composite_values__(self) -> tuple[str | int, ...]:
        """Return the values in the order of ``SetupKey``; SQLAlchemy spreads them over columns."""
        return tuple(self.value(key) for key in SetupKey)

    def value(self, key: SetupKey) -> str | int:
        """Return the value of one key."""
        value: str | int = getattr(self, key)
        return value

    def differences(self, other: "Setup", keys: tuple[SetupKey, ...]) -> dict[str, tuple[str | int, str | int]]:
        """Return each key among ``keys`` whose values differ, with this value and the other's."""
        return {key.value: (self.value(key), other.value(key)) for key in keys if self.value(key) != other.value(key)}

    def serving(self, key: SetupKey) -> tuple[str | int, ...]:
        """Return the values of a key with which a calibration serves this setup: its own, and its family of modes."""
        value = self.value(key)
        families = (name for name, modes in MODE_FAMILIES.items() if key is SetupKey.MODE and value in modes)
        return (value, *families)

    def served_by(self, other: "Setup", key: SetupKey) -> bool:
        """Return whether a calibration of another setup serves this one by a key: equal, or its family of modes."""
        return other.value(key) in self.serving(key)
