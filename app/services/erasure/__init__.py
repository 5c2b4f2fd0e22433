"""What the ledger says, and what is destroyed."""
