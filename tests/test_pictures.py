"""What the pictures of ideas show is true to the numbers they are drawn from."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from prunefair.fairness.bandit_feedback import plot_barriers
from prunefair.fairness.full_information import (
    approximation_factor,
    plot_best_tangent,
    plot_telescope,
)
from prunefair.fairness.high_probability import plot_optimism
from prunefair.fairness.late_feedback import plot_waiting
from prunefair.fairness.limits import nested_shares, plot_nested
from prunefair.fairness.offline_optimum import plot_price_line, solve_offline
from prunefair.fairness.one_context import plot_path
from prunefair.fairness.online_gradient import plot_steps
from prunefair.fairness.slates import plot_capped, plot_comb
from prunefair.fairness.utility import alpha_fair_utility


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
