"""Models that update themselves: the policy of a model, datasets that wait for it, its decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("models") as table:
        table.add_column(sa.Column("update_policy", sa.JSON(none_as_null=True), nullable=True))
        table.add_column(sa.Column("policy_key_id", sa.Uuid(), nullable=True))
        table.add_column(sa.Column("policy_set_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "offers",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("offered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_offers_model_id")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_offers_dataset_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_offers_tenant_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_offers_job_id")),
        sa.PrimaryKeyConstraint("model_id", "dataset_id", name=op.f("pk_offers")),
    )
    op.create_index(op.f("ix_offers_state"), "offers", ["state"], unique=False)
    op.create_index(op.f("ix_offers_dataset_id"), "offers", ["dataset_id"], unique=False)
    op.create_table(
        "decisions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("datasets", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("alias", sa.String(), nullable=True),
        sa.Column("gates", sa.JSON(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_decisions_tenant_id")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_decisions_model_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_decisions_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    op.create_index(
        op.f("ix_decisions_model_id_created_at"), "decisions", ["model_id", "created_at"], unique=False
    )


def downgrade() -> None:
    op.drop_table("decisions")
    op.drop_table("offers")
    with op.batch_alter_table("models") as table:
        for name in ("policy_set_at", "policy_key_id", "update_policy"):
            table.drop_column(name)
