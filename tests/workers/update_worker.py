"""A worker whose computing process runs updates and forget jobs that can be held at a stage."""

import sys

from workers import __main__

if __name__ == "__main__":
    __main__.main([sys.executable, "-m", "tests.workers.update_child"])
