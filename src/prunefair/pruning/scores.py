# %% [markdown]
r"""
# Scores: entropy, fluctuation, fidelity

The [Fisher cost](functional_policy.ipynb) asks how far a small change of a neuron moves the distribution of the next token.
Others ask something else of the same neuron: what it does to the *entropy* of that distribution, how much its output *fluctuates*, how much of the block's output it can stand for *alone*.
Do they keep other neurons, and better ones?
Where every layer loses 30 % of its neurons, hardly: after a re-fit the divergence from the dense model is 0.73 to 0.83 nats a token, by whichever score.
Where a score also decides how many neurons each layer loses, it does matter: the Fisher cost comes to 0.55.

All three need no labels, so the model's own text will do for them, too.
Each is derived from its formula here, with what it has to do with the scores of this book.

## Notation

$h_j$ is the hidden value of neuron $j$ in one block, $H = \mathbb E[h h^\top]$ its second moment, $\mu = \mathbb E\, h$, and $D_{:j}$ its column of `down_proj`.
$p(\cdot)$ is the distribution of a next token, $S = -\sum_x p(x) \ln p(x)$ its entropy in nats.
A dot, as in $\dot S$, is the derivative by the size $\varepsilon$ of a change that a neuron goes through, as when its output is multiplied by $1 - \varepsilon$.
"""

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
from __future__ import annotations

import torch
from tqdm import tqdm

from prunefair.pruning.functional_policy import fisher_sums
from prunefair.pruning.self_moments import BATCH

# %% tags=["active-ipynb"]
# import json
# from pathlib import Path
#
# import numpy as np
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.plotting import figure
# from prunefair.pruning.comparison import plot_intervals
# from prunefair.pruning.estimates import Range, half_interval
# from prunefair.pruning.functional_policy import fisher_costs
# from prunefair.pruning.self_moments import down_projections, hidden_moments, lost_energy
# from prunefair.pruning.surgery import mask_ffn_, tiny_model
#
# generator = torch.Generator().manual_seed(77)

# %% [markdown]
# ## Entropy
#
# A model that is sure of the next token and one that is not differ in entropy, and no label is needed to see it.
# HFPrune ([Zhu et al. 2026](../references.bib#zhu2026hfprune)) takes the first-order change of the mean entropy when a neuron is silenced.
# At the position $t$ that is $h_{tj}\, \partial S / \partial h_{tj}$, with $S$ summed over all positions that read it, and the score is the mean of the absolute values,
#
# <a id="eq-scores-entropy"></a>
# $$
# e_j = \frac1T \sum_{t} \Bigl\lvert h_{tj}\, \frac{\partial}{\partial h_{tj}} \sum_u S_u \Bigr\rvert .
# $$ (eq-scores-entropy)
#
# What can entropy see of a change, and what not?
# Raise the temperature and every distribution becomes flatter: entropy notices that at once.
# Swap the probabilities of two tokens, and a reader is misled while the entropy stays what it was.
#
# Compare the numbers below the two changed distributions: the entropy $S$ notices one change, the divergence notices both.


# %%
def plot_changes(axes, p, changed: dict):
    """A distribution of a next token, and what is left of it after some changes."""
    log_p = p.log()
    entropy_before = -(p * log_p).sum()
    for ax, (name, q) in zip(axes, changed.items()):
        apart = (p * (log_p - q.log())).sum()
        change = -(q * q.log()).sum() - entropy_before
        ax.bar(range(len(p)), p.tolist(), color="0.85", width=0.9)
        ax.bar(range(len(p)), q.tolist(), color="C0", width=0.45)
        ax.set(xlabel=f"{name}:\n$S$ by {abs(change):.2f}, KL {apart:.2f}")
        ax.set(xticks=range(len(p)), ylim=(0, 0.6))
        ax.grid(axis="x", visible=False)
    axes[0].set(ylabel="probability of the token")
    return axes


