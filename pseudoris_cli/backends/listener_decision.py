"""A listener in this process: transformers' `decision` pipeline around a vision-language model, without a server.

It is shown and asked what `listener_vlm` shows and asks in its mode `systemone`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli import watching
from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.halving import Halving
from pseudoris_cli.method.protocols import Lineup, Listener
from pseudoris_cli.prompting import questions
from pseudoris_cli.prompting.questions import Question
from pseudoris_cli.prompting.settings import QuestionSettings
from pseudoris_cli.prompting.views import lineup_picture
from pseudoris_cli.records import MaskedImage
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.weights import model_folders

if TYPE_CHECKING:
    from pseudoris_cli.networks.memory import Memory, Work

ROLE = "listener"
_SETTING = "filter.judge.model"
_PICTURE = "<the picture>"
_TOGETHER = 16
"""Questions in one call: the picture is prepared for each of them, so this bounds memory only."""


class Settings(QuestionSettings):
    """Any model that answers pictures and text, from a local folder or the Hugging Face cache; better not the captioner's own."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset({"model", "image_batch"})  # `version` holds the digest of its files

    backend: Literal["listener_decision"] = Field("listener_decision", description="who is asked")
    model: str = Field("Qwen/Qwen3-VL-2B-Instruct", description="local folder, or name on the Hugging Face hub")

    @classmethod
    def tiny(cls) -> Settings:
        """For the model in the folder `tiny-vlm` where the command runs."""
        return cls(model="./tiny-vlm", max_side=256)


def load(settings: Settings, numerics: Numerics, device: str) -> DecisionListener:
    """Read processor and network and put them on the device.

    MissingDependency (exit 3) if the model is not here, or transformers has no decisions; UsageError (exit 2) if the model reads
    no pictures.
    """
    folder = model_folders.locate(settings.model, _SETTING)
    try:
        from transformers.pipelines import DecisionPipeline
    except ImportError as error:
        raise MissingDependency(
            "this transformers has no `decision` pipeline:  pip install 'transformers>=5.24'  (or take listener_vlm)"
        ) from error

    from pseudoris_cli.networks.vision_language import load_vision_language

    processor, network = load_vision_language(folder, f"{_SETTING}={settings.model}", numerics, device)
    pipeline = DecisionPipeline(model=network, tokenizer=processor.tokenizer, processor=processor, device=device)
    return DecisionListener(settings, pipeline)


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device, for a picture of the largest size and few objects.

    MissingDependency (exit 3) where the model is not here.
    """
    from pseudoris_cli.networks.memory import MASKS
    from pseudoris_cli.networks.vision_language_memory import blank, one_by_one, request

    folder, named = model_folders.locate(settings.model, _SETTING), f"{_SETTING}={settings.model}"
    text = f"{questions.scene(MASKS)}\n{Question('the object on the left of the other', MASKS).decision()}"
    asked = request(folder, named, ((settings.max_side, settings.max_side * 3 // 4),), text)
    return one_by_one(blank(folder, named, work.numerics), asked, _TOGETHER, work)


def version(settings: Settings) -> str:
    """The digest of every file of the model, and that of words and pictures."""
    folder = model_folders.locate(settings.model, _SETTING)
    return f"{model_folders.digest(folder)[:32]} {questions.DIGEST[:16]}"


class DecisionListener(Listener):
    """The model at work: one forward pass for each question."""

    def __init__(self, settings: Settings, pipeline: Any) -> None:
        self.settings, self._pipeline = settings, pipeline
        self._halving = Halving()

    @property
    def halvings(self) -> int:
        """How often memory ran out and questions were asked in halves."""
        return self._halving.times

    def listen(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """Probabilities [E, M + 1] of each image (see the protocol)."""
        return self._answers(lineups, lambda text, count: [Question(text, count)])

    def fits(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """Probabilities [E, M] that each mask fits (see the protocol)."""
        found = self._answers(lineups, lambda text, count: [Question(text, count, n) for n in range(1, count + 1)])
        return [
            np.reshape(rows[:, 0], (len(one.expressions), len(one.masks)))
            for one, rows in zip(lineups, found, strict=True)
        ]

    def _answers(self, lineups: Sequence[Lineup], ask: Any) -> list[np.ndarray]:
        """Of each image the answers to its questions [questions, options]."""
        found = []
        for done, one in enumerate(lineups, 1):
            count = len(one.masks)
            asked = [question for text in one.expressions for question in ask(text, count)]
            options = asked[0].options if asked else count + 1
            picture = self._picture(one) if asked else None
            found.append(np.reshape(self._rows(picture, count, asked), (len(asked), options)))
            watching.tell(done / len(lineups))
        return found

    def _rows(self, picture: Any, count: int, asked: Sequence[Question]) -> list[np.ndarray]:
        chunks = self._halving.chunks(len(asked), _TOGETHER, lambda part: self._decide(picture, count, asked[part]))
        return [row for chunk in chunks for row in chunk]

    def _picture(self, one: Lineup) -> Any:
        """As a server would see it: after the same encoding."""
        from PIL import Image

        image = MaskedImage(one.key, one.image_rgb, one.masks)
        return Image.open(io.BytesIO(lineup_picture(image, range(len(one.masks)), self.settings.max_side).data))

    def _decide(self, picture: Any, count: int, asked: Sequence[Question]) -> list[np.ndarray]:
        import torch

        named = {f"q{number}": question for number, question in enumerate(asked)}
        request = {
            "state": f"{_PICTURE}\n{questions.scene(count)}",
            "questions": {name: question.decision() for name, question in named.items()},
            "assets": {_PICTURE: picture},
        }
        with torch.inference_mode():
            answers = self._pipeline(request)
        found = [question.decided(_probabilities(answers[name])) for name, question in named.items()]
        return [
            answer if answer is not None else np.full(question.options, np.nan)
            for question, answer in zip(asked, found, strict=True)
        ]


def _probabilities(answer: dict[str, Any]) -> dict[str, float]:
    if answer["type"] == "noul":
        return {"true": answer["noul"], "false": 1 - answer["noul"]}
    found: dict[str, float] = answer["probabilities"]
    return found
