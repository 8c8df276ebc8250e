"""A saved model of the LLaMA family as one GGUF file, which llama.cpp reads.

Layers may differ in width: `feed_forward_length` then holds one number a layer, and the
architecture is called `deci`, which is llama.cpp's name for a LLaMA whose layers
differ; what it calls `llama` takes the width of the first layer for all.  The weights
go through a tensor at a time, and the file appears whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunefair.messages import checked_path, named, shown
from prunefair.widths import CONFIG_KEY

TYPES = ("f16", "q8_0", "f32")
_BLOCK = 32  # weights that share a scale in Q8_0, which is an f16
_LARGEST = {"f16": 65504.0, "q8_0": 127 * 65504.0}
# Digits one by one, then as GPT-2 does; and the pattern of LLaMA-3.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def export_gguf(folder, file, *, kind: str = "f16") -> dict[str, Any]:
    """Write the model in `folder` as a GGUF file.

    Parameters
    ----------
    folder : str or path
        Model of the LLaMA family with its tokenizer, such as `save_pruned` writes.
    file : str or path
        File to create.
    kind : str
        Type of the matrices: `f16`, `q8_0` (8 bits and a scale for every 32 weights) or
        `f32`; vectors stay in float32.

    Returns
    -------
    report : dict
        Path, bytes, type, architecture, widths of the layers and parameters.

    Raises
    ------
    ValueError
        If the model is of another family, or has something that llama.cpp does not
        compute as transformers do; if a row does not divide into blocks, or a weight
        is too large for the type; if `file` exists.
    OSError
        If `file` cannot be written; nothing is left behind.
    """
    gguf = _gguf()
    from prunefair.models import stream_folder
    from prunefair.outputs import whole_file
    from prunefair.pruning.surgery import row_matrices

    folder = checked_path(folder, "folder")
    file = Path(checked_path(file, "file"))
    if kind not in TYPES:
        raise ValueError(
            f"{named('kind')} is {shown(kind)}; give one of {', '.join(TYPES)}"
        )
    if file.exists() or not file.parent.is_dir():
        why = "exists" if file.exists() else "is in a folder that does not exist"
        raise ValueError(
            f"{named('file')} is {shown(str(file))}, which {why}; choose another name"
        )
    record = _checked_config(folder).get(CONFIG_KEY) or {}
    model, read = stream_folder(folder, argument="folder")
    _check_model(folder, model.config)
    widths = [len(matrix) for matrix in row_matrices(model)]
    architecture = "llama" if len(set(widths)) == 1 else "deci"
    tensors = _tensors(gguf, folder, model, read, kind)
    with whole_file(file, argument="file") as partial:
        writer = gguf.GGUFWriter(partial, architecture)
        try:
            _add_origin(writer, record, model.config.model_type)
            _add_hyperparameters(gguf, writer, model.config, widths, kind)
            _add_tokenizer(gguf, writer, folder, model.config.vocab_size)
            _write(gguf, writer, tensors, kind)
        finally:
            writer.close()
    return {
        "gguf": str(file),
        "bytes": file.stat().st_size,
        "type": kind,
        "architecture": architecture,
        "feed_forward_length": widths,
        "parameters": model.num_parameters(),
    }


def _subject(folder) -> str:
    return f"{named('folder')} is {shown(str(folder))}"


def _gguf():
    try:
        import gguf
    except ImportError as error:
        raise ValueError(
            "the export needs the package gguf; pip install 'prunefair[gguf]'"
        ) from error
    return gguf


def _checked_config(folder) -> dict[str, Any]:
    """Content of `config.json`; raise unless it says that the model is a LLaMA."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{_subject(folder)}, which holds no config.json; give a folder "
            "written by prunefair prune or by save_pretrained"
        )
    try:
        content = json.loads(path.read_bytes())
        family = content.get("model_type")
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no JSON object; get the file again") from error
    if family != "llama":
        raise ValueError(
            f"{_subject(folder)}, whose model is of the family {family!r}; only "
            "'llama' is exported, llama.cpp's own converter knows more"
        )
    return content


def _check_model(folder, config) -> None:
    """Raise where llama.cpp would compute something else."""
    rope = config.rope_parameters
    known = {"hidden_act": ("silu",), "rope_type": ("default", "linear", "llama3")}
    found = {"hidden_act": config.hidden_act, "rope_type": rope["rope_type"]}
    found["partial_rotary_factor"] = rope.get("partial_rotary_factor", 1.0)
    known["partial_rotary_factor"] = (1.0,)
    for name, value in found.items():
        if value not in known[name]:
            raise ValueError(
                f"{_subject(folder)}, whose {name} is {value!r}; the export "
                f"knows {' or '.join(map(str, known[name]))}"
            )


