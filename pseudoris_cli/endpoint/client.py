"""Requests to an endpoint: one at a time with retries, many at once with a bound, and leaving at once when asked to."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from pseudoris_cli.endpoint.address import Address
from pseudoris_cli.endpoint.failures import RequestFailed, TookTooLong, after_retries, from_status, wait_before
from pseudoris_cli.errors import MissingDependency, PseudorisError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
POLL_SECONDS = 0.1
"""How long an error that ends the run may go unnoticed."""
ALL_WAIT_SECONDS = 1.0
"""A pause of so long before a new attempt holds back all other requests too: the server is busy."""


class Client:
    """A connection to an endpoint. Requests run in an event loop of its own thread; every method may be called from outside."""

    def __init__(self, address: Address, timeout: float = 120.0, retries: int = 5, concurrency: int = 16) -> None:
        """`retries`: attempts after the first; `timeout`: seconds that one attempt may take. Needs the package openai (exit 3)."""
        try:
            import openai
        except ImportError as error:
            raise MissingDependency(
                "asking an endpoint needs the package openai, which is not installed:  pip install 'pseudoris[vlm]'"
            ) from error
        self._openai: Any = openai
        self.address, self.timeout, self.retries, self.concurrency = address, timeout, retries, concurrency
        self.retried = 0
        self._not_before = 0.0
        self._client: AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- from outside ---------------------------------------------------------------------------------------------------

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; it is dropped if a signal comes."""
        return self._result(self.begin(work), ())

    def in_order(self, jobs: Iterable[Callable[[], Coroutine[Any, Any, T]]], ahead: int) -> Iterator[T]:
        """Results of jobs in their order, `ahead` of them begun at once. The first error, or a signal, ends all of them."""
        waiting: deque[Future[T]] = deque()
        source = iter(jobs)
        try:
            while True:
                while len(waiting) < ahead and (job := next(source, None)) is not None:
                    waiting.append(self.begin(job()))
                if not waiting:
                    return
                yield self._result(waiting[0], waiting)
                waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the loop."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _result(self, future: Future[T], all_begun: Iterable[Future[T]]) -> T:
        """The result of the first of those begun; an error that ends the run is not waited for, wherever it is met."""
        try:
            while True:
                try:
                    return future.result(POLL_SECONDS)
                except TimeoutError:
                    if future.done():
                        return future.result()
                for other in all_begun:
                    if other.done() and not other.cancelled() and isinstance(other.exception(), PseudorisError):
                        other.result()
        except BaseException:
            future.cancel()
            raise

    # --- in the loop ------------------------------------------------------------------------------------------------------

    async def post(self, path: str, body: dict[str, Any] | bytes, retries: int | None = None) -> Any:
        """The JSON value that the server answers to a body, which may be encoded already.

        RequestFailed if this request has no answer after all attempts; EnvironmentStop (exit 1) if the endpoint is down, its
        quota is used up, or it keeps refusing; UsageError (exit 2) if it does not take the key.
        """
        data = body if isinstance(body, bytes) else encoded(body)
        return await self._with_retries(lambda client: client.post(path, cast_to=object, content=data), retries)

    async def get(self, path: str, retries: int | None = None) -> Any:
        """The JSON value of a path; errors as in `post`."""
        return await self._with_retries(lambda client: client.get(path, cast_to=object), retries)

    async def _with_retries(self, send: Callable[[AsyncOpenAI], Awaitable[Any]], retries: int | None) -> Any:
        attempts = 1 + (self.retries if retries is None else retries)
        for attempt in range(1, attempts + 1):
            if (pause := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            try:
                return await self._once(send)
            except RequestFailed as failure:
                if not failure.again:
                    raise
                if attempt == attempts:
                    raise after_retries(failure, self.address, attempts) from None
                wait = wait_before(attempt, failure.wait)
            self.retried += 1
            if wait >= ALL_WAIT_SECONDS:
                self._not_before = max(self._not_before, time.monotonic() + wait)
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _once(self, send: Callable[[AsyncOpenAI], Awaitable[Any]]) -> Any:
        """One attempt: the JSON value, or RequestFailed, or what ends the run. Nothing of the key comes through."""
        openai = self._openai
        if self._client is None:
            address = self.address
            self._client = openai.AsyncOpenAI(
                base_url=address.url, api_key=address.key, max_retries=0, timeout=self.timeout
            )
        try:
            async with asyncio.timeout(
                self.timeout * 1.5 + 1
            ):  # a server that sends a byte now and then never times out
                value = await send(self._client)
        except (openai.APITimeoutError, TimeoutError):
            raise TookTooLong(
                f"no answer within {self.timeout:g} s ({self.address.section}.timeout)", again=True
            ) from None
        except openai.APIStatusError as error:
            body = error.body if error.body is not None else error.response.text
            raise from_status(error.status_code, body, error.response.headers, self.address) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            told = self.address.clean(str(cause).splitlines()[0] if str(cause) else type(cause).__name__)
            raise RequestFailed(told[:200], again=True) from None
        except (ValueError, UnicodeDecodeError) as error:  # a body that says it is JSON and is not
            raise RequestFailed(f"the answer is no JSON ({type(error).__name__})", again=True, status=200) from None
        return _cleaned(value, self.address)


_HERE = f"embedded-{secrets.token_hex(16)}"
"""Stands in a body for what is put in as it is; no prompt has it."""


class Embedded:
    """A JSON string of characters that JSON does not escape, encoded before: a picture as a data URL, of some 300 kB."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


def encoded(body: dict[str, Any]) -> bytes:
    """A body as it is sent. The order of its fields is kept: a server may follow that of a schema."""
    texts: list[bytes] = []

    def put(value: Any) -> str:
        if not isinstance(value, Embedded):
            raise TypeError(f"{type(value).__name__} is no JSON")
        texts.append(value.text)
        return _HERE

    around = json.dumps(body, separators=(",", ":"), default=put).encode("ascii").split(_HERE.encode("ascii"))
    pieces = [around[0]]
    for text, further in zip(texts, around[1:], strict=True):
        pieces += (text, further)
    return b"".join(pieces)


def _cleaned(value: Any, address: Address) -> Any:
    """A JSON value without the key, should the server have sent it back."""
    if not address.has_key:
        return value
    text = json.dumps(value)
    escaped = json.dumps(address.key)[1:-1]
    return json.loads(text.replace(escaped, "[key]")) if escaped in text else value


def message_of(value: Any) -> dict[str, Any]:
    """The first choice of a chat completion: {"text", "finish", "tokens_in", "tokens_out", "logprobs"}.

    RequestFailed if the value is no chat completion.
    """
    try:
        choice = value["choices"][0]
        text = choice["message"].get("content") or ""
        if isinstance(text, list):  # parts, as some servers send them
            text = "".join(part.get("text", "") for part in text)
    except (KeyError, IndexError, TypeError, AttributeError):
        told = json.dumps(value)[:80] if value is not None else "nothing"
        raise RequestFailed(f"the answer is no chat completion: {told}", again=False, status=200) from None
    usage = value.get("usage") or {}
    tokens = [
        usage.get(name) if isinstance(usage.get(name), int) else None for name in ("prompt_tokens", "completion_tokens")
    ]
    found = {"text": str(text), "finish": choice.get("finish_reason"), "tokens_in": tokens[0], "tokens_out": tokens[1]}
    return found | {"logprobs": choice.get("logprobs")}
