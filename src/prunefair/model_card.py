"""What a saved folder says beside its weights: to older readers, and in a model card.

The same input gives the same bytes: nothing here depends on the day or on the machine.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

from prunefair.widths import CONFIG_KEY

# Names that version 4 of transformers reads, where a family had its own.
_ROPE_NAMES = {
    "gpt_neox": {
        "rope_theta": "rotary_emb_base",
        "partial_rotary_factor": "rotary_pct",
    }
}
_PHI3_ROPE = ("short_factor", "long_factor")  # beside the type, and no more
_ROPE_OUTSIDE = ("rope_theta", "partial_rotary_factor")
_LEFTOVERS = ("_model_name_or_path", "_name_or_path", "_commit_hash")
_LOADING = ("backend", "is_local", "local_files_only", "name_or_path")
_WRITERS = ("torch", "transformers")


def portable_config(config: dict[str, Any]) -> dict[str, Any]:
    """Configuration that versions 4 and 5 of transformers read alike.

    Version 5 keeps everything about rotary positions in `rope_parameters`, which
    version 4 does not read: it takes `rope_theta` and `rope_scaling`, and its defaults
    where they are missing.

    Parameters
    ----------
    config : dict
        Content of a `config.json` of version 5.

    Returns
    -------
    config : dict
        The same with the names of version 4 beside it, and without where the model
        once lay.
    """
    config = {key: v for key, v in config.items() if key not in _LEFTOVERS}
    rope = config.get("rope_parameters") or {}
    local = rope.get("sliding_attention") or {}
    rope = rope.get("full_attention") or ({} if local else rope)
    old = {key: rope[key] for key in _ROPE_OUTSIDE if key in rope}
    if rope:
        scaled = {k: v for k, v in rope.items() if k not in _ROPE_OUTSIDE}
        plain = rope.get("rope_type", "default") == "default"
        if config.get("model_type") == "phi3":
            scaled = {key: rope[key] for key in _PHI3_ROPE if key in rope}
            scaled["type"] = rope.get("rope_type")
        old["rope_scaling"] = None if plain else scaled
    if "rope_theta" in local:
        old["rope_local_base_freq"] = local["rope_theta"]
    names = _ROPE_NAMES.get(config.get("model_type"), {})
    return config | {names.get(key, key): value for key, value in old.items()}


def portable_tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    """Tokenizer's configuration that versions 4 and 5 of transformers read alike.

    Parameters
    ----------
    config : dict
        Content of a `tokenizer_config.json` of version 5.

    Returns
    -------
    config : dict
        The same without how it was loaded, and with a class that both versions know.
    """
    config = {key: v for key, v in config.items() if key not in _LOADING}
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        # version 4 would add token_type_ids, which causal models do not take
        config.setdefault("model_input_names", ["input_ids", "attention_mask"])
    return config


def license_in(source: str) -> str | None:
    """Licence that the model card of a folder or of a hub model names, if any.

    Parameters
    ----------
    source : str
        Folder, or name of a model of the hub that was fetched already.

    Returns
    -------
    license : str, or None
        As the hub's metadata call it, such as `apache-2.0`.
    """
    path = Path(source) / "README.md"
    try:
        if not Path(source).is_dir():
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(source, "README.md"))
        text = path.read_text(encoding="utf-8", errors="replace")
    except Exception:  # the hub has many kinds of its own; a card is no necessity
        return None
    top = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = top and re.search(r"^license: *['\"]?([\w.+-]+)['\"]? *$", top[1], re.M)
    return found[1] if found else None


def versions() -> dict[str, str]:
    """Versions that wrote a folder, by package."""
    from prunefair import __version__

    others = {name: importlib.metadata.version(name) for name in _WRITERS}
    return {"prunefair": __version__} | others


_METHODS = {
    "functional": "rows chosen by a policy trained to preserve the functional spectrum "
    "on text that the base model samples itself; no external data",
    "functional, by energy": "rows of largest energy on text that the base model "
    "samples itself; no external data",
    "spectral": "rows chosen by a policy trained to preserve the spectrum of the "
    "first feed-forward matrix (PruneNet, arXiv:2501.15296); no data",
}
SPECTRUM = {
    "functional": "spectra of what the feed-forward blocks put out on own text",
    "spectral": "spectra of the first feed-forward matrices",
}
_RECOVERIES = {
    "own": "trained to the base model's probabilities of every next token, on text "
    "that the base model samples itself; no external data",
    "wikitext": "low-rank adapters trained on WikiText-2 validation, as in PruneNet",
}
_ROWS = {
    "base_model": "base model",
    "base_weights": "its weights",
    "base_license": "licence of the base model",
    "method": "method",
    "ratio": "share of feed-forward rows to remove",
    "asked": "asked for",
    "ratio_found": "share of feed-forward rows that this needs",
    "ratio_reached": "share of feed-forward rows removed",
    "multiple": "widths are multiples of",
    "widths_before": "widths before, from the first layer",
    "widths": "widths, from the first layer",
    "widths_unpadded": "widths without neurons of zeros, from the first layer",
    "params_before": "parameters before",
    "params_after": "parameters",
    "params_unpadded": "parameters without neurons of zeros",
    "bytes_before": "bytes of weights before",
    "bytes_after": "bytes of weights",
    "refit": "`down_proj` re-fitted by least squares to the same text",
    "ridge": "ridge of the re-fit",
    "reconstruction": "feed-forward blocks fitted from there on; mean error on text of "
    "the same kind that the fit did not read, before and after",
    "reconstruction_steps": "steps of gradients in the fit of each block",
    "texts": "texts of 128 tokens that the base model sampled",
    "episodes": "episodes of training of the policy",
    "seed": "seed",
    "ks_mean": "measured: mean over layers of the Kolmogorov-Smirnov distance between "
    "the spectra before and after, 0 if they are the same and 1 at most",
    "recovery": "recovery after pruning",
    "recovery_tokens": "tokens of that training",
    "recovery_rank": "rank of its adapters, which are merged",
    "recovery_seed": "its seed",
    "divergence_before": "measured: divergence from the base model before it, on own "
    "text of that model that was held out, nats a token",
    "divergence_after": "the same after it",
}

_LOAD = (
    "from transformers import AutoModelForCausalLM",
    "from transformers import AutoTokenizer",
    "",
    'folder = "."  # where this file lies: another path, or the name on the hub',
    "model = AutoModelForCausalLM.from_pretrained(folder)",
    "tokenizer = AutoTokenizer.from_pretrained(folder)",
)
_LOAD_UNEVEN = (
    "from prunefair import load_pruned  # pip install prunefair",
    "from transformers import AutoTokenizer",
    "",
    'folder = "."  # where this file lies: another path, or the name on the hub',
    "model = load_pruned(folder)",
    "tokenizer = AutoTokenizer.from_pretrained(folder)",
)


_UNEVEN = (
    "The layers differ in width, as `per_layer_config` in `config.json` says; "
    "transformers does not build such models up to version 5.24 and ends with "
    "`AmbiguousGlobalPerLayerAttributeError` or a mismatch of shapes.\n"
    "For what reads nothing else, `prunefair export FOLDER --padded NEW`, where FOLDER "
    "is the one of this file and NEW is to be made, writes the "
    "same function in layers of one width, with neurons of zeros: {times} times the "
    "feed-forward weights and operations.\n"
    "`prunefair export FOLDER --gguf FILE` writes a LLaMA as it is for llama.cpp."
)
_PADDED = (
    "Layers that were narrower than the widest are filled up with neurons of zeros, so "
    "that every loader reads the model: the same function as without them, for {times} "
    "times the feed-forward weights and operations."
)


def _times(widths) -> str:
    """What neurons of zeros up to the widest layer cost."""
    return f"{max(widths) * len(widths) / sum(widths):.2f}"


def _shown(key, record) -> str:
    """A value of the record as a cell of the card's table."""
    value = record[key]
    if key.startswith("widths"):
        if len(set(value)) == 1:
            return f"{value[0]} in each of {len(value)} layers"
        return ", ".join(map(str, value))
    if key == "method":
        return _METHODS.get(value, value)
    if key == "ks_mean":
        method = str(record.get("method", "")).split(",")[0]
        return f"{value} ({SPECTRUM[method]})" if method in SPECTRUM else str(value)
    if key == "reconstruction":
        return ", ".join(map(str, value))
    if key == "recovery":
        return _RECOVERIES.get(value, value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if key.startswith(("params", "bytes")) else str(value)


def model_card(
    record: dict[str, Any], config: dict[str, Any], *, tokenizer: bool = True
) -> str:
    """Model card of a pruned model, as Markdown with the hub's metadata on top.

    Parameters
    ----------
    record : dict
        How the model came about, with its `widths`; see `save_pruned`.
    config : dict
        Content of its `config.json`.
    tokenizer : bool
        Whether the folder holds one.

    Returns
    -------
    text : str
    """
    known = {k: v for k, v in record.items() if v is not None}
    base, licence = known.get("base_model"), known.get("base_license")
    top = ["library_name: transformers", "pipeline_tag: text-generation"]
    top += ["tags:", "- pruned", "- prunefair"]
    if base and re.fullmatch(r"[\w.-]+/[\w.-]+", base):  # a name of the hub
        top.insert(0, f"base_model: {base}")
    if licence:
        top.insert(0, f"license: {licence}")
    rows = known | {"base_license": licence or "see the base model"}
    table = [
        f"| {label} | {_shown(k, rows)} |" for k, label in _ROWS.items() if k in rows
    ]
    table += [
        f"| version of {name} | {version} |"
        for name, version in record["versions"].items()
    ]
    uneven = len(set(record["widths"])) > 1
    loading = _LOAD_UNEVEN if uneven else _LOAD
    lines = ["---", *top, "---", "", f"# {base or config['model_type']}, pruned", ""]
    lines += [
        "Neurons of the feed-forward layers were cut out of the base model with the "
        "Python package `prunefair`"
        + (", and what is left was trained again." if "recovery" in known else "."),
        "What the base model may and may not be used for holds here, too.",
        "",
        "| | |",
        "| --- | --- |",
        *table,
        "",
        "## Load",
        "",
        "```python",
        *(line for line in loading if tokenizer or "Tokenizer" not in line),
        "```",
        "",
    ]
    if uneven:
        lines += [_UNEVEN.format(times=_times(record["widths"])), ""]
    if "widths_unpadded" in record:
        lines += [_PADDED.format(times=_times(record["widths_unpadded"])), ""]
    lines += [
        "`kept_rows.json` lists the rows of the base model that are left, and "
        f"`{CONFIG_KEY}` in `config.json` repeats the table for programs.",
        "",
    ]
    return "\n".join(lines)