# %% tags=["active-ipynb"]
# p = torch.tensor([0.52, 0.27, 0.12, 0.06, 0.03]).double()
# warm = p**0.55 / (p**0.55).sum()
# with figure(2, n_columns=2, sharey=True) as axes:
#     plot_changes(axes, p, {"temperature": warm, "two swapped": p[[1, 0, 2, 3, 4]]})

# %% [markdown]
# **Figure (fig-scores-changes).** <a id="fig-scores-changes"></a> Two changes of the distribution of a next token (wide grey bars: before; narrow blue bars: after). Left: a higher temperature flattens it and raises its entropy. Right: two tokens are swapped, and the entropy does not change at all, although the divergence is larger. The labels say by how much the entropy $S$ changes, and how large the divergence (KL) is, in nats.

# %% [markdown]
# Is a change that entropy notices always one that matters?
# The next theorem compares both for a small change, and says that the two examples are the extremes.
#
# **Theorem (Entropy sees a change of temperature).** <a id="thm-scores-temperature"></a>
# Let $p_\varepsilon$ be distributions over finitely many tokens, all positive and smooth in $\varepsilon$, $s(x) = \frac{d}{d\varepsilon} \ln p_\varepsilon(x)$ at $\varepsilon = 0$, and $F = \mathbb E\, s^2$ their Fisher information there.
# Then
#
# <a id="eq-scores-temperature"></a>
# $$
# \dot S = -\operatorname{Cov}(\ln p,\, s), \qquad \dot S^2 \le \operatorname{Var}(\ln p)\; F ,
# $$ (eq-scores-temperature)
#
# with means under $p$.
# Unless $p$ is uniform, equality holds exactly for changes $s = a\,(\ln p + S)$, those of a temperature.
#
# **Proof.**
# $\dot S = -\sum_x \dot p(x) \ln p(x) - \sum_x \dot p(x)$, and the last sum is the derivative of $1$.
# With $\dot p = p\, s$ the first is $-\mathbb E[s \ln p]$, and $\mathbb E\, s = \sum_x \dot p(x) = 0$ makes it the covariance.
# The inequality is that of Cauchy and Schwarz for $s$ and $\ln p - \mathbb E \ln p = \ln p + S$, with equality where the one is a multiple of the other.
# For $p_\varepsilon \propto p^{1 + a \varepsilon}$ the score is $a\,(\ln p - \mathbb E \ln p)$. ∎
#
# In words: what entropy notices, squared, is at most the Fisher information times a factor, $\operatorname{Var}(\ln p)$, that does not depend on the change.
# It is all of that only if the change acts as a temperature does, and nothing if the change leaves the shape of the distribution as it was.
# A neuron that only decides *which* of two equally likely names comes next can have a large Fisher cost and none in entropy.

# %% [markdown]
# The check draws distributions and directions, and compares the slope of the entropy with two small steps.

# %% tags=["active-ipynb"]
# def moved(p, s):
#     """Derivative of the entropy of p, the variance of ln p, and the information."""
#     s, log_p = s - (p * s).sum(), p.log()
#     mean = (p * log_p).sum()
#     return -(p * log_p * s).sum(), (p * (log_p - mean) ** 2).sum(), (p * s**2).sum()
#
#
# def draw(n, spread):
#     """A distribution over n tokens, and a direction."""
#     x = torch.randn(2, n, generator=generator, dtype=torch.float64)
#     return (spread * x[0]).softmax(0), x[1]

# %% tags=["active-ipynb"]
# for n in (2, 5, 50):
#     p, s = draw(n, 2.0)
#     slope, variance, information = moved(p, s)
#     s = s - (p * s).sum()
#     step = 1e-5
#     ends = [p * (1 + sign * step * s) for sign in (1, -1)]  # sums to one
#     entropies = [-(q * q.log()).sum() for q in ends]
#     by_steps = (entropies[0] - entropies[1]) / (2 * step)
#     assert abs(by_steps - slope) < 1e-8 and slope**2 <= variance * information
#     a, b, c = moved(p, p.log())  # a change of temperature
#     assert abs(a**2 / (b * c) - 1) < 1e-9

