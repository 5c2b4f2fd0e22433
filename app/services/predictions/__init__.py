"""Versions in memory and the scores they give."""
