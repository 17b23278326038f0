"""`prism compress --method three-tier` with and without a schedule, and `prism finetune`."""

import json

import pytest

from prism_llm.checkpoint import is_checkpoint, verify
from prism_llm.pipeline.tier_maps import TierMaps


def parsed(result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def schedule(tmp_path):
    path = tmp_path / "schedule.csv"
    path.write_text("iteration,dense,mid_2_4,topk,epochs\n1,0.8,0.2,0,0.1\n2,0.5,0.3,0.2,0\n")
    return path


@pytest.fixture
def common(text):
    return ("--dataset", text, "--num-samples", 4, "--seqlen", 32)


def test_one_shot(prism, dense, common, tmp_path):
    facts = parsed(
        prism(
            "compress", dense, "-o", tmp_path / "a", "--method", "three-tier", "--tiers", "0.5,0.3,0.2",
            "--topk-per-block", 60, "--block-size", 32, *common, "--json",
        )
    )  # fmt: skip
    assert facts["recipe"]["tiers"] == [0.5, 0.3, 0.2] and facts["recipe"]["tier_block_size"] == 32
    maps = TierMaps.load(tmp_path / "a")
    assert (maps.iteration, maps.block_size, maps.top_k) == (0, 32, 60)
    assert "all as written" in prism("verify", tmp_path / "a").stdout


def test_a_whole_schedule(prism, dense, common, schedule, tmp_path):
    out = tmp_path / "out"
    arguments = ("compress", dense, "--method", "three-tier", "--schedule", schedule, "-o", out, *common)
    facts = parsed(prism(*arguments, "--json"))
    assert facts["output"] == str(out) and facts["compressed_linears"] == 14
    assert {m["format"] for m in verify(out).modules.values()} == {"tiered"}
    assert is_checkpoint(tmp_path / "out.iterations" / "iteration-1" / "finetuned")
    refused = prism(*arguments)
    assert refused.exit_code == 2 and "must not exist" in refused.output
    again = prism(*arguments, "--overwrite")
    assert again.exit_code == 0 and "iteration 1 of 2, training" in again.stderr


def test_single_iterations_and_finetune(prism, dense, text, common, schedule, tmp_path):
    options = ("--schedule", schedule, *common)
    result = prism("compress", dense, "-o", tmp_path / "1", *options, "--iteration", 1)
    assert result.exit_code == 0, result.output
    train = ("--dataset", text, "--seqlen", 32, "--max-steps", 2, "--batch-size", 2, "--eval-steps", 1)
    facts = parsed(prism("finetune", tmp_path / "1", "-o", tmp_path / "1t", *train, "--json"))
    assert facts["steps"] == 2 and facts["loss_after"] <= facts["loss_before"]
    shown = prism("finetune", tmp_path / "1", "-o", tmp_path / "1t", *train, "--overwrite")
    assert "loss" in shown.stdout and "evaluated on" in shown.stdout
    facts = parsed(
        prism("compress", "-o", tmp_path / "2", *options, "--iteration", 2, "--previous", tmp_path / "1t", "--json")
    )
    assert facts["model"] == str(tmp_path / "1t") and TierMaps.load(tmp_path / "2").iteration == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "wanda", "--schedule", "CSV"), "--schedule: must go with the method three-tier, got wanda"),
        (("--iteration", 2), "--iteration: must go with --schedule, got 2 alone"),
        (("--train-dataset", "x"), "--train-dataset: must go with --schedule, got x alone"),
        (("--schedule", "CSV", "--previous", "x"), "--previous: must go with --iteration, got x alone"),
        (("--schedule", "CSV", "--iteration", 2, "--previous", "x"), "MODEL: must not be given with --previous"),
        (("--schedule", "CSV", "--iteration", 2), "previous must be given for iteration 2, got None"),
        (("--schedule", "CSV", "--iteration", 3), "iteration must be from 1 to 2, got 3"),
        (
            ("--schedule", "CSV", "--iteration", 1, "--learning-rate", 1),
            "--learning-rate: must not go with --iteration",
        ),
        (("--schedule", "CSV", "--train-device", "tpu9"), "--train-device: must be a device of this machine"),
        (("--schedule", "CSV", "--learning-rate", 0), "learning_rate must be positive and finite, got 0"),
        (("--schedule", "CSV", "--tiers", "0.5,0.3,0.2"), "--tiers: must not go with --schedule, which has the shares"),
        (("--schedule", "CSV", "--permute", "lsa"), "permute must be none with tiers, got lsa"),
        (("--schedule", "CSV", "--low-rank", "0.3"), "low_rank must be None with tiers, got 0.3"),
        (("--schedule", "none.csv"), "none.csv must be a CSV file, not found"),
        (("--method", "three-tier", "--tiers", "0.5"), "tiers"),
        (("--method", "three-tier", "--tiers", "a,b,c"), "--tiers: must be three shares"),
        (("--method", "three-tier", "--block-size", 8), "tier_block_size must be a positive multiple of 16"),
    ],
)
def test_options_that_do_not_go_together(prism, dense, common, schedule, tmp_path, arguments, message):
    given = [schedule if value == "CSV" else value for value in arguments]
    result = prism("compress", dense, "-o", tmp_path / "out", *common, *given)
    assert result.exit_code == 2 and message in " ".join(result.output.split()), result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("iteration,dense,mid_2_4\n1,0.8,0.2\n", "must have the columns iteration, dense, mid_2_4, topk"),
        ("iteration,dense,mid_2_4,topk,extra\n1,1,0,0,0\n", "got iteration, dense, mid_2_4, topk, extra"),
        ("iteration,dense,mid_2_4,topk\n1,0.8,0.1,0\n", "line 2: dense + mid_2_4 + topk must be 1, got 0.9"),
        ("iteration,dense,mid_2_4,topk\n1,a,0,0\n", "line 2: dense must be a decimal number, got 'a'"),
        ("", "must have a header and a row, got an empty file"),
    ],
)
def test_wrong_schedules_are_one_line(prism, dense, common, tmp_path, content, message):
    (tmp_path / "bad.csv").write_text(content)
    result = prism("compress", dense, "-o", tmp_path / "out", *common, "--schedule", tmp_path / "bad.csv")
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert result.exit_code == 2 and len(lines) == 1 and message in lines[0], result.output


