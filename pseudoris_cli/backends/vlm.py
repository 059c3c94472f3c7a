"""Expressions by a vision-language model behind an endpoint: it is shown the whole picture with all rivals numbered.

One request per mask, many in flight; the answers are kept in a journal until their part is committed.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field

from pseudoris_cli.endpoint import probe
from pseudoris_cli.endpoint.asking import Asker, Request, user_message
from pseudoris_cli.endpoint.client import Client
from pseudoris_cli.endpoint.failures import RequestFailed
from pseudoris_cli.endpoint.journal import Journal
from pseudoris_cli.endpoint.patience import Patience
from pseudoris_cli.endpoint.settings import EndpointSettings, check_reachable, connect, model_of
from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.protocols import PartAtWork, PartCaptioner
from pseudoris_cli.prompting import prompts, selecting
from pseudoris_cli.prompting.prompts import Prompt
from pseudoris_cli.prompting.selecting import Usable
from pseudoris_cli.prompting.settings import PromptSettings
from pseudoris_cli.prompting.views import Scene, Shown
from pseudoris_cli.records import Caption, Failure, Mask, MaskedImage
from pseudoris_cli.settings.models import Numerics

ROLE = "captioner"
SECTION = "captions"
log = logging.getLogger("pseudoris")

DRAWING_THREADS = 2
AHEAD = 8
"""Requests that are drawn and encoded while all places are taken: what memory they need is bounded by this."""

warnings.filterwarnings("ignore", message='Field name "schema" in "Settings" shadows', category=UserWarning)


class Settings(PromptSettings, EndpointSettings):
    """A vision-language model that is served with OpenAI's protocol (vLLM, SGLang, transformers serve, hosted)."""

    NO_RESULT: ClassVar[frozenset[str]] = EndpointSettings.NO_RESULT | {"prompt", "image_batch"}
    # `version` holds the model as the server lists it and the digest of the prompt

    backend: Literal["vlm"] = Field("vlm", description="who writes the expressions")
    temperature: float = Field(0.7, ge=0, le=2, description="sampling temperature of the server")
    top_p: float | None = Field(None, gt=0, le=1, description="nucleus of the server's sampling; null: its default")
    schema: Literal["auto", "on", "off"] = Field(  # type: ignore[assignment]
        "auto", description="hold answers to a JSON schema: if the server can, always, never"
    )

    @classmethod
    def tiny(cls) -> Settings:
        """For the server that OPENAI_BASE_URL names."""
        return cls(candidates=2, temperature=0.0, max_tokens=64, max_side=256, timeout=60)


def load(settings: Settings, numerics: Numerics, device: str) -> VlmCaptioner:
    """Connect to the server and find out what it can do; `numerics` and `device` are those of this machine and not used.

    UsageError (exit 2) for a missing or refused key, a missing model, or one that sees no pictures; EnvironmentStop (exit 1) for
    a server that is down; MissingDependency (exit 3) without the package openai.
    """
    prompt = settings.load_prompt()
    client = connect(settings, SECTION)
    served = client.wait_for(_examine(client, settings))
    log.info(
        "captions: %s at %s, JSON schema: %s", served.form.model, client.address.url, served.schema or "not held to"
    )
    return VlmCaptioner(settings, client, prompt, served)


def version(settings: Settings) -> str:
    """The model as the server lists it (asked only if the settings name none) and the digest of the prompt."""
    return f"{model_of(settings, SECTION)} {settings.load_prompt().digest[:16]}"


def check(settings: Settings) -> None:
    """Whether the server answers and takes the key; raises as `load` does. Asked before other stages run for hours."""
    check_reachable(settings, SECTION)


@dataclass(frozen=True)
class Served:
    """How the server is asked."""

    form: probe.ChatForm
    schema: probe.SchemaForm | None


async def _examine(client: Client, settings: Settings) -> Served:
    form = await probe.seeing_chat(client, settings.model)
    schema = None if settings.schema == "off" else await probe.schema_form(client, form)
    if settings.schema == "on" and schema is None:
        raise UsageError(
            f"{client.address.url} does not hold answers to a JSON schema, as captions.schema=on asks; take auto or off"
        )
    return Served(form, schema)


@dataclass
class MaskAnswer:
    """What one mask came to."""

    usable: Usable = field(default_factory=Usable)
    failure: str | None = None
    raw: str = ""
    """The last answer, where it was of no use."""


