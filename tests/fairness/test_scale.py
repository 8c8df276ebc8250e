"""Late copies of the shared rewards, many runs in step, and too many contexts."""

import json
import os
import subprocess
import sys
from itertools import pairwise, product

import cvxpy as cp
import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import (
    AlphaFairGradient,
    approximation_factor,
    certificate_bound,
)
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.online_gradient import simplex_projection
from prunefair.fairness.scale import (
    LateRuns,
    bucket_of,
    collision_loss,
    exchange,
    group_stream,
    late_cost,
    late_floor,
    late_shift,
    late_state_bound,
    lives_of,
    play_late,
    plot_copy,
    plot_late_state,
    row_projections,
)
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.utility import alpha_fair_utility

matplotlib.use("Agg")

seeds = st.integers(0, 2**32 - 1)


def random_stream(rng, rounds=60, contexts=2, arms=3):
    rewards = rng.random((rounds, arms)) * (rng.random((rounds, arms)) < 0.6)
    drawn = rng.integers(contexts, size=rounds)
    return RewardStream(contexts=drawn, rewards=rewards, n_contexts=contexts)


def by_bisection(v):
    """Projection onto the simplex: the multiplier between two bounds that close in."""
    low, high = v.min() - 1, v.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if np.maximum(v - middle, 0).sum() > 1 else (low, middle)
        )
    return np.maximum(v - low, 0)


def one_run(stream, alpha, late, shift):
    """The policy with late copies, in words: all totals kept, nothing shared."""
    n, totals = stream.n_arms, [np.ones(stream.n_arms)]
    points = {j: np.full(n, 1 / n) for j in range(stream.n_contexts)}
    norms, missing = dict.fromkeys(points, 0.0), np.zeros(n)
    for t in range(stream.n_rounds):
        j, r = int(stream.contexts[t]), stream.rewards[t]
        copy = totals[max(0, t - int(late[t]))]
        missing = np.maximum(missing, totals[-1] - copy)
        g = r / (copy + shift) ** alpha
        totals.append(totals[-1] + r * points[j])
        norms[j] += float(g @ g)
        if norms[j]:
            points[j] = by_bisection(points[j] + g / norms[j] ** 0.5)
    return totals[-1], np.array(list(norms.values())), missing


# --- runs in step -----------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=seeds, most=st.integers(0, 70))
def test_runs_in_step_are_those_of_an_engine_that_keeps_everything(seed, most):
    rng = np.random.default_rng(seed)
    streams = [random_stream(rng) for _ in range(2)]
    given_streams = [streams[s] for s in rng.integers(2, size=4)]
    alphas, shifts = rng.random(4), 5 * rng.random(4)
    late = rng.integers(most + 1, size=(4, 60))
    runs = play_late(given_streams, alphas, late=late, shift=shifts)
    for s, stream in enumerate(given_streams):
        R, S, D = one_run(stream, alphas[s], late[s], shifts[s])
        np.testing.assert_allclose(runs.rewards[s], R, rtol=1e-9)
        np.testing.assert_allclose(runs.squared_norms[s], S, rtol=1e-9)
        np.testing.assert_allclose(runs.missing[s], D, rtol=1e-9, atol=1e-12)
    assert (runs.missing <= most).all()


def test_without_lateness_runs_are_those_of_the_compiled_engine():
    rng = np.random.default_rng(1)
    streams = [random_stream(rng, 800) for _ in range(3)]
    alphas = [0.0, 0.5, 1.0]
    runs = play_late(streams, alphas)
    for stream, alpha, R, G, V in zip(
        streams, alphas, runs.rewards, runs.gains, runs.earned
    ):
        policy = AlphaFairGradient(3, alpha)
        run_fast(policy, stream)
        np.testing.assert_allclose(R, policy.rewards, rtol=1e-9)
        regret = G.max(1) - V
        assert (regret <= (2 - 1 / 3) * policy.squared_norms**0.5).all()
    assert (runs.missing == 0).all()


