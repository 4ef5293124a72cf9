"""Do a lesson's assertions hold on every machine? Processors round differently, and a training amplifies what differs."""

import os
import re
import tempfile
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode

from srcourse.grading import QUIET_KERNEL

# The same weights get the same factors, wherever they are trained: a loop by hand still follows the engine's.
_STARTUP = """\
import torch

def _shaken(self, group, add=torch.optim.Optimizer.add_param_group):
    add(self, group)
    with torch.no_grad():
        for i, weights in enumerate(self.param_groups[-1]["params"]):
            random = torch.Generator().manual_seed(1000 * {number} + i)
            weights.mul_((1 + 1e-6 * torch.randn(weights.shape, generator=random)).to(weights))

torch.optim.Optimizer.add_param_group = _shaken
"""


def failures(notebook: NotebookNode, folder: Path, number: int) -> list[str]:
    """Run a copy's cells with every start of a training changed by about a millionth; one line for each cell that fails.

    What an optimizer is given is multiplied by 1 + 10⁻⁶ · n, with n normally distributed: a little more than float32's rounding,
    and so the least that another processor, or another version of PyTorch, may do to a training.

    Parameters
    ----------
    notebook : NotebookNode
        Is run in place: its outputs are those of this run.
    folder : Path
        The kernel's working folder.
    number : int
        Another number, other factors.
    """
    client = NotebookClient(
        notebook, timeout=600, allow_errors=True, resources={"metadata": {"path": str(folder)}}, extra_arguments=QUIET_KERNEL
    )
    with tempfile.TemporaryDirectory() as scratch:
        startup = Path(scratch) / "profile_default" / "startup" / "shake.py"
        startup.parent.mkdir(parents=True)
        startup.write_text(_STARTUP.format(number=number), encoding="utf-8")
        client.execute(env={**os.environ, "IPYTHONDIR": scratch})
    return [
        f"cell {index}: {output.ename} in {_line(output.traceback)}"
        for index, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]


def _line(traceback: list[str]) -> str:
    """The line of the notebook that failed, from IPython's traceback."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback)).splitlines()
    arrows = [arrow[1] for arrow in (re.match(r"-+> *\d+ +(.*)", line) for line in lines) if arrow]
    return arrows[0] if arrows else lines[-1]
