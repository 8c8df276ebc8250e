"""What every instrument of the package that runs a model does to it."""

import itertools

import pytest
import torch

from prunefair.models import load_tokenizer
from prunefair.pruning.anatomy import counted_flops
from prunefair.pruning.functional_policy import fisher_costs
from prunefair.pruning.functional_pruning import prune_functional
from prunefair.pruning.perplexity import (
    kl_per_position,
    perplexity,
    self_sample,
    token_nats,
)
from prunefair.pruning.recovery import window_nats
from prunefair.pruning.self_moments import hidden_moments
from prunefair.pruning.spectral_pruning import lost_outputs, output_energies
from prunefair.pruning.surgery import tiny_model
from prunefair.pruning.throughput import throughput
from prunefair.pruning.zero_shot import (
    ChoiceTokens,
    choice_log_likelihoods,
    common_stem,
    zero_shot,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("smollm2")


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_a_text_longer_than_the_context_is_refused(family):
    """OPT has no more positions; LLaMA would go on without a word."""
    model = tiny_model(family, generator=seeded(), max_position_embeddings=8)
    texts = torch.randint(32, (2, 12), generator=seeded())
    message = r"a text of 1\d tokens is longer than the 8 of the model's context"
    for measure in (
        lambda: token_nats(model, texts),
        lambda: kl_per_position(model, model, texts),
        lambda: self_sample(model, 2, 12, generator=seeded()),
        lambda: throughput(model, texts[:, :4], 8),
        lambda: hidden_moments(model, texts),
        lambda: output_energies(model, texts),
        lambda: fisher_costs(model, texts),
    ):
        with pytest.raises(ValueError, match=message):
            measure()
    assert token_nats(model, texts[:, :9]).isfinite().all()  # the last is not read


def instruments(model, tokenizer):
    """Everything of the package that runs a model in order to measure it."""
    texts = torch.randint(32, (4, 12), generator=seeded())
    question = [ChoiceTokens([1, 2, 3, t, 5], 3) for t in (4, 6)]
    kept, ticks = [torch.arange(6)] * 2, itertools.count()
    policy = {"episodes": 1, "n_texts": 4, "even": True, "refit": True}
    return {
        "token_nats": lambda: token_nats(model, texts),
        "perplexity": lambda: perplexity(model, texts.flatten(), window=9),
        "window_nats": lambda: window_nats(model, texts.flatten(), 9, 3),
        "kl_per_position": lambda: kl_per_position(model, model, texts),
        "self_sample": lambda: self_sample(model, 3, 9, generator=seeded()),
        "choices": lambda: choice_log_likelihoods(model, [question]),
        "stem": lambda: common_stem(model, [question] * 2).cache.layers[1].keys,
        "zero_shot": lambda: zero_shot(model, tokenizer, ["piqa"], limit=2),
        "throughput": lambda: throughput(model, texts, 2, clock=ticks.__next__),
        "flops": lambda: counted_flops(model, 5),
        "moments": lambda: hidden_moments(model, texts).second,
        "fisher": lambda: fisher_costs(model, texts),
        "energies": lambda: output_energies(model, texts),
        "lost": lambda: lost_outputs(model, texts, kept),
        "functional": lambda: prune_functional(
            model, 0.5, generator=seeded(), **policy
        ).kept,
    }  # fmt: skip


def test_every_instrument_measures_in_evaluation_mode_and_restores_each_module(
    tokenizer,
):
    model = tiny_model(
        "gpt_neox", generator=seeded(), hidden_dropout=0.5, vocab_size=len(tokenizer)
    )
    quiet = {n: f() for n, f in instruments(model, tokenizer).items()}
    model.train()
    model.gpt_neox.layers[1].eval()  # a module whose parts differ
    modes = [module.training for module in model.modules()]
    for name, measure in instruments(model, tokenizer).items():
        found = measure()
        assert modes == [module.training for module in model.modules()], name
        assert repr(found) == repr(quiet[name]), name
    with pytest.raises(ValueError, match="longer than the 64"):
        token_nats(model, torch.zeros(1, 99, dtype=torch.int64))
    assert modes == [module.training for module in model.modules()]
