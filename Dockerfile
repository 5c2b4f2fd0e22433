# One build, two targets: `api` (also CPU workers, scheduler, migrations) and `worker` (CUDA).
#
#   docker build --target worker .                                         the CUDA build of torch
#   docker build --target api --build-arg PIP_EXTRA_INDEX_URL=<index> .    the CPU build, from an index that has it
#
# Without that index both carry the CUDA build, which also computes on CPU; its libraries come with torch.
FROM python:3.11.11-slim-bookworm AS installed
ARG PIP_EXTRA_INDEX_URL=
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/venv/bin:$PATH
RUN python -m venv /venv
WORKDIR /srv
# torch first and alone: it is the big layer, and resolved with the rest pip may prefer another build of it.
COPY constraints.txt ./
RUN pip install $(grep -E '^(torch|numpy)==' constraints.txt)
COPY pyproject.toml README.md ./
COPY app app
COPY workers workers
COPY migrations migrations
RUN pip install -c constraints.txt '.[columnar]'

# Nothing is written outside /data, /keys and /tmp, so the root may be read-only.
RUN useradd --uid 10001 --create-home palimpsest && install -d -o palimpsest -g palimpsest -m 0700 /data /keys
ENV PYTHONDONTWRITEBYTECODE=1 PALIMPSEST__DATA_DIR=/data PALIMPSEST__FILES__KEYS=/keys
USER palimpsest
WORKDIR /data
VOLUME ["/data", "/keys"]

FROM installed AS worker
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["palimpsest", "worker", "--queues", "gpu"]

FROM installed AS api
EXPOSE 8321
CMD ["palimpsest", "serve", "--api-only", "--host", "0.0.0.0"]
