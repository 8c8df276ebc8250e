"""The command line: `prunefair prune`, `recover`, `export`, `evaluate` and `bandits`.

Bad input ends with exit status 2 and one line that names the argument, its value and
the remedy.  With `--json` the last line of standard output is one JSON object, and
everything else goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from prunefair.messages import MESSAGE_LENGTH, called, shortened, shown
from prunefair.pipelines import evaluation, playing, pruning, recovering

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
    str | None,
    typer.Option(
        metavar="PATH", help="Folder with the data; see PRUNEFAIR_DATA in the README."
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU by default if there is one.")
]


def _names(text: str) -> list[str]:
    """The parts of `text` between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


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
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="smollm2, a folder, or a hub name.")
    ] = "",
    ratio: Annotated[
        float | None,
        typer.Option(parser=_number(float, 0, 1), help="Share of FFN rows to remove."),
    ] = None,
    parameters: Annotated[
        float | None,
        typer.Option(
            parser=_number(float, 1),
            help="In place of --ratio: at most so many parameters, such as 5.4e9.",
        ),
    ] = None,
    size: Annotated[
        float | None,
        typer.Option(
            "--bytes",
            parser=_number(float, 1),
            help="In place of --ratio: at most so many bytes of weights, with the "
            "headers of their files.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="New folder for the pruned model; optional with --geometry.",
        ),
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
    method: Annotated[
        str,
        typer.Option(
            help="functional, or spectral as in the paper, which is the default with "
            "--geometry or --spectra alone.",
        ),
    ] = "",
    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit",
            help="With functional: re-fit what is left to the model's own text.",
        ),
    ] = True,
    reconstruct: Annotated[
        bool,
        typer.Option(
            "--reconstruct/--no-reconstruct",
            help="With functional: re-fit block after block to what each is given in "
            "the pruned model, and make good half of what has drifted; nearer to the "
            "dense model, and minutes more for a small one.",
        ),
    ] = False,
    reconstruct_steps: Annotated[
        int,
        typer.Option(
            parser=_number(int, 0),
            help="With functional: reconstruct, and then fit all matrices of each "
            "block by so many steps of gradients; 320 with --texts 640 come nearest, "
            "for several times the time.",
        ),
    ] = 0,
    choice: Annotated[
        str,
        typer.Option(
            help="With functional: rows by a trained policy, or by energy, which is "
            "faster.",
        ),
    ] = "policy",
    widths: Annotated[
        str,
        typer.Option(
            help="equal, or uneven: nearer to the dense model with functional, but "
            "only prunefair.load_pruned reads it, and what prunefair export writes of "
            "it; no layer loses more than half, so from --ratio 0.5 on it is equal.",
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
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="With functional: --choice energy --widths equal --texts 64, each "
            "where it is not given; a quarter of the time.",
        ),
    ] = False,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Reuse this policy if the file exists, else save it there.",
        ),
    ] = None,
    episodes: Annotated[
        int, typer.Option(parser=_number(int, 1), help="Episodes of training.")
    ] = 6,
    seed: Seed = 0,
    device: Device = "",
    offload: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="With functional: go a layer at a time, and keep what waits in this "
            "folder, from which an interrupted run and other ratios go on.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prune the feed-forward layers of MODEL by the learned policy.

    A model with more than 2048 columns, or that would take more than half of the free
    memory, goes through a layer at a time and is never in memory as a whole; the result
    is the same.
    """
    words = {"choice": choice, "widths": widths, "texts": texts}
    if fast:
        source = context.get_parameter_source
        words |= {k: v for k, v in pruning.FAST.items() if "DEFAULT" in source(k).name}
    with _running(context, {"bytes": "--bytes"}):
        if out is None and model and not geometry:
            raise ValueError("--out is missing; name a new folder for the pruned model")
        if fast and (method == "spectral" or ((geometry or spectra) and not method)):
            raise ValueError(
                "--fast is given, and the spectral method reads no texts; leave one of "
                "them out, or give --method functional"
            )
        report = pruning.prune(
            model or None,
            ratio,
            parameters=parameters,
            bytes=size,
            out=out,
            method=method or None,
            geometry=geometry or None,
            spectra=spectra or None,
            refit=refit,
            reconstruct=reconstruct,
            reconstruct_steps=reconstruct_steps,
            **words,
            multiple=multiple,
            policy=policy,
            episodes=episodes,
            seed=seed,
            device=device or None,
            offload=offload,
        )
    _report(report.summary(), as_json)


@app.command(
    "recover",
    epilog="Example: prunefair recover pruned --against smollm2 --tokens 100000 "
    "--out recovered",
)
def recover_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Folder or name of a pruned model.")],
    out: Annotated[
        str, typer.Option(metavar="PATH", help="New folder for the recovered model.")
    ],
    against: Annotated[
        str, typer.Option(help="The dense model that MODEL was made from.")
    ] = "",
    text: Annotated[
        str,
        typer.Option(
            help="own: follow the dense model on text that it samples; wikitext: "
            "low-rank adapters on WikiText-2, as in the paper."
        ),
    ] = "own",
    tokens: Annotated[
        int,
        typer.Option(
            parser=_number(int, 2),
            help="At most so many tokens to train on; fewer if the divergence from the "
            "dense model levels off.",
        ),
    ] = 262_144,
    rank: Annotated[
        int | None,
        typer.Option(
            "--lora",
            parser=_number(int, 1),
            help="Train low-rank adapters of this rank and merge them; by default all "
            "weights, with wikitext rank 8.",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            parser=_number(float, 0),
            help="Largest learning rate; by default 0.0001, with wikitext 0.0005.",
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="With own: folder in which the run is put aside now and then; the "
            "same command goes on from there, in the first two fifths of the run also "
            "with more --tokens.",
        ),
    ] = None,
    data: Data = None,
    seed: Seed = 0,
    device: Device = "",
    as_json: Json = False,
) -> None:
    """Train a pruned MODEL again, towards the dense one or on a text."""
    with _running(context, {"dense": "--against"}):
        report = recovering.restored(
            model,
            against or None,
            text=text,
            tokens=tokens,
            rank=rank,
            learning_rate=learning_rate,
            out=out,
            state=state,
            data=data,
            seed=seed,
            device=device or None,
        )
    _report(report.summary(), as_json)


@app.command(
    "export", epilog="Example: prunefair export pruned --gguf pruned.gguf --type q8_0"
)
def export_command(
    context: typer.Context,
    folder: Annotated[
        str, typer.Argument(help="Folder of a model; for --gguf a LLaMA's.")
    ],
    gguf: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="New file for llama.cpp; needs a tokenizer."),
    ] = None,
    padded: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="New folder in which layers of several widths have one, filled up "
            "with zeros: the same function, which every loader reads, for more weights "
            "and operations.",
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--type", help="With --gguf: f16, q8_0 (widths in multiples of 32) or f32."
        ),
    ] = "f16",
    as_json: Json = False,
) -> None:
    """Write a model, pruned or not, so that others read it."""
    from prunefair.export import export_gguf
    from prunefair.models import model_source
    from prunefair.pruning.folders import export_padded

    words = {"file": "--gguf", "out": "--padded", "multiple": "--multiple"}
    with _running(context, words):
        if (gguf is None) == (padded is None):
            given = "neither of --gguf and --padded is given"
            if gguf is not None:
                given = f"--gguf is {shown(gguf)} and --padded {shown(padded)}"
            raise ValueError(
                f"{given}; give one of the two, a new file for llama.cpp or a new "
                "folder for every loader"
            )
        source = model_source(folder, argument="folder")
        if padded is None:
            result = export_gguf(source, gguf, kind=kind)
        else:
            result = export_padded(source, padded)
    _report({"model": folder} | result, as_json)


@app.command(
    "evaluate",
    epilog="Example: prunefair evaluate pruned --against smollm2 --limit 100",
)
def evaluate_command(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="smollm2, a folder with a tokenizer, or a hub name.")
    ],
    against: Annotated[
        str,
        typer.Option(
            help="The dense model to compare with; its own perplexity and accuracies "
            "are reported, too."
        ),
    ] = "",
    tasks: Annotated[
        str, typer.Option(help="Tasks, also mmlu or mmlu_SUBJECT; '' for none.")
    ] = ",".join(evaluation.TASKS),
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
    with _running(context):
        report = evaluation.evaluate(
            model,
            against=against or None,
            tasks=_names(tasks),
            limit=limit,
            data=data,
            seed=seed,
            device=device or None,
        )
    _report(report.summary(), as_json)


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
    """Play every policy on MovieLens, beside the certified optimum of fixed maps.

    A policy that learns may earn more than any fixed map; its regret is negative then.
    """
    from prunefair.fairness.rating_blocks import movielens_blocks
    from prunefair.fairness.ratings import load_ratings, movielens_stream

    words = {"folder": "--data", "n_users": "--users", ("n_users", None): "--users 0"}
    with _running(context, words):
        names = playing.policy_names(_names(policies), feedback)
        files = {"dataset": dataset, "malformed": malformed}
        if users:
            ratings = load_ratings(data, n_users=users, **files)
            stream = movielens_stream(ratings, n_users=users, small_reward=small_reward)
        else:
            stream = movielens_blocks(data, small_reward=small_reward, **files)
        report = playing.play(
            stream,
            names,
            alpha=alpha,
            feedback=feedback,
            rounds=rounds,
            seed=seed,
        )
    _report(report.summary(timings=timings), as_json)


def _words(context: typer.Context) -> dict[str, str]:
    """What the command calls the arguments of the library."""
    return {
        parameter.name: parameter.name.upper()
        if parameter.param_type_name == "argument"
        else max(parameter.opts, key=len)
        for parameter in context.command.params
    }


@contextlib.contextmanager
def _running(context: typer.Context, words: dict | None = None) -> Iterator[None]:
    """Run the library for the command line.

    Messages name options; what libraries print, and warnings, go to standard error.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries
    ours, handler = logging.getLogger("prunefair"), logging.StreamHandler(sys.stderr)
    ours.addHandler(handler)
    try:
        with (
            called(_words(context) | (words or {})),
            contextlib.redirect_stdout(sys.stderr),
        ):
            yield
    except KeyboardInterrupt:
        kept = context.params.get("state") or context.params.get("offload")
        more = f"; the same command goes on from {shown(kept)}" if kept else ""
        print(f"interrupted{more}", file=sys.stderr)
        raise
    finally:
        ours.removeHandler(handler)


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


if __name__ == "__main__":  # `python -m prunefair.cli` is `python -m prunefair`
    main()