def test_finetune_refuses_what_is_no_checkpoint(prism, dense, compressed, tmp_path):
    result = prism("finetune", dense, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "CHECKPOINT: must be a compressed checkpoint" in result.output
    result = prism("finetune", compressed, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "lossless sparse linears only" in result.output
    result = prism("finetune", compressed, "-o", tmp_path / "out", "--device", "tpu9")
    assert (
        result.exit_code == 2 and "--device: must be a device of this machine, such as cpu, got 'tpu9'" in result.output
    )


def test_study(prism, dense, text, compressed, tmp_path):
    options = ("--dataset", text, "--seqlen", 32, "--max-windows", 2, "--new-tokens", 2)
    facts = parsed(prism("study", dense, *options, "--sparsity", 0.3, "-o", tmp_path / "study.json", "--json"))
    assert [row["name"] for row in facts["variants"]] == ["dense", "masked", "csr"] and len(facts["layers"]) == 14
    assert json.loads((tmp_path / "study.json").read_text()) == facts
    # 16-bit weights with 16-bit indices: at 30 % zeros CSR is larger than dense.
    assert facts["variants"][2]["linear_bytes"] > facts["variants"][0]["linear_bytes"]
    shown = prism("study", dense, *options, "--targets", "up_proj", "--csr", "up_proj").stdout
    assert "masked" in shown and "zeros: mlp" in shown
    assert prism("study", compressed, *options).exit_code == 2
