"""Three ways to ask a server questions about a picture of numbered objects: decisions, probabilities of a token, and votes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from pseudoris_cli.endpoint import decisions, probe
from pseudoris_cli.endpoint.asking import Asker, Request, user_message
from pseudoris_cli.endpoint.client import Client
from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.listening import numberings
from pseudoris_cli.method.protocols import Lineup
from pseudoris_cli.prompting import questions, selecting
from pseudoris_cli.prompting.questions import Question
from pseudoris_cli.prompting.views import Picture, lineup_picture
from pseudoris_cli.records import MaskedImage

TOGETHER = 16
"""Questions in one request for decisions: few enough for its time limit, as servers answer them one by one."""
MOST_ALTERNATIVES = 20
Mode = Literal["auto", "systemone", "logprobs", "vote"]
Heard = tuple[list[np.ndarray | None], str | None, str]
"""Of some questions: probabilities of the answers or None; where one is None, why; and what was said instead."""


@dataclass(frozen=True)
class Voting:
    """How votes are cast: answers to each question, sampling temperature, tokens of an answer, and the seed of the numbers."""

    votes: int
    temperature: float
    max_tokens: int
    seed: int


class NotDrawn(Exception):
    """A picture could not be made: that is the failure of its image, not of the run."""


@dataclass
class Scene:
    """A lineup whose pictures are drawn when the first question needs them, once for each numbering."""

    lineup: Lineup
    max_side: int
    drawing: ThreadPoolExecutor
    _pictures: dict[tuple[int, ...], asyncio.Future[Picture]] = field(default_factory=dict)

    def renumbered(self, question: Question, order: Sequence[int]) -> Question:
        """The same question where the masks are numbered in another order."""
        assert question.number is not None
        return Question(question.expression, question.count, list(order).index(question.number - 1) + 1)

    async def picture(self, order: Sequence[int] | None = None) -> Picture:
        """The picture with the masks, by position, numbered in this order; without one in their own."""
        numbered = tuple(range(len(self.lineup.masks)) if order is None else order)
        if numbered not in self._pictures:
            loop = asyncio.get_running_loop()
            self._pictures[numbered] = loop.run_in_executor(self.drawing, self._draw, numbered)
        try:
            return await asyncio.shield(self._pictures[numbered])
        except Exception as error:
            raise NotDrawn(f"cannot be drawn: {type(error).__name__}: {error}"[:200]) from error

    def _draw(self, order: Sequence[int]) -> Picture:
        image = MaskedImage(self.lineup.key, self.lineup.image_rgb, self.lineup.masks)
        return lineup_picture(image, order, self.max_side)


@dataclass(frozen=True)
class Decisions:
    """Some questions in one request; the server gives the probability of every option."""

    model: str
    form: decisions.Form
    mode: ClassVar[str] = "systemone"
    numbered: ClassVar[bool] = True
    together: ClassVar[int] = TOGETHER

    async def ask(self, asker: Asker, scene: Scene, asked: Sequence[Question]) -> Heard:
        named = {f"q{number}": question for number, question in enumerate(asked)}
        body = decisions.decision_body(
            self.form,
            self.model,
            await scene.picture(),
            questions.scene(len(scene.lineup.masks)),
            {name: question.decision() for name, question in named.items()},
        )
        request = Request.of(body, decisions.PATH)
        answer = await asker.ask(request, decisions.decisions_of)
        found = [question.decided(answer["answers"].get(name, {})) for name, question in named.items()]
        if any(one is not None for one in found):
            asker.keep([(request, answer)])
        failure = "the decision lacks options" if any(one is None for one in found) else None
        return found, failure, str(answer["answers"])


@dataclass(frozen=True)
class Logprobs:
    """One question in a request, answered by one token; its alternatives tell the probabilities."""

    form: probe.ChatForm
    alternatives: int
    mode: ClassVar[str] = "logprobs"
    numbered: ClassVar[bool] = True
    together: ClassVar[int] = 1

    @property
    def model(self) -> str:
        return self.form.model

    async def ask(self, asker: Asker, scene: Scene, asked: Sequence[Question]) -> Heard:
        [question] = asked
        labels = questions.token_labels(question)
        message = user_message([await scene.picture()], question.text(labels))
        body = self.form.body([message], 1, temperature=0.0, seed=0)
        request = Request.of(body | {"logprobs": True, "top_logprobs": self.alternatives})
        answer = await asker.ask(request)
        found = questions.read_alternatives(answer["logprobs"], labels)
        if found is None:
            return [None], f"none of {', '.join(labels)} is among the likeliest tokens", answer["text"]
        asker.keep([(request, answer)])
        return [found], None, answer["text"]


@dataclass(frozen=True)
class Votes:
    """One question asked several times at a temperature, each time with other numbers; the answers are counted."""

    form: probe.ChatForm
    voting: Voting
    takes_choice: bool
    mode: ClassVar[str] = "vote"
    numbered: ClassVar[bool] = False  # each vote has numbers of its own
    together: ClassVar[int] = 1

    @property
    def model(self) -> str:
        return self.form.model

    async def ask(self, asker: Asker, scene: Scene, asked: Sequence[Question]) -> Heard:
        [question] = asked
        orders = numberings(scene.lineup, self.voting.seed, self.voting.votes)
        votes = (
            self._vote(asker, scene, question, orders[turn % len(orders)].tolist(), turn)
            for turn in range(self.voting.votes)
        )
        cast = await asyncio.gather(*votes)
        found = questions.tally([vote for vote, _ in cast], question.options)
        return [found], "no vote names one of the answers" if found is None else None, cast[-1][1]

    async def _vote(
        self, asker: Asker, scene: Scene, question: Question, order: list[int], turn: int
    ) -> tuple[int | None, str]:
        """The position of an answer among those of the question, None if it is none of them; and what was said."""
        turned = question if question.number is None else scene.renumbered(question, order)
        labels = questions.spoken_labels(question)
        message = user_message([await scene.picture(order)], turned.text(labels))
        about = f"{scene.lineup.key}\n{question.expression}"
        seed = selecting.request_seed(self.voting.seed, about, question.number or 0, turn)
        body = self.form.body([message], self.voting.max_tokens, temperature=self.voting.temperature, seed=seed)
        held = {"structured_outputs": {"choice": list(labels)}} if self.takes_choice else {}
        request = Request.of(body | held, turn=turn)
        answer = await asker.ask(request)
        vote = questions.read_vote(answer["text"], labels)
        if vote is None:
            return None, answer["text"]
        asker.keep([(request, answer)])
        is_object = question.number is None and vote < question.count
        return (order[vote] if is_object else vote), answer["text"]


Way = Decisions | Logprobs | Votes


async def find_way(client: Client, model: str | None, mode: Mode, voting: Voting) -> Way:
    """How the server is asked: as the settings say, or in the first way that it can."""
    setting = f"{client.address.section}.mode"
    if mode in ("auto", "systemone"):
        listed = await probe.listed_models(client, retries=1)
        chosen = probe.choose_model(model, listed, client)
        if form := await probe.decision_form(client, chosen):
            return Decisions(chosen, form)
        if mode == "systemone":
            raise UsageError(
                f"{client.address.url} takes no decisions about a picture for {chosen!r}, as {setting}=systemone asks; take "
                "auto, logprobs or vote"
            )
    chat = await probe.seeing_chat(client, model)
    most = 0 if mode == "vote" else await probe.top_logprobs(client, chat, MOST_ALTERNATIVES)
    if mode == "logprobs" and most < 2:
        raise UsageError(
            f"{client.address.url} tells no probabilities of tokens, as {setting}=logprobs asks; take auto or vote"
        )
    if mode == "logprobs" or probe.listener_mode(None, most) == "logprobs":
        return Logprobs(chat, most)
    return Votes(chat, voting, await probe.takes_choice(client, chat))
