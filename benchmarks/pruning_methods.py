"""Every pruning method on one table: perplexity, divergence and zero-shot accuracy.

    python benchmarks/pruning_methods.py [--minutes 30] [--device cuda]
                                         [--only wanda] [--ratios 0.3]

fills `book/results/pruning_methods.json`.  The work is cut into small pieces, some
windows of WikiText-2 or some questions of one model, and a finished piece is never
done again: the run may be stopped at any moment and goes on where it was, with the
models that lag behind first.  Runs side by side on other methods or ratios each keep
what the others have stored.  On a CPU the first 2000 questions of HellaSwag are asked,
on a GPU all of them.  Choosing the rows is cheap and is repeated in each run unless the
folder `build/pruning_methods` still holds it; a model whose rows have come out
otherwise than those that were measured is refused.  `--machine` names what the table
cannot see, such as the instructions that the matrix products use.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from storing import check_same, read_table, versions, write_table, write_whole

from prunefair.models import default_device, load_model, load_tokenizer
from prunefair.pruning.functional_pruning import SelfStatistics, self_statistics
from prunefair.pruning.perplexity import (
    kl_per_position,
    self_sample,
    text_windows,
    token_nats,
    wikitext_tokens,
)
from prunefair.pruning.records import ModelRecord, evaluation_order
from prunefair.pruning.refit import choose_ridge, mean_moments, refit_
from prunefair.pruning.selections import (
    CALIBRATED,
    ON_TEXT,
    REFIT,
    SLICEGPT,
    make_selection,
)
from prunefair.pruning.self_moments import (
    down_projections,
    hidden_moments,
    load_moments,
    save_moments,
)
from prunefair.pruning.spectral_pruning import lost_outputs, selection_distances
from prunefair.pruning.spectrum import row_mask
from prunefair.pruning.surgery import prune_rows, row_matrices
from prunefair.pruning.zero_shot import (
    TASK_CHANCE,
    log_likelihoods,
    task_questions,
    task_result,
)

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "pruning_methods.json"
BUILD = ROOT / "build" / "pruning_methods"
RATIOS, MAIN = (0.1, 0.2, 0.25, 0.3), 0.3  # questions are asked at MAIN, and dense
SEEDS, DTYPE, LENGTH = (0, 1, 2), torch.float32, "bytes"
# Methods that use moments of the hidden vectors, in the order of the table.
BY_MOMENTS = (ON_TEXT, "energy", "surgeon energy")
BY_MOMENTS += ("functional, equal widths", "functional")
CONFIGURATION = {
    "model": "smollm2",
    "text": "WikiText-2 test",
    "window": 1024,
    "order_seed": 2025,
    "samples": [16, 64],
    "sample_seed": 2026,
    "calibration": "WikiText-2 validation, first 16 windows of 1024 tokens",
    "policies_trained_at": MAIN,
    "exact_episodes": 6,
    "functional_episodes": 8,
    "self_texts": [256, 128],
    "acc_norm": LENGTH,
    "tasks": list(TASK_CHANCE),
    "hellaswag_on_cpu": 2000,
}
# What every model should have before any model gets more: windows, at MAIN and at the
# other ratios, and questions of each task.
STAGES = [(4, 2, 0), (8, 4, 40), (16, 8, 100), (32, 16, 200), (64, 32, 400)]
STAGES += [(128, 64, 800), (10**6, 10**6, 10**6)]


class Bench:
    """The dense model, what it is measured on, and the rows that each method keeps."""

    def __init__(self, device):
        self.device = device
        self.model = load_model("smollm2", dtype=DTYPE, device=device)
        self.tokenizer = load_tokenizer("smollm2")
        self.matrices = [W.float() for W in row_matrices(self.model)]
        self.text = wikitext_tokens(self.tokenizer)
        window, rng = CONFIGURATION["window"], self.rng()
        windows = text_windows(len(self.text), window, window)
        windows = [w for w in windows if w[2] > w[1]]
        self.windows = [windows[i] for i in evaluation_order(len(windows), rng=rng)]
        self.questions = {name: self.ordered(name) for name in TASK_CHANCE}
        self.kept, self.seconds, self.sliced = {}, {}, {}
        chosen_by = json.dumps([CONFIGURATION, RATIOS], sort_keys=True).encode()
        self.cache = BUILD / hashlib.sha256(chosen_by).hexdigest()[:12]
        self.cache.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def rng():
        return np.random.default_rng(CONFIGURATION["order_seed"])

    def ordered(self, name):
        """Questions in the fixed random order, those asked on a CPU first."""
        questions, rng = task_questions(name), self.rng()
        first = min(len(questions), CONFIGURATION["hellaswag_on_cpu"])
        if name != "hellaswag":
            first = len(questions)
        order = [*evaluation_order(first, rng=rng)]
        if self.device != "cpu":
            order += [*(first + evaluation_order(len(questions) - first, rng=rng))]
        return [questions[i] for i in order]

    def selection(self, method, seed):
        """Function from a ratio to the rows kept; training is done once, at MAIN."""
        options = {"generator": torch.Generator().manual_seed(seed or 0)}
        if method in CALIBRATED:
            options["calibration"] = self.calibration()
        if method in BY_MOMENTS:
            options["statistics"] = self.statistics(method, seed)
        kind = method.split(",")[0]
        options["episodes"] = CONFIGURATION.get(f"{kind}_episodes")
        return make_selection(method, self.model, trained_at=MAIN, **options).rows

    def statistics(self, method, seed):
        """Moments and Fisher costs on self-sampled text, or on the calibration text."""
        files = self.statistics_files(method, seed)
        fisher = files[0].with_suffix(".fisher.npy")
        if not fisher.exists():
            start, generator = time.process_time(), torch.Generator().manual_seed(seed)
            n, length = CONFIGURATION["self_texts"]
            if method == ON_TEXT:
                texts = self.calibration()
                halves = [hidden_moments(self.model, t) for t in texts.split(8)]
                unused = [torch.zeros(len(W)) for W in self.matrices]  # energy only
                found = SelfStatistics(halves, unused)
            else:
                sizes = {"n_texts": n, "length": length}
                found = self_statistics(self.model, generator=generator, **sizes)
            note = {"seconds": time.process_time() - start}
            for moments, path in zip(found.halves, files, strict=True):
                save_moments(moments, path, note)
            partial = fisher.with_suffix(".partial.npy")
            np.save(partial, torch.stack(found.fisher).numpy())
            os.replace(partial, fisher)
        halves = tuple(load_moments(path)[0] for path in files)
        return SelfStatistics(halves, [*torch.from_numpy(np.load(fisher))])

    def measured_seconds(self, method, seed):
        """Seconds that the statistics of a method took, whenever it was; or none."""
        if method not in BY_MOMENTS:
            return 0.0
        self.statistics(method, seed)
        return load_moments(self.statistics_files(method, seed)[0])[1]["seconds"]

    def statistics_files(self, method, seed):
        name = f"wikitext-{seed}" if method == ON_TEXT else f"self-{seed}"
        return [self.cache / f"{name}-{half}.safetensors" for half in (0, 1)]

    def calibration(self):
        """WikiText-2 that the calibrated methods see, (16, 1024)."""
        validation = wikitext_tokens(self.tokenizer, "validation")
        return validation[: 16 * 1024].view(16, 1024)

    def choose(self, method, seed):
        """Rows of a method at every ratio, from the cache where it holds them."""
        path = self.cache / f"{method.replace(' ', '_')}-{seed}.npz"
        if path.exists():
            found = np.load(path)
            for i, ratio in enumerate(RATIOS):
                kept = [torch.from_numpy(m).nonzero()[:, 0] for m in found[f"kept{i}"]]
                self.kept[method, seed, ratio] = kept
                self.seconds[method, seed, ratio] = float(found["seconds"][i])
            return
        shared = self.measured_seconds(method, seed)
        start = time.process_time()
        select = self.selection(method, seed)
        shared, stored, seconds = shared + time.process_time() - start, {}, []
        for i, ratio in enumerate(RATIOS):
            start = time.process_time()
            kept = select(ratio)
            seconds.append(shared + time.process_time() - start)
            self.kept[method, seed, ratio] = kept
            self.seconds[method, seed, ratio] = seconds[-1]
            masks = [row_mask(r, len(W)) for r, W in zip(kept, self.matrices)]
            stored[f"kept{i}"] = torch.stack(masks).numpy()
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, seconds=seconds, **stored)
        os.replace(partial, path)

    def pruned(self, record):
        """The model of a record; it shares what was not cut with the dense one."""
        if record.method == "dense":
            return self.model
        if record.method == SLICEGPT:
            if record.ratio not in self.sliced:
                generator, tokens = torch.Generator(), self.calibration()
                options = {"generator": generator, "calibration": tokens}
                select = make_selection(SLICEGPT, self.model, **options)
                self.sliced[record.ratio] = select.prune(record.ratio)
            return self.sliced[record.ratio]
        method, again, _ = record.method.partition(REFIT)
        kept = self.kept[method, record.seed, record.ratio]
        model = prune_rows(self.model, kept)
        if not again:
            return model
        ridge = self.ridge(record, kept)
        H = mean_moments(self.statistics(method, record.seed).halves)
        return refit_(model, self.model, kept, H, ridge=ridge)

    def ridge(self, record, kept):
        """Ridge of a re-fitted model, chosen once."""
        path = self.cache / f"{record.method}-{record.seed}-{record.ratio}.ridge"
        if not path.exists():
            method = record.method.removesuffix(REFIT)
            halves = self.statistics(method, record.seed).halves
            weights = [linear.weight for linear in down_projections(self.model)]
            write_whole(path, repr(choose_ridge(weights, halves, kept)[0]))
        return float(path.read_text())

    def rows(self, record):
        """Digest of what makes the model of a record: the rows kept, and the ridge."""
        method, again, _ = record.method.partition(REFIT)
        kept = self.kept.get((method, record.seed, record.ratio))
        if kept is None:
            return ""
        digest = hashlib.sha256()
        for rows in kept:
            digest.update(rows.numpy().astype("<i8").tobytes())
        if again:
            digest.update(repr(self.ridge(record, kept)).encode())
        return digest.hexdigest()[:16]

    def record(self, method, seed, ratio, samples):
        """New record of a model, with everything that is cheap."""
        key = method.removesuffix(REFIT), seed, ratio
        kept = self.kept.get(key)
        record = ModelRecord(
            method=method,
            seed=seed,
            ratio=ratio,
            parameters=0,
            seconds=self.seconds.get(key, 0.0),
            ks=None,
        )
        start = time.process_time()
        model = self.pruned(record)
        record.seconds = round(record.seconds + time.process_time() - start, 3)
        record.parameters = model.num_parameters()
        if kept is not None:  # rows are what was cut
            distances = selection_distances(self.matrices, kept, dtype=DTYPE)
            record.ks = float(f"{distances.mean():.6g}")
            record.lost = lost_outputs(self.model, samples, kept).tolist()
            record.rows = self.rows(record)
        kl = kl_per_position(self.model, model, samples)
        record.kl = kl.mean(1).tolist()
        return record

    def read(self, model, record, count):
        """Read the next `count` windows."""
        done = len(record.nats)
        for start, _, end in self.windows[done : done + count]:
            nats = token_nats(model, self.text[None, start:end])
            record.nats.append(float(nats.sum()))

    def ask(self, model, record, task, count):
        """Ask the next `count` questions of a task."""
        done = record.n_answered(task)
        questions = self.questions[task][done : done + count]
        if not questions:  # another run has answered them meanwhile
            return
        size = 8 if self.device == "cpu" else 64
        scores = log_likelihoods(model, self.tokenizer, questions, batch_size=size)
        chance = TASK_CHANCE[task]
        outcome = task_result(questions, scores, chance, length=LENGTH).per_question
        rules = [r for r in (outcome.correct, outcome.correct_norm) if r is not None]
        marks = ["".join("01"[int(right)] for right in rule) for rule in rules]
        before = record.answers.get(task, [""] * len(marks))
        record.answers[task] = [old + new for old, new in zip(before, marks)]


def name_of(record):
    return f"{record.method}/{record.seed}/{record.ratio}"


def is_main(record):
    return record.method == "dense" or record.ratio == MAIN


def missing(bench, record, stage):
    """What `record` lacks of a stage: windows, and questions of each task."""
    windows = min(stage[0] if is_main(record) else stage[1], len(bench.windows))
    lacking = {"windows": windows - len(record.nats)}
    for task, questions in bench.questions.items() if is_main(record) else ():
        lacking[task] = min(stage[2], len(questions)) - record.n_answered(task)
    return {name: n for name, n in lacking.items() if n > 0}


def work(bench, record, lacking, deadline):
    """Do what a record lacks, in pieces, until the deadline."""
    model = bench.pruned(record)
    for name, n in lacking.items():
        piece = n if bench.device != "cpu" else (4 if name == "windows" else 1000)
        for done in range(0, n, piece):
            if time.monotonic() > deadline:
                return
            if name == "windows":
                before = len(record.nats)
                bench.read(model, record, min(piece, n - done))
            else:
                before = record.n_answered(name)
                bench.ask(model, record, name, min(piece, n - done))
            yield f"{name_of(record)}/{name} from {before}"


def methods():
    yield from (("row norm", None), ("wanda", None), (SLICEGPT, None))
    for method in ("random", "released", "exact"):
        yield from ((method, seed) for seed in SEEDS)
    for method in BY_MOMENTS:
        seeds = SEEDS if method == "functional" else SEEDS[:1]
        yield from ((method + end, seed) for end in ("", REFIT) for seed in seeds)


def by_model(table):
    """Records of a table by method, seed and ratio."""
    records = map(ModelRecord.from_json, table.get("models", []))
    return {(r.method, r.seed, r.ratio): r for r in records}


def write(table, records, piece=None):
    """Store the records, and of each model what another run has stored since.

    `piece` names what this run, by the versions and device of `table`, has just made.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one run at a time reads, merges and writes
        stored = read_table(RESULT)
        check_same(RESULT, stored and settings(stored), settings(table))
        for key, theirs in by_model(stored).items():
            ours = records.setdefault(key, theirs)
            ours.nats = max(ours.nats, theirs.nats, key=len)
            for task in theirs.answers:
                longest = max(ours, theirs, key=lambda record: record.n_answered(task))
                ours.answers[task] = longest.answers[task]
        for task, asked_there in stored.get("questions", {}).items():
            asked = max(asked_there, table["questions"].get(task, 0))
            table["questions"][task] = asked
        models = [r.to_json() for r in records.values()]
        write_table(RESULT, with_origins(table, stored, piece) | {"models": models})


