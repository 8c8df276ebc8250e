"""Every pruning method on one table: perplexity, divergence and zero-shot accuracy.

    python benchmarks/pruning_methods.py [--minutes 30] [--device cuda]
                                         [--only wanda] [--ratios 0.3] [--seeds 0]
                                         [--workers 2]
    python benchmarks/pruning_methods.py --model gemma3 --ratios 0.3
                              --results book/results/pruning_methods_gemma3.json

fills `book/results/pruning_methods.json`, or the table of the second real model, whose
sizes are smaller and which SliceGPT cannot cut.  The work is cut into small pieces,
some windows of WikiText-2 or some questions of one model, and a finished piece is never
done again: the run may be stopped at any moment and goes on where it was, with the
models that lag behind first.  Workers share the folder `build/pruning_methods`.  Runs
side by side on other methods or ratios each keep what the others have stored.  On a CPU
the first 2000 questions of HellaSwag are asked, on a GPU all of them.  Choosing the
rows is cheap and is repeated in each run unless the folder still holds it; a model
whose rows have come out otherwise than those that were measured is refused.
`--machine` names what the table cannot see, such as the instructions that the matrix
products use.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from storing import (
    OncePerProcess,
    check_same,
    one_thread,
    options_of,
    read_table,
    run_by,
    tensors_once,
    versions,
    with_engine,
    write_table,
    write_whole,
)

from prunefair.models import default_device, load_model, load_tokenizer
from prunefair.pruning.functional_policy import fisher_costs
from prunefair.pruning.functional_pruning import COST_TEXTS, SelfStatistics
from prunefair.pruning.perplexity import (
    beginning_tokens,
    kl_per_position,
    self_sample,
    text_windows,
    token_nats,
    wikitext_tokens,
)
from prunefair.pruning.reconstruction import CORRECTED, reconstruct_
from prunefair.pruning.records import ModelRecord, evaluation_order
from prunefair.pruning.refit import (
    RIDGES,
    choose_ridge,
    find_ridge,
    mean_moments,
    refit_,
)
from prunefair.pruning.selections import (
    CALIBRATED,
    ON_TEXT,
    RECONSTRUCTED,
    REFIT,
    SLICEGPT,
    make_selection,
    parted,
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
CALIBRATION_WINDOWS = {"smollm2": 16, "gemma3": 8}
CALIBRATION = "WikiText-2 validation, first {} windows of 1024 tokens"
CONFIGURATION = {
    "model": "smollm2",
    "text": "WikiText-2 test",
    "window": 1024,
    "order_seed": 2025,
    "samples": [16, 64],
    "sample_seed": 2026,
    "calibration": CALIBRATION.format(CALIBRATION_WINDOWS["smollm2"]),
    "policies_trained_at": MAIN,
    "exact_episodes": 6,
    "functional_episodes": 8,
    "self_texts": [256, 128],
    "acc_norm": LENGTH,
    "tasks": list(TASK_CHANCE),
    "hellaswag_on_cpu": 2000,
}
# Of the second model, whose vocabulary is five times as large: shorter texts and fewer
# in one pass, as many tokens of its own text as the calibrated methods read of
# WikiText-2, and the ridge found as the pruner does today.
SECOND = {
    "model": "gemma3",
    "window": 512,
    "samples": [16, 32],
    "ridge": "find_ridge",
    "calibration": CALIBRATION.format(CALIBRATION_WINDOWS["gemma3"]),
    "self_texts": [64, 128],
    "batch": 4,
    "left_out": [SLICEGPT],
}
CONFIGURATIONS = {"smollm2": CONFIGURATION, "gemma3": CONFIGURATION | SECOND}
# What every model should have before any model gets more: windows, at MAIN and at the
# other ratios, and questions of each task.
STAGES = [(4, 2, 0), (8, 4, 0), (8, 4, 40), (16, 8, 100), (32, 16, 200), (64, 32, 400)]
STAGES += [(128, 64, 800), (10**6, 10**6, 10**6)]


def ordered_questions(name, configuration, *, more=False):
    """Questions of a task in the fixed random order; first those asked on a CPU."""
    questions = task_questions(name)
    rng = np.random.default_rng(configuration["order_seed"])
    first = len(questions)
    if name == "hellaswag":
        first = min(first, configuration["hellaswag_on_cpu"])
    order = [*evaluation_order(first, rng=rng)]
    if more:
        order += [*(first + evaluation_order(len(questions) - first, rng=rng))]
    return [questions[i] for i in order]


def marks(model, tokenizer, task, questions, size):
    """Zeros and ones of the questions of a task, by each rule."""
    scores = log_likelihoods(model, tokenizer, questions, batch_size=size)
    chance = TASK_CHANCE[task]
    outcome = task_result(questions, scores, chance, length=LENGTH).per_question
    rules = [r for r in (outcome.correct, outcome.correct_norm) if r is not None]
    return ["".join("01"[int(right)] for right in rule) for rule in rules]


class Bench(OncePerProcess):
    """The dense model, what it is measured on, and the rows that each method keeps."""

    def __init__(self, device, name="smollm2"):
        self.given = device, name
        self.device, self.configuration = device, CONFIGURATIONS[name]
        configuration = self.configuration
        self.batch = configuration.get("batch", 8)
        self.model = load_model(name, dtype=DTYPE, device=device)
        self.tokenizer = load_tokenizer(name)
        self.matrices = [W.float() for W in row_matrices(self.model)]
        self.text = wikitext_tokens(self.tokenizer)
        self.beginning = torch.tensor(beginning_tokens(self.tokenizer)).long()
        extra, window = int(len(self.beginning) > 0), configuration["window"]
        own = window - len(self.beginning)  # as `perplexity` has it
        rng = np.random.default_rng(configuration["order_seed"])
        windows = text_windows(len(self.text) + extra, own + extra, own)
        windows = [w for w in windows if w[2] > w[1]]
        self.windows = [windows[i] for i in evaluation_order(len(windows), rng=rng)]
        more = device != "cpu"
        self.questions = {
            task: ordered_questions(task, configuration, more=more)
            for task in TASK_CHANCE
        }
        self.kept, self.seconds, self.sliced = {}, {}, {}
        self.latest = None, None
        chosen_by = json.dumps([configuration, RATIOS], sort_keys=True).encode()
        self.cache = BUILD / hashlib.sha256(chosen_by).hexdigest()[:12]
        self.cache.mkdir(parents=True, exist_ok=True)

    def selection(self, method, seed):
        """Function from a ratio to the rows kept; training is done once, at MAIN."""
        options = {"generator": torch.Generator().manual_seed(seed or 0)}
        if method in CALIBRATED:
            options["calibration"] = self.calibration()
        if method in BY_MOMENTS:
            options["statistics"] = self.statistics(method, seed)
        kind = method.split(",")[0]
        options["episodes"] = self.configuration.get(f"{kind}_episodes")
        return make_selection(method, self.model, trained_at=MAIN, **options).rows

    def statistics(self, method, seed):
        """Moments and Fisher costs on self-sampled text, or on the calibration text."""
        files, texts = self.statistics_files(method, seed), self.texts(method, seed)
        fisher = files[0].with_suffix(".fisher.npy")
        if not fisher.exists():
            start, options = time.process_time(), {"batch_size": self.batch}
            costs = [torch.zeros(len(W)) for W in self.matrices]  # energies need none
            if method != ON_TEXT:
                costs = fisher_costs(self.model, texts["texts"][:COST_TEXTS], **options)
            parts = texts["texts"].tensor_split(2)
            halves = [hidden_moments(self.model, part, **options) for part in parts]
            seconds = time.process_time() - start + texts["seconds"].item()
            note = {"seconds": seconds}
            for moments, path in zip(halves, files, strict=True):
                save_moments(moments, path, note)
            partial = fisher.with_suffix(".partial.npy")
            np.save(partial, torch.stack(costs).numpy())
            os.replace(partial, fisher)
        halves = tuple(load_moments(path)[0] for path in files)
        costs = [*torch.from_numpy(np.load(fisher))]
        return SelfStatistics(halves, costs, texts["texts"])

    def texts(self, method, seed):
        """What a method reads, its own text once, and the seconds that this took."""
        if method == ON_TEXT:
            return {"texts": self.calibration(), "seconds": torch.zeros(())}

        def make():
            start, generator = time.process_time(), torch.Generator().manual_seed(seed)
            size = self.configuration["self_texts"]
            texts = self_sample(self.model, *size, generator=generator)
            seconds = torch.tensor(time.process_time() - start)
            return {"texts": texts, "seconds": seconds}

        return tensors_once(self.cache, f"self-{seed}-texts", make)

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
        """WikiText-2 that the calibrated methods see, each row with its beginning."""
        n = CALIBRATION_WINDOWS[self.configuration["model"]]
        own = 1024 - len(self.beginning)
        validation = wikitext_tokens(self.tokenizer, "validation")[: n * own]
        return torch.cat([self.beginning.expand(n, -1), validation.view(n, own)], 1)

    def rows_of(self, method, seed, ratio):
        """Rows that a method keeps, by whichever worker they were chosen; or none."""
        if method in ("dense", SLICEGPT):
            return None
        if (method, seed, ratio) not in self.kept:
            self.choose(method, seed)
        return self.kept[method, seed, ratio]

    def alone(self):
        """Numbers of a CPU that do not depend on how many threads there are."""
        return one_thread() if self.device == "cpu" else nullcontext()

    def chosen(self, method, seed):
        """Rows of a method, put into the folder."""
        with self.alone():
            self.choose(method, seed)

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
        method, repair = parted(record.method)
        kept = self.rows_of(method, record.seed, record.ratio)
        model = prune_rows(self.model, kept)
        if repair == RECONSTRUCTED:
            return self.reconstructed(model, method, record)
        if not repair:
            return model
        ridge = self.ridge(record, kept)
        H = mean_moments(self.statistics(method, record.seed).halves)
        return refit_(model, self.model, kept, H, ridge=ridge)

    def reconstructed(self, model, method, record):
        """The pruned model with its blocks fitted, which is done once."""
        own = torch.nn.ModuleList(down_projections(model))  # what the plan changes

        def make():
            texts = self.texts(method, record.seed)["texts"]
            generator = torch.Generator().manual_seed(record.seed)
            options = {"plan": CORRECTED, "generator": generator}
            reconstruct_(model, self.model, texts, **options)
            return own.state_dict()

        found = tensors_once(self.cache, name_of(record).replace("/", "-"), make)
        own.load_state_dict(found, assign=True)  # biases may be the dense model's
        return model

    def ridge(self, record, kept):
        """Ridge of a re-fitted model, chosen once."""
        path = self.cache / f"{record.method}-{record.seed}-{record.ratio}.ridge"
        if not path.exists():
            method, _ = parted(record.method)
            halves = self.statistics(method, record.seed).halves
            weights = [linear.weight for linear in down_projections(self.model)]
            walk = self.configuration.get("ridge") == find_ridge.__name__
            choose = find_ridge if walk else choose_ridge
            ridge = choose(weights, halves, kept)[0]
            if ridge in (RIDGES[0], RIDGES[-1]):  # the least error may lie beyond
                raise RuntimeError(f"{record.method}: ridge {ridge} ends the grid")
            write_whole(path, repr(ridge))
        return float(path.read_text())

    def rows(self, record):
        """Digest of what makes the model of a record: rows, and ridge or plan."""
        method, repair = parted(record.method)
        kept = self.kept.get((method, record.seed, record.ratio))
        if kept is None:
            return ""
        digest = hashlib.sha256()
        for rows in kept:
            digest.update(rows.numpy().astype("<i8").tobytes())
        if repair:
            more = CORRECTED if repair == RECONSTRUCTED else self.ridge(record, kept)
            digest.update(repr(more).encode())
        return digest.hexdigest()[:16]

    def record(self, method, seed, ratio, samples):
        """New record of a model, with everything that is cheap."""
        with self.alone():
            return self.cheap(method, seed, ratio, samples)

    def cheap(self, method, seed, ratio, samples):
        key = parted(method)[0], seed, ratio
        kept = self.rows_of(*key)
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

    def measured(self, record, name, done, count):
        """Outcomes of the next windows or questions, `done` of which there are."""
        with self.alone():
            if self.latest[0] != name_of(record):
                self.latest = name_of(record), self.pruned(record)
            if name == "windows":
                return self.read(self.latest[1], done, count)
            return self.ask(self.latest[1], name, done, count)

    def read(self, model, done, count):
        """Nats of `count` windows from the one numbered `done`."""
        found = []
        for start, first, end in self.windows[done : done + count]:
            own = self.text[start : end - int(len(self.beginning) > 0)]
            nats = token_nats(model, torch.cat([self.beginning, own])[None])[0]
            found.append(float(nats[first - end :].sum()))
        return found

    def ask(self, model, task, done, count):
        """Marks of `count` questions of a task, by each rule."""
        questions = self.questions[task][done : done + count]
        size = self.batch if self.device == "cpu" else 64
        return marks(model, self.tokenizer, task, questions, size)


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


def pieces(bench, records, stage):
    """Place and function of what some records lack of a stage, model by model."""
    for record in records:
        who = replace(record, nats=[], kl=[], lost=[], answers={})
        for name, n in missing(bench, record, stage).items():
            piece = n if bench.device != "cpu" else (4 if name == "windows" else 1000)
            before = n_done(record, name)
            for done in range(before, before + n, piece):
                count = min(piece, before + n - done)
                make = partial(bench.measured, who, name, done, count)
                yield (name_of(record), name, done), make


def n_done(record, name):
    return len(record.nats) if name == "windows" else record.n_answered(name)


def added(record, name, outcomes):
    """Store the next outcomes of a record in it."""
    if name == "windows":
        record.nats += outcomes
        return
    before = record.answers.get(name, [""] * len(outcomes))
    record.answers[name] = [old + new for old, new in zip(before, outcomes)]


def in_order(found, keys):
    """What comes, in the order of `keys`."""
    keys, waiting = iter(keys), {}
    key = next(keys, None)
    for name, value in found:
        waiting[name] = value
        while key in waiting:
            yield key, waiting.pop(key)
            key = next(keys, None)


def in_turn(found, records):
    """Add what comes to the records, each where the one before it is; give its name."""
    waiting = {}
    for (of, name, done), outcomes in found:
        waiting[of, name, done] = outcomes
        record = records[of]
        while (next_ := (of, name, n_done(record, name))) in waiting:
            added(record, name, waiting.pop(next_))
            yield f"{of}/{name} from {next_[2]}"


def methods():
    yield from (("row norm", None), ("wanda", None), (SLICEGPT, None))
    for method in ("random", "released", "exact"):
        yield from ((method, seed) for seed in SEEDS)
    for method in BY_MOMENTS:
        seeds = SEEDS[:1] if method == ON_TEXT else SEEDS
        ends = ("", REFIT) + ((RECONSTRUCTED,) if method == "functional" else ())
        yield from ((method + end, seed) for end in ends for seed in seeds)


def by_model(table):
    """Records of a table by method, seed and ratio."""
    records = map(ModelRecord.from_json, table.get("models", []))
    return {(r.method, r.seed, r.ratio): r for r in records}


def write(path, table, records, piece=None):
    """Store the records at `path`, and of each model what another run has stored since.

    `piece` names what this run, by the versions and device of `table`, has just made.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one run at a time reads, merges and writes
        stored = read_table(path)
        check_same(path, stored and settings(stored), settings(table))
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
        write_table(path, with_origins(table, stored, piece) | {"models": models})


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
        return "cpu, 1 threads"
    return torch.cuda.get_device_name(device)


