"""Every exit code, one clear line for every error, and nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

MAIN = "from prism_llm.cli.main import main; main()"


def refused(result, code: int, *words: str) -> None:
    assert result.exit_code == code, (result.exit_code, result.output)
    assert result.stdout == ""
    assert "Traceback" not in result.output
    for word in words:
        assert word in " ".join(result.stderr.split()), result.stderr


USAGE = {
    "method": (["--method", "magic"], ["method must be one of", "'magic'"]),
    "sparsity": (["--sparsity", "1.5"], ["sparsity must be in [0, 1)", "1.5"]),
    "bits": (["--bits", "7"], ["bits must be one of 2, 3, 4, 5, 6, 8", "7"]),
    "bits are no number": (["--bits", "four"], ["--bits", "valid integer"]),
    "pattern": (["--pattern", "2:x"], ["attern", "2:x"]),
    "score": (["--score", "best"], ["score", "'best'"]),
    "scope": (["--scope", "tensor"], ["scope", "'tensor'"]),
    "permute": (["--permute", "sort", "--pattern", "2:4"], ["permute", "'sort'"]),
    "permute without n:m": (["--permute", "lsa"], ["pattern must be n:m for a permutation", "unstructured"]),
    "ratios": (["--ratios", "best"], ["ratios", "'best'"]),
    "global": (["--method", "wanda", "--scope", "global"], ["score must be magnitude for scope global", "wanda"]),
    "variant": (["--use-variant", "--score", "ria"], ["--use-variant: must go with the score wanda", "'ria'"]),
    "ria exponent": (["--ria-exponent", "-1"], ["ria_exponent must be finite and not negative", "-1"]),
    "group size": (["--group-size", "-1"], ["group_size must be at least 1", "-1"]),
    "samples": (["--num-samples", "0"], ["num_calibration_samples must be at least 1", "0"]),
    "seqlen": (["--seqlen", "0"], ["max_seq_length must be at least 1", "0"]),
    "dataset": (["--dataset", "no-such-text.txt"], ["must be an existing file", "no-such-text.txt"]),
    "targets": (["--targets", "nobody"], ["targets must match", "'nobody'"]),
    "option": (["--sparsty", "0.5"], ["No such option", "--sparsty"]),
    "recipe": (["--recipe", "no-such-recipe.yaml"], ["no-such-recipe.yaml"]),
}


@pytest.mark.parametrize("case", USAGE)
def test_compress_usage_errors(case, prism, dense, text, tmp_path):
    arguments, words = USAGE[case]
    defaults = [] if "--dataset" in arguments else ["--dataset", text]
    result = prism("compress", dense, "-o", tmp_path / "out", *defaults, *arguments)
    refused(result, 2, *words)
    assert not list(tmp_path.iterdir())


def test_usage_errors_of_paths(prism, dense, text, compressed, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    file = tmp_path / "file"
    file.write_text("x")
    bare = tmp_path / "bare"
    bare.mkdir()
    out = ("-o", tmp_path / "out", "--dataset", text)
    refused(prism("compress", "./nowhere", *out), 2, "MODEL: must be a model folder", "./nowhere")
    refused(prism("eval", "/no/such/model", "--dataset", text), 2, "MODEL: must be", "/no/such/model")
    refused(prism("generate", file), 2, "MODEL: must be", "a file")
    refused(prism("eval", bare, "--dataset", text), 2, str(bare))
    refused(prism("eval", "nobody/nothing", "--dataset", text), 2, "nobody/nothing")
    refused(prism("eval", dense, "--dataset", empty), 2, "text that is not blank")
    refused(prism("eval", dense, "--dataset", text, "--seqlen", 4096), 2, "seqlen must be at most", "4096")
    refused(prism("eval", dense, "--dataset", text, "--max-windows", 0), 2, "max_windows must be at least 1")
    refused(prism("eval", dense, "--dataset", "stdlib", "--data-dir", bare), 2, "data_dir must go with")
    refused(prism("generate", dense, "--max-new-tokens", 0), 2, "max_new_tokens must be at least 1")
    refused(prism("generate", dense, "--max-new-tokens", 4096), 2, "--max-new-tokens", "4096")
    refused(prism("compress", dense, "-o", file, "--dataset", text), 2, "output: must not exist")
    refused(
        prism("compress", dense, "-o", file, "--overwrite", "--dataset", text), 2, "only a checkpoint is overwritten"
    )
    refused(prism("compress", compressed, *out), 2, "MODEL: must be a dense model")
    refused(prism("compress", dense), 2, "--output")
    refused(
        prism("compress", dense, *out, "--recipe", file, "--method", "sinq"), 2, "--method: must not go with --recipe"
    )
    refused(prism("inspect", bare), 2, "MODEL: must be a folder with safetensors files")
    refused(prism("verify", dense), 2, "MODEL: must be a checkpoint")
    refused(prism("demo", "--output", file), 2, "--output: must be a folder")
    refused(prism("bench", bare), 2, "must hold a complete model folder")
    refused(prism("bench", dense, "--tokens", "0"), 2, "--tokens: must be at least 1, got 0")
    refused(prism("bench", dense, "--tokens", "one"), 2, "--tokens: must be whole numbers", "'one'")
    refused(prism("bench", dense, "--formats", "zip"), 2, "--formats: must be some of dual_shift", "'zip'")
    refused(prism("bench", dense, "--rounds", 0), 2, "--rounds: must be at least 1, got 0")
    refused(prism("frobnicate"), 2, "frobnicate")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "empty.txt", "file"]


def test_log_level(prism, dense, compressed, monkeypatch):
    monkeypatch.setenv("PRISM_LOG_LEVEL", "loud")
    refused(prism("env"), 2, "PRISM_LOG_LEVEL: must be one of", "loud")
    monkeypatch.setenv("PRISM_LOG_LEVEL", "error")
    assert prism("generate", dense, "--max-new-tokens", 2, "--json").stderr == ""


def test_corrupt_input_is_4(prism, dense, compressed, text, tmp_path):
    def spoiled(name):
        return shutil.copytree(compressed, tmp_path / name)

    cut = spoiled("cut")
    shard = next(cut.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    flipped = spoiled("flipped")
    shard = next(flipped.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 255
    shard.write_bytes(bytes(content))
    newer = spoiled("newer")
    config = json.loads((newer / "config.json").read_text())
    config["quantization_config"]["format_version"] = 99
    (newer / "config.json").write_text(json.dumps(config))
    for command in (("eval", "--dataset", text), ("generate",), ("inspect",), ("verify",)):
        refused(prism(command[0], cut, *command[1:]), 4, "must have", "bytes")
        refused(prism(command[0], newer, *command[1:]), 4, "format_version must be at most 1", "99")
    refused(prism("verify", flipped), 4, "sha256 must be")
    broken = shutil.copytree(dense, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    refused(prism("eval", broken, "--dataset", text), 4)
    refused(prism("inspect", broken), 4)


def test_run_time_failure_is_1_and_debug_shows_the_traceback(prism, dense, text, monkeypatch, tmp_path):
    import prism_llm.pipeline

    def fail(*arguments, **options):
        raise RuntimeError("the disk caught fire")

    monkeypatch.setattr(prism_llm.pipeline, "compress", fail)
    arguments = ("compress", dense, "-o", tmp_path / "out", "--dataset", text)
    result = prism(*arguments)
    refused(result, 1, "RuntimeError: the disk caught fire")
    assert len(result.stderr.strip().splitlines()) == 1
    monkeypatch.setenv("PRISM_LOG_LEVEL", "debug")
    assert "Traceback" in prism(*arguments).stderr
    assert not list(tmp_path.iterdir())


def test_bench_reports_no_wrong_format(prism, dense, monkeypatch):
    from prism_kernels.nn import BitmapLinear

    monkeypatch.setattr(BitmapLinear, "forward", lambda self, x: x.new_ones(len(x), self.out_features))
    result = prism("bench", dense, "--formats", "bitmap", "--rounds", 1, "--json")
    refused(result, 1, "RuntimeError: model_speed: bitmap must equal its decoded weight")


def test_interrupt_is_130_and_leaves_nothing(prism, dense, text, monkeypatch, tmp_path):
    import prism_llm.pipeline.engine as engine

    real, calls = engine.compress_weight, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 9:  # in the second block
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(engine, "compress_weight", interrupted)
    result = prism("compress", dense, "-o", tmp_path / "out", "--method", "sinq", "--group-size", 16)
    refused(result, 130, "interrupted")
    assert len(calls) == 9 and not list(tmp_path.iterdir())


SLOW = """
import sys, time
import prism_llm.pipeline.engine as engine
real = engine.compress_weight
def slow(*arguments):
    print("working", file=sys.stderr, flush=True)
    time.sleep(30)
    return real(*arguments)
engine.compress_weight = slow
sys.argv = ["prism", *sys.argv[1:]]
"""


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_signals(signum, code, dense, tmp_path):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW) + MAIN, "compress", dense, "-o", out, "--method", "sinq"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in child.stderr:
        if line == "working\n":
            break
    time.sleep(0.2)
    os.kill(child.pid, signum)
    stdout, stderr = child.communicate(timeout=30)
    assert child.returncode == code, stderr
    assert stdout == "" and "Traceback" not in stderr
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ([f"out.tmp-{child.pid}"] if signum == signal.SIGKILL else [])


def test_the_process_exits_with_the_code(dense):
    def code(*arguments):
        command = [sys.executable, "-c", MAIN, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    done = code("inspect", dense, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["kind"] == "dense model"
    assert code("inspect", "./nowhere").returncode == 2
    assert code("--no-such-option").returncode == 2
