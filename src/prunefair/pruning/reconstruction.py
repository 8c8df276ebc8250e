# %%
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tqdm import tqdm

from prunefair.messages import checked_whole, shown
from prunefair.models import check_tokens, measuring
from prunefair.pruning.layered import LayeredModel, layered_copy
from prunefair.pruning.surgery import adapter_for

BATCH = 8  # texts in one pass
INPUTS = ("dense", "own", "corrected")
WEIGHTINGS = ("plain", "stream")


# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package
# # and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book"
#     %cd -q /content/book/book/pruning

# %%
class FfnBlock(NamedTuple):
    """A feed-forward block as a function of its input, of any family."""

    maps: list  # weight and bias (or None) of every linear map, `down_proj` last
    activation: Callable  # of the first

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """Hidden vectors h, (T, k), of inputs (T, d)."""
        k = self.maps[-1][0].shape[1]
        pieces = [F.linear(x, *each).split(k, -1) for each in self.maps[:-1]]
        first, *others = sum(pieces, ())  # Phi-3 keeps two in one matrix
        h = self.activation(first)
        for other in others:
            h = h * other
        return h

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs, (T, d)."""
        return F.linear(self.hidden(x), *self.maps[-1])


# %%
_ACTIVATIONS = ("act_fn", "activation_fn", "act")


# %%
def ffn_block(model, module) -> FfnBlock:
    """The feed-forward block of a layer, without gradients and in its own type.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a supported family.
    module : torch.nn.Module
        What its adapter calls a block.

    Returns
    -------
    block : FfnBlock
        Shares the weights of `module`.
    """
    maps = []
    for linear in adapter_for(model).linears(module):
        bias = None if linear.bias is None else linear.bias.detach()
        maps.append((linear.weight.detach(), bias))
    names = [name for name in _ACTIVATIONS if hasattr(module, name)]
    return FfnBlock(maps, getattr(module, names[0]))


# %%
def _in(block: FfnBlock, dtype, device=None) -> FfnBlock:
    """The block in another type, or elsewhere."""
    maps = [
        tuple(None if x is None else x.detach().to(device, dtype) for x in each)
        for each in block.maps
    ]
    return block._replace(maps=maps)


# %%
@dataclass(frozen=True, kw_only=True)
class ReconstructionPlan:
    r"""How a block is fitted.

    Parameters
    ----------
    passes : int
        Times that every token of the fit is read; at 0 nothing changes.
    batch : int
        Tokens in a step.
    learning_rate : float
        First step of every entry, as a share of the root mean square of its matrix;
        it falls linearly to zero.
    spread : float
        $\nu$: how far inputs are moved along differences of others; not negative.
    held : float
        Share of the texts that judge, in (0, 1).
    judgements : int
        Times that they judge.
    patience : int
        Judgements without a new best after which the fit stops.
    inputs : {"dense", "own", "corrected"}
        Whose inputs a block is fitted to: the dense model's, or the pruned model's own;
        corrected: own inputs, and what the dense block puts out on the dense ones.
    weighting : {"plain", "stream"}
        Every token alike, or by one over the energy of the residual stream there.

    Raises
    ------
    ValueError
        If one of them is outside its range.
    """

    passes: int = 4
    batch: int = 1024
    learning_rate: float = 0.01
    spread: float = 0.6
    held: float = 0.125
    judgements: int = 8
    patience: int = 2
    inputs: str = "dense"
    weighting: str = "plain"

    def __post_init__(self):
        for name in ("passes", "batch", "judgements", "patience"):
            checked_whole(name, getattr(self, name), int(name != "passes"))
        ranges = {"learning_rate": (0, 1), "spread": (-1e-300, 10), "held": (0, 1)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low < value < high:
                low = max(low, 0)
                raise ValueError(
                    f"{name} is {shown(value)}; give a number between {low} and {high}"
                )
        for name, known in (("inputs", INPUTS), ("weighting", WEIGHTINGS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {shown(value)}; give {' or '.join(known)}")


# %%
class Samples(NamedTuple):
    """Inputs of a block at T tokens, and what is known of each."""

    x: torch.Tensor  # (T, d), in any floating type
    gap: torch.Tensor | None = None  # (T, d), added to what the dense block puts out
    weight: torch.Tensor | None = None  # (T,), of its squared error; no unit

    def __getitem__(self, rows) -> Samples:
        """Some of the tokens."""
        return Samples(*(None if part is None else part[rows] for part in self))


# %%
class BlockFit(NamedTuple):
    """A block that was fitted, and how well."""

    maps: list  # weight and bias of every linear map, in the type of the start
    errors: list[float]  # `block_error` on what judges: at the start, then later ones
    best: int  # which of the errors `maps` has


# %%
def _squares(error: torch.Tensor, weight, metric) -> torch.Tensor:
    """Sum of squares of errors (T, d), weighted by tokens and after a metric."""
    error = error if metric is None else error @ metric.T
    squares = error.square().sum(1)
    return (squares if weight is None else squares * weight).sum()


# %%
def _target(dense: FfnBlock, samples: Samples) -> torch.Tensor:
    """What a block should put out, in float32."""
    target = dense(samples.x.float())
    return target if samples.gap is None else target + samples.gap


# %%
@torch.no_grad()
def block_error(
    dense: FfnBlock,
    block: FfnBlock,
    samples: Samples,
    *,
    metric: torch.Tensor | None = None,
    batch: int = 4096,
) -> float:
    r"""Squared error of a block's output over the energy of what it should be.

    Parameters
    ----------
    dense, block : FfnBlock
        What is to be matched, and what is to match it; in float32.
    samples : Samples
        Inputs of `block`, on its device.
    metric : Tensor, shape (d, d), optional
        $R$: errors and outputs are measured after it; the identity by default.
    batch : int
        Inputs at a time.

    Returns
    -------
    error : float
        No unit; 0 where there is nothing to match.

    References
    ----------
    Book {eq}`eq-reconstruction-loss`.
    """
    lost = energy = 0.0
    for rows in torch.arange(len(samples.x)).split(batch):
        some = samples[rows]
        target = _target(dense, some)
        lost += float(_squares(block(some.x.float()) - target, some.weight, metric))
        energy += float(_squares(target, some.weight, metric))
    return lost / energy if energy > 0 else 0.0


# %%
def spread_inputs(
    x: torch.Tensor, nu: float, *, generator: torch.Generator
) -> torch.Tensor:
    r"""Inputs that are moved along differences of others, to the distance $\nu$.

    Parameters
    ----------
    x : Tensor, shape (T, d)
        Inputs of a block; activations.
    nu : float
        $\nu$, no unit; 0 for the inputs themselves.
    generator : torch.Generator
        Source of two permutations.

    Returns
    -------
    moved : Tensor, shape (T, d)

    References
    ----------
    Book {eq}`eq-reconstruction-spread`.
    """
    if not nu:
        return x
    p, q = (torch.randperm(len(x), generator=generator).to(x.device) for _ in "pq")
    return x + nu / 2**0.5 * (x[p] - x[q])


# %%
def reconstruct_block(
    dense: FfnBlock,
    start: FfnBlock,
    samples: Samples,
    held: Samples,
    *,
    plan: ReconstructionPlan,
    generator: torch.Generator,
    metric: torch.Tensor | None = None,
) -> BlockFit:
    """All matrices of a smaller block, fitted together to the output of the dense one.

    Parameters
    ----------
    dense : FfnBlock
        In float32.
    start : FfnBlock
        The smaller one, where the fit starts; of any floating type.
    samples, held : Samples
        What the fit reads, and what judges it; on the device of the blocks.
    plan : ReconstructionPlan
    generator : torch.Generator
        Source of the batches.
    metric : Tensor, shape (d, d), optional
        See `block_error`.

    Returns
    -------
    fit : BlockFit
        Never worse on `held` than `start`.

    References
    ----------
    Book {eq}`eq-reconstruction-loss`.
    """
    dtype = start.maps[0][0].dtype
    fit = BlockFit(start.maps, [_judged(dense, start, held, metric)], 0)
    batch = min(plan.batch, len(samples.x))
    steps = plan.passes * len(samples.x) // batch
    if not (steps and fit.errors[0] > 0):
        return fit
    trained, optimiser, schedule = _training(start, samples.x[:batch], plan, steps)
    some = samples[:batch]
    unit = _squares(_target(dense, some), some.weight, metric) / batch
    every = max(steps // plan.judgements, 1)
    for step, rows in enumerate(_batches(len(samples.x), batch, steps, generator), 1):
        some = samples[rows]
        some = some._replace(x=spread_inputs(some.x, plan.spread, generator=generator))
        with torch.enable_grad():
            loss = _squares(
                trained(some.x.float()) - _target(dense, some), some.weight, metric
            )
            (loss / unit).backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % every == 0 or step == steps:
            now = _in(trained, dtype)
            fit.errors.append(_judged(dense, now, held, metric))
            if fit.errors[-1] < fit.errors[fit.best]:
                fit = fit._replace(maps=now.maps, best=len(fit.errors) - 1)
            elif len(fit.errors) - 1 - fit.best >= plan.patience:
                break
    return fit


# %%
def _judged(dense, block, held, metric) -> float:
    """Error of a block as it will be stored."""
    return block_error(dense, _in(block, torch.float32), held, metric=metric)


# %%
def _batches(n: int, batch: int, steps: int, generator) -> Iterator[torch.Tensor]:
    """Numbers of the tokens of every step: each token once, then each once more."""
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(n, generator=generator)])
        rows, waiting = waiting[:batch], waiting[batch:]
        yield rows


# %%
def _training(start: FfnBlock, x, plan: ReconstructionPlan, steps: int):
    """A block with gradients, and what moves it."""
    block = _in(start, torch.float32)
    into, groups = (x.float(), block.hidden(x.float())), []
    maps = []
    for place, (weight, bias) in enumerate(block.maps):
        size = plan.learning_rate * float(weight.square().mean().sqrt())
        given = into[place == len(block.maps) - 1]
        rates = size, size * float(given.square().mean().sqrt())
        made = [
            None if w is None else w.clone().requires_grad_() for w in (weight, bias)
        ]
        groups += [
            {"params": [w], "lr": r} for w, r in zip(made, rates) if w is not None
        ]
        maps.append(tuple(made))
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.95))
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 1 - step / steps
    )
    return block._replace(maps=maps), optimiser, falling


# %%
def _through(layered: LayeredModel, layer: int, hidden: torch.Tensor):
    """Inputs of the block of a layer that is present, and what the layer puts out."""
    found, outputs = [], torch.empty_like(hidden)
    first = layered.linears(layer)[0]

    def keep(_, inputs):
        found.append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]))

    hook = first.register_forward_pre_hook(keep)
    try:
        for rows in torch.arange(len(hidden)).split(BATCH):
            outputs[rows] = layered.run(layer, hidden[rows].to(layered.device)).cpu()
    finally:
        hook.remove()
    return torch.cat(found), outputs


# %%
def reconstructed_layers(
    layered: LayeredModel,
    texts: torch.Tensor,
    start: Callable,
    *,
    plan: ReconstructionPlan,
    generator: torch.Generator,
    metrics=None,
    known: Callable | None = None,
) -> Iterator[BlockFit]:
    """Fits of every block, from the first to the last, with one layer on the device.

    Parameters
    ----------
    layered : LayeredModel
        The dense model.
    texts : Tensor, shape (n, N), int64
        At least two texts, best sampled by the model itself; the last ones judge.
    start : callable
        Gives for a layer the weight and bias of every linear map to start from.
    plan : ReconstructionPlan
    generator : torch.Generator
        Its seed, not where it stands, is that of the batches: so a run that was
        interrupted goes on to the same result.
    metrics : sequence of L Tensors, each of shape (d, d), optional
        See `block_error`.
    known : callable, optional
        Gives for a layer the fit that was made before, or None.

    Yields
    ------
    fit : BlockFit
        Of the next layer.
    """
    seed = torch.Generator().manual_seed(generator.initial_seed())
    seeds = torch.randint(2**62, (len(layered),), generator=seed)
    texts = [texts[rows] for rows in torch.arange(len(texts)).split(BATCH)]
    dense = own = torch.cat([layered.begin(some).cpu() for some in texts])
    judges = min(max(round(plan.held * len(dense)), 1), len(dense) - 1)
    judges *= dense.shape[1]  # tokens
    for layer, seed in enumerate(tqdm(seeds.tolist(), "reconstruction")):
        draws = torch.Generator().manual_seed(seed)
        metric = None if metrics is None else metrics[layer].to(layered.device)
        with layered.present(layer, then=layer + 1):
            whole = ffn_block(layered.model, layered.block(layer))
            samples, dense = _samples(layered, layer, dense, own, plan)
            parts = samples[:-judges], samples[-judges:]
            options = {"plan": plan, "generator": draws, "metric": metric}
            fit = known(layer) if known else None
            if fit is None:
                first = FfnBlock(start(layer), whole.activation)
                whole = _in(whole, torch.float32)
                fit = reconstruct_block(whole, first, *parts, **options)
            if plan.inputs != "dense":
                with _replaced(layered.linears(layer), fit.maps):
                    own = _through(layered, layer, own)[1]
        yield fit


# %%
@torch.no_grad()
def _samples(layered, layer: int, dense, own, plan):
    """What a layer that is present is fitted to, and what it puts out when dense."""
    x, after = _through(layered, layer, dense)
    gap = weight = None
    if plan.weighting == "stream":
        size = after.flatten(0, 1).float().square().mean(1).to(x.device)
        weight = size.reciprocal() / size.reciprocal().mean()
    if plan.inputs != "dense":
        mine, _ = _through(layered, layer, own)
        if plan.inputs == "corrected":
            block = _in(ffn_block(layered.model, layered.block(layer)), torch.float32)
            pairs = zip(x.split(4096), mine.split(4096))
            gap = torch.cat([block(a.float()) - block(b.float()) for a, b in pairs])
        x = mine
    return Samples(x, gap, weight), after


# %%
@contextlib.contextmanager
def _replaced(linears, maps):
    """Other weights and biases in linear maps, for the time of the block."""
    before = [dict(linear._parameters) for linear in linears]
    set_maps_(linears, maps)
    try:
        yield
    finally:
        for linear, known in zip(linears, before, strict=True):
            linear._parameters.update(known)


# %%
def set_maps_(linears, maps) -> None:
    """Give linear maps other weights and biases.

    Parameters
    ----------
    linears : sequence of torch.nn.Linear
    maps : sequence of (Tensor, Tensor or None)
        Weight and bias of each.
    """
    for linear, values in zip(linears, maps, strict=True):
        for name, value in zip(("weight", "bias"), values, strict=True):
            old = linear._parameters.get(name)
            if old is not None:
                value = torch.nn.Parameter(value.to(old.device), old.requires_grad)
                linear._parameters[name] = value


# %%
def reconstruct_(
    pruned,
    dense,
    texts: torch.Tensor,
    *,
    plan: ReconstructionPlan | None = None,
    generator: torch.Generator,
    metrics=None,
) -> list[BlockFit]:
    """Fit every block of a pruned model to the outputs of the dense one.

    Parameters
    ----------
    pruned : transformers.PreTrainedModel
        `dense` with fewer neurons, best re-fitted; changed in place, without touching
        what it shares with `dense`.
    dense : transformers.PreTrainedModel
    texts : Tensor, shape (n, N), int64
        At least two texts, best sampled by `dense`; the last ones judge.
    plan : ReconstructionPlan, optional
    generator : torch.Generator
        Source of the batches.
    metrics : sequence of L Tensors, each of shape (d, d), optional
        See `block_error`.

    Returns
    -------
    fits : list of L BlockFit
        No block is worse on the texts that judge than it was.

    Raises
    ------
    ValueError
        If there is one text, or `texts` are no tokens of `dense`, or too long for it.
    """
    check_tokens(texts, dense, argument="texts")
    if len(texts) < 2:
        raise ValueError("texts is one text; give two or more: some fit, some judge")
    layered, adapter = layered_copy(dense), adapter_for(pruned)
    blocks = adapter.blocks(pruned)

    def start(layer):
        return ffn_block(pruned, blocks[layer]).maps

    options = {"plan": plan or ReconstructionPlan(), "generator": generator}
    with measuring(layered.model, tokens=texts):
        fits = [
            *reconstructed_layers(layered, texts, start, metrics=metrics, **options)
        ]
    for block, fit in zip(blocks, fits, strict=True):
        set_maps_(adapter.linears(block), fit.maps)
    return fits
