"""The schema of the database: its revision, bringing it to the newest, refusing any other."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.db import Database


class SchemaMismatch(Exception):
    """The database has another revision than this release; the message is for the operator."""


def head() -> str:
    """The revision that this release works with."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def known() -> set[str]:
    """Every revision that this release can bring up to its own."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def current(db: Database) -> str | None:
    """The revision of the database; None where it is empty."""
    with db.engine.execution_options(read_only=True).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(db: Database, revision: str = "head") -> None:
    """Bring the database to a revision. Of several processes that start together one does it."""
    command.upgrade(_config(db), revision)


def downgrade(db: Database, revision: str) -> None:
    """Take the database back to a revision, or to `base`."""
    command.downgrade(_config(db), revision)


def check(db: Database) -> None:
    """Raises `SchemaMismatch` unless the database has exactly this release's revision."""
    there, here = current(db), head()
    if there == here:
        return
    if there is None:
        advice = "it is empty: run `palimpsest db upgrade`"
    elif there in known():
        advice = "it is behind: run `palimpsest db upgrade`"
    else:
        advice = "it is ahead: run the release that wrote it, or a newer one"
    raise SchemaMismatch(f"the database has schema {there}, this release works with {here}; {advice}")


def prepare(db: Database) -> None:
    """For the embedded trial: an empty database is brought up, any other must fit."""
    if current(db) is None:
        upgrade(db)
    check(db)


def _config(db: Database | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    config.attributes["database"] = db
    return config
