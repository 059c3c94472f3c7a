"""Stage 3b, optional: a listener who is shown every object is asked which one each candidate means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.execution.tasks import ContextMaker, ImageResult, ImageStage, LoadedImage, PartInput, PartResult
from pseudoris_cli.method.listening import Answer, Judge, asked
from pseudoris_cli.records import CaptionCandidate, MaskedImage
from pseudoris_cli.settings.models import NO_BACKEND, FilterSettings, JudgeSettings, Settings, versioned
from pseudoris_cli.stages.batching import run_batches
from pseudoris_cli.storage.rows import join, masks_by_image

NAME = "judge"
REVISION = 1
_SELECTION = ("min_doc", "min_words", "max_words", "one_mask_half")
"""The settings of the filter that decide who is asked."""


def is_wanted(settings: Settings) -> bool:
    """Whether there is a listener."""
    return settings.filter.judge.backend != NO_BACKEND


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the results of this stage, beside its upstream."""
    chosen, judge = settings.filter, judge_settings(settings)
    selection = versioned(chosen, include=set(_SELECTION))
    if judge.min_doc is not None:
        selection.pop("min_doc")
    return {
        "revision": REVISION,
        "settings": selection | {"judge": backends.results_of(judge)},
        "numerics": settings.numerics.model_dump(mode="json"),
        "checkpoints": {"judge": backends.identify(judge, "filter.judge")},
    }


def judge_settings(settings: Settings) -> JudgeSettings:
    """The settings of the listener."""
    judge = settings.filter.judge
    assert isinstance(judge, JudgeSettings), "select_backend sees to it"
    return judge


def make_spec(settings: Settings, make_context: ContextMaker) -> Spec:
    """The stage, ready to load its networks."""
    return Spec(make_context(), settings.filter, judge_settings(settings))


@dataclass(frozen=True)
class Spec(ImageStage):
    """The judge stage."""

    settings: FilterSettings
    judge: JudgeSettings
    name: ClassVar[str] = NAME

    def make_worker(self) -> JudgeWorker:
        """Load the listener; the scorer only once an image has more masks than are shown."""
        device, numerics = self.context.device.resolve(), self.context.numerics
        listener = backends.load(self.judge, numerics, device)
        return JudgeWorker(self.settings, Judge(listener, self.judge, _Likeness(self, device)))


class JudgeWorker:
    """The listener on the candidates of the stage before."""

    def __init__(self, settings: FilterSettings, judge: Judge) -> None:
        self.settings, self.judge = settings, judge

    def run(self, part: PartInput) -> PartResult:
        """An answer for every candidate of a part that is asked, null for the others; then texts that fit nothing."""
        columns = join(part.columns["captions"], part.columns["scores"])
        masks = masks_by_image(part.columns["masks"])
        candidates: dict[str, list[tuple[CaptionCandidate, bool]]] = {}
        for key, mask_id, number, caption, ask in zip(
            *(columns[name] for name in ("image_key", "mask_id", "candidate_id", "caption")),
            asked(columns, self.settings, self.judge.settings),
            strict=True,
        ):
            candidates.setdefault(key, []).append((CaptionCandidate(int(mask_id), int(number), caption), bool(ask)))
        others = _Others(candidates, self.judge.settings)
        counts = {"asked": 0, "answered": 0, "picked": 0, "none": 0}

        def work(batch: list[LoadedImage]) -> list[ImageResult]:
            images = [MaskedImage(image.ref.key, image.image_rgb, masks[image.ref.key]) for image in batch]
            wanted = [[one for one, ask in candidates.get(image.key, []) if ask] for image in images]
            answers = self.judge.answers(images, wanted)
            foreign = [others.of(image.key) for image in images]
            nothing = self.judge.fits_nothing(images, foreign) if any(foreign) else [[] for _ in images]
            for one, of_image in zip(wanted, answers, strict=True):
                _count(counts, one, of_image)
            return [
                ImageResult(
                    _rows(image.key, candidates.get(image.key, []), of_image)
                    + _no_target_rows(image.key, texts, verdicts)
                )
                for image, of_image, texts, verdicts in zip(images, answers, foreign, nothing, strict=True)
            ]

        result = run_batches(part, self.judge.settings.image_batch, work, NAME, optional=("listener",))
        result.notes["judge"] = counts
        return result


def _rows(
    key: str, candidates: Sequence[tuple[CaptionCandidate, bool]], answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    given = iter(answers)
    return [
        {
            "image_key": key,
            "mask_id": one.mask_id,
            "candidate_id": one.candidate_id,
            "caption": one.caption,
            **(next(given) if ask else Answer()).row(),
        }
        for one, ask in candidates
    ]


def _no_target_rows(key: str, texts: Sequence[str], nothing: Sequence[bool]) -> list[dict[str, Any]]:
    lonely = [text for text, none in zip(texts, nothing, strict=True) if none]
    return [
        {
            "image_key": key,
            "mask_id": -1,
            "candidate_id": number,
            "caption": text,
            **Answer(choice=-1, targets=()).row(),
        }
        for number, text in enumerate(lonely)
    ]


def _count(counts: dict[str, int], candidates: Sequence[CaptionCandidate], answers: Sequence[Answer]) -> None:
    for one, answer in zip(candidates, answers, strict=True):
        counts["asked"] += 1
        counts["answered"] += answer.choice is not None
        counts["picked"] += answer.choice == one.mask_id
        counts["none"] += answer.choice == -1


class _Others:
    """Texts of other images of the part, drawn for each image from its key."""

    def __init__(self, candidates: dict[str, list[tuple[CaptionCandidate, bool]]], settings: JudgeSettings) -> None:
        self._count, self._seed = settings.no_target_per_image, settings.seed
        self._texts = {
            key: list(dict.fromkeys(one.caption for one, ask in of_image if ask))
            for key, of_image in candidates.items()
        }

    def of(self, key: str) -> list[str]:
        """At most `no_target_per_image` texts that no mask of the image has."""
        if not self._count:
            return []
        own = set(self._texts.get(key, []))
        pool = [text for other, texts in self._texts.items() if other != key for text in texts if text not in own]
        pool = list(dict.fromkeys(pool))
        rng = np.random.default_rng([self._seed, *key.encode()])
        drawn = rng.permutation(len(pool))[: self._count]
        return [pool[index] for index in sorted(drawn.tolist())]


class _Likeness:
    """Cosines of the masks of an image by the scorer of the filter, which is loaded when first asked."""

    def __init__(self, spec: Spec, device: str) -> None:
        self._spec, self._device = spec, device
        self._scorer: Any = None

    def __call__(self, image: MaskedImage) -> np.ndarray:
        from pseudoris_cli.method import scoring

        if self._scorer is None:
            self._scorer = backends.load(self._spec.settings.scorer, self._spec.context.numerics, self._device)
        return scoring.mask_likeness(image, self._scorer, self._spec.settings)
