"""What every model must do, except learning: losses, rankings, seeds, padding, checkpoints and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recbole
import torch
from recbole.config import Config as RecBoleConfig
from recbole.data.interaction import Interaction
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_diffusion.config import reading
from recbole_diffusion.config.model_files import model_files, model_name
from recbole_diffusion.console.progress import Progress
from recbole_diffusion.diffusion.discrete import ReplacementDiffusion
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender
from recbole_diffusion.quick_start import Prepared, train
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.testing.case import Case
from recbole_diffusion.testing.fixtures import Built, ModelTests, training_loss
from recbole_diffusion.testing.resuming import KillAt, Killed, without_seconds


def _batch(built: Built) -> Interaction:
    return next(iter(built.loaders.train)).to(built.config["device"])


def _evaluation_batch(built: Built, rows: Any = slice(None)) -> Interaction:
    return built.loaders.valid.dataset[rows].to(built.config["device"])


def _loss(built: Built, batch: Interaction, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return training_loss(built.model, batch)


class Behaviour(ModelTests):
    """The fast tests of the contract."""

    def test_loss_is_a_finite_number_with_a_gradient_for_every_parameter(self, built: Built, case: Case) -> None:
        loss = _loss(built, _batch(built))
        assert loss.dim() == 0 and torch.isfinite(loss)
        loss.backward()
        for name, parameter in built.model.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name

    def test_loss_terms_have_names(self, built: Built, case: Case) -> None:
        losses = built.model.calculate_loss(_batch(built))
        if isinstance(losses, tuple):
            assert len(built.model.loss_names) == len(set(built.model.loss_names)) == len(losses)

    def test_same_seed_same_loss_and_another_seed_another(self, built: Built, case: Case) -> None:
        batch = _batch(built)
        assert _loss(built, batch, seed=3) == _loss(built, batch, seed=3)
        assert _loss(built, batch, seed=3) != _loss(built, batch, seed=4)

    def test_scores_have_one_column_an_item_and_padding_is_never_recommended(self, built: Built, case: Case) -> None:
        built.model.eval()
        batch = _evaluation_batch(built)
        scores = built.model.full_sort_predict(batch).view(len(batch), -1)
        assert scores.shape == (len(batch), built.model.n_items)
        assert torch.isfinite(scores[:, 1:]).all()
        if hasattr(built.model, "generate"):
            assert (scores[:, 0] == -torch.inf).all()
        built.trainer.tot_item_num = built.model.n_items
        _, scores, _, _ = built.trainer._full_sort_batch_eval(next(iter(built.loaders.valid)))
        best = scores.topk(built.model.n_items - 1)
        assert (best.indices[best.values > -torch.inf] != 0).all()  # masked items have -inf too, like padding

    def test_predict_agrees_with_the_full_ranking(self, built: Built, case: Case) -> None:
        model = built.model.eval()
        batch = _evaluation_batch(built, list(range(12)))
        every = model.full_sort_predict(batch).view(12, -1)
        # Several candidates per user; users and candidates in random order.
        order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).to(built.config["device"])
        users, items = order % 12, order % 29 + 1
        rows = Interaction({key: batch[key][users] for key in batch})
        rows.update(Interaction({model.ITEM_ID: items}))
        torch.testing.assert_close(model.predict(rows), every[users, items], rtol=1e-4, atol=1e-5)

    def test_predict_scores_only_what_is_asked(self, build: Callable[..., Built], case: Case) -> None:
        built = build(case.model, preset=case.preset, **case.small)
        if not isinstance(built.model, EmbeddingDiffusionRecommender):
            pytest.skip("its scores are x_0 itself, or computed by RecBole")
        if isinstance(built.model.process, ReplacementDiffusion):
            pytest.skip("its steps draw from the whole catalogue")
        rows = _evaluation_batch(built, list(range(4)))
        products: list[int] = []

        class Products(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                out = func(*args, **(kwargs or {}))
                if isinstance(out, torch.Tensor) and func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                    products.append(out.shape[-1])
                return out

        built.model.eval()
        for predict, scores_all in ((built.model.full_sort_predict, True), (built.model.predict, False)):
            products.clear()
            with Products():  # type: ignore[no-untyped-call]  # its __init__ is torch's
                predict(rows)
            assert (built.model.n_items in products) is scores_all

    def test_a_ranking_does_not_depend_on_the_batch(self, build: Callable[..., Built], case: Case) -> None:
        found = []
        start: dict[str, torch.Tensor] | None = None
        every = 10**8
        for batch_size, bucket, max_cells in (
            (1, True, every),
            (7, True, every),
            (4096, True, every),
            (7, False, every),
            (9, True, 63),
        ):
            settings = {"eval_batch_size": batch_size, "bucket_by_length": bucket, "max_cells": max_cells}
            built = build(case.model, preset=case.preset, **{**case.small, **settings})
            start = start or built.model.state_dict()
            built.model.load_state_dict(start)
            built.model.eval()
            scores: dict[int, torch.Tensor] = {}
            for rows, _, _, _ in built.loaders.valid:
                assert len(rows) <= min(batch_size, max(1, max_cells // 31))
                of_rows = built.model.full_sort_predict(rows.to(built.config["device"])).view(len(rows), -1)
                scores.update(zip(rows["user_id"].tolist(), of_rows.cpu(), strict=True))
            found.append(torch.stack([scores[user] for user in sorted(scores)]))
        first, *others = found
        assert len(first) > 30
        for other in others:
            torch.testing.assert_close(other, first, rtol=1e-4, atol=1e-5)

    def test_sampled_candidates_are_ranked_as_in_the_whole_catalogue(
        self, build: Callable[..., Built], case: Case
    ) -> None:
        settings = {"eval_args": {"mode": "uni10"}, "eval_batch_size": 64, "mask_history": False}
        built = build(case.model, preset=case.preset, **{**case.small, **settings})
        built.model.eval()
        whole = _evaluation_batch(built)
        every = built.model.full_sort_predict(whole).view(len(whole), -1)
        row = {user: place for place, user in enumerate(whole["user_id"].tolist())}
        batches = 0
        for rows, *_ in built.loaders.valid:
            users = torch.tensor([row[user] for user in rows["user_id"].tolist()])
            expected = every[users, rows["item_id"]]
            torch.testing.assert_close(
                built.model.predict(rows.to(built.config["device"])), expected, rtol=1e-4, atol=1e-5
            )
            batches += 1
        assert batches > 3

    @pytest.mark.parametrize("length", [0, 3])
    def test_a_history_of_unknown_items_is_ranked(self, built: Built, case: Case, length: int) -> None:
        known = torch.arange(1, 11).expand(2, 10)
        history = torch.stack([torch.zeros(10, dtype=torch.long), known[0]])
        batch = Interaction({built.model.ITEM_SEQ: history, built.model.ITEM_SEQ_LEN: torch.tensor([length, 10])})
        batch.update(Interaction({built.model.ITEM_ID: torch.tensor([4, 5])}))
        batch = batch.to(built.config["device"])
        model = built.model.eval()
        scores = model.full_sort_predict(batch).view(2, -1)
        assert torch.isfinite(scores[:, 1:]).all()
        torch.testing.assert_close(model.predict(batch), scores[[0, 1], [4, 5]], rtol=1e-4, atol=1e-5)
        short = Interaction({key: batch[key][:1] for key in batch})  # padding after an empty history does not matter
        short[built.model.ITEM_SEQ] = short[built.model.ITEM_SEQ][:, :3]
        torch.testing.assert_close(model.full_sort_predict(short).view(1, -1), scores[:1], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("length", [1, 10])
    def test_one_history_of_any_length(self, built: Built, case: Case, length: int) -> None:
        history = torch.zeros(1, 10, dtype=torch.long)
        history[0, :length] = torch.arange(1, length + 1)
        batch = Interaction({built.model.ITEM_SEQ: history, built.model.ITEM_SEQ_LEN: torch.tensor([length])})
        batch = batch.to(built.config["device"])
        built.model.eval()
        assert torch.isfinite(built.model.full_sort_predict(batch).view(1, -1)[:, 1:]).all()
        one = built.loaders.train.collate_fn([0]).to(built.config["device"])
        assert len(one) == 1 and torch.isfinite(_loss(built, one))

    def test_content_of_padding_does_not_matter(self, build: Callable[..., Built], case: Case) -> None:
        built = build(
            case.model, preset=case.preset, **{**case.small, "bucket_by_length": False}
        )  # so that there is padding
        built.model.eval()
        batch, sequence = _evaluation_batch(built), built.model.ITEM_SEQ
        padded = torch.arange(batch[sequence].shape[1], device=built.config["device"]) >= batch[
            built.model.ITEM_SEQ_LEN
        ].unsqueeze(-1)
        assert padded.any()
        dirty = Interaction({key: batch[key].clone() for key in batch})
        dirty[sequence][padded] = 7
        clean_scores = built.model.full_sort_predict(batch).view(len(batch), -1)
        torch.testing.assert_close(built.model.full_sort_predict(dirty).view(len(batch), -1), clean_scores)

        train = _batch(built)
        dirty = Interaction({key: train[key].clone() for key in train})
        padded = torch.arange(train[sequence].shape[1], device=built.config["device"]) >= train[
            built.model.ITEM_SEQ_LEN
        ].unsqueeze(-1)
        assert padded.any()
        dirty[sequence][padded] = 7
        torch.testing.assert_close(_loss(built, dirty), _loss(built, train))

    def test_evaluation_is_seeded_and_takes_nothing_from_the_training_generator(self, built: Built, case: Case) -> None:
        torch.manual_seed(11)
        before = torch.get_rng_state()
        first = built.trainer.evaluate(built.loaders.valid, load_best_model=False)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(12)
        assert built.trainer.evaluate(built.loaders.valid, load_best_model=False) == first

    def test_same_command_same_numbers_twice(self, build: Callable[..., Built], case: Case) -> None:
        def train() -> tuple[Any, Any]:
            built = build(case.model, preset=case.preset, epochs=2, eval_step=1, **case.small)
            built.trainer.fit(built.loaders.train, built.loaders.valid)
            return built.trainer.train_loss_dict, built.trainer.evaluate(built.loaders.test)

        assert train() == train()

    def test_checkpoint_round_trip(self, build: Callable[..., Built], built: Built, case: Case, tmp_path: Path) -> None:
        built.trainer.fit(built.loaders.train, built.loaders.valid)
        state = checkpoint.load(built.trainer.saved_model_file)
        assert state["config"]["model"] == model_name(type(built.model)) and state["versions"]["recbole"] == "1.2.1"
        result = built.trainer.evaluate(built.loaders.test)
        other = build(case.model, preset=case.preset, **case.small)
        for parameter in other.model.parameters():
            torch.nn.init.normal_(parameter)
        other.trainer.eval_collector.data_collect(other.loaders.train)
        assert other.trainer.evaluate(other.loaders.test, model_file=built.trainer.saved_model_file) == result

    def test_training_that_was_killed_in_an_epoch_goes_on_to_the_same_bits(
        self, build: Callable[..., Built], case: Case
    ) -> None:
        if case.preset != "default":
            pytest.skip("a slow test")
        self._goes_on_to_the_same_bits(build, case)

    @pytest.mark.slow
    def test_training_of_other_presets_that_was_killed_goes_on_to_the_same_bits(
        self, build: Callable[..., Built], case: Case
    ) -> None:
        if case.preset == "default":
            pytest.skip("a fast test")
        self._goes_on_to_the_same_bits(build, case)

    def _goes_on_to_the_same_bits(self, build: Callable[..., Built], case: Case) -> None:
        # Short batches: an epoch has several of them, but not so many that the files of each step take long.
        settings = {"train_batch_size": 16, **case.small, "epochs": 6, "eval_step": 2, "checkpoint_minutes": 0}
        if len(build(case.model, preset=case.preset, **settings).loaders.train) > 10:
            settings["train_batch_size"] = 64

        def trained(progress: Progress | None = None, resume: str | None = None) -> Any:
            built = build(case.model, preset=case.preset, resume=resume, **settings)
            result = train(Prepared(None, *built[1:]), progress=progress)
            weights = {name: value.clone() for name, value in built.model.state_dict().items()}
            return without_seconds(result), weights, built.trainer.evaluate(built.loaders.test)

        expected = trained()
        with pytest.raises(Killed):
            trained(KillAt(3, 2))
        found = trained(resume="auto")
        assert found[0] == expected[0] and found[2] == expected[2]
        assert all(torch.equal(value, expected[1][name]) for name, value in found[1].items())

    def test_every_key_of_its_yaml_is_read_and_nothing_of_recboles_leaks_in(
        self, build: Callable[..., Built], case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: set[str] = set()
        original = RecBoleConfig.__getitem__

        def recording(self: RecBoleConfig, key: str) -> Any:
            read.add(key)
            return original(self, key)

        monkeypatch.setattr(RecBoleConfig, "__getitem__", recording)
        built = build(case.model, preset=case.preset, epochs=1, **case.small)
        monkeypatch.undo()
        files = model_files(built.config.model_class)
        keys = {*files.read("model"), *files.read("paper")}
        assert keys and keys <= read, f"never read: {sorted(keys - read)}"
        root = Path(recbole.__file__).parent / "properties"
        shared = ("overall.yaml", "dataset/sample.yaml", "quick_start_config/sequential.yaml")
        allowed = keys | set(reading.read_properties("overall.yaml")) | {"MODEL_TYPE"}
        allowed |= set(reading.load_settings([root / name for name in shared]))
        assert set(built.config.internal_config_dict) <= allowed
