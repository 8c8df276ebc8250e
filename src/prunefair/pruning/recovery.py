# %%
from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from prunefair.pruning.evaluation import (
    TASK_CHANCE,
    PerQuestion,
    TaskResult,
    information,
    standard_error,
    token_nats,
)
from prunefair.pruning.surgery import adapter_for

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj") + (
    "out_proj",  # OPT
    "dense",  # Phi, Falcon, GPT-NeoX
    "query_key_value",  # Falcon, GPT-NeoX
)


# %%
def lora_targets(model) -> list[str]:
    """Names of the linear maps that get an adapter: feed-forward and attention.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family, pruned or not.

    Returns
    -------
    names : list of str
        Whole names in the model, in its order.

    Raises
    ------
    ValueError
        If the family is not supported; see `adapter_for`.
    """
    adapter = adapter_for(model)
    ffn = {id(p) for block in adapter.blocks(model) for p in adapter.linears(block)}
    return [
        name
        for name, module in model.named_modules()
        if id(module) in ffn or name.rpartition(".")[2] in ATTENTION
    ]


# %%
@dataclass(frozen=True, kw_only=True)
class RecoveryPlan:
    """What recovery does; fixed before training and stored with its result.

    Attributes
    ----------
    rank : int
        Rank r of every adapter.
    alpha : float
        The adapter's output is multiplied by alpha / r.
    steps, batch_size, window : int
        Optimiser steps, windows in each, tokens in a window.
    learning_rate : float
        Largest learning rate, reached at the end of the warm-up.
    warmup : float
        Share of the steps over which the rate rises, in [0, 1).
    max_norm : float
        Largest norm of the gradient of all adapters together.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    rank: int = 8
    alpha: float = 16.0
    steps: int = 200
    batch_size: int = 4
    window: int = 128
    learning_rate: float = 5e-4
    warmup: float = 0.1
    max_norm: float = 1.0

    def __post_init__(self):
        for name in ("rank", "steps", "batch_size", "window"):
            value, least = getattr(self, name), 2 if name == "window" else 1
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; give an integer from {least}")
        for name in ("alpha", "learning_rate", "max_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}; give a positive number")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup!r}; it must lie in [0, 1)")


# %%
def with_lora(model, plan: RecoveryPlan, *, generator: torch.Generator):
    r"""Copy of `model` with an adapter at every target, $W + (\alpha/r) B A$, $B = 0$.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family; it is not changed.
    plan : RecoveryPlan
        Gives rank and alpha.
    generator : torch.Generator
        Source of A; B is zero.

    Returns
    -------
    adapted : peft.PeftModel
        In evaluation mode; only the adapters are trained, in float32 or wider.

    Raises
    ------
    ValueError
        If the family is not supported.
    ImportError
        If peft is not installed.

    References
    ----------
    Book {eq}`eq-recovery-lora`; {cite}`hu2021lora`, section 4.1.
    """
    names = lora_targets(model)
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError(
            "recovery needs peft, which is not installed; install prunefair[recover]"
        ) from error
    config = LoraConfig(r=plan.rank, lora_alpha=plan.alpha, target_modules=names)
    with torch.random.fork_rng(devices=[]):  # peft draws A from the global generator
        adapted = get_peft_model(copy.deepcopy(model), config).eval()
    for name, weight in adapted.named_parameters():
        if "lora_A" in name:  # we draw it again, from ours
            u = torch.rand(weight.shape, generator=generator, device=generator.device)
            weight.data.copy_((2 * u - 1) / math.sqrt(weight.shape[1]))
    return adapted


# %%
def merged(adapted):
    """Plain model whose weights hold the adapters; `adapted` is used up.

    Parameters
    ----------
    adapted : peft.PeftModel
        What `with_lora` gave.

    Returns
    -------
    model : transformers.PreTrainedModel
        With the class, shapes and dtype of the model before; in evaluation mode.

    References
    ----------
    Book {eq}`eq-recovery-merge`.
    """
    return adapted.merge_and_unload(safe_merge=True).requires_grad_(True).eval()


# %%
def learning_rates(plan: RecoveryPlan) -> np.ndarray:
    """Learning rate of every step: a linear warm-up, then a cosine to zero.

    Parameters
    ----------
    plan : RecoveryPlan
        Gives steps, warm-up and the largest rate.

    Returns
    -------
    rates : ndarray, shape (steps,), float64
        Positive.

    References
    ----------
    Book {eq}`eq-recovery-schedule`.
    """
    rise = math.ceil(plan.warmup * plan.steps)
    t = np.arange(plan.steps)
    down = (1 + np.cos(np.pi * (t - rise) / max(plan.steps - rise, 1))) / 2
    up = (t + 1) / max(rise, 1)
    return plan.learning_rate * np.where(t < rise, up, down)


# %%
def draw_windows(
    tokens: torch.Tensor, n: int, window: int, *, generator: torch.Generator
) -> torch.Tensor:
    """Windows of a text that begin at uniformly drawn places.

    Parameters
    ----------
    tokens : Tensor, shape (T,), int64
        The text.
    n, window : int
        Number of windows, and tokens in each.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    windows : Tensor, shape (n, window), int64
    """
    places = len(tokens) - window + 1
    start = torch.randint(places, (n, 1), generator=generator, device=generator.device)
    return tokens[start.to(tokens.device) + torch.arange(window, device=tokens.device)]


# %%
def next_token_loss(model, tokens: torch.Tensor) -> torch.Tensor:
    """Mean information of every token but the first; differentiable.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        Causal language model.
    tokens : Tensor, shape (B, L), int64
        Texts.

    Returns
    -------
    loss : Tensor, shape (), float64
        Nats a token.

    References
    ----------
    Book {eq}`eq-recovery-loss`.
    """
    tokens = tokens.to(model.device)
    logits = model(tokens[:, :-1], use_cache=False).logits
    return information(logits, tokens[:, 1:]).mean()


# %%
def fit_lora_(
    adapted, tokens: torch.Tensor, plan: RecoveryPlan, *, generator: torch.Generator
) -> np.ndarray:
    """Train the adapters in place and return the loss before every step.

    Parameters
    ----------
    adapted : peft.PeftModel
        What `with_lora` gave.
    tokens : Tensor, shape (T,), int64
        Text to train on, of at least one window.
    plan : RecoveryPlan
        Steps, windows and rates.
    generator : torch.Generator
        Source of the windows.

    Returns
    -------
    losses : ndarray, shape (steps,), float64
        Nats a token, each on the windows of its step.

    Raises
    ------
    ValueError
        If `tokens` is not one text of at least a window, or a loss is not finite.

    References
    ----------
    Book {eq}`eq-recovery-loss` and {eq}`eq-recovery-schedule`.
    """
    _check_text(tokens, plan)
    weights = [p for p in adapted.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, weight_decay=0.0)
    losses = []
    for rate in tqdm(learning_rates(plan), "recovery"):
        batch = draw_windows(tokens, plan.batch_size, plan.window, generator=generator)
        loss = next_token_loss(adapted, batch)
        losses.append(_finite(loss.item(), len(losses)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, plan.max_norm)  # before it is used
        optimiser.param_groups[0]["lr"] = float(rate)
        optimiser.step()
        optimiser.zero_grad()
    return np.array(losses)


# %%
def _check_text(tokens, plan) -> None:
    """Raise unless `tokens` is one text that holds a window."""
    if tokens.ndim != 1 or tokens.is_floating_point() or len(tokens) < plan.window:
        raise ValueError(
            f"tokens is {tokens.dtype} of shape {tuple(tokens.shape)}; give one text "
            f"of {plan.window} token numbers or more, or a smaller window"
        )


# %%
def _finite(loss: float, step: int) -> float:
    """`loss`, if training can go on from it."""
    if not math.isfinite(loss):
        raise ValueError(f"loss is {loss} at step {step}; lower learning_rate")
    return loss


# %%
class Recovered(NamedTuple):
    """A model after recovery.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        Plain model with the adapters merged; shares nothing with the one before.
    losses : ndarray, shape (steps,), float64
        Nats a token, before every step.
    n_trained : int
        Number of trained parameters.
    """

    model: object
    losses: np.ndarray
    n_trained: int


# %%
def recover(
    model,
    tokens: torch.Tensor,
    plan: RecoveryPlan | None = None,
    *,
    generator: torch.Generator,
) -> Recovered:
    """Model after fine-tuning with low-rank adapters on a text.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Pruned model of a supported family; it is not changed.
    tokens : Tensor, shape (T,), int64
        Text to train on; never the text that judges the result.
    plan : RecoveryPlan, optional
        By default `RecoveryPlan()`.
    generator : torch.Generator
        Source of the adapters' start and of the windows.

    Returns
    -------
    recovered : Recovered

    Raises
    ------
    ValueError
        If the family is not supported, `tokens` does not hold a window, or a loss is
        not finite.
    ImportError
        If peft is not installed.

    References
    ----------
    Book {eq}`eq-recovery-lora`; {cite}`hu2021lora`.
    """
    plan = plan or RecoveryPlan()
    _check_text(tokens, plan)
    adapted = with_lora(model, plan, generator=generator)
    n_trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    losses = fit_lora_(adapted, tokens, plan, generator=generator)
    return Recovered(merged(adapted), losses, n_trained)


# %%
def window_nats(model, tokens: torch.Tensor, window: int, n: int) -> np.ndarray:
    """Mean information of a token in each of the first windows of a text.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokens : Tensor, shape (T,), int64
        The text.
    window, n : int
        Tokens in a window, and number of windows.

    Returns
    -------
    nats : ndarray, shape (n,), float64
        Nats a token; the exponential of their mean is the perplexity.

    Raises
    ------
    ValueError
        If the text has fewer than n windows.
    """
    if len(tokens) < window * n:
        raise ValueError(
            f"tokens holds {len(tokens)} tokens; {n} windows of {window} need more"
        )
    rows = tokens[: window * n].view(n, 1, window)
    return np.array([float(token_nats(model, row).mean()) for row in rows])


# %%
class Change(NamedTuple):
    """Mean of paired differences, with a 95 % interval of Student's t."""

    mean: float
    low: float
    high: float


