"""The other engine on the inputs of a step that is done, and what it makes beside what is in the archive.

Nothing is archived and no row changes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from archive.models import Step
from archive.states import StepState
from recipes import esorecipes
from recipes.channel import Outcome, combine_channels, reduce_channel
from recipes.comparison import (
    Comparison,
    Planes,
    compare_measurements,
    compare_planes,
    compare_tables,
    compare_traces,
    compare_wavelengths,
)
from recipes.esoproducts import measurements_of
from recipes.esorecipes import ESO_RECIPES
from recipes.esorex import Esorex
from recipes.fits import FileSource, open_source, read_table
from recipes.headers import Header
from recipes.muse import extension_name
from recipes.recipe import Plane, Recipe, TableSource
from recipes.trace import Trace, read_traces
from tasks.engines import engine_of, esorex_of
from tasks.failures import FINISH
from tasks.meter import Meter
from tasks.settings import Engine
from tasks.site import Site
from tasks.work import Work, work_of


class NotComparable(Exception):  # noqa: N818 - reads as what it is
    """The step cannot be compared; the sentence says why."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an engine took for the same work: CPU seconds in all, and the peak of memory of its largest part, bytes."""

    seconds: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A step made by both engines.

    Parameters
    ----------
    archived : Engine
        The one whose products are in the archive.
    products : mapping of PRO.CATG to Comparison
    costs : mapping of engine to Cost
        Of the same channels.
    warnings : tuple of str
        Of the run that was made for this.
    """

    step: str
    archived: Engine
    versions: Mapping[Engine, str]
    products: Mapping[str, Comparison]
    costs: Mapping[Engine, Cost]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What is to be known of the step once its rows are closed."""

    version: str
    recipe: Recipe
    channels: tuple[int, ...]
    works: Mapping[int, Work]
    products: Mapping[str, Path]
    costs: Mapping[int, tuple[float, int]]


