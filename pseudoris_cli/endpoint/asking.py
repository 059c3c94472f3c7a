"""Chat requests as the backends make them: what was answered before is not asked again, answers are noted and counted."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from pseudoris_cli.endpoint.client import Client, message_of
from pseudoris_cli.endpoint.journal import Journal, request_digest
from pseudoris_cli.endpoint.usage import Usage

CHAT = "/chat/completions"


class Encoded(Protocol):
    """A picture in a file format (prompting.views.Picture)."""

    @property
    def media_type(self) -> str: ...

    @property
    def data(self) -> bytes: ...


class Asker:
    """One part's requests: at most `client.concurrency` of them in flight."""

    def __init__(self, client: Client, journal: Journal) -> None:
        self.client, self.journal, self.usage = client, journal, Usage()
        self._free = asyncio.Semaphore(client.concurrency)
        self._retried_before = client.retried

    async def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a chat request (client.message_of), from the journal if it was kept there. Errors as in Client.post."""
        digest = request_digest(body)
        if known := self.journal.get(digest):
            self.usage.counts["reused"] += 1
            return known
        async with self._free:
            message = message_of(await self.client.post(CHAT, body))
        self.usage.answered(message["tokens_in"], message["tokens_out"])
        return message

    def keep(self, asked: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Keep (request, answer) pairs that were of use; what was of none is asked again, by a mended server perhaps."""
        for body, message in asked:
            digest = request_digest(body)
            if self.journal.get(digest) is None:
                self.journal.add(digest, message)

    def note(self) -> dict[str, int]:
        """What the requests came to, for the manifest."""
        self.usage.counts["retries"] = self.client.retried - self._retried_before
        return self.usage.note()


def user_message(pictures: Sequence[Encoded], text: str) -> dict[str, Any]:
    """A message of the user: pictures first, then the text, so that a server's prefix cache may find the pictures again."""
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures
    ]
    return {"role": "user", "content": [*content, {"type": "text", "text": text}]}


def data_url(picture: Encoded) -> str:
    """A picture as text that needs no other server."""
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode('ascii')}"
