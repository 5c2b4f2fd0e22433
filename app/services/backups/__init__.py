"""Backups without keys or ledger, and restores that never bring back what was erased."""
