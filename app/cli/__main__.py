"""`python -m app.cli` is `palimpsest`."""

from __future__ import annotations

from app.cli import main

main()
