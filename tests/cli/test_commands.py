"""Every command: what it prints, where, and that `--json` is JSON and nothing else."""

import json

import yaml

from prism_llm.checkpoint import open_checkpoint


def parsed(result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_compress_writes_what_it_says(prism, dense, text, compressed, tmp_path):
    checkpoint = open_checkpoint(compressed)
    assert checkpoint.recipe["method"] == "prism" and checkpoint.recipe["seed"] == 3
    assert checkpoint.recipe["dataset"] == str(text) and checkpoint.recipe["num_calibration_samples"] == 4
    assert {m["format"] for m in checkpoint.modules.values()} == {"bitmap_dual_shift"}
    result = prism("compress", dense, "-o", tmp_path / "a", "--method", "sinq", "--group-size", 16, "--json")
    facts = parsed(result)
    assert facts["output"] == str(tmp_path / "a") and facts["compressed_linears"] == 14
    assert facts["bits_per_weight"] == open_checkpoint(tmp_path / "a").bits_per_weight
    assert facts["recipe"]["method"] == "sinq" and len(facts["report"]["linears"]) == 14
    plain = prism("compress", dense, "-o", tmp_path / "b", "--method", "sinq", "--group-size", 16)
    assert "bits per weight" in plain.stdout and "prism eval" in plain.stdout


def test_compress_options_reach_the_recipe(prism, dense, text, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"method": "wanda", "dataset": str(text), "num_calibration_samples": 2}))
    common = ("compress", dense, "--recipe", recipe, "--seqlen", 32, "--json")
    facts = parsed(
        prism(*common, "-o", tmp_path / "a", "--pattern", "2:4", "--targets", "q_proj", "--targets", "re:.*up_proj")
    )
    assert facts["recipe"]["sparsity"] == 0.5 and facts["recipe"]["pattern"] == "2:4"
    assert facts["recipe"]["targets"] == ["q_proj", "re:.*up_proj"] and facts["compressed_linears"] == 4
    facts = parsed(prism(*common, "-o", tmp_path / "b", "--bits", 8, "--group_size", 0, "--ignore", "down_proj"))
    assert facts["recipe"]["bits"] == 8 and facts["recipe"]["group_size"] is None
    assert facts["compressed_linears"] == 12
    assert parsed(prism(*common, "-o", tmp_path / "c", "--bits", 0))["recipe"]["bits"] is None


def test_compress_options_of_scores(prism, dense, text, tmp_path):
    common = ("compress", dense, "--dataset", text, "--num-samples", 2, "--seqlen", 32, "--json")
    facts = parsed(prism(*common, "-o", tmp_path / "a", "--method", "wanda", "--use-variant"))
    assert (facts["recipe"]["score"], facts["recipe"]["scope"]) == ("wanda_variant", "matrix")
    options = ("--method", "wanda", "--score", "ria", "--ria-exponent", 1, "--scope", "row")
    recipe = parsed(prism(*common, "-o", tmp_path / "b", *options))["recipe"]
    assert (recipe["score"], recipe["ria_exponent"], recipe["scope"]) == ("ria", 1.0, "row")
    again = parsed(prism(*common, "-o", tmp_path / "c", "--recipe", tmp_path / "b" / "recipe.yaml"))["recipe"]
    assert again == recipe
    options = ("--method", "clearcut", "--pattern", "2:4", "--permute", "lsa")
    facts = parsed(prism(*common, "-o", tmp_path / "d", *options))
    assert (facts["recipe"]["permute"], facts["recipe"]["sparsity"]) == ("lsa", 0.5)
    assert "permuted" in {m["format"] for m in open_checkpoint(tmp_path / "d").modules.values()}
    assert parsed(prism("inspect", tmp_path / "d", "--json"))["formats"]["permuted"] > 0
    assert parsed(prism("eval", tmp_path / "d", "--dataset", text, "--seqlen", 32, "--max-windows", 2, "--json"))
    facts = parsed(prism(*common, "-o", tmp_path / "e", "--method", "ria", "--ratios", "owl"))
    assert facts["recipe"]["ratios"] == "owl" and len({x["sparsity"] for x in facts["report"]["linears"]}) > 1


def test_eval(prism, dense, text, compressed):
    options = ("--dataset", text, "--seqlen", 32, "--max-windows", 4)
    facts = parsed(prism("eval", compressed, *options, "--against", dense, "--json"))
    assert facts["perplexity"]["windows"] == 4 and facts["perplexity"]["ppl"] > 1
    assert 0 < facts["agreement"]["top1"] <= 1 and facts["agreement"]["mean_kl"] > 0
    assert parsed(prism("eval", dense, *options, "--json"))["agreement"] is None
    result = prism("eval", dense, *options)
    assert "the first 4 of" in result.stdout and "perplexity" in result.stdout
    assert "loading" in result.stderr and "loading" not in result.stdout


def test_generate(prism, dense, compressed):
    for model in (dense, compressed):
        facts = parsed(prism("generate", model, "--prompt", "The sparse", "--max-new-tokens", 8, "--json"))
        assert facts["new_tokens"] <= 8 and facts["prompt"] == "The sparse"
        result = prism("generate", model, "--prompt", "The sparse", "--max-new-tokens", 8)
        assert result.stdout == f"The sparse{facts['text']}\n"
        assert "tokens/s" in result.stderr


