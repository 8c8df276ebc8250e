"""The reduction, the coupled policy and its bounds, on a suite of adversaries."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prunefair.fairness.adversaries import (
    adversaries,
    play_suite,
    probe_rewards,
)
from prunefair.fairness.full_information import (
    AlphaFairGradient,
    _worst_by_alpha,
    approximation_factor,
    certificate_bound,
    context_norms,
    context_regrets,
    context_sums,
    linear_regret,
    norms_bound,
    plot_bounds,
    plot_factor,
    plot_growth,
    reduction_slack,
    regret_bound,
    surrogate_gradients,
    surrogate_weights,
    telescoping_excess,
    utility_ceiling,
)
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.online_gradient import regret_factor, simplex_projection
from prunefair.fairness.simulation import Game, RewardStream, play_game, simulate
from prunefair.fairness.utility import alpha_fair_utility

ALPHAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
SHAPES = ((1, 2), (3, 4))
ROUNDS = 120


def optimal_map(game, rounds=None):
    G = reward_sums(game.contexts[:rounds], game.rewards[:rounds], game.n_contexts)
    return solve_offline(G, game.alpha).x


@pytest.fixture(scope="module", params=["before", "after"])
def games(request):
    rng = np.random.default_rng(1)
    return list(
        play_suite(
            AlphaFairGradient,
            ALPHAS,
            SHAPES,
            ROUNDS,
            deltas=(0.0, 0.2),
            rng=rng,
            weights=request.param,
        )
    )


def stream(rounds, n_contexts, n_arms, seed=0):
    rng = np.random.default_rng(seed)
    return RewardStream(
        contexts=rng.integers(n_contexts, size=rounds),
        rewards=rng.random((rounds, n_arms)),
        n_contexts=n_contexts,
    )


# --- the theorems on the suite


def test_the_suite_is_what_the_book_says(games):
    names = {name for name, _ in games}
    assert len(names) == 12
    assert len(games) == 12 * len(ALPHAS) * len(SHAPES) * 2
    for _, game in games:
        assert game.rewards.min() >= 0 and game.rewards.max() <= 1
        assert game.contexts.max() < game.n_contexts
        np.testing.assert_allclose(game.points.sum(1), 1, atol=1e-12)


def test_the_telescoping_lemma_holds_at_every_round(games):
    for _, game in games:
        excess = telescoping_excess(game)
        assert excess.max() < 1e-12
        np.testing.assert_allclose(excess[0], 0, atol=1e-14)


def test_the_telescoping_lemma_rejects_rewards_above_the_initial_one():
    cumulative = np.concatenate([[1.0], 1 + 4.0 * np.arange(1, 50)])[:, None]
    game = Game(
        contexts=np.zeros(49, dtype=int),
        rewards=np.full((49, 1), 4.0),
        points=np.ones((49, 1)),
        cumulative=cumulative,
        n_contexts=1,
        alpha=0.5,
    )
    assert telescoping_excess(game).max() > 0.1


@given(
    arrays(np.float64, (30, 2), elements=st.floats(0, 1)),
    arrays(np.float64, 30, elements=st.floats(0, 1)),
    st.sampled_from(ALPHAS),
    st.sampled_from(["before", "after"]),
)
def test_the_telescoping_lemma_holds_for_any_policy(rewards, first, alpha, weights):
    points = np.stack([first, 1 - first], axis=1)
    cumulative = 1 + np.concatenate([np.zeros((1, 2)), np.cumsum(rewards * points, 0)])
    contexts = np.arange(30) % 2
    game = Game(contexts, rewards, points, cumulative, 2, alpha, weights)
    assert telescoping_excess(game).max() < 1e-12
    for fixed_map in (np.eye(2), np.eye(2)[::-1], np.full((2, 2), 0.5)):
        assert reduction_slack(game, fixed_map).min() > -1e-12


def test_the_reduction_holds_at_every_round_for_the_optimum_and_other_maps(games):
    for _, game in games:
        n_arms = game.rewards.shape[1]
        maps = [optimal_map(game), optimal_map(game, 30)]
        maps += [np.tile(arm, (game.n_contexts, 1)) for arm in np.eye(n_arms)]
        for fixed_map in maps:
            assert reduction_slack(game, fixed_map).min() > -1e-12


def test_the_reduction_rejects_a_smaller_factor():
    """With a factor of one the statement is false: two phases, nested sets."""
    contexts = np.repeat([0, 1], 2000)
    rewards = np.ones((4000, 2))
    rewards[2000:, 0] = 0
    data = RewardStream(contexts=contexts, rewards=rewards, n_contexts=2)
    policy = AlphaFairGradient(2, 0.5)
    simulate(policy, data)
    best = solve_offline(reward_sums(contexts, rewards, 2), 0.5).utility
    utility = alpha_fair_utility(policy.rewards, 0.5)
    bound = certificate_bound(policy.squared_norms, 0.5, 2)
    assert best - approximation_factor(0.5) * utility <= bound
    assert best - utility > bound


def test_each_learner_keeps_its_regret_bound_at_every_round(games):
    for _, game in games:
        kappa = regret_factor(game.rewards.shape[1], nonnegative=True)
        bound = kappa * np.sqrt(context_norms(game))
        assert (context_regrets(game) <= bound + 1e-12).all()


def test_the_certificate_holds_at_every_round_for_the_final_optimum(games):
    for _, game in games:
        earned = 1 + np.cumsum(game.rewards * optimal_map(game)[game.contexts], axis=0)
        fair = alpha_fair_utility(game.cumulative[1:], game.alpha)
        left = alpha_fair_utility(earned, game.alpha)
        left = left - approximation_factor(game.alpha) * fair
        bound = certificate_bound(context_norms(game), game.alpha, earned.shape[1])
        assert (left <= bound + 1e-12).all()


def test_the_centred_certificate_holds():
    rng = np.random.default_rng(2)
    for _, game in play_suite(
        AlphaFairGradient, (0.2, 0.8), SHAPES, 150, rng=rng, step="centred"
    ):
        g = surrogate_gradients(game)
        norms = context_sums(game, ((g - g.mean(1, keepdims=True)) ** 2).sum(1))
        bound = 2 * np.sqrt(norms)
        assert (context_regrets(game) <= bound + 1e-12).all()
        N = game.rewards.shape[1]
        slack = certificate_bound(norms[-1], game.alpha, N, centred=True)
        G = reward_sums(game.contexts, game.rewards, game.n_contexts)
        fair = alpha_fair_utility(game.cumulative[-1], game.alpha)
        best = solve_offline(G, game.alpha).utility
        assert best - approximation_factor(game.alpha) * fair <= slack


def test_the_self_bounding_lemma_holds_at_every_round(games):
    for _, game in games:
        g, N = surrogate_gradients(game), game.rewards.shape[1]
        V = context_sums(game, (g * game.points).sum(1))
        assert (V.sum(1) <= alpha_fair_utility(game.cumulative[1:], game.alpha)).all()
        root = np.sqrt(context_norms(game))
        assert (root <= 1.5 * (N - 1) + np.sqrt(N * V) + 1e-12).all()


def test_the_explicit_bound_is_above_every_certificate(games):
    for _, game in games:
        (T, N), M = game.rewards.shape, game.n_contexts
        certified = certificate_bound(context_norms(game), game.alpha, N)
        bound = regret_bound(np.arange(1, T + 1), M, N, game.alpha)
        assert (certified <= bound).all()


def test_growth_and_norms_are_bounded_when_rewards_are(games):
    seen = 0
    for _, game in games:
        (T, N), M, delta = game.rewards.shape, game.n_contexts, game.rewards.min()
        if delta == 0:
            continue
        seen += 1
        t, R = np.arange(1, T + 1), game.cumulative[1:]
        top = 2 * alpha_fair_utility(R, game.alpha) + 4 * N * M
        assert (surrogate_weights(R.min(1), game.alpha) * delta * t <= top).all()
        norms = context_norms(game)
        bound = norms_bound(t, M, N, game.alpha, delta) * (1 + 1e-12)
        assert (norms.sum(1) <= bound).all()
        certified = certificate_bound(norms, game.alpha, N)
        bound = regret_bound(t, M, N, game.alpha, delta=delta)
        assert (certified <= bound + 1e-9).all()
    assert seen >= len(games) / 2


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_the_growth_bound_holds_where_it_is_below_one(alpha):
    opponent = adversaries(1, 2, 4000, delta=0.5, rng=np.random.default_rng(3))
    game = play_game(AlphaFairGradient(2, alpha), opponent["bernoulli"], 4000, 1)
    t, R = np.arange(1, 4001), game.cumulative[1:]
    ceiling = (2 * alpha_fair_utility(R, alpha) + 4 * 2) / (0.5 * t)
    assert ceiling[-1] < 1 or alpha < 0.5
    assert (surrogate_weights(R.min(1), alpha) <= ceiling).all()


@pytest.mark.parametrize("alpha", [0.5, 0.7, 0.9])
def test_the_phase_bound_holds_where_it_says_more_than_the_number_of_rounds(alpha):
    T, M, N, delta = 1000, 1, 2, 0.9
    t = np.arange(1, T + 1)
    bound = norms_bound(t, M, N, alpha, delta)
    assert bound[-1] < 0.97 * N * T
    suite = adversaries(M, N, T, delta=delta, rng=np.random.default_rng(11))
    for name in ("bernoulli", "least played", "poor", "probe"):
        norms = context_norms(play_game(AlphaFairGradient(N, alpha), suite[name], T, M))
        assert (norms.sum(1) <= bound * (1 + 1e-12)).all()
        certified = certificate_bound(norms, alpha, N)
        known = regret_bound(t, M, N, alpha, delta=delta)
        assert (certified <= known + 1e-9).all()
    flat = context_norms(play_game(AlphaFairGradient(N, 0.0), suite["ones"], T, M))
    assert flat[-1, 0] > bound[-1]  # without weights the bound is broken


# --- the probe


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.8, 0.95])
def test_probing_keeps_norms_and_regret_growing(alpha):
    def probe(t, policy):
        return 0, probe_rewards(policy.probabilities(0), policy.rewards)

    T = 6000
    game = play_game(AlphaFairGradient(2, alpha), probe, T, 1)
    S, t = context_norms(game)[:, 0], np.arange(1, T + 1)
    assert ((t - 1) / (2 + 2**0.5 * (1 + t) ** alpha) <= S).all()
    assert (8 * linear_regret(game, np.eye(2)[:1]) >= np.sqrt(S) - 4).all()
    assert game.cumulative[-1, 1] < 1.5 + 1e-6  # the probed arm stays poor
    cycles = np.diff(np.flatnonzero(game.rewards[:, 1] == 1))
    if len(cycles):
        assert cycles.max() <= 2 + 2**0.5 * (1 + T) ** alpha


def test_norms_stop_growing_above_one_half_only_without_the_probe():
    rng = np.random.default_rng(4)
    growth = {}
    for name, delta in (("bernoulli", 0.1), ("probe", 0.0)):
        opponent = adversaries(1, 2, 8000, delta=delta, rng=rng)[name]
        S = context_norms(play_game(AlphaFairGradient(2, 0.7), opponent, 8000, 1))[:, 0]
        growth[name] = np.log2(S[-1] / S[999]) / 3
    assert growth["bernoulli"] < 0.05
    assert growth["probe"] == pytest.approx(0.3, abs=0.05)


# --- constants


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5, 1 - 1 / np.e, 0.9])
def test_the_factor_is_the_least_over_beta_by_a_geometric_program(alpha):
    beta = cp.Variable(pos=True)
    problem = cp.Problem(cp.Minimize(alpha * beta ** (alpha - 1) + beta**alpha))
    problem.solve(gp=True, solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    np.testing.assert_allclose(problem.value, approximation_factor(alpha), rtol=1e-6)


def test_the_factor_at_its_ends_and_at_its_top():
    assert approximation_factor(0) == 1
    assert approximation_factor(0.5) == pytest.approx(2**0.5)
    assert approximation_factor(1 - 1e-9) == pytest.approx(1, abs=1e-7)
    top = max(approximation_factor(a) for a in np.linspace(0, 0.999, 2000))
    assert top <= np.exp(1 / np.e) == pytest.approx(1.4447, abs=1e-4)
    assert approximation_factor(1 - 1 / np.e) == pytest.approx(np.exp(1 / np.e))


@pytest.mark.parametrize("function", [approximation_factor, utility_ceiling])
def test_alpha_must_be_below_one_where_the_theory_needs_it(function):
    arguments = (5, 2) if function is utility_ceiling else ()
    for alpha in (1, 1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match="alpha is"):
            function(*arguments, alpha)


def test_bounds_refuse_bad_arguments():
    with pytest.raises(ValueError, match="alpha is 1"):
        certificate_bound([1.0], 1, 2)
    with pytest.raises(ValueError, match="n_arms is 0"):
        certificate_bound([1.0], 0.5, 0)
    for delta in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="delta is .*must lie in"):
            norms_bound(10, 1, 2, 0.5, delta)
        with pytest.raises(ValueError, match="delta is .*must lie in"):
            regret_bound(10, 1, 2, 0.5, delta=delta)
    with pytest.raises(ValueError, match="delta is 0"):
        norms_bound(10, 1, 2, 0.5, 0.0)
    game = play_game(AlphaFairGradient(2, 1.0), lambda t, p: (0, np.ones(2)), 3, 1)
    with pytest.raises(ValueError, match="alpha is 1"):
        reduction_slack(game, np.full((1, 2), 0.5))


def test_the_utility_ceiling_is_the_optimum_of_an_all_ones_game():
    G = np.full((2, 5), 40.0)  # 80 rounds in which every arm pays 1
    for alpha in (0.0, 0.3, 0.9):
        best = solve_offline(G, alpha).utility
        np.testing.assert_allclose(utility_ceiling(80, 5, alpha), best, rtol=1e-8)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_the_norms_bound_equals_its_formula_written_out(alpha):
    M, N, delta = 2, 3, 0.25
    start = 4 * N * M / delta
    for T in (10, 100, 10_000):
        u = np.linspace(start, max(T, start), 200_001)
        y = u ** (-2 * alpha)
        integral = ((y[1:] + y[:-1]) / 2 * np.diff(u)).sum()
        slope = 8 * 4 ** (1 - alpha) * N ** (2 * alpha) / ((1 - alpha) * delta) ** 2
        value = N * min(T, start + 1 + 8 * N * M / delta + slope * integral)
        np.testing.assert_allclose(norms_bound(T, M, N, alpha, delta), value, rtol=1e-5)


@pytest.mark.parametrize(("alpha", "order"), [(0.2, 0.3), (0.5, 0.0), (0.8, 0.0)])
def test_the_regret_bound_has_the_order_of_the_theorem(alpha, order):
    T = np.array([1e13, 1e15])
    bound = regret_bound(T, 1, 2, alpha, delta=0.5)
    exponent = np.diff(np.log(bound))[0] / np.diff(np.log(T))[0]
    assert exponent == pytest.approx(order, abs=0.03)
    free = regret_bound(T, 1, 2, alpha)
    assert (bound <= free).all()
    exponent = np.diff(np.log(free))[0] / np.diff(np.log(T))[0]
    assert exponent == pytest.approx((1 - alpha) / 2, abs=0.03)


def test_centring_makes_the_factor_two():
    args = ([4.0, 9.0], 0.5, 3)
    plain, centred = certificate_bound(*args), certificate_bound(*args, centred=True)
    assert plain == pytest.approx(0.5**0.5 * ((2 - 1 / 3) * 5 - 3))
    assert centred == pytest.approx(0.5**0.5 * (2 * 5 - 3))


# --- measuring a game, against loops


def test_measures_of_a_game_equal_plain_loops():
    opponent = adversaries(3, 4, 50, rng=np.random.default_rng(5))["uniform"]
    game = play_game(AlphaFairGradient(4, 0.6), opponent, 50, 3)
    fixed_map = np.random.default_rng(6).dirichlet(np.ones(4), size=3)
    R, S, total, linear = np.ones(4), np.zeros(3), np.zeros((3, 4)), 0.0
    won = np.zeros(3)
    for t in range(50):
        j, r, x = game.contexts[t], game.rewards[t], game.points[t]
        g = r * R**-0.6
        np.testing.assert_allclose(surrogate_gradients(game)[t], g)
        S[j] += g @ g
        total[j] += g
        won[j] += g @ x
        linear += g @ (fixed_map[j] - x)
        R = R + r * x
        np.testing.assert_allclose(context_norms(game)[t], S)
        np.testing.assert_allclose(context_regrets(game)[t], total.max(1) - won)
        np.testing.assert_allclose(linear_regret(game, fixed_map)[t], linear)
        np.testing.assert_allclose(game.cumulative[t + 1], R)


def test_worst_by_alpha_takes_the_largest():
    base = Game(*[np.zeros(1)] * 4, 1, 0.3)
    named = [
        ("a", base),
        ("b", base._replace(n_contexts=5)),
        ("a", base._replace(alpha=0.5)),
    ]
    assert _worst_by_alpha(named, lambda game: game.n_contexts) == {0.3: 5, 0.5: 1}


# --- the policy


def test_the_policy_by_hand():
    policy = AlphaFairGradient(2, 0.5)
    policy.update("a", [1, 0])
    np.testing.assert_allclose(policy.probabilities("a"), [1, 0])
    policy.update("a", [0, 1])
    np.testing.assert_allclose(policy.rewards, [1.5, 1])
    np.testing.assert_allclose(policy.probabilities("a")[1], 8**-0.5)
    np.testing.assert_allclose(policy.squared_norms, [2])


@pytest.mark.parametrize("weights", ["before", "after"])
@pytest.mark.parametrize("step", ["squared", "centred", "released"])
def test_the_policy_equals_a_loop_over_arrays(step, weights):
    data, alpha = stream(400, 5, 4), 0.7
    policy = AlphaFairGradient(4, alpha, step=step, weights=weights)
    result = simulate(policy, data, n_points=400)
    R, x, total = np.ones(4), np.full((5, 4), 0.25), np.zeros(5)
    for t, (j, r) in enumerate(zip(data.contexts, data.rewards)):
        after = R + r * x[j]
        g = r * (R if weights == "before" else after) ** -alpha
        if step == "released":
            total[j] += np.linalg.norm(g)
        elif step == "centred":
            g = g - g.mean()
            total[j] += g @ g
        else:
            total[j] += g @ g
        x[j] = simplex_projection(x[j] + g / np.sqrt(total[j]))
        R = after
        np.testing.assert_allclose(result.rewards[t], R, rtol=1e-12)
    np.testing.assert_allclose(sorted(policy.squared_norms), sorted(total), rtol=1e-12)


def test_the_conventions_and_the_steps_play_differently():
    data = stream(300, 2, 3)
    finals = []
    for step in ("squared", "centred", "released"):
        for weights in ("before", "after"):
            policy = AlphaFairGradient(3, 0.8, step=step, weights=weights)
            finals.append(simulate(policy, data).rewards[-1])
    finals = np.array(finals)
    apart = abs(finals[:, None] - finals[None]).max(2) + 10 * np.eye(6)
    assert apart.min() > 1e-3


def test_alpha_zero_ignores_the_other_contexts():
    data = stream(200, 2, 3)
    both, alone = AlphaFairGradient(3, 0.0), AlphaFairGradient(3, 0.0)
    simulate(both, data)
    for r in data.rewards[data.contexts == 1]:
        alone.update(1, r)
    np.testing.assert_array_equal(both.probabilities(1), alone.probabilities(1))


def test_contexts_are_coupled_through_the_rewards():
    """What one context earned lowers the weight of the same arm in another."""
    rich, fresh = AlphaFairGradient(2, 0.9), AlphaFairGradient(2, 0.9)
    for _ in range(200):
        rich.update("first", [1, 0])
    for policy in (rich, fresh):
        policy.update("second", [1, 0.5])
    assert rich.probabilities("second")[0] < 0.5 < fresh.probabilities("second")[0]


def test_small_rewards_are_learnt_by_the_squared_step_and_not_by_the_released_one():
    contexts = np.arange(2000) % 2
    rewards = 1e-3 * np.eye(2)[contexts]  # each context has its own arm
    data = RewardStream(contexts=contexts, rewards=rewards, n_contexts=2)
    best = solve_offline(reward_sums(contexts, rewards, 2), 0.9).utility
    gaps = {}
    for step in ("squared", "released"):
        policy = AlphaFairGradient(2, 0.9, step=step)
        final = simulate(policy, data).rewards[-1]
        gaps[step] = best - alpha_fair_utility(final, 0.9)
    assert gaps["squared"] < 0.01 * gaps["released"]


@pytest.mark.parametrize("step", ["squared", "centred", "released"])
def test_the_policy_resumes_bit_for_bit(tmp_path, step):
    data = stream(100, 3, 4)
    whole, first = (AlphaFairGradient(4, 0.4, step=step, weights="after") for _ in "ab")
    simulate(whole, data)
    for j, r in zip(data.contexts[:50].tolist(), data.rewards[:50]):
        first.update(j, r)
    first.save(tmp_path / "policy.npz")
    second = AlphaFairGradient.load(tmp_path / "policy.npz")
    assert second.config() == whole.config()
    for j, r in zip(data.contexts[50:].tolist(), data.rewards[50:]):
        second.update(j, r)
    np.testing.assert_array_equal(second.rewards, whole.rewards)
    for j in range(3):
        np.testing.assert_array_equal(second.probabilities(j), whole.probabilities(j))


def test_what_a_caller_does_with_the_distribution_changes_no_state():
    policy = AlphaFairGradient(3, 0.5)
    policy.update(0, [1, 0, 0])
    before = policy.probabilities(0).copy()
    policy.probabilities(0)[:] = 7
    np.testing.assert_array_equal(policy.probabilities(0), before)


@pytest.mark.parametrize("bad", [[1, 0], [0.1, 0.2, 1.5], [0, 0, np.nan], [-1, 0, 0]])
def test_bad_rewards_leave_the_policy_unchanged(bad):
    policy = AlphaFairGradient(3, 0.5)
    policy.update(0, [1, 0, 0])
    before = policy.rewards.copy(), policy.probabilities(0)
    with pytest.raises(ValueError, match="rewards"):
        policy.update(0, bad)
    np.testing.assert_array_equal(policy.rewards, before[0])
    np.testing.assert_array_equal(policy.probabilities(0), before[1])


def test_the_policy_refuses_bad_arguments():
    with pytest.raises(ValueError, match="step is 'cubed'; take squared"):
        AlphaFairGradient(3, 0.5, step="cubed")
    with pytest.raises(ValueError, match="weights is 'during'; take before"):
        AlphaFairGradient(3, 0.5, weights="during")
    with pytest.raises(ValueError, match="alpha is -1"):
        AlphaFairGradient(3, -1)
    with pytest.raises(ValueError, match="n_arms is 0"):
        AlphaFairGradient(0, 0.5)


# --- figures


def test_figures_draw_one_line_for_each_entry():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert plot_factor(ax, (0.2, 0.6)) is ax
    assert len(ax.lines) == 4
    ax = Figure().add_subplot()
    assert plot_bounds(ax, np.arange(3), {"a": np.ones(3)}) is ax
    assert ax.get_xlabel() == "round"
    ax = Figure().add_subplot()
    assert plot_growth(ax, np.arange(1, 4), {0.5: np.ones(3), 0.9: np.ones(3)}) is ax
    assert len(ax.lines) == 2 and ax.get_yscale() == "log"
