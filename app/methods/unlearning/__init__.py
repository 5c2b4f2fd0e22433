"""Methods that take rows away from a version."""
