"""What two processes do together, checked against one. ``torchrun --nproc_per_node=2 together.py DATA OUT`` runs it.

The first process writes the checks that failed as JSON to the file OUT: ``{check: what was wrong}``.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_diffusion import processes
from recbole_diffusion.console.progress import Progress
from recbole_diffusion.model.preferdiff import others_mean
from recbole_diffusion.quick_start import Prepared, train
from recbole_diffusion.registry import MEANS_OVER_ROWS
from recbole_diffusion.testing.fixtures import Built, builder
from recbole_diffusion.testing.resuming import KillAt, Killed, without_seconds
from recbole_diffusion.training.processes import over_processes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from cases import CASES

SMALL = {"embedding_size": 16, "num_layers": 1, "num_heads": 2, "sampling_steps": 2}
IN_BATCH = {"negative_sampler": "in_batch", "num_negatives": 1000}
STAGES = [{"epochs": 1, "loss": "next_item"}, {"epochs": 1, "freeze": ["item_embedding"]}, {}]
# Parts of the loss that the cases above do not have.
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "learned timesteps": ("DreamRec", {**SMALL, "timestep_sampler": "loss_second_moment"}),
    "targets of the step as negatives": ("DreamRec", {**SMALL, **IN_BATCH}),
    "targets of the step as negatives of a baseline": ("WindowSASRec", IN_BATCH),
    "popular negatives": ("DreamRec", {**SMALL, "negative_sampler": "popularity", "num_negatives": 5}),
    "a preference of the whole batch": ("PreferDiff", {**SMALL, "preference_weight": 0.5, "preference_of": "batch"}),
    "a frozen item table": ("DreamRec", {**SMALL, "stages": STAGES}),
}
TRAINING = {**SMALL, "train_batch_size": 16, "epochs": 4, "eval_step": 1, "eval_batch_size": 90, "seed": 3}


@contextmanager
def same_draws() -> Iterator[None]:
    """A context in which all rows of a batch draw the same numbers, whichever process has them.

    A draw depends only on its place among the draws and on the shape of a row. One without rows (of negatives, which
    the rows share) is the same in all processes.
    """
    number = 0

    def generator() -> torch.Generator:
        nonlocal number
        number += 1
        return torch.Generator().manual_seed(number)

    def of_rows(draw: Callable[..., Tensor], shape: Any) -> Tensor:
        first, *row = shape
        return draw(tuple(row), generator=generator()).expand(first, *row).clone()

    def like(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x: of_rows(draw, x.shape).to(x.dtype)

    def rand(*shape: Any, dtype: Any = None, **_: Any) -> Tensor:
        shape = shape[0] if isinstance(shape[0], tuple | torch.Size) else shape
        if dtype == torch.float64:  # the popular negatives
            return original["rand"](*shape, dtype=dtype, generator=generator())
        return of_rows(original["rand"], shape)

    def randint(*arguments: Any, **_: Any) -> Tensor:
        *limits, shape = arguments
        return of_rows(lambda row, generator: original["randint"](*limits, row, generator=generator), shape)

    def randint_like(x: Tensor, low: int, high: int) -> Tensor:
        return randint(low, high, x.shape)

    def multinomial(p: Tensor, count: int, **_: Any) -> Tensor:
        return original["multinomial"](p, 1, generator=generator()).expand(count).clone()

    new = {
        "rand": rand,
        "randint": randint,
        "randint_like": randint_like,
        "multinomial": multinomial,
        "randn_like": like(torch.randn),
        "rand_like": like(torch.rand),
        "randperm": lambda n, device=None: original["randperm"](n, generator=generator()),
    }
    original = {name: getattr(torch, name) for name in new}
    for name, draw in new.items():
        setattr(torch, name, draw)
    try:
        yield
    finally:
        for name, draw in original.items():
            setattr(torch, name, draw)


class Step:
    """The losses of a batch and the gradients, in evaluation mode: dropout would draw for each row."""

    def __init__(self, built: Built, loss: Callable[[Interaction], Any], batch: Interaction) -> None:
        built.model.eval()
        sampler = getattr(built.model, "timestep_sampler", torch.nn.Module())
        before = {name: value.clone() for name, value in sampler.state_dict().items()}
        with same_draws():
            # In a single process, over_processes gives back the loss itself.
            losses = over_processes(loss, built.model, built.config["TARGET_LIST_FIELD"])(batch)
            terms = losses if isinstance(losses, tuple) else (losses,)
            built.trainer.optimizer.zero_grad()
            torch.stack(terms).sum().backward()
        self.losses = [term.item() for term in terms]
        self.gradients = {name: p.grad for name, p in built.model.named_parameters()}
        self.timesteps = {name: value.clone() for name, value in sampler.state_dict().items()}
        sampler.load_state_dict(before)

    def check(self, other: Step) -> None:
        """Raise an error if they differ by more than rounding."""
        np.testing.assert_allclose(self.losses, other.losses, rtol=1e-5)
        largest = max(wanted.abs().max().item() for wanted in other.gradients.values() if wanted is not None)
        for name, gradient in self.gradients.items():
            wanted = other.gradients[name]
            assert (gradient is None) == (wanted is None), f"{name} has a gradient in one of them"
            if gradient is not None:
                atol = max(2e-5 * wanted.abs().max().item(), 1e-6 * largest)
                np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=atol, err_msg=name)
        if "seen" in self.timesteps:  # of more losses than are kept, the order of the rows decides which are
            assert torch.equal(self.timesteps["seen"], other.timesteps["seen"])


def check_gradients(build: Callable[..., Built], model: str, preset: str, settings: dict[str, Any]) -> None:
    """The gradients of two processes are those of one, also if a batch has an odd number of rows, or one."""
    built = build(model, preset=preset, train_batch_size=15, **settings)
    batches = list(built.loaders.train)
    losses = [built.model.calculate_loss]
    losses += [getattr(built.model, f"{name}_loss") for name in getattr(built.model, "stage_losses", ())]
    if built.config["stages"]:
        built.trainer._freeze(built.trainer.stages[1])
    for batch in (batches[0], batches[-1], batches[0][slice(0, 1)]):
        for loss in losses if batch is batches[0] else losses[:1]:
            with processes.alone():
                expected = Step(built, loss, batch)
            found = Step(built, loss, batch)
            found.check(expected)
            first, second = processes.gathered([*found.gradients.values(), *found.timesteps.values()])
            assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(first, second, strict=True))


def check_negative(build: Callable[..., Built]) -> None:
    """PreferDiff's negative of a row is the mean of the other rows of both processes."""
    rows = torch.arange(14.0).view(7, 2)
    own = rows[processes.rank() :: 2]
    expected = (rows.sum(dim=0) - own) / 6
    torch.testing.assert_close(others_mean(own), expected)


