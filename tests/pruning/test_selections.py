"""Every method of the comparison by name: the rows it keeps are what its name says."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunefair.messages import MESSAGE_LENGTH
from prunefair.models import load_model
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.functional_pruning import prune_functional, self_statistics
from prunefair.pruning.selections import (
    CALIBRATED,
    REFIT,
    SELECTIONS,
    SLICEGPT,
    make_selection,
)
from prunefair.pruning.self_moments import down_projections
from prunefair.pruning.surgery import mask_ffn_, row_matrices, tiny_model

TABLE = Path(__file__).parents[2] / "book" / "results" / "pruning_methods.json"
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


def test_the_names_are_those_of_the_stored_table():
    stored = {m["method"] for m in json.loads(TABLE.read_text())["models"]}
    assert set(SELECTIONS) == stored - {"dense"}


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
