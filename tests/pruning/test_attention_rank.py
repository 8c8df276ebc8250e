"""Where to cut: the closed form of values, its bounds, one cost and one price.

A statement of the chapter is checked by a function that returns the smallest constant
in front of it that its instances would still allow: at most 1 if it holds.  A mutant is
a stronger statement, and must come out above 1.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.pruning.attention_rank import (
    Cut,
    PartCosts,
    PartSizes,
    attention_moments,
    attention_sublayers,
    cheapest_cut,
    cut_at_price,
    part_costs,
    part_sizes,
    value_basis,
    value_output_reduction,
    value_ridge,
    without_attention,
)
from prunefair.pruning.functional_policy import fisher_costs
from prunefair.pruning.refit import RIDGES, mean_moments
from prunefair.pruning.surgery import ADAPTERS, removed_parameters, tiny_model

FUSED = {"phi3", "falcon", "gpt_neox"}
FAMILIES = sorted(set(ADAPTERS) - FUSED)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def texts(seed=0, n=12, length=10):
    return torch.randint(3, 32, (n, length), generator=seeded(seed))


class Heads:
    """Some query heads on one value head, by samples of what each has gathered."""

    def __init__(self, seed, shared=3, width=4, d=6, own=1.0, rank=2):
        g = seeded(seed)
        self.parts = torch.randn(shared, d, width, generator=g).double()
        z, x = torch.randn(2, shared, 40, width, generator=g).double()
        self.z = z[:1] + own * x**3
        self.rank = rank
        self.moments = self.z.mT @ self.z / 40
        O = self.parts.permute(1, 0, 2).flatten(1)
        Z = torch.block_diag(*self.moments)
        self.basis = value_basis(O, Z, (1, shared, width))
        self.E = self.basis.into[0][:rank]
        self.F = self.parts @ self.basis.back[0][:, :rank]

    def tail(self, rank):
        return float(self.basis.energies[0, rank:].sum())

    def errors(self, F, E):
        """Of every head at every sample, (shared, samples, d)."""
        return self.z @ (self.parts - F @ E).mT

    def lost(self, F, E):
        return float(self.errors(F, E).square().sum((0, 2)).mean())

    def read(self, E):
        """Best F for an E, head by head."""
        pairs = zip(self.z, self.parts, strict=True)
        read = [torch.linalg.lstsq(z @ E.mT, z @ A.mT).solution.mT for z, A in pairs]
        return torch.stack(read)

    def rivals(self, seed):
        """Reductions: at random, and alternated from there and from the closed form."""
        width = self.parts.shape[2]
        starts = torch.randn(6, self.rank, width, generator=seeded(seed)).double()
        for E in (self.E, *starts):
            for _ in range(30):
                F = self.read(E)
                yield F, E
                left = torch.einsum("ida,idb->iab", F, F)
                system = sum(
                    torch.kron(L, C)
                    for L, C in zip(left, self.moments.contiguous(), strict=True)
                )
                right = (F.mT @ self.parts @ self.moments).sum(0)
                E = torch.linalg.lstsq(system, right.flatten()).solution.view(E.shape)


def one_head(less=0):
    """No reduction loses less than the tail, and the closed form no more."""
    worst = 0.0
    for seed in range(4):
        heads = Heads(seed, shared=1)
        tail = heads.tail(heads.rank - less)
        worst = max(worst, heads.lost(heads.F, heads.E) / heads.tail(heads.rank))
        for F, E in heads.rivals(seed):
            worst = max(worst, tail / heads.lost(F, E))
    return worst


def equal_moments(own=0.0):
    """With equal moments nothing loses less than the closed form."""
    worst = 0.0
    for seed in range(3):
        heads = Heads(seed, own=own)
        closed = heads.lost(heads.F, heads.E)
        worst = max(closed / heads.lost(F, E) for F, E in heads.rivals(seed))
    return worst


def disjoint_heads():
    """The exercise: two heads that read and gather different coordinates."""
    heads = Heads(0, shared=2, width=2, d=2, rank=1)
    heads.parts = torch.diag_embed(torch.eye(2).double())
    heads.z = torch.diag_embed(torch.tensor([[2.0, 0], [0, 1.0]]).double())
    heads.z = heads.z.sum(1, keepdim=True)
    heads.moments = heads.z.mT @ heads.z
    O, Z = torch.cat([*heads.parts], 1), torch.block_diag(*heads.moments)
    heads.basis = value_basis(O, Z, (1, 2, 2))
    heads.E = heads.basis.into[0][:1]
    heads.F = heads.parts @ heads.basis.back[0][:, :1]
    return heads


def upper_bound(factor=None):
    """The closed form loses at most so many times the tail."""
    found = [disjoint_heads()]
    found += [Heads(seed, own=own) for seed in range(3) for own in (0, 1, 5)]
    worst = 0.0
    for heads in found:
        times = len(heads.parts) if factor is None else factor
        bound = times * heads.tail(heads.rank)
        worst = max(worst, heads.lost(heads.F, heads.E) / bound)
    return worst


def lower_bound(nominal=False):
    """No reduction loses less than what every head would lose alone."""
    worst = 0.0
    for heads in (*(Heads(s, own=3.0) for s in range(3)), disjoint_heads()):
        pairs = zip(heads.parts, heads.moments, strict=True)
        spectra = [torch.linalg.eigvalsh(A @ C @ A.T) for A, C in pairs]
        bound = sum(float(s[: -heads.rank].sum()) for s in spectra)
        bound = heads.tail(heads.rank) if nominal else bound
        given = [*heads.rivals(7)]
        both = torch.ones(1, 2).double()
        given += [(heads.read(both), both)] if len(heads.parts) == 2 else []
        losses = [max(heads.lost(F, E), 1e-12) for F, E in given]
        worst = max(worst, (bound + 1e-13) / min(losses))
    return worst


def together(factor=None):
    """What a sublayer errs, against what its heads err."""
    worst = 0.0
    for seed in range(5):
        heads = Heads(seed)
        if seed == 0:  # three heads that are one
            heads.parts = heads.parts[:1].expand(3, -1, -1)
            heads.z = heads.z[:1].expand(3, -1, -1)
        errors = heads.errors(heads.F[:1].expand_as(heads.F), heads.E)
        joint = float(errors.sum(0).square().sum(1).mean())
        apart = float(errors.square().sum((0, 2)).mean())
        worst = max(worst, joint / apart / (3 if factor is None else factor))
    return worst


def some_costs(seed, sizes):
    rng = np.random.default_rng(seed)
    draw = [torch.from_numpy(rng.exponential(size=n)) for n in (4, 3, (1, 2), (2, 1))]
    whole = (rng.exponential(size=2) * 3).tolist()
    return PartCosts(draw[:2], draw[2:], whole), sizes


def one_price(slack=0, values_go_along=True):
    """Every set that saves as much costs as much, over all sets."""
    worst, sizes = 0.0, PartSizes(3, 5, 21)
    for seed in range(3):
        costs, _ = some_costs(seed, sizes)
        f = [*costs.neurons[0], *costs.neurons[1]]
        v = [*costs.values[0].flatten(), *costs.values[1].flatten()]
        every = np.array([float(x) for x in (*f, *v, *costs.sublayers)])
        p = np.repeat([3, 5, 21], [7, 4, 2])
        sets = ((np.arange(2**13)[:, None] >> np.arange(13)) & 1).astype(bool)
        both = sets[:, [7, 8, 9, 10]] & sets[:, [11, 11, 12, 12]]
        if values_go_along:
            sets = sets[~both.any(1)]
        cost, saved = sets @ every, sets @ p
        for price in (0.05, 0.1, 0.2, 0.4):
            cut = cut_at_price(costs, sizes, price, most=1)
            least = cost[saved >= cut.saved - slack].min()
            worst = max(worst, cut.cost / max(least, 1e-12) if cut.saved else 0)
    return worst


CLAIMS = {
    one_head: {"one coordinate more is lost": {"less": 1}},
    equal_moments: {"with any moments": {"own": 3.0}},
    upper_bound: {"once the tail": {"factor": 1}, "below |I|": {"factor": 1.99}},
    lower_bound: {"the tail": {"nominal": True}},
    together: {"errors add": {"factor": 1}, "below |I|": {"factor": 2.99}},
    one_price: {
        "saving a neuron less": {"slack": 3},
        "a sublayer's values saved twice": {"values_go_along": False},
    },
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_a_statement_of_the_chapter_holds(claim):
    assert claim() <= 1 + 1e-9


@pytest.mark.parametrize(
    ("claim", "mutant"),
    [(claim, name) for claim, mutants in CLAIMS.items() for name in mutants],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_stronger_statement_is_rejected(claim, mutant):
    assert claim(**CLAIMS[claim][mutant]) > 1 + 1e-6


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_values=st.integers(1, 3),
    shared=st.integers(1, 3),
    width=st.integers(1, 4),
    d=st.integers(1, 9),
)
def test_turning_the_values_changes_no_output(seed, n_values, shared, width, d):
    """Also where the output map does not read every direction, d < width."""
    g, shape = seeded(seed), (n_values, shared, width)
    O = torch.randn(d, n_values * shared * width, generator=g).double()
    X = torch.randn(n_values * shared * width, 30, generator=g).double()
    basis = value_basis(O, X @ X.T / 30, shape)
    turned = torch.einsum("dgia,gab->dgib", O.view(-1, *shape), basis.back)
    there = torch.einsum("gab,gibt->giat", basis.into, X.view(*shape, -1))
    again = torch.einsum("dgia,giat->dt", turned, there)
    torch.testing.assert_close(again, O @ X, rtol=1e-6, atol=1e-6)
    assert (basis.energies.diff() <= 0).all() and (basis.energies >= 0).all()


def passed(model, some):
    """What the first output map is given and what it puts out, token by token."""
    seen, output = [], attention_sublayers(model)[0].output
    hook = output.register_forward_hook(lambda _, x, y: seen.extend([x[0], y.clone()]))
    model(some)
    hook.remove()
    return [x.flatten(0, 1) for x in seen]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_reduced_model_writes_what_the_closed_form_says(family):
    """The oracle multiplies the projection, head by head, to what the heads gather."""
    model, some = tiny_model(family, generator=seeded(3), dtype=torch.float64), texts()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    moments, attention = attention_moments(model, some), attention_sublayers(model)[0]
    output, (n_values, shared, width) = attention.output, attention.shape
    basis = value_basis(output.weight, moments.second[0], attention.shape)
    z, whole = passed(model, some)
    expected = torch.zeros_like(whole) if output.bias is None else output.bias
    for head, x in enumerate(z.split(width, 1)):
        g = head // shared
        P = basis.back[g][:, :2] @ basis.into[g][:2]
        O = output.weight[:, head * width : (head + 1) * width]
        expected = expected + x @ (O @ P).T
    reduced = value_output_reduction(model, moments, [2, width])
    torch.testing.assert_close(passed(reduced, some)[1], expected)
    refitted = value_output_reduction(model, moments, [2, width], ridge=1e-3)
    errors = [(passed(m, some)[1] - whole).square().sum() for m in (reduced, refitted)]
    assert errors[1] < 1.001 * errors[0]  # on the texts of the moments
    rows = attention_sublayers(reduced)[0].values.weight.view(n_values, width, -1)
    assert rows[:, :2].any() and not rows[:, 2:].any()
    full = value_output_reduction(model, moments, [width, width])
    assert torch.equal(full(some).logits, model(some).logits)
    assert all(torch.equal(x, before[n]) for n, x in model.state_dict().items())


@torch.no_grad()
def test_a_dropped_sublayer_is_not_there():
    """The oracle skips it."""
    model, some = tiny_model("opt", generator=seeded(2)), texts()
    ours = without_attention(model, [1])(some).logits

    class Nothing(torch.nn.Module):
        def forward(self, hidden_states, **_):
            return torch.zeros_like(hidden_states), None

    model.model.decoder.layers[1].self_attn = Nothing()
    torch.testing.assert_close(ours, model(some).logits)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "phi"])
def test_costs_are_mean_squares_of_scores(family):
    """Of a sublayer: the derivative by a factor on what it writes, at each position."""
    model = tiny_model(family, generator=seeded(4), dtype=torch.float64)
    some = texts(1)
    moments = attention_moments(model, some)
    costs = part_costs(model, some, moments, batch_size=5)
    for ours, theirs in zip(costs.neurons, fisher_costs(model, some), strict=True):
        torch.testing.assert_close(ours, theirs)
    for layer, attention in enumerate(attention_sublayers(model)):
        factor = torch.ones(*some.shape, 1).double().requires_grad_()
        hook = attention.output.register_forward_pre_hook(
            lambda _, x, factor=factor: (x[0] * factor,)
        )
        steps = model(some).logits.log_softmax(-1)[:, :-1]
        steps.gather(2, some[:, 1:, None]).sum().backward()
        hook.remove()
        expected = float(factor.grad.square().mean())
        assert costs.sublayers[layer] == pytest.approx(expected, rel=1e-4)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_the_parameters(family):
    model = tiny_model(family, generator=seeded())
    sizes, attention = part_sizes(model), attention_sublayers(model)[0]
    n_values, _, width = attention.shape
    kept = [attention.values, attention.output]
    every = sum(p.numel() for each in kept for p in each.parameters())
    if attention.output.bias is not None:
        every -= attention.output.bias.numel()  # belongs to no coordinate
    assert sizes.value * n_values * width == every
    inside = sum(p.numel() for p in attention.module.parameters())
    assert sizes.sublayer == inside > every
    rows = [torch.arange(12), torch.arange(11)]
    assert sizes.neuron == removed_parameters(model, rows)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 1), most=st.floats(0.3, 1))
def test_a_cut_saves_its_budget_and_hardly_more(seed, share, most):
    sizes = PartSizes(3, 5, 21)
    costs, _ = some_costs(seed, sizes)
    largest = 3 * (int(4 * most) + int(3 * most)) + 42
    budget = max(1, int(share * largest))
    cut = cheapest_cut(costs, sizes, budget, most=most)
    assert cut.saved >= budget
    assert all(n <= int(most * m) for n, m in zip(cut.neurons, (4, 3), strict=True))
    if sum(cut.neurons):
        assert cut.saved - budget < sizes.neuron
    kept = zip(cut.ranks, (2, 1), range(2), strict=True)
    gone = [w * len(r) - sum(r) for r, w, n in kept if n not in cut.dropped]
    assert cut.saved == 3 * sum(cut.neurons) + 5 * sum(gone) + 21 * len(cut.dropped)


def test_infinite_costs_stay():
    costs, sizes = some_costs(1, PartSizes(3, 5, 21))
    never = costs._replace(
        values=[x + np.inf for x in costs.values], sublayers=[np.inf, np.inf]
    )
    cut = cheapest_cut(never, sizes, 9, most=1)
    assert isinstance(cut, Cut) and not cut.dropped
    assert cut.ranks == [[2], [1, 1]] and cut.saved == 9 and np.isfinite(cut.cost)
    with pytest.raises(ValueError, match="budget is 100; the parts hold fewer"):
        cheapest_cut(never, sizes, 100)


def test_the_ridge_of_values_is_found_on_halves():
    model, some = tiny_model("phi", generator=seeded(5)), texts(2, 24)
    halves = [attention_moments(model, half) for half in some.split(12)]
    ranks = [[2, 3], [4, 4]]
    ridge = value_ridge(model, halves, ranks)
    assert ridge in RIDGES
    moments = mean_moments(halves)
    reduced = value_output_reduction(model, moments, ranks, ridge=ridge)
    assert not torch.equal(reduced(some).logits, model(some).logits)


@pytest.mark.parametrize("family", sorted(FUSED))
def test_a_family_whose_values_have_no_matrix_is_refused(family):
    with pytest.raises(ValueError, match=f"family '{family}', whose values"):
        attention_sublayers(tiny_model(family, generator=seeded()))


def test_what_does_not_fit_is_refused():
    model, some = tiny_model("llama", generator=seeded()), texts()
    moments = attention_moments(model, some)
    with pytest.raises(ValueError, match="ranks has 1 entries and the model 2"):
        value_output_reduction(model, moments, [3])
    for rank in (5, -1, 1.5):
        with pytest.raises(ValueError, match=r"ranks\[1\] is .* from 0 to 4"):
            value_output_reduction(model, moments, [4, rank])
    with pytest.raises(ValueError, match=r"must be \(d, 8\) and \(8, 8\)"):
        value_basis(torch.ones(8, 7), torch.eye(8), (1, 2, 4))
