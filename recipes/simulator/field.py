"""Where each slice of each channel looks: slices of the detector against the field of view.

Field coordinates as in GEOMETRY_TABLE: pixels of 0.2 arcsec, x to the right (west at position angle 0), y up.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from recipes.muse import SLICES
from recipes.simulator.optics import Real
from recipes.simulator.seeds import Stream, stream

PIXEL = 0.2  # arcsec; wide-field mode
STACK = 12  # slices above each other in one of four stacks; ESO MUSE pipeline
# Sky slice of the slices of a stack from left to right on the detector; plus 12 for each further stack.
SKY_ORDER = (9, 8, 1, 10, 7, 2, 11, 6, 3, 12, 5, 4)
STACK_PITCH = 75.9  # pix
SLICE_WIDTH = 75.5  # pix
ZERO_CHANNEL = 12  # y = 0 at its sky slice 24


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a slice looks: its middle, angle in degrees and length; ``sky`` is its number on the sky."""

    sky: int
    x: float
    y: float
    angle: float
    width: float

    def at(self, position: Real) -> tuple[Real, Real]:
        """Return field x and y of positions along the slice; the detector's x runs against the field's."""
        along, angle = -position * self.width, np.radians(self.angle)
        return self.x + along * np.cos(angle), self.y + along * np.sin(angle)


@lru_cache(maxsize=32)
def slice_places(channel: int) -> tuple[Place, ...]:
    """Return where the 48 slices of a channel look, in the order of the detector; the same in every instrument."""
    rng = stream(Stream.FIELD, channel)
    tilt = rng.normal(0, 0.03, 4)  # deg, of each stack
    scatter = rng.normal(0, 1, (SLICES, 4))
    places = []
    for k in range(SLICES):
        stack, rank = k // STACK, SKY_ORDER[k % STACK]
        places.append(
            Place(
                sky=STACK * stack + rank,
                x=(stack - 1.5) * STACK_PITCH + 0.02 * (rank - 6.5) + 0.03 * scatter[k, 0],
                y=STACK * (channel - ZERO_CHANNEL) + rank - STACK + 0.01 * scatter[k, 1],
                angle=float(tilt[stack] + 0.005 * scatter[k, 2]),
                width=SLICE_WIDTH + 0.02 * scatter[k, 3],
            )
        )
    return tuple(places)
