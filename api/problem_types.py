"""Every kind of problem that the service answers with; ``docs/problems.md`` is made from it.

``python -m api.problem_types`` writes that page to standard output.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

PATH: Final = "/problems/"


@dataclass(frozen=True)
class ProblemType:
    """A kind of problem. slug: stable, the end of its type; status: of the answer, 0 in jobs only.

    meaning: what happened; remedy: what the caller can do.
    """

    slug: str
    status: int
    title: str
    meaning: str
    remedy: str

    @property
    def uri(self) -> str:
        """The ``type`` of RFC 9457, relative to the service's address."""
        return PATH + self.slug


_ALL: Final = (
    ProblemType(
        "malformed",
        400,
        "The request cannot be read",
        "The body is no JSON, or no form, or a header breaks its grammar.",
        "Fix the syntax; `detail` says where it broke.",
    ),
    ProblemType(
        "unauthenticated",
        401,
        "No valid API key",
        "The request has no API key, or one that is unknown, revoked or expired.",
        "Send `Authorization: Bearer ce_...` or `X-API-Key: ce_...`.",
    ),
    ProblemType(
        "forbidden",
        403,
        "The key may not do that",
        "The API key lacks the scope that `limit` names.",
        "Use another key, or have one made with that scope.",
    ),
    ProblemType(
        "not-found",
        404,
        "Not found",
        "Nothing of yours has that address or id. What belongs to others looks the same.",
        "Check the id; deleted things and expired jobs are gone for good.",
    ),
    ProblemType(
        "method-not-allowed",
        405,
        "The method does not exist here",
        "The address exists, but not with that method.",
        "Use one that the `Allow` header names.",
    ),
    ProblemType(
        "request-timeout",
        408,
        "The request came too slowly",
        "The body was not complete in time. Nothing of it was kept.",
        "Send it again over a faster connection, or less of it.",
    ),
    ProblemType(
        "in-use",
        409,
        "It is still in use",
        "Something that is not finished, or that is to be kept, needs what was to be deleted.",
        "Wait for the jobs that `detail` names, or cancel them; then delete again.",
    ),
    ProblemType(
        "not-ready",
        409,
        "It is not ready yet",
        "A concept is still in training, or its training failed, so it cannot be used.",
        "Wait for its job to succeed.",
    ),
    ProblemType(
        "not-finished",
        409,
        "The job is not finished",
        "Only jobs that are at their end can be deleted.",
        "Cancel the job and wait until it is finished.",
    ),
    ProblemType(
        "own-key",
        409,
        "A key does not revoke itself",
        "The key to be revoked is the one that the request came with.",
        "Make a new key with it, then revoke it with the new one.",
    ),
    ProblemType(
        "too-many-keys",
        409,
        "Too many keys",
        "Your tenant has as many valid keys as `limit` says.",
        "Revoke those that nobody uses; `last_used_at` tells.",
    ),
    ProblemType(
        "idempotency-in-flight",
        409,
        "The first request with this key is still at work",
        "A request with the same `Idempotency-Key` has not been answered yet.",
        "Send it again after `Retry-After` seconds; the answer will be the first one's.",
    ),
    ProblemType(
        "too-large",
        413,
        "The request is too large",
        "The body has more bytes than `limit` says. Nothing of it was kept.",
        "Make it smaller.",
    ),
    ProblemType(
        "unsupported-media-type",
        415,
        "The body's media type is not taken here",
        "The `Content-Type` is missing or is not the one that `limit` names.",
        "Send the body as that type.",
    ),
    ProblemType(
        "validation",
        422,
        "A field is not usable",
        "`field` names the first field that is wrong and `limit` what it must keep to; "
        "`errors` lists all of them.",
        "Fix the fields and send it again. Nothing was stored.",
    ),
    ProblemType(
        "unusable-image",
        422,
        "The picture is not usable",
        "The file is no PNG, JPEG or WebP, is damaged, or has too few or too many pixels.",
        "`detail` says what was found and what to do.",
    ),
    ProblemType(
        "unknown-image",
        409,
        "There is no such image",
        "The request names an image that you have not uploaded.",
        "Upload it first; its id is in the answer.",
    ),
    ProblemType(
        "unknown-concept",
        409,
        "There is no such concept",
        "The request names a concept that you do not have.",
        "Check the id against `GET /v1/concepts`.",
    ),
    ProblemType(
        "idempotency-conflict",
        422,
        "The key was used for another request",
        "The same `Idempotency-Key` came before with another body.",
        "Take a fresh key for each new request.",
    ),
    ProblemType(
        "rate-limited",
        429,
        "Too many requests",
        "Your tenant has used up its requests of this minute.",
        "Wait `Retry-After` seconds.",
    ),
    ProblemType(
        "queue-full",
        429,
        "Too many unfinished jobs",
        "Your tenant has as many queued and running jobs as `limit` says.",
        "Wait until some are finished, or cancel them.",
    ),
    ProblemType(
        "too-many-streams",
        429,
        "Too many event streams",
        "Your tenant has as many event streams open as `limit` says.",
        "Close some, or read jobs with `Prefer: wait=20` instead.",
    ),
    ProblemType(
        "too-many-imports",
        429,
        "Too many imports at once",
        "Your tenant is sending as many files as `limit` says.",
        "Wait until one has been answered.",
    ),
    ProblemType(
        "too-many-new-keys",
        429,
        "Too many new keys",
        "Your tenant has made as many keys in a minute as `limit` says.",
        "Wait `Retry-After` seconds. One key serves any number of requests.",
    ),
    ProblemType(
        "too-many-failed-keys",
        429,
        "Too many wrong API keys",
        "Your address has sent as many wrong keys in a minute as `limit` says.",
        "Wait `Retry-After` seconds; then send a valid key.",
    ),
    ProblemType(
        "internal",
        500,
        "Something went wrong in the service",
        "An error that was not foreseen; the log has it under `request_id`, or the job's id.",
        "Try again later; if it stays, report the id.",
    ),
    ProblemType(
        "unavailable",
        503,
        "The service cannot reach what it needs",
        "Redis or the file store does not answer, or the service is stopping.",
        "Try again after `Retry-After` seconds, with the same `Idempotency-Key`.",
    ),
    ProblemType(
        "attempts-exhausted",
        0,
        "No worker came to an end with it",
        "Every attempt ended without a result: the worker died or was lost each time.",
        "Try once more with less (fewer steps, smaller pictures); else report the job's id.",
    ),
    ProblemType(
        "input-error",
        0,
        "Something in the request cannot be used",
        "Something that only shows when the job runs is not usable; `field` and `detail` say what.",
        "Fix it and ask again.",
    ),
    ProblemType(
        "input-missing",
        0,
        "A file of the job is gone",
        "An image or a concept was deleted before the job read it.",
        "Upload it or make it again, and ask again.",
    ),
    ProblemType(
        "older-worker",
        0,
        "The worker is older than the request",
        "During an upgrade, or after going back: `field` names what the workers do not know.",
        "Ask again without that field, or once all workers are upgraded.",
    ),
    ProblemType(
        "training-diverged",
        0,
        "The training diverged",
        "The loss became NaN or infinite.",
        "Ask for a lower `training.rate`.",
    ),
    ProblemType(
        "numerical-error",
        0,
        "The computation left the range of numbers",
        "Numbers of a picture or of the base became NaN or infinite; `detail` says where.",
        "Use smaller weights and factors, or float32 where the service runs in half precision.",
    ),
    ProblemType(
        "out-of-memory",
        0,
        "The device has too little memory",
        "The job needs more memory than the worker's device has.",
        "Ask for fewer strengths, a smaller batch, or fewer references.",
    ),
    ProblemType(
        "deadline-exceeded",
        0,
        "The job took too long",
        "The job ran for longer than the service allows.",
        "Ask for less: fewer steps, fewer strengths.",
    ),
)

TYPES: Final = {kind.slug: kind for kind in _ALL}


def document() -> str:
    """``docs/problems.md``: all kinds of problems."""
    lines = [
        "# Problems",
        "",
        "Errors are answered as `application/problem+json` (RFC 9457). Programs look at",
        "`type`, which never changes its meaning; people read `title` and `detail`. `field` and",
        "`limit` say what to fix, `request_id` finds the request in the logs. Each type is also a",
        "page of the service. Made by `python -m api.problem_types`.",
        "",
        "| type | status | what happened | what to do |",
        "|---|---|---|---|",
    ]
    for kind in _ALL:
        status = str(kind.status or "in jobs")
        lines.append(f"| `{kind.uri}` | {status} | {kind.meaning} | {kind.remedy} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
