"""Every method of the comparison by name: the rows it keeps are what its name says."""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunefair.messages import MESSAGE_LENGTH
from prunefair.models import load_model
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.functional_pruning import (
    SelfStatistics,
    prune_functional,
    self_statistics,
)
from prunefair.pruning.reconstruction import CORRECTED
from prunefair.pruning.selections import (
    CALIBRATED,
    RECONSTRUCTED,
    REFIT,
    SELECTIONS,
    SLICEGPT,
    make_selection,
)
from prunefair.pruning.self_moments import down_projections
from prunefair.pruning.surgery import (
    mask_ffn_,
    row_matrices,
    slice_ffn_,
    tiny_model,
)

TABLE = Path(__file__).parents[2] / "book" / "results" / "pruning_methods.json"
REPAIRS = TABLE.with_name("pruning_methods_repairs.json")
TEXTS = torch.randint(3, 32, (4, 12), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def model():
    fields = {"hidden_size": 16, "tie_word_embeddings": True, "mlp_bias": False}
    return tiny_model("llama", generator=torch.Generator().manual_seed(1), **fields)


@pytest.fixture(scope="module")
def known(model):
    generator = torch.Generator().manual_seed(3)
    return self_statistics(model, generator=generator, n_texts=8, length=16)


def select(name, model, known, seed=0, **options):
    options = {"statistics": known, "calibration": TEXTS, "episodes": 2} | options
    generator = torch.Generator().manual_seed(seed)
    return make_selection(name, model, generator=generator, **options)


def hidden(model, texts):
    """What each `down_proj` is fed, (tokens, m) each, as numpy arrays."""
    seen, hooks = [], []
    for linear in down_projections(model):
        hook = linear.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        hooks.append(hook)
    with torch.no_grad():
        model(texts)
    for hook in hooks:
        hook.remove()
    return [h.flatten(0, -2).double().numpy() for h in seen]


def largest(scores, ratio):
    return [np.sort(np.argsort(-s)[: rows_to_keep(len(s), ratio)]) for s in scores]


def as_lists(rows):
    return [np.asarray(kept).tolist() for kept in rows]


def test_the_names_are_those_of_the_stored_tables():
    stored = {m["method"] for m in json.loads(TABLE.read_text())["models"]}
    repairs = json.loads(REPAIRS.read_text())["models"]
    assert set(SELECTIONS) == stored.union(m["method"] for m in repairs) - {"dense"}


@pytest.mark.parametrize("name", SELECTIONS)
def test_every_method_makes_a_smaller_model_that_says_numbers(name, model, known):
    made = select(name, model, known)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    pruned = made.prune(0.3)
    assert pruned.num_parameters() < model.num_parameters()
    assert pruned(TEXTS).logits.isfinite().all() and made.name == name
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    if name == SLICEGPT:
        assert made.rows is None
        return
    kept = made.rows(0.3)
    assert all((rows.diff() > 0).all() and rows.device.type == "cpu" for rows in kept)
    few = sum(map(len, kept))
    if name.startswith("functional") and "equal" not in name:
        assert few == 2 * rows_to_keep(12, 0.3)  # of widths of their own
    else:
        assert [len(rows) for rows in kept] == [rows_to_keep(12, 0.3)] * 2


def test_scores_of_weights_and_of_texts_are_what_numpy_finds(model, known):
    W = [w.numpy() for w in row_matrices(model)]
    D = [linear.weight.detach().double().numpy() for linear in down_projections(model)]
    h = hidden(model, TEXTS)
    norms = [np.linalg.norm(w, axis=1) for w in W]
    size = [np.sqrt((x**2).mean(0)) for x in h]
    wanda = [s * np.abs(d).sum(0) for s, d in zip(size, D)]
    energy = [s**2 * (d**2).sum(0) for s, d in zip(size, D)]
    oracle = {"row norm": norms, "wanda": wanda, "energy on WikiText-2": energy}
    for name, scores in oracle.items():
        made = select(name, model, None if "energy" in name else known)
        for ratio in (0.1, 0.3, 0.5):
            assert as_lists(made.rows(ratio)) == as_lists(largest(scores, ratio))


def test_the_functional_method_is_the_pipeline_and_its_refit_too(model, known):
    made = select("functional" + REFIT, model, known)
    pruned = made.prune(0.3)
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "statistics": known, "episodes": 2}
    pipeline = prune_functional(model, 0.3, **options)
    assert as_lists(made.rows(0.3)) == as_lists(pipeline.kept)
    theirs = pipeline.model.state_dict()
    assert all(torch.equal(v, theirs[n]) for n, v in pruned.state_dict().items())
    plain = select("functional", model, known).prune(0.3)
    silent = mask_ffn_(
        tiny_model(
            "llama",
            generator=torch.Generator().manual_seed(1),
            hidden_size=16,
            tie_word_embeddings=True,
            mlp_bias=False,
        ),
        pipeline.kept,
    )
    torch.testing.assert_close(plain(TEXTS).logits, silent(TEXTS).logits)