# %% [markdown]
# Statements that would be stronger are false, each for some distribution:

# %% tags=["active-ipynb"]
# stronger = {
#     "no factor": lambda v, f, h: f,
#     "the entropy as the factor": lambda v, f, h: h * f,
#     "half of it": lambda v, f, h: v * f / 2,
#     "the standard deviation": lambda v, f, h: v.sqrt() * f,
# }
# refuted = dict.fromkeys(stronger, 0)

# %% tags=["active-ipynb"]
# for spread in (0.3, 1.0, 3.0, 6.0):
#     for n in (2, 3, 20):
#         p, s = draw(n, spread)
#         for direction in (s, p.log()):
#             slope, variance, information = moved(p, direction)
#             assert slope**2 <= variance * information * (1 + 1e-12)
#             h = -(p * p.log()).sum()
#             for name, bound in stronger.items():
#                 refuted[name] += bool(slope**2 > bound(variance, information, h))
# assert all(refuted.values()), refuted


# %%
def entropy(logits: torch.Tensor, tokens=None) -> torch.Tensor:
    r"""Entropy of the next token, summed over all positions.

    Parameters
    ----------
    logits : Tensor, shape (n, N, V), any floating type
        What a model says of the next token at every position.
    tokens : optional
        Not needed; other quantities are those of a text.

    Returns
    -------
    entropy : Tensor, shape (), float32
        Nats.
    """
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum()


# %%
def entropy_costs(
    model, texts: torch.Tensor, *, power: int = 1, batch_size: int = BATCH
) -> list[torch.Tensor]:
    r"""First-order change of the entropy by every neuron.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family, on any device; neither it nor its gradients change.
    texts : Tensor, shape (n, N), int64
        Any texts that the model can read.
    power : {1, 2}
        Of the change at one position, before the mean; 1 is HFPrune's.
    batch_size : int
        Texts in one forward and backward pass.

    Returns
    -------
    costs : list of L Tensors, each of shape (m,), float32
        On the CPU, not negative; nats, or their squares.

    Raises
    ------
    ValueError
        If `power` is another number, or the family is not supported.

    References
    ----------
    Book {eq}`eq-scores-entropy`; {cite}`zhu2026hfprune`.
    """
    if power not in (1, 2):
        raise ValueError(f"power is {power!r}; give 1 or 2")
    options = {"quantity": entropy, "power": power}
    with fisher_sums(model, texts.shape[1], **options) as (sums, add):
        for chunk in tqdm(texts.split(batch_size), "entropy costs"):
            add(chunk)
    return [each.mean(texts.numel()) for each in sums]


# %% [markdown]
# The check scales one neuron at one position by hand.

# %% tags=["active-ipynb"]
# small = tiny_model("llama", generator=generator).double()
# text = torch.randint(5, small.config.vocab_size, (1, 4), generator=generator)
# down, j, step = down_projections(small)[0], 3, 1e-2
# found, squared = (entropy_costs(small, text, power=k)[0][j] for k in (1, 2))


# %% tags=["active-ipynb"]
# def scaled(t, factor):
#     """Entropy when the neuron is multiplied by a factor at one position."""
#     factors = torch.ones(1, 4, down.in_features, dtype=torch.float64)
#     factors[0, t, j] = factor
#     hook = down.register_forward_pre_hook(lambda _, x: x[0] * factors)
#     with torch.no_grad():
#         log_p = small(text).logits.log_softmax(-1)
#     hook.remove()
#     return -float((log_p.exp() * log_p).sum())

