"""A simulated night of the neighbouring channels that a star needs, with our products and ESO's, each made on demand.

Ask for it with a fixture of three lines, as for ``referee``::

    @pytest.fixture(scope="session")
    def sky(tmp_path_factory: pytest.TempPathFactory) -> SkyNight:
        return simulate_sky(tmp_path_factory)

Every product is made once and shared by all processes of a run; ``MUSECAL_REFEREE`` names a folder to keep them in from
one run to the next. Both sides start from our master calibrations, so that whatever ESO's recipes make shows that they
take ours.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import pytest
from referee import locked, run_esorex, shared_folder

from archive.store import digest_of
from recipes.channel import Input, Provenance, combine_channels, reduce_channel
from recipes.simulator.night import NightPlan, Sequence, write_night
from recipes.simulator.statics import FILES, write_statics
from recipes.simulator.truth import write_truth
from tasks.cascade import RECIPES, RULES, Tag

CHANNELS = (11, 12, 13)  # the star is in the middle of channel 12
PLAN = NightPlan(
    night=date(2026, 6, 17),
    channels=CHANNELS,
    sequences=(
        Sequence.BIAS, Sequence.FLAT, Sequence.ARC, Sequence.ILLUM, Sequence.SKYFLAT, Sequence.STD, Sequence.ASTROMETRY,
    ),
)  # fmt: skip
TYPES = {rule.tag: rule.type for rule in RULES if rule.type}
# Raw tag, and the calibrations that are given beside it, by our recipe.
OURS: Mapping[str, tuple[Tag, tuple[str, ...]]] = {
    "muse_bias": (Tag.BIAS, ()),
    "muse_flat": (Tag.FLAT, ("MASTER_BIAS",)),
    "muse_wavecal": (Tag.ARC, ("MASTER_BIAS", "TRACE_TABLE", "LINE_CATALOG")),
    "muse_lsf": (Tag.ARC, ("MASTER_BIAS", "TRACE_TABLE", "WAVECAL_TABLE", "LINE_CATALOG")),
    "muse_twilight": (
        Tag.SKYFLAT,
        ("MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE", "GEOMETRY_TABLE"),
    ),
    "muse_standard": (
        Tag.STD,
        (
            "MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE", "GEOMETRY_TABLE", "TWILIGHT_CUBE",
            "EXTINCT_TABLE", "STD_FLUX_TABLE",
        ),
    ),
    "muse_astrometry": (
        Tag.ASTROMETRY,
        (
            "MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE", "GEOMETRY_TABLE", "TWILIGHT_CUBE",
            "ASTROMETRY_REFERENCE",
        ),
    ),
}  # fmt: skip
MAKERS = {
    catg: name for name in OURS if name in RECIPES for catg in (*RECIPES[name].makes, *RECIPES[name].intermediate)
}
NEAREST_ILLUM = {Tag.SKYFLAT: 0, Tag.ASTROMETRY: 1, Tag.STD: 2}  # of the three of the night


@dataclass(frozen=True)
class SkyNight:
    """Where everything of the night stands."""

    folder: Path

    @property
    def truth(self) -> Path:
        """Folder for ``read_truth``."""
        return self.folder / "night"

    def raw(self, tag: Tag) -> tuple[Path, ...]:
        """Return the raw frames of a tag, in order of time."""
        return tuple(
            self.folder / "night" / exposure.archive_name for exposure in PLAN.exposures if exposure.type == TYPES[tag]
        )

    def illum(self, tag: Tag) -> Path:
        """Return the illumination flat that goes with the frames of a tag."""
        return self.raw(Tag.ILLUM)[NEAREST_ILLUM[tag]]

    def static(self, catg: str) -> Path:
        """Return a static calibration."""
        code, _ = FILES[catg]
        return next((self.folder / "night").glob(f"MU_{code}_*.fits"))

    def calibration(self, catg: str, channel: int) -> Path:
        """Return a calibration for one channel: a static one, or our product."""
        return self.static(catg) if catg in FILES and catg not in MAKERS else self.ours(catg, channel)

    def ours(self, catg: str, channel: int = 0) -> Path:
        """Return our product of a channel, or the one of all (channel 0); numbered ones by their whole name."""
        maker = MAKERS[catg.removesuffix("_0001")]
        whole = RECIPES[maker].combine is not None and catg in RECIPES[maker].makes
        folder = self.folder / "ours"
        path = folder / (f"{catg}.fits" if whole else f"{catg}-{channel:02d}.fits")
        if not path.exists():
            self._make(maker, 0 if whole else channel)
        return path

    def theirs(self, name: str, recipe: str, inputs: list[tuple[Path, str]], *options: str) -> Path:
        """Return a product of ESO's, made by that recipe from these files on the first call."""
        folder = self.folder / "theirs" / recipe
        with locked(folder):
            path = folder / name
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                run_esorex(recipe, inputs, folder, *options, channel=None)
        return path

    def tagged(self, *names: str, channels: tuple[int, ...] = CHANNELS) -> list[tuple[Path, str]]:
        """Return calibrations with their tags, as ESO's recipes take them."""
        wanted = [(self.calibration(catg, channel), catg) for catg in names for channel in channels]
        return list(dict.fromkeys(wanted))

    def _make(self, name: str, channel: int) -> None:
        recipe, (tag, needs) = RECIPES[name], OURS[name]
        folder = self.folder / "ours"
        raws = {str(tag): list(self.raw(tag))}
        if Tag.ILLUM in recipe.raw:
            raws["ILLUM"] = [self.illum(tag)]
        if channel == 0:
            halves = {each: self._halves(name, each) for each in CHANNELS}
            calibrations = {catg: self.calibration(catg, CHANNELS[0]) for catg in needs}
            with locked(folder / f"{name}-all"):
                if not all((folder / f"{catg}.fits").exists() for catg in recipe.makes):
                    combine_channels(
                        recipe, recipe.params(), channels=halves, raws=raws, calibrations=calibrations, folder=folder,
                        provenance=_provenance(name, raws, calibrations),
                    )  # fmt: skip
            return
        calibrations = {catg: self.calibration(catg, channel) for catg in needs}
        folder.mkdir(exist_ok=True)
        with locked(folder / f"{name}-{channel}"):
            marker = folder / f"{name}-{channel}.done"
            if not marker.exists():
                reduce_channel(
                    recipe, recipe.params(), channel=channel, raws=raws, calibrations=calibrations, folder=folder,
                    provenance=_provenance(name, raws, calibrations),
                )  # fmt: skip
                marker.touch()

    def _halves(self, name: str, channel: int) -> dict[str, Path]:
        """Return what the first half of a recipe made of a channel, by name."""
        self._make(name, channel)
        kinds = RECIPES[name].intermediate
        paths = sorted((self.folder / "ours").glob(f"*-{channel:02d}.fits"))
        return {path.name[:-8]: path for path in paths if path.name.startswith(kinds)}


def simulate_sky(tmp_path_factory: pytest.TempPathFactory) -> SkyNight:
    """Return the night, simulated on the first call."""
    folder = shared_folder(tmp_path_factory, "sky")
    with locked(folder):
        night = folder / "night"
        if not (folder / "complete").exists():
            for _ in write_night(PLAN, night):
                pass
            write_statics(PLAN, night)
            write_truth(PLAN, night)
            (folder / "complete").touch()
    return SkyNight(folder)


def _provenance(name: str, raws: Mapping[str, list[Path]], calibrations: Mapping[str, Path]) -> Provenance:
    recipe = RECIPES[name]
    values = asdict(recipe.params())
    return Provenance(
        recipe=name,
        version=recipe.version,
        raws=tuple(Input(path.name, tag, digest_of(path)) for tag, paths in raws.items() for path in paths),
        calibrations=tuple(Input(path.name, catg, digest_of(path)) for catg, path in calibrations.items()),
        parameters=tuple((key, value, value) for key, value in values.items()),
    )