def _tensors(gguf, folder, model, read, kind) -> list[tuple]:
    """Name, shape and reader of every tensor, in the order of the file."""
    from prunefair.pruning.folders import stored_names

    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    state, tensors = model.state_dict(), []
    for name in stored_names(model).values():
        shape = tuple(state[name].shape)
        if kind == "q8_0" and len(shape) == 2 and shape[1] % _BLOCK:
            other = f", or prune with {named('multiple', _BLOCK)}"
            other = other if ".mlp." in name else ""
            raise ValueError(
                f"{_subject(folder)}, where {name} has rows of {shape[1]}, no "
                f"multiple of {_BLOCK}, which q8_0 needs; give f16{other}"
            )
        turned = heads.get(name.split(".")[-2])
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        tensors.append((theirs, shape, _values(read, name, turned)))
    if config.rope_parameters["rope_type"] != "default":
        factors = _rope_factors(config)
        tensors.append(("rope_freqs.weight", factors.shape, lambda: factors))
    return tensors


def _values(read, name, heads):
    """Function that gives a tensor as llama.cpp wants it, as float32."""
    import numpy as np

    def values():
        array = read(name).float().numpy()
        if not np.isfinite(array).all():
            raise ValueError(
                f"weight {name!r} holds NaN or infinity; nothing to export"
            )
        if heads is None:
            return array
        # transformers rotates pairs half a head apart, llama.cpp neighbours
        halves = array.reshape(heads, 2, -1, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)

    return values


def _rope_factors(config):
    """What llama.cpp divides the frequencies of the positions by, shape (head / 2,)."""
    import numpy as np
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = config.rope_parameters
    scaled, _ = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, device="cpu")
    pairs = np.arange(0, config.head_dim, 2) / config.head_dim
    return (rope["rope_theta"] ** -pairs / scaled.numpy()).astype(np.float32)


def _add_origin(writer, record, family) -> None:
    """What the record of a pruned model says of where it comes from."""
    base, pruned = record.get("base_model", family), ", pruned" if record else ""
    writer.add_type("model")
    writer.add_name(f"{base}{pruned}")
    if record.get("base_license"):
        writer.add_license(record["base_license"])


def _add_hyperparameters(gguf, writer, config, widths, kind) -> None:
    kinds = gguf.LlamaFileType
    file_types = (kinds.MOSTLY_F16, kinds.MOSTLY_Q8_0, kinds.ALL_F32)
    writer.add_file_type(file_types[TYPES.index(kind)])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    alike = len(set(widths)) == 1
    writer.add_feed_forward_length(widths[0] if alike else widths)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _write(gguf, writer, tensors, kind) -> None:
    """Header, then one tensor after the other."""
    import numpy as np
    from gguf.quants import quant_shape_to_byte_shape, quantize

    types = gguf.GGMLQuantizationType
    plan = [
        (name, shape, types[kind.upper()] if len(shape) == 2 else types.F32, values)
        for name, shape, values in tensors
    ]
    for name, shape, stored, _ in plan:
        size = int(np.prod(quant_shape_to_byte_shape(shape, stored)))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, _, stored, values in plan:
        array = np.ascontiguousarray(values())
        if stored != types.F32 and np.abs(array).max() > _LARGEST[kind]:
            raise ValueError(f"weight {name!r} is too large for {kind}; give f32")
        writer.write_tensor_data(quantize(array, stored))


