"""The command line. Importing it loads no torch, FastAPI or SQLAlchemy: commands load what they need."""

from __future__ import annotations

from app.cli.root import main

__all__ = ["main"]
