"""Expressions by a vision-language model of transformers in this process: the pictures and words of `vlm`, without a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pseudoris_cli.errors import is_out_of_memory, reason_of
from pseudoris_cli.halving import release_memory
from pseudoris_cli.method.protocols import PartAtWork, PartCaptioner
from pseudoris_cli.prompting import selecting
from pseudoris_cli.prompting.prompts import Prompt
from pseudoris_cli.prompting.selecting import Outcome, Usable
from pseudoris_cli.prompting.settings import PromptSettings
from pseudoris_cli.prompting.views import Picture, Scene, Shown
from pseudoris_cli.records import Caption, Failure, Mask, MaskedImage
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.weights import model_folders

if TYPE_CHECKING:
    from pseudoris_cli.networks.memory import Memory, Work

ROLE = "captioner"
_REPAIRS = 1


class Settings(PromptSettings):
    """Any AutoModelForImageTextToText, from a local folder or the Hugging Face cache."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset({"model", "prompt", "image_batch"})  # `version` holds their digests

    MODEL_FOLDER: ClassVar[str | None] = "model"

    backend: Literal["captioner_hf"] = Field("captioner_hf", description="who writes the expressions")
    model: str = Field("Qwen/Qwen3-VL-2B-Instruct", description="local folder, or name on the Hugging Face hub")
    temperature: float = Field(0.7, ge=0, le=2, description="sampling temperature; 0 takes the likeliest token")
    top_p: float | None = Field(None, gt=0, le=1, description="nucleus of the sampling; null: all tokens")
    mask_batch: int = Field(4, ge=1, description="masks that are asked together")

    @classmethod
    def tiny(cls) -> Settings:
        """For the model in the folder `tiny-vlm` where the command runs."""
        return cls(model="./tiny-vlm", candidates=2, temperature=0.0, max_tokens=64, max_side=256)


