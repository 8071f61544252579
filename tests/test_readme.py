"""The README's Python runs as printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_python_block_runs_and_prints(block, capsys):
    exec(compile(BLOCKS[block], f"README.md block {block + 1}", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip()


def test_there_are_blocks():
    assert len(BLOCKS) >= 2
