"""docs/coming-from.md: every command of ours in it parses, and every recipe that it asks for exists."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "coming-from.md"
#: What loops of the page run through.
VARIABLES = {"$s": "0.5", "$bits": "4"}


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        for variable, value in VARIABLES.items():
            line = line.replace(variable, value)
        found += [
            part.strip().removeprefix("do ") for part in line.split(";") if not part.strip().startswith(("for", "done"))
        ]
    return [command for command in found if command]


def test_every_project_has_its_section():
    text = PAGE.read_text("utf-8")
    for project in (
        "Wanda",
        "SparseGPT",
        "RIA",
        "ClearCut",
        "Progressive three-tier",
        "LS-PRISM",
        "Edu-Sparsify",
        "SINQ",
        "PRISM",
    ):
        section = text.split(f"\n## {project}\n")[1].split("\n## ")[0]
        assert "```bash" in section, project
    assert len(commands()) > 35


@pytest.mark.parametrize("command", commands())
def test_every_command_parses(command, monkeypatch, tmp_path):
    words = shlex.split(command)
    monkeypatch.chdir(tmp_path)
    if words[:3] == ["python", "-m", "bench.methods"]:
        from bench.methods import parse

        parse(words[3:])
        return
    assert words[0] == "prism", command
    from typer.main import get_command

    from prism_llm.cli import compress, three_tier
    from prism_llm.cli.main import app

    group = get_command(app)
    context = group.make_context("prism", words[1:2], resilient_parsing=True)
    name, subcommand, _ = group.resolve_command(context, words[1:])
    parsed = subcommand.make_context(name, words[2:], parent=context)  # raises on what it does not know
    if name == "compress":
        asked = []
        monkeypatch.setattr(compress, "run", lambda source, output, recipe, **_: asked.append(recipe) or FACTS)
        monkeypatch.setattr(three_tier, "run", lambda source, output, recipe, plan, **_: asked.append(recipe) or FACTS)
        subcommand.invoke(parsed)
        assert len(asked) == 1


FACTS = {
    "output": "out", "compressed_linears": 1, "compressed_bytes": 1, "bits_per_weight": 1.0, "seconds": 1.0,
    "report": {},
}  # fmt: skip