def test_a_copy_that_is_as_late_as_the_run_is_long_weighs_nothing():
    stream = random_stream(np.random.default_rng(2), 200)
    never, sums = play_late(stream, [0.9, 0.0], late=[10**6, 0]).rewards
    np.testing.assert_allclose(never, sums)
    at_once = play_late(stream, [0.9]).rewards[0]
    assert abs(at_once - never).max() > 1  # a check that a copy matters at all


@given(seed=seeds, n=st.integers(1, 7))
def test_rows_are_projected_as_one_by_one(seed, n):
    v = np.random.default_rng(seed).normal(size=(5, n)) * 3
    for row, found in zip(v, row_projections(v)):
        np.testing.assert_allclose(found, simplex_projection(row), atol=1e-12)
        np.testing.assert_allclose(found, by_bisection(row), atol=1e-9)


@pytest.mark.parametrize(
    ("given_arguments", "message"),
    [
        ({"alphas": [0.5, 2]}, "alpha is 2"),
        ({"late": -1}, "below 0"),
        ({"late": [1, 2, 3]}, "late is"),
        ({"late": 0.5}, "late is 0.5"),
        ({"shift": -1.0}, "below 0"),
        ({"shift": np.nan}, "NaN"),
        ({"shift": [1.0, 2.0, 3.0]}, "shift is"),
        ({"streams": 5}, "streams is"),
        ({"streams": [5, 5]}, "streams is"),
        ({"streams": []}, "streams is"),
        ({"streams": "x"}, "streams is"),
    ],
)
def test_runs_that_do_not_fit_are_refused(given_arguments, message):
    stream = random_stream(np.random.default_rng(3))
    arguments = {"streams": stream, "alphas": [0.5, 0.5]} | given_arguments
    with pytest.raises(ValueError, match=message):
        play_late(**arguments)


def test_streams_of_other_lengths_are_refused():
    rng = np.random.default_rng(4)
    with pytest.raises(ValueError, match="as many rounds"):
        play_late([random_stream(rng), random_stream(rng, 61)], [0.5, 0.5])


# --- what lateness costs ----------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(seed=seeds, alpha=st.floats(0, 0.95), most=st.integers(0, 200))
def test_no_run_loses_more_than_is_proved(seed, alpha, most):
    rng = np.random.default_rng(seed)
    stream = random_stream(rng, 200)
    shifts = np.array([0.0, late_shift(most, alpha), 7.0])
    late = rng.integers(most + 1, size=(3, 200))
    runs = play_late(stream, [alpha] * 3, late=late, shift=shifts)
    best = solve_offline(reward_sums(stream.contexts, stream.rewards, 2), alpha)
    U = alpha_fair_utility(runs.rewards, alpha)
    missed = best.utility - approximation_factor(alpha) * U
    R, S, D = runs[:3]
    bounds = late_state_bound(S, R, alpha, missing=D, shift=shifts)
    assert (missed <= bounds + 1e-9).all()
    explicit = late_state_bound(S, R, alpha, missing=most, shift=shifts)
    assert (explicit >= bounds - 1e-9).all()  # more that may be missing costs more
    roots = (1 - alpha) ** alpha * (2 - 1 / 3) * np.sqrt(S).sum(1)
    assert missed[1] <= roots[1] + late_cost(most, alpha, 3) + 1e-9


def test_up_to_date_the_bound_is_the_certificate():
    S, R = np.array([3.0, 5.0]), np.array([2.0, 7.0, 4.0])
    for alpha in (0.0, 0.4, 0.9):
        expected = certificate_bound(S, alpha, 3)
        np.testing.assert_allclose(late_state_bound(S, R, alpha), expected)


def test_the_bound_by_hand():
    """Alpha 1/2, one context, S = 4, two arms with R = 4, 2 missing, shift 3."""
    found = late_state_bound([4.0], [4.0, 4.0], 0.5, missing=2.0, shift=3.0)
    linear = 1.5 * 2 + 2 * (3 / 4**0.5 - 2 * 4**0.5 - 2 / 7**0.5)
    expected = 2**0.5 * 2 * (2 * 7**0.5 - 2 * 4**0.5) + 0.5**0.5 * linear
    np.testing.assert_allclose(found, expected)