def main():
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--model", choices=CONFIGURATIONS, default="smollm2")
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--machine", default="", help="added to the device's name")
    names = ["dense", *dict(methods())]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    for name, kind, every in (("--ratios", float, RATIOS), ("--seeds", int, SEEDS)):
        choice = {"type": kind, "choices": every, "default": [*every]}
        parser.add_argument(name, nargs="+", **choice)
    options = with_engine(parser)
    path, configuration = options.results, CONFIGURATIONS[options.model]
    stored = read_table(path)
    device = [described(options.device), options.machine]
    table = {"configuration": configuration, "device": "; ".join(filter(None, device))}
    table["versions"] = versions("torch", "transformers")
    table["samples"] = stored.get("samples")
    check_same(path, stored and settings(stored), settings(table))
    bench = Bench(options.device, options.model)
    if not stored:
        generator = torch.Generator().manual_seed(configuration["sample_seed"])
        size, drawn = configuration["samples"], {"generator": generator}
        table["samples"] = self_sample(bench.model, *size, **drawn).tolist()
    samples = torch.tensor(table["samples"])
    table["windows"] = [end - first for _, first, end in bench.windows]
    table["questions"] = {name: len(q) for name, q in bench.questions.items()}
    records = by_model(stored)
    wanted, chosen = [("dense", None, 0.0)], []
    for method, seed in methods():
        out = method not in options.only or method in configuration.get("left_out", ())
        if out or seed not in (None, *options.seeds):
            continue
        if method != SLICEGPT:
            chosen.append((parted(method)[0], seed))
        wanted += [(method, seed, ratio) for ratio in reversed(RATIOS)]
    choices = [(key, partial(bench.chosen, *key)) for key in dict.fromkeys(chosen)]
    for key, _ in run_by(options, choices, whole=True):
        bench.choose(*key)  # from the folder
    wanted = [key for key in wanted if key[2] in (0, *options.ratios)]
    new = [key for key in wanted if key not in records]
    begun = [(key, partial(bench.record, *key, samples)) for key in new]
    for key in wanted:
        if key in records and records[key].rows != bench.rows(records[key]):
            raise ValueError(
                f"the rows of {key} are not those that {path} was measured with; "
                "restore the cache or the version that chose them, or take it out"
            )
    for key, record in in_order(run_by(options, begun, whole=True), new):
        records[key] = record
        write(path, table, records, name_of(record))
    chosen = [records[key] for key in wanted if key[0] in options.only]
    for stage in STAGES:
        ordered = sorted(chosen, key=is_main, reverse=True)
        found = run_by(options, pieces(bench, ordered, stage))
        for made in in_turn(found, {name_of(r): r for r in ordered}):
            write(path, table, records, made)
    write(path, table, records)


if __name__ == "__main__":
    main()
