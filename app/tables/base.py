"""What all tables share: names of constraints, ids, times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData, String, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from app import ids

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time, on SQLite too."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Positions(TypeDecorator[list[int]]):
    """Positions of rows, rising, as JSON in which a run is `[first, last]`: a person's rows often are one."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Iterable[int] | None, dialect: Dialect) -> list[Any] | None:
        if value is None:
            return None
        runs: list[list[int]] = []
        for at in value:
            if runs and at == runs[-1][1] + 1:
                runs[-1][1] = at
            else:
                runs.append([at, at])
        return [first if first == last else [first, last] for first, last in runs]

    def process_result_value(self, value: list[Any] | None, dialect: Dialect) -> list[int] | None:
        if value is None:
            return None
        runs = (range(one[0], one[1] + 1) if isinstance(one, list) else (one,) for one in value)
        return list(chain.from_iterable(runs))


Sequence = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts only INTEGER keys by itself


class Base(DeclarativeBase):
    """Rows of one table. Every table but the shared ones names its tenant."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime,
        UUID: Uuid,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        list[str]: JSON,
        list[int]: JSON,
        int: BigInteger,
        str: String,
    }


class WithId:
    """A row with an id of its own."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=ids.new)
    created_at: Mapped[datetime]