def _add_tokenizer(gguf, writer, folder, rows: int) -> None:
    """Tokens, their kinds, merges or scores, and what is special."""
    from prunefair.models import load_tokenizer

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"{_subject(folder)}, which holds no tokenizer.json; save the "
            "tokenizer there with save_pretrained first"
        )
    content = json.loads(path.read_bytes())
    tokenizer = load_tokenizer(folder, argument="folder", optional=True)
    vocabulary = {number: token for token, number in tokenizer.get_vocab().items()}
    last = max(vocabulary)
    if last >= rows:
        raise ValueError(
            f"{_subject(folder)}, whose tokenizer has token {last} and whose "
            f"embedding has {rows} rows; give the tokenizer of this model"
        )
    pieces = content["model"].get("byte_fallback", False)
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre("default" if pieces else _pre_tokenizer(folder, content))
    kinds = _token_types(gguf, content, pieces)
    tokens = [vocabulary.get(number, f"[PAD{number}]") for number in range(rows)]
    unused = gguf.TokenType.UNUSED
    types = [
        kinds.get(t, 1) if n in vocabulary else unused for n, t in enumerate(tokens)
    ]
    if pieces:
        added = gguf.TokenType.USER_DEFINED
        tokens = [
            token.replace(_SPACE, " ") if kind == added else token
            for token, kind in zip(tokens, types, strict=True)
        ]
        writer.add_token_scores(_scores(folder, content, tokens, types))
        writer.add_add_space_prefix(_prefixed(folder, content))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = gguf.SpecialVocab(folder, load_merges=not pieces, n_vocab=rows)
    ends = tokenizer("a")["input_ids"]
    special.add_special_token["bos"] = ends[0] == tokenizer.bos_token_id
    special.add_special_token["eos"] = ends[-1] == tokenizer.eos_token_id
    special.chat_template = tokenizer.chat_template
    special.add_to_gguf(writer, quiet=True)


def _refused(folder, part, value) -> ValueError:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 100 else shown[:97] + "..."
    return ValueError(
        f"{_subject(folder)}, whose tokenizer.json has the {part} {shown}, "
        "which the export cannot express; use llama.cpp's own converter"
    )


def _pre_tokenizer(folder, content) -> str:
    """Name that llama.cpp has for how a byte-level tokenizer splits a text."""
    if content.get("normalizer") is not None or content["model"]["type"] != "BPE":
        part = "normalizer" if content.get("normalizer") else "model"
        raise _refused(folder, part, content["normalizer"] or content["model"]["type"])
    steps = content.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    last = steps[-1]
    if kinds[-1] == "ByteLevel" and not last.get("add_prefix_space"):
        digits, pattern = steps[0].get("individual_digits"), steps[0].get("pattern")
        plain = last.get("use_regex", True)
        if plain and kinds == ["ByteLevel"]:
            return "gpt-2"
        if plain and kinds == ["Digits", "ByteLevel"] and digits:
            return "smollm"
        if not plain and kinds[0] == "Split" and pattern == {"Regex": _LLAMA3}:
            return "llama-bpe"
    raise _refused(folder, "pre_tokenizer", content.get("pre_tokenizer"))


def _prefixed(folder, content) -> bool:
    """Whether a SentencePiece tokenizer puts a space before a text."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prepend = {"type": "Prepend", "prepend": _SPACE}
    normalizer, splitter = content.get("normalizer"), content.get("pre_tokenizer")
    if splitter is None and normalizer is not None:
        steps = normalizer.get("normalizers", [normalizer])
        if steps in ([prepend, replace], [replace]):
            return steps[0] == prepend
        raise _refused(folder, "normalizer", normalizer)
    space = {"type": "Metaspace", "replacement": _SPACE, "split": False}
    if normalizer is None and space.items() <= (splitter or {}).items():
        return splitter.get("prepend_scheme", "always") != "never"
    raise _refused(folder, "pre_tokenizer", splitter)


def _token_types(gguf, content, pieces) -> dict[str, int]:
    """Kinds of the tokens that are not normal ones."""
    kinds, types = {}, gguf.TokenType
    for token in content.get("added_tokens") or []:
        special = types.CONTROL if token["special"] else types.USER_DEFINED
        kinds[token["content"]] = special
    if pieces:
        kinds |= {f"<0x{byte:02X}>": types.BYTE for byte in range(256)}
        if content["model"].get("unk_token"):
            kinds[content["model"]["unk_token"]] = types.UNKNOWN
    return kinds


def _scores(folder, content, tokens, types) -> list[float]:
    """Score of every piece: llama.cpp joins the pair whose whole has the largest one.

    The merges of the file are in the order of the scores, and hold every way to put a
    piece together; where they do not, no scores give the same tokens.
    """
    merges = [
        tuple(pair.split(" ") if isinstance(pair, str) else pair)
        for pair in content["model"]["merges"]
    ]
    rank, known = {}, set(merges)
    for place, pair in enumerate(merges):
        rank.setdefault("".join(pair), place)
    normal = {token for token, kind in zip(tokens, types, strict=True) if kind == 1}
    for piece in rank:
        for cut in range(1, len(piece)):
            pair = piece[:cut], piece[cut:]
            if pair[0] in normal and pair[1] in normal and pair not in known:
                raise _refused(folder, "merges without", list(pair))
    last = len(merges)
    return [float(-rank.get(t, last)) if k == 1 else 0.0 for t, k in zip(tokens, types)]
