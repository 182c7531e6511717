"""Rows of the registry. The registry is the truth; every other place is a copy or a hint.

Times of observation are Modified Julian Dates (float, UTC); times of bookkeeping are aware UTC datetimes.
"""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, declared_attr, mapped_column, relationship

from archive.setup import Setup, SetupKey
from archive.states import ArrivalState, Certification, GroupState, Judge, PartState, Score, StepState


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC time on every database; SQLite itself would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse naive times; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; the registry takes aware times only.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _states(enum: type[StrEnum]) -> Enum:
    """Store a StrEnum as its string, checked by the database."""
    return Enum(
        enum,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=enum.__name__.lower(),
        values_callable=lambda members: [member.value for member in members],
    )


class Row(DeclarativeBase):
    """Base of every row."""

    # Every constraint has a name, so that a later revision can speak of it on both databases.
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_refers",
            "uq": "%(table_name)s_%(column_0_N_name)s_unique",
            "ix": "%(table_name)s_by_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {datetime: UtcTime(), dict[str, Any]: JSON(), list[Any]: JSON()}  # noqa: RUF012 - read by SQLAlchemy


class HasSetup:
    """The columns of a setup; ``setup`` is all of them as one value."""

    mode: Mapped[str] = mapped_column(String(32), default="")
    readout: Mapped[str] = mapped_column(String(32), default="")
    readout_id: Mapped[int] = mapped_column(default=0)
    binx: Mapped[int] = mapped_column(default=1)
    biny: Mapped[int] = mapped_column(default=1)
    filter: Mapped[str] = mapped_column(String(32), default="")
    optics: Mapped[str] = mapped_column(String(32), default="")

    @declared_attr
    def setup(cls) -> Mapped[Setup]:  # noqa: N805 - SQLAlchemy hands over the class
        """Return the columns as one value."""
        return composite(Setup.of, *SetupKey)


class Arrival(Row):
    """One file that was seen in the incoming folder or given by hand: the ledger's first entry.

    ``path`` is where it was seen; ``kept`` where its bytes are now if it was quarantined.
    """

    __tablename__ = "arrival"

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(String(1024), index=True)
    kept: Mapped[str | None] = mapped_column(String(1024))
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    mtime_ns: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[ArrivalState] = mapped_column(_states(ArrivalState), default=ArrivalState.WAITING, index=True)
    reason: Mapped[str] = mapped_column(default="")
    digest: Mapped[str | None] = mapped_column(String(64))
    frame_id: Mapped[int | None] = mapped_column(ForeignKey("frame.id"), index=True)
    first_seen: Mapped[datetime]
    settled: Mapped[datetime | None]
    product_id: Mapped[int | None] = mapped_column(ForeignKey("product.id"), index=True)  # of a static calibration

    frame: Mapped["Frame | None"] = relationship(back_populates="arrivals")
    product: Mapped["Product | None"] = relationship(back_populates="arrivals")


