"""Scripts that talk to a started service over HTTP."""
