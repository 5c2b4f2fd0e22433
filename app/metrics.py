"""What Prometheus reads: base units, no ids and no class names as labels."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LONG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1_800, 3_600, 14_400)

HTTP_REQUESTS = Counter("palimpsest_http_requests", "Requests answered.", ("route", "method", "status"))
HTTP_SECONDS = Histogram(
    "palimpsest_http_request_duration_seconds",
    "From the first byte of a request to the end of its answer.",
    ("route", "method"),
    buckets=SECONDS,
)
PREDICT_SECONDS = Histogram(
    "palimpsest_predict_duration_seconds", "Predictions, waiting included.", buckets=SECONDS
)
JOB_QUEUE_SECONDS = Histogram(
    "palimpsest_job_queue_seconds", "From queued to claimed.", ("kind",), buckets=LONG_SECONDS
)
JOB_RUN_SECONDS = Histogram(
    "palimpsest_job_run_seconds", "From claimed to closed.", ("kind",), buckets=LONG_SECONDS
)
JOB_LEASE_EXPIRED = Counter("palimpsest_job_lease_expired", "Leases that the sweep took back.")
JOB_FENCED = Counter("palimpsest_job_fenced", "Publications refused for an older lease.")
ARTIFACT_FAILURES = Counter(
    "palimpsest_artifact_verify_failures", "Stored files that did not have their digest."
)
