"""The part of the registry that a plan depends on, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from archive.night import time_of
from archive.select import Candidate
from archive.setup import Setup
from archive.states import GroupState, StepState, feeds
from recipes.recipe import Value
from tasks.cascade import STEPS, CascadeStep, Tag, recipe_of
from tasks.decisions import Method, StepKey
from tasks.groups import Member
from tasks.settings import PlanMode, ReleasePolicy, RemakePolicy


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
    companions : mapping of tag to frame
        Single raw frames of other tags that it took along.
    method : Method, optional
        How it was made.
    elsewhere : bool
        What it stands for was made by another pipeline, and is not made again by itself.
    """

    step_id: int
    key: StepKey
    state: StepState
    missing: tuple[str, ...] = ()
    stale: str = ""
    identity: str | None = None
    frames: frozenset[int] = frozenset()
    products: Mapping[str, "ProductView"] = field(default_factory=dict)
    companions: Mapping[Tag, int] = field(default_factory=dict)
    method: Method | None = None
    elsewhere: bool = False


@dataclass(frozen=True, kw_only=True)
class ProductView:
    """A product as the planner sees it.

    Parameters
    ----------
    group_id, step_name, identity
        Of the step that made it; None for one that came from outside.
    current : bool
        False once a later make of the same group that may be used has replaced it.
    stale : bool
        The newest done make of its step is stale.
    others : tuple of ProductView
        The files of the other channels, of a product that comes as one a channel.
    """

    candidate: Candidate
    catg: str
    night: date
    digest: str
    group_id: int | None = None
    step_name: str | None = None
    identity: str | None = None
    current: bool = True
    stale: bool = False
    others: "tuple[ProductView, ...]" = ()

    @property
    def files(self) -> "tuple[ProductView, ...]":
        """Itself, and the files of the other channels."""
        return (self, *self.others)

    @property
    def product_ids(self) -> frozenset[int | None]:
        """The rows of all of its files."""
        return frozenset(file.product_id for file in self.files)

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
    mode : PlanMode
        Whether the closest is waited for, or what is certified now is taken.
    level : int
        The worst association level that is used.
    remake : RemakePolicy
        What is made again by itself; never MODE.
    parameters : mapping of recipe name to parameters
    versions : mapping of step name to version
        Of the engine of those steps that our own recipe does not make.
    """

    mode: PlanMode = PlanMode.GARCHING
    level: int = 1
    use_darks: bool = False
    remake: RemakePolicy = RemakePolicy.NIGHT
    lsf_from_arcs: bool = False
    release_pairs: ReleasePolicy = ReleasePolicy.OPERATOR
    parameters: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def certified(self) -> bool:
        """Whether only certified products are taken."""
        return self.mode is PlanMode.PARANAL

    def method_of(self, step: CascadeStep) -> Method:
        """Return how a step is made now.

        Raises
        ------
        LookupError
            There is no recipe for it yet.
        """
        recipe = recipe_of(step.recipe_name)
        version = self.versions.get(step.name, recipe.version)
        return Method(recipe.name, version, self.parameters[recipe.name])


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a plan depends on beside the time.

    ``weighed`` are done steps that were brought in to be held against what they would be made of now: for each the
    digest of the method that it is held against.
    """

    groups: tuple[GroupView, ...] = ()
    steps: tuple[StepView, ...] = ()
    products: tuple[ProductView, ...] = ()
    companions: tuple[CompanionView, ...] = ()
    policy: Policy = Policy()
    cascade: tuple[CascadeStep, ...] = STEPS
    weighed: Mapping[int, str] = field(default_factory=dict)
