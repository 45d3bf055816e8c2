"""The README's Python runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.root
def test_the_readmes_example(data_root: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    environment = {**os.environ, "WORKBENCH_ROOT": str(data_root)}
    environment.pop("WORKBENCH_HOST", None)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert (done.stdout, done.returncode) == ("stdout b'hello\\n'\n3\n", 0), done.stderr
