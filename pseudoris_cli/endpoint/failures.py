"""What can go wrong with a request, sorted by what to do: try again, give up this request, or stop the run."""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Mapping
from typing import Any

from pseudoris_cli.endpoint.address import Address
from pseudoris_cli.errors import EnvironmentStop, PseudorisError, UsageError

LONGEST_WAIT = 60.0
"""Seconds between two attempts, at most, unless the server asks for more."""
LONGEST_ASKED = 600.0
"""A server that asks for a longer pause than this is as good as one that refuses."""
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_GATEWAY = {502, 503, 504, 520, 522, 524, 529}
_KEPT = "what was answered so far is kept, and the same command goes on from there"


class RequestFailed(Exception):
    """This request has no answer, others may have one. `again`: it is worth trying anew."""

    def __init__(self, reason: str, again: bool = False, wait: float | None = None, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.again, self.wait, self.status = reason, again, wait, status


def from_status(status: int, body: Any, headers: Mapping[str, str], address: Address) -> RequestFailed | PseudorisError:
    """What an HTTP status that is no success comes to.

    RequestFailed, or what ends the run: UsageError (exit 2) for a key or a path that the server does not take, EnvironmentStop
    (exit 1) for a quota that is used up.
    """
    said = address.clean(reason_of(body))
    told = f": {said}" if said else ""
    if status in (401, 403):
        held = (
            f"the key in {address.key_variable}"
            if address.has_key
            else f"a request without key ({address.key_variable} is not set)"
        )
        return UsageError(
            f"{address.url} refuses {held} (HTTP {status}{told}); set {address.key_variable} to a key that it takes. {_KEPT}"
        )
    if status == 402 or "insufficient_quota" in json.dumps(body, default=str) or "billing" in said.lower():
        return EnvironmentStop(
            f"{address.url}: the quota of this key is used up (HTTP {status}{told}); add credit, or take another key. {_KEPT}"
        )
    wait = asked_wait(headers)
    if wait is not None and wait > LONGEST_ASKED:
        return EnvironmentStop(
            f"{address.url} asks to wait {wait:.0f} s (HTTP {status}{told}); come back later. {_KEPT}"
        )
    return RequestFailed(f"HTTP {status}{told}", status in _AGAIN, wait, status)


def after_retries(failure: RequestFailed, address: Address, attempts: int) -> RequestFailed | PseudorisError:
    """What a failure comes to that did not go away: trouble of the endpoint stops the run, that of one request is its own."""
    if failure.status is None and failure.again and not isinstance(failure, TookTooLong):
        return EnvironmentStop(
            f"{address.url} cannot be reached ({failure.reason}, {attempts} attempts); is the server running, and the address "
            f"right? {_KEPT}"
        )
    if failure.status == 429:
        return EnvironmentStop(
            f"{address.url} still refuses more requests after {attempts} attempts ({failure.reason}); lower "
            f"{address.section}.concurrency, or raise {address.section}.retries. {_KEPT}"
        )
    if failure.status in _GATEWAY:
        return EnvironmentStop(
            f"{address.url} is not available ({failure.reason}, {attempts} attempts); look at the server. {_KEPT}"
        )
    return failure


class TookTooLong(RequestFailed):
    """No answer within the time limit."""


def wait_before(attempt: int, asked: float | None) -> float:
    """Seconds before attempt 1, 2, ...: doubling from half a second, with jitter so that many do not come back at once."""
    own = min(LONGEST_WAIT, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)
    return own if asked is None else max(asked, 0.05) * random.uniform(1.0, 1.05)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` (a number or a date) or `retry-after-ms` asks for; None where there is none, or nonsense."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        text = headers.get("retry-after")
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if seconds == seconds else None


def reason_of(body: Any) -> str:
    """What the body of an error says, in a line of at most 200 characters: OpenAI's form, FastAPI's, or the text itself."""
    for name in ("error", "detail", "message"):
        if isinstance(body, dict) and body.get(name):
            body = body[name]
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, dict):
        body = body.get("message") or body.get("msg") or json.dumps(body, default=str)
    text = " ".join(str(body or "").split())
    if text.startswith("<"):
        return ""
    return text if len(text) <= 200 else f"{text[:197]}..."
