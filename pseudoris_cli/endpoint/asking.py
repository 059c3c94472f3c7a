"""Requests as the backends make them: what was answered before is not asked again, answers are noted and counted."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pseudoris_cli.endpoint.client import Client, Embedded, encoded, message_of
from pseudoris_cli.endpoint.journal import Journal
from pseudoris_cli.endpoint.usage import Usage

CHAT = "/chat/completions"
Answer = dict[str, Any]
"""What is kept of an answer: JSON values, among them `tokens_in` and `tokens_out` (None where the server tells none)."""


class Encoded(Protocol):
    """A picture in a file format (prompting.views.Picture)."""

    @property
    def media_type(self) -> str: ...

    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Request:
    """A request, encoded once: what is sent, and what identifies it (all that is sent, but neither address nor key)."""

    path: str
    data: bytes
    digest: str

    @classmethod
    def of(cls, body: dict[str, Any], path: str = CHAT, turn: int = 0) -> Request:
        """From its body; `turn` tells apart what is sent several times because the answer is drawn anew each time."""
        data = encoded(body)
        digest = hashlib.sha256(data)
        digest.update(b"" if turn == 0 else f" {turn}".encode())
        return cls(path, data, digest.hexdigest())


class Asker:
    """One part's requests: at most `client.concurrency` of them in flight."""

    def __init__(self, client: Client, journal: Journal) -> None:
        self.client, self.journal, self.usage = client, journal, Usage()
        self._free = asyncio.Semaphore(client.concurrency)
        self._retried_before = client.retried

    async def ask(self, request: Request, read: Callable[[Any], Answer] = message_of) -> Answer:
        """The answer to a request as `read` takes it from the server's JSON, or from the journal if it was kept there.

        Errors as in Client.post, and those of `read` (RequestFailed).
        """
        if known := self.journal.get(request.digest):
            self.usage.counts["reused"] += 1
            return known
        async with self._free:
            answer = read(await self.client.post(request.path, request.data))
        self.usage.answered(answer["tokens_in"], answer["tokens_out"])
        return answer

    def keep(self, asked: Iterable[tuple[Request, Answer]]) -> None:
        """Keep (request, answer) pairs that were of use; what was of none is asked again, by a mended server perhaps."""
        for request, answer in asked:
            if self.journal.get(request.digest) is None:
                self.journal.add(request.digest, answer)

    def note(self) -> dict[str, int]:
        """What the requests came to, for the manifest."""
        self.usage.counts["retries"] = self.client.retried - self._retried_before
        return self.usage.note()


def user_message(pictures: Sequence[Encoded], text: str) -> dict[str, Any]:
    """A message of the user: pictures first, then the text, so that a server's prefix cache may find the pictures again."""
    return {"role": "user", "content": [*map(picture_part, pictures), {"type": "text", "text": text}]}


def picture_part(picture: Encoded) -> dict[str, Any]:
    """A picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": data_url(picture)}}


def data_url(picture: Encoded) -> Embedded:
    """A picture as text that needs no other server."""
    return Embedded(b"data:%b;base64,%b" % (picture.media_type.encode("ascii"), base64.b64encode(picture.data)))
