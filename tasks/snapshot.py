"""The part of the registry that a plan depends on, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from archive.night import time_of
from archive.select import Candidate
from archive.setup import Setup
from archive.states import GroupState, StepState, feeds
from recipes.recipe import Value
from tasks.cascade import STEPS, CascadeStep, Tag
from tasks.decisions import StepKey
from tasks.groups import Member
from tasks.settings import ReleasePolicy, RemakePolicy


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """A group as the planner sees it; ``members`` are the newest versions of its frames.

    ``partner`` is the group that it is processed together with, for good once the pair is ``released``.
    """

    group_id: int
    tag: Tag
    state: GroupState
    reason: str
    night: date
    mjd: float
    setup: Setup
    closes: datetime
    members: tuple[Member, ...]
    partner: int | None = None
    released: bool = False

    def __str__(self) -> str:
        return f"group {self.group_id} ({self.tag} of {time_of(self.mjd):%Y-%m-%d %H:%M} UT)"


@dataclass(frozen=True, kw_only=True)
class StepView:
    """A step as the planner sees it; what it used is known of those that are done or failed.

    Parameters
    ----------
    frames : frozenset of int
        Raw frames of its own tag that it used.
    products : mapping of PRO.CATG to product
        Calibrations that it used.
    """

    step_id: int
    key: StepKey
    state: StepState
    missing: tuple[str, ...] = ()
    stale: str = ""
    identity: str | None = None
    frames: frozenset[int] = frozenset()
    products: Mapping[str, "ProductView"] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProductView:
    """A product as the planner sees it.

    Parameters
    ----------
    group_id, identity
        Of the step that made it; None for a static one.
    current : bool
        False once a later make of the same group has replaced it.
    """

    candidate: Candidate
    catg: str
    night: date
    digest: str
    group_id: int | None = None
    identity: str | None = None
    current: bool = True

    @property
    def product_id(self) -> int | None:
        """Its row."""
        return self.candidate.product_id

    @property
    def usable(self) -> bool:
        """False if it was rejected, or is red and not certified."""
        return feeds(self.candidate.certification, self.candidate.score)


@dataclass(frozen=True, kw_only=True)
class CompanionView:
    """A raw frame that may go with a group of another tag."""

    tag: Tag
    setup: Setup
    member: Member


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the settings say.

    Parameters
    ----------
    level : int
        The worst association level that is used.
    parameters : mapping of recipe name to parameters
    versions : mapping of step name to version
        Of the engine of those steps that our own recipe does not make.
    """

    level: int = 1
    use_darks: bool = False
    remake: RemakePolicy = RemakePolicy.NIGHT
    lsf_from_arcs: bool = False
    release_pairs: ReleasePolicy = ReleasePolicy.OPERATOR
    parameters: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a plan depends on beside the time."""

    groups: tuple[GroupView, ...] = ()
    steps: tuple[StepView, ...] = ()
    products: tuple[ProductView, ...] = ()
    companions: tuple[CompanionView, ...] = ()
    policy: Policy = Policy()
    cascade: tuple[CascadeStep, ...] = STEPS
