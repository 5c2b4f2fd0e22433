"""Forget requests: what was asked, what it touches, certificates, signing keys, deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_signing_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "restores",
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ledger_sequence", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restores")),
    )
    op.create_table(
        "forget_requests",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("persons", sa.BigInteger(), nullable=False),
        sa.Column("shared_rows", sa.String(), nullable=False),
        sa.Column("models", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("method", sa.JSON(), nullable=False),
        sa.Column("accept", sa.String(), nullable=False),
        sa.Column("regulation", sa.String(), nullable=True),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("extension", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("hold", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("callback_key_id", sa.Uuid(), nullable=True),
        sa.Column("rows_id", sa.Uuid(), nullable=True),
        sa.Column("withdraw", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("creator", sa.String(), nullable=False),
        sa.Column("decider", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("duplicate_of", sa.Uuid(), nullable=True),
        sa.Column("stages", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("exceptions", sa.JSON(), nullable=False),
        sa.Column("reminders", sa.JSON(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["duplicate_of"], ["forget_requests.id"], name=op.f("fk_forget_requests_duplicate_of")
        ),
        sa.ForeignKeyConstraint(["rows_id"], ["datasets.id"], name=op.f("fk_forget_requests_rows_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_forget_requests_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forget_requests")),
    )
    op.create_index(op.f("ix_forget_requests_state"), "forget_requests", ["state"], unique=False)
    op.create_index(
        op.f("ix_forget_requests_duplicate_of"), "forget_requests", ["duplicate_of"], unique=False
    )
    op.create_index(
        op.f("ix_forget_requests_tenant_id_created_at"),
        "forget_requests",
        ["tenant_id", "created_at"],
        unique=False,
    )

    op.create_table(
        "row_indexes",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("feature_map_id", sa.Uuid(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_row_indexes_dataset_id")),
        sa.ForeignKeyConstraint(
            ["feature_map_id"], ["feature_maps.id"], name=op.f("fk_row_indexes_feature_map_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_row_indexes_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_row_indexes")),
        sa.UniqueConstraint(
            "dataset_id", "feature_map_id", name=op.f("uq_row_indexes_dataset_id_feature_map_id")
        ),
    )
    op.create_table(
        "certificates",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("signing_key_id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["forget_requests.id"], name=op.f("fk_certificates_request_id")
        ),
        sa.ForeignKeyConstraint(
            ["signing_key_id"], ["signing_keys.id"], name=op.f("fk_certificates_signing_key_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_certificates_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificates")),
        sa.UniqueConstraint("request_id", name=op.f("uq_certificates_request_id")),
    )
    op.create_table(
        "deliveries",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("replay_of", sa.Uuid(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["replay_of"], ["deliveries.id"], name=op.f("fk_deliveries_replay_of")),
        sa.ForeignKeyConstraint(
            ["request_id"], ["forget_requests.id"], name=op.f("fk_deliveries_request_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_deliveries_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index(op.f("ix_deliveries_request_id"), "deliveries", ["request_id"], unique=False)
    op.create_index(op.f("ix_deliveries_state_next_at"), "deliveries", ["state", "next_at"], unique=False)

    op.create_table(
        "forget_targets",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("person", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["forget_requests.id"], name=op.f("fk_forget_targets_request_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_forget_targets_tenant_id")),
        sa.PrimaryKeyConstraint("request_id", "person", "target", name=op.f("pk_forget_targets")),
    )
    op.create_index(
        op.f("ix_forget_targets_tenant_id_target"), "forget_targets", ["tenant_id", "target"], unique=False
    )

    op.create_table(
        "forget_items",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("resource_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_forget_items_job_id")),
        sa.ForeignKeyConstraint(
            ["request_id"], ["forget_requests.id"], name=op.f("fk_forget_items_request_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_forget_items_tenant_id")),
        sa.PrimaryKeyConstraint("request_id", "kind", "resource_id", name=op.f("pk_forget_items")),
    )
    op.create_index(op.f("ix_forget_items_job_id"), "forget_items", ["job_id"], unique=False)
    op.create_index(
        op.f("ix_forget_items_kind_resource_id"), "forget_items", ["kind", "resource_id"], unique=False
    )

    with op.batch_alter_table("datasets") as table:
        table.add_column(sa.Column("for_forget", sa.Boolean(), nullable=False, server_default=sa.false()))

    with op.batch_alter_table("datasets") as table:
        table.alter_column("for_forget", server_default=None, existing_type=sa.Boolean())

    with op.batch_alter_table("ledger_entries") as table:
        table.add_column(sa.Column("models", sa.JSON(none_as_null=True), nullable=True))
        table.add_column(sa.Column("located", sa.BigInteger(), nullable=True))

    with op.batch_alter_table("models") as table:
        table.add_column(
            sa.Column("on_taint", sa.String(), nullable=False, server_default="serve-until-replaced")
        )
    with op.batch_alter_table("models") as table:
        table.alter_column("on_taint", server_default=None, existing_type=sa.String())

    op.create_index(op.f("ix_ledger_entries_request_id"), "ledger_entries", ["request_id"], unique=False)
    op.create_index(op.f("ix_erased_rows_sequence"), "erased_rows", ["sequence"], unique=False)
    op.create_index(op.f("ix_versions_replaces_id"), "versions", ["replaces_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_versions_replaces_id"), table_name="versions")
    op.drop_index(op.f("ix_erased_rows_sequence"), table_name="erased_rows")
    op.drop_index(op.f("ix_ledger_entries_request_id"), table_name="ledger_entries")

    op.drop_table("restores")
    with op.batch_alter_table("models") as table:
        table.drop_column("on_taint")

    with op.batch_alter_table("ledger_entries") as table:
        table.drop_column("located")
        table.drop_column("models")

    with op.batch_alter_table("datasets") as table:
        table.drop_column("for_forget")

    op.drop_table("forget_items")

    op.drop_table("forget_targets")

    op.drop_table("deliveries")
    op.drop_table("certificates")
    op.drop_table("row_indexes")

    op.drop_table("forget_requests")
    op.drop_table("signing_keys")
