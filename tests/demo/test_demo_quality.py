"""benchmarks/demo_quality.py, from which the published figures of the demo come, on one scene."""

from __future__ import annotations

import importlib.util
import sys

from locations import REPOSITORY

BENCHMARK = REPOSITORY / "benchmarks" / "demo_quality.py"


def test_a_scene_goes_through_every_stage_and_is_judged():
    spec = importlib.util.spec_from_file_location("demo_quality", BENCHMARK)
    demo_quality = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = demo_quality
    spec.loader.exec_module(demo_quality)
    made = demo_quality.make("tune", [0], ["captions.top_p=[]"], ["plain"])
    settings = demo_quality.resolve("demo").settings.filter
    judged = demo_quality.judge_at(1.2, made, settings)
    assert (judged.images, judged.masks) == (1, len(made.masks["mask_id"]))
    assert judged.mask_figures["recall@.5"].value > 0.7
    assert {(one.method, one.filtered) for one in judged.captions} == {
        (method, filtered) for method in ("beam", "plain") for filtered in (False, True)
    }
    assert judged.captions[-1].figures["well_formed"].value > 0.7
    assert made.seconds.keys() == {"masks", "captions, plain", "scores, plain"}
