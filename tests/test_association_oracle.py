"""What is handed out equals a search through everything, by the rules as docs/architecture.md has them in words."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rows import add_frame, add_step
from sqlalchemy import delete, select, update

from archive.models import Frame, Product, Step
from archive.naming import static_name
from archive.night import night_of, time_of
from archive.registry import Registry
from archive.setup import Setup
from archive.states import Certification, Score
from tasks.associating import _Drafter, retrieval_policy, view_alone
from tasks.cascade import TARGETS_BY_TAG, Tag
from tasks.settings import Settings

MJD = 61208.125
NOW = datetime(2026, 6, 17, 12, tzinfo=UTC)
EXPTIME = 2700.0  # s, a thirty-second of a day, so that every time here is a float without rounding
FAR = {"MASTER_BIAS": 30.0, "STD_RESPONSE": 365.0, "LSF_PROFILE": 30.0}  # days, of the widest level


@dataclass(frozen=True)
class Made:
    """One product: static ones are valid from a whole day on."""

    catg: str
    days: float
    static: bool
    mode: str
    certification: Certification
    score: Score
    response: int | None
    letter: str
    pair: int  # of a solution: which of the geometry tables it was made with
    inside: bool  # made here instead of brought

    @property
    def mjd(self) -> float:
        return MJD + EXPTIME / 2 / 86400 + self.days


def makes(catgs: Sequence[str], *, static: bool, modes: Sequence[str]) -> st.SearchStrategy[Made]:
    days = st.integers(-500, 2) if static else st.sampled_from([*range(-40, 41), -0.5, 0.5, -364.5, 365.0, 200.25])
    return st.builds(
        Made,
        catg=st.sampled_from(catgs),
        days=days.map(float),
        static=st.just(static),
        mode=st.sampled_from(modes),
        certification=st.sampled_from(Certification),
        score=st.sampled_from(Score),
        response=st.sampled_from([1, 2]),
        letter=st.sampled_from("ABC"),
        pair=st.integers(0, 20),
        inside=st.booleans(),
    )


ARCHIVES = st.lists(
    st.one_of(
        makes(["MASTER_BIAS", "STD_RESPONSE", "LSF_PROFILE"], static=False, modes=["WFM-NOAO-N", "WFM-AO-N"]),
        makes(["STD_RESPONSE", "LSF_PROFILE"], static=True, modes=["WFM-NOAO-N", "WFM-N", "WFM-E", "WFM-AO-N"]),
        makes(["GEOMETRY_TABLE", "ASTROMETRY_WCS", "SKY_LINES"], static=True, modes=[""]),
    ),
    min_size=10,
    max_size=40,
    unique_by=lambda one: (one.catg, one.days, one.mode, one.letter, one.static),
)


def feeds(one: Made) -> bool:
    """It was not rejected, and if it is red it was certified."""
    if one.certification is Certification.REJECTED:
        return False
    return one.score is not Score.RED or one.certification is Certification.CERTIFIED


def may_be_used(one: Made, made: list[Made]) -> bool:
    mode = one.mode in ("", "WFM-NOAO-N") or (one.static and one.mode == "WFM-N") or one.catg == "MASTER_BIAS"
    in_time = one.days <= 0 if one.static else abs(one.days) < FAR[one.catg]
    version = one.catg != "STD_RESPONSE" or one.response == 2
    solved = True
    if one.catg == "GEOMETRY_TABLE" and one.inside:
        solved = any(other.catg == "ASTROMETRY_WCS" and table_of(other, made) == one and feeds(other) for other in made)
    return feeds(one) and mode and in_time and version and solved


def table_of(solution: Made, made: list[Made]) -> Made | None:
    tables = [one for one in made if one.catg == "GEOMETRY_TABLE"]
    return tables[solution.pair % len(tables)] if tables else None


def goes_before(one: Made, other: Made, numbers: dict[Made, int]) -> bool:
    """The first of the rules that tells two of them apart."""
    if one.catg in ("STD_RESPONSE", "LSF_PROFILE"):
        vouched = [each.static or each.certification is Certification.CERTIFIED for each in (one, other)]
        if vouched[0] != vouched[1]:
            return vouched[0]
        alone = [each.mode == "WFM-NOAO-N" for each in (one, other)]
        if alone[0] != alone[1]:
            return alone[0]
    if abs(one.days) != abs(other.days):
        return abs(one.days) < abs(other.days)
    certified = [each.certification is Certification.CERTIFIED for each in (one, other)]
    if certified[0] != certified[1]:
        return certified[0]
    if one.days != other.days:
        return one.days < other.days
    if one.static and other.static and one.letter != other.letter:
        return one.letter > other.letter
    return numbers[one] < numbers[other]


def search(made: list[Made], catg: str, numbers: dict[Made, int]) -> Made | None:
    usable = [one for one in made if one.catg == catg and may_be_used(one, made)]
    for one in usable:
        if not any(goes_before(other, one, numbers) for other in usable if other is not one):
            return one
    return None


def solution_for(table: Made | None, made: list[Made], numbers: dict[Made, int]) -> Made | None:
    """The certified, latest one that was made with the geometry table that is handed out."""
    fitting = [one for one in made if one.catg == "ASTROMETRY_WCS" and table_of(one, made) == table and feeds(one)]
    return max(
        fitting,
        key=lambda one: (one.certification is Certification.CERTIFIED, one.letter, -numbers[one]),
        default=None,
    )


def write(registry: Registry, made: list[Made], step: int) -> dict[Made, int]:
    """Put products into an empty registry; return their numbers."""
    with registry.begin() as session:
        session.execute(update(Product).values(geometry_id=None))
        session.execute(delete(Product))
        rows: dict[Made, Product] = {}
        for number, one in enumerate(made, start=1):
            setup = Setup(mode=one.mode, readout="SCI1.0", optics="WFM")
            day = time_of(one.mjd).date()
            label = f"-{number:02d}.fits"
            name = static_name(one.catg, day, one.letter, setup).replace(".fits", label) if one.static else f"P{number}"
            rows[one] = Product(
                id=number, step_id=step if one.inside and one.catg == "GEOMETRY_TABLE" else None, catg=one.catg,
                name=name, dp_id=f"M.{number}", path="", size=1, digest=hashlib.sha256(name.encode()).hexdigest(),
                night=night_of(one.mjd), mjd=one.mjd, setup=setup, channels=[1, 2], static=one.static,
                certification=one.certification, score=one.score, created=NOW, reviewed=True,
                response=one.response if one.catg == "STD_RESPONSE" else None,
            )  # fmt: skip
        session.add_all(rows.values())
        session.flush()
        for one, row in rows.items():
            table = table_of(one, made) if one.catg == "ASTROMETRY_WCS" else None
            row.geometry_id = rows[table].id if table else None
    return {one: row.id for one, row in rows.items()}


def a_frame() -> Frame:
    return Frame(
        dp_id="MUSE.2026-06-17T03:00:00.000", digest="f" * 64, path="", size=1, tag=Tag.OBJECT, catg="SCIENCE",
        type="OBJECT", tech="IFU", rule="", lamps=[], channels=[1, 2], cards={}, tpl_nexp=1, id=1, mjd=MJD,
        exptime=EXPTIME, night=date(2026, 6, 16), ingested=NOW,
        setup=Setup(mode="WFM-NOAO-N", readout="SCI1.0", readout_id=1, optics="WFM"),
    )  # fmt: skip


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.reuse, Phase.generate],  # a shorter failing example is not worth the minutes
)  # fmt: skip
@given(made=ARCHIVES)
def test_the_closest_usable_one_is_handed_out(registry: Registry, made: list[Made]) -> None:
    with registry.begin() as session:
        step = session.scalar(select(Step.id)) or add_step(session, [add_frame(session, 1)]).id
    numbers = write(registry, made, step)
    with registry.read() as session:
        # Before what is missing turns the answer to raw frames.
        drafter = _Drafter(session, view_alone(a_frame()), retrieval_policy(Settings()), raw=False)
        draft = drafter.top(TARGETS_BY_TAG[Tag.OBJECT])
    table = search(made, "GEOMETRY_TABLE", numbers)
    wanted = {catg: search(made, catg, numbers) for catg in (*FAR, "SKY_LINES")}
    wanted |= {"GEOMETRY_TABLE": table, "ASTROMETRY_WCS": solution_for(table, made, numbers) if table else None}
    expected = {catg: (numbers[one],) for catg, one in wanted.items() if one}
    assert {one.category: one.products for one in draft.below} == expected
