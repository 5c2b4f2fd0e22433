"""Forget requests on the wire. What comes in may name persons; nothing that goes out does."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from app.ids import DatasetId, ForgetId, JobId, ModelId
from app.schemas.base import Answer, Body, Text, text
from app.schemas.times import Instant

MOST_PERSONS = 10_000
MOST_POSITIONS = 100_000
SECRET = r"^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"
EXAMPLE_ID = "fgt_01jd8x4r9kf3v5n2m7q6t0a1bc"

Scope = Literal["subject", "samples", "class"]
Guarantee = Literal["exact", "certified", "approximate"]
Regulation = Literal["gdpr", "ccpa"]
RequestState = Literal[
    "received",
    "awaiting-approval",
    "locating",
    "unlearning",
    "verifying",
    "publishing",
    "purging",
    "completed",
    "completed-with-exceptions",
    "rejected",
    "cancelled",
    "failed",
]
Identifier = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000), AfterValidator(text)
]
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500), AfterValidator(text)
]


def _silent(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """What is wrong in a target is said without a word of it: a key of an object may be a person too."""
    try:
        return handler(value)
    except ValidationError:
        raise ValueError(
            "a target is a text of 1 to 1000 characters, {any_of: [texts]} or {dataset, positions}"
        ) from None


class AnyOf(Body):
    """One person, or one sample, by several identifiers."""

    any_of: list[Identifier] = Field(min_length=1, max_length=100)


class RowsOf(Body):
    """Rows by where they stand."""

    dataset: DatasetId
    positions: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=MOST_POSITIONS)


Target = Annotated[Identifier | AnyOf | RowsOf, WrapValidator(_silent)]
Targets = Annotated[
    Annotated[list[Target], Field(min_length=1, max_length=MOST_PERSONS), Tag("list")]
    | Annotated[AnyOf, WrapValidator(_silent), Tag("any_of")],
    Discriminator(lambda value: "any_of" if isinstance(value, dict | AnyOf) else "list"),
]


class MethodChoice(Body):
    """How models are cleaned."""

    name: Annotated[Text, Field(min_length=1, max_length=100)] = Field(
        "auto",
        description="auto: the cheapest exact way. exact: subtraction from the statistics, or the steps "
        "replayed; where only training a network would do the request fails with needs-retrain. retrain: all "
        "that learned from the rows anew from what is left, the network where it saw them.",
    )
    params: dict[str, Any] = Field(default={}, description="Parameters of the method.")

    @model_validator(mode="before")
    @classmethod
    def _not_a_bare_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError('a method is an object: {"name": "auto"}')
        return value


class Callback(Body):
    """Where the request's events are told, and the secret that signs them."""

    url: Annotated[Text, StringConstraints(min_length=1, max_length=2_000)] = Field(
        description="An https address that is public; it is looked at again whenever it is called."
    )
    secret: Annotated[str, StringConstraints(max_length=100, pattern=SECRET)] = Field(
        repr=False,
        description="`whsec_` and 24 to 64 random bytes in base64. Kept as a key, never shown again.",
        json_schema_extra={"writeOnly": True},
    )