def load(settings: Settings, numerics: Numerics, device: str) -> HfCaptioner:
    """Read processor and network and put them on the device.

    MissingDependency (exit 3) if transformers or the model is not here; UsageError (exit 2) if it reads no pictures.
    """
    prompt = settings.load_prompt()
    folder = model_folders.locate(settings.model, "captions.model")
    from pseudoris_cli.networks.vision_language import load_vision_language

    processor, network = load_vision_language(folder, f"captions.model={settings.model}", numerics, device)
    return HfCaptioner(settings, network, processor, prompt)


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device, for pictures of the largest size and few objects.

    MissingDependency (exit 3) where the model is not here.
    """
    from pseudoris_cli.networks.memory import MASKS
    from pseudoris_cli.networks.vision_language_memory import blank, generation, request

    folder, named = model_folders.locate(settings.model, "captions.model"), f"captions.model={settings.model}"
    size = settings.max_side, settings.max_side * 3 // 4
    pictures = (size,) * (1 if settings.view in ("crop", "rgba") else 2)
    asked = request(folder, named, pictures, settings.load_prompt().text(Shown((), 1, MASKS)))
    return generation(blank(folder, named, work.numerics), asked, settings.mask_batch, settings.max_tokens, work)


def version(settings: Settings) -> str:
    """The digest of every file of the model, and that of the prompt."""
    prompt = settings.load_prompt()
    folder = model_folders.locate(settings.model, "captions.model")
    return f"{model_folders.digest(folder)[:32]} {prompt.digest[:16]}"


@dataclass
class _Job:
    """One mask to ask for, with the messages so far and what came of them."""

    scene: Scene
    mask: Mask
    messages: list[dict[str, Any]]
    marked: int
    attempt: int = 0
    usable: Usable = field(default_factory=Usable)
    failure: str | None = None
    too_large: bool = False


class HfCaptioner(PartCaptioner):
    """The model at work; `halvings` counts how often memory ran out."""

    def __init__(self, settings: Settings, network: Any, processor: Any, prompt: Prompt) -> None:
        self.settings, self.network, self.processor, self.prompt = settings, network, processor, prompt
        self.processor.tokenizer.padding_side = "left"
        self.halvings = 0

    def caption(self, images: Sequence[MaskedImage]) -> list[list[Caption]]:
        """Captions without a part around them; a mask without a usable answer has none."""
        return [[] if isinstance(found, Failure) else found for found in self.caption_part(images, PartAtWork())]

    def caption_part(self, images: Iterable[MaskedImage], part: PartAtWork) -> Iterator[list[Caption] | Failure]:
        """Captions of each image; batches of masks go over the borders of images."""
        outcome, halved = Outcome(), self.halvings
        open_images: deque[tuple[MaskedImage, list[_Job]]] = deque()
        waiting: list[_Job] = []
        for image in images:
            scene = Scene(image, self.settings.view, self.settings.max_side, self.settings.max_marks)
            jobs = [self._job(scene, place) for place in range(len(image.masks))]
            open_images.append((image, jobs))
            waiting += jobs
            while len(waiting) >= self.settings.mask_batch:
                self._answer(waiting[: self.settings.mask_batch])
                del waiting[: self.settings.mask_batch]
            while open_images and not any(job in waiting for job in open_images[0][1]):
                yield self._finish(*open_images.popleft(), outcome)
        if waiting:
            self._answer(waiting)
        while open_images:
            yield self._finish(*open_images.popleft(), outcome)
        part.notes.update(outcome.notes())
        if self.halvings > halved:
            part.notes["mask_batch_halved"] = self.halvings - halved

    def _job(self, scene: Scene, place: int) -> _Job:
        shown = scene.show(place)
        pictures = [{"type": "image", "image": _opened(picture)} for picture in shown.pictures]
        content = [*pictures, {"type": "text", "text": self.prompt.text(shown)}]
        return _Job(scene, scene.image.masks[place], [{"role": "user", "content": content}], shown.marked)

    def _finish(self, image: MaskedImage, jobs: list[_Job], outcome: Outcome) -> list[Caption] | Failure:
        for job in jobs:
            outcome.add(image.key, job.mask.mask_id, job.usable.rejected, job.failure)
        if jobs and all(job.failure for job in jobs):
            return Failure(f"no mask has an expression; mask {jobs[0].mask.mask_id}: {jobs[0].failure}"[:300])
        return [
            Caption(job.mask.mask_id, number, one.text, self.settings.view, "vlm", 0.0, 0, one.kind)
            for job in jobs
            for number, one in enumerate(job.usable.passed[: self.settings.candidates])
        ]

    def _answer(self, jobs: list[_Job]) -> None:
        """Ask for some masks, and once more for those whose answer is of no use."""
        for attempt in range(_REPAIRS + 1):
            for job in jobs:
                job.attempt = attempt
            for job, answer in zip(jobs, self._generate(jobs), strict=True):
                if isinstance(answer, BaseException):
                    job.failure, job.too_large = reason_of(answer), True
                    continue
                text, whole = answer
                found = selecting.usable(text, self.settings.style, job.marked)
                found.rejected[:0] = job.usable.rejected
                job.usable, job.failure = found, None
                if not found.passed:
                    job.failure = found.reason("stop" if whole else "length")
                    said = {"role": "assistant", "content": [{"type": "text", "text": text or "(nothing)"}]}
                    again = {"role": "user", "content": [{"type": "text", "text": self.prompt.repair(job.failure)}]}
                    job.messages = [job.messages[0], said, again]
            jobs = [job for job in jobs if job.failure and not job.too_large]
            if not jobs:
                return

    def _generate(self, jobs: list[_Job]) -> list[tuple[str, bool] | BaseException]:
        """The text of each answer and whether it came to its end; in halves where memory does not suffice.

        Where it does not suffice for one mask, the error that said so.
        """
        try:
            return [*self._generate_together(jobs)]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(jobs) == 1:
                return [error]
        self.halvings += 1
        release_memory()
        middle = len(jobs) // 2
        return self._generate(jobs[:middle]) + self._generate(jobs[middle:])

    def _generate_together(self, jobs: list[_Job]) -> list[tuple[str, bool]]:
        inputs = self._inputs(jobs)
        made = self._generated(inputs, jobs)
        new = made[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(new, skip_special_tokens=True)
        ends = self.network.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        return [(text, bool(ends & set(row.tolist()))) for text, row in zip(texts, new, strict=True)]

    def _inputs(self, jobs: list[_Job]) -> Any:
        """What the processor makes of the messages, on the device."""
        import torch

        inputs = self.processor.apply_chat_template(
            [job.messages for job in jobs],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self.network.device)
        for name, value in inputs.items():
            if torch.is_tensor(value) and value.is_floating_point():
                inputs[name] = value.to(self.network.dtype)
        return inputs

    def _generated(self, inputs: Any, jobs: list[_Job]) -> Any:
        """The tokens of the questions and their answers, [jobs, T]."""
        import torch

        with torch.inference_mode():
            return self.network.generate(
                **inputs,
                max_new_tokens=self.settings.max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=self._drawing(jobs),
            )

    def _drawing(self, jobs: list[_Job]) -> Any:
        """What makes the likeliest token a draw: noise of each mask's own, so that no answer depends on the batch."""
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        if self.settings.temperature == 0:
            return LogitsProcessorList()
        seeds = [
            selecting.request_seed(self.settings.seed, job.scene.image.drawn_as, job.mask.mask_id, job.attempt)
            for job in jobs
        ]
        steps: list[Any] = [TemperatureLogitsWarper(self.settings.temperature)]
        if self.settings.top_p is not None:
            steps.append(TopPLogitsWarper(self.settings.top_p))
        return LogitsProcessorList([*steps, _GumbelRows(seeds)])


class _GumbelRows:
    """Adds Gumbel noise to each row's scores from a generator of its own: the largest sum is a draw from the softmax."""

    def __init__(self, seeds: Sequence[int]) -> None:
        import torch

        self._random = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        uniform = torch.stack([torch.rand(scores.shape[1], generator=random) for random in self._random])
        return scores.float() - torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7))).to(scores.device)


def _opened(picture: Picture) -> Any:
    """The picture as a server would see it: after the same encoding."""
    import io

    from PIL import Image

    return Image.open(io.BytesIO(picture.data))
