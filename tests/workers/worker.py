"""A worker whose computing process is the tests' own."""

import sys

from workers.__main__ import main

if __name__ == "__main__":
    main([sys.executable, "-m", "tests.workers.child"])
