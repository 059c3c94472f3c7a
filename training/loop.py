"""The training loop of all networks: AdamW, one thread, a schedule by step, weights saved with their provenance."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint import learning_rate, save
from safetensors import safe_open
from safetensors.torch import load_file

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a script. `start` is a file of weights to continue from, with a new optimizer."""

    script: str
    pool: Path
    out: Path
    steps: int
    rate: float
    seed: int
    start: Path | None

    @classmethod
    def parse(cls, script: str, description: str | None, steps: int, rate: float, seed: int, **more: Any) -> Run:
        """Parse the command line; the arguments are its defaults."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--pool", type=Path, required=True, help="folder made by render_data.py")
        parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
        parser.add_argument("--start", type=Path, help="weights of an earlier run of this script to go on from")
        parser.add_argument("--steps", type=int, default=steps)
        parser.add_argument("--rate", type=float, default=rate, help="highest learning rate")
        parser.add_argument("--seed", type=int, default=seed)
        return cls(script, **vars(parser.parse_args()))

    def prepare(self) -> np.random.Generator:
        """Seed torch, use one thread, and return the random generator of the data."""
        torch.set_num_threads(1)
        torch.manual_seed(self.seed)
        return np.random.default_rng(self.seed)

    def restore(self, model: torch.nn.Module) -> None:
        """Load the weights to continue from, if any."""
        if self.start:
            model.load_state_dict({name: value.float() for name, value in load_file(self.start).items()})

    def provenance(self, step: int, scenes: int, cpu_seconds: float, figures: Figures) -> dict[str, Any]:
        """The metadata of the shipped file; `earlier` is that of the run it continued."""
        earlier: dict[str, Any] | None = None
        if self.start:
            with safe_open(self.start, "pt") as file:
                earlier = {key: json.loads(value) for key, value in file.metadata().items()}
        return {
            "script": self.script,
            "seed": self.seed,
            "rate": self.rate,
            "steps": step,
            "of_steps": self.steps,
            "data": {"split": "train", "scenes": scenes},
            "cpu_minutes": round(cpu_seconds / 60, 1),
            "figures": figures,
            **({"earlier": earlier} if earlier else {}),
        }


def train(
    run: Run,
    model: torch.nn.Module,
    extra: list[torch.nn.Parameter],
    scenes: int,
    step_loss: Callable[[float], tuple[torch.Tensor, Figures]],
    about: Mapping[str, object] | None = None,
) -> None:
    """Minimise `step_loss(progress in 0..1)` over the model and `extra` parameters; save every 200 steps.

    `about` goes into the metadata of the file, beside how it was made.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1] + extra
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    log: list[Figures] = []
    start = time.process_time()
    for step in range(run.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, run.steps, run.rate)
        loss, figures = step_loss(step / run.steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.append(figures)
        done, last = step + 1, step + 1 == run.steps
        if done % 50 == 0 or last:
            mean = {name: round(float(np.mean([row[name] for row in log[-50:]])), 3) for name in figures}
            cpu = time.process_time() - start
            print(done, f"{cpu:.0f} CPU-s", mean, flush=True)
            if done % 200 == 0 or last:
                save(model, run.out, run.provenance(done, scenes, cpu, mean) | dict(about or {}))
