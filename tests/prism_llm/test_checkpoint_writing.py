"""A checkpoint appears whole or not at all, whatever kills its writer."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from checkpoints import digests, logits, make
from safetensors.torch import load_file

from prism_llm.checkpoint import CheckpointError, CheckpointWriter, OutputError, load, open_checkpoint, save


def test_existing_outputs(tmp_path):
    model = make()
    out = save(model, tmp_path / "out")
    before = digests(out)
    with pytest.raises(OutputError, match="output: must not exist"):
        save(model, out)
    assert digests(out) == before
    other = make("dual_shift")
    save(other, out, overwrite=True)
    assert torch.equal(logits(load(out)), logits(other))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"only a checkpoint is overwritten"):
        save(model, precious, overwrite=True)
    (tmp_path / "empty").mkdir()
    save(model, tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "out", "precious"]


def test_swap_without_exchange(tmp_path, monkeypatch):
    from prism_llm.checkpoint import staging

    monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    out = save(make(), tmp_path / "out")
    save(make("dual_shift"), out, overwrite=True)
    assert {m["format"] for m in open_checkpoint(out).modules.values()} == {"dual_shift"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_writer_leaves_nothing(tmp_path, error):
    for overwrite in (False, True):
        out = tmp_path / "out"
        before = digests(save(make(), out)) if overwrite else None
        with pytest.raises(error), CheckpointWriter(out, overwrite=overwrite, shard_bytes=100) as writer:
            writer.add_tensors({"a": torch.ones(100), "b": torch.ones(100)})
            assert any(writer.directory.iterdir())
            raise error
        assert [p.name for p in tmp_path.iterdir()] == (["out"] if overwrite else [])
        assert not overwrite or digests(out) == before


KILLED = """
import sys, time, torch
from prism_llm.checkpoint import CheckpointWriter
with CheckpointWriter(sys.argv[1], overwrite=True, shard_bytes=100) as writer:
    writer.add_tensors({str(i): torch.ones(100) for i in range(3)})
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_nothing_under_the_name_and_the_next_run_cleans_up(tmp_path):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(out)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "writing\n"
    beside = tmp_path / f"out.tmp-{child.pid}"
    assert beside.is_dir() and not out.exists()
    with CheckpointWriter(out) as writer:  # a living writer's folder is not touched
        assert beside.is_dir()
        writer.add_tensors({})
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not out.exists() and beside.is_dir()
    (tmp_path / "out.tmp-notapid").mkdir()
    save(make(), out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.tmp-notapid"]


def test_a_killed_overwriter_leaves_the_old_checkpoint(tmp_path):
    out = save(make(), tmp_path / "out")
    before = digests(out)
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "writing\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert digests(out) == before
    save(make("dual_shift"), out, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and digests(out) != before


def test_a_death_between_two_renames_is_mended(tmp_path):
    out = save(make(), tmp_path / "out")
    before = digests(out)
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    os.rename(out, tmp_path / f"out.bak-{process.stdout.strip()}")
    with pytest.raises(RuntimeError), CheckpointWriter(out, overwrite=True):
        raise RuntimeError
    assert digests(out) == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_writer_arguments(tmp_path):
    with CheckpointWriter(tmp_path / "out") as writer:
        writer.add_tensors({"a": torch.ones(2)})
        with pytest.raises(CheckpointError, match="tensor a: must be added once"):
            writer.add_tensors({"a": torch.ones(2)})
        with pytest.raises(CheckpointError, match="tensor b: must hold data"):
            writer.add_tensors({"b": torch.ones(2, device="meta")})
        with pytest.raises(OutputError, match="one writer at a time"), CheckpointWriter(tmp_path / "out"):
            pass
    with pytest.raises(ValueError, match="shard_bytes must be at least 1, got 0"):
        CheckpointWriter(tmp_path / "x", shard_bytes=0)
    assert not list(tmp_path.iterdir())


def test_views_and_shared_tensors_are_stored_as_their_own(tmp_path):
    base = torch.arange(12.0)
    out = tmp_path / "out"
    with CheckpointWriter(out) as writer:
        writer.add_tensors({"whole": base, "again": base, "view": base.view(3, 4)[:, 1], "empty": torch.empty(0)})
        writer.finish(config={"model_type": "llama"})
    stored = load_file(out / "compressed-00001-of-00001.safetensors")
    assert torch.equal(stored["whole"], base) and torch.equal(stored["again"], base)
    assert torch.equal(stored["view"], base.view(3, 4)[:, 1]) and stored["empty"].numel() == 0


def test_tensors_are_on_disk_when_added_and_aligned_in_the_file(tmp_path):
    out = tmp_path / "out"
    tensors = {
        "odd bytes": torch.arange(7, dtype=torch.uint8),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "ä": torch.randn(3, 5).bfloat16(),
        "mask": torch.tensor([True, False, True]),
        "eighths": torch.randn(3).to(torch.float8_e4m3fn),
        "turned": torch.randn(4, 3).T,
        "index": torch.arange(5),
    }
    expected = {name: tensor.clone() for name, tensor in tensors.items()}
    with CheckpointWriter(out) as writer:
        writer.add_tensors(tensors)
        with pytest.raises(CheckpointError, match="tensor bad: must have a dtype of safetensors"):
            writer.add_tensors({"bad": torch.ones(1, dtype=torch.complex128)})
        for tensor in tensors.values():
            tensor.zero_()  # nothing is read from a tensor after its call
        writer.finish(config={"model_type": "llama"})
    path = out / "compressed-00001-of-00001.safetensors"
    stored = load_file(path)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[n].float(), t.float()) and stored[n].dtype == t.dtype for n, t in expected.items())
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__").keys() == {"format", "run_id"}
    begins = {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items()}
    assert all(begins[name] % tensor.element_size() == 0 for name, tensor in expected.items())
    assert not [p.name for p in out.iterdir() if p.suffix in (".spool", ".partial")]


def test_the_order_of_adding_does_not_change_the_files(tmp_path):
    tensors = {name: torch.randn(5) for name in "abc"} | {"d": torch.arange(3, dtype=torch.uint8)}
    for out, names in (("one", "abcd"), ("two", "dcba")):
        with CheckpointWriter(tmp_path / out) as writer:
            for name in names:
                writer.add_tensors({name: tensors[name]})
            writer.finish(config={"model_type": "llama"})
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
