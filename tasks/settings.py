"""Settings: ``settings.toml`` and the environment, read once into typed values. A key that is not known is an error."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from archive.store import Transfer
from recipes.recipe import ParameterError, Value
from tasks.cascade import RECIPES, STEPS_BY_NAME
from tasks.thresholds import ThresholdsError, read_thresholds

PREFIX = "MUSECAL_"
FILE_VARIABLE = PREFIX + "SETTINGS"  # names the settings file; not a setting itself


class SettingsError(Exception):
    """The settings cannot be used; the message says which key, and what it may be."""


class WatchMode(StrEnum):
    """How the incoming folder wakes the scan."""

    AUTO = "auto"  # polling where the folder is on NFS, CIFS or FUSE, inotify elsewhere
    INOTIFY = "inotify"
    POLLING = "polling"


class PlanMode(StrEnum):
    """What a step takes, and whether it waits for better; as the two instances of ESO's pipeline."""

    GARCHING = "garching"  # the closest: it waits for a group in progress that will be closer; provisional ones serve
    PARANAL = "paranal"  # what is certified now: it waits for nothing that is under way


class RemakePolicy(StrEnum):
    """Which stale steps are made again without being asked for."""

    MODE = "mode"  # as the mode has it: night in garching, never in paranal
    NIGHT = "night"  # those of the same night as the input that changed
    ALWAYS = "always"
    NEVER = "never"


class Engine(StrEnum):
    """Who reduces the frames of a step."""

    MUSECAL = "musecal"  # our recipe
    ESOREX = "esorex"  # ESO's recipe, on the same inputs


class ReleasePolicy(StrEnum):
    """What lets a monthly pair of geometry and astrometry go on once both groups are there."""

    OPERATOR = "operator"  # `musecal release`
    AUTO = "auto"  # nothing more


class CertifyPolicy(StrEnum):
    """What a product needs to be certified."""

    GREEN = "green"  # a green score
    PERSON = "person"  # the word of a person


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"  # console on a terminal, json elsewhere
    CONSOLE = "console"
    JSON = "json"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArchiveSettings(_Section):
    """Where files are."""

    root: Path = Path("data/archive")
    incoming: Path = Path("data/incoming")
    least_free_gb: Annotated[float, Field(ge=0)] = 2.0


class RegistrySettings(_Section):
    """Where rows are."""

    url: str = ""


class BrokerSettings(_Section):
    """Where messages go."""

    url: str = ""


class WatchSettings(_Section):
    """How arrivals are noticed."""

    mode: WatchMode = WatchMode.AUTO
    settle_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0
    scan_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    stalled_minutes: Annotated[float, Field(gt=0)] = 15.0
    truncated_minutes: Annotated[float, Field(gt=0)] = 60.0
    transfer: Transfer = Transfer.MOVE


class GroupSettings(_Section):
    """When a template counts as over."""

    grace_minutes: Annotated[float, Field(ge=0, le=1440)] = 30.0


class PlanSettings(_Section):
    """What is made by itself, and of what."""

    mode: PlanMode = PlanMode.GARCHING
    level: Annotated[int, Field(ge=0, le=3)] = 1
    use_darks: bool = False
    remake: RemakePolicy = RemakePolicy.MODE
    lsf_from_arcs: bool = False
    release_pairs: ReleasePolicy = ReleasePolicy.OPERATOR

    @property
    def remade(self) -> RemakePolicy:
        """The policy of remaking with what the mode has for it."""
        if self.remake is not RemakePolicy.MODE:
            return self.remake
        return RemakePolicy.NIGHT if self.mode is PlanMode.GARCHING else RemakePolicy.NEVER


class ScoringSettings(_Section):
    """How products are judged."""

    certify: CertifyPolicy = CertifyPolicy.GREEN
    thresholds: str = ""


@dataclass(frozen=True)
class Limits:
    """The most time and memory that a part may take, and how the names of these settings begin."""

    seconds: float
    memory_mb: int
    begin: str

    @property
    def time_setting(self) -> str:
        """The name of the setting that limits the time."""
        return f"{self.begin}time_limit_seconds"

    @property
    def memory_setting(self) -> str:
        """The name of the setting that limits the memory."""
        return f"{self.begin}memory_limit_mb"


class WorkerSettings(_Section):
    """How parts are worked on."""

    concurrency: Annotated[int, Field(ge=0, le=256)] = 0
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    heartbeat_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    attempts: Annotated[int, Field(ge=1, le=50)] = 8
    crashes: Annotated[int, Field(ge=1, le=20)] = 2
    backoff_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    resend_seconds: Annotated[float, Field(ge=1, le=3600)] = 20.0
    time_limit_seconds: Annotated[float, Field(ge=1)] = 600.0
    memory_limit_mb: Annotated[int, Field(ge=256)] = 2000
    esorex_time_limit_seconds: Annotated[float, Field(ge=1, le=20000)] = 7200.0  # below the visibility timeout of Redis
    esorex_memory_limit_mb: Annotated[int, Field(ge=256)] = 12000

    def limits_of(self, engine: Engine) -> "Limits":
        """Return what a part may take that this engine works on."""
        if engine is Engine.ESOREX:
            return Limits(self.esorex_time_limit_seconds, self.esorex_memory_limit_mb, "worker.esorex_")
        return Limits(self.time_limit_seconds, self.memory_limit_mb, "worker.")

    @model_validator(mode="after")
    def _check_beats(self) -> Self:
        if 2 * self.heartbeat_seconds > self.lease_seconds:
            raise ValueError(
                f"heartbeat_seconds = {self.heartbeat_seconds:g} is more than half of lease_seconds = "
                f"{self.lease_seconds:g}; one late beat would lose the lease"
            )
        return self


