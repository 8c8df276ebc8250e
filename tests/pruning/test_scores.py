"""Entropy costs, fluctuations and fidelities against what they are by definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.pruning.scores import entropy, entropy_costs, fidelities, fluctuations
from prunefair.pruning.self_moments import down_projections
from prunefair.pruning.surgery import tiny_model


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_the_entropy_is_that_of_scipy():
    from scipy.stats import entropy as oracle

    logits = 3 * torch.randn(2, 3, 7, generator=seeded(1))
    expected = sum(oracle(p) for p in logits.double().softmax(-1).reshape(-1, 7))
    assert float(entropy(logits)) == pytest.approx(expected, rel=1e-6)
    assert float(entropy(torch.zeros(1, 1, 8))) == pytest.approx(np.log(8))


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox"])
def test_an_entropy_cost_is_the_change_by_a_neuron_that_is_scaled(family):
    model = tiny_model(family, generator=seeded(2)).double()
    texts = torch.randint(5, model.config.vocab_size, (3, 4), generator=seeded(3))
    first, second = (entropy_costs(model, texts, power=k, batch_size=2) for k in (1, 2))
    for block, linear in enumerate(down_projections(model)):
        j, step, changes = 1 + block, 0.03, np.zeros(texts.shape)
        for (n, t), _ in np.ndenumerate(changes):
            ends = []
            for sign in (1, -1):

                def scale(_, inputs, t=t, j=j, change=sign * step):
                    factor = torch.ones_like(inputs[0])
                    factor.view(-1, inputs[0].shape[-1])[t, j] += change
                    return (inputs[0] * factor,)

                with linear.register_forward_pre_hook(scale), torch.no_grad():
                    p = model(texts[n : n + 1]).logits.log_softmax(-1)
                    ends.append(-float((p.exp() * p).sum()))
            changes[n, t] = (ends[0] - ends[1]) / (2 * step)
        assert float(first[block][j]) == pytest.approx(np.abs(changes).mean(), rel=5e-3)
        assert float(second[block][j]) == pytest.approx((changes**2).mean(), rel=5e-3)


def test_another_power_is_refused():
    with pytest.raises(ValueError, match="power is 3; give 1 or 2"):
        entropy_costs(None, torch.zeros(1, 2), power=3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5))
def test_fluctuation_and_fidelity_are_least_errors_over_a_bias_and_a_factor(seed, m, d):
    generator = seeded(seed)
    D = torch.randn(d, m, generator=generator).double()
    h = torch.randn(40, m, generator=generator).double() + 2 * torch.randn(
        m, generator=generator
    )
    H, mean, y = h.T @ h / 40, h.mean(0), h @ D.T
    for j in range(m):
        own = h[:, [j]] * D[:, j]
        ones = np.ones((40, 1))
        rest = own.numpy() - ones @ np.linalg.lstsq(ones, own.numpy(), rcond=None)[0]
        expected = (rest**2).sum(1).mean()
        assert float(fluctuations(D, H, mean)[j]) == pytest.approx(expected, abs=1e-9)
        a = np.linalg.lstsq(
            own.reshape(-1, 1).numpy(), y.reshape(-1).numpy(), rcond=None
        )
        error = (y - float(a[0][0]) * own).square().sum() / y.square().sum()
        assert float(fidelities(D, H)[j]) == pytest.approx(1 - float(error), abs=1e-9)


def test_a_neuron_that_says_nothing_scores_nothing():
    D, H = torch.ones(2, 3), torch.diag(torch.tensor([1.0, 0.0, 2.0]))
    assert fidelities(D, H)[1] == 0 and fluctuations(D, H, torch.zeros(3))[1] == 0
    assert not fidelities(D, 0 * H).any()