def test_the_shift_is_the_best_one_in_the_worst_case():
    """Among all shifts, by a search over them, for arms that stay at 1 and others."""
    for alpha, late in product((0.2, 0.5, 0.9), (0, 3, 100)):
        shifts = np.linspace(0, 1.2 * late + 1, 20001)
        c = 1 + shifts

        def phi(u, a=alpha):
            return u ** (1 - a) / (1 - a)

        cost = approximation_factor(alpha) * (phi(c) - phi(1))
        cost += (1 - alpha) ** alpha * ((1 + late) * c**-alpha - phi(c))
        best = shifts[cost.argmin()]
        np.testing.assert_allclose(late_shift(late, alpha), best, atol=0.01)
        if late_shift(late, alpha) > 0:
            expected = late_cost(late, alpha, 1)
            np.testing.assert_allclose(cost.min(), expected, rtol=1e-6)


def test_the_cost_grows_like_a_power_of_lateness():
    costs = [late_cost(d, 0.75, 4) for d in (10**8, 10**12)]
    np.testing.assert_allclose(costs[1] / costs[0], 10, rtol=0.05)
    assert late_cost(0, 0.5, 3) == 0
    with pytest.raises(ValueError, match="late is -1"):
        late_cost(-1, 0.5, 3)
    with pytest.raises(ValueError, match="late is nan"):
        late_shift(float("nan"), 0.5)
    with pytest.raises(ValueError, match="alpha is 1"):
        late_cost(1, 1, 3)


# --- what it must cost ------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.4, 0.8])
def test_late_copies_lose_on_groups_what_is_proved_and_copies_that_are_not_do_not(
    alpha,
):
    sizes = 8, 4, 900, 0.7
    stream = group_stream(*sizes)
    shift = late_shift(900, alpha)
    runs = play_late(stream, [alpha] * 3, late=[0, 900, 900], shift=[0, 0, shift])
    U = alpha_fair_utility(runs.rewards, alpha)
    x = cp.Variable((2, 4), nonneg=True)  # each group's own arms alone pay
    pays = np.tile([1.0, 0.7, 0.7, 0.7], (2, 1)) * 901
    power = cp.power(1 + cp.multiply(pays, x), 1 - alpha, approx=False)
    problem = cp.Problem(
        cp.Maximize(cp.sum(power) / (1 - alpha)), [cp.sum(x, axis=1) == 1]
    )
    best = problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    missed = best - approximation_factor(alpha) * U
    floor = late_floor(*sizes, alpha)
    assert missed[0] < floor <= missed[1] + 1e-6
    np.testing.assert_allclose(missed[1], missed[2], rtol=1e-6)


def test_a_group_pays_alone_for_as_long_as_no_copy_tells():
    stream = group_stream(6, 3, 4, 0.25)
    assert stream.n_rounds == 10 and stream.n_contexts == 2
    np.testing.assert_array_equal(stream.contexts, np.repeat([0, 1], 5))
    np.testing.assert_array_equal(stream.rewards[4], [1, 0.25, 0.25, 0, 0, 0])
    np.testing.assert_array_equal(stream.rewards[5], [0, 0, 0, 1, 0.25, 0.25])
    for bad, message in (((7, 3, 4, 0.5), "size is 3"), ((6, 3, 4, 1.0), "pay is")):
        with pytest.raises(ValueError, match=message):
            group_stream(*bad)


# --- workers ----------------------------------------------------------------------


