"""Models pruned by their own text and by WikiText-2, on text of other kinds.

    python benchmarks/domains.py [--device cuda] [--scratch FOLDER] [--only nats/wanda]

fills `book/results/domains.json`: every pruned model reads windows of five kinds of
text.  Each finished piece, one model on one kind of text, is stored and never done
again; the statistics of the model wait in the scratch folder, which several workers
share only on one machine.  Nothing is chosen by what is found: each ridge is found by
the text that the method reads.
"""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path

import torch
from storing import (
    OncePerProcess,
    Table,
    cpu,
    in_pieces,
    latest,
    made_once,
    options_of,
)

from prunefair.models import default_device, load_model, load_tokenizer
from prunefair.pruning.domains import DOMAINS, domain_windows
from prunefair.pruning.functional_policy import fisher_costs
from prunefair.pruning.functional_pruning import SelfStatistics
from prunefair.pruning.layered import FolderStore
from prunefair.pruning.perplexity import self_sample, token_nats, wikitext_tokens
from prunefair.pruning.selections import REFIT, make_selection
from prunefair.pruning.self_moments import Moments, hidden_moments

RESULT = Path(__file__).parents[1] / "book" / "results" / "domains.json"
FUNCTIONAL, EVEN = "functional" + REFIT, "functional, equal widths" + REFIT
OWN, WIKITEXT, MIXED = "its own", "WikiText-2", "half of each"
MODELS = {  # what the table calls it: which method, and which text it reads
    "dense": (None, None),
    "functional": (FUNCTIONAL, OWN),
    "functional, equal widths": (EVEN, OWN),
    "functional, half of each text": (FUNCTIONAL, MIXED),
    "functional on WikiText-2": (FUNCTIONAL, WIKITEXT),
    "energy on WikiText-2": ("energy" + REFIT, WIKITEXT),
    "wanda": ("wanda", WIKITEXT),
    "SliceGPT": ("SliceGPT", WIKITEXT),
}
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "texts": [128, 128],  # that each method reads, and their tokens
    "wikitext": "WikiText-2 validation, from its beginning",
    "seed": 0,
    "episodes": 8,
    "window": 512,
    "windows": 16,  # of each kind, in a random order
    "order_seed": 2025,
    "models": {name: list(how) for name, how in MODELS.items()},
}


class Bench(OncePerProcess):
    """The dense model, what each method reads, and the models that come of it."""

    def __init__(self, device, scratch):
        self.given = device, scratch
        self.model = load_model("smollm2", dtype=torch.float32, device=device)
        self.tokenizer = load_tokenizer("smollm2")
        self.store = FolderStore(scratch, CONFIGURATION | {"models": None})

    @cached_property
    def texts(self):
        """Texts that the methods read, each (128, 128)."""
        if not self.store.has("texts"):
            generator = torch.Generator().manual_seed(CONFIGURATION["seed"])
            own = self_sample(self.model, *CONFIGURATION["texts"], generator=generator)
            self.store.put("texts", own=own)
        n, length = CONFIGURATION["texts"]
        own = self.store.get("texts")["own"]
        text = wikitext_tokens(self.tokenizer, "validation")[: n * length]
        text = text.view(n, length)
        both = torch.stack([own[: n // 2], text[: n // 2]], 1).flatten(0, 1)
        return {OWN: own, WIKITEXT: text, MIXED: both}

    def statistics(self, kind):
        """Moments of both halves of a text, and Fisher costs."""
        name = kind.replace(" ", "-")
        if not self.store.has(name):
            texts, tensors = self.texts[kind], {}
            for half, part in enumerate(texts.tensor_split(2)):
                second, mean, tokens = hidden_moments(self.model, part)
                tensors |= {f"second-{half}": torch.stack(second)}
                tensors |= {f"mean-{half}": torch.stack(mean)}
                tensors |= {f"tokens-{half}": torch.tensor(tokens)}
            costs = torch.stack(fisher_costs(self.model, texts))
            self.store.put(name, fisher=costs, **tensors)
        found = self.store.get(name)
        halves = (
            Moments(
                *(list(found[f"{part}-{half}"]) for part in ("second", "mean")),
                int(found[f"tokens-{half}"]),
            )
            for half in (0, 1)
        )
        return SelfStatistics(tuple(halves), [*found["fisher"]])

    @cached_property
    def windows(self):
        """Windows of every kind of text."""
        c = CONFIGURATION
        size = {"window": c["window"], "count": c["windows"], "seed": c["order_seed"]}
        return {d: domain_windows(self.tokenizer, d, **size) for d in DOMAINS}

    @latest
    def pruned(self, name):
        """A model of the table, kept for the next piece."""
        method, kind = MODELS[name]
        if method is None:
            return self.model
        options = {"generator": torch.Generator().manual_seed(CONFIGURATION["seed"])}
        options["trained_at"] = CONFIGURATION["ratio"]
        if method in ("wanda", "SliceGPT"):
            options["calibration"] = self.texts[kind]
        else:
            options["statistics"] = self.statistics(kind)
        if method in (FUNCTIONAL, EVEN):
            options["episodes"] = CONFIGURATION["episodes"]
        return make_selection(method, self.model, **options).prune(
            CONFIGURATION["ratio"]
        )

    def nats(self, name, domain):
        """Information of every window of one kind of text, for one model."""
        model, windows = self.pruned(name), self.windows[domain]
        return [float(token_nats(model, w[None]).sum()) for w in windows]

    def parameters(self, name):
        return self.pruned(name).num_parameters()


def pieces(bench):
    """Place of every piece, and what makes it; those of one model in a row."""
    for name in MODELS:
        for domain in DOMAINS:
            yield ("nats", name, domain), partial(bench.nats, name, domain)
        yield ("parameters", name), partial(bench.parameters, name)


def main() -> None:
    """Measure what the table lacks."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--scratch", type=Path, default=Path("build/domains"))
    options = in_pieces(parser)
    device = cpu(torch.get_num_threads())
    if options.device != "cpu":
        device = torch.cuda.get_device_name(options.device)
    packages = ("torch", "transformers")
    table = Table(options.results, CONFIGURATION, *packages, device=device)
    bench = made_once(Bench, options.device, options.scratch)
    table.fill(pieces(bench), options, partial(print, flush=True))


if __name__ == "__main__":
    main()
