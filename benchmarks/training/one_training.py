"""One training in a process of its own: `python -m benchmarks.training.one_training JOB`.

JOB is a `jobs.Job` in JSON, and so is the `jobs.Found` on the last line of the output. Both sides
train the same matrices from the same first weights on the same rows with the same optimiser. The
own side is the production path; the PEFT side is what its users write: `get_peft_model`, and a
forward pass with labels.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import pathlib
import sys
import time
import types
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.engine import shapes
from benchmarks.training import jobs
from services.trainer import backends, data, loop
from services.trainer.backends import own, with_peft
from shared.models import base as bases

_LEARNING_RATE, _SCALE = 1e-3, 2.0
_FIRST_TOKEN = 10
_ENDLESS = 1_000_000
"""So many steps leave the learning rate as it is."""


def run(job: jobs.Job) -> jobs.Found:
    """Trains in this process."""
    torch.set_num_threads(1)
    base = _base(job)
    work = _work(base, job)
    _settle()
    before_mib = _resident_mib("VmRSS")
    # The kernel's own high-water mark, from here on: proc(5), clear_refs.
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    steps = _own(work, job) if job.side == "own" else _peft(work)
    taken, losses = [], []
    for _ in range(job.warm_up + job.steps):
        # Of the processor: what else the machine does counts against nobody.
        started = time.process_time()
        losses.append(next(steps))
        taken.append(time.process_time() - started)
    memory_mib = _resident_mib("VmHWM") - before_mib
    steps.close()  # type: ignore[attr-defined]
    return jobs.Found(tuple(taken[job.warm_up :]), memory_mib, tuple(losses))


def _base(job: jobs.Job) -> bases.BaseModel:
    if job.shape == "embedded":
        return bases.load(bases.EMBEDDED, dtype=job.dtype)
    model = shapes.qwen(getattr(torch, job.dtype))
    return bases.BaseModel("0.5B", "main", "", model, types.SimpleNamespace(pad_token_id=0))


def _work(base: bases.BaseModel, job: jobs.Job) -> backends.Work:
    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        drawn = torch.randint(
            _FIRST_TOKEN, base.model.config.vocab_size, (count,), generator=generator
        )
        return tuple(drawn.tolist())

    paths = [
        path
        for path, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and path.rpartition(".")[2] in shapes.ALL_SEVEN
        and int(path.split(".")[2]) >= job.from_layer
    ]
    return backends.Work(
        base=base,
        ranks=dict.fromkeys(paths, jobs.RANK),
        scale=_SCALE,
        facts=[
            [data.Example("", "", ids(jobs.PROMPT_TOKENS), ids(jobs.ANSWER_TOKENS))]
            for _ in range(jobs.ROWS)
        ],
        replay=[],
        settings=loop.LoopSettings(
            learning_rate=_LEARNING_RATE,
            max_steps=_ENDLESS,
            least_steps=_ENDLESS,
            batch_rows=jobs.ROWS,
            replay_rows=0,
            replay_weight=0.0,
            warmup_steps=1,
            clip_norm=1.0,
            question_noise=0.0,
            continued_share=0.0,
            seed=0,
            check_every_steps=_ENDLESS,
        ),
        from_layer=job.from_layer,
    )


def _own(work: backends.Work, job: jobs.Job) -> Iterator[float]:
    with own.Own(job.gradient_checkpointing).open(work) as training:
        for progress in training.loop.run():
            yield progress.loss


def _peft(work: backends.Work) -> Iterator[float]:
    import peft

    warnings.simplefilter("ignore")
    first = work.fresh()
    model: Any = peft.get_peft_model(
        work.base.model,
        peft.LoraConfig(
            r=jobs.RANK,
            lora_alpha=_SCALE * jobs.RANK,
            target_modules=list(shapes.ALL_SEVEN),
            task_type="CAUSAL_LM",
        ),
    )
    with_peft.put({path: work.base.model.get_submodule(path) for path in work.ranks}, first)
    del first
    model.train()
    rows = [fact[0] for fact in work.facts]
    input_ids = torch.tensor([[*row.prompt_ids, *row.answer_ids] for row in rows])
    labels = input_ids.clone()
    labels[:, : jobs.PROMPT_TOKENS] = data.IGNORED
    mask = torch.ones_like(input_ids)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=_LEARNING_RATE, weight_decay=0.0)
    while True:
        optimiser.zero_grad(set_to_none=True)
        loss = model(input_ids=input_ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        yield float(loss.detach())


def _settle() -> None:
    """What making the model left behind goes back to the system, so that it hides nothing."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _resident_mib(field: str) -> float:
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(run(jobs.Job(**json.loads(sys.argv[1]))))))
