"""Files that are damaged, foreign, malicious or not written whole: one error each, and no code of theirs runs."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import random
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Built
from safetensors.torch import load_file, save_file

from recbole_diffusion.__main__ import main
from recbole_diffusion.config.reading import load_settings, parse_value
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.console import log
from recbole_diffusion.storage import checkpoint, files, tensor_file
from recbole_diffusion.storage.files import DiskFull, remove_partial_files, whole_file
from recbole_diffusion.storage.run_files import RunFiles, find

STATE = {
    "config": {"model": "DreamRec", "topk": [5, 10]}, "items": [f"i{n}" for n in range(1500)], "best": float("-inf"),
    "state_dict": {"a.weight": torch.arange(12.0).view(3, 4), "n": torch.tensor(7), "half": torch.ones(3).bfloat16()},
    "optimizer": {0: {"step": torch.tensor(3.0)}, 1: {"exp": torch.zeros(0)}}, "flags": torch.tensor([True, False]),
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a-last.safetensors"
    checkpoint.save(STATE, file)
    return file


def _refused(file: Path) -> str:
    with pytest.raises(UserError) as raised:
        checkpoint.load(file)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)
    return str(raised.value)


def test_other_readers_of_safetensors_read_it_too(path: Path) -> None:
    tensors = load_file(path)
    assert torch.equal(tensors["state_dict.a.weight"], STATE["state_dict"]["a.weight"])
    assert tensors["state_dict.half"].dtype == torch.bfloat16
    loaded = checkpoint.load(path)
    assert loaded["items"] == STATE["items"] and loaded["best"] == float("-inf")
    assert loaded["optimizer"][0]["step"] == 3 and loaded["optimizer"][1]["exp"].shape == (0,)
    assert checkpoint.load_data(path)["config"] == STATE["config"]


def test_no_changed_bit_and_no_shorter_file_is_read(path: Path, tmp_path: Path) -> None:
    content, other = path.read_bytes(), tmp_path / "b-last.safetensors"
    draw = random.Random(0)
    for place in [*range(64), *(draw.randrange(8 * len(content)) for _ in range(300))]:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << (place % 8)
        other.write_bytes(changed)
        _refused(other)
    for length in [0, 1, 7, 8, 9, len(content) - 1, *(draw.randrange(len(content)) for _ in range(50))]:
        other.write_bytes(content[:length])
        _refused(other)
    other.write_bytes(content + b"\0")
    _refused(other)
    changed = bytearray(content)
    changed[len(changed) // 2 : len(changed) // 2 + 200] = bytes(200)
    other.write_bytes(changed)
    _refused(other)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_a_pickle_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    for name, content in (("raw", _Bomb()), ("recbole", {"state_dict": _Bomb(), "config": {}})):
        file = tmp_path / f"{name}.pth"
        if name == "raw":
            file.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, file)
        assert "it is a pickle" in _refused(file) and not Path("exploded").exists()
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert "is not a checkpoint of this version" in _refused(tmp_path / "foreign.safetensors")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    _refused(tmp_path / "text.pth")


def test_a_trusted_pickle_must_still_be_a_checkpoint_and_no_bomb(tmp_path: Path) -> None:
    file = tmp_path / "recbole.pth"
    torch.save({"config": {"model": "BPR", "device": 1}, "state_dict": {"w": torch.ones(2)}, "epoch": 3}, file)
    state = checkpoint.load(file, trust=True)
    assert state["config"] == {"model": "BPR"} and state["state_dict"]["w"].sum() == 2 and "items" not in state
    torch.save([1, 2], file)
    with pytest.raises(UserError, match="is not a checkpoint of RecBole, or is damaged"):
        checkpoint.load(file, trust=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10_000_000))
    with pytest.raises(UserError, match="unpacked it is larger than the file"):
        checkpoint.load(file, trust=True)


def test_a_file_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """The first byte of a pickle is also that of one header in 32."""
    for length in range(256):
        checkpoint.save({"config": {}, "text": "x" * length}, tmp_path / "a-last.safetensors")
        if (tmp_path / "a-last.safetensors").read_bytes()[:1] == b"\x80":
            break
    else:
        raise AssertionError("no header has this length")
    assert checkpoint.load(tmp_path / "a-last.safetensors")["text"] == "x" * length


def _with_header(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """A small file whose header promises tensors of a petabyte."""
    bomb = tmp_path / "bomb.safetensors"
    huge = 10**15
    tensor = {"dtype": "U8", "shape": [huge], "data_offsets": [0, huge]}
    bomb.write_bytes(_with_header({"__metadata__": {"format": checkpoint.FORMAT, "data": "{}"}, "x": tensor}, b"12"))
    _refused(bomb)
    bomb.write_bytes(_with_header({"x": {"dtype": "F32", "shape": [huge], "data_offsets": [0, 8]}}, bytes(8)))
    _refused(bomb)
    bomb.write_bytes(huge.to_bytes(8, "little") + b"{}")
    _refused(bomb)
    bomb.write_bytes(_with_header({"__metadata__": {"format": checkpoint.FORMAT, "data": "[" * 10**6}}, b""))
    _refused(bomb)
    monkeypatch.setattr(tensor_file.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100}))
    assert "needs 0.0 GB of memory, and 0.0 GB are free" in _refused(path)


@pytest.mark.parametrize("text", ["!!python/object/apply:os.mkdir [exploded]", "!!python/name:os.system ''", "!x 1"])
def test_a_yaml_tag_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "a.yaml").write_text(f"seed: {text}\n")
    with pytest.raises(UserError, match=r"a\.yaml.* is not valid YAML"):
        load_settings([tmp_path / "a.yaml"])
    with pytest.raises(Exception, match="could not determine a constructor"):
        parse_value(text)
    assert main(["run", "--model=Pop", "--dataset=random", f"--seed={text}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not Path("exploded").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "/etc/passwd", "..", "a\\b", "a\0b", "x" * 300, "c:d"])
def test_names_are_no_paths(capsys: pytest.CaptureFixture[str], name: str) -> None:
    before = sorted(Path("..").iterdir())
    for command in (
        ["run", "--model=Pop", f"--dataset={name}"],
        ["tune", "--model=DreamRec", f"--dataset={name}", "--trials=1"],
        ["compare", "--models=Pop", f"--datasets={name}", "--out=out"],
    ):
        assert main(command) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert "dataset" in error
    assert sorted(Path("..").iterdir()) == before and not list(Path().iterdir())


def test_the_names_in_a_checkpoint_are_no_paths(build: Callable[..., Built], random_data: Path) -> None:
    """The files that a resumed run writes have the name of the file, whatever stands in it."""
    built = build("Pop")
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    state = checkpoint.load(built.trainer.files.last)
    state["training"]["name"] = state["name"] = "../../evil"
    checkpoint.save(state, built.trainer.files.last)
    again = build("Pop", resume=str(built.trainer.files.last))
    assert again.trainer.files == built.trainer.files
    renamed = Path("saved", "other.safetensors")
    shutil.copy(built.trainer.files.last, renamed)
    with pytest.raises(UserError, match=r"training goes on from a file whose name ends in -last\.safetensors"):
        build("Pop", resume=str(renamed))


# --------------------------------------------------------------------------------------------------------------
# Writing


@pytest.mark.parametrize("fails_at", ["open", "write", "fsync", "replace"])
def test_a_full_disk_is_one_error_and_leaves_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: Any, **__: Any) -> Any:
        raise full

    old = path.read_bytes()
    with monkeypatch.context() as patch:
        if fails_at == "open":
            patch.setattr(Path, "open", fail)
        elif fails_at == "write":
            patch.setattr(tensor_file, "_bytes_of", lambda tensor: _raising(full, tensor))
        else:
            patch.setattr(files.os, fails_at, fail)
        with pytest.raises(DiskFull, match=r"a-last\.safetensors: there is no space for it on the disk; nothing was"):
            _write_late(path) if fails_at == "write" else checkpoint.save({"config": {}}, path)
    assert path.read_bytes() == old and list(path.parent.iterdir()) == [path]


def _raising(error: OSError, _: Any) -> Any:
    raise error


def _write_late(path: Path) -> None:
    """Half of the file is written when the disk is full."""
    with whole_file(path) as file:
        file.write(bytes(100))
        tensor_file._bytes_of(torch.zeros(1))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make a small disk")
def test_a_small_disk(random_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=400k tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("mounting is not allowed here")
    try:
        command = ["run", "--model=BPR", "--dataset=random", f"--data_path={random_data}", "--epochs=30", "--seed=1"]
        command += [f"--checkpoint_dir={disk}", "--embedding_size=64"]
        (disk / "full").write_bytes(bytes(300_000))
        assert main(command) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "there is no space for it on the disk" in error and "Traceback" not in error
        assert not list(disk.glob(".*.part"))
        for file in disk.glob("*.safetensors"):
            checkpoint.load(file)
    finally:
        os.system(f"umount {disk}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_log_on_a_full_disk_shows_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    Path("full.log").symlink_to("/dev/full")
    handler = log._LogFile("full.log")
    handler.emit(logging.makeLogRecord({"msg": "x"}))
    assert capsys.readouterr().err == ""
    handler.emit(logging.makeLogRecord({"msg": "%d", "args": ("x",)}))
    assert "Logging error" in capsys.readouterr().err


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = {name: tmp_path / f".{name}.0123abcd.part" for name in ("mine-last.safetensors", "other.json", "old.json")}
    for file in left.values():
        file.touch()
    os.utime(left["old.json"], (time.time() - 7200,) * 2)
    (tmp_path / "mine-last.safetensors").touch()
    remove_partial_files(tmp_path, "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == [left["other.json"].name, "mine-last.safetensors"]


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_recboles_own_checkpoint_needs_trust(build: Callable[..., Built], model: str) -> None:
    built = build(model, epochs=3)
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    config = dict(built.config.final_config_dict)
    for key in ("mask_history", "bucket_by_length", "preset"):  # RecBole does not have them
        config.pop(key)
    state = {
        "config": config, "epoch": 2, "cur_step": 0, "best_valid_score": 0.9, "state_dict": built.model.state_dict(),
        "other_parameter": built.model.other_parameter(), "optimizer": built.trainer.optimizer.state_dict(),
    }  # fmt: skip
    torch.save(state, "recbole.pth")
    with pytest.raises(UserError, match=r"^resume: 'recbole\.pth' is .* a pickle, .*: --trust_checkpoint=True\.$"):
        build(model, resume="recbole.pth", epochs=4)
    again = build(model, resume="recbole.pth", epochs=4, trust_checkpoint=True)
    assert again.trainer.start_epoch == 3 and again.trainer.optimizer.state_dict()["state"]
    assert all(torch.equal(value, built.model.state_dict()[name]) for name, value in again.model.state_dict().items())
    again.trainer.fit(again.loaders.train, again.loaders.valid)
    assert list(again.trainer.train_loss_dict) == [3] and again.trainer.saved_epoch == 3
    with pytest.raises(UserError, match=r"was made with .*_size=64 and not 32"):
        size = {"embedding_size": 32} if model == "BPR" else {"hidden_size": 32}
        build(model, resume="recbole.pth", trust_checkpoint=True, **size)


def test_two_processes_do_not_train_one_run(build: Callable[..., Built]) -> None:
    built = build("Pop")
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    run = RunFiles.of_last(built.trainer.files.last)
    again = build("Pop", resume="auto")
    assert again.trainer.files == run
    with run.claimed():
        with pytest.raises(UserError, match="another process is training this run"):
            again.trainer.fit(again.loaders.train, again.loaders.valid)
        assert find("auto", again.config, again.trainer.data_sha256).last is None
    assert find("auto", again.config, again.trainer.data_sha256).last == run.last


def test_a_new_run_never_takes_the_name_of_another(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if clock and random token are the same."""
    with monkeypatch.context() as patch:
        patch.setattr("recbole_diffusion.storage.run_files.unique_name", lambda *_: "same")
        first, second = build("Pop"), build("Pop")
    first.trainer.fit(first.loaders.train, first.loaders.valid)
    with pytest.raises(UserError, match=r"-last\.safetensors: is of another run that has the same name; start again"):
        second.trainer.fit(second.loaders.train, second.loaders.valid)