def test_workers_that_exchange_have_together_what_all_earned():
    rng = np.random.default_rng(5)
    stream, known = random_stream(rng, 300, contexts=6), np.full(3, 2.5)
    workers = [AlphaFairGradient(3, 0.6) for _ in range(3)]
    for worker in workers:
        worker.rewards = known
    earned, most, totals = np.zeros(3), 0.0, [known]
    for t in range(300):
        j = int(stream.contexts[t])
        worker = workers[j % 3]
        most = max(most, (2.5 + earned - worker.rewards).max())
        earned += worker.probabilities(j) * stream.rewards[t]
        worker.update(j, stream.rewards[t])
        if (t + 1) % 30 == 0:
            known = exchange(workers, known)
            totals.append(known)
            for one in workers:
                np.testing.assert_allclose(one.rewards, 2.5 + earned, rtol=1e-12)
    assert all((b >= a).all() for a, b in pairwise(totals))
    assert 0 < most < 30
    best = solve_offline(reward_sums(stream.contexts, stream.rewards, 6), 0.6).utility
    norms = np.concatenate([one.squared_norms for one in workers])
    bound = late_state_bound(norms, 1 + earned, 0.6, missing=most, shift=1.5)
    missed = best - approximation_factor(0.6) * alpha_fair_utility(1 + earned, 0.6)
    assert missed <= bound


def test_an_exchange_after_nothing_changes_nothing_and_too_much_known_is_refused():
    workers = [AlphaFairGradient(2, 0.5) for _ in range(2)]
    workers[0].update("a", [1.0, 0.0])
    known = exchange(workers, np.ones(2))
    np.testing.assert_array_equal(known, [1.5, 1.0])
    np.testing.assert_array_equal(exchange(workers, known), known)
    with pytest.raises(ValueError, match="known is"):
        exchange(workers, known + 1)
    with pytest.raises(ValueError, match="known is .*for each arm"):
        exchange(workers, np.ones(3))
    with pytest.raises(ValueError, match="known is .*for each arm"):
        exchange([*workers, AlphaFairGradient(3, 0.5)], known)


def test_a_copy_is_drawn_with_its_gap_closed_at_every_exchange():
    axes = Figure().subplots(2)
    plot_copy(axes, np.ones((2, 9)), 3, 0.5)
    have, known = (line.get_ydata() for line in axes[0].lines)
    np.testing.assert_array_equal(have - known, [1, 2, 0, 1, 2, 0, 1, 2, 0])
    weights = [line.get_ydata() for line in axes[1].lines]
    np.testing.assert_allclose(weights, [have**-0.5, known**-0.5])


# --- contexts ---------------------------------------------------------------------


def test_forgotten_learners_cost_what_the_lives_say():
    rng = np.random.default_rng(6)
    stream, policy = random_stream(rng, 600, contexts=9), AlphaFairGradient(3, 0.5)
    policy.max_contexts, norms, behind = 3, {}, {}
    lives = dict.fromkeys(range(9), 0)
    for j, r in zip(stream.contexts.tolist(), stream.rewards):
        lives[j] += j not in policy.learners
        g = policy.rewards**-0.5 * r
        x = policy.probabilities(j)
        behind[j] = behind.get(j, 0) + g - g @ x
        policy.update(j, r)
        norms[j, lives[j]] = policy.learners[j].squared_norms
    assert len(norms) > 100  # contexts come again and again
    regret = sum(b.max() for b in behind.values())
    total = (2 - 1 / 3) * sum(np.sqrt(list(norms.values())))
    assert 0 < regret <= total
    best = solve_offline(reward_sums(stream.contexts, stream.rewards, 9), 0.5).utility
    missed = best - 2**0.5 * alpha_fair_utility(policy.rewards, 0.5)
    assert missed <= certificate_bound(list(norms.values()), 0.5, 3)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, limit=st.integers(1, 7))
def test_lives_are_the_learners_that_a_limited_policy_begins(seed, limit):
    rng = np.random.default_rng(seed)
    stream, policy = random_stream(rng, 80, contexts=6), AlphaFairGradient(3, 0.5)
    policy.max_contexts, begun = limit, 0
    lives = lives_of(stream.contexts.tolist(), limit)
    for j, r, life in zip(stream.contexts.tolist(), stream.rewards, lives.tolist()):
        begun += j not in policy.learners
        assert life < begun and (j in policy.learners or life == begun - 1)
        policy.update(j, r)
    assert begun == lives.max() + 1
    relabelled = RewardStream(contexts=lives, rewards=stream.rewards, n_contexts=begun)
    other = AlphaFairGradient(3, 0.5)
    run_fast(other, relabelled)
    np.testing.assert_allclose(other.rewards, policy.rewards, rtol=1e-9)
    with pytest.raises(ValueError, match="limit is 0"):
        lives_of([], 0)