def test_the_reconstructed_method_is_the_pipeline_with_its_plan(model, known):
    pruned = select("functional" + RECONSTRUCTED, model, known).prune(0.3)
    options = {"generator": torch.Generator().manual_seed(0), "statistics": known}
    options |= {"episodes": 2, "refit": False, "reconstruct": CORRECTED}
    theirs = prune_functional(model, 0.3, **options).model.state_dict()
    assert all(torch.equal(v, theirs[n]) for n, v in pruned.state_dict().items())
    refitted = select("functional" + REFIT, model, known).prune(0.3).state_dict()
    assert any(not torch.equal(v, theirs[n]) for n, v in refitted.items())


def test_what_draws_draws_by_its_generator_and_the_rest_does_not(model, known):
    for name in ("random", "released"):
        first, again, other = (select(name, model, known, seed) for seed in (0, 0, 1))
        drawn = as_lists(first.rows(0.5))
        assert drawn == as_lists(again.rows(0.5)) != as_lists(other.rows(0.5))
        assert drawn != as_lists(first.rows(0.5))
    for name in ("row norm", "wanda", "energy", "surgeon energy"):
        first, other = (select(name, model, known, seed) for seed in (0, 1))
        assert as_lists(first.rows(0.5)) == as_lists(other.rows(0.5))


def test_an_unknown_name_is_refused_with_the_names(model):
    message = "name is .*; give one of .energy., "
    for name in ("energi", "wanda" + REFIT, "dense", ["energy"], "x" * 500):
        with pytest.raises(ValueError, match=message) as error:
            make_selection(name, model, generator=torch.Generator())
        assert len(str(error.value)) <= MESSAGE_LENGTH


@pytest.mark.parametrize("name", CALIBRATED)
def test_a_calibrated_method_without_texts_is_refused(name, model):
    with pytest.raises(ValueError, match=f"calibration is None, and '{name}' reads"):
        make_selection(name, model, generator=torch.Generator())


