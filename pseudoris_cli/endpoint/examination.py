"""Everything that is asked of a server before it is used: a list of findings, each with its next step where one is needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pseudoris_cli.endpoint import probe
from pseudoris_cli.endpoint.asking import CHAT, user_message
from pseudoris_cli.endpoint.client import Client, message_of
from pseudoris_cli.endpoint.failures import RequestFailed
from pseudoris_cli.errors import PseudorisError

ROUNDS = 3
"""Requests for every place of the chosen concurrency, when the pace is measured."""
_LISTENER = "the listener of `judge` is asked by"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer about a server."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    next_step: str = ""


def examine(client: Client, model: str | None, mode: str = "auto") -> Iterator[Finding]:
    """Findings about an endpoint, as they are made; it ends with the first that makes the others pointless.

    `mode`: that of the listener in the settings.
    """
    url = client.address.url
    try:
        listed = client.wait_for(probe.listed_models(client, retries=0))
        chosen = probe.choose_model(model, listed, client)
        form = client.wait_for(probe.chat_form(client, chosen, listed))
    except PseudorisError as error:
        problem, *steps = str(error).split("; ", 1)
        yield Finding("endpoint", "fail", problem, steps[0] if steps else "look at the server and at the address")
        return
    count = "lists no models" if listed is None else f"lists {len(listed)} model{'s' * (len(listed) != 1)}"
    key = f"key from {client.address.key_variable}" if client.address.has_key else "no key"
    yield Finding("endpoint", "ok", f"{url} answers for {chosen} ({count}; {key})")
    yield from _eyes(client, form)
    yield from _abilities(client, form, mode)
    yield _pace(client, form)


def _eyes(client: Client, form: probe.ChatForm) -> Iterator[Finding]:
    try:
        sees = client.wait_for(probe.sees_pictures(client, form))
    except PseudorisError as error:
        yield Finding("endpoint pictures", "fail", str(error), "look at the server's log")
        return
    if sees:
        yield Finding("endpoint pictures", "ok", "a picture reaches the model (it costs tokens)")
    elif sees is None:
        yield Finding(
            "endpoint pictures", "warn", "the server counts no tokens, so nothing is known", "look at a --pilot"
        )
    else:
        yield Finding(
            "endpoint pictures",
            "fail",
            "the model does not see pictures",
            "serve a vision-language model, such as Qwen3-VL",
        )


def _abilities(client: Client, form: probe.ChatForm, mode: str) -> Iterator[Finding]:
    """None of these is needed: each has another way, which is named."""
    schema = client.wait_for(probe.schema_form(client, form))
    if schema:
        yield Finding("endpoint schema", "ok", f"answers are held to a JSON schema ({schema}); captions use it")
    else:
        yield Finding(
            "endpoint schema",
            "ok",
            "answers are not held to a JSON schema; captions are parsed, and asked for once more",
        )
    most = client.wait_for(probe.top_logprobs(client, form))
    choice = client.wait_for(probe.takes_choice(client, form))
    decisions = client.wait_for(probe.decision_form(client, form.model))
    yield Finding(
        "endpoint logprobs", "ok", f"probabilities of {most} tokens" if most else "no probabilities of tokens"
    )
    yield Finding(
        "endpoint choice", "ok", "answers are held to one of several texts" if choice else "no choice constraint"
    )
    told = f"decisions about a picture ({decisions})" if decisions else "no decisions about a picture"
    yield Finding("endpoint systemone", "ok", told)
    best = probe.listener_mode(decisions, most)
    lacking = {"systemone": not decisions, "logprobs": most < 2}.get(mode, False)
    if lacking:
        told = f"the server cannot be asked by {mode}, as filter.judge.mode says"
        yield Finding("endpoint listener", "fail", told, f"--set filter.judge.mode=auto (it would take {best})")
    else:
        yield Finding("endpoint listener", "ok", f"{_LISTENER} {best if mode == 'auto' else mode}")


def _pace(client: Client, form: probe.ChatForm) -> Finding:
    """How long a request with two pictures and an answer of some tokens takes, alone and with all places taken."""
    picture = probe.noise_picture(512)
    body = form.body([user_message((picture, picture), "Describe what is shown in a sentence.")], 48, temperature=0.0)

    async def one(seed: int) -> float:
        started = time.perf_counter()
        message_of(await client.post(CHAT, body | ({"seed": seed} if form.takes_seed else {})))
        return time.perf_counter() - started

    async def many(count: int) -> float:
        started, free = time.perf_counter(), asyncio.Semaphore(client.concurrency)

        async def held(seed: int) -> None:
            async with free:
                await one(seed)

        await asyncio.gather(*(held(seed) for seed in range(count)))
        return time.perf_counter() - started

    try:
        alone = client.wait_for(one(-1 & 0xFFFF))
        count = ROUNDS * client.concurrency if alone * ROUNDS < 60 else client.concurrency
        seconds = client.wait_for(many(count))
    except (RequestFailed, PseudorisError) as error:
        return Finding(
            "endpoint pace",
            "warn",
            f"could not be measured: {error}",
            f"lower {client.address.section}.concurrency, look at the server",
        )
    rate = count / seconds
    detail = f"{alone:.2f} s for one request, {rate:.1f} requests/s with {client.concurrency} in flight"
    return Finding("endpoint pace", "ok", detail)
