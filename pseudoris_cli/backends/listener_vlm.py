"""A listener behind an endpoint: a vision-language model that is shown one picture with every object numbered.

Three ways to ask it: decisions (`systemone`), probabilities of the first token (`logprobs`), and several answers that are counted
(`vote`). Many questions are in flight; answers are kept in a journal until their part is committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli import watching
from pseudoris_cli.endpoint.asking import Asker
from pseudoris_cli.endpoint.client import Client
from pseudoris_cli.endpoint.failures import RequestFailed
from pseudoris_cli.endpoint.journal import Journal
from pseudoris_cli.endpoint.patience import Patience
from pseudoris_cli.endpoint.settings import EndpointSettings, check_reachable, connect, model_of
from pseudoris_cli.endpoint.ways import Heard, Mode, NotDrawn, Scene, Voting, Way, find_way
from pseudoris_cli.method.protocols import Lineup, PartAtWork, PartListener
from pseudoris_cli.prompting import questions
from pseudoris_cli.prompting.questions import Question
from pseudoris_cli.prompting.settings import QuestionSettings
from pseudoris_cli.settings.models import Numerics

ROLE = "listener"
SECTION = "filter.judge"
log = logging.getLogger("pseudoris")

DRAWING_THREADS = 2
AHEAD = 8
"""Requests that are made ready while all places are taken."""


class Settings(QuestionSettings, EndpointSettings):
    """A vision-language model that is served (vLLM, SGLang, transformers serve, hosted); better not the captioner's own."""

    NO_RESULT: ClassVar[frozenset[str]] = EndpointSettings.NO_RESULT | {"image_batch"}
    # `version` holds the model as the server lists it and the digest of words and pictures

    backend: Literal["listener_vlm"] = Field("listener_vlm", description="who is asked")
    mode: Mode = Field(
        "auto",
        description="how: decisions, probabilities of a token, or counted answers; auto: the first that the server can",
    )
    votes: int = Field(8, ge=2, le=64, description="mode vote: answers to each question, each with other numbers")
    temperature: float = Field(1.0, gt=0, le=2, description="mode vote: sampling temperature of the server")
    max_tokens: int = Field(16, ge=1, description="mode vote: tokens of an answer; more for a model that thinks first")
    image_batch: int = Field(16, ge=1, description="images whose questions are in flight together")

    @property
    def voting(self) -> Voting:
        """How votes are cast."""
        return Voting(self.votes, self.temperature, self.max_tokens, self.seed)

    @classmethod
    def tiny(cls) -> Settings:
        """For the server that OPENAI_BASE_URL names."""
        return cls(max_side=256, timeout=60, votes=2)


def load(settings: Settings, numerics: Numerics, device: str) -> VlmListener:
    """Connect to the server and find out how it can be asked; `numerics` and `device` are those of this machine and not used.

    UsageError (exit 2) for a missing or refused key, a missing model, one that sees no pictures, or a mode that the server does
    not have; EnvironmentStop (exit 1) for a server that is down; MissingDependency (exit 3) without the package openai.
    """
    client = connect(settings, SECTION)
    way = client.wait_for(find_way(client, settings.model, settings.mode, settings.voting))
    log.info("judge: %s at %s, asked by %s", way.model, client.address.url, way.mode)
    return VlmListener(settings, client, way)


def version(settings: Settings) -> str:
    """The model as the server lists it (asked only if the settings name none) and the digest of words and pictures."""
    return f"{model_of(settings, SECTION)} {questions.DIGEST[:16]}"


def check(settings: Settings) -> None:
    """Whether the server answers and takes the key; raises as `load` does. Asked before other stages run for hours."""
    check_reachable(settings, SECTION)


class VlmListener(PartListener):
    """The model at work."""

    def __init__(self, settings: Settings, client: Client, way: Way) -> None:
        self.settings, self.client, self.way = settings, client, way
        self.numbered = way.numbered
        self.resolved: Mapping[str, Any] = {"mode": way.mode}
        self._drawing = ThreadPoolExecutor(DRAWING_THREADS, thread_name_prefix="draw")
        self._asker = Asker(client, Journal(None))
        self._why: dict[str, str] = {}
        advice = f"look whether this is a vision-language model that follows instructions, and at {SECTION}.mode"
        self._patience = Patience(client, f"questions got a usable answer from {way.model}", advice)

    @contextmanager
    def part(self, part: PartAtWork) -> Iterator[None]:
        """Answers of the block are kept in the part's journal; at its end the part's notes say what they came to."""
        journal = Journal(part.journal)
        self._asker, self._why = Asker(self.client, journal), {}
        try:
            yield
            self._patience.at_end()
        finally:
            journal.close()
        part.notes["requests"] = self._asker.note()
        if self._why:
            part.notes["unanswered"] = self._why

    def listen(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """Probabilities [E, M + 1] of each image (see the protocol)."""
        asked = [[Question(text, len(one.masks)) for text in one.expressions] for one in lineups]
        found = self._answers(lineups, asked)
        return [
            np.reshape(rows, (len(of), len(one.masks) + 1)) for one, of, rows in zip(lineups, asked, found, strict=True)
        ]

    def fits(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """Probabilities [E, M] that each mask fits (see the protocol); one question for each mask and expression."""
        asked = [
            [
                Question(text, len(one.masks), number)
                for text in one.expressions
                for number in range(1, len(one.masks) + 1)
            ]
            for one in lineups
        ]
        found = self._answers(lineups, asked)
        return [
            np.reshape([row[0] for row in rows], (len(one.expressions), len(one.masks)))
            for one, rows in zip(lineups, found, strict=True)
        ]

    def _answers(self, lineups: Sequence[Lineup], asked: Sequence[Sequence[Question]]) -> list[list[np.ndarray]]:
        """The answers to each image's questions, in order; of NaN where there is none."""
        found: list[list[np.ndarray]] = [[] for _ in lineups]
        groups = [
            (place, of_image[start : start + self.way.together])
            for place, of_image in enumerate(asked)
            for start in range(0, len(of_image), self.way.together)
        ]

        def jobs() -> Iterator[Callable[[], Coroutine[Any, Any, Heard]]]:
            scene, last = None, -1
            for place, group in groups:
                if scene is None or place != last:
                    scene, last = Scene(lineups[place], self.settings.max_side, self._drawing), place
                yield partial(self._ask, scene, group)

        ahead = self.settings.concurrency + AHEAD
        heard = self.client.in_order(jobs(), ahead)
        for number, ((place, group), (answers, failure, said)) in enumerate(zip(groups, heard, strict=True), 1):
            for question, answer in zip(group, answers, strict=True):
                self._patience.heard(None if answer is not None else failure, said)
                found[place].append(answer if answer is not None else np.full(question.options, np.nan))
            if failure:
                self._why.setdefault(lineups[place].key, failure[:200])
            watching.tell(number / len(groups))
        return found

    async def _ask(self, scene: Scene, group: Sequence[Question]) -> Heard:
        try:
            return await self.way.ask(self._asker, scene, group)
        except RequestFailed as failure:
            return [None] * len(group), failure.reason, ""
        except NotDrawn as error:
            return [None] * len(group), str(error), ""