def compare_step(
    site: Site,
    step_id: int,
    folder: Path,
    *,
    logs: Path,
    channels: Sequence[int] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Compared:
    """Run the other engine on the inputs of a step, and compare its products with those in the archive.

    Parameters
    ----------
    site : Site
    step_id : int
    folder : Path
        Scratch, for what the other engine makes.
    logs : Path
        Folder where the logs of ESO's recipe stay.
    channels : sequence of int
        Only these, of a step whose channels are merged; all if empty.
    tell : callable
        Is told of each run as it ends.

    Raises
    ------
    NotComparable
        The step is not done, or made nothing; or its channels cannot be taken one by one.
    RecipeError, MemoryError, OSError, SettingsError
        The other engine failed.
    """
    stored = _stored(site, step_id, channels)
    other = Engine.MUSECAL if engine_of(stored.version) is Engine.ESOREX else Engine.ESOREX
    esorex = esorex_of(site.settings) if other is Engine.ESOREX else None
    meter = Meter.start()
    memory, made, warnings = 0, dict[int, Mapping[str, Path]](), list[str]()
    for channel in stored.channels:
        outcome = _reduce(
            stored.works[channel], channel, folder, esorex, logs / f"S{step_id}_{extension_name(channel)}"
        )
        memory = max(memory, outcome.memory)
        made[channel] = outcome.files
        warnings += [f"Channel {channel}: {text}" for text in outcome.warnings]
        tell(f"channel {channel} by {other}: {meter.read()[0]:.1f} s of CPU in all")
    whole: Mapping[str, Path] = {}
    if _joins(stored.recipe, other):
        outcome = _combine(stored, made, folder, esorex, logs / f"S{step_id}_finish")
        memory = max(memory, outcome.memory)
        whole = outcome.files
        warnings += outcome.warnings
        tell(f"all channels by {other}: {meter.read()[0]:.1f} s of CPU in all")
    seconds, own = meter.read(memory)
    costs = {
        other: Cost(seconds=seconds, memory=own),
        engine_of(stored.version): Cost(
            seconds=sum(cost for cost, _ in stored.costs.values()),
            memory=max(peak for _, peak in stored.costs.values()),
        ),
    }
    products = {}
    for catg, archived in stored.products.items():
        tell(f"comparing {catg}")
        pairs = _pairs(catg, archived, made, whole, stored.channels)
        found = Comparison()
        for channel, kept, anew in pairs:
            ours, theirs = (kept, anew) if other is Engine.ESOREX else (anew, kept)
            found += _compare(ours, theirs, catg, channel, stored.works[channel])
        products[catg] = found
    version = f"esorex/{esorex.version}" if esorex else stored.recipe.version
    return Compared(
        step=f"S{step_id}", archived=engine_of(stored.version),
        versions={engine_of(stored.version): stored.version, other: version},
        products=products, costs=costs, warnings=tuple(warnings),
    )  # fmt: skip


def _stored(site: Site, step_id: int, channels: Sequence[int]) -> _Stored:
    """Read what there is to know of a step."""
    with site.registry.read() as session:
        step = session.get_one(Step, step_id)
        if step.state is not StepState.DONE:
            raise NotComparable(f"step {step_id} is {step.state}; only what is done can be compared.")
        if not step.products:
            raise NotComparable(f"step {step_id} made nothing of its own; compare the step that it reused.")
        recipe = work_of(step, FINISH).recipe
        if recipe.name not in ESO_RECIPES:
            raise NotComparable(f"no recipe of ESO's stands for {recipe.name}.")
        there = tuple(sorted({channel for product in step.products for channel in product.channels}))
        if channels and any(_joins(recipe, engine) for engine in Engine):
            raise NotComparable(f"{recipe.name} joins all channels; they cannot be compared one by one.")
        if unknown := sorted(set(channels) - set(there)):
            raise NotComparable(f"step {step_id} has no product of channel {', '.join(map(str, unknown))}.")
        wanted = tuple(channel for channel in there if channel in (channels or there))
        return _Stored(
            version=step.recipe_version,
            recipe=recipe,
            channels=wanted,
            works={channel: work_of(step, channel) for channel in (FINISH, *wanted)},
            products={product.catg: Path(product.path) for product in step.products},
            costs={
                part.channel: (part.seconds or 0.0, part.memory or 0)
                for part in step.parts
                if part.channel in (FINISH, *wanted)
            },
        )


def _joins(recipe: Recipe, engine: Engine) -> bool:
    """Return whether an engine has a second half for a recipe."""
    return ESO_RECIPES[recipe.name].whole is not None if engine is Engine.ESOREX else recipe.combine is not None


def _reduce(work: Work, channel: int, folder: Path, esorex: Esorex | None, record: Path) -> Outcome:
    if esorex is not None:
        return esorecipes.reduce_channel(
            work.recipe, work.params, channel=channel, raws=work.raws, calibrations=work.calibrations, folder=folder,
            esorex=esorex, record=record,
        )  # fmt: skip
    return reduce_channel(
        work.recipe, work.params, channel=channel, raws=work.raws, calibrations=work.calibrations, folder=folder,
        provenance=work.provenance,
    )  # fmt: skip


def _combine(
    stored: _Stored, made: Mapping[int, Mapping[str, Path]], folder: Path, esorex: Esorex | None, record: Path
) -> Outcome:
    work = stored.works[FINISH]
    if esorex is not None:
        return esorecipes.combine_channels(
            work.recipe, work.params, channels=made, raws=work.raws, calibrations=work.calibrations, folder=folder,
            esorex=esorex, record=record, further=work.further,
        )  # fmt: skip
    return combine_channels(
        work.recipe, work.params, channels={channel: files for channel, files in made.items() if files},
        raws=work.raws, calibrations=work.calibrations, folder=folder, provenance=work.provenance,
    )  # fmt: skip


@dataclass(frozen=True)
class _Content:
    """A product of one channel, in a file of its own or (with a prefix) among other channels; or of all (no prefix)."""

    source: FileSource
    prefix: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Its planes, without the channel in their names."""
        begin = f"{self.prefix}." if self.prefix else ""
        return tuple(name.removeprefix(begin) for name in self.source.names if name.startswith(begin))

    @property
    def tables(self) -> tuple[TableSource, ...]:
        """Its tables."""
        return tuple(
            table for table in self.source.tables if str(table.keywords.get("EXTNAME", "")).startswith(self.prefix)
        )

    @property
    def header(self) -> Header:
        """The header with its QC1 parameters."""
        return next(hdu.header for hdu in self.source.hdus if not self.prefix or hdu.name.startswith(self.prefix))

    def planes(self, name: str) -> Planes:
        """Return a plane; with variance and flags if it is the one they belong to."""
        begin = f"{self.prefix}." if self.prefix else ""
        of_data = {other: self.source.plane(begin + other).values for other in ("STAT", "DQ") if other in self.names}
        plane = self.source.plane(begin + name)
        return Planes(
            data=plane.values,
            variance=of_data.get("STAT") if name == "DATA" else None,
            flags=of_data.get("DQ") if name == "DATA" else None,
            origin=_origin(plane),
        )

    def unit(self, name: str) -> str:
        """Return the unit of a plane."""
        return self.source.plane(f"{self.prefix}.{name}" if self.prefix else name).unit


def _origin(plane: Plane) -> tuple[float, ...]:
    """Return where the first value of a plane is along each axis, in steps; () if its header has no such grid."""
    cards = {keyword.name: keyword.value for keyword in plane.keywords}
    found = []
    for axis in range(len(plane.values.shape), 0, -1):
        names = (f"CRVAL{axis}", f"CRPIX{axis}", f"CD{axis}_{axis}")
        numbers = [float(cards[name]) for name in names if isinstance(cards.get(name), int | float)]
        if len(numbers) < len(names) or numbers[-1] == 0:
            return ()
        value, pixel, step = numbers
        found.append(value / step + 1 - pixel)
    return tuple(found)


def _pairs(
    catg: str,
    archived: Path,
    made: Mapping[int, Mapping[str, Path]],
    whole: Mapping[str, Path],
    channels: Sequence[int],
) -> Iterator[tuple[int, _Content, _Content]]:
    """Yield the archived product and the new one, channel by channel; nothing if the other engine makes none."""
    kept = open_source(archived)
    of_channels = any(hdu.name.startswith("CHAN") for hdu in kept.hdus[1:])
    for channel in channels if of_channels else (FINISH,):
        anew = made.get(channel, {}).get(catg) or whole.get(catg)
        if anew is not None:
            yield channel, _content(kept, channel), _content(open_source(anew), channel)


def _content(source: FileSource, channel: int) -> _Content:
    """Return what a file holds of a channel: its own extensions, or all of a file of that channel, or of all."""
    prefix = extension_name(channel) if channel else ""
    return _Content(source, prefix if any(hdu.name.startswith(prefix) for hdu in source.hdus[1:]) else "")


def _compare(ours: _Content, theirs: _Content, catg: str, channel: int, work: Work) -> Comparison:
    """Compare all that a product holds."""
    found = Comparison()
    for name in ours.names:
        if name in theirs.names and not name.endswith(("STAT", "DQ")):
            found += compare_planes(
                ours.planes(name), theirs.planes(name), channel=channel, what=name, unit=ours.unit(name)
            )
    for a, b in zip(ours.tables, theirs.tables, strict=False):
        if catg == "TRACE_TABLE":
            found += compare_traces(a.table, b.table, channel=channel)
        if catg == "WAVECAL_TABLE":
            found += compare_wavelengths(a.table, b.table, _traces(work, channel), channel=channel)
        found += compare_tables(a.table, b.table, channel=channel)
    values = ({item.name: item.value for item in measurements_of(content.header)} for content in (ours, theirs))
    return found + compare_measurements(*values, channel=channel)


def _traces(work: Work, channel: int) -> tuple[Trace, ...]:
    """Return the traces that a wavelength calibration was made with."""
    return read_traces(read_table(work.calibrations["TRACE_TABLE"], channel).table)