CONTEXTS = [0, 1, -1, 2**70, 0.5, "1", "", None, ("a", 1), ("a", "1"), (), ("a", (1,))]


def test_a_bucket_is_the_same_in_every_process():
    code = (
        "import sys, json; from prunefair.fairness.scale import bucket_of\n"
        f"print(json.dumps([bucket_of(c, 10**6, key=3) for c in {CONTEXTS!r}]))"
    )
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONHASHSEED": hashing},
                check=True,
                stdout=-1,
                text=True,
            ).stdout
        )
        for hashing in ("1", "2")
    ]
    assert found[0] == found[1] == [bucket_of(c, 10**6, key=3) for c in CONTEXTS]
    assert len(set(found[0])) == len(CONTEXTS)


@given(st.integers(-(2**60), 2**60))
def test_equal_contexts_have_one_bucket(n):
    assert bucket_of(n, 1000) == bucket_of(np.int64(n), 1000)
    if float(n) == n:
        assert bucket_of(n, 1000) == bucket_of(float(n), 1000)
    assert bucket_of(True, 1000) == bucket_of(1.0, 1000) == bucket_of((1), 1000)


def test_two_contexts_meet_as_seldom_as_at_random():
    """Over 400 keys, for 20 contexts and 16 buckets; six standard errors."""
    met, keys, n = 0, 400, 20
    for key in range(keys):
        buckets = np.array([bucket_of(j, 16, key=key) for j in range(n)])
        met += (buckets[:, None] == buckets).sum() - n
    share, pairs = met / (keys * n * (n - 1)), keys * n * (n - 1) / 2
    assert abs(share - 1 / 16) < 6 * (1 / 16 / pairs) ** 0.5
    with pytest.raises(ValueError, match="visits is .*negative"):
        collision_loss([3, -1], 2)
    with pytest.raises(ValueError, match="size is 8"):
        late_floor(15, 8, 100, 0.7, 0.5)
    for bad in ({"n_buckets": 0}, {"n_buckets": 4, "key": -1}):
        with pytest.raises(ValueError, match="is 0|is -1"):
            bucket_of("a", **bad)


def test_the_loss_by_collisions_bounds_the_rounds_that_collide():
    visits = np.array([50, 3, 20, 20, 1])
    expected = 20 * 1 / 4 + 20 * 2 / 4 + 3 * 3 / 4 + 1 * 4 / 4
    np.testing.assert_allclose(collision_loss(visits, 4), expected)
    order, lost = np.argsort(-visits), 0
    for h in product(range(4), repeat=5):
        seen = set()
        for j in order:
            lost += visits[j] if h[j] in seen else 0
            seen.add(h[j])
    assert lost / 4**5 <= collision_loss(visits, 4)


# --- the figure and the stored table ----------------------------------------------


def test_the_figure_leaves_out_what_is_no_loss():
    import matplotlib.pyplot as plt

    rows = {"10": [-1.0, -5.0, -2.0, 9.0], "100": [4.0, -5.0, 3.0, 20.0]}
    ax = plt.figure().subplots()
    assert plot_late_state(ax, rows) is ax
    bound, measured, floor = (line.get_ydata() for line in ax.lines)
    np.testing.assert_array_equal(bound, [9, 20])
    np.testing.assert_array_equal(measured, [np.nan, 4])
    np.testing.assert_array_equal(floor, [np.nan, 3])
    plt.close("all")


def test_what_is_left_of_runs_has_its_shapes():
    stream = random_stream(np.random.default_rng(7), contexts=4)
    runs = play_late(stream, [0.1, 0.2], late=3)
    assert isinstance(runs, LateRuns)
    shapes = [field.shape for field in runs]
    assert shapes == [(2, 3), (2, 4), (2, 3), (2, 4, 3), (2, 4)]
    played = AlphaFairGradient(3, 0.1)
    simulate(played, stream)
    assert (runs.rewards[0] >= 1).all()
