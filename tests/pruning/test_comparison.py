"""The comparison's estimates and errors, and the benchmark that works in pieces."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pruning_methods
import pytest
import torch
from scipy import stats
from test_spectral_pruning import read_text

from prunefair.pruning import selections
from prunefair.pruning.comparison import (
    perplexities,
    perplexity_factor,
    plot_intervals,
    plot_methods,
    wanda_scores,
)
from prunefair.pruning.estimates import Range
from prunefair.pruning.perplexity import log_perplexity
from prunefair.pruning.records import (
    ModelRecord,
    common_questions,
    records_by_method,
    task_results,
)
from prunefair.pruning.retention import above_chance_retention
from prunefair.pruning.surgery import ADAPTERS, adapter_for, tiny_model
from prunefair.pruning.zero_shot import Question

ROOT = Path(__file__).resolve().parents[2]
SHOWN = {"seed": 0, "ratio": 0.3, "parameters": 9, "seconds": 1.5, "ks": 0.25}


def record(method="a", **fields):
    return ModelRecord(method=method, **SHOWN | fields)


@pytest.mark.parametrize("family", ADAPTERS)
def test_wanda_scores_are_root_mean_squares_times_absolute_column_sums(family):
    model, tokens, linears, hidden = read_text(family)
    for linear, h, scores in zip(
        linears, hidden, wanda_scores(model, tokens), strict=True
    ):
        D = linear.weight.detach()
        expected = [
            float(h[:, i].square().mean().sqrt() * D[:, i].double().abs().sum())
            for i in range(12)
        ]
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_a_neuron_without_a_column_has_score_zero():
    model = tiny_model("llama", generator=torch.Generator().manual_seed(2))
    adapter_for(model).linears(model.model.layers[0].mlp)[-1].weight.data[:, 3] = 0
    assert wanda_scores(model, torch.arange(3, 20)[None])[0][3] == 0


def test_perplexities_use_the_geometric_mean_over_seeds():
    group = [record(nats=[10.0, 10]), record(nats=[30.0, 30])]
    found = perplexities(group, [10, 10], 2)
    np.testing.assert_allclose(
        [found.value, found.low, found.high], np.exp([2.0, 1, 3]), rtol=1e-12
    )
    with pytest.raises(ValueError, match="windows is 3, but a model has read 2"):
        perplexities(group, [10, 10, 10], 3)


def test_a_factor_is_paired_over_the_windows_that_both_have_read():
    rng, counts = np.random.default_rng(1), [1000] * 30
    hard = rng.normal(4000, 500, size=30)  # nats of a window
    slow, fast = record(nats=list(hard + 300)), record(nats=list(hard[:20]))
    factor = perplexity_factor([slow], fast, counts)
    np.testing.assert_allclose([factor.low, factor.high], np.exp(0.3))
    extra = rng.normal(0, 40, size=20)
    near = record(nats=list(hard[:20] + extra))
    factor = perplexity_factor([near], fast, counts)
    half = 1.96 * stats.sem(extra / 1000)
    np.testing.assert_allclose(np.log(factor.value), extra.mean() / 1000)
    np.testing.assert_allclose(np.log(factor.high / factor.low), 2 * half)
    both = perplexity_factor([slow, near], fast, counts)
    np.testing.assert_allclose(np.log(both.value), (0.3 + extra.mean() / 1000) / 2)
    assert both.low == factor.low and np.isclose(both.high, np.exp(0.3))


def test_figures_have_a_mark_for_every_method():
    import matplotlib.pyplot as plt

    points = {r: Range(value=2.0, low=1.0, high=3.0) for r in (0.1, 0.3)}
    _, ax = plt.subplots()
    plot_methods(ax, {"a": points, "b": points})
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    for container in ax.containers:  # from the lowest end to the highest, around 2
        (bars,) = container.lines[2]
        ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
        assert ends == [[1, 3], [1, 3]]
    plt.close("all")


def test_open_dots_are_the_calibrated_methods_and_the_first_is_on_top():
    import matplotlib.pyplot as plt

    found = {m: Range(value=2.0, low=1.0, high=4.0) for m in ("own", "seen")}
    _, ax = plt.subplots()
    plot_intervals(ax, found, ["seen"])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["own", "seen"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() for dot in dots] == ["C0", "white"]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 4])
    plt.close("all")


def test_stored_table_meets_both_aims_without_outside_text():
    """Perplexity at most 38 where dense is 23.7, and 60 % of the accuracy is kept."""
    table = json.loads((ROOT / "book/results/pruning_methods.json").read_text())
    records = [ModelRecord.from_json(values) for values in table["models"]]
    groups, counts = records_by_method(records, 0.3), table["windows"]
    own = perplexity_factor(groups["functional, re-fitted"], records[0], counts)
    wanda = perplexity_factor(groups["wanda"], records[0], counts)
    assert records[0].method == "dense" and len(records[0].nats) == len(counts)
    assert own.high < 38 / 23.7 and own.high < wanda.low
    model, questions = groups["functional, re-fitted"][0], table["questions"]
    assert common_questions([model, records[0]]) == questions
    results = [task_results(r, questions) for r in (model, records[0])]
    for rule in ("acc", "acc_norm"):
        assert above_chance_retention(*results, metric=rule).value > 0.6


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The benchmark on a tiny model, a short text and a few questions."""
    module = importlib.reload(pruning_methods)

    class Tokenizer:
        bos_token_id = 1

        def encode(self, text, add_special_tokens=False, verbose=False):
            return [3 + ord(c) % 29 for c in text]

    def text(tokenizer, split="test"):
        return torch.arange(3, 3 + 16 * 1024 * (split != "test") + 400) % 29 + 3

    def model(name, dtype=None, device="cpu"):
        generator = torch.Generator().manual_seed(0)
        options = {"max_position_embeddings": 1024, "tie_word_embeddings": True}
        return tiny_model("llama", generator=generator, **options)

    def few(model, tokens):
        return wanda_scores(model, tokens[:, :60])

    sample = [Question((f"q{i}",) * 2, ("one", "other"), i % 2) for i in range(6)]
    same_end = [Question((f"q{i}", f"r{i}"), ("end",) * 2, i % 2) for i in range(6)]
    monkeypatch.setattr(module, "load_model", model)
    monkeypatch.setattr(module, "load_tokenizer", lambda name: Tokenizer())
    monkeypatch.setattr(module, "wikitext_tokens", text)
    questions = {"winogrande": same_end}  # a task without the second rule
    monkeypatch.setattr(module, "task_questions", lambda x: questions.get(x, sample))
    monkeypatch.setattr(selections, "wanda_scores", few)
    monkeypatch.setattr(module, "SEEDS", (0,))
    monkeypatch.setattr(module, "BY_MOMENTS", (module.ON_TEXT, "energy", "functional"))
    monkeypatch.setattr(module, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    for configuration in module.CONFIGURATIONS.values():
        sizes = {"self_texts": [4, 16], "window": 50, "samples": [2, 8]}
        for name, size in sizes.items():
            monkeypatch.setitem(configuration, name, size)
    return module


def run(module, monkeypatch, minutes, *options):
    arguments = ["x", "--device", "cpu", "--minutes", str(minutes), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    module.main()
    path = options[options.index("--results") + 1] if options else module.RESULT
    table = json.loads(Path(path).read_text())
    return table, [ModelRecord.from_json(values) for values in table["models"]]


def test_the_benchmark_resumes_to_what_one_run_gives(bench, monkeypatch):
    from prunefair.pruning.perplexity import perplexity

    early, none = run(bench, monkeypatch, 0)
    assert len(none) == 1 + 4 * (6 + 2 * 3 + 1) and not any(
        r.nats or r.answers for r in none
    )
    monkeypatch.setattr(bench, "STAGES", [(2, 1, 3)])
    _, some = run(bench, monkeypatch, 5)
    assert {len(r.nats) for r in some} == {1, 2}
    monkeypatch.setattr(bench, "STAGES", [(10**6, 10**6, 10**6)])
    table, resumed = run(bench, monkeypatch, 5)
    assert {len(r.nats) for r in resumed} == {len(table["windows"])} == {8}
    assert all(len(r.answers["piqa"][0]) == 6 for r in resumed if r.ratio in (0, 0.3))
    bench.RESULT.unlink()
    _, whole = run(bench, monkeypatch, 5)
    untimed = [[replace(r, seconds=0.0) for r in rs] for rs in (resumed, whole)]
    assert untimed[0] == untimed[1]
    dense = resumed[0]
    found = np.exp(log_perplexity(dense.nats, table["windows"]).value)
    truth = perplexity(bench.load_model("x"), bench.wikitext_tokens(None), window=50)
    np.testing.assert_allclose(found, truth, rtol=1e-4)
    assert dense.kl == [0, 0] and all(min(r.kl) > 0 for r in resumed[1:])
    sliced = {r.ratio: r.parameters for r in resumed if r.method == "SliceGPT"}
    shares = {r.ratio: r.parameters for r in resumed if r.method != "SliceGPT"}
    assert all(0.85 * shares[r] < n <= shares[r] for r, n in sliced.items())
    assert sorted(shares.values()) == [shares[r] for r in (0.3, 0.25, 0.2, 0.1, 0.0)]


def test_the_second_model_has_a_table_of_its_own_and_reads_from_a_beginning(
    bench, monkeypatch, tmp_path
):
    from prunefair.pruning.perplexity import perplexity

    plain = bench.load_tokenizer("x")

    class Tokenizer(type(plain)):  # puts a token before a text
        def encode(self, text, add_special_tokens=True, **options):
            return [1] * add_special_tokens + super().encode(text)

    monkeypatch.setattr(bench, "load_tokenizer", lambda name: Tokenizer())
    monkeypatch.setattr(bench, "STAGES", [(10**6, 10**6, 2)])
    options = ["--model", "gemma3", "--ratios", "0.3"]
    options += ["--results", str(tmp_path / "second.json")]
    table, records = run(bench, monkeypatch, 5, *options)
    assert not bench.RESULT.exists() and table["configuration"]["model"] == "gemma3"
    assert {r.ratio for r in records} == {0, 0.3}
    names = [*dict(bench.methods())]
    assert {r.method for r in records} == {"dense", *names} - {"SliceGPT"}
    found = np.exp(log_perplexity(records[0].nats, table["windows"]).value)
    text, model = bench.wikitext_tokens(None), bench.load_model("x")
    truth = perplexity(model, text, window=50, beginning=[1])
    np.testing.assert_allclose(found, truth, rtol=1e-4)
    assert sum(table["windows"]) == len(text)  # the beginning comes before the first
    calibration = bench.Bench("cpu", "gemma3").calibration()
    assert calibration.shape == (8, 1024) and set(calibration[:, 0].tolist()) == {1}
    read = bench.wikitext_tokens(None, "validation")[: 8 * 1023]
    assert torch.equal(calibration[:, 1:].flatten(), read)
    with pytest.raises(SystemExit, match="another .*model.* and does not belong"):
        run(bench, monkeypatch, 0, "--results", str(tmp_path / "second.json"))


def test_only_the_seeds_that_are_asked_for_are_measured(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SEEDS", (0, 1))
    options = ["--only", "random", "row norm", "--ratios", "0.3", "--seeds", "1"]
    options += ["--results", str(tmp_path / "some.json")]
    _, records = run(bench, monkeypatch, 0, *options)
    found = [(r.method, r.seed) for r in records]
    assert found == [("dense", None), ("row norm", None), ("random", 1)]


def test_statistics_are_those_of_the_functional_pruner(bench, monkeypatch):
    from prunefair.pruning.functional_pruning import self_statistics

    benchmark = bench.Bench("cpu")
    found = benchmark.statistics("energy", 5)
    drawn = {"generator": torch.Generator().manual_seed(5)}
    truth = self_statistics(benchmark.model, n_texts=4, length=16, **drawn)
    for ours, theirs in zip(found.fisher, truth.fisher, strict=True):
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(found.halves, truth.halves, strict=True):
        assert ours.tokens == theirs.tokens
        torch.testing.assert_close(ours.second, [*theirs.second])


def test_two_runs_of_the_benchmark_keep_what_the_other_has_stored(bench, monkeypatch):
    monkeypatch.setattr(bench, "STAGES", [(2, 1, 3)])
    table, records = run(bench, monkeypatch, 5)
    ours, size, dense = bench.by_model(table), len(records), records[0].nats
    # another run reads on while ours does not, and has a model that ours has not
    table["models"][0]["nats"] = [*dense, 7.0]
    del table["models"][1]["answers"]["piqa"]
    added = table["models"][1] | {"seed": 9}
    table["models"].append(added)
    bench.RESULT.write_text(json.dumps(table))
    ours["wanda", None, 0.3].nats.append(5.0)
    bench.write(bench.RESULT, dict(table), ours)
    by_name = bench.by_model(json.loads(bench.RESULT.read_text()))
    assert by_name["dense", None, 0.0].nats == [*dense, 7.0]
    assert by_name["wanda", None, 0.3].nats[-1] == 5.0
    assert by_name[records[1].method, None, records[1].ratio].answers["piqa"]
    assert by_name[added["method"], 9, added["ratio"]].nats == added["nats"]
    assert len(by_name) == size + 1


def test_a_table_of_another_configuration_or_of_other_texts_is_kept(bench, monkeypatch):
    table, records = run(bench, monkeypatch, 0)
    before = bench.RESULT.read_text()
    with pytest.raises(SystemExit, match="another sampled texts and does not belong"):
        bench.write(bench.RESULT, table | {"samples": [[1]]}, bench.by_model(table))
    monkeypatch.setitem(bench.CONFIGURATION, "exact_episodes", 7)
    with pytest.raises(SystemExit, match="another exact_episodes and does not belong"):
        run(bench, monkeypatch, 0)
    assert bench.RESULT.read_text() == before


def test_rows_of_another_configuration_are_not_taken_from_the_cache(bench, monkeypatch):
    def kept():
        benchmark = bench.Bench("cpu")
        benchmark.choose("exact", 0)
        return benchmark.cache, benchmark.kept["exact", 0, 0.3]

    (folder, first), (again, same) = kept(), kept()
    assert folder == again and all(map(torch.equal, first, same))
    monkeypatch.setitem(bench.CONFIGURATION, "exact_episodes", 60)
    other, longer = kept()
    assert other != folder and not all(map(torch.equal, first, longer))


def test_a_model_whose_rows_come_out_otherwise_is_refused(bench, monkeypatch):
    run(bench, monkeypatch, 0)
    for file in bench.BUILD.rglob("random-0.npz"):
        stored = dict(np.load(file))
        stored["kept3"] = stored["kept3"][:, ::-1].copy()
        np.savez(file, **stored)
    before = bench.RESULT.read_text()
    with pytest.raises(ValueError, match="rows of .'random', 0, 0.3. are not those"):
        run(bench, monkeypatch, 0)
    assert bench.RESULT.read_text() == before


def test_what_another_machine_adds_is_named_with_it(bench, monkeypatch):
    monkeypatch.setattr(bench, "STAGES", [(1, 0, 3)])
    first, _ = run(bench, monkeypatch, 5)
    monkeypatch.setattr(bench, "described", lambda device: "another device")
    monkeypatch.setattr(bench, "STAGES", [(2, 0, 3)])
    second, _ = run(bench, monkeypatch, 5)
    assert "made_elsewhere" not in first
    assert {key: first[key] for key in ("versions", "device")} == {
        key: second[key] for key in ("versions", "device")
    }
    elsewhere = second["made_elsewhere"]
    assert elsewhere["dense/None/0.0/windows from 1"]["device"] == "another device"
    assert set(elsewhere) == {
        f"{m['method']}/{m['seed']}/{m['ratio']}/windows from 1"
        for m in second["models"]
        if len(m["nats"]) == 2
    }


def test_outcomes_that_come_in_any_order_give_the_same_table(bench):
    outcomes = {("a", "windows", n): [float(n), n + 1.0] for n in (0, 2, 4)}
    outcomes |= {("b", "piqa", n): ["01"[n % 2], "0"] for n in range(3)}
    tables = []
    for order in (list(outcomes), list(outcomes)[::-1]):
        records = {name: record(method=name) for name in "ab"}
        made = bench.in_turn([(key, outcomes[key]) for key in order], records)
        assert sorted(made)[0] == "a/windows from 0" and len(records["a"].nats) == 6
        tables.append([r.to_json() for r in records.values()])
    assert tables[0] == tables[1]
    assert records["b"].answers["piqa"] == ["010", "000"]
    known = {key: number for number, key in enumerate("abcd")}
    for order in ("abcd", "dbca"):
        found = [(key, known[key]) for key in order]
        assert [*bench.in_order(found, "abcd")] == [*known.items()]


def test_processes_that_write_one_table_at_a_time_lose_nothing(bench, tmp_path):
    """Each of two processes stores its own models again and again."""
    program = """
import json, sys
from pathlib import Path
import pruning_methods as bench
path, bench.BUILD = Path(sys.argv[1]), Path(sys.argv[2])
table = {"configuration": bench.CONFIGURATION, "samples": [], "device": "cpu"}
table |= {"versions": {}, "questions": {}, "models": []}
records = {}
for seed in range(int(sys.argv[3]), 40, 2):
    key = "random", seed, 0.3
    records[key] = bench.ModelRecord(
        method="random", seed=seed, ratio=0.3, parameters=1, seconds=0.0, ks=0.1
    )
    bench.write(path, dict(table), {key: records[key]})
"""
    arguments = [str(tmp_path / "table.json"), str(tmp_path / "locks")]
    paths = [str(ROOT / "src"), *sys.path]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PATH": ""}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments, str(first)], env=environment
        )
        for first in (0, 1)
    ]
    assert [process.wait() for process in both] == [0, 0]
    models = json.loads((tmp_path / "table.json").read_text())["models"]
    assert sorted(m["seed"] for m in models) == [*range(40)]