# %%
def paired_change(before: Sequence[float], after: Sequence[float]) -> Change:
    """Mean of `after - before` over the same items, with its 95 % interval.

    Parameters
    ----------
    before, after : sequence of n floats
        Paired values, such as nats of the same windows; at least two.

    Returns
    -------
    change : Change
        In the unit of the values.

    Raises
    ------
    ValueError
        If there are fewer than two pairs, or not as many on each side.
    """
    if len(before) != len(after) or len(before) < 2:
        raise ValueError(
            f"before and after hold {len(before)} and {len(after)} values; give pairs, "
            "at least two"
        )
    d = np.asarray(after) - np.asarray(before)
    half = float(stats.t.ppf(0.975, len(d) - 1)) * standard_error(d)
    return Change(float(d.mean()), float(d.mean()) - half, float(d.mean()) + half)


# %%
def answered(correct: dict[str, str]) -> dict[str, TaskResult]:
    """Results of tasks from stored answers, a 1 for each right and a 0 for a wrong.

    Parameters
    ----------
    correct : dict of str to str
        For a key of `TASK_CHANCE` its questions' outcomes, such as `"0110"`.

    Returns
    -------
    results : dict of str to TaskResult
        By the rule `acc`.
    """
    results = {}
    for name, digits in correct.items():
        right = np.array([digit == "1" for digit in digits])
        outcome = PerQuestion(right, None, [])
        shared = (float(right.mean()), None, standard_error(right), None, len(right))
        results[name] = TaskResult(*shared, TASK_CHANCE[name], outcome)
    return results
