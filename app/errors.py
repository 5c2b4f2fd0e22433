"""Every error a caller can meet: one class each, with its status and its stable code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where (a JSON pointer, or the name of a field), a code, what to do."""

    pointer: str
    code: str
    message: str


class AppError(Exception):
    """The root. `detail` is for people and never holds a subject, content, a path or a stack trace."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong here"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        pointer: str | None = None,
        errors: Sequence[Fault] = (),
        related: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        own = (Fault(pointer, self.code, detail),) if pointer else ()
        self.errors = (*own, *errors)
        self.related = tuple(related)
        self.headers = dict(headers or {})


class InvalidRequest(AppError):
    status, code, title = 400, "invalid-request", "The request cannot be read"


class MissingIdempotencyKey(AppError):
    status, code, title = 400, "missing-idempotency-key", "This call needs an Idempotency-Key"


class Unauthorized(AppError):
    status, code, title = 401, "unauthorized", "No valid API key"


class Forbidden(AppError):
    status, code, title = 403, "missing-scope", "This API key may not do that"


class NotFound(AppError):
    status, code, title = 404, "not-found", "There is no such thing"


class MethodNotAllowed(AppError):
    status, code, title = 405, "method-not-allowed", "That address does not take this method"


class Purged(AppError):
    status, code, title = 410, "purged", "This was destroyed"


class IdempotencyInProgress(AppError):
    status, code, title = 409, "idempotency-in-progress", "The first call with this key is still running"
    retryable = True


class ClassNameConflict(AppError):
    status, code, title = 409, "class-name-conflict", "A class of that name exists"


class NameConflict(AppError):
    status, code, title = 409, "name-conflict", "That name is taken"


class VersionTainted(AppError):
    status, code, title = 409, "version-tainted", "Version contains erased data"


class VersionNotReady(AppError):
    status, code, title = 409, "version-not-ready", "Version cannot be used"


class AliasProtected(AppError):
    status, code, title = 409, "alias-protected", "The alias is protected"


class JobNotCancellable(AppError):
    status, code, title = 409, "job-not-cancellable", "The job can no longer be cancelled"


class JobNotRetryable(AppError):
    status, code, title = 409, "job-not-retryable", "The job cannot be retried"


class ApprovalRequired(AppError):
    status, code, title = 409, "approval-required", "Another person must approve this"


class RequestStateConflict(AppError):
    status, code, title = 409, "request-state", "The forget request is in another state"


class MissingData(AppError):
    status, code, title = 409, "missing-data", "The method needs data that is not there"


class AlreadyUsed(AppError):
    status, code, title = 409, "already-used", "The version has these rows already"


class SubjectErased(AppError):
    status, code, title = 409, "subject-erased", "A row names an erased person"


class SubjectRestricted(AppError):
    status, code, title = 409, "subject-restricted", "A row is restricted by a forget request"


class HasVersions(AppError):
    status, code, title = 409, "has-versions", "The model has versions already"


class InUse(AppError):
    status, code, title = 409, "in-use", "Something else still needs this"


class PreconditionFailed(AppError):
    status, code, title = 412, "precondition-failed", "It has changed since you read it"


class BodyTooLarge(AppError):
    status, code, title = 413, "body-too-large", "The body is over a limit"


class UnsupportedMedia(AppError):
    status, code, title = 415, "unsupported-media", "The format is not supported"


class UnsafeFormat(AppError):
    status, code, title = 415, "unsafe-format", "The format can carry code"


class ValidationFailed(AppError):
    status, code, title = 422, "validation-failed", "A value is not valid"


class DeadlinePassed(AppError):
    status, code, title = 422, "deadline-passed", "The due date has passed"


class IdempotencyMismatch(AppError):
    status, code, title = 422, "idempotency-mismatch", "The key was used with another request"


class UnsupportedTask(AppError):
    status, code, title = 422, "unsupported-task", "No method serves that task"


class DimensionMismatch(AppError):
    status, code, title = 422, "dimension-mismatch", "The rows have another shape than the model's input"


class NonFinite(AppError):
    status, code, title = 422, "non-finite-values", "A value is not finite"


class TooFewSamples(AppError):
    status, code, title = 422, "too-few-samples", "There are too few rows"


class PreconditionRequired(AppError):
    status, code, title = 428, "precondition-required", "This change needs If-Match"


class NotReady(AppError):
    status, code, title = 503, "not-ready", "The service cannot take this now"
    retryable = True


class StorageFull(AppError):
    status, code, title = 503, "storage-full", "There is no space left"
    retryable = True


class ArtifactCorrupt(AppError):
    status, code, title = 500, "artifact-corrupt", "A stored file is damaged or gone"
