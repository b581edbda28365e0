"""What can go wrong between Stoker and the API server, by what the caller should do next.

::

    ClientError
    ├── Transient          try again later: time-out, refused, 429, 5xx (retry_after where the server says)
    │   └── Expired        410: start the list again
    ├── Conflict           the object changed since it was read: read again, decide again
    │   └── Replaced       the uid that was named is gone: deleted, or a namesake stands in its place
    ├── AlreadyExists      a create was done before, by us or by another
    ├── NotFound           the object, its namespace or its kind is not there
    ├── Rejected           the object itself is wrong (400, 422, …): ``causes`` name the fields
    └── Forbidden          401 or 403: RBAC, a quota or an admission policy says no

Rules of this module:

* The class says what to do, the message says what happened: which call, on what, and the server's words.
* Nothing here holds a request's headers or body: an error is logged and shown in status.

Source of the codes and reasons: k8s.io/apimachinery pkg/apis/meta/v1/types.go (``StatusReason``).
"""

# ruff: noqa: N818 - the names are those of the API server's own reasons, as people know them

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE = 1024
"""Characters of a server's message that are kept; a condition's message is bounded in the same order."""


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked: for messages and for metrics."""

    verb: str
    resource: str
    namespace: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        target = f"{self.verb} {self.resource}"
        if self.name:
            target += f" {self.name}"
        return f"{target} in namespace {self.namespace}" if self.namespace else target


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason of a refusal; ``field`` is the path the server names, empty when it names none."""

    field: str
    reason: str
    message: str


class ClientError(Exception):
    """Base of all failures of a call; never raised itself.

    Attributes:
        call: what was asked, when known.
        status: HTTP status code; None when no answer came.
        reason: the server's machine-readable reason ("" when it gave none).
        detail: the server's words, without what was asked.
        causes: the server's causes, usually one per wrong field.
    """

    def __init__(
        self,
        detail: str,
        *,
        call: Call | None = None,
        status: int | None = None,
        reason: str = "",
        causes: tuple[Cause, ...] = (),
    ) -> None:
        self.call = call
        self.status = status
        self.reason = reason
        self.detail = detail[:MAX_MESSAGE]
        self.causes = causes
        super().__init__(f"cannot {call}: {self.detail}" if call else self.detail)


class Transient(ClientError):
    """The same call may succeed later.

    Attributes:
        retry_after: seconds the server asked to wait; None when it did not say.
    """

    retry_after: float | None = None


class Expired(Transient):
    """A continue token or resourceVersion is too old (410): list again from the start."""


class Conflict(ClientError):
    """The object changed since it was read, or a field belongs to another manager."""


class Replaced(Conflict):
    """The uid that was named is gone: the object was deleted, or a namesake stands in its place."""


class AlreadyExists(ClientError):
    """An object of this name exists."""


class NotFound(ClientError):
    """The object, its namespace or its kind does not exist."""


class Rejected(ClientError):
    """The server understood and refuses: sending the same again gives the same answer."""


class Forbidden(ClientError):
    """The call is not allowed: not authenticated, no RBAC rule, a quota, or an admission policy."""

    @property
    def quota_exceeded(self) -> bool:
        """Whether a ResourceQuota refused the object (the API server has no reason of its own for it)."""
        return "exceeded quota" in self.detail

    @property
    def namespace_terminating(self) -> bool:
        """Whether the namespace is being deleted: nothing more can be created in it."""
        return any(c.reason == "NamespaceTerminating" for c in self.causes)


def classify(
    status: int,
    body: Mapping[str, Any] | str,
    *,
    call: Call | None = None,
    retry_after: str | float | None = None,
) -> ClientError:
    """The error of an answer that is not 2xx.

    Args:
        status: HTTP status code.
        body: the decoded ``Status`` object, or the text when it was no JSON.
        call: what was asked.
        retry_after: the ``Retry-After`` header (seconds).
    """
    answer: Mapping[str, Any] = body if isinstance(body, Mapping) else {"message": body}
    reason = str(answer.get("reason") or "")
    details = answer.get("details")
    details = details if isinstance(details, Mapping) else {}
    causes = _causes(details)
    kind = Replaced if _is_replaced(status, answer, causes) else _kind(status, reason)
    error = kind(_detail(status, answer, call, kind), call=call, status=status, reason=reason, causes=causes)
    if isinstance(error, Transient):
        error.retry_after = _seconds(retry_after) or _seconds(details.get("retryAfterSeconds"))
    return error


_BY_STATUS: Mapping[int, type[ClientError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    408: Transient,
    409: Conflict,
    410: Expired,
    429: Transient,
}


def _kind(status: int, reason: str) -> type[ClientError]:
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists
    return _BY_STATUS.get(status) or (Transient if status >= 500 else Rejected)


_UID_MARKS = ("uid mismatch", "uid in precondition", "uid in the precondition")


def _is_replaced(status: int, answer: Mapping[str, Any], causes: tuple[Cause, ...]) -> bool:
    """Whether a refusal means that the uid in the request is not the object's.

    The API server has no reason of its own for it. Seen on kube-apiserver 1.37: a DELETE, and an apply that
    would create, answer 409 in words; a patch that names another uid answers 422, because the field
    ``metadata.uid`` is immutable.
    """
    if status == 409:
        message = str(answer.get("message") or "").lower()
        return any(mark in message for mark in _UID_MARKS)
    return status == 422 and any(c.field == "metadata.uid" for c in causes)


def _detail(status: int, answer: Mapping[str, Any], call: Call | None, kind: type[ClientError]) -> str:
    message = str(answer.get("message") or "").strip() or f"HTTP {status} without a message"
    if status == 401:
        return (
            f"{message}; the API server does not accept Stoker's credentials: check its token or kubeconfig"
        )
    if kind is Forbidden and call and "cannot " in message:
        return f"{message}; allow the verb {_rbac_verb(call.verb)!r} on {call.resource!r} in Stoker's role"
    return message


def _rbac_verb(verb: str) -> str:
    return {"apply": "patch", "merge": "patch"}.get(verb, verb)


def _causes(details: Mapping[str, Any]) -> tuple[Cause, ...]:
    causes = details.get("causes")
    if not isinstance(causes, list):
        return ()
    return tuple(
        Cause(_field(c), str(c.get("reason") or ""), str(c.get("message") or ""))
        for c in causes
        if isinstance(c, Mapping)
    )


def _field(cause: Mapping[str, Any]) -> str:
    """The path as in a manifest; of a custom resource the API server writes ``.status.x`` and ``<nil>``."""
    field = str(cause.get("field") or "").removeprefix(".")
    return "" if field == "<nil>" else field


def _seconds(value: object) -> float | None:
    """Seconds to wait; None when absent, not a number, or not positive (an HTTP date is not used here)."""
    try:
        seconds = float(value)  # type: ignore[arg-type]  # anything may stand in a header; the except says so
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds < float("inf") else None