# %% tags=["active-ipynb"]
# ends = [[scaled(t, 1 + sign * step) for sign in (1, -1)] for t in range(4)]
# changes = np.diff(ends, axis=1) / (2 * step)
# np.testing.assert_allclose(float(found), np.abs(changes).mean(), rtol=1e-2)
# np.testing.assert_allclose(float(squared), (changes**2).mean(), rtol=1e-2)

# %% [markdown]
# ## Fluctuation
#
# A neuron that always says the same can be replaced by a constant.
# FLAP ([An et al. 2024](../references.bib#an2024flap)) therefore scores what varies, and puts the mean of what is removed into a bias,
#
# <a id="eq-scores-fluctuation"></a>
# $$
# v_j = \bigl(H_{jj} - \mu_j^2\bigr)\, \lVert D_{:j} \rVert^2 = \min_b\, \mathbb E\, \lVert D_{:j} h_j - b \rVert^2 .
# $$ (eq-scores-fluctuation)
#
# The minimum is at the mean, $b = D_{:j}\, \mu_j$, which leaves the variance: this is the [energy](self_moments.ipynb) of a neuron after the best bias.
# Where a family has no bias in `down_proj`, as LLaMA, there is none to be set, and FLAP adds one.
# To share a budget among layers FLAP standardises the scores of each layer to mean zero and variance one.
# Then it keeps the largest of all, whatever the units of a layer are.