def check_ranking(build: Callable[..., Built], **settings: Any) -> None:
    """Each user is ranked once: metrics, their values for each user and the listed items are those of one process."""
    built = build("DreamRec", **{**TRAINING, **settings})
    trainer, loader = built.trainer, built.loaders.test
    trainer.eval_collector.data_collect(built.loaders.train)

    def evaluated() -> Any:
        result = trainer.evaluate(loader, load_best_model=False)
        return result, trainer.evaluator.user_values(), trainer._facts_of_validation(list(result)).listed

    with processes.alone():
        expected = evaluated()
    found = evaluated()
    assert found[0] == expected[0] and found[2] == expected[2], (found, expected)
    assert found[1].keys() == expected[1].keys() and len(expected[1]["ndcg@10"]) == 40
    assert all(np.array_equal(values, expected[1][name]) for name, values in found[1].items())


class _Trained:
    """A training of both processes: its result, and the weights at its end."""

    def __init__(
        self, build: Callable[..., Built], progress: Progress | None = None, resume: str | None = None
    ) -> None:
        built = build("DreamRec", resume=resume, **TRAINING, checkpoint_minutes=0)
        self.result = without_seconds(train(Prepared(None, *built[1:]), progress=progress))
        self.test = built.trainer.evaluate(built.loaders.test)
        self.weights = {name: value.clone() for name, value in built.model.state_dict().items()}
        self.files = built.trainer.files


def check_random_numbers(build: Callable[..., Built]) -> None:
    """The processes draw the same batches, and other noise."""
    built = build("DreamRec", **TRAINING)
    noise, batch = torch.randn(3), next(iter(built.loaders.train))["item_id_list"]
    (first, batches), (second, others) = processes.gathered((noise, batch))
    assert torch.equal(batches, others) and not (first == second).any()


def check_training(build: Callable[..., Built]) -> None:
    """Both processes have the same weights and figures; after a kill within an epoch they go on to the same bits."""
    whole = _Trained(build)
    first, second = processes.gathered((whole.result, whole.test, whole.weights))
    assert first[:2] == second[:2]
    assert all(torch.equal(value, second[2][name]) for name, value in first[2].items())
    files = [path.name for path in whole.files.folder.glob("*.safetensors")]
    assert sorted(files) == [whole.files.best.name, whole.files.last.name], files
    processes.wait()
    with suppress(Killed):
        _Trained(build, KillAt(2, 2))
    # Of the killed training: the whole one has nothing left to do, and is older.
    rest = _Trained(build, resume="auto")
    assert rest.files != whole.files
    assert rest.result == whole.result and rest.test == whole.test
    assert all(torch.equal(value, rest.weights[name]) for name, value in whole.weights.items())
    with processes.alone():
        try:
            build("DreamRec", resume=str(whole.files.last), **TRAINING, checkpoint_minutes=0)
        except ValueError as error:
            assert "is a training by 2 processes; it cannot go on by 1" in str(error), error
        else:
            raise AssertionError("one process goes on from the checkpoint of two")


def checks() -> Iterator[tuple[str, Callable[[Callable[..., Built]], None]]]:
    """Names and functions of all checks."""
    for case in CASES:
        yield f"gradients of {case.id}", partial(_gradients, case.model, case.preset, case.small)
    for name, (model, settings) in MORE.items():
        yield f"gradients with {name}", partial(_gradients, model, "default", settings)
    for model in MEANS_OVER_ROWS:
        yield f"gradients of recbole.{model}", partial(_gradients, f"recbole.{model}", "default", {})
    yield "negatives of PreferDiff", check_negative
    yield "ranking", partial(check_ranking, metrics=["NDCG", "Hit", "ItemCoverage", "GiniIndex"], mask_history=True)
    yield "ranking of one batch", partial(check_ranking, eval_batch_size=4096)
    sampled = {"eval_args": {"mode": "uni20"}, "eval_batch_size": 100}
    yield "ranking of candidates", partial(check_ranking, **sampled)
    yield "random numbers", check_random_numbers
    yield "training", check_training


def _gradients(model: str, preset: str, settings: dict[str, Any], build: Callable[..., Built]) -> None:
    check_gradients(build, model, preset, settings)


def main(data: str, out: str) -> None:
    build, failed = builder(Path(data)), {}
    with processes.joined(build("BPR").config):
        for name, check in checks():
            message = ""
            try:
                check(build)
            except Exception:
                message = traceback.format_exc()
            failed[name] = "\n".join(text for text in processes.gathered(message) if text)
        if processes.rank() == 0:
            Path(out).write_text(json.dumps(failed))


if __name__ == "__main__":
    main(*sys.argv[1:])