class ForgetCreate(Body):
    """Erase persons, samples or classes."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "scope": "subject",
                "targets": ["ada@example.org", {"any_of": ["ben@example.org", "customer 1742"]}],
                "regulation": "gdpr",
                "external_id": "ticket-4711",
            }
        }
    )

    scope: Scope
    targets: Targets = Field(
        description="Of subject: persons, each a text or {any_of: [texts]}. Of samples: sample ids, or "
        "{dataset, positions}. Of class: ids of classes. Texts are trimmed and put into NFC, never "
        "case-folded, and only their keyed digests are kept.",
    )
    shared_rows: Literal["erase", "report"] = Field(
        "erase", description="Rows that name other persons too: erase them, or leave them and report them."
    )
    models: list[ModelId] | None = Field(
        None, min_length=1, max_length=1_000, description="Only these; left out: all of the tenant."
    )
    method: MethodChoice = Field(default_factory=MethodChoice)
    accept: Guarantee = Field("exact", description="The weakest guarantee that will do.")
    regulation: Regulation | None = Field(None, description="Sets the due date; left out: as gdpr.")
    submitted_at: Annotated[Instant, Field(strict=False)] | None = Field(
        None, description="When the person asked; left out: now."
    )
    due_at: Annotated[Instant, Field(strict=False)] | None = Field(
        None, description="Left out: one calendar month after `submitted_at`, of ccpa 45 days."
    )
    external_id: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="The caller's own name for this request; not a person's."
    )
    rows: DatasetId | None = Field(
        None, description="The rows sent again, a dataset with `for_forget`, where they were not retained."
    )
    callback: Callback | None = Field(None, description="Told of each step by a signed message.")


class Decision(Body):
    """Why."""

    reason: Reason = Field(description="Shown with the request; names no person.")


class Cancellation(Body):
    """Why, if there is something to say."""

    reason: Reason | None = Field(None, description="Shown with the request; names no person.")


class Extension(Decision):
    """More time, once."""

    months: int = Field(2, ge=1, le=2, description="Of gdpr; ccpa gives 90 days from `submitted_at`.")


class Hold(Decision):
    """A legal duty to keep what is to be erased."""

    until: Annotated[Instant, Field(strict=False)] | None = Field(
        None, description="When the hold ends by itself."
    )


class Retry(Body):
    """What a second try may have that the first one had not."""

    rows: DatasetId | None = Field(None, description="The rows sent again, a dataset with `for_forget`.")
    withdraw: bool = Field(
        False,
        description="Versions that cannot be cleaned without rows that nobody stores any more go without a "
        "replacement; otherwise the request waits for the rows. Needs scope forget:approve.",
    )


class ExtensionRead(Answer):
    """More time, and who gave it."""

    reason: str
    at: datetime
    actor: str
    due_before: datetime


class HoldRead(Answer):
    """A legal hold, and who placed it."""

    reason: str
    until: datetime | None
    actor: str


class ItemState(Answer):
    """One thing in one stage."""

    kind: str
    resource: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]


class StageRead(Answer):
    """A stage that the request has reached."""

    stage: str
    started_at: datetime
    finished_at: datetime | None
    items: list[ItemState] = Field(description="Models, in a stage that each of them goes through.")


class ItemRead(Answer):
    """One thing in the closure of a request and what became of it."""

    kind: str = Field(description="Such as model, version, dataset.")
    resource: str
    state: str
    job: JobId | None
    detail: dict[str, Any]


class ForgetLinks(Answer):
    """Where more is."""

    self: str
    certificate: str | None = Field(description="Once the request is completed.")


class ForgetSummary(Answer):
    """One forget request, without its stages."""

    id: ForgetId
    state: RequestState
    done: bool
    scope: Scope
    persons: int = Field(description="Entries of `targets`.")
    external_id: str | None
    regulation: Regulation | None
    submitted_at: datetime
    due_at: datetime
    days_left: int = Field(description="Whole days until it is due; negative once it is late.")
    overdue: bool = Field(description="Late, and not done; on hold too.")
    hold: HoldRead | None
    duplicate_of: ForgetId | None = Field(description="The open request that this one joined.")
    created_at: datetime
    finished_at: datetime | None
    revision: int


class CallbackRead(Answer):
    """Where events are told."""

    url: str


class ForgetRead(ForgetSummary):
    """One erasure that somebody asked for, from receipt to certificate."""

    shared_rows: Literal["erase", "report"]
    models: list[ModelId] | None
    method: dict[str, Any]
    accept: Guarantee
    rows: DatasetId | None
    callback: CallbackRead | None
    extension: ExtensionRead | None
    creator: str = Field(description="`key:` and an API key.")
    decider: str | None = Field(description="Who approved or rejected it.")
    reason: str | None = Field(description="Of a rejection or cancellation.")
    ledger_sequence: int | None = Field(description="Its entry in the ledger, from approval on.")
    stages: list[StageRead]
    items: list[ItemRead]
    evidence: dict[str, Any] = Field(description="Counts: what was found and done.")
    exceptions: list[dict[str, Any]] = Field(description="What was not done, and why.")
    links: ForgetLinks
