"""A worker whose computing process is the tests' own."""

import sys

from workers import __main__


def main():
    __main__.main([sys.executable, "-m", "tests.workers.child"])


if __name__ == "__main__":
    main()
