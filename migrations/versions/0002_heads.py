"""What closed-form heads need: settings of a model, a file of statistics per version, how many are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("models") as table:
        table.add_column(sa.Column("expansion", sa.JSON(none_as_null=True), nullable=True))
        table.add_column(sa.Column("ridge", sa.JSON(), nullable=False, server_default='{"k": -4}'))
        table.add_column(sa.Column("target", sa.JSON(none_as_null=True), nullable=True))
        table.add_column(sa.Column("keep_versions", sa.BigInteger(), nullable=False, server_default="5"))
    with op.batch_alter_table("models") as table:
        table.alter_column("ridge", server_default=None, existing_type=sa.JSON())
        table.alter_column("keep_versions", server_default=None, existing_type=sa.BigInteger())
    with op.batch_alter_table("versions") as table:
        table.add_column(sa.Column("statistics_file_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("versions") as table:
        table.drop_column("statistics_file_id")
    with op.batch_alter_table("models") as table:
        for name in ("keep_versions", "target", "ridge", "expansion"):
            table.drop_column(name)