class Frame(HasSetup, Row):
    """One raw frame, identified by its content.

    The same ``dp_id`` with other content is the next ``version``; the older one points to it by ``superseded_by``.
    """

    __tablename__ = "frame"
    __table_args__ = (
        UniqueConstraint("dp_id", "version"),
        Index("frame_by_tag_time", "tag", "mjd"),
        Index("frame_by_time", "mjd", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    dp_id: Mapped[str] = mapped_column(String(64))  # ARCFILE without .fits: MUSE.2026-06-17T10:41:11.000
    version: Mapped[int] = mapped_column(default=1)
    digest: Mapped[str] = mapped_column(String(64), unique=True)  # sha256 of the file
    path: Mapped[str] = mapped_column(String(1024))
    size: Mapped[int] = mapped_column(BigInteger)
    tag: Mapped[str] = mapped_column(String(32))
    catg: Mapped[str] = mapped_column(String(32))  # DPR.CATG
    type: Mapped[str] = mapped_column(String(64))  # DPR.TYPE
    tech: Mapped[str] = mapped_column(String(32))  # DPR.TECH
    rule: Mapped[str] = mapped_column(String(128))  # the classification rule that matched, for `why`
    mjd: Mapped[float] = mapped_column(Float(53))  # MJD-OBS
    exptime: Mapped[float]
    night: Mapped[date] = mapped_column(index=True)
    origfile: Mapped[str] = mapped_column(String(128), default="", index=True)
    tpl_id: Mapped[str] = mapped_column(String(64), default="")
    tpl_start: Mapped[str] = mapped_column(String(32), default="")
    tpl_nexp: Mapped[int] = mapped_column(default=0)
    tpl_expno: Mapped[int] = mapped_column(default=0)
    lamps: Mapped[list[Any]] = mapped_column(default=list)  # muse.Lamp names that are on
    channels: Mapped[list[Any]] = mapped_column(default=list)  # channel numbers in the file
    cards: Mapped[dict[str, Any]] = mapped_column(default=dict)  # further header values that rules need
    ingested: Mapped[datetime]
    superseded_by: Mapped[int | None] = mapped_column(ForeignKey("frame.id"))
    group_id: Mapped[int | None] = mapped_column(ForeignKey("group.id"), index=True)
    object: Mapped[str] = mapped_column(String(80), default="", index=True, sort_order=1)  # OBJECT, the target's name

    arrivals: Mapped[list[Arrival]] = relationship(back_populates="frame")
    group: Mapped["Group | None"] = relationship(back_populates="frames")
    uses: Mapped[list["Use"]] = relationship(viewonly=True)


class Group(Row):
    """Raw frames of one tag, template and setup, reduced together."""

    __tablename__ = "group"
    __table_args__ = (UniqueConstraint("tag", "key"), Index("group_by_tag_time", "tag", "mjd"))

    id: Mapped[int] = mapped_column(primary_key=True)
    tag: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(256))  # TPL.START and setup in one string
    night: Mapped[date] = mapped_column(index=True)
    mjd: Mapped[float] = mapped_column(Float(53), index=True)  # middle of the exposures
    expected: Mapped[int]  # TPL.NEXP
    state: Mapped[GroupState] = mapped_column(_states(GroupState), default=GroupState.OPEN, index=True)
    reason: Mapped[str] = mapped_column(default="")  # what is missing, or how it was closed
    last_arrival: Mapped[datetime]
    closes: Mapped[datetime]  # end of the grace time
    partner_id: Mapped[int | None] = mapped_column(ForeignKey("group.id"), index=True)  # of the monthly pair
    released: Mapped[datetime | None]  # when the pair was let go on; from then on it stays this pair

    partner: Mapped["Group | None"] = relationship(remote_side="Group.id")
    frames: Mapped[list[Frame]] = relationship(back_populates="group", order_by="Frame.mjd, Frame.id")
    steps: Mapped[list["Step"]] = relationship(back_populates="group")


class Step(Row):
    """One step of the cascade on one group. A remake is a new row."""

    __tablename__ = "step"
    __table_args__ = (UniqueConstraint("group_id", "name", "sequence"), Index("step_by_weighed", "name", "weighed"))

    id: Mapped[int] = mapped_column(primary_key=True)
    group_id: Mapped[int] = mapped_column(ForeignKey("group.id"), index=True)
    name: Mapped[str] = mapped_column(String(32), index=True)  # of the cascade table
    sequence: Mapped[int] = mapped_column(default=1)  # 1 for the first make, then 2, 3, ...
    state: Mapped[StepState] = mapped_column(_states(StepState), default=StepState.WAITING, index=True)
    priority: Mapped[int] = mapped_column(default=5)  # 0 first, 9 last, as Celery on Redis counts
    identity: Mapped[str | None] = mapped_column(String(64), index=True)  # recipe, version, parameters, inputs
    recipe: Mapped[str] = mapped_column(String(32), default="")
    recipe_version: Mapped[str] = mapped_column(String(16), default="")
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    missing: Mapped[list[Any]] = mapped_column(default=list)  # sentences: what it waits for
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    stale: Mapped[str] = mapped_column(default="")  # why a done step should be made again
    error: Mapped[str] = mapped_column(default="")
    error_kind: Mapped[str] = mapped_column(String(16), default="")  # data, world, bug, poison, limit
    not_before: Mapped[datetime | None]
    created: Mapped[datetime]
    queued: Mapped[datetime | None]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    # Digest of recipe, version and parameters that a done step was last held against, with all that it may take;
    # whoever changes what it may take empties it (see tasks.survey). None where another pipeline made it: then it is
    # never held against anything.
    weighed: Mapped[str | None] = mapped_column(String(64), default="")

    group: Mapped[Group] = relationship(back_populates="steps")
    parts: Mapped[list["Part"]] = relationship(back_populates="step", order_by="Part.channel")
    uses: Mapped[list["Use"]] = relationship(back_populates="step")
    products: Mapped[list["Product"]] = relationship(back_populates="step")


class Part(Row):
    """One channel of a step, or (channel 0) its finish: merging, archiving, certification. One message each.

    ``attempt`` is counted before the work and is the fencing token: only the worker that holds the current attempt
    may end the part. ``sent`` is empty while the message is still to be sent; the rows without it are the outbox.
    """

    __tablename__ = "part"
    __table_args__ = (UniqueConstraint("step_id", "channel"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    step_id: Mapped[int] = mapped_column(ForeignKey("step.id"), index=True)
    channel: Mapped[int]
    state: Mapped[PartState] = mapped_column(_states(PartState), default=PartState.QUEUED, index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)  # attempts that took their worker with them
    retries: Mapped[int] = mapped_column(default=0)  # attempts lost to a broken world; a requeue clears it
    sent: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    worker: Mapped[str] = mapped_column(String(128), default="")  # host:pid:start of the process that holds the lease
    lease_until: Mapped[datetime | None]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    seconds: Mapped[float | None]  # CPU seconds of the successful attempt
    memory: Mapped[int | None] = mapped_column(BigInteger)  # peak resident bytes of the successful attempt
    error: Mapped[str] = mapped_column(default="")
    error_kind: Mapped[str] = mapped_column(String(16), default="")
    outcome: Mapped[dict[str, Any]] = mapped_column(default=dict)  # files and measurements of the channel

    step: Mapped[Step] = relationship(back_populates="parts")


class Product(HasSetup, Row):
    """One archived file: a master calibration or a static one; what was brought from outside has no step.

    ``compared`` is the product before it with which its measurements of change were made.
    An ASTROMETRY_WCS names by ``geometry_id`` the GEOMETRY_TABLE that it was made with: the monthly pair.
    """

    __tablename__ = "product"
    __table_args__ = (
        Index("product_by_catg_time", "catg", "mjd"),
        Index("product_by_time", "mjd", "id"),
        Index("product_by_static_catg_time", "static", "catg", "mjd"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    step_id: Mapped[int | None] = mapped_column(ForeignKey("step.id"), index=True)
    catg: Mapped[str] = mapped_column(String(32))  # PRO.CATG
    name: Mapped[str] = mapped_column(String(128), unique=True)  # MU_MFLA_260617A_wfm-noao-n_slow.fits
    dp_id: Mapped[str] = mapped_column(String(64), unique=True)  # M.MUSE.<time>
    path: Mapped[str] = mapped_column(String(1024))
    size: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))  # sha256 of the file
    night: Mapped[date] = mapped_column(index=True)
    mjd: Mapped[float] = mapped_column(Float(53))  # middle of the raw exposures; begin of validity of a static one
    channels: Mapped[list[Any]] = mapped_column(default=list)
    certification: Mapped[Certification] = mapped_column(_states(Certification), default=Certification.PROVISIONAL)
    score: Mapped[str] = mapped_column(String(8), default=Score.NONE)  # the worst of its measurements
    static: Mapped[bool] = mapped_column(default=False)  # valid from ``mjd`` on instead of around it
    # Whether the planner has weighed it for the steps already done; whoever changes the certification clears it.
    reviewed: Mapped[bool] = mapped_column(default=False, index=True)
    created: Mapped[datetime]
    # Version of an STD_RESPONSE, 1 or 2: 2 is of data from which the lamp spectrum of the flat was taken out.
    response: Mapped[int | None] = mapped_column(sort_order=1)
    geometry_id: Mapped[int | None] = mapped_column(ForeignKey("product.id"), index=True, sort_order=1)
    judge: Mapped[Judge] = mapped_column(String(16), default=Judge.NOBODY, sort_order=1)  # of the certification
    score_reason: Mapped[str] = mapped_column(default="", sort_order=1)  # why it is not green, in sentences
    thresholds: Mapped[str] = mapped_column(String(64), default="", sort_order=1)  # the edition it was scored by
    compared_id: Mapped[int | None] = mapped_column(ForeignKey("product.id"), index=True, sort_order=1)
    # What its header says that it was made of, by name: of a product from outside, whose step is not here.
    ancestors: Mapped[list[Any]] = mapped_column(default=list, sort_order=1)
    # Of what another pipeline's run made: the same for all that it made of the same frames with the same parameters.
    run: Mapped[str] = mapped_column(String(64), default="", index=True, sort_order=1)
    signature: Mapped[str] = mapped_column(String(32), default="", index=True, sort_order=1)  # DATAMD5 of its header

    geometry: Mapped["Product | None"] = relationship(
        remote_side="Product.id", back_populates="solutions", foreign_keys=[geometry_id]
    )
    compared: Mapped["Product | None"] = relationship(remote_side="Product.id", foreign_keys=[compared_id])
    solutions: Mapped[list["Product"]] = relationship(
        back_populates="geometry", order_by="Product.id", foreign_keys=[geometry_id]
    )
    arrivals: Mapped[list[Arrival]] = relationship(back_populates="product", order_by=Arrival.id)
    step: Mapped[Step | None] = relationship(back_populates="products")
    measurements: Mapped[list["Measurement"]] = relationship(back_populates="product")


class Use(Row):
    """One input of one step as it was chosen: a raw frame, or a product with how well it fitted."""

    __tablename__ = "use"

    id: Mapped[int] = mapped_column(primary_key=True)
    step_id: Mapped[int] = mapped_column(ForeignKey("step.id"), index=True)
    tag: Mapped[str] = mapped_column(String(32))
    frame_id: Mapped[int | None] = mapped_column(ForeignKey("frame.id"), index=True)
    product_id: Mapped[int | None] = mapped_column(ForeignKey("product.id"), index=True)
    level: Mapped[int | None]  # association level of a product
    days: Mapped[float | None] = mapped_column(Float(53))  # signed time difference, calibration minus raw
    certification: Mapped[str] = mapped_column(String(16), default="")  # at the time of use
    differences: Mapped[dict[str, Any]] = mapped_column(default=dict)  # setup keys that differ without being matched

    step: Mapped[Step] = relationship(back_populates="uses")
    frame: Mapped[Frame | None] = relationship()
    product: Mapped[Product | None] = relationship()


class Measurement(Row):
    """One QC1 parameter of one channel of a product."""

    __tablename__ = "measurement"
    __table_args__ = (UniqueConstraint("product_id", "channel", "name"), Index("measurement_by_name", "name"))

    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"))
    channel: Mapped[int]  # 0 for the product as a whole
    name: Mapped[str] = mapped_column(String(64))  # without ESO QC
    value: Mapped[float | None] = mapped_column(Float(53))  # empty where it is text or could not be measured
    text: Mapped[str] = mapped_column(default="")
    score: Mapped[str] = mapped_column(String(8), default=Score.NONE)  # '': no threshold is for it
    remark: Mapped[str] = mapped_column(default="")  # what it was held against, where it is not green

    product: Mapped[Product] = relationship(back_populates="measurements")


class Event(Row):
    """What happened to a row, and why: the history that nothing rewrites."""

    __tablename__ = "event"
    __table_args__ = (Index("event_by_subject", "subject", "subject_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    subject: Mapped[str] = mapped_column(String(16))  # table name
    subject_id: Mapped[int]
    what: Mapped[str] = mapped_column(String(64))  # constant words: "step done"
    why: Mapped[str] = mapped_column(default="")
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
