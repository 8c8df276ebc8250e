"""Functional pruning: the pipeline from a model to a smaller one."""

import pytest
import torch

from prunefair.pruning import functional_pruning
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.folders import load_pruned, save_pruned
from prunefair.pruning.functional_policy import fisher_costs, uneven_ratios
from prunefair.pruning.functional_pruning import (
    SelfStatistics,
    needs_costs,
    prune_functional,
    self_statistics,
)
from prunefair.pruning.perplexity import (
    self_sample,
)
from prunefair.pruning.refit import find_ridge, mean_moments, refit_
from prunefair.pruning.selections import make_selection
from prunefair.pruning.self_moments import down_projections, hidden_moments
from prunefair.pruning.surgery import prune_rows, slice_ffn_, tiny_model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_statistics_are_moments_of_the_halves_and_costs_of_all_texts():
    model = tiny_model("llama", generator=seeded(7))
    found = self_statistics(model, generator=seeded(4), n_texts=5, length=6)
    texts = self_sample(model, 5, 6, generator=seeded(4))
    alone = self_statistics(
        model, generator=seeded(4), n_texts=5, length=6, costs=False
    )
    assert alone.fisher is None
    for half, same, part in zip(
        found.halves, alone.halves, (texts[:3], texts[3:]), strict=True
    ):
        expected = hidden_moments(model, part)
        assert half.tokens == same.tokens == part.numel()
        assert all(map(torch.equal, half.second, expected.second))
        assert all(map(torch.equal, same.second, expected.second))
    for costs, expected in zip(found.fisher, fisher_costs(model, texts), strict=True):
        torch.testing.assert_close(costs, expected, rtol=1e-5, atol=0)
    for bad in ({"n_texts": 1}, {"length": 1}):
        with pytest.raises(ValueError, match="both must be at least 2"):
            self_statistics(model, generator=seeded(4), **bad)


@pytest.fixture(scope="module")
def known():
    model = tiny_model("llama", generator=seeded(7))
    return model, self_statistics(model, generator=seeded(4), n_texts=8, length=8)


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 19)[None]).logits


def test_nothing_removed_is_nothing_changed(known):
    model, statistics = known
    same = prune_functional(model, 0, generator=seeded(), statistics=statistics)
    assert torch.equal(logits(same.model), logits(model))
    assert (same.ks == 0).all()


def test_the_pipeline_removes_the_share_and_fits_with_the_chosen_ridge(known):
    model, statistics = known
    before = logits(model)
    options = {"statistics": statistics, "generator": seeded(2)}
    found = prune_functional(model, 0.25, **options)
    widths = [len(rows) for rows in found.kept]
    assert sum(widths) == 2 * 9 and len(found.history) == 8
    shares = uneven_ratios(statistics.fisher, 0.25)
    assert widths == [rows_to_keep(12, share) for share in shares]
    assert torch.equal(logits(model), before)
    options["policy"] = found.policy
    even = prune_functional(model, 0.25, even=True, **options)
    assert [len(rows) for rows in even.kept] == [9, 9] and even.history == []
    plain = prune_functional(model, 0.25, refit=False, **options)
    sliced = slice_ffn_(prune_rows(model, [torch.arange(12)] * 2), found.kept)
    assert torch.equal(logits(plain.model), logits(sliced))
    weights = [x.weight.detach() for x in down_projections(model)]
    biased = down_projections(model)[0].bias is not None
    ridge, _ = find_ridge(weights, statistics.halves, found.kept, biased=biased)
    moments = mean_moments(statistics.halves)
    refit_(sliced, model, found.kept, moments, ridge=ridge)
    assert torch.equal(logits(found.model), logits(sliced))
    other = 2 * ridge
    given = prune_functional(model, 0.25, ridge=other, **options)
    assert not torch.equal(logits(given.model), logits(sliced))


@pytest.mark.parametrize("even", [True, False])
def test_widths_are_multiples_and_what_is_kept_is_refitted_all_the_same(known, even):
    model, statistics = known
    options = {"statistics": statistics, "generator": seeded(2), "episodes": 1}
    found = prune_functional(model, 0.3, even=even, multiple=4, **options)
    widths = [len(rows) for rows in found.kept]
    assert sum(widths) == 16 and not any(width % 4 for width in widths)
    assert found.ridge > 0
    again = prune_functional(model, 0.3, even=even, policy=found.policy, **options)
    assert sum(len(rows) for rows in again.kept) == 16  # 8 and 8, in singles
    plain = prune_functional(model, 0, even=even, multiple=5, **options)
    assert [len(rows) for rows in plain.kept] == [12, 12]
    with pytest.raises(ValueError, match="multiple is 13; give a whole number between"):
        prune_functional(model, 0.3, even=even, multiple=13, **options)
    assert prune_functional(model, 0.3, refit=False, **options).ridge is None


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_refitted_model_comes_back_from_its_folder(family, tmp_path):
    from transformers import AutoModelForCausalLM

    model = tiny_model(family, generator=seeded(7))
    statistics = SelfStatistics(
        *self_statistics(model, generator=seeded(4), n_texts=6, length=8)
    )
    statistics.fisher[0].mul_(100)  # so that the widths differ
    options = {"statistics": statistics, "generator": seeded(2), "episodes": 1}
    for even in (False, True):
        found = prune_functional(model, 0.3, even=even, **options)
        assert (len(set(map(len, found.kept))) == 1) == even
        folder = save_pruned(found.model, None, tmp_path / str(even), found.kept)
        load = AutoModelForCausalLM.from_pretrained if even else load_pruned
        assert torch.equal(logits(load(folder)), logits(found.model))


def test_energies_with_equal_widths_need_no_way_back(known, monkeypatch):
    model, statistics = known
    options = {"choice": "energy", "even": True}
    whole = prune_functional(
        model, 0.3, generator=seeded(), statistics=statistics, **options
    )
    monkeypatch.setattr(functional_pruning, "fisher_sums", pytest.fail)
    size = {"n_texts": 8, "length": 8, "generator": seeded(4)}
    alone = self_statistics(model, costs=needs_costs("energy", True), **size)
    found = prune_functional(
        model, 0.3, generator=seeded(), statistics=alone, **options
    )
    assert torch.equal(logits(found.model), logits(whole.model))
    assert (found.ks == whole.ks).all() and found.ridge == whole.ridge
    prune_functional(model, 0.3, generator=seeded(4), n_texts=8, **options)
    for other in ({"choice": "policy"}, {"even": False}):
        with pytest.raises(ValueError, match="layers have no Fisher costs"):
            prune_functional(
                model, 0.3, generator=seeded(), statistics=alone, **options | other
            )
    make_selection("energy", model, generator=seeded(4))
    with pytest.raises(ValueError, match="statistics have no Fisher costs"):
        make_selection("functional", model, generator=seeded(4), statistics=alone)


def test_a_bad_ratio_is_refused_before_anything_is_sampled(known, monkeypatch):
    model, _ = known
    monkeypatch.setattr(functional_pruning, "self_sample", None)
    for ratio in (-0.1, 1.0):
        with pytest.raises(ValueError, match="ratio"):
            prune_functional(model, ratio, generator=seeded())


def test_a_block_that_is_dead_on_its_texts_is_refused(known):
    model, (halves, fisher, *_) = known
    dead = [half._replace(second=[0 * H for H in half.second]) for half in halves]
    statistics = SelfStatistics(tuple(dead), fisher)
    with pytest.raises(ValueError, match=r"H has a mean square of 0\.0"):
        prune_functional(model, 0.3, generator=seeded(), statistics=statistics)
