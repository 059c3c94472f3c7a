"""A listener that learns from kept captions alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudoris_cli.networks.listener.inputs import SIZE
from pseudoris_cli.networks.listener.network import choice
from pseudoris_cli.self_training import trainer
from pseudoris_cli.self_training.labels import LabelledImage
from pseudoris_cli.self_training.trainer import Run, draw_batch, train, vocabulary_of

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (250, 250, 250)}


def painted(number: int, names: tuple[str, ...], captions: tuple[tuple[str, ...], ...] | None = None) -> LabelledImage:
    """An image whose objects are discs of one colour each, from left to right."""
    ys, xs = np.mgrid[:SIZE, :SIZE]
    disc = torch.from_numpy(np.hypot(ys - SIZE / 2, xs - SIZE / 2) < SIZE / 2.4)
    crops, places = [], []
    for place, name in enumerate(names):
        crop = torch.full((4, SIZE, SIZE), 90, dtype=torch.uint8)
        crop[:3, disc] = torch.tensor(COLOURS[name], dtype=torch.uint8)[:, None]
        crop[3] = disc.to(torch.uint8) * 255
        crops.append(crop)
        places.append([(place + 1) / (len(names) + 1), 0.5, 0.2, 0.2, -3.2, 0.2, 0.2])
    said = captions or tuple((f"the {name} disc", f"a {name} one") for name in names)
    return LabelledImage(f"{number}.png", torch.stack(crops), torch.tensor(places), said)


def images(count: int, seed: int) -> list[LabelledImage]:
    rng = np.random.default_rng(seed)
    return [
        painted(n, tuple(str(name) for name in rng.choice(list(COLOURS), 3, replace=bool(n % 2)))) for n in range(count)
    ]


@pytest.fixture(scope="module", autouse=True)
def small() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "IMAGES", 6)
        patch.setattr(trainer, "TEXTS", 4)
        patch.setattr(trainer, "WARMUP", 10)
        patch.setattr(trainer, "TRIED_EVERY", 40)
        yield


def test_it_learns_what_words_mean_and_when_they_mean_several() -> None:
    taught, held_out = images(60, 1), images(30, 2)
    told: list[tuple[int, float]] = []
    words = vocabulary_of(taught)
    made = train(taught, held_out, words, Run(120), lambda *of: told.append(of))
    assert [step for step, _ in told] == [40, 80, 120]
    assert made.step == min(told, key=lambda of: of[1])[0]
    assert made.right > 0.75 > made.chance == pytest.approx(1 / 3)
    network = made.network.eval()

    def ask(names: tuple[str, ...], text: str) -> list[float]:
        one = painted(0, names)
        with torch.no_grad():
            objects = network.encode(one.crops, one.places)
            logits = network(objects[None], one.places[None], torch.ones(1, 3, dtype=torch.bool), words.read([text]))
        return choice(logits)[0].tolist()

    for place in range(3):
        names = ["red", "blue", "white"]
        names[place] = "green"
        answer = ask(tuple(names), "the green disc")
        assert int(np.argmax(answer)) == place
        assert answer[place] > 0.6
    several = ask(("green", "red", "green"), "the green disc")
    assert several[1] < 0.1
    assert max(several[0], several[2]) < 0.5, "two fit, so neither is meant alone"


def test_equal_seeds_give_equal_weights() -> None:
    taught = images(8, 3)
    one, same, other = (
        train(taught, taught, vocabulary_of(taught), Run(3, seed), lambda *of: None).network.state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_batch_asks_about_objects_with_captions_only_and_shows_all() -> None:
    image = painted(0, ("red", "green", "blue"), ((), ("the green disc",), ()))
    batch = draw_batch([image, painted(1, ("red", "white"))], np.random.default_rng(0), vary=False)
    assert batch.present.tolist() == [[True, True, True], [True, True, False]]
    assert batch.texts[: trainer.TEXTS] == ["the green disc"] * trainer.TEXTS
    assert batch.target[: trainer.TEXTS].tolist() == [1] * trainer.TEXTS
    for text, which in zip(batch.texts[trainer.TEXTS :], batch.target[trainer.TEXTS :].tolist(), strict=True):
        assert ("red", "white")[which] in text
    assert torch.equal(batch.crops[:3], image.crops.float())


def test_of_very_many_objects_those_with_captions_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "MOST_OBJECTS", 3)
    captions: tuple[tuple[str, ...], ...] = tuple(("the green disc",) if k in (2, 5) else () for k in range(6))
    image = painted(0, ("red",) * 2 + ("green",) + ("red",) * 2 + ("green",), captions)
    for seed in range(5):
        batch = draw_batch([image], np.random.default_rng(seed), vary=False)
        assert batch.present.shape == (1, 3)
        assert sum(map(bool, batch.captions)) == 2


def test_words_of_one_caption_are_no_vocabulary() -> None:
    words = vocabulary_of([painted(0, ("red", "green"), (("the red disc", "the red thing"), ("a red disc",)))])
    assert words.words == ("red", "disc", "the"), (
        "most common first, and by the alphabet: the order must not hang on hashes"
    )
