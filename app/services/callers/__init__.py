"""Who calls, once, and on record: keys and tenants, idempotency, the audit chain."""