def settings(table):
    """What all that is in one table was measured with."""
    return table["configuration"] | {"sampled texts": table["samples"]}


def with_origins(table, stored, piece):
    """The table with the origin of the stored one, and of a piece made elsewhere."""
    here = {key: table[key] for key in ("versions", "device")}
    first = {key: stored.get(key, table[key]) for key in here}
    elsewhere = stored.get("made_elsewhere", {})
    if piece and here != first:
        elsewhere = elsewhere | {piece: here}
    return table | first | ({"made_elsewhere": elsewhere} if elsewhere else {})


def described(device):
    if device == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    return torch.cuda.get_device_name(device)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--machine", default="", help="added to the device's name")
    names = ["dense", *dict(methods())]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--ratios", nargs="+", type=float, choices=RATIOS, default=[*RATIOS]
    )
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    bench = Bench(options.device)
    stored = read_table(RESULT)
    device = [described(options.device), options.machine]
    table = {"configuration": CONFIGURATION, "device": "; ".join(filter(None, device))}
    table["versions"] = versions("torch", "transformers")
    table["samples"] = stored.get("samples")
    if not stored:
        n, length = CONFIGURATION["samples"]
        generator = torch.Generator().manual_seed(CONFIGURATION["sample_seed"])
        samples = self_sample(bench.model, n, length, generator=generator)
        table["samples"] = samples.tolist()
    check_same(RESULT, stored and settings(stored), settings(table))
    samples = torch.tensor(table["samples"])
    table["windows"] = [end - first for _, first, end in bench.windows]
    table["questions"] = {name: len(q) for name, q in bench.questions.items()}
    records = by_model(stored)
    wanted = [("dense", None, 0.0)]
    for method, seed in methods():
        if method not in options.only:
            continue
        if method != SLICEGPT:
            bench.choose(method.removesuffix(REFIT), seed)
        wanted += [(method, seed, ratio) for ratio in reversed(RATIOS)]
    wanted = [key for key in wanted if key[2] in (0, *options.ratios)]
    for key in wanted:
        if key not in records:
            records[key] = bench.record(*key, samples)
            write(table, records, name_of(records[key]))
        elif records[key].rows != bench.rows(records[key]):
            raise ValueError(
                f"the rows of {key} are not those that {RESULT} was measured with; "
                "restore the cache or the version that chose them, or take it out"
            )
    chosen = [records[key] for key in wanted if key[0] in options.only]
    for stage in STAGES:
        for record in sorted(chosen, key=is_main, reverse=True):
            for made in work(bench, record, missing(bench, record, stage), deadline):
                write(table, records, made)
    write(table, records)


if __name__ == "__main__":
    main()
