"""Moments against hidden vectors computed by hand, errors against brute force."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.linalg import sqrtm

from prunefair.pruning import self_moments
from prunefair.pruning.self_moments import (
    Moments,
    down_projections,
    error_of_mean,
    functional_spectrum,
    hidden_moments,
    load_moments,
    lost_energy,
    participation_ratio,
    removed_neurons,
    save_moments,
)
from prunefair.pruning.spectral_pruning import output_energies
from prunefair.pruning.surgery import ADAPTERS, mask_ffn_, tiny_model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(family, seed=0, **fields):
    model = tiny_model(family, generator=seeded(seed), dtype=torch.float64, **fields)
    texts = torch.randint(3, 32, (5, 7), generator=seeded(seed + 1))
    return model, texts


def problem(seed, m=9, d=5, rank=None):
    """D, and H of `rank`, far from isotropic."""
    D = torch.randn(d, m, generator=seeded(seed), dtype=torch.float64)
    h = torch.randn(rank or m, m, generator=seeded(seed + 1), dtype=torch.float64)
    h = h * torch.logspace(-1, 1, m, dtype=torch.float64) + 0.3
    return D, h.T @ h


# moments


def block_inputs(model, text, norms):
    """What the norm before each block hands on, for one text."""
    inputs = []
    hooks = [n.register_forward_hook(lambda m, a, y: inputs.append(y)) for n in norms]
    with torch.no_grad():
        model(text[None])
    for hook in hooks:
        hook.remove()
    return [x.reshape(len(text), -1) for x in inputs]


def llama_hidden(model, text):
    """Hidden vectors of the gated blocks of a LLaMA, here with biases."""
    layers = model.model.layers
    inputs = block_inputs(model, text, [x.post_attention_layernorm for x in layers])
    for z, mlp in zip(inputs, [layer.mlp for layer in layers], strict=True):
        gate = z @ mlp.gate_proj.weight.T + mlp.gate_proj.bias
        up = z @ mlp.up_proj.weight.T + mlp.up_proj.bias
        yield gate / (1 + torch.exp(-gate)) * up


def opt_hidden(model, text):
    """Hidden vectors of the plain blocks of an OPT."""
    layers = model.model.decoder.layers
    inputs = block_inputs(model, text, [x.final_layer_norm for x in layers])
    for z, layer in zip(inputs, layers, strict=True):
        yield torch.clamp(z @ layer.fc1.weight.T + layer.fc1.bias, min=0)


@pytest.mark.parametrize(
    ("family", "by_hand"), [("llama", llama_hidden), ("opt", opt_hidden)]
)
def test_moments_equal_a_loop_over_tokens_that_computes_h_by_hand(family, by_hand):
    model, texts = tiny(family)
    moments = hidden_moments(model, texts, batch_size=2, dtype=torch.float64)
    assert moments.tokens == 35
    for layer in range(2):
        H, mean = np.zeros((12, 12)), np.zeros(12)
        for text in texts:
            for h in list(by_hand(model, text))[layer].detach().numpy():
                H, mean = H + np.outer(h, h) / 35, mean + h / 35
        np.testing.assert_allclose(moments.second[layer], H, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(moments.mean[layer], mean, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", ADAPTERS)
def test_every_family_batch_size_and_pass_gives_the_same_moments(family):
    model, texts = tiny(family)
    whole = hidden_moments(model, texts, dtype=torch.float64)
    again = hidden_moments(model, texts, batch_size=1, dtype=torch.float64)
    passes = [hidden_moments(model, texts, layers=[l]) for l in (1, 0)]
    for layer in range(2):
        for part in (0, 1):
            torch.testing.assert_close(whole[part][layer], again[part][layer])
            single = passes[1 - layer][part][0]
            assert single.dtype == torch.float32
            exact = whole[part][layer]
            torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-5)
        D = down_projections(model)[layer].weight.detach()
        energies = whole.second[layer].diagonal() * D.square().sum(0)
        expected = output_energies(model, texts)[layer]
        torch.testing.assert_close(energies, expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 13), st.integers(1, 6))
def test_bands_of_a_moment_are_the_whole_product(band, tokens):
    h = torch.randn(tokens, 12, generator=seeded(band), dtype=torch.float64)
    one = self_moments.HiddenSum(12, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_moments, "BAND", band)
        one.add(h[: tokens // 2])
        one.add(h[tokens // 2 :])
        second, first = one.means(tokens)
    torch.testing.assert_close(second, h.T @ h / tokens)
    torch.testing.assert_close(first, h.mean(0))


def test_only_the_sums_stay_and_no_hook_is_left_even_after_an_error(monkeypatch):
    model, texts = tiny("llama")
    hidden_moments(model, texts)
    monkeypatch.setattr(model.lm_head, "forward", lambda hidden: hidden[99])
    with pytest.raises(IndexError):
        hidden_moments(model, texts)
    for linear in down_projections(model):
        assert not linear._forward_pre_hooks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_moments_on_a_gpu_equal_those_on_the_cpu():
    model, texts = tiny("llama")
    expected = hidden_moments(model, texts, dtype=torch.float64)
    found = hidden_moments(model.to("cuda"), texts, dtype=torch.float64)
    for ours, theirs in zip(found[:2], expected[:2]):
        for a, b in zip(ours, theirs):
            assert a.device.type == "cpu"
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_bad_input_of_the_moments_is_named():
    model, texts = tiny("llama")
    with pytest.raises(ValueError, match=r"tokens is torch.int64 of shape \(7,\)"):
        hidden_moments(model, texts[0])
    with pytest.raises(ValueError, match=r"tokens is torch.int64 of shape \(0, 7\)"):
        hidden_moments(model, texts[:0])
    with pytest.raises(ValueError, match="tokens holds 1[0-9]+, and the model has emb"):
        hidden_moments(model, texts + 100)
    with pytest.raises(ValueError, match="layers names 2; the model has layers 0 to 1"):
        hidden_moments(model, texts, layers=[0, 2])
    with pytest.raises(ValueError, match="dtype is torch.bfloat16"):
        hidden_moments(model, texts, dtype=torch.bfloat16)


# what a removed set costs


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_lost_energy_is_the_mean_squared_error_of_the_masked_block(family):
    model, texts = tiny(family, num_hidden_layers=1)
    (H,) = hidden_moments(model, texts, dtype=torch.float64).second
    linear, outputs = down_projections(model)[0], []
    linear.register_forward_hook(lambda m, x, y: outputs.append(y.flatten(0, -2)))
    kept, D = torch.tensor([0, 2, 3, 7, 8, 11]), linear.weight.detach().clone()
    with torch.no_grad():
        model(texts)
        model = mask_ffn_(model, [kept])
        model(texts)
    error = (outputs[0] - outputs[1]).square().sum(1).mean()
    found = lost_energy(D, H, removed_neurons(kept, 12))
    torch.testing.assert_close(found, error)
    assert abs(lost_energy(D, H, kept) - error) > 1e-3  # the wrong set is found out


def test_lost_energy_of_nothing_is_zero_and_of_all_the_energy_of_the_output():
    D, H = problem(3)
    assert lost_energy(D, H, []) == 0
    torch.testing.assert_close(lost_energy(D, H, range(9)), (D @ H @ D.T).trace())
    assert lost_energy(D.float(), H.float(), [1]).dtype == torch.float64
    shuffled = lost_energy(D, H, torch.tensor([5, 1, 3]))
    torch.testing.assert_close(shuffled, lost_energy(D, H, [1, 3, 5]))


def test_neurons_that_are_not_there_or_twice_are_refused():
    D, H = problem(3)
    for function in (lost_energy, functional_spectrum):
        with pytest.raises(ValueError, match="names a row outside"):
            function(D, H, [9])
        with pytest.raises(ValueError, match="names a row twice"):
            function(D, H, [2, 2])
    with pytest.raises(ValueError, match="at least one row"):
        functional_spectrum(D, H, [])


@pytest.mark.parametrize("kept", [None, [0, 3, 4, 5, 7, 8], [2, 6]])
def test_functional_spectrum_is_that_of_the_product_with_a_matrix_root(kept):
    D, H = problem(5)
    S = list(range(9)) if kept is None else kept
    root = sqrtm(H[S][:, S].numpy()).real
    expected = np.linalg.svd(D[:, S].numpy() @ root, compute_uv=False)
    found = functional_spectrum(D, H, kept)
    assert found.shape == (min(5, len(S)),) and found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    zeroed = D @ torch.diag(torch.isin(torch.arange(9), torch.tensor(S)).double())
    values = np.linalg.svd(zeroed.numpy() @ sqrtm(H.numpy()).real, compute_uv=False)
    np.testing.assert_allclose(values[: len(S)], found, rtol=1e-6)


def test_a_singular_or_slightly_indefinite_moment_gives_zeros_and_no_nan():
    D, H = problem(5, rank=2)
    for moment in (H, H - 1e-9 * torch.eye(9), H.float()):
        values = functional_spectrum(D, moment)
        assert torch.isfinite(values).all() and (values >= 0).all()
        assert (values[2:] < 1e-2 * values[1]).all()
    assert (functional_spectrum(D, 0 * H) == 0).all()


def interlaced(full, sliced, r):
    """Both inequalities of the theorem, by indices, for spectra of equal length."""
    d, slack = len(full), 1e-6 * float(full[0] + sliced[0])
    return all(
        full[i + r] <= sliced[i] + slack and sliced[i + r] <= full[i] + slack
        for i in range(d - r)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 9))
def test_spectra_interlace_by_r_on_both_sides_and_move_by_the_lost_energy(
    seed, r, rank
):
    D, H = problem(seed, rank=rank)
    S = torch.randperm(9, generator=seeded(seed))[r:]
    full = functional_spectrum(D, H)
    sliced = torch.zeros(5, dtype=torch.float64)
    sliced[: 9 - r] = functional_spectrum(D, H, S)
    assert interlaced(full, sliced, r)
    lost = lost_energy(D, H, removed_neurons(S, 9))
    assert (full - sliced).square().sum() <= lost * (1 + 1e-9) + 1e-6


def test_the_bound_is_by_r_not_less_and_one_side_alone_fails():
    D, H = torch.ones(1, 2), torch.tensor([[1.0, -1], [-1, 1]])
    grown = functional_spectrum(D, H, [0])
    assert grown == 1 > functional_spectrum(D, H) == 0  # unlike for deleted rows
    D = torch.eye(4, dtype=torch.float64)
    H = torch.diag(torch.tensor([16.0, 9, 4, 1]).double())
    full = functional_spectrum(D, H)
    sliced = torch.zeros(4, dtype=torch.float64)
    sliced[:2] = functional_spectrum(D, H, [2, 3])
    assert interlaced(full, sliced, 2) and not interlaced(full, sliced, 1)


# groups and concentration


def test_the_error_of_a_mean_is_numpys_standard_error_added_over_entries():
    groups = torch.randn(4, 3, 2, generator=seeded())
    entries = groups.double().numpy().std(0, ddof=1) / 2
    assert float(error_of_mean(groups)) == pytest.approx(np.sqrt((entries**2).sum()))
    a, b = groups[:2]
    half = error_of_mean(groups[:2])
    assert float(half) == pytest.approx(float((a - b).norm() / 2), rel=1e-6)
    with pytest.raises(ValueError, match="estimates holds 1"):
        error_of_mean(groups[:1])


def test_participation_counts_equal_directions_in_any_basis():
    Q = torch.linalg.qr(torch.randn(6, 6, generator=seeded())).Q.double()
    for count in range(1, 7):
        H = Q[:, :count] @ Q[:, :count].T * 7
        assert float(participation_ratio(H)) == pytest.approx(count, rel=1e-5)


def test_stored_selections_by_own_text_beat_those_by_every_cheaper_input():
    path = Path(__file__).parents[2] / "book/results/self_moments.json"
    table = json.loads(path.read_text())
    level = next(row for row in table["levels"] if "kl" in row)
    own = np.mean(level["kl"])
    rows = table["substitutes"]
    for name, row in rows.items():
        assert np.mean(row["kl"]) > own, name
        assert np.mean(row["lost"]) > np.mean(table["levels"][-1]["lost"]), name
    assert min(np.mean(row["kl"]) for row in rows.values()) > 1.5 * own


# files


def test_a_file_holds_moments_and_note_and_the_same_bytes_each_time(tmp_path):
    model, texts = tiny("phi")
    moments = hidden_moments(model, texts, dtype=torch.float64)
    first, second = (tmp_path / f"{i}.safetensors" for i in range(2))
    for path in (first, second):
        save_moments(moments, path, {"model": "tiny", "seed": 0})
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.name, second.name]
    again, note = load_moments(first)
    assert note == {"model": "tiny", "seed": 0} and again.tokens == moments.tokens
    for ours, theirs in zip(moments[:2], again[:2]):
        assert len(ours) == len(theirs)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
    with safe_open(first, "pt") as file:
        assert json.loads(file.metadata()["moments"])["tokens"] == 35


def test_more_than_ten_layers_come_back_in_order(tmp_path):
    numbers = [torch.full((1,), float(i)) for i in range(12)]
    moments = Moments([x[:, None] + 1 for x in numbers], numbers, 3)
    save_moments(moments, tmp_path / "m")
    again, _ = load_moments(tmp_path / "m")
    assert [float(x) for x in again.mean] == list(range(12))


def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch
):
    moments = Moments([torch.eye(2)], [torch.ones(2)], 1)
    path = tmp_path / "m.safetensors"
    save_moments(moments, path)
    before = path.read_bytes()

    def broken(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(self_moments, "save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_moments(moments, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(TypeError):
        save_moments(moments, path, {"model": object()})


def test_files_that_hold_something_else_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_moments(tmp_path / "absent")
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.ones(1)}, other)
    with pytest.raises(ValueError, match="holds no moments of this version"):
        load_moments(other)
    other.write_bytes(b"text")
    with pytest.raises(ValueError, match="holds no moments of this version"):
        load_moments(other)
