"""Models that update themselves: what was offered, what was decided, what came of it."""
