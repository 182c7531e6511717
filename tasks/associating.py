"""Building the tree of a raw frame: each calibration that it needs, by the rules by which steps get theirs.

A draft of the tree names rows only. The rows of what was chosen are read at the end, all at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import select
from sqlalchemy.orm import Session

from archive.models import Frame, Product
from archive.naming import suffix_of
from archive.night import night_of, time_of
from archive.select import Candidate, Choice, Match, astrometry_for, siblings
from archive.states import Certification, GroupState
from tasks.associations import AssociatedFile, Association, Mode, Tree, Validity
from tasks.cascade import STEPS, STEPS_BY_TAG, TARGETS, TARGETS_BY_TAG, CascadeStep, Need, Tag, Target
from tasks.groups import middle
from tasks.neighbourhood import Neighbourhood, RawGroup, Statics
from tasks.pairs import made_by_partner
from tasks.plan import absent, choose_for, companion_for, needs_of
from tasks.settings import PlanMode, Settings
from tasks.snapshot import GroupView, Policy, ProductView
from tasks.survey import companions_near, groups_of, member_of, policy_of

_NEEDS = (*chain.from_iterable(step.needs for step in STEPS), *chain.from_iterable(target.needs for target in TARGETS))
# The steps that make what is not static, by PRO.CATG.
_MAKERS: Mapping[str, CascadeStep] = {catg: step for step in STEPS for catg in step.makes if catg not in step.statics}
_CATGS = frozenset(need.catg for need in _NEEDS) & _MAKERS.keys()
_TAGS = {catg: (_MAKERS[catg].raw, *_MAKERS[catg].substitutes) for catg in _CATGS}
_INSIDE = 0.5  # days to the edge of what is read; the calibrations of a calibration are mostly of the same half day
_RISKIEST = max(level.level for need in _NEEDS for level in need.levels)


def retrieval_policy(settings: Settings) -> Policy:
    """Return by what calibrations are handed out.

    They are of every association level, and provisional ones too: the answer tells which they are.
    """
    return replace(policy_of(settings), level=_RISKIEST, mode=PlanMode.GARCHING)


def associate(session: Session, frame: Frame, mode: Mode, policy: Policy) -> Tree:
    """Build the tree of a raw frame.

    Raw2Master becomes Raw2Raw where a master that is needed is missing; the raw frames are then those of which the
    masters that are there were made.

    Parameters
    ----------
    session : Session
    frame : Frame
        A science frame gets what ESO's ``muse_scibasic`` and ``muse_scipost`` take; a calibration frame stands for its
        group, which gets what the step takes that reduces it.
    mode : Mode
    policy : Policy
        See ``retrieval_policy``.

    Returns
    -------
    Tree
        Of a frame to which nothing belongs it is the frame alone, incomplete, with a message.
    """
    tag = Tag(frame.tag)
    target = TARGETS_BY_TAG.get(tag) or STEPS_BY_TAG.get(tag)
    if target is None:
        said = f"No association could be established: no calibrations belong to {tag} frames."
        alone = _Draft(category=tag, frames=(frame.id,), complete=False, messages=[said])
        return Tree(asked=mode, mode=mode, top=_Details(session, alone).association(alone))
    if frame.group_id is not None and frame.superseded_by is None:
        view = next(groups_of(session, [frame.group_id]))
    else:
        view = view_alone(frame)
    raw = mode is Mode.RAW2RAW
    top = _Drafter(session, view, policy, raw=raw).top(target)
    if not raw and not top.complete:
        raw, masters = True, {draft.category: draft for draft in top.below if draft.products}
        top = _Drafter(session, view, policy, raw=True, masters=masters).top(target)
        top.messages.insert(0, "The requested mode Raw2Master could not be executed, since a master is missing.")
    given = Mode.RAW2RAW if raw else Mode.RAW2MASTER
    return Tree(asked=mode, mode=given, top=_Details(session, top).association(top))


def view_alone(frame: Frame) -> GroupView:
    """Return a frame as a group of its own."""
    return GroupView(
        group_id=0,
        tag=Tag(frame.tag),
        state=GroupState.COMPLETE,
        reason="",
        night=frame.night,
        mjd=middle([member_of(frame)]),
        setup=frame.setup,
        closes=frame.ingested,
        members=(member_of(frame),),
    )


@dataclass(kw_only=True)
class _Draft:
    """An association before its rows are read; ``certified`` is of itself alone, ``complete`` of all below too."""

    category: str
    products: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    certified: bool = True
    complete: bool = True
    match: Validity = Validity.NOT_APPLICABLE
    level: int | None = None
    days: float | None = None
    differences: Mapping[str, tuple[str | int, str | int]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    below: list["_Draft"] = field(default_factory=list)

    def walk(self) -> Iterator["_Draft"]:
        yield self
        for draft in self.below:
            yield from draft.walk()

    def add(self, other: "_Draft") -> None:
        """Add an association; frames that are there already serve for another product too."""
        self.complete = self.complete and other.complete
        for same in self.below:
            if other.frames and (same.category, same.frames) == (other.category, other.frames):
                same.certified = same.certified and other.certified
                return
        self.below.append(other)


class _Drafter:
    """Drafts one tree.

    Parameters
    ----------
    raw : bool
        Associate raw frames, and theirs in turn, instead of the products made of them.
    masters : mapping of PRO.CATG to draft
        Products whose raw frames are taken whatever else is there.
    """

    def __init__(
        self,
        session: Session,
        view: GroupView,
        policy: Policy,
        *,
        raw: bool,
        masters: Mapping[str, _Draft] = MappingProxyType({}),
    ) -> None:
        self._session, self._view, self._policy, self._raw = session, view, policy, raw
        self._masters = masters
        self._read: list[Neighbourhood] = []
        self._statics = Statics(session, _NEEDS)
        self._groups: dict[tuple[int, str], _Draft] = {}  # by group and step; many calibrations share them

    def _near(self, view: GroupView) -> Neighbourhood:
        """Return the days around a group; those that are read already where it lies well inside."""
        widest = max(self._read, key=lambda near: near.reach(view.mjd), default=None)
        if widest is None or widest.reach(view.mjd) < _INSIDE:
            widest = Neighbourhood(self._session, view.mjd, view.setup, needs=_NEEDS, tags=_TAGS, raw=self._raw)
            self._read.append(widest)
        return widest

    def top(self, target: CascadeStep | Target) -> _Draft:
        view = self._view
        draft = _Draft(category=view.tag, frames=tuple(member.frame_id for member in view.members))
        if view.state in (GroupState.OPEN, GroupState.INCOMPLETE):
            draft.complete = False
            draft.messages.append(f"Its group is {view.state}: {view.reason}")
        self._fill(draft, view, target, self._masters)
        return draft

    def _fill(
        self,
        draft: _Draft,
        view: GroupView,
        target: CascadeStep | Target,
        masters: Mapping[str, _Draft] = MappingProxyType({}),
    ) -> None:
        """Add everything that a target needs."""
        geometry: int | None = None
        for need in needs_of(target, view.mjd, self._policy):
            if need.catg in masters and need.catg in _MAKERS:
                draft.add(self._made_of(masters[need.catg]))
                continue
            choice, groups = self._weigh(view, need, geometry)
            if (best := choice.best) is not None:
                draft.add(self._draft(need, best, groups.get(best.candidate)))
                geometry = best.candidate.product_id if need.catg == "GEOMETRY_TABLE" else geometry
            elif not need.optional:
                draft.complete = False
                draft.messages.append(absent(view, need, self._policy))
        for wanted in target.companions:
            member = companion_for(view, wanted, list(companions_near(self._session, wanted, view.mjd)))
            if member is not None:
                days = middle([member]) - view.mjd
                fits = Validity.CALIB_PLAN
                draft.add(_Draft(category=wanted.tag, frames=(member.frame_id,), match=fits, level=0, days=days))

    def _weigh(self, view: GroupView, need: Need, geometry: int | None) -> tuple[Choice, Mapping[Candidate, RawGroup]]:
        """Choose what meets a need; where raw frames are associated, with the group of each candidate."""
        if need.of_pair:
            return self._weigh_pair(view, need)
        if need.catg == "ASTROMETRY_WCS":  # never without the geometry table that it was made with
            if geometry is None:
                return Choice(best=None, refusals=()), {}
            table = self._session.get_one(Product, geometry)
            return astrometry_for(self._session, table, setup=view.setup, mjd=view.mjd), {}
        near = self._statics.near(need, view.setup, view.mjd) if need.beside_statics else ()
        statics = [one.candidate for one in near]
        choice, groups = choose_for(view, need, statics, self._policy), dict[Candidate, RawGroup]()
        reaches = [level.days for level in need.levels] if need.catg in _MAKERS else []
        if reaches and 0 < (known := self._near(view).reach(view.mjd)) < reaches[0]:
            reaches.insert(0, known)  # what is found there is closer than what would have to be read
        for days in reaches:
            offers = self._offers(need, view, days)
            choice = choose_for(view, need, [*statics, *offers], self._policy)
            groups = {candidate: group for candidate, group in offers.items() if group is not None}
            # Of a type that comes as static too, only what is certified surely goes before whatever lies farther away.
            best = choice.best.candidate if choice.best else None
            sure = not need.beside_statics or (best and best.certification is Certification.CERTIFIED)
            if best and not best.static and sure:
                break
        return choice, groups

    def _weigh_pair(self, view: GroupView, need: Need) -> tuple[Choice, Mapping[Candidate, RawGroup]]:
        """Choose what the other step of the pair made, or its frames."""
        if view.partner is None:
            return Choice(best=None, refusals=()), {}
        made = [one.candidate for one in self._near(view).products_of(view.partner, need.catg)]
        group = self._near(view).group(view.partner) if self._raw else None
        if group is not None and not made:
            made = [_to_come(group)]
        choice = made_by_partner(view, made)
        return choice, {candidate: group for candidate in made if group is not None}

    def _offers(self, need: Need, around: GroupView, days: float) -> dict[Candidate, RawGroup | None]:
        """Return what a category can be had from: products, or groups by what is known of their product."""
        first, last = around.mjd - days, around.mjd + days
        views = self._near(around).products(need, around.setup, first, last)
        if not self._raw:
            return {view.candidate: None for view in views if view.current}
        made: dict[int | None, list[ProductView]] = {}
        for view in views:
            made.setdefault(view.group_id, []).append(view)
        maker = _MAKERS[need.catg]
        offers: dict[Candidate, RawGroup | None] = {}
        for tag in (maker.raw, *maker.substitutes):
            for group in self._near(around).groups(tag, need, around.setup, first, last):
                views = sorted(made.get(group.group_id, ()), key=lambda view: (view.current, view.usable))
                if len(group.frames) >= maker.minimum and (views or tag is maker.raw):
                    offers[views[-1].candidate if views else _to_come(group)] = group
        return offers

    def _draft(self, need: Need, best: Match, group: RawGroup | None) -> _Draft:
        """Return the association of what was chosen."""
        candidate = best.candidate
        if group is not None:
            draft = self._of_group(group, _MAKERS.get(need.catg) or STEPS_BY_TAG[Tag(group.tag)])
        else:
            draft = _Draft(category=need.catg, products=(candidate.product_id or 0,))
        fits = Validity.CALIB_PLAN if best.level == 0 else Validity.EXTENDED
        return replace(
            draft,
            certified=candidate.certification is Certification.CERTIFIED,
            match=Validity.NOT_APPLICABLE if candidate.static and group is None else fits,
            level=best.level,
            days=best.days,
            differences=best.differences,
        )

    def _of_group(self, group: RawGroup, step: CascadeStep) -> _Draft:
        """Return the raw frames of a group with what the step needs that reduces them."""
        key = (group.group_id, step.name)
        if key not in self._groups:
            draft = self._groups[key] = _Draft(category=group.tag, frames=group.frames)
            if len(group.frames) < group.expected:
                draft.messages.append(f"{len(group.frames)} of {group.expected} frames are there.")
            self._fill(draft, self._view_of(group, step), step)
        return self._groups[key]

    def _view_of(self, group: RawGroup, step: CascadeStep) -> GroupView:
        if step.companions or step.pair:  # these depend on more than time and setup
            return next(groups_of(self._session, [group.group_id]))
        return GroupView(
            group_id=group.group_id,
            tag=Tag(group.tag),
            state=group.state,
            reason="",
            night=night_of(group.mjd),
            mjd=group.mjd,
            setup=group.setup,
            closes=time_of(group.mjd),
            members=(),
        )

    def _made_of(self, master: _Draft) -> _Draft:
        """Return the raw frames that a product was made of, by what is written down of that."""
        product = self._session.get_one(Product, master.products[0])
        if product.static:
            return master
        if product.step is None:
            return self._named_by(product, master)
        tag = product.step.group.tag
        frames = tuple(use.frame_id for use in product.step.uses if use.frame_id is not None and use.tag == tag)
        draft = replace(master, category=tag, products=(), frames=frames, messages=[], below=[])
        for use in product.step.uses:
            if use.product is not None:
                fits = Validity.CALIB_PLAN if use.level == 0 else Validity.EXTENDED
                input_ = _Draft(
                    category=use.tag,
                    products=(use.product.id,),
                    certified=use.product.certification is Certification.CERTIFIED,
                    match=Validity.NOT_APPLICABLE if use.product.static else fits,
                    level=use.level,
                    days=use.days,
                )
                draft.add(self._made_of(input_))
            elif use.frame is not None and use.tag != tag:
                draft.add(_Draft(category=use.tag, frames=(use.frame.id,), match=Validity.CALIB_PLAN))
        return draft

    def _named_by(self, product: Product, master: _Draft) -> _Draft:
        """Return the raw frames that the header of a product from outside names."""
        names = {str(name).partition(".fits")[0] for name in product.ancestors}
        named = select(Frame).where(Frame.dp_id.in_(names), Frame.superseded_by.is_(None)).order_by(Frame.mjd, Frame.id)
        maker = _MAKERS[product.catg]
        raws = [frame for frame in self._session.scalars(named) if frame.tag in (maker.raw, *maker.substitutes)]
        if raws:
            category, frames = raws[0].tag, tuple(frame.id for frame in raws)
            return replace(master, category=category, products=(), frames=frames)
        said = f"{product.name} came from outside, and none of the raw frames that its header names is here."
        return replace(master, category=maker.raw, products=(), complete=False, messages=[said])


def _to_come(group: RawGroup) -> Candidate:
    """Return the product that nobody has made of a group yet."""
    name = f"{group.tag} of {time_of(group.mjd):%Y-%m-%d %H:%M} UT"
    return Candidate(product_id=None, name=name, mjd=group.mjd, setup=group.setup)


class _Details:
    """The rows that a draft names."""

    def __init__(self, session: Session, top: _Draft) -> None:
        self._session = session
        self._files: dict[tuple[str, int], AssociatedFile] = {}
        drafts = list(top.walk())
        products = {number for draft in drafts for number in draft.products}
        frames = {number for draft in drafts for number in draft.frames}
        self._products = {row.id: row for row in session.scalars(select(Product).where(Product.id.in_(products)))}
        columns = (Frame.id, Frame.dp_id, Frame.origfile, Frame.path, Frame.size)
        self._frames = {row.id: row for row in session.execute(select(*columns).where(Frame.id.in_(frames)))}

    def association(self, draft: _Draft) -> Association:
        """Return a draft with everything in its place."""
        below = tuple(self.association(one) for one in draft.below)
        return Association(
            category=draft.category,
            files=(*map(partial(self._raw, draft.category), draft.frames), *self._of_products(draft)),
            certified=draft.certified and all(one.certified for one in below),
            complete=draft.complete,
            match=draft.match,
            level=draft.level,
            days=draft.days,
            differences=draft.differences,
            messages=tuple(draft.messages),
            associated=below,
        )

    def _raw(self, category: str, number: int) -> AssociatedFile:
        if (category, number) not in self._files:  # the same frames stand behind many calibrations
            self._files[category, number] = self._file_of(category, number)
        return self._files[category, number]

    def _file_of(self, category: str, number: int) -> AssociatedFile:
        frame = self._frames[number]
        return AssociatedFile(
            category=category,
            dp_id=frame.dp_id,
            arcfile=frame.dp_id + suffix_of(frame.path),
            origfile=frame.origfile,
            path=Path(frame.path),
            size=frame.size,
            row=f"F{frame.id}",
        )

    def _of_products(self, draft: _Draft) -> Iterator[AssociatedFile]:
        for product in (one for number in draft.products for one in siblings(self._session, self._products[number])):
            yield AssociatedFile(
                category=draft.category,
                dp_id=product.dp_id,
                arcfile=f"{product.dp_id}.fits",
                origfile=product.name,
                path=Path(product.path),
                size=product.size,
                row=f"P{product.id}",
            )
