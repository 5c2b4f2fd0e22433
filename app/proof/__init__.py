"""Checking what the service says without the service: signed texts, and versions made again from rows."""
