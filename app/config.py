"""Settings of every process, read from flags, environment, a TOML file and defaults, in that order.

A name in the environment is `PALIMPSEST__SECTION__KEY`; with `_FILE` behind it, the value is read from that
file. A name that no setting has stops start-up with the nearest valid one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PREFIX = "PALIMPSEST__"
CONFIG_FILE = "palimpsest.toml"
GIB = 1 << 30
MIB = 1 << 20


class ConfigError(Exception):
    """A setting that does not exist or does not parse; the message is for the operator."""


class Section(BaseModel):
    """One group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Api(Section):
    """The HTTP server and what it keeps in memory."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8321, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    cache_bytes: int = Field(
        2 * GIB, ge=MIB, description="Memory for loaded versions; least recently used go."
    )
    predict_queue: int = Field(32, ge=1, description="Predictions that may wait; beyond it 503.")
    predict_threads: int = Field(1, ge=1, le=64, description="Threads that compute predictions.")
    refresh_seconds: float = Field(
        0.5, gt=0, le=60, description="How often memory is checked against the database."
    )


class DatabaseSection(Section):
    """Where the tables are."""

    url: str = Field("", description="SQLAlchemy URL; empty means SQLite in the data directory.")


class Broker(Section):
    """How workers are woken."""

    url: str = Field("", description="Celery broker URL; empty means the file system in the data directory.")
    polling_seconds: float = Field(0.05, gt=0, le=10, description="Poll of the file system broker.")


class Files(Section):
    """Where bytes are."""

    objects: Path | None = Field(
        None, description="Directory of encrypted files; default `objects` in the data directory."
    )
    keys: Path | None = Field(
        None, description="Directory of keys and ledger, mirrored and never archived; default `keys`."
    )


class Jobs(Section):
    """Leases and their clocks."""

    lease_seconds: float = Field(60, gt=0, description="How long a claim holds without a heartbeat.")
    heartbeat_seconds: float = Field(15, gt=0, description="How often a worker renews its lease.")
    sweep_seconds: float = Field(
        15, gt=0, description="How often expired leases and unrung jobs are looked for."
    )
    cancel_grace_seconds: float = Field(
        30, gt=0, description="How long a job may take to stop before it is ended."
    )
    silent_seconds: float = Field(
        120, gt=0, description="How long an idle worker may hear nothing while jobs wait, before it restarts."
    )
    max_attempts: int = Field(3, ge=1, le=20, description="Attempts of one job, lost workers included.")
    limit_seconds: float = Field(86_400, gt=0, description="How long one attempt of a job may compute.")
    update_queue: Literal["cpu", "gpu"] = Field("cpu", description="Queue of updates; gpu where one works.")
    memory_bytes: int = Field(
        8 * GIB, ge=MIB, description="Memory for solving a head; a width that would need more is refused."
    )
    orphan_seconds: float = Field(
        3_600, gt=0, description="Age at which a file that no row names is removed."
    )

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Jobs:
        if self.heartbeat_seconds >= self.lease_seconds:
            raise ValueError("heartbeat_seconds must be less than lease_seconds, or every lease runs out")
        return self


class Limits(Section):
    """What a client may send; all of it is shown at `GET /v1/limits`."""

    body_bytes: int = Field(4 * GIB, ge=1, description="Largest body of an upload.")
    json_bytes: int = Field(64 * MIB, ge=1, description="Largest JSON body.")
    json_dataset_bytes: int = Field(
        8 * MIB, ge=1, description="Largest dataset as JSON, which is parsed at once; JSON lines are not."
    )
    samples: int = Field(10_000_000, ge=1, description="Rows of one dataset.")
    features: int = Field(65_536, ge=1, description="Values of one row.")
    classes: int = Field(10_000, ge=1, description="Classes of one model.")
    expansion_ratio: int = Field(100, ge=1, description="Expanded size over compressed size.")
    expanded_bytes: int = Field(16 * GIB, ge=1, description="What an archive may expand to.")
    archive_members: int = Field(10_000, ge=1, description="Members of an archive.")
    subjects_per_row: int = Field(1_000, ge=1, description="Persons named by one row.")
    predict_rows: int = Field(10_000, ge=1, description="Rows of one prediction.")
    predict_bytes: int = Field(64 * MIB, ge=1, description="Largest body of one prediction.")
    import_bytes: int = Field(512 * MIB, ge=1, description="Largest imported head, and what it expands to.")
    idle_seconds: float = Field(60, gt=0, description="How long an upload may send nothing.")


class Backups(Section):
    """What an operator promises of copies that the service cannot reach; certificates name the days."""

    keep_days: int = Field(30, ge=0, description="How long a backup is kept at most; 0: none is made.")
    wal_days: int = Field(
        7, ge=0, description="How long PostgreSQL's log and dead rows, archives included, stay at most."
    )


class Idempotency(Section):
    """How long answers are kept for replay."""

    keep_seconds: float = Field(72 * 3_600, gt=0, description="Age at which a record is removed.")


class Forget(Section):
    """How forget requests are decided and when they are due."""

    two_person: bool = Field(False, description="Whether another key than the creator's must approve.")
    batch_window_seconds: float = Field(
        0,
        ge=0,
        le=30 * 86_400,
        description="How long an approved request waits for others of its model, at most until it is due; "
        "updates of the model wait too.",
    )
    time_zone: str = Field("UTC", description="Where calendar months of due dates are counted.")

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {value!r}; one is Europe/Berlin") from None
        return value


class Callbacks(Section):
    """Messages to those who asked for something to be forgotten."""

    allowed_networks: str = Field(
        "",
        description="Private networks that callbacks may reach, over plain http too: 10.1.0.0/16, fd00::/8.",
    )

    @field_validator("allowed_networks")
    @classmethod
    def _written(cls, value: str) -> str:
        for part in filter(None, (part.strip() for part in value.split(","))):
            ip_network(part)
        return value


class Settings(Section):
    """Everything an operator may set."""

    data_dir: Path = Field(Path("palimpsest-data"), description="Directory of everything the service stores.")
    api: Api = Field(default_factory=Api)
    database: DatabaseSection = Field(default_factory=DatabaseSection)
    broker: Broker = Field(default_factory=Broker)
    files: Files = Field(default_factory=Files)
    jobs: Jobs = Field(default_factory=Jobs)
    limits: Limits = Field(default_factory=Limits)
    idempotency: Idempotency = Field(default_factory=Idempotency)
    backups: Backups = Field(default_factory=Backups)
    forget: Forget = Field(default_factory=Forget)
    callbacks: Callbacks = Field(default_factory=Callbacks)

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{self.data_dir.absolute() / 'palimpsest.db'}"

    @property
    def objects_dir(self) -> Path:
        return self.files.objects or self.data_dir / "objects"

    @property
    def keys_dir(self) -> Path:
        return self.files.keys or self.data_dir / "keys"

    @property
    def ledger_dir(self) -> Path:
        return self.keys_dir / "ledger"


@dataclass(frozen=True)
class Loaded:
    """Settings, and for each name that was given, who gave it."""

    settings: Settings
    sources: Mapping[str, str]  # "api.port" -> "environment"


def names() -> dict[str, tuple[str, ...]]:
    """Every setting: its name in the environment and its path."""
    found: dict[str, tuple[str, ...]] = {}
    for name, field in Settings.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            for key in inner.model_fields:
                found[f"{PREFIX}{name}__{key}".upper()] = (name, key)
        else:
            found[f"{PREFIX}{name}".upper()] = (name,)
    return found


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
    """Read settings; `flags` are dotted names, `None` values are not given. Raises `ConfigError`."""
    environ = os.environ if environ is None else environ
    layers = (
        ("file", _from_file(Path(environ.get("PALIMPSEST_CONFIG", CONFIG_FILE)))),
        ("environment", _from_environment(environ)),
        ("flag", {tuple(k.split(".")): v for k, v in (flags or {}).items() if v is not None}),
    )
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in layers:
        for path, value in values.items():
            at = tree
            for part in path[:-1]:
                at = at.setdefault(part, {})
                if not isinstance(at, dict):
                    raise ConfigError(f"{part} is a section of settings and no value")
            at[path[-1]] = value
            sources[".".join(path)] = source
    try:
        return Loaded(Settings.model_validate(tree), sources)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _from_environment(environ: Mapping[str, str]) -> dict[tuple[str, ...], Any]:
    valid = names()
    given: dict[tuple[str, ...], Any] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX):
            continue
        plain = name.removesuffix("_FILE") if name not in valid else name
        if plain not in valid:
            near = difflib.get_close_matches(plain, valid, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{name} is no setting; the nearest is {near}")
        given[valid[plain]] = value if plain == name else _secret(name, Path(value))
    return given


def _secret(name: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: {path} cannot be read: {error}") from None


def _from_file(path: Path) -> dict[tuple[str, ...], Any]:
    if not path.exists():
        return {}
    try:
        tree = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    flat: dict[tuple[str, ...], Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({(name, key): inner for key, inner in value.items()})
        else:
            flat[(name,)] = value
    return flat
