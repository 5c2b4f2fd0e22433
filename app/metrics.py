"""What Prometheus reads: base units, no ids and no class names as labels."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

# Jobs are worked on by other processes, so their numbers come from the database: `services/scrape`.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

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
ARTIFACT_FAILURES = Counter(
    "palimpsest_artifact_verify_failures", "Stored files that did not have their digest."
)
