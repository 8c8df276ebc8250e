"""What the pictures of ideas show is true to the numbers they are drawn from."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy.stats import entropy as kl
from scipy.stats import ks_2samp

from prunefair.bridge.layer_budgets import kept_costs, plot_row_gains
from prunefair.fairness.bandit_feedback import plot_barriers
from prunefair.fairness.baselines import (
    ContextFreeGradient,
    IndependentGradient,
    plot_sharing,
)
from prunefair.fairness.beyond_one import plot_poorest
from prunefair.fairness.full_information import (
    AlphaFairGradient,
    approximation_factor,
    plot_best_tangent,
    plot_telescope,
)
from prunefair.fairness.high_probability import plot_optimism
from prunefair.fairness.late_feedback import plot_waiting
from prunefair.fairness.limits import nested_shares, plot_nested
from prunefair.fairness.movielens import plot_demand
from prunefair.fairness.movielens_figures import plot_two_regrets
from prunefair.fairness.offline_optimum import plot_price_line, solve_offline
from prunefair.fairness.one_context import plot_path
from prunefair.fairness.online_gradient import plot_steps
from prunefair.fairness.recut import plot_cuts
from prunefair.fairness.simulation import RewardStream
from prunefair.fairness.slates import plot_capped, plot_comb
from prunefair.fairness.utility import alpha_fair_utility
from prunefair.pruning.anatomy import plot_block
from prunefair.pruning.comparison import plot_kept_neurons
from prunefair.pruning.domains import plot_reading
from prunefair.pruning.functional_policy import plot_equal_energy
from prunefair.pruning.llama2_7b import plot_room
from prunefair.pruning.policy_gradient import plot_pushes
from prunefair.pruning.reconstruction import FfnBlock, plot_block_curves, repaired_toy
from prunefair.pruning.recovery import plot_adapter
from prunefair.pruning.refit import plot_repair, refit_down
from prunefair.pruning.row_policy import gumbel_top_k, plot_gumbel
from prunefair.pruning.self_distillation import plot_pulls
from prunefair.pruning.self_moments import functional_spectrum, plot_functional
from prunefair.pruning.spectral_pruning import plot_nested_rows
from prunefair.pruning.spectrum import (
    plot_interlacing,
    plot_staircases,
    singular_values,
)
from prunefair.pruning.surgery import plot_slicing

NAMES = ("$x$", "$R$")  # of learners and of rewards


def one():
    """Axes to draw in."""
    return Figure().add_subplot()


def test_projected_steps_end_in_the_triangle_and_not_farther_than_they_went():
    rng = np.random.default_rng(1)
    ax = plot_steps(one(), rng.random((20, 3)))
    (triangle,) = ax.patches
    ends = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "--"]
    inside = triangle.get_path()
    assert len(ends) == 20
    for moved, point in ends:
        assert inside.contains_point(point, radius=1e-6) or inside.contains_point(
            point, radius=-1e-6
        )
        corners = inside.vertices[:3]
        for u in [*corners, corners.mean(0)]:  # the angle is obtuse
            assert (moved - point) @ (u - point) <= 1e-12


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_what_exceeds_the_area_fits_into_the_column_of_the_first_reward(alpha):
    ax = plot_telescope(one(), [1.0, 0.5, 0.9, 0.4, 1.0, 0.8], alpha)
    column = ax.lines[-1].get_xydata()
    moved = [c.get_paths()[0].vertices for c in ax.collections[2::3]]
    assert len(moved) == 6
    heights = [part[:, 1].min() for part in moved] + [
        part[:, 1].max() for part in moved
    ]
    assert min(heights) == pytest.approx(column[:, 1].min())
    assert max(heights) == pytest.approx(1)
    assert all(part[:, 0].min() >= 0 and part[:, 0].max() <= 1 for part in moved)
    tops = sorted((part[:, 1].min(), part[:, 1].max()) for part in moved)
    assert all(low[1] <= high[0] + 1e-12 for low, high in zip(tops, tops[1:]))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.7])
def test_the_best_tangent_meets_the_line_at_the_constant_of_the_theorem(alpha):
    ax = plot_best_tangent(one(), alpha)
    heights = [
        line.get_ydata()[0] for line in ax.lines[:6] if len(line.get_xdata()) < 2
    ]
    assert heights[1] == pytest.approx(1 + alpha)
    assert heights[2:] == pytest.approx([approximation_factor(alpha)] * 2)
    curve = ax.lines[6].get_ydata()
    for tangent in (ax.lines[0], ax.lines[3]):
        assert (tangent.get_ydata() >= curve - 1e-12).all()


def test_softmax_forgets_an_arm_exponentially_and_the_barrier_in_proportion():
    leads = np.array([0.0, 20.0, 40.0])
    barrier, softmax = (line.get_ydata() for line in plot_barriers(one(), leads).lines)
    assert barrier[0] == softmax[0] == 0.5
    assert 1.8 < barrier[1] / barrier[2] < 2.2
    assert softmax[1] / softmax[2] == pytest.approx(np.exp(20), rel=1e-6)


def test_every_map_lies_below_the_price_line_and_the_line_below_the_curve():
    rng = np.random.default_rng(2)
    G = rng.gamma(1.0, 5.0, (6, 2))
    best = solve_offline(G, 0.6)
    ax = plot_price_line(one(), G, best, 0.6)
    reached = ax.patches[0].get_path()
    curve, line = (drawn.get_xydata() for drawn in ax.lines[:2])
    for x in rng.dirichlet([0.5, 0.5], (200, 6)):
        R = 1 + (G * x).sum(0)
        assert reached.contains_point(R)
        assert R @ best.prices <= line[0] @ best.prices + 1e-9
    assert (curve[:, 1] >= line[:, 1] - 1e-6)[curve[:, 1] > 1].all()


def test_the_blue_areas_are_the_equal_shares_of_the_living():
    lengths = np.array([3.0, 5.0, 4.0])
    ax = plot_nested(one(), lengths)
    blue = [bar for bar in ax.patches if bar.get_facecolor() == to_rgba("C0")]
    area = np.zeros(3)
    for bar in blue:
        arm = round(bar.get_y() + 0.4)
        area[arm] += bar.get_width() * bar.get_height() / 0.8
    np.testing.assert_allclose(area, nested_shares(lengths))


def test_the_leader_of_the_picture_ends_beyond_all_that_is_as_good():
    ax = plot_path(one(), np.array([[1, 0], [1, 1.0]]), 0.5)
    fixed, level, best, leader = (line.get_xydata() for line in ax.lines)
    assert leader[-1] == pytest.approx([1, 1 - np.log(2)])
    value = alpha_fair_utility(best[0], 0.5)
    np.testing.assert_allclose([alpha_fair_utility(R, 0.5) for R in level], value)
    assert alpha_fair_utility(leader[-1], 0.5) > value


def test_the_orange_bars_are_those_that_wait():
    delays = [2, 5, 1, 6, 0, 3, 1, 4, 2, 3]
    axes = plot_waiting(Figure().subplots(2), delays, 0.5)
    assert "3 wait" in axes[0].texts[0].get_text()
    late, at_once = (line.get_ydata() for line in axes[1].lines)
    assert (late >= at_once).all() and late[-1] == at_once[-1] == 11**-0.5


def test_the_optimistic_estimate_is_never_below_the_truth_in_the_mean():
    *curves, truth = plot_optimism(one(), (0.3, 0.01)).lines
    assert all((line.get_ydata() >= 1 - 1e-12).all() for line in curves)
    assert set(truth.get_ydata()) == {1}


def test_projections_of_the_picture_fill_no_place_twice():
    ax = plot_capped(one(), np.random.default_rng(3).normal(size=(30, 3)) * 2)
    slates = ax.patches[1].get_path()
    for line in (line for line in ax.lines if line.get_linestyle() == "--"):
        (x, y) = line.get_xydata()[1]
        near = [slates.contains_point((x, y), radius=r) for r in (1e-6, -1e-6)]
        assert any(near)


@pytest.mark.parametrize("offset", [0.0, 0.35, 0.9])
def test_the_teeth_of_the_comb_hit_the_orange_arms(offset):
    x = np.array([0.75, 0.5, 0.25, 1.0, 0.5])
    bars = plot_comb(one(), x, offset).patches
    bars = [bar for bar in bars if hasattr(bar, "get_width")]
    hit = {
        i
        for i, bar in enumerate(bars)
        for tooth in offset + np.arange(3)
        if bar.get_x() <= tooth < bar.get_x() + bar.get_width()
    }
    assert len(hit) == 3
    assert hit == {i for i, b in enumerate(bars) if b.get_facecolor() == to_rgba("C1")}


def test_a_neuron_of_the_block_is_a_row_of_two_matrices_and_a_column_of_the_third():
    ax = plot_block(one(), width=6, neurons=12, neuron=4)
    filled = [c for c in ax.collections if c.get_facecolor().size]
    sizes = [c.get_paths()[0].get_extents() for c in filled]
    assert [(box.width, box.height) for box in sizes] == [
        (6, 1),
        (6, 1),
        (1, 1),
        (1, 6),
    ]


def test_every_square_of_the_interlacing_picture_lies_on_its_bar():
    W = torch.randn(12, 7, generator=torch.Generator().manual_seed(4)).double()
    full, left = singular_values(W), singular_values(W[3:])
    ax = plot_interlacing(one(), full, left, 3)
    bars = ax.collections[0].get_segments()
    squares = ax.lines[1].get_xdata()
    assert len(bars) == len(squares) == 7
    assert all(a[0] <= x <= b[0] for (a, b), x in zip(bars, squares))


@pytest.mark.parametrize("seed", range(5))
def test_the_arrow_between_the_staircases_is_as_long_as_the_distance(seed):
    draw = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(n, generator=draw).double() for n in (9, 7))
    ax = plot_staircases(one(), x, y)
    (start, end) = ax.texts[0].xy, ax.texts[0].get_position()
    length = abs(float(start[1]) - float(end[1]))
    assert length == pytest.approx(ks_2samp(x.numpy(), y.numpy()).statistic)
    assert f"{length:.2f}" in ax.texts[1].get_text()


def test_the_rows_right_of_the_line_are_those_of_the_draw():
    scores = torch.linspace(1, -1, 8).double()
    noise = torch.empty(8).double()
    noise = -noise.exponential_(generator=torch.Generator().manual_seed(5)).log()
    ax = plot_gumbel(one(), scores, noise, 3)
    threshold = float(ax.lines[-1].get_xdata()[0])
    drawn = gumbel_top_k(scores, 3, generator=torch.Generator().manual_seed(5))
    assert set(torch.nonzero(scores + noise > threshold).flatten().tolist()) == set(
        drawn.tolist()
    )


def test_the_outputs_of_the_masked_and_of_the_sliced_block_have_the_same_colours():
    draw = torch.Generator().manual_seed(6)
    D, h = torch.randn(8, 12, generator=draw), torch.randn(12, generator=draw)
    axes = plot_slicing(Figure().subplots(2), D, h, [0, 3, 4, 7, 9])
    masked, sliced = (ax.images[2].get_array() for ax in axes)
    np.testing.assert_allclose(masked, sliced, rtol=1e-6)
    assert np.isnan(axes[0].images[0].get_array().filled(np.nan)).sum() == 7 * 8
    assert axes[1].images[0].get_array().shape == (8, 5)


def test_half_axes_of_the_ellipse_are_the_functional_spectrum():
    draw = torch.Generator().manual_seed(7)
    hidden = torch.randn(200, 6, generator=draw).double()
    D, kept = torch.randn(2, 6, generator=draw).double(), [0, 2, 3, 5]
    ax = plot_functional(one(), D, hidden, kept)
    H = hidden.T @ hidden / 200
    for lines, part in ((ax.lines[2:4], None), (ax.lines[5:7], torch.tensor(kept))):
        found = [np.hypot(*line.get_xydata()[1]) for line in lines]
        np.testing.assert_allclose(found, functional_spectrum(D, H, part))


def test_the_baseline_pushes_the_best_up_and_the_worst_down():
    penalties = torch.tensor([0.3, 0.1, 0.2, 0.5])
    axes = plot_pushes(Figure().subplots(1, 2), penalties)
    ends = [[t.xy[1] for t in ax.texts] for ax in axes]
    assert max(ends[0]) < 0 and ends[1][1] > 0 > ends[1][3]
    assert sum(ends[1]) == pytest.approx(0, abs=1e-6)


def test_the_factors_of_the_adapter_have_its_rank_and_the_sides_of_the_matrix():
    ax = plot_adapter(one(), 40, 30, 3)
    boxes = [c.get_paths()[0].get_extents() for c in ax.collections]
    sizes = [(box.width, box.height) for box in boxes]
    np.testing.assert_allclose(sizes, [(30, 40), (3, 40), (30, 3)])


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 3])
def test_rows_with_a_dot_gain_at_least_the_price_and_the_others_at_most(alpha):
    costs = np.random.default_rng(8).lognormal(0, 1, (3, 12))
    (ax,) = plot_row_gains([one()], [kept_costs(c) for c in costs], 18, (alpha,))
    price = ax.lines[-1].get_ydata()[0]
    for curve, dots in zip(ax.lines[:-1:2], ax.lines[1::2]):
        kept = len(dots.get_xdata())
        gains = curve.get_ydata()
        assert (gains[:kept] >= price - 1e-12).all()
        assert (gains[kept:] <= price + 1e-12).all()


def test_a_re_fit_brings_an_output_nearer_to_that_of_the_whole_block():
    draw = torch.Generator().manual_seed(9)
    hidden = torch.randn(100, 8, generator=draw).double()
    hidden = hidden @ torch.randn(8, 8, generator=draw).double()
    D, kept = torch.randn(2, 8, generator=draw).double(), torch.arange(5)
    weight = refit_down(D, hidden.T @ hidden / 100, kept, ridge=1e-6).weight
    axes = plot_repair(Figure().subplots(1, 2), D, hidden, kept, weight)
    lost = []
    for ax in axes:
        whole, part = ax.lines[1].get_data()
        np.testing.assert_allclose(whole, hidden @ D[0])
        lost.append(((part - whole) ** 2).sum() / (whole**2).sum())
        assert f"{100 * lost[-1]:.0f} % lost" in ax.get_xlabel()
    assert lost[1] < lost[0]


def test_rows_of_the_chart_only_disappear():
    scores = torch.randn(30, generator=torch.Generator().manual_seed(10))
    ax = plot_nested_rows(one(), scores, (0.1, 0.4, 0.8))
    rows = [set(line.get_xdata().tolist()) for line in ax.lines]
    assert [len(kept) for kept in rows] == [27, 18, 6]
    assert rows[0] > rows[1] > rows[2]


def test_the_divergence_pulls_to_the_teacher_and_the_likelihood_to_certainty():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.6, 0.2])
    axes = plot_pulls(Figure().subplots(1, 2), p, q, 1)
    ends = [[arrow.xy[1] for arrow in ax.texts] for ax in axes]
    np.testing.assert_allclose(ends, [p.tolist(), [0, 1, 0]])


def test_the_two_moves_are_equally_long_and_cost_what_is_written():
    head = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -0.5]]).double()
    moves = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    ax = plot_equal_energy(one(), head, moves)
    said = [float(t.get_text().split()[0]) for t in ax.texts if t.get_text()]
    uniform = np.full(3, 1 / 3)
    found = [kl(uniform, (head @ move).softmax(0).numpy()) for move in moves]
    np.testing.assert_allclose(said, found, atol=0.006)


def test_the_curves_of_blocks_are_their_outputs():
    draw = torch.Generator().manual_seed(11)
    W, U, D = (torch.randn(*s, generator=draw) for s in ((5, 2), (5, 2), (2, 5)))
    block = FfnBlock([(W, None), (U, None), (D, None)], torch.relu)
    x, y = plot_block_curves(one(), {"dense": block}).lines[0].get_data()
    inputs = np.stack([x, np.ones_like(x)])
    hidden = np.maximum(W.numpy() @ inputs, 0) * (U.numpy() @ inputs)
    np.testing.assert_allclose(y, (D.numpy() @ hidden)[0], rtol=1e-4, atol=1e-5)


def test_bars_and_lines_of_the_room_are_gigabytes():
    ax = plot_room(one(), {"a": 5e9, "b": 20e9}, {"card": {"memory": 16e9}})
    assert [bar.get_width() for bar in ax.patches] == [5, 20]
    assert ax.lines[0].get_xdata()[0] == 16


def test_the_chart_of_demand_counts_rounds_from_common_to_rare():
    rewards = np.array([[1.0, 0.001, 1.0], [0.001, 0.001, 1.0], [1.0, 1.0, 1.0]])
    stream = RewardStream(
        contexts=np.array([0, 1, 1]),
        rewards=rewards,
        n_contexts=2,
        arm_names=("a", "b", "c"),
    )
    ax = plot_demand(one(), stream)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["c", "a", "b"]
    counts = 10 ** ax.images[0].get_array() - 1
    np.testing.assert_allclose(counts, [[1, 1, 0], [2, 1, 1]], atol=1e-9)


def test_dots_of_the_cuts_are_rounds_and_their_contexts():
    contexts = np.arange(5000) % 7
    stream = RewardStream(contexts=contexts, rewards=np.zeros((5000, 2)), n_contexts=7)
    (ax,) = plot_cuts(np.array([one()]), {"turns": stream})
    t, j = ax.lines[0].get_data()
    assert (j == contexts[t]).all() and t[0] == 0 and t[-1] == 4999


def test_the_dashed_lines_are_a_factor_of_nearly_the_number_of_arms_apart():
    ax = plot_poorest(one(), 100.0 ** np.arange(4), 3)
    best, even = (line.get_ydata()[0] for line in ax.lines[1::2])
    assert 3.9 < best / even <= 4
    np.testing.assert_allclose(ax.lines[2].get_ydata()[0], 1 / 4)


def test_only_methods_that_read_wikitext_have_a_dot_there():
    models = {"a": (None, None), "b": ("m", "its own"), "c": ("m", "half of each")}
    ax = plot_reading(one(), models)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [(d.get_xdata()[0], d.get_ydata()[0]) for d in dots] == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]
    orange = [d for d in ax.lines if d.get_color() == "C1"]
    assert {d.get_xdata()[0] for d in orange} == {3}


def test_the_two_regrets_are_those_of_the_bars():
    ax = plot_two_regrets(one(), {"a": 100.0, "b": 60.0}, 100.0, 0.5)
    assert ax.texts[0].get_text() == r"regret $0$, $c_\alpha$-regret $-41$"
    assert ax.texts[1].get_text() == r"regret $40$, $c_\alpha$-regret $15$"


def test_the_squares_of_a_rule_are_its_largest_scores():
    scores = {"a": torch.tensor([3.0, 1.0, 2.0, 0.0]), "b": torch.arange(4.0)}
    ax = plot_kept_neurons(one(), scores, 2)
    kept = [set(line.get_xdata()) for line in ax.lines[1::2]]
    assert kept == [{0, 2}, {2, 3}]


def test_each_policy_has_as_many_boxes_of_rewards_as_it_keeps():
    policies = {
        "coupled": AlphaFairGradient(2, 0.9),
        "independent": IndependentGradient(2, 0.9),
        "blind": ContextFreeGradient(2, 0.9),
    }
    for policy in policies.values():
        for context in (0, 1):
            policy.update(context, np.array([1.0, 0.5]))
    axes = plot_sharing(Figure().subplots(1, 3), policies)
    boxes = []
    for ax in axes:
        places = {(t.get_text(), t.get_position()) for t in ax.texts}
        boxes.append([sum(words == name for words, _ in places) for name in NAMES])
    assert boxes == [[2, 1], [2, 2], [1, 1]]


def test_each_repair_of_the_toy_is_nearer_to_the_whole_block():
    blocks = repaired_toy(torch.Generator().manual_seed(2))
    inputs = torch.stack([torch.linspace(-2, 2, 50), torch.ones(50)], 1)
    with torch.no_grad():
        whole, *others = (block(inputs) for block in blocks.values())
    errors = [float((y - whole).square().sum()) for y in others]
    assert errors == sorted(errors, reverse=True) and errors[2] < errors[1] / 4