# %%
def fluctuations(D: torch.Tensor, H: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    r"""Energy of every neuron that no bias can stand in for.

    Parameters
    ----------
    D : Tensor, shape (d, m)
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.
    mean : Tensor, shape (m,)
        First moment of its input; activations.

    Returns
    -------
    fluctuations : Tensor, shape (m,), float64
        Not negative; squared outputs.

    References
    ----------
    Book {eq}`eq-scores-fluctuation`; {cite}`an2024flap`.
    """
    variance = (H.diagonal().double() - mean.double().square()).clamp(min=0)
    return variance * D.double().square().sum(0)


# %% [markdown]
# ## Fidelity
#
# Energy asks what is lost without a neuron, while all the others stay.
# ModHiFi ([Kashyap et al. 2025](../references.bib#kashyap2025modhifi)) asks the opposite: how much of an output a subset of the components reproduces with nothing else, when each of them may be rescaled.
# For a single neuron and the output $y = D h$ that is
#
# <a id="eq-scores-fidelity"></a>
# $$
# q_j = 1 - \min_a \frac{\mathbb E\, \lVert y - a\, D_{:j} h_j \rVert^2}{\mathbb E\, \lVert y \rVert^2}
# = \frac{(D_{:j}^\top D H_{:j})^2}{\lVert D_{:j} \rVert^2\, H_{jj}\, \operatorname{tr} (D H D^\top)} .
# $$ (eq-scores-fidelity)
#
# The right-hand side is the squared cosine between $D_{:j} h_j$ and $y$, by the normal equation in $a$.
# Where neurons do not correlate, so that $H$ is diagonal, energy and fidelity agree: then $D_{:j}^\top D H_{:j} = \lVert D_{:j} \rVert^2 H_{jj}$, and $q_j$ is the neuron's share of the energy.


# %%
def fidelities(D: torch.Tensor, H: torch.Tensor) -> torch.Tensor:
    r"""Share of the output's energy that one rescaled neuron reproduces alone.

    Parameters
    ----------
    D : Tensor, shape (d, m)
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.

    Returns
    -------
    fidelities : Tensor, shape (m,), float64
        In [0, 1]; 0 for a neuron that says nothing; no unit.

    References
    ----------
    Book {eq}`eq-scores-fidelity`; {cite}`kashyap2025modhifi`.
    """
    D, H = D.double(), H.double()
    along = (D * (D @ H)).sum(0)  # (m,): E[y . D_j h_j]
    energy = D.square().sum(0) * H.diagonal()
    return along.square() / (energy * along.sum()).clamp(min=torch.finfo(H.dtype).tiny)


# %% [markdown]
# Both against the vectors themselves:

# %% tags=["active-ipynb"]
# D = torch.randn(3, 6, generator=generator).double()
# h = torch.randn(500, 6, generator=generator).double() + torch.arange(6)
# h[:, 5] = 2  # always the same
# H, mean, y = h.T @ h / 500, h.mean(0), h @ D.T
# for j in range(6):
#     own = h[:, [j]] * D[:, j]
#     rest = (own - own.mean(0)).square().sum(1).mean()
#     assert abs(fluctuations(D, H, mean)[j] - rest) < 1e-9
#     a = (own * y).sum() / own.square().sum()
#     share = 1 - (y - a * own).square().sum() / y.square().sum()
#     assert abs(fidelities(D, H)[j] - share) < 1e-12

# %% tags=["active-ipynb"]
# apart = torch.diag(h.square().mean(0))  # no two neurons correlate
# shares = fidelities(D, apart)
# assert abs(shares.sum() - 1) < 1e-12
# for j in range(6):
#     lost = lost_energy(D, apart, torch.tensor([j])) / lost_energy(D, apart, range(6))
#     assert abs(shares[j] - lost) < 1e-12

# %% [markdown]
# ## What they keep, and what becomes of the model
#
# `benchmarks/scores.py` measures all scores on the same texts that the small real model wrote itself, and removes 30 % of its neurons by each.
# Two more scores stand beside them.
# *Surgeon energy* is the energy that a neuron takes with it after the best re-fit of all others ([why](functional_policy.ipynb)), and *entropy squared* squares the changes of [(eq-scores-entropy)](#eq-scores-entropy) instead of taking their absolute values.
# First, how far they agree: the rank correlation of two scores within a layer, as a mean over the layers.
# It would be 1 for the same order of neurons, and 0 for orders that know nothing of each other.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/scores.json").read_text())
# n, length = table["configuration"]["texts"]
# ranks, names = table["ranks"], list(table["ranks"])
# print(f"{n} texts of {length} tokens; {table['device']}")
# print(" " * 16, *(f"{name[:9]:>9}" for name in names))
# for name in names:
#     print(f"{name:16}", *(f"{ranks[name][other]:9.2f}" for other in names))

# %% [markdown]
# Nearly the same order as the energies have the fluctuations (1.00) and the surgeon energies (0.92); the least alike are fidelity and squared entropy, with 0.57.
#
# Then what becomes of the model, by its divergence from the dense one on texts of another seed.
# With *equal widths* every layer loses 30 %, and a score chooses the neurons.
# With *its own widths* a score also chooses how many each layer loses; with *widths by* a score it chooses only these numbers, and energy the neurons.
# Energies and fluctuations are standardised before they share a budget, as FLAP does; the other scores are compared among layers as they are.
# A model is measured as it is *cut*, and *re-fitted*, with `down_proj` adapted to the neurons that stay; the re-fit and its ridge are the same for all.

# %% tags=["active-ipynb"]
# kl = {name: {way: np.array(row[way]) for way in ("cut", "re-fitted")}
#       for name, row in table["kl"].items()}  # fmt: skip
# def interval(values):
#     """Mean and its 95 % interval."""
#     half = half_interval(values)
#     mean = values.mean()
#     return Range(value=mean, low=mean - half, high=mean + half)
# order = sorted(kl, key=lambda name: kl[name]["re-fitted"].mean())
# for name in order:
#     cut, fitted = (kl[name][way].mean() for way in ("cut", "re-fitted"))
#     print(f"{name:42} cut {cut:6.3f}  re-fitted {fitted:6.3f}")

# %% tags=["active-ipynb"]
# with figure(figsize=(5.6, 6)) as ax:
#     plot_intervals(ax, {name: interval(kl[name]["re-fitted"]) for name in order})
#     ax.set(xlabel="divergence (nats a token)", xscale="log")
# assert round(kl["fidelity, equal widths"]["re-fitted"].mean(), 2) == 0.83

# %% [markdown]
# **Figure (fig-scores-divergence).** <a id="fig-scores-divergence"></a> Divergence from the dense model on held-out texts of its own after 30 % of the neurons went by each score and the rest was re-fitted, with equal widths or with widths by a score; 95 % intervals over the texts.
#
# The intervals are wide because texts differ.
# So differences from the energy with equal widths are taken text by text, and the list shows each with the half-width of its 95 % interval.

# %% tags=["active-ipynb"]
# def gap(one, other, way="re-fitted"):
#     """Difference of two divergences, and the edge of its 95 % interval."""
#     values = kl[one][way] - kl[other][way]
#     return values.mean(), half_interval(values)
#
#
# reference = "energy, equal widths"
# for name in order:
#     mean, half = gap(name, reference)
#     print(f"{name:42} {mean:+.3f} +- {half:.3f}")

# %% tags=["active-ipynb"]
# order_of = {name: place for place, name in enumerate(order)}
# assert order[0] == "Fisher cost, its own widths"
# for name in ("Fisher cost", "entropy", "entropy squared", "fluctuation"):
#     by_it = f"energy, widths by {name}"
#     assert order_of[by_it] < order_of[reference]  # widths by it help the same rows
# mean, half = gap("energy, widths by Fisher cost", reference)
# assert mean + half < 0
# equal = [name for name in order if "equal widths" in name and name != reference]
# assert all(abs(gap(name, reference)[0]) < gap(name, reference)[1] for name in equal)

# %% [markdown]
# Can the Fisher cost be told from other scores? Three more pairs:

# %% tags=["active-ipynb"]
# told_apart = []
# for one, other in (
#     ("Fisher cost, equal widths", "fidelity, equal widths"),
#     ("Fisher cost, its own widths", "entropy squared, its own widths"),
#     ("energy, widths by Fisher cost", "energy, widths by entropy squared"),
# ):
#     mean, half = gap(one, other)
#     print(f"{one} - {other}:\n{mean:+32.3f} +- {half:.3f}")
#     told_apart.append(mean + half < 0)
# assert told_apart == [True, False, True]

# %% [markdown]
# Which neurons go *within* a layer matters little.
# With equal widths no score differs from the energy by more than the error of sixteen texts, although the rank correlations with the energy go down to 0.72.
# The best and the worst score differ from each other: the Fisher cost is 0.101 below fidelity, with an error of 0.056.
#
# How many go *from each layer* matters.
# Widths by Fisher cost take a quarter off the divergence, from 0.774 to 0.584, with the rows still chosen by energy.
# With the rows chosen by Fisher cost too, it is 0.549.
#
# - With rows by energy, entropy seems to share the budget worse than the Fisher cost does: squared, its widths leave a divergence larger by 0.101, with an error of 0.073. With their own rows the two are not told apart: squared entropy comes to 0.611, and the difference of 0.062 is within its error of 0.066. Entropy sees only what acts as a temperature, as [Theorem (Entropy sees a change of temperature)](#thm-scores-temperature) says, and a layer may do something else.
# - FLAP's standardised fluctuations share the budget better than equal widths do: by 0.116 with rows by energy. Standardised energies do not. Both have the same order within a layer, but how many neurons a layer loses depends on their values, too.
# - ModHiFi's fidelity of single neurons is last, with 0.831, but not beyond the error. Its method takes neurons one after the other, each beside those that are already kept; that is not measured here.
# - Filtering the texts, the 64 most likely ones of 96, changes nothing beyond the error.
#
# All of it is one sample, one model and one ratio.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# before = torch.tensor([0.7, 0.2, 0.1]).double()
# after = before[[1, 0, 2]]
# noticed = -(after * after.log()).sum() + (before * before.log()).sum()
# apart_by = (before * (before / after).log()).sum()
# Quiz(
#     "A change swaps the probabilities 0.7 and 0.2 of two tokens; a third keeps 0.1. "
#     "By how much does the entropy change?",
#     right=f"{abs(noticed):.2f} nats",
#     because="It only knows which probabilities there are, not whose they are.",
#     wrong={f"{apart_by:.2f} nats": "That is the divergence, which notices the swap.",
#            "0.50 nats": "So far two probabilities move; entropy knows no names."},
# )

# %% tags=["active-ipynb", "remove-input"]
# always_two, its_column = torch.tensor([[4.0]]), torch.tensor([[3.0**0.5]])
# varies = fluctuations(its_column, always_two, torch.tensor([2.0]))[0]
# says = lost_energy(its_column, always_two, torch.tensor([0]))
# Quiz(
#     "A neuron always says 2, and the squared norm of its column is 3. What are its "
#     "energy and its fluctuation?",
#     right=f"{says:.0f} and {varies:.0f}",
#     because="Without it the output lacks a constant, which a bias can give back.",
#     wrong={"12 and 12": "The fluctuation leaves out what a bias can stand in for.",
#            "0 and 0": "Removed without a bias, it takes an energy of 12 along."},
# )

# %% tags=["active-ipynb", "remove-input"]
# by_widths = gap("energy, widths by Fisher cost", "energy, equal widths")[0]
# by_rows = gap("Fisher cost, equal widths", "energy, equal widths")[0]
# Quiz(
#     "You may use the Fisher cost either to decide how many neurons each layer loses, "
#     "or which ones go within a layer; energy decides the rest. Which do you choose?",
#     right="to decide " + ("how many" if by_widths < by_rows else "which"),
#     because=f"As widths it changes the divergence by {by_widths:.2f} nats a token, as "
#     f"a choice of neurons within each layer by {by_rows:.2f}.",
#     wrong={"to decide which": "There the gain is within the error.",
#            "either, they gain the same": "Widths gain four times as much."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-scores-0"></a>
# Write a function that says how much of a block's output one neuron reproduces alone, as a share of the output's energy.
# `h` holds the hidden values of every token, `D` is `down_proj`, `j` the neuron; the neuron may be rescaled by the best factor.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# The output is `h @ D.T`, the neuron's part of it `np.outer(h[:, j], D[:, j])`.
# The best factor is that of least squares.
#
# </details>

# %% tags=["active-ipynb"]
# def reproduced_alone(h, D, j):
#     """Share of the energy of `h @ D.T` that neuron `j` reproduces, rescaled."""
#     # your lines
#
#
# def by_the_book(h, D, j):
#     """The same by the formula of this chapter, from the second moment."""
#     return float(fidelities(torch.tensor(D), torch.tensor(h.T @ h / len(h)))[j])
#
#
# said, weights = np.array([[1.0, 2], [0, 1], [3, 1]]), np.array([[1.0, 1], [0, 2]])
# check_answer(reproduced_alone, by_the_book, (said, weights, 0), (said, weights, 1))

# %% [markdown]
# <details><summary>Solution</summary>
#
# With $y$ the output and $x$ the neuron's part, the best factor is $a = \langle x, y\rangle / \lVert x \rVert^2$; what is left over is $\lVert y - a x \rVert^2$.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def reproduced_alone(h, D, j):
#     """Share of the energy of `h @ D.T` that neuron `j` reproduces, rescaled."""
#     y, own = h @ D.T, np.outer(h[:, j], D[:, j])
#     a = (own * y).sum() / (own**2).sum()
#     return 1 - ((y - a * own) ** 2).sum() / (y**2).sum()
#
#
# calls = [(said, weights, 0), (said, weights, 1)]
# assert check_answer(reproduced_alone, by_the_book, *calls)

# %% [markdown]
# **Exercise ★★.** <a id="ex-scores-1"></a>
# By hand: a position has two possible tokens of probability $p$ and $1 - p$, and a neuron adds $\varepsilon$ to the logit of the first.
# Compare $\dot S^2$ with $\operatorname{Var}(\ln p)\, F$.
#
# <details><summary>Solution</summary>
#
# The score is $s = (1 - p, -p)$ and $F = p(1 - p)$.
# $\dot S = -p(1-p) \ln \frac{p}{1-p}$ and $\operatorname{Var}(\ln p) = p(1-p) \ln^2 \frac{p}{1-p}$: equality, because with two tokens every change is one of temperature.
# Only at $p = \frac12$ both sides are zero while $F$ is not.
#
# </details>

# %% tags=["active-ipynb"]
# for p in (0.1, 0.3, 0.5):
#     two = torch.tensor([p, 1 - p], dtype=torch.float64)
#     slope, variance, information = moved(two, torch.tensor([1.0, 0]).double())
#     assert abs(slope + p * (1 - p) * np.log(p / (1 - p))) < 1e-12
#     assert abs(slope**2 - variance * information) < 1e-12
# assert abs(slope) < 1e-12 < information

# %% [markdown]
# **Exercise ★★.** <a id="ex-scores-2"></a>
# A limit: let all neurons of a block say nearly the same.
# What are their energies, fluctuations and fidelities, and which of them notices that any one of the neurons could stand for all?
#
# <details><summary>Solution</summary>
#
# With $h_j = z + $ a little and equal columns, all energies are equal, and so are the fluctuations; nothing says that they are copies.
# Every fidelity is nearly 1: alone, rescaled by $m$, each reproduces the output.
# So fidelities do not add up to one when neurons are correlated.
#
# </details>

# %% tags=["active-ipynb"]
# z = torch.randn(500, 1, generator=generator).double()
# h = z + 0.01 * torch.randn(500, 6, generator=generator).double()
# column = torch.randn(3, 1, generator=generator).double()
# H, D = h.T @ h / 500, column.expand(3, 6)
# shares = fidelities(D, H)
# assert shares.min() > 0.99 and shares.sum() > 5.9
# print("fidelities", *(f"{share:.4f}" for share in shares))

# %% [markdown]
# **Exercise ★★.** <a id="ex-scores-3"></a>
# Break an assumption: give [(eq-scores-temperature)](#eq-scores-temperature) a derivative $s$ that is not centred, as the logits of a model move.
# Which side goes wrong, and what mends it?
#
# <details><summary>Solution</summary>
#
# $\mathbb E\, s^2$ is then too large, by the square of the mean, and $-\mathbb E[s \ln p]$ is off by the mean times $S$: the slope can even be larger than the bound allows.
# The derivative of a log-probability is that of the logit less its mean under $p$.
#
# </details>

# %% tags=["active-ipynb"]
# p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
# shift = torch.full((3,), 4.0).double()  # all logits move alike: nothing happens
# slope, variance, information = moved(p, shift)
# assert abs(slope) < 1e-12 and abs(information) < 1e-12
# assert abs((p * p.log() * shift).sum()) > 1  # what the formula gives uncentred

# %% [markdown]
# ## What you can do now
#
# You can score neurons by what they do to the entropy, by what of them varies, and by what they reproduce alone, from the model's own text.
# Entropy notices at most $\operatorname{Var}(\ln p)$ times the Fisher information, and nothing of a swap.
# With equal widths no score differs from the energy beyond the error; the best and the worst, 0.730 and 0.831 nats a token at 30 %, differ from each other.
# What pays more is to share the budget among layers: by Fisher cost the divergence falls from 0.774 to 0.549.
#
# - First-order changes of the entropy: `entropy_costs`, of the quantity `entropy`.
# - Energy after the best bias: `fluctuations`; share of the output reproduced alone: `fidelities`.
#
# Next: [Domains](domains.ipynb) lets the pruned models read other kinds of text.