def test_inspect(prism, dense, compressed):
    facts = parsed(prism("inspect", compressed, "--layers", "--json"))
    checkpoint = open_checkpoint(compressed)
    assert facts["compressed_bytes"] == checkpoint.compressed_nbytes == sum(x["bytes"] for x in facts["layers"])
    assert facts["formats"] == {"bitmap_dual_shift": 14} and facts["recipe"]["method"] == "prism"
    assert "layers" not in parsed(prism("inspect", compressed, "--json"))
    result = prism("inspect", compressed, "--layers")
    assert "bits per weight" in result.stdout and "model.layers.1.mlp.down_proj" in result.stdout
    assert parsed(prism("inspect", dense, "--json"))["kind"] == "dense model"


def test_verify(prism, compressed):
    assert parsed(prism("verify", compressed, "--json"))["run_id"] == open_checkpoint(compressed).run_id
    assert "all as written" in prism("verify", compressed).stdout


def test_bench(prism, dense, compressed):
    facts = parsed(prism("bench", dense, "--tokens", "1,3", "--rounds", 2, "--json"))
    formats = list(dict.fromkeys(row["format"] for row in facts["rows"]))
    assert formats[0] == "dense" and {"dual_shift", "bitmap", "bitmap_dual_shift"} < set(formats)
    shapes = {(row["n"], row["k"]): row["count"] for row in facts["rows"]}
    assert sum(shapes.values()) == 14 and {row["m"] for row in facts["rows"]} == {1, 3}
    for total in facts["sums"]:
        rows = [row for row in facts["rows"] if (row["format"], row["m"]) == (total["format"], total["m"])]
        assert len(rows) == len(shapes) and all(row["ms"] > 0 and row["rounds"] == 2 for row in rows)
        assert total["ms"] == sum(row["count"] * row["ms"] for row in rows)
        assert total["nbytes"] == sum(row["count"] * row["nbytes"] for row in rows)
        if total["format"] == "dense":
            assert total["ratio"] == 1 and total["nbytes"] == sum(2 * n * k * c for (n, k), c in shapes.items())
    shown = prism("bench", compressed, "--tokens", "2", "--formats", "bitmap", "--rounds", 1).stdout
    for word in ("2 tokens", "down_proj", "bitmap", "all linears, one pass", "load average"):
        assert word in shown
    assert "dual_shift" not in shown


def test_bench_reads_no_weights(prism, dense, tmp_path):
    (tmp_path / "config.json").write_text((dense / "config.json").read_text())
    arguments = ("--tokens", "1", "--formats", "bitmap", "--rounds", 1, "--json")
    assert len(parsed(prism("bench", tmp_path, *arguments))["sums"]) == 2


def test_env(prism, monkeypatch):
    monkeypatch.setenv("PRISM_CPU_ISA", "auto")
    facts = parsed(prism("env", "--json"))
    assert facts["packages"]["torch"] and facts["variables"]["PRISM_CPU_ISA"] == "auto"
    assert {"prism_kernels", "cpu_isa", "libraries", "ops", "cpu"} <= facts.keys()
    shown = prism("env").stdout
    assert "PRISM_LOG_LEVEL" in shown and "nm_mask" in shown


def test_the_bundled_model_is_the_default(prism, dense, monkeypatch):
    import prism_llm.assets

    monkeypatch.setattr(prism_llm.assets, "bundled_model_path", lambda: dense)
    assert parsed(prism("inspect", "--json"))["model"] == str(dense)
    assert parsed(prism("generate", "--max-new-tokens", 2, "--json"))["model"] == str(dense)


def test_version(prism):
    import prism_llm

    assert prism("--version").stdout == f"prism-kernels {prism_llm.__version__}\n"


def test_help_names_every_command_and_option(prism):
    shown = prism("--help").output
    for command in ("demo", "compress", "finetune", "eval", "study", "generate", "bench", "inspect", "verify", "env"):
        assert command in shown
        assert "--json" in prism(command, "--help").output


def test_demo(prism, dense, text, tmp_path, monkeypatch):
    from dataclasses import replace

    import prism_llm.assets
    from prism_llm.evaluation import block_speed, comparison

    small = {"up": (512, 128), "down": (256, 512)}
    settings = replace(
        comparison.Settings.fast(), dataset=str(text), seqlen=32, max_windows=4, num_samples=4, new_tokens=4
    )
    monkeypatch.setattr(comparison.Settings, "fast", classmethod(lambda cls: settings))
    monkeypatch.setattr(comparison, "block_speed", lambda **options: block_speed(shapes=small, **options))
    monkeypatch.setattr(prism_llm.assets, "bundled_model_path", lambda: dense)
    out = tmp_path / "demo"
    facts = parsed(prism("demo", "--output", out, "--fast", "--json"))
    assert [method["status"] for method in facts["methods"]] == ["done"] * 6
    assert {path.name for path in (out / "checkpoints").iterdir()} == {m.name for m in comparison.METHODS[1:]}
    stored = json.loads((out / "results.json").read_text())
    assert stored == {key: value for key, value in facts.items() if key != "report"}
    page = (out / "report.html").read_text()
    for method in comparison.METHODS:
        assert method.title in page
    result = prism("demo", "--output", out, "--fast")  # again, over the old output
    assert result.exit_code == 0 and str(out / "report.html") in result.stdout.replace("\n", "")
    assert "prism 50 % + 4-bit" in result.stdout
