"""The README.md of a checkpoint: what it is and how it is loaded."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

_TEXT = """\
# {architecture}, compressed with PRISM

{count} linear layers are stored compressed ({formats}); everything else is stored as it was.

```
pip install prism-kernels
```

```python
import prism_llm

model = prism_llm.load("path/of/this/directory")
```

or, without writing code: `prism generate path/of/this/directory --prompt "..."`, `prism eval`, `prism inspect`.

The weights lie in `compressed-*.safetensors`, not in `model.safetensors`: transformers alone cannot read them and says
so. `recipe.yaml` is the complete recipe, `report.json` what compression measured, `MANIFEST.json` the digest of every
file (`prism verify` checks them). Run id: `{run_id}`.
"""


def readme_text(config: Mapping[str, Any], modules: Mapping[str, Mapping[str, Any]], run_id: str) -> str:
    """Markdown for people who find the directory."""
    architectures = config.get("architectures") or [config.get("model_type", "model")]
    formats = Counter(module["format"] for module in modules.values())
    listed = ", ".join(f"{count} {name}" for name, count in sorted(formats.items())) or "none"
    return _TEXT.format(architecture=architectures[0], count=len(modules), formats=listed, run_id=run_id)
