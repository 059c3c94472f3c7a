"""CLIP through open_clip: weights, activations, texts beyond the context, and the shortened text tower."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from pseudoris_cli.backends import clip
from pseudoris_cli.backends.clip import ClipScorer, Settings
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.weights import clip_files
from pseudoris_cli.weights import registry as weights

TEXTS = ["a dog", "two big brown dogs on the green grass near a red bus", "犬", "", "a photo of a cat", "dog " * 50]


def load(**changes: object) -> ClipScorer:
    return clip.load(Settings(model="tiny", checkpoint="random:0").model_copy(update=changes), Numerics(), "cpu")


@pytest.fixture(scope="module")
def tiny() -> ClipScorer:
    return load()


@pytest.fixture(scope="module")
def crops(tiny: ClipScorer) -> torch.Tensor:
    return torch.randn(5, 3, tiny.size, tiny.size, generator=torch.Generator().manual_seed(1))


def test_published_digests_are_those_in_open_clips_addresses() -> None:
    from open_clip.pretrained import get_pretrained_url, list_pretrained_models_by_tag

    published = {}
    for model in list_pretrained_models_by_tag("openai"):
        url = get_pretrained_url(model, "openai")
        if "openaipublic" in url and "quickgelu" not in model:
            published[model] = url.split("/")[-2]
    assert published == clip_files.OPENAI_ARCHIVES
    assert weights.registry()["clip_rn50"].sha256 == clip_files.OPENAI_ARCHIVES["RN50"]


def test_texts_equal_the_whole_text_tower(tiny: ClipScorer) -> None:
    assert tiny._causal  # the shortened tower is what runs
    with torch.inference_mode():
        whole = torch.nn.functional.normalize(tiny._model.encode_text(tiny._tokenizer(TEXTS)), dim=-1)
        each = torch.cat([tiny.encode_texts([text]) for text in TEXTS])  # alone, every text is cut to its own length
    torch.testing.assert_close(tiny.encode_texts(TEXTS), whole)
    torch.testing.assert_close(each, whole)
    assert len({tuple(row) for row in each.round(decimals=3).tolist()}) == len(TEXTS)


def test_texts_beyond_the_context_are_cut(tiny: ClipScorer) -> None:
    fits = " ".join(["dog"] * 18)  # 20 tokens with start and end
    cut = tiny.encode_texts([fits + " cat" * 30, "cat " + fits])
    torch.testing.assert_close(cut[:1], tiny.encode_texts([fits]))
    assert not torch.allclose(cut[0], cut[1])


def test_chunks_change_nothing(tiny: ClipScorer, crops: torch.Tensor) -> None:
    small = load(image_chunk=2, text_chunk=2)
    torch.testing.assert_close(small.encode_images(crops), tiny.encode_images(crops))
    torch.testing.assert_close(small.encode_texts(TEXTS), tiny.encode_texts(TEXTS))


def test_vectors_have_unit_length(tiny: ClipScorer, crops: torch.Tensor) -> None:
    for vectors in (tiny.encode_images(crops), tiny.encode_texts(TEXTS)):
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)))


def test_random_weights_follow_the_seed_alone(crops: torch.Tensor, tiny: ClipScorer) -> None:
    before = torch.get_rng_state()
    again, other = load(), load(checkpoint="random:1")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.encode_images(crops), tiny.encode_images(crops))
    assert not torch.allclose(other.encode_images(crops), tiny.encode_images(crops))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close(precision, tiny: ClipScorer, crops: torch.Tensor) -> None:
    half = clip.load(Settings.tiny(), Numerics(precision=precision), "cpu")
    for name, given in (("encode_images", crops), ("encode_texts", TEXTS)):
        vectors = getattr(half, name)(given)
        assert vectors.dtype == torch.float32
        assert (vectors * getattr(tiny, name)(given)).sum(dim=-1).min() > 0.999


def test_plain_checkpoints(tmp_path, tiny: ClipScorer, crops: torch.Tensor) -> None:
    state = load(checkpoint="random:7")._model.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "weights.pt")
    expected = load(checkpoint="random:7").encode_images(crops)
    for name in ("weights.safetensors", "weights.pt"):
        assert torch.equal(load(checkpoint=str(tmp_path / name)).encode_images(crops), expected)


def save_openai_like_archive(path) -> None:
    """A TorchScript archive of a tiny CLIP with the three integers that OpenAI keeps beside the weights."""
    model = load(checkpoint="random:7")._model
    model.__dict__["attn_mask"] = model._buffers.pop(
        "attn_mask"
    )  # TorchScript would save it; OpenAI's archives hold none
    for name in clip_files.OPENAI_EXTRAS:
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(1))
    inputs = {"encode_image": torch.zeros(1, 3, 32, 32), "encode_text": torch.zeros(1, 20, dtype=torch.long)}
    torch.jit.trace_module(model, inputs).save(str(path))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_only_with_a_published_digest(tmp_path, monkeypatch, crops: torch.Tensor) -> None:
    path = tmp_path / "archive.pt"
    save_openai_like_archive(path)
    opened = []
    read = torch.jit.load
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: opened.append(a) or read(*a, **k))
    with pytest.raises(UsageError, match="sha256"):
        load(checkpoint=str(path))
    assert not opened  # refused before a byte of it is interpreted
    monkeypatch.setitem(clip_files.OPENAI_ARCHIVES, "tiny", weights.read_digest(path))
    from_archive, same = load(checkpoint=str(path)), load(checkpoint="random:7")
    assert torch.equal(from_archive.encode_images(crops), same.encode_images(crops))
    assert torch.equal(from_archive.encode_texts(TEXTS), same.encode_texts(TEXTS))
    assert opened


def test_weights_of_another_model_are_refused(tmp_path) -> None:
    save_file({"positional_embedding": torch.zeros(20, 32)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=r"set filter\.scorer\.model"):
        load(checkpoint=str(tmp_path / "other.safetensors"))


def test_unknown_model_and_missing_checkpoint(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PSEUDORIS_WEIGHTS", str(tmp_path))
    with pytest.raises(UsageError, match="no model 'RN51'"):
        load(model="RN51")
    with pytest.raises(MissingDependency, match="pseudoris weights fetch clip_rn50"):
        clip.load(Settings(), Numerics(), "cpu")


PLAIN: dict = {"visual.conv1.weight": None}
OPENAI: dict = PLAIN | {"input_resolution": None}


@pytest.mark.parametrize(
    ("settings", "state", "quick"),
    [
        (Settings(), PLAIN, True),  # registered as OpenAI's
        (Settings(checkpoint="rn50.safetensors"), PLAIN, True),  # all published RN50 need it
        (Settings(checkpoint="random:0"), None, True),
        (Settings(model="ViT-B-32", checkpoint="b.pt"), OPENAI, True),
        (Settings(model="ViT-B-32", checkpoint="openai"), PLAIN, True),
        (Settings(model="ViT-B-32", checkpoint="b.pt", pretrained="laion2b_s34b_b79k"), PLAIN, False),
        (Settings(model="ViT-B-32", checkpoint="laion2b_s34b_b79k"), PLAIN, False),
        (Settings(model="ViT-B-32", checkpoint="random:0"), None, False),
    ],
)
def test_activation_of_the_weights(settings: Settings, state: dict | None, quick: bool) -> None:
    assert clip._traits(settings, state).quick_gelu is quick


def test_normalisation_of_the_weights() -> None:
    laion = Settings(model="ViT-L-14", checkpoint="w.pt", pretrained="laion2b_s32b_b82k")
    assert clip._traits(laion, PLAIN).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("pretrained", [None, "imagenet"])
def test_doubtful_weights_must_be_named(pretrained: str | None) -> None:
    settings = Settings(model="ViT-B-32", checkpoint="weights.safetensors", pretrained=pretrained)
    with pytest.raises(UsageError, match=r"set filter\.scorer\.pretrained .* laion2b_s34b_b79k"):
        clip._traits(settings, PLAIN)


def test_building_an_open_clip_model_sets_up_no_logging() -> None:
    import open_clip

    handlers = list(logging.getLogger().handlers)
    scorer = clip.load(Settings(model="RN50", checkpoint="random:0"), Numerics(), "cpu")
    assert logging.getLogger().handlers == handlers
    assert isinstance(scorer._model.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    assert (scorer.size, scorer.mean) == (224, open_clip.OPENAI_DATASET_MEAN)
