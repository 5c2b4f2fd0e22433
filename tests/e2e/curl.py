#!/usr/bin/env python3
"""The part of curl that the documentation uses, for machines without curl.

Knows -s -f -N -X -H -d --data-binary -D - -o -w '%{http_code}'; anything else is an error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import httpx


def main() -> int:
    parser = argparse.ArgumentParser(prog="curl", add_help=False, allow_abbrev=False)
    for flag in ("-s", "-f", "-N"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-X")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d", "--data-binary", dest="data")
    parser.add_argument("-D")
    parser.add_argument("-o")
    parser.add_argument("-w")
    parser.add_argument("url")
    given = parser.parse_args()
    headers = dict(line.split(": ", 1) for line in given.H)
    body = given.data
    content = Path(body[1:]).read_bytes() if body and body.startswith("@") else (body or "").encode()
    method = given.X or ("POST" if body is not None else "GET")
    answer = httpx.request(
        method, given.url, headers=headers, content=content if body is not None else None, timeout=60
    )
    if given.f and answer.is_error:
        return 22
    out = sys.stdout.buffer
    if given.D == "-":
        out.write(f"HTTP/1.1 {answer.status_code}\r\n".encode())
        out.writelines(f"{name}: {value}\r\n".encode() for name, value in answer.headers.items())
    if given.o:
        Path(given.o).write_bytes(answer.content)
    else:
        out.write(answer.content)
    if given.w:
        out.write(given.w.replace("%{http_code}", str(answer.status_code)).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
