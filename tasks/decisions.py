"""What the planner may decide. Values only; ``tasks.advance`` carries them out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from archive.states import GroupState
from recipes.recipe import Value


class StepKey(NamedTuple):
    """What identifies a step before it has a row."""

    group_id: int
    name: str
    sequence: int


@dataclass(frozen=True)
class Settle:
    """Give a group this state and reason."""

    group_id: int
    state: GroupState
    reason: str


@dataclass(frozen=True)
class Couple:
    """Give a group this partner, None for none; ``released`` if the pair may go on without an operator's word."""

    group_id: int
    partner: int | None
    released: bool


@dataclass(frozen=True)
class Make:
    """Add a step."""

    key: StepKey
    why: str
    priority: int


@dataclass(frozen=True)
class Wait:
    """Let a step wait; the sentences say for what."""

    key: StepKey
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input as it was chosen: a raw frame, or a product with level and certification; how far it is in days."""

    tag: str
    digest: str
    frame_id: int | None = None
    product_id: int | None = None
    level: int | None = None
    days: float | None = None
    certification: str = ""
    differences: Mapping[str, tuple[str | int, str | int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """How a step is made: a recipe, its version with the engine, and its parameters."""

    recipe: str
    version: str
    parameters: Mapping[str, Value]

    @property
    def digest(self) -> str:
        """The same for the same recipe, version and parameters."""
        return _digest([self.recipe, self.version, dict(self.parameters)])


@dataclass(frozen=True, kw_only=True)
class Order:
    """Everything that fixes the outcome of a step, and which channels it has."""

    method: Method
    inputs: tuple[Input, ...]
    channels: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def identity(self) -> str:
        """The same for the same recipe, version, parameters and contents of inputs."""
        inputs = sorted((item.tag, item.digest) for item in self.inputs)
        return _digest([self.method.recipe, self.method.version, dict(self.method.parameters), inputs])


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Queue:
    """Fix the inputs of a step and let its parts be claimed."""

    key: StepKey
    order: Order


@dataclass(frozen=True)
class Reuse:
    """End a step without work: another one with the same identity is done."""

    key: StepKey
    order: Order
    done: StepKey


@dataclass(frozen=True)
class Mark:
    """Say of a done step why it is not as it would be made now; '' if it is again, or a later make is done."""

    step_id: int
    stale: str


Decision = Settle | Couple | Make | Wait | Queue | Reuse | Mark
