"""Ten years of nights as rows of the registry, without files: what a search has to cope with."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Table

from archive.models import Frame, Group, Product, Row, Step, Use
from archive.naming import STATIC_CODES, next_letter, product_name, static_name
from archive.night import mjd_of, night_of
from archive.registry import Registry
from archive.setup import Setup, SetupKey
from archive.states import Certification, GroupState, Judge, Score, StepState
from recipes.muse import ARC_LAMPS, CHANNELS
from tasks.cascade import STEPS_BY_NAME, STEPS_BY_TAG, CascadeStep, Tag
from tasks.groups import group_key

FRAMES, PRODUCTS = 1_000_000, 100_000  # of the whole; a night has 274 and 27
FIRST_NIGHT = date(2015, 1, 1)
NIGHTS_AT_ONCE = 20  # in one transaction
ALWAYS = (
    Setup(mode="WFM-NOAO-N", readout="SCI1.0", readout_id=1, filter="Blue", optics="WFM"),
    Setup(mode="WFM-AO-N", readout="SCI1.0", readout_id=1, filter="Blue-Na2", optics="WFM"),
)
IN_TURN = (
    Setup(mode="NFM-AO-N", readout="SCI1.0", readout_id=1, filter="Blue-Na2", optics="NFM"),
    Setup(mode="WFM-NOAO-E", readout="SCI1.0", readout_id=1, optics="WFM"),
)
BLOCKS = 27  # of observation in a night: an acquisition, four exposures of the object, one of the sky
REMADE = 0.12  # share of the steps
VERDICTS = (
    (0.85, Certification.CERTIFIED, Score.GREEN),
    (0.12, Certification.PROVISIONAL, Score.YELLOW),
    (0.03, Certification.REJECTED, Score.RED),
)
RawRow = dict[str, Any]
Taken = tuple[RawRow, list[RawRow], Setup]  # a group with its frames


def fill(registry: Registry, nights: int, *, seed: int = 1) -> None:
    """Add so many nights to an empty registry, and the static calibrations.

    Parameters
    ----------
    registry : Registry
        With its tables.
    nights : int
    seed : int
    """
    decade = _Decade(random.Random(seed))  # noqa: S311 - nothing is kept secret with it
    last = FIRST_NIGHT + timedelta(days=nights)
    decade.add_statics(last)
    for number in range(nights):
        decade.add_night(FIRST_NIGHT + timedelta(days=number), number)
        if number % NIGHTS_AT_ONCE == NIGHTS_AT_ONCE - 1 or number == nights - 1:
            with registry.begin() as session:
                connection = session.connection()
                for table, rows in decade.drain():
                    connection.execute(table.insert(), rows)


class _Decade:
    """Makes rows; their numbers are counted here, so that rows can refer to each other before they are written."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._rows: dict[type[Row], list[RawRow]] = {kind: [] for kind in (Group, Frame, Step, Product, Use)}
        self._counts: dict[type[Row], int] = defaultdict(int)
        self._letters: dict[str, list[str]] = defaultdict(list)
        self._newest: dict[tuple[str, str], int] = {}  # the product of a category and mode that steps take

    def drain(self) -> Iterator[tuple[Table, list[RawRow]]]:
        """Yield the rows made since the last time, those that others refer to first."""
        for kind, rows in self._rows.items():
            if rows:
                yield kind.metadata.tables[kind.__tablename__], list(rows)
                rows.clear()
        self._letters.clear()

    def add_statics(self, last: date) -> None:
        """Add two editions of every type, profiles with a file a channel, and monthly pairs of both fields."""
        first = FIRST_NIGHT - timedelta(days=365)
        for year in (first, FIRST_NIGHT + timedelta(days=1500)):
            for catg in STATIC_CODES.keys() - {"GEOMETRY_TABLE", "ASTROMETRY_WCS", "LSF_PROFILE", "STD_RESPONSE"}:
                self._static(catg, year, Setup())
            for setup in (*ALWAYS, *IN_TURN):
                self._static("STD_RESPONSE", year, Setup(mode=setup.mode), response=2)
                for channel in CHANNELS:
                    of_channel = Setup(mode=setup.mode, readout=setup.readout)
                    self._static("LSF_PROFILE", year, of_channel, end=f"-{channel:02d}", channels=[channel])
        day = first
        while day < last:
            for field in ("WFM", "NFM"):
                table = self._static("GEOMETRY_TABLE", day, Setup(optics=field), end=f"-{field.lower()}")
                self._static("ASTROMETRY_WCS", day, Setup(optics=field), geometry_id=table)
            day += timedelta(days=30)

    def add_night(self, night: date, number: int) -> None:
        """Add the frames of a night, their groups, and what was made of them."""
        setups = (*ALWAYS, IN_TURN[number % len(IN_TURN)])
        done = [*self._sky(night, setups), *self._morning(night, setups, dark=number % 5 == 0)]
        order = [Tag.BIAS, Tag.DARK, Tag.FLAT, Tag.ARC, Tag.SKYFLAT, Tag.STD]
        for group, frames, setup in sorted(done, key=lambda item: order.index(Tag(item[0]["tag"]))):
            steps = [STEPS_BY_TAG[Tag(group["tag"])]]
            if group["tag"] == Tag.ARC:
                steps.append(STEPS_BY_NAME["lsf"])
            for step in steps:
                self._reduce(step, group, frames, setup)
                if self._chance.random() < REMADE:
                    self._reduce(step, group, frames, setup, sequence=2)

    def _sky(self, night: date, setups: Sequence[Setup]) -> Iterator[Taken]:
        """Yield the templates of a night whose frames are reduced; add the frames of all."""
        clock = datetime.combine(night, time(22), UTC)
        for setup in (ALWAYS[0], setups[2]) if night.day % 3 == 0 else ALWAYS:
            yield self._template(Tag.SKYFLAT, 4, setup, night, clock, 70)
            clock += timedelta(minutes=6)
        for block in range(BLOCKS):
            setup = self._chance.choice(setups)
            if block % 3 == 0:
                self._single(Tag.ILLUM, setup, night, clock)
                clock += timedelta(seconds=70)
            target = f"TARGET {self._chance.randrange(2000)}"
            for tag in (Tag.ACQUISITION, *[Tag.OBJECT] * 4, Tag.SKY):
                self._single(tag, setup, night, clock, target=target, exptime=150.0)
                clock += timedelta(seconds=170)
            if block in (5, 20):
                star = setups[2] if night.day % 3 == 0 else ALWAYS[1]
                yield self._template(Tag.STD, 1, star if block == 20 else ALWAYS[0], night, clock, 170)
                clock += timedelta(seconds=170)

    def _morning(self, night: date, setups: Sequence[Setup], *, dark: bool) -> Iterator[Taken]:
        """Yield the templates after a night."""
        clock = datetime.combine(night, time(10), UTC) + timedelta(days=1)
        templates = [(Tag.BIAS, 11, setups[0]), *([(Tag.DARK, 5, setups[0])] if dark else [])]
        templates += [(tag, count, setup) for setup in setups for tag, count in ((Tag.FLAT, 11), (Tag.ARC, 15))]
        for tag, count, setup in templates:
            yield self._template(tag, count, setup, night, clock, 75)
            clock += timedelta(seconds=75 * count + 120)

    def _template(self, tag: Tag, count: int, setup: Setup, night: date, start: datetime, cadence: float) -> Taken:
        begins = [start + timedelta(seconds=14 + cadence * index) for index in range(count)]
        group = self._add(
            Group,
            tag=tag,
            key=group_key(f"{start:%Y-%m-%dT%H:%M:%S}", night, setup),
            night=night,
            mjd=(mjd_of(begins[0]) + mjd_of(begins[-1])) / 2,
            expected=count,
            state=GroupState.COMPLETE,
            last_arrival=begins[-1],
            closes=begins[-1],
        )
        frames = [
            self._single(tag, setup, night, begin, group=group, number=number, count=count, start=start)
            for number, begin in enumerate(begins, start=1)
        ]
        return group, frames, setup

    def _single(
        self,
        tag: Tag,
        setup: Setup,
        night: date,
        begin: datetime,
        *,
        target: str = "",
        exptime: float = 1.0,
        group: RawRow | None = None,
        number: int = 1,
        count: int = 1,
        start: datetime | None = None,
    ) -> RawRow:
        dp_id = f"MUSE.{begin:%Y-%m-%dT%H:%M:%S}.{self._chance.randrange(1000):03d}"
        science = tag in (Tag.OBJECT, Tag.SKY)
        return self._add(
            Frame,
            dp_id=dp_id,
            digest=f"{self._chance.getrandbits(256):064x}",
            path=f"/archive/raw/{night}/{dp_id}.fits.fz",
            size=300_000_000,
            tag=tag,
            catg="SCIENCE" if science else "CALIB",
            type=tag,
            tech="IFU",
            rule=f"{tag}: DPR.TYPE is {tag}",
            mjd=mjd_of(begin),
            exptime=exptime,
            night=night,
            origfile=f"MUSE_{'OBS' if science else 'CAL'}_{tag}{night:%j}_{self._counts[Frame] % 10000:04d}.fits",
            object=target or tag,
            tpl_id=f"MUSE_{tag.lower()}",
            tpl_start=f"{start or begin:%Y-%m-%dT%H:%M:%S}",
            tpl_nexp=count,
            tpl_expno=number,
            lamps=[ARC_LAMPS[number % 3]] if tag is Tag.ARC else [],
            channels=list(CHANNELS),
            cards={"ESO OBS NAME": target, "ESO TEL AMBI TEMP": 12.0},
            ingested=begin,
            group_id=group["id"] if group else None,
            **_columns(setup),
        )

    def _reduce(
        self, step: CascadeStep, group: RawRow, frames: list[RawRow], setup: Setup, *, sequence: int = 1
    ) -> None:
        ended = group["closes"] + timedelta(minutes=10 * sequence)
        made = self._add(
            Step,
            group_id=group["id"],
            name=step.name,
            sequence=sequence,
            state=StepState.DONE,
            identity=f"{self._chance.getrandbits(256):064x}",
            recipe=step.recipe_name,
            recipe_version="1",
            created=ended,
            ended=ended,
        )
        for frame in frames:
            self._use(made, group["tag"], frame_id=frame["id"])
        for need in step.needs:
            if (product := self._newest.get((need.catg, setup.mode))) is not None:
                verdict = Certification.CERTIFIED
                self._use(made, need.catg, product_id=product, level=0, days=-0.5, certification=verdict)
        certification, score = self._verdict()
        for number, catg in enumerate(step.makes):
            name = product_name(catg, night_of(group["mjd"]), "A", setup)
            letter = next_letter(self._letters[name])
            self._letters[name].append(letter)
            product = self._product(
                catg,
                product_name(catg, night_of(group["mjd"]), letter, setup),
                setup,
                mjd=group["mjd"],
                night=group["night"],
                certification=certification,
                score=score,
                judge=Judge.SCORE if certification is not Certification.PROVISIONAL else Judge.NOBODY,
                created=ended + timedelta(milliseconds=number),
                step_id=made["id"],
                response=2 if catg == "STD_RESPONSE" else None,
            )
            if certification is not Certification.REJECTED:
                for mode in [setup.mode] if catg not in ("MASTER_BIAS", "MASTER_DARK") else _MODES:
                    self._newest[catg, mode] = product

    def _use(self, step: RawRow, tag: str, **columns: Any) -> None:  # noqa: ANN401
        empty: RawRow = {"frame_id": None, "product_id": None, "level": None, "days": None, "certification": ""}
        self._add(Use, step_id=step["id"], tag=tag, **(empty | columns))

    def _verdict(self) -> tuple[Certification, Score]:
        weights = [weight for weight, _, _ in VERDICTS]
        _, certification, score = self._chance.choices(VERDICTS, weights)[0]
        return certification, score

    def _static(self, catg: str, day: date, setup: Setup, *, end: str = "", **columns: Any) -> int:  # noqa: ANN401
        begin = datetime.combine(day, time(), UTC)
        name = static_name(catg, day, "A", setup).replace(".fits", f"{end}.fits")
        return self._product(
            catg, name, setup, mjd=mjd_of(begin), night=night_of(mjd_of(begin)), static=True, created=begin,
            certification=Certification.CERTIFIED, judge=Judge.PERSON, **columns,
        )  # fmt: skip

    def _product(self, catg: str, name: str, setup: Setup, **columns: Any) -> int:  # noqa: ANN401
        moment = datetime(2014, 1, 1, tzinfo=UTC) + timedelta(seconds=self._counts[Product])
        values: RawRow = {
            "channels": list(CHANNELS),
            "size": 3_000_000_000,
            "reviewed": True,
            "static": False,
            "score": Score.NONE,
            "step_id": None,
            "response": None,
            "geometry_id": None,
        } | columns
        row = self._add(
            Product,
            catg=catg,
            name=name,
            dp_id=f"M.MUSE.{moment:%Y-%m-%dT%H:%M:%S}.000",
            path=f"/archive/products/{name}",
            digest=f"{self._chance.getrandbits(256):064x}",
            **values,
            **_columns(setup),
        )
        return int(row["id"])

    def _add(self, kind: type[Row], **columns: Any) -> RawRow:  # noqa: ANN401
        self._counts[kind] += 1
        row: RawRow = {"id": self._counts[kind]} | columns
        self._rows[kind].append(row)
        return row


_MODES = tuple(setup.mode for setup in (*ALWAYS, *IN_TURN))


def _columns(setup: Setup) -> RawRow:
    return {key.value: setup.value(key) for key in SetupKey}
