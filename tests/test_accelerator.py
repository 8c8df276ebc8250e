"""The pretended device refuses what a GPU refuses, and lets pass what a GPU does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
import accelerator

accelerator.pretend()
from prunefair.models import default_device

def refused(action, kind, words):
    try:
        action()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)

device = default_device()
x = torch.randn(4, 3)
y = x.to(device)
assert str(x.device) == "cpu" and str(y.device) == "cuda:0"
mixed = "to be on the same device"
refused(lambda: x + y, RuntimeError, mixed)
refused(lambda: y @ x.T, RuntimeError, mixed)
refused(lambda: x == y.max(), RuntimeError, mixed)
refused(y.numpy, TypeError, "Tensor.cpu()")
draw = {"generator": torch.Generator(), "device": device}
refused(lambda: torch.randn(3, **draw), RuntimeError, "generator")

places = [y + 1, y * torch.tensor(2.0), y[torch.tensor([0, 1])], torch.zeros_like(y)]
places += [torch.arange(3, device=y.device), torch.nn.functional.one_hot(y.argmax(1))]
assert all(str(place.device) == "cuda:0" for place in places)
assert str(y.cpu().device) == "cpu" and y.tolist() == x.tolist()
assert not torch.equal((y @ y.T).cpu(), x @ x.T)  # other last digits
torch.testing.assert_close((y @ y.T).cpu(), x @ x.T)

layer = torch.nn.Linear(3, 2).to(device)
step = torch.optim.AdamW(layer.parameters())
layer(y).sum().backward()
step.step()
assert str(layer.weight.grad.device) == str(layer.weight.device) == "cuda:0"
refused(lambda: layer(x), RuntimeError, mixed)
theta = torch.ones(3, requires_grad=True)
(y @ theta.to(device)).sum().backward()
assert str(theta.grad.device) == str(theta.device) == "cpu"
print("passed")
"""

LOOP = """
import resource
import sys
sys.path.insert(0, sys.argv[1])
import torch
import accelerator

accelerator.pretend()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

x = torch.randn(1000, 1000).to("cuda")
weight = torch.nn.Parameter(x.clone())
peaks = []
for _ in range(25):
    x.double() * x.double()  # 24 MB
    x @ x[:, :9]
    (x.cpu().to("cuda") * weight).sum().backward()
    peaks.append(peak())
print(peaks[-1] / peaks[4])
"""


def test_tensors_of_two_places_do_not_mix():
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "tools")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == "passed\n", run.stderr


def test_memory_of_a_loop_stays_flat():
    command = [sys.executable, "-c", LOOP, str(ROOT / "tools")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert float(run.stdout) < 1.2, run.stderr
