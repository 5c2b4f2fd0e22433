"""Jobs, from acceptance to their end. Every time in here is the database's.

`rows` makes one, `claims` hands it to a worker, `leases` keeps and checks the worker's right to it, `ends`
closes it by the cause, `wishes` is what callers ask of it, `sweeps` finds what nobody holds any more.
"""

from app.services.jobs.claims import claim
from app.services.jobs.ends import cancelled, drop_checkpoints, fail, finish, requeue
from app.services.jobs.leases import (
    ClaimedJob,
    LeaseLost,
    Signal,
    Stopped,
    guard,
    look,
    note,
    note_fenced,
    progress,
    renew,
)
from app.services.jobs.rows import ACTIVE, DONE, Cause, State, Urgency, new_job, say
from app.services.jobs.sweeps import lane_head, sweep, waiting, waiting_on
from app.services.jobs.wishes import (
    blocked_by,
    cancel_in,
    check_cancellable,
    events_after,
    own,
    retry_in,
)

__all__ = [
    "ACTIVE",
    "DONE",
    "Cause",
    "ClaimedJob",
    "LeaseLost",
    "Signal",
    "State",
    "Stopped",
    "Urgency",
    "blocked_by",
    "cancel_in",
    "cancelled",
    "check_cancellable",
    "claim",
    "drop_checkpoints",
    "events_after",
    "fail",
    "finish",
    "guard",
    "lane_head",
    "look",
    "new_job",
    "note",
    "note_fenced",
    "own",
    "progress",
    "renew",
    "requeue",
    "retry_in",
    "say",
    "sweep",
    "waiting",
    "waiting_on",
]
