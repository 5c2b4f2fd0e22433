"""Who may take a request back, and who may let versions go for it.

Who may only ask takes back nothing that somebody with `forget:approve` decided,
and nothing that others asked for.
"""

from __future__ import annotations

from app.errors import Forbidden
from app.service import Caller, Service
from app.tables import ForgetRequest


def may_cancel(service: Service, caller: Caller, request: ForgetRequest) -> None:
    """Raise `Forbidden` for a request that was approved, or that another key made, unless the caller may
    approve. The request's row is held."""
    if caller.may("forget:approve"):
        return
    if request.sequence is not None or service.ledger.get(request.id, "approve") is not None:
        raise Forbidden("the request was approved: to cancel it needs scope forget:approve")
    if request.creator != caller.actor:
        raise Forbidden("another key made the request: to cancel it needs scope forget:approve")


def may_withdraw(caller: Caller) -> None:
    """Raise `Forbidden` unless the caller may let versions go without a replacement."""
    if not caller.may("forget:approve"):
        raise Forbidden("to withdraw versions needs scope forget:approve", pointer="/withdraw")