class StepSettings(_Section):
    """How one step of the cascade is made."""

    engine: Engine = Engine.MUSECAL


class EsorexSettings(_Section):
    """Where ESO's pipeline is."""

    program: str = "esorex"
    recipe_folder: str = ""


class WebSettings(_Section):
    """Where the service over HTTP listens."""

    enabled: bool = False
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080


class LogSettings(_Section):
    """What is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: LogFormat = LogFormat.AUTO


def _check_steps(sections: dict[str, StepSettings]) -> dict[str, StepSettings]:
    """Return the settings of every step, complete with defaults; refuse a step that the cascade does not have."""
    unknown = sorted(sections.keys() - STEPS_BY_NAME.keys())
    if unknown:
        raise ValueError(f"there is no step {', '.join(unknown)}; there are {', '.join(STEPS_BY_NAME)}")
    return {name: sections.get(name, StepSettings()) for name in STEPS_BY_NAME}


def _check_recipes(sections: dict[str, dict[str, Value]]) -> dict[str, dict[str, Value]]:
    """Return every recipe's parameters, complete with defaults; refuse what a recipe does not know or cannot use."""
    unknown = sorted(sections.keys() - RECIPES.keys())
    if unknown:
        raise ValueError(f"there is no recipe {', '.join(unknown)}; there are {', '.join(sorted(RECIPES))}")
    complete: dict[str, dict[str, Value]] = {}
    for name, recipe in RECIPES.items():
        defaults = asdict(recipe.params())
        given: dict[str, object] = {}
        for key, value in sections.get(name, {}).items():
            wanted = type(defaults.get(key, value))
            # The environment knows text only: a text that reads as the wanted kind of number is that number.
            given[key] = TypeAdapter(wanted).validate_python(value) if isinstance(value, str) else value
        try:
            complete[name] = asdict(recipe.params.from_mapping(given))
        except ParameterError as error:
            raise ValueError(f"{name}: {error}") from error
    return complete


class Settings(BaseSettings):
    """All settings. ``settings.toml`` at the top of the project says what each is for.

    The environment (``MUSECAL_WATCH__SETTLE_SECONDS=2``) goes before what is given here. ``load_settings`` is the way
    to read a file.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    archive: ArchiveSettings = ArchiveSettings()
    registry: RegistrySettings = RegistrySettings()
    broker: BrokerSettings = BrokerSettings()
    watch: WatchSettings = WatchSettings()
    groups: GroupSettings = GroupSettings()
    plan: PlanSettings = PlanSettings()
    scoring: ScoringSettings = ScoringSettings()
    worker: WorkerSettings = WorkerSettings()
    esorex: EsorexSettings = EsorexSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    steps: Annotated[dict[str, StepSettings], AfterValidator(_check_steps)] = {}
    recipes: Annotated[dict[str, dict[str, Value]], AfterValidator(_check_recipes)] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the file, and read nothing else."""
        return env_settings, init_settings


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings.

    Parameters
    ----------
    path : Path, optional
        The settings file. Without it: the file that ``MUSECAL_SETTINGS`` names, else ``settings.toml`` in the current
        folder if there is one, else the defaults. Relative paths start from the file's folder.

    Returns
    -------
    Settings
        With absolute paths, and the URL of an SQLite registry in the archive where none is set.

    Raises
    ------
    SettingsError
        The file cannot be read, or holds an unknown key or a value out of range.
    """
    named = path or (Path(os.environ[FILE_VARIABLE]) if FILE_VARIABLE in os.environ else None)
    file = named or Path("settings.toml")
    content: dict[str, Any] = {}
    if named or file.exists():
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"the settings file {file} cannot be read: {error}") from error
    _check_environment()
    try:
        settings = Settings(**content)
    except ValidationError as error:
        raise SettingsError(" ".join(_sentence(dict(item)) for item in error.errors())) from error
    folder = file.absolute().parent
    root, incoming = folder / settings.archive.root, folder / settings.archive.incoming
    thresholds = settings.scoring.thresholds and str(folder / settings.scoring.thresholds)
    if thresholds:
        try:
            read_thresholds(thresholds)
        except ThresholdsError as error:
            raise SettingsError(str(error)) from error
    url = settings.registry.url or f"sqlite:///{root / 'registry.sqlite'}"
    return settings.model_copy(
        update={
            "archive": settings.archive.model_copy(update={"root": root, "incoming": incoming}),
            "registry": settings.registry.model_copy(update={"url": url}),
            "scoring": settings.scoring.model_copy(update={"thresholds": thresholds}),
        }
    )


def _check_environment() -> None:
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable != FILE_VARIABLE:
            section = variable.removeprefix(PREFIX).split("__")[0].lower()
            if section not in Settings.model_fields:
                raise SettingsError(f"the environment variable {variable} sets nothing.{_hint((section,))}")


def _sentence(error: Mapping[str, Any]) -> str:
    place = tuple(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{'.'.join(place)} is not a setting.{_hint(place)}"
    if isinstance(error["input"], Mapping):
        return f"{'.'.join(place)}: {error['msg']}."
    return f"{'.'.join(place)} = {error['input']!r} cannot be used: {error['msg']}."


def _hint(place: tuple[str, ...]) -> str:
    fields: Mapping[str, Any] = Settings.model_fields
    if len(place) > 1 and place[0] in fields:
        fields = getattr(fields[place[0]].annotation, "model_fields", {})
    close = difflib.get_close_matches(place[-1], fields, n=1)
    return f" Did you mean {close[0]}?" if close else f" There are {', '.join(sorted(fields))}."