FEW = {"hidden_size": 16, "max_position_embeddings": 11}
UNTIED = tiny_model("llama", generator=torch.Generator().manual_seed(0))
NARROW = slice_ffn_(
    tiny_model("llama", generator=torch.Generator().manual_seed(0)),
    [[0, 3, 5], [1, 2, 4, 8]],
)
SEEDED = torch.Generator().manual_seed(0)
UNUSABLE = {  # method, what is given, and how the line begins
    "untied": (
        SLICEGPT,
        {"model": UNTIED},
        "model is .* with an untied head; SliceGPT",
    ),
    "family": (
        SLICEGPT,
        {"model": tiny_model("gemma", generator=SEEDED)},
        "model is of the family 'gemma'; SliceGPT is written here for a LLaMA",
    ),
    "uneven": (SLICEGPT, {"model": NARROW}, "model is .* layers of several widths; Sl"),
    "released": ("released", {"model": NARROW}, "model is .* have widths from 3 to 4"),
    "name": ("energy", {"model": "smollm2"}, "model is 'smollm2', .* load_model first"),
    "module": ("random", {"model": torch.nn.Linear(1, 1)}, "model is Linear.*; give"),
    "float": ("wanda", {"calibration": TEXTS.float()}, "calibration is torch.float32"),
    "one-text": ("wanda", {"calibration": TEXTS[0]}, r"calibration is .*shape \(12,\)"),
    "none-of-texts": ("wanda", {"calibration": TEXTS[:0]}, "calibration is .*0, 12"),
    "list": ("wanda", {"calibration": [[1]]}, r"calibration is \[\[1\]\]; give texts"),
    "words": (SLICEGPT, {"calibration": "words"}, "calibration is 'words'; give texts"),
    "high": (SLICEGPT, {"calibration": TEXTS + 9}, "calibration holds .* 0 to 31; enc"),
    "low": ("wanda", {"calibration": TEXTS - 9}, "calibration holds -.* 0 to 31; enco"),
    "unread": ("energy", {"calibration": TEXTS + 99}, "calibration holds 1.* 0 to 31;"),
    "context": (
        "wanda",
        {"model": tiny_model("llama", generator=SEEDED, **FEW)},
        "calibration has texts of 12 tokens, longer than the 11 of the model's context",
    ),
    "halves": (
        "energy on WikiText-2",
        {"calibration": TEXTS[:1]},
        "calibration is one text, and 'energy on WikiText-2' compares two halves; give",
    ),
    "seed": ("random", {"generator": 3}, "generator is 3; give a torch.Generator"),
    "ratio": (
        "exact",
        {"trained_at": 1.0},
        r"trained_at is 1.0; give a number in \[0,",
    ),
    "word": ("exact", {"trained_at": "x"}, "trained_at is 'x'; give a number in"),
    "episodes": ("exact", {"episodes": 0}, "episodes is 0; give a whole number at lea"),
    "statistics": ("energy", {"statistics": {}}, "statistics is {}; give what self_st"),
    "no-texts": (
        "functional" + RECONSTRUCTED,
        {"statistics": SelfStatistics(None, [])},
        "statistics keep no texts, to which this method fits; measure them on this",
    ),
    "other-model": (
        "energy",
        {"model": NARROW},
        r"statistics are of .*\[12, 12\].*\[3",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_one_line_before_the_work(
    name, model, known, monkeypatch
):
    method, change, pattern = UNUSABLE[name]
    for work in ("self_statistics", "text_statistics", "slice_gpt", "train_released"):
        monkeypatch.setattr(f"prunefair.pruning.selections.{work}", pytest.fail)
    monkeypatch.setattr("prunefair.pruning.selections.train_policy", pytest.fail)
    options = {"model": model, "statistics": known, "calibration": TEXTS} | change
    if method == "energy on WikiText-2":
        options["statistics"] = None
    options = {"generator": torch.Generator()} | options
    with pytest.raises(ValueError, match=f"^{pattern}") as caught:
        make_selection(method, **options)
    assert len(str(caught.value)) <= MESSAGE_LENGTH


def test_a_weight_that_is_not_finite_is_named_before_the_work():
    model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    model.model.layers[1].mlp.up_proj.weight.data[3, 2] = float("nan")
    pattern = (
        "^model is 'LlamaForCausalLM', whose weight 'model.layers.1.mlp.up_proj.we"
    )
    for name in ("random", "row norm", "exact"):
        with pytest.raises(ValueError, match=pattern):
            make_selection(name, model, generator=torch.Generator())


@pytest.mark.parametrize("name", ["random", "energy", "functional", SLICEGPT])
def test_a_ratio_that_is_none_is_refused(name, model, known):
    made = select(name, model, known)
    for ratio in (1.0, -0.1, "x", None, True, [0.3]):
        with pytest.raises(ValueError, match="^ratio is .*; give a number in "):
            made.prune(ratio)


def test_slicegpt_measures_in_evaluation_mode(model, known):
    dense = copy.deepcopy(model)
    dense.config.attention_dropout = 0.9
    for layer in dense.model.layers:
        layer.self_attn.attention_dropout = 0.9
    calm = select(SLICEGPT, dense, known).prune(0.3)
    dense.train()
    wild = select(SLICEGPT, dense, known).prune(0.3).eval()
    assert dense.training and dense.model.layers[0].self_attn.training
    assert torch.equal(calm(TEXTS).logits, wild(TEXTS).logits)


def test_on_the_real_model_the_rows_are_those_of_the_stored_table():
    stored = json.loads(TABLE.read_text())["models"]
    digests = {(m["method"], m["seed"], m["ratio"]): m["rows"] for m in stored}
    dense = load_model("smollm2")
    for name, seed in (("row norm", None), ("random", 0), ("random", 2)):
        generator = torch.Generator().manual_seed(seed or 0)
        made = make_selection(name, dense, generator=generator)
        for ratio in (0.1, 0.2, 0.25, 0.3):  # in the order of the benchmark
            digest = hashlib.sha256()
            for rows in made.rows(ratio):
                digest.update(rows.numpy().astype("<i8").tobytes())
            assert digest.hexdigest()[:16] == digests[name, seed, ratio]