class VlmCaptioner(PartCaptioner):
    """The model at work."""

    def __init__(self, settings: Settings, client: Client, prompt: Prompt, served: Served) -> None:
        self.settings, self.client, self.prompt, self.served = settings, client, prompt, served
        self._drawing = ThreadPoolExecutor(DRAWING_THREADS, thread_name_prefix="draw")
        self._patience = Patience(
            client,
            f"masks got a usable expression from {served.form.model}",
            "look whether this is a vision-language model that follows instructions, and at captions.max_tokens, captions.schema "
            "and captions.prompt",
        )

    def caption(self, images: Sequence[MaskedImage]) -> list[list[Caption]]:
        """Captions without a part around them. A failed image raises RequestFailed."""
        found = []
        for answer in self.caption_part(images, PartAtWork()):
            if isinstance(answer, Failure):
                raise RequestFailed(answer.reason)
            found.append(answer)
        return found

    def caption_part(self, images: Iterable[MaskedImage], part: PartAtWork) -> Iterator[list[Caption] | Failure]:
        """Captions of each image in order; masks of many images are in flight at once."""
        journal = Journal(part.journal)
        asker = Asker(self.client, journal)
        outcome = selecting.Outcome()
        open_images: deque[_Open] = deque()

        def jobs() -> Iterator[Any]:
            for image in images:
                scene = Scene(image, self.settings.view, self.settings.max_side, self.settings.max_marks)
                opened = _Open(image, part.answered(image))
                open_images.append(opened)
                for place in opened.places:
                    yield partial(self._ask, asker, scene, place)

        ahead = self.settings.concurrency + AHEAD
        try:
            for answer in self.client.in_order(jobs(), ahead):
                while open_images[0].is_whole:
                    yield self._finish(open_images.popleft(), outcome)
                open_images[0].answers.append(answer)
                self._patience.heard(answer.failure, answer.raw)
            while open_images:
                yield self._finish(open_images.popleft(), outcome)
            self._patience.at_end()
        finally:
            journal.close()
        part.notes.update({"requests": asker.note(), "resolved": {"schema": self.served.schema}, **outcome.notes()})

    def _finish(self, opened: _Open, outcome: selecting.Outcome) -> list[Caption] | Failure:
        """The captions of an image, mask by mask; a Failure if no mask has any."""
        found, failed = dict(opened.known), {}
        for place, answer in zip(opened.places, opened.answers, strict=True):
            mask = opened.image.masks[place]
            outcome.add(opened.image.key, mask.mask_id, answer.usable.rejected, answer.failure)
            if answer.failure is None:
                found[mask.mask_id] = self._captions(mask, answer.usable)
            else:
                failed[mask.mask_id] = answer.failure
        if failed and not found:
            return Failure(f"no mask has an expression; mask {min(failed)}: {failed[min(failed)]}"[:300])
        return [caption for mask in opened.image.masks for caption in found.get(mask.mask_id, [])]

    def _captions(self, mask: Mask, usable: Usable) -> list[Caption]:
        return [
            Caption(mask.mask_id, number, one.text, self.settings.view, "vlm", 0.0, 0, one.kind)
            for number, one in enumerate(usable.passed[: self.settings.candidates])
        ]

    # --- in the client's loop -----------------------------------------------------------------------------------------------

    async def _ask(self, asker: Asker, scene: Scene, place: int) -> MaskAnswer:
        """Ask for one mask, and once more if the answer is of no use."""
        loop = asyncio.get_running_loop()
        settings = self.settings
        try:
            shown, messages, request = await loop.run_in_executor(self._drawing, self._drawn, scene, place)
        except Exception as error:  # a mask that cannot be drawn is that mask's failure
            return MaskAnswer(failure=f"cannot be drawn: {type(error).__name__}: {error}"[:200])
        result, asked = MaskAnswer(), []
        for attempt in range(2):
            if attempt:
                request = self._request(messages, scene, place, attempt)
            try:
                answer = await asker.ask(request)
            except RequestFailed as failure:
                return MaskAnswer(result.usable, failure.reason[:200], result.raw)
            asker.usage.counts["repairs"] += attempt
            asked.append((request, answer))
            usable = selecting.usable(answer["text"], settings.style, shown.marked)
            usable.rejected[:0] = result.usable.rejected
            if usable.passed:
                asker.keep(asked)
                return MaskAnswer(usable)
            reason = usable.reason(answer["finish"])
            result = MaskAnswer(usable, reason, answer["text"])
            said = {"role": "assistant", "content": answer["text"] or "(nothing)"}
            messages = [messages[0], said, user_message((), self.prompt.repair(reason))]
        return result

    def _drawn(self, scene: Scene, place: int) -> tuple[Shown, list[dict[str, Any]], Request]:
        """What is shown of a mask, and the first request with it. Called in the drawing threads: the loop has no time for it."""
        shown = scene.show(place)
        messages = [user_message(shown.pictures, self.prompt.text(shown))]
        return shown, messages, self._request(messages, scene, place, 0)

    def _request(self, messages: list[dict[str, Any]], scene: Scene, place: int, attempt: int) -> Request:
        settings = self.settings
        mask_id = scene.image.masks[place].mask_id
        seed = selecting.request_seed(settings.seed, scene.image.drawn_as, mask_id, attempt)
        body = self.served.form.body(
            messages, settings.max_tokens, temperature=settings.temperature, top_p=settings.top_p, seed=seed
        )
        if self.served.schema:
            body |= probe.constrained(self.served.schema, prompts.answer_schema(settings.candidates), "expressions")
        return Request.of(body)


class _Open:
    """An image whose masks are in flight."""

    def __init__(self, image: MaskedImage, known: dict[int, list[Caption]]) -> None:
        self.image, self.known = image, known
        self.places = [place for place, mask in enumerate(image.masks) if mask.mask_id not in known]
        self.answers: list[MaskAnswer] = []

    @property
    def is_whole(self) -> bool:
        return len(self.answers) == len(self.places)
