"""The pipeline on tiny random models of several families, and on the real one."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, Qwen2Config

from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.folders import load_pruned, save_pruned
from prunefair.pruning.perplexity import (
    kl_to_dense,
    perplexity,
    random_llama,
    wikitext_tokens,
)
from prunefair.pruning.row_policy import RowPolicy, load_policy, save_policy
from prunefair.pruning.spectral_pruning import (
    Damage,
    damage,
    lost_outputs,
    output_energies,
    plot_damage,
    plot_reuse,
    plot_shares,
    prune_spectral,
    rows_by_scores,
    run_values,
    selection_distances,
    spread_ratios,
)
from prunefair.pruning.surgery import (
    ADAPTERS,
    adapter_for,
    mask_ffn_,
    prune_rows,
    row_matrices,
    select_rows,
    sharing_copy,
    tiny_model,
)
from prunefair.widths import WIDTH_FIELDS


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


SHAPE = {
    "vocab_size": 19,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, intermediate_size=20),
    "qwen2": Qwen2Config(**SHAPE, intermediate_size=20, num_key_value_heads=1),
    "opt": OPTConfig(**SHAPE, ffn_dim=20, word_embed_proj_dim=8),
}
POLICY = RowPolicy(torch.tensor([1.0, 0.5, -0.25, 0.2, -0.1, 0.3]))


@pytest.fixture(params=CONFIGS)
def dense(request):
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    for weight in model.parameters():
        weight.data.normal_(0, 0.3, generator=seeded(len(weight.shape)))
    return model


@pytest.fixture(scope="module")
def llama():
    return random_llama(vocabulary=19, generator=seeded(3))


def ks_by_numpy(whole, part):
    values = (
        np.linalg.svd(x.double().numpy(), compute_uv=False) for x in (whole, part)
    )
    return stats.ks_2samp(*values).statistic


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# the pipeline


def test_prune_equals_masking_the_rows_that_the_policy_gives_up(dense):
    before = state(dense)
    pruned = prune_spectral(dense, 0.3, policy=POLICY, generator=seeded())
    tokens = torch.randint(19, (2, 7), generator=seeded())
    masked = mask_ffn_(AutoModelForCausalLM.from_config(dense.config).eval(), [[0]] * 3)
    masked.load_state_dict(before)
    mask_ffn_(masked, pruned.kept)
    with torch.no_grad():
        torch.testing.assert_close(pruned.model(tokens).logits, masked(tokens).logits)
        different = dense(tokens).logits - masked(tokens).logits
    assert different.abs().max() > 1e-3
    assert [len(rows) for rows in pruned.kept] == [14] * 3
    after = dense.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_prune_leaves_the_dense_configuration_alone_and_shares_what_it_can(dense):
    pruned = prune_spectral(dense, 0.5, policy=POLICY, generator=seeded()).model
    width = WIDTH_FIELDS[dense.config.model_type]
    assert (getattr(dense.config, width), getattr(pruned.config, width)) == (20, 10)
    own = dict(dense.named_parameters())
    shared = [n for n, p in pruned.named_parameters() if p is own[n]]
    sliced = [n for n, p in pruned.named_parameters() if p.shape != own[n].shape]
    assert set(shared) | set(sliced) >= {n for n in own if "bias" not in n}
    assert pruned.get_output_embeddings().weight is dense.get_output_embeddings().weight


def test_without_a_policy_one_is_trained_and_lowers_the_distance():
    model = random_llama(vocabulary=5, hidden=16, generator=seeded(1))
    for W in row_matrices(model):  # rows of very different length
        W.mul_(torch.linspace(0.05, 2, len(W), dtype=W.dtype)[:, None])
    pruned = prune_spectral(model, 0.4, episodes=6, draws=4, generator=seeded(2))
    assert len(pruned.history) == 6
    assert pruned.seconds_total >= pruned.seconds_policy > 0
    random = [
        prune_spectral(
            model, 0.4, policy=RowPolicy(), sample=True, generator=seeded(s)
        ).ks_mean
        for s in range(10)
    ]
    assert pruned.ks_mean < np.mean(random)


def test_the_reported_distance_is_the_mean_over_layers(dense):
    pruned = prune_spectral(dense, [0.1, 0.1, 0.6], policy=POLICY, generator=seeded())
    pairs = zip(row_matrices(dense), pruned.kept, strict=True)
    ks = [ks_by_numpy(W, W[rows]) for W, rows in pairs]
    assert np.median(ks) < np.mean(ks) < max(ks)
    assert pruned.ks_mean == pytest.approx(np.mean(ks))


def test_the_same_seed_gives_the_same_model_and_another_seed_another_draw(dense):
    runs = [
        prune_spectral(dense, 0.3, policy=RowPolicy(), sample=True, generator=seeded(s))
        for s in (0, 0, 1)
    ]
    same = [torch.equal(a, b) for a, b in zip(runs[0].kept, runs[1].kept, strict=True)]
    other = [torch.equal(a, b) for a, b in zip(runs[0].kept, runs[2].kept, strict=True)]
    assert all(same) and not all(other)
    trained = [
        prune_spectral(dense, 0.3, episodes=2, generator=seeded(5)) for _ in range(2)
    ]
    assert torch.equal(trained[0].policy.weights, trained[1].policy.weights)


def test_keeping_the_top_needs_no_randomness_and_a_draw_does(dense):
    generator = seeded(4)
    start = generator.get_state()
    first = prune_spectral(dense, 0.3, policy=POLICY, generator=generator)
    assert torch.equal(generator.get_state(), start)
    prune_spectral(dense, 0.3, policy=POLICY, sample=True, generator=generator)
    assert not torch.equal(generator.get_state(), start)
    assert first.history == [] and first.seconds_policy == 0


def test_drawing_again_gives_another_model_as_in_the_released_code(dense):
    """Deviation: the released code draws whenever it prunes."""
    generator = seeded(6)
    draws = [
        prune_spectral(dense, 0.5, policy=POLICY, sample=True, generator=generator).kept
        for _ in range(2)
    ]
    assert any(not torch.equal(a, b) for a, b in zip(*draws, strict=True))
    top = [
        prune_spectral(dense, 0.5, policy=POLICY, generator=generator).kept
        for _ in range(2)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*top, strict=True))


def test_ratio_zero_returns_the_dense_model(dense):
    pruned = prune_spectral(dense, 0, policy=POLICY, generator=seeded())
    tokens = torch.randint(19, (1, 6), generator=seeded())
    with torch.no_grad():
        assert torch.equal(pruned.model(tokens).logits, dense(tokens).logits)
    assert pruned.ks_mean == 0
    assert all(torch.equal(rows, torch.arange(20)) for rows in pruned.kept)


def test_prune_rejects_what_cannot_be_pruned(dense):
    for bad in (1.0, -0.1, 0.99):
        with pytest.raises(ValueError, match="ratio"):
            prune_spectral(dense, bad, policy=POLICY, generator=seeded())
    with pytest.raises(ValueError, match="ratio has 2 entries and the model 3 layers"):
        prune_spectral(dense, [0.1, 0.2], policy=POLICY, generator=seeded())
    strange = torch.nn.Linear(2, 2)
    strange.config = type("Config", (), {"model_type": "strange"})()
    with pytest.raises(ValueError, match="family 'strange'"):
        prune_spectral(strange, 0.3, generator=seeded())
    with pytest.raises(ValueError, match="kept"):
        prune_rows(dense, [torch.arange(5)])


def test_a_ratio_that_one_layer_cannot_bear_is_refused_before_training(dense):
    generator = seeded()
    start = generator.get_state()
    with pytest.raises(ValueError, match="ratio"):
        prune_spectral(dense, [0.1, 0.2, 1.5], generator=generator)
    assert torch.equal(generator.get_state(), start)


# reuse


@given(st.integers(0, 2**31), st.sampled_from([None, 7]))
def test_selections_are_nested_in_the_ratio(seed, noise):
    W = torch.randn(24, 6, generator=seeded(seed % 1000))
    kept = [
        set(select_rows([W], POLICY, r, generator=noise and seeded(noise))[0].tolist())
        for r in (0.9, 0.5, 0.25, 0.1, 0)
    ]
    assert all(small < large for small, large in zip(kept, kept[1:], strict=False))


def test_a_policy_without_weights_chooses_as_equal_scores_do():
    matrices = [torch.randn(20, 6, generator=seeded(s)) for s in range(2)]
    equal = [torch.zeros(20) for _ in matrices]
    found = select_rows(matrices, RowPolicy(), 0.3, generator=seeded(1))
    expected = rows_by_scores(equal, 0.3, generator=seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_scoring_again_after_a_cut_breaks_the_nesting():
    broken = 0
    for seed in range(20):
        W = torch.randn(24, 6, generator=seeded(seed))
        once = set(POLICY.select(W, 8).tolist())
        half = POLICY.select(W, 16)
        broken += once != set(half[POLICY.select(W[half], 8)].tolist())
    assert broken > 0


def test_a_saved_policy_prunes_alike_at_every_ratio(dense, tmp_path):
    trained = prune_spectral(dense, 0.4, episodes=2, generator=seeded()).policy
    save_policy(trained, tmp_path / "policy.safetensors")
    loaded = load_policy(tmp_path / "policy.safetensors")
    for ratio in (0.1, 0.2, 0.3, 0.4):
        kept = [
            prune_spectral(dense, ratio, policy=p, generator=seeded()).kept
            for p in (trained, loaded)
        ]
        assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
        assert len(kept[0][0]) == rows_to_keep(20, ratio)


def test_distances_equal_scipys_on_singular_values_of_numpy():
    matrices = [torch.randn(20, 6, generator=seeded(s)) for s in range(3)]
    kept = select_rows(matrices, POLICY, [0.1, 0.3, 0.6])
    found = selection_distances(matrices, kept)
    for W, rows, d in zip(matrices, kept, found, strict=True):
        assert d == pytest.approx(ks_by_numpy(W, W[rows]))


def test_distances_reject_selections_that_do_not_fit():
    matrices = [torch.randn(20, 6, generator=seeded(s)) for s in range(2)]
    rows = torch.arange(3)
    with pytest.raises(ValueError, match="kept has 1 entries and there are 2 matrices"):
        selection_distances(matrices, [rows])
    with pytest.raises(ValueError, match="argument 3 is shorter"):
        selection_distances(matrices, [rows, rows], [torch.ones(6)])
    with pytest.raises(ValueError, match="kept"):
        selection_distances(matrices, [rows, rows + 18])


def test_stored_runs_are_read_by_seed_and_column():
    runs = {f"0.1 / {s} / {c}": {"ks": 10 * s + c} for s in range(2) for c in (1, 2)}
    values = run_values(runs, 0.1, [2, 1], "ks", seeds=2)
    assert values.tolist() == [[2, 1], [12, 11]]
    with pytest.raises(KeyError, match="0.1 / 2 / 2"):
        run_values(runs, 0.1, [2], "ks")
    with pytest.raises(KeyError, match="kl"):
        run_values(runs, 0.1, [2], "kl", seeds=2)


# ratios of their own


@pytest.mark.parametrize("ratio", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_every_real_number_is_a_ratio(ratio, dense):
    pruned = prune_spectral(dense, ratio, policy=POLICY, generator=seeded())
    assert [len(rows) for rows in pruned.kept] == [10] * 3
    trained = prune_spectral(dense, ratio, episodes=1, generator=seeded())
    same = prune_spectral(dense, 0.5, episodes=1, generator=seeded())
    assert torch.equal(trained.policy.weights, same.policy.weights)
    several = np.array([0.25, 0.5, 0.5], dtype=np.float32)
    scores = [torch.arange(20.0)] * 3
    assert [len(rows) for rows in rows_by_scores(scores, several)] == [15, 10, 10]


@given(st.integers(1, 40), st.floats(0, 0.9), st.floats(0, 0.9))
@example(1, 0.0, 0.4)
def test_spread_ratios_rise_evenly_with_the_mean_of_their_ends(n, low, high):
    ratios = np.array(spread_ratios(n, low, high))
    assert len(ratios) == n
    assert ratios.mean() == pytest.approx((low + high) / 2, abs=1e-8)
    steps = np.diff(ratios)
    np.testing.assert_allclose(steps, (high - low) / max(n - 1, 1), atol=1e-8)


def test_spread_ratios_reject_bad_arguments():
    with pytest.raises(ValueError, match="low, high are 0, 1"):
        spread_ratios(4, 0, 1)
    with pytest.raises(ValueError, match="n_layers is 0"):
        spread_ratios(0, 0, 0.4)


def test_a_model_with_unequal_widths_is_saved_and_reloaded(dense, tmp_path):
    plan = spread_ratios(3, 0.0, 0.4)
    pruned = prune_spectral(dense, plan, policy=POLICY, generator=seeded())
    assert [len(rows) for rows in pruned.kept] == [20, 16, 12]
    folder = save_pruned(pruned.model, None, tmp_path / "out", pruned.kept)
    loaded = load_pruned(folder)
    tokens = torch.randint(19, (2, 6), generator=seeded())
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, pruned.model(tokens).logits)


def test_the_policy_is_trained_at_the_mean_of_the_ratios(dense):
    plan = [0.2, 0.3, 0.4]
    uneven = prune_spectral(dense, plan, episodes=2, generator=seeded(1)).policy
    even = prune_spectral(dense, 0.3, episodes=2, generator=seeded(1)).policy
    assert torch.equal(uneven.weights, even.weights)


# what it costs


def test_sharing_copy_shares_tensors_but_not_structure(llama):
    twin = sharing_copy(llama)
    assert twin is not llama and twin.config is not llama.config
    pairs = zip(twin.parameters(), llama.parameters(), strict=True)
    assert all(a is b for a, b in pairs)
    old = llama.model.layers[0].mlp.up_proj.weight
    twin.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(old.detach()[:3])
    assert llama.model.layers[0].mlp.up_proj.weight is old


def test_damage_reports_what_its_parts_report(llama):
    text = torch.randint(19, (30,), generator=seeded())
    kept = select_rows(row_matrices(llama), POLICY, 0.5)
    cost = damage(llama, kept, text, text.view(3, 10), window=10)
    smaller = prune_rows(llama, kept)
    assert cost.perplexity == perplexity(smaller, text, window=10)
    assert cost.kl == kl_to_dense(llama, smaller, text.view(3, 10))
    assert cost.ks == selection_distances(row_matrices(llama), kept).mean()


def test_energies_predict_the_cost_of_removing_one_neuron(llama):
    tokens = torch.randint(19, (4, 9), generator=seeded())
    energies = output_energies(llama, tokens)
    assert [e.shape for e in energies] == [(16,), (16,)]
    outputs = []

    def record(module, inputs, output):
        outputs.append(output.detach())

    kept = [
        torch.arange(1, 16),
        torch.arange(16),
    ]  # without neuron 0 of the first layer
    for model in (llama, prune_rows(llama, kept)):
        hook = model.model.layers[0].mlp.register_forward_hook(record)
        with torch.no_grad():
            model(tokens)
        hook.remove()
    cost = (outputs[0] - outputs[1]).square().sum(-1).mean()
    assert float(energies[0][0]) == pytest.approx(float(cost), rel=1e-6)


def read_text(family):
    """A tiny model, a text, its last linear maps, and what these were fed, (18, 12)."""
    generator = torch.Generator().manual_seed(1)
    model = tiny_model(family, generator=generator)
    tokens = torch.randint(3, 32, (2, 9), generator=generator)
    adapter, hidden = adapter_for(model), []
    linears = [adapter.linears(block)[-1] for block in adapter.blocks(model)]
    hooks = [
        linear.register_forward_hook(
            lambda _, args, out: hidden.append(args[0].detach().flatten(0, -2).double())
        )
        for linear in linears
    ]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return model, tokens, linears, hidden


@pytest.mark.parametrize("family", ADAPTERS)
def test_the_output_that_is_lost_is_what_masked_neurons_wrote(family):
    model, tokens, linears, hidden = read_text(family)
    generator = torch.Generator().manual_seed(2)
    kept = [torch.randperm(12, generator=generator)[:8] for _ in linears]
    found = lost_outputs(model, tokens, kept)
    for linear, h, rows, share in zip(linears, hidden, kept, found, strict=True):
        D, masked = linear.weight.detach().double(), h.clone()
        masked[:, rows] = 0
        shares = [
            float((D @ part).square().sum() / (D @ whole).square().sum())
            for part, whole in zip(masked, h, strict=True)
        ]
        assert float(share) == pytest.approx(np.mean(shares), rel=1e-9)
    everything = [torch.arange(12) for _ in linears]
    assert not lost_outputs(model, tokens, everything).any()
    with pytest.raises(ValueError, match="kept has 1 selections"):
        lost_outputs(model, tokens, everything[:1])


def test_damage_and_energies_reject_what_they_cannot_judge(llama):
    text = torch.randint(19, (30,), generator=seeded())
    kept = [torch.arange(5)] * 2
    with pytest.raises(ValueError, match="kept has 1 entries"):
        damage(llama, kept[:1], text, text.view(3, 10))
    with pytest.raises(ValueError, match="tokens"):
        damage(llama, kept, text[:1], text.view(3, 10))
    strange = torch.nn.Linear(2, 2)
    strange.config = type("Config", (), {"model_type": "strange"})()
    for call in (damage, output_energies):
        arguments = (kept, text, text) if call is damage else (text,)
        with pytest.raises(ValueError, match="family 'strange'"):
            call(strange, *arguments)


def test_energies_leave_no_hook_behind(dense):
    tokens = torch.randint(19, (1, 5), generator=seeded())
    energies = output_energies(dense, tokens)
    assert len(energies) == 3 and all((e >= 0).all() for e in energies)
    adapter = adapter_for(dense)
    for block in adapter.blocks(dense):
        assert not adapter.linears(block)[-1]._forward_pre_hooks


def test_the_figures_draw_what_they_are_given():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    table = {"random": np.array([[0.1, 0.2], [0.3, 0.4]])}
    assert plot_reuse(ax, (0.1, 0.2), table, "distance") is ax
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.2, 0.3])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [10, 20])
    ax = Figure().add_subplot()
    assert plot_shares(ax, {"a": [0.5, 0.6]}) is ax
    assert len(ax.lines) == 1
    ax = Figure().add_subplot()
    assert plot_damage(ax, {"a": Damage(0.1, 50.0, 1.0)}, 20.0) is ax
    assert ax.get_yscale() == "log"


# the small real model


def test_on_the_real_model_the_distance_falls_and_the_model_is_no_better_than_random():
    model = load_model("smollm2")
    matrices = row_matrices(model)
    trained = RowPolicy(torch.tensor([1.8, 1.9, -0.75, 1.3, 1.3, 1.6]))  # at 30 %
    equal = [torch.zeros(len(W)) for W in matrices]
    chosen = select_rows(matrices, trained, 0.3)
    drawn = [rows_by_scores(equal, 0.3, generator=seeded(n)) for n in range(3)]
    layers = range(0, 30, 10)
    some = [matrices[i] for i in layers]
    ks, *others = (
        selection_distances(some, [kept[i] for i in layers])
        for kept in (chosen, *drawn)
    )
    assert all((ks < other).all() for other in others)
    text = wikitext_tokens(load_tokenizer("smollm2"))[:80]
    found, *others = (
        perplexity(prune_rows(model, kept), text) for kept in (chosen, *drawn)
    )
    assert found > min(others) > 10 * perplexity(model, text)
