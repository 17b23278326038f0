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
    "recipe": (["--recipe", "no-such-recipe.yaml"], ["Recipe: no-such-recipe.yaml must be a YAML file, not found"]),
    "n:m and its sparsity": (
        ["--method", "wanda", "--pattern", "2:4", "--sparsity", "0.6"],
        ["be 0.5, which the pattern"],
    ),
    "no regular expression": (["--targets", "re:("], ["targets must hold regular expressions", "'re:('"]),
    "sweep's own score permuted": (
        ["--method", "sparsegpt", "--pattern", "2:4", "--permute", "lsa"],
        ["score must be known before the sweep"],
    ),
    "fold of floats": (["--method", "wanda", "--fold"], ["fold must be False where nothing is quantized"]),
    "fold without scale": (
        ["--method", "sinq", "--fold", "--scale", "none"],
        ["scale must be one of rms, sinq, prism"],
    ),
    "fold of asinq": (["--method", "asinq", "--fold"], ["scale must be one of rms, sinq, prism with fold, got asinq"]),
    "low rank 0": (["--method", "wanda", "--low-rank", "0"], ["low_rank must be an integer >= 1", "got 0"]),
    "low rank nan": (["--method", "wanda", "--low-rank", "nan"], ["low_rank must be an integer >= 1", "got nan"]),
    "low rank text": (["--low-rank", "best"], ["--low-rank: must be a share, a rank", "'best'"]),
    "factors of all": (["--method", "wanda", "--low-rank", "0.3"], ["low_rank_targets must leave a linear to prune"]),
    "factors of none": (["--method", "wanda", "--low-rank", "0.3", "--target-modules", ","], ["at least one pattern"]),
    "factors of what is pruned": (
        ["--method", "sinq", "--low-rank", "0.3", "--low-rank-of", "pruned"],
        ["be weight where nothing is pruned"],
    ),
    "tiers with low rank": (["--method", "three-tier", "--low-rank", "0.3"], ["low_rank must be None with tiers"]),
    "tiers with a pattern": (
        ["--method", "three-tier", "--pattern", "2:4"],
        ["pattern must be unstructured with tiers"],
    ),
    "tiers permuted": (["--method", "three-tier", "--permute", "lsa"], ["permute must be none with tiers, got lsa"]),
    "tiers with owl": (["--method", "three-tier", "--ratios", "owl"], ["ratios must be uniform with tiers, got owl"]),
    "two tiers": (["--method", "three-tier", "--tiers", "0.5,0.5"], ["--tiers: must be three shares", "'0.5,0.5'"]),
    "tiers without a side": (["--method", "three-tier", "--block-size", "0"], ["positive multiple of 16", "got 0"]),
    "owl too far": (["--method", "wanda", "--ratios", "owl", "--sparsity", "0.99"], ["a smaller lambda does"]),
}

#: Which prints the usage too.
BY_THE_PARSER = ("bits are no number", "option")

#: Options that would change nothing beside the others.
WITHOUT_EFFECT = {
    "--method sinq --permute lsa": "--permute: must go with an n:m pattern (--pattern), got lsa without",
    "--method sinq --score wanda": "--score: must go with something to prune (--sparsity or --pattern), got wanda",
    "--method sinq --use-variant": "--use-variant: must go with something to prune (--sparsity or --pattern), got it",
    "--method sinq --scope matrix": "--scope: must go with unstructured pruning",
    "--method ria --pattern 2:4 --scope row": "--scope: must go with unstructured pruning",
    "--method sparsegpt --scope row": "--scope: must go with unstructured pruning by a score other than sparsegpt",
    "--method sinq --ratios owl": "--ratios: must go with something to prune",
    "--method wanda --ria-exponent 1": "--ria-exponent: must go with the score ria or clearcut, got 1.0 without",
    "--method sinq --compensate obs_sweep": "--compensate: must go with something to prune, or with --bits",
    "--method sinq --reconstruct": "--reconstruct: must go with something to prune",
    "--method wanda --scale sinq": "--scale: must go with something to quantize (--bits), got sinq without",
    "--method wanda --codebook nf4": "--codebook: must go with something to quantize (--bits)",
    "--method wanda --rounding hqq": "--rounding: must go with something to quantize (--bits)",
    "--method prism --bits 0 --group-size 32": "--group-size: must go with something to quantize (--bits)",
    "--method wanda --low-rank-of residual": "--low-rank-of: must go with --low-rank, got residual without",
    "--method wanda --low-rank-weighting activations": "--low-rank-weighting: must go with --low-rank",
    "--method wanda --topk-per-block 5": "--topk-per-block: must go with three-tier pruning, got 5 without",
    "--method wanda --block-size 32": "--block-size: must go with three-tier pruning or a sweep",
    "--learning-rate 1": "--learning-rate: must go with --schedule, got 1.0 alone",
    "--train-device cpu": "--train-device: must go with --schedule, got cpu alone",
}


@pytest.mark.parametrize("arguments", WITHOUT_EFFECT)
def test_options_without_effect_are_refused(arguments, prism, dense, tmp_path):
    result = prism("compress", dense, "-o", tmp_path / "out", *arguments.split())
    refused(result, 2, WITHOUT_EFFECT[arguments])
    assert len(result.stderr.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        "--method sinq --permute none --ratios uniform --compensate none",
        "--method wanda --rounding rtn --codebook uniform --scale none --low-rank-weighting none",
        "--method sinq --compensate obs_sweep --rounding joint --block-size 64",
    ],
)
def test_options_that_ask_for_nothing_are_fine(arguments, prism, dense, text, tmp_path):
    options = ("--dataset", text, "--num-samples", 2, "--seqlen", 16)
    result = prism("compress", dense, "-o", tmp_path / "out", *options, *arguments.split())
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("case", USAGE)
def test_compress_usage_errors(case, prism, dense, text, tmp_path):
    arguments, words = USAGE[case]
    defaults = [] if "--dataset" in arguments else ["--dataset", text]
    result = prism("compress", dense, "-o", tmp_path / "out", *defaults, *arguments)
    refused(result, 2, *words)
    assert case in BY_THE_PARSER or len(result.stderr.strip().splitlines()) == 1, result.stderr
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
