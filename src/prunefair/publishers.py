"""Where the data comes from: two addresses for every file, what is known of each.

The first address is the publisher's own where that is about as large as what we read,
else the copy that the hub of data sets keeps as Parquet; the other one is tried where
the first cannot be reached or gives something else.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MMLU_SUBJECTS = (
    "abstract_algebra",
    "business_ethics",
    "college_computer_science",
    "college_mathematics",
    "conceptual_physics",
    "formal_logic",
    "global_facts",
    "machine_learning",
    "miscellaneous",
    "philosophy",
)

CHOICES = ("context", "choices", "gold")
FILLINGS = ("contexts", "continuation", "gold")
FIVE_SHOT = ("question", "choices", "gold")


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """What is known of one data file.

    Parameters
    ----------
    rows : int
        Number of lines after the header.
    header : tuple of str
        Columns of a CSV file or keys of a JSON line; empty for plain text.
    size : int, optional
        Bytes of the publisher's own file; `None` for a file that we convert.
    sha256 : str, optional
        SHA-256 of the publisher's own file; `None` for a file that we convert, or of
        which only the archive's is on record.
    """

    rows: int
    header: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None


def _mmlu_files() -> dict[str, DataFile]:
    rows = (100, 100, 100, 100, 235, 126, 100, 112, 783, 311)
    files = {}
    for subject, count in zip(MMLU_SUBJECTS, rows):
        files[f"mmlu/{subject}_test.jsonl"] = DataFile(rows=count, header=FIVE_SHOT)
        files[f"mmlu/{subject}_dev.jsonl"] = DataFile(rows=5, header=FIVE_SHOT)
    return files


# movies.csv is the one in the publisher's archive; copies in circulation differ from
# it by a few bytes in titles, so a folder is checked for header and rows only.
FILES: dict[str, DataFile] = {
    "movielens/ratings.csv": DataFile(
        rows=100_836,
        header=("userId", "movieId", "rating", "timestamp"),
        size=2_483_723,
        sha256="aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
    ),
    "movielens/movies.csv": DataFile(
        rows=9_742,
        header=("movieId", "title", "genres"),
        size=494_431,
        sha256="5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",
    ),
    "ml-25m/ratings.csv": DataFile(
        rows=25_000_095,
        header=("userId", "movieId", "rating", "timestamp"),
        size=678_260_987,
    ),
    "ml-25m/movies.csv": DataFile(
        rows=62_423,
        header=("movieId", "title", "genres"),
        size=3_038_099,
    ),
    "ml-32m/ratings.csv": DataFile(
        rows=32_000_204,
        header=("userId", "movieId", "rating", "timestamp"),
        size=877_076_222,
        sha256="91159850e41ee59c86231165a688709647e2726cab2e7ba9faf04001bd5261ee",
    ),
    "ml-32m/movies.csv": DataFile(
        rows=87_585,
        header=("movieId", "title", "genres"),
        size=4_242_926,
        sha256="b37ca1abc7798de741138ed252b62f69f7e37c84b8a8fab1b82d409b4c6c5cc2",
    ),
    "wikitext2/test.txt": DataFile(
        rows=4_358,
        size=1_256_449,
        sha256="d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
    "wikitext2/valid.txt": DataFile(
        rows=3_760,
        size=1_121_681,
        sha256="f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ),
    "zeroshot/piqa.jsonl": DataFile(rows=1_838, header=CHOICES),
    "zeroshot/arc_easy.jsonl": DataFile(rows=2_376, header=CHOICES),
    "zeroshot/arc_challenge.jsonl": DataFile(rows=1_172, header=CHOICES),
    "zeroshot/hellaswag.jsonl": DataFile(rows=10_042, header=CHOICES),
    "zeroshot/winogrande.jsonl": DataFile(rows=1_267, header=FILLINGS),
} | _mmlu_files()


Read = Callable[[str], bytes]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A download that one or several data files are made of.

    Parameters
    ----------
    files : tuple of str
        Names of the data files it holds.
    contents : callable
        `contents(read, name)` gives the bytes of the data file `name`; `read(member)`
        gives those of a member of the archive, or of the only file there is.
    address : str
        A URL, or the path of a file in the repository `repository`.
    repository, revision : str, optional
        Data set of the hub and the commit that is read.
    sha256 : str, optional
        SHA-256 of the download: the publisher's, or what public registries recorded for
        this address; `None` where none is on record: then the commit of the hub, and
        what is known of the files, are what the download is held against.
    """

    files: tuple[str, ...]
    contents: Callable[[Read, str], bytes]
    address: str
    repository: str | None = None
    revision: str | None = None
    sha256: str | None = None

    @property
    def url(self) -> str:
        """Address of the download; `HF_ENDPOINT` names a mirror of the hub."""
        if self.repository is None:
            return self.address
        from huggingface_hub import hf_hub_url

        options = {"repo_type": "dataset", "revision": self.revision}
        return hf_hub_url(self.repository, self.address, **options)


def _json_lines(rows: Iterator[dict]) -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode()


def _parsed(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.decode("utf-8").split("\n") if line]


def _question(question: str, choices: list[str], gold: int) -> dict:
    """Row in format A, worded as lm-evaluation-harness words PIQA and ARC."""
    return {
        "context": f"Question: {question}\nAnswer:",
        "choices": choices,
        "gold": gold,
    }


def _movielens(read: Read, name: str) -> bytes:
    folder, file = name.split("/")
    return read(f"{'ml-latest-small' if folder == 'movielens' else folder}/{file}")


def _wikitext2(read: Read, name: str) -> bytes:
    return read(f"wikitext-2/wiki.{Path(name).stem}.tokens")


def _piqa(read: Read, name: str) -> bytes:
    rows = _parsed(read("physicaliqa-train-dev/dev.jsonl"))
    labels = read("physicaliqa-train-dev/dev-labels.lst").decode().split()
    return _json_lines(
        _question(row["goal"], [row["sol1"], row["sol2"]], int(label))
        for row, label in zip(rows, labels, strict=True)
    )


def _arc(read: Read, name: str) -> bytes:
    part = "ARC-Easy" if name.endswith("arc_easy.jsonl") else "ARC-Challenge"

    def convert(row: dict) -> dict:
        choices = row["question"]["choices"]
        labels = [choice["label"] for choice in choices]
        texts = [choice["text"] for choice in choices]
        stem = row["question"]["stem"]
        return _question(stem, texts, labels.index(row["answerKey"]))

    rows = _parsed(read(f"ARC-V1-Feb2018-2/{part}/{part}-Test.jsonl"))
    return _json_lines(convert(row) for row in rows)


def _without_tags(text: str) -> str:
    """HellaSwag text without the tags of its source; other brackets stay.

    The evaluation harness drops every bracketed text and capitalises `ctx_b`; the
    folder's file does neither, and a download has to equal it.
    """
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[(header|title|step|substeps)\]", "", text).replace("  ", " ")


def _hellaswag_row(row: dict) -> dict:
    return {
        "context": _without_tags(f"{row['activity_label']}: {row['ctx']}"),
        "choices": [_without_tags(ending) for ending in row["endings"]],
        "gold": int(row["label"]),
    }


def _hellaswag(read: Read, name: str) -> bytes:
    return _json_lines(map(_hellaswag_row, _parsed(read("hellaswag_val.jsonl"))))


def _winogrande_row(row: dict) -> dict:
    before, after = row["sentence"].split("_", 1)
    return {
        "contexts": [before + row["option1"], before + row["option2"]],
        "continuation": after.strip(),
        "gold": int(row["answer"]) - 1,
    }


def _winogrande(read: Read, name: str) -> bytes:
    return _json_lines(map(_winogrande_row, _parsed(read("winogrande_1.1/dev.jsonl"))))


def _mmlu(read: Read, name: str) -> bytes:
    stem = Path(name).stem
    split = stem.rsplit("_", 1)[1]
    table = read(f"data/{split}/{stem}.csv").decode("utf-8")
    return _json_lines(
        {"question": row[0], "choices": row[1:5], "gold": "ABCD".index(row[5])}
        for row in csv.reader(io.StringIO(table, newline=""))
    )


def _rows(table: bytes) -> list[dict]:
    """Rows of a Parquet file."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(io.BytesIO(table)).to_pylist()


def _hub_lines(convert: Callable[[dict], dict]) -> Callable[[Read, str], bytes]:
    """Contents of a data file whose rows `convert` makes of those of the hub's copy."""
    return lambda read, name: _json_lines(map(convert, _rows(read(name))))


def _hub_piqa(row: dict) -> dict:
    return _question(row["goal"], [row["sol1"], row["sol2"]], int(row["label"]))


def _hub_arc(row: dict) -> dict:
    choices = row["choices"]
    gold = choices["label"].index(row["answerKey"])
    return _question(row["question"], choices["text"], gold)


def _hub_mmlu(read: Read, name: str) -> bytes:
    subject = Path(name).stem.rsplit("_", 1)[0]
    rows = (row for row in _rows(read(name)) if row["subject"] == subject)
    keys = {"question": "question", "choices": "choices", "gold": "answer"}
    return _json_lines({key: row[old] for key, old in keys.items()} for row in rows)


def _hub_wikitext2(read: Read, name: str) -> bytes:
    # the hub's rows are the lines, an empty row in the place of a line with a blank
    return "".join(row["text"] or " \n" for row in _rows(read(name))).encode()


def _movielens_archives() -> tuple[Archive, ...]:
    """The publisher's archives, and the same bytes from an archive of the web."""
    # The publisher lists MD5 6b51fb2759a8657d3bfcbfc42b592ada for ml-25m.zip and
    # d472be332d4daa821edc399621853b57 for ml-32m.zip; the SHA-256 of both archives, and
    # sizes and SHA-256 of their files, are what several public projects recorded.
    known = {
        "ml-latest-small": (
            "movielens",
            "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        ),
        "ml-25m": (
            "ml-25m",
            "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        ),
        "ml-32m": (
            "ml-32m",
            "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
        ),
    }
    return tuple(
        Archive(
            address=f"{before}https://files.grouplens.org/datasets/movielens/{stem}.zip",
            sha256=sha256,
            files=(f"{folder}/ratings.csv", f"{folder}/movies.csv"),
            contents=_movielens,
        )
        for before in ("", "https://web.archive.org/web/2025id_/")
        for stem, (folder, sha256) in known.items()
    )


MMLU_FILES = tuple(_mmlu_files())
WIKITEXT2 = {"test": "test", "valid": "validation"}
AI2_ARC = {"repository": "allenai/ai2_arc"}
AI2_ARC["revision"] = "210d026faf9955653af8916fad021475a3f00453"
MMLU = {"repository": "cais/mmlu"}
MMLU["revision"] = "c30699e8356da336a370243923dbaf21066bb9fe"

# In the order in which they are tried.
ARCHIVES: tuple[Archive, ...] = (
    *_movielens_archives(),
    Archive(
        address="https://wikitext.smerity.com/wikitext-2-v1.zip",
        sha256="92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
        files=("wikitext2/test.txt", "wikitext2/valid.txt"),
        contents=_wikitext2,
    ),
    *(
        Archive(  # the text that comes of it is held against the published SHA-256
            repository="Salesforce/wikitext",
            revision="b08601e04326c79dfdd32d625aee71d232d685c3",
            address=f"wikitext-2-v1/{split}-00000-of-00001.parquet",
            files=(f"wikitext2/{stem}.txt",),
            contents=_hub_wikitext2,
        )
        for stem, split in WIKITEXT2.items()
    ),
    Archive(
        address="https://storage.googleapis.com/ai2-mosaic/public/physicaliqa/"
        "physicaliqa-train-dev.zip",
        sha256="54d32a04f59a7e354396f321723c8d7ec35cc6b08506563d8d1ffcc15ce98ddd",
        files=("zeroshot/piqa.jsonl",),
        contents=_piqa,
    ),
    Archive(
        repository="baber/piqa",
        revision="142f6d7367fd9877f0fb3b5734ea6a545f54cdd1",
        address="piqa_validation.parquet",
        sha256="2b17ee1215b1ceb2ddabf4c90a05c5a8b833bef9d207960f57d111c43a2080f3",
        files=("zeroshot/piqa.jsonl",),
        contents=_hub_lines(_hub_piqa),
    ),
    Archive(
        **AI2_ARC,
        address="ARC-Easy/test-00000-of-00001.parquet",
        sha256="4160597d618ae851c7eb04e281574f3f654776216ac6b6641588d64527b47177",
        files=("zeroshot/arc_easy.jsonl",),
        contents=_hub_lines(_hub_arc),
    ),
    Archive(
        **AI2_ARC,
        address="ARC-Challenge/test-00000-of-00001.parquet",
        sha256="62f03257e737aed263f55c6abf87c7bb0028a44a6bdd2a26eb1279eb42c1d1e9",
        files=("zeroshot/arc_challenge.jsonl",),
        contents=_hub_lines(_hub_arc),
    ),
    Archive(  # 680 MB, most of it a corpus that we do not need
        address="https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip",
        sha256="6d2d5ab50b2ceec6ba5f79c921be77cf2de712ea25a2b3f4fff3acc101cecfa0",
        files=("zeroshot/arc_easy.jsonl", "zeroshot/arc_challenge.jsonl"),
        contents=_arc,
    ),
    Archive(
        repository="Rowan/hellaswag",
        revision="218ec52e09a7e7462a5400043bb9a69a41d06b76",
        address="data/validation-00000-of-00001.parquet",
        sha256="899813071e1e95efafec90f856e1987d2150fa4d020fc005df6962c259f660cd",
        files=("zeroshot/hellaswag.jsonl",),
        contents=_hub_lines(_hellaswag_row),
    ),
    Archive(
        address="https://raw.githubusercontent.com/rowanz/hellaswag/master/data/"
        "hellaswag_val.jsonl",
        sha256="0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
        files=("zeroshot/hellaswag.jsonl",),
        contents=_hellaswag,
    ),
    Archive(
        address="https://storage.googleapis.com/ai2-mosaic/public/winogrande/"
        "winogrande_1.1.zip",
        sha256="3619ab104d8be2977b25c90ff420cb42d491707dcc75362a1e5d22bc082b7318",
        files=("zeroshot/winogrande.jsonl",),
        contents=_winogrande,
    ),
    Archive(
        repository="allenai/winogrande",
        revision="01e74176c63542e6b0bcb004dcdea22d94fb67b5",
        address="winogrande_xl/validation-00000-of-00001.parquet",
        files=("zeroshot/winogrande.jsonl",),
        contents=_hub_lines(_winogrande_row),
    ),
    Archive(
        **MMLU,
        address="all/test-00000-of-00001.parquet",
        sha256="74a41822ce7d3def56e1682f958469c04642a5336a5ce912fa375fdb90fb25d7",
        files=tuple(name for name in MMLU_FILES if name.endswith("_test.jsonl")),
        contents=_hub_mmlu,
    ),
    Archive(
        **MMLU,
        address="all/dev-00000-of-00001.parquet",
        files=tuple(name for name in MMLU_FILES if name.endswith("_dev.jsonl")),
        contents=_hub_mmlu,
    ),
    Archive(  # 166 MB, most of it the training questions
        address="https://people.eecs.berkeley.edu/~hendrycks/data.tar",
        sha256="bec563ba4bac1d6aaf04141cd7d1605d7a5ca833e38f994051e818489592989b",
        files=MMLU_FILES,
        contents=_mmlu,
    ),
)


def archive_contents(archive: Archive, path: Path) -> dict[str, bytes]:
    """Bytes of every data file that `archive`, downloaded to `path`, holds.

    Parameters
    ----------
    archive : Archive
        What was downloaded.
    path : pathlib.Path
        Where it lies: a zip, a tar, or a single file, which is read whatever its name.

    Returns
    -------
    contents : dict
        Name of the data file to its bytes, converted to our format.

    Raises
    ------
    KeyError, IndexError, ValueError, zipfile.BadZipFile, tarfile.TarError, ArrowInvalid
        If the download does not have the expected layout.
    """
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as file:
            return {name: archive.contents(file.read, name) for name in archive.files}
    if path.suffix == ".tar":
        with tarfile.open(path) as file:

            def read(member: str) -> bytes:
                return file.extractfile(member).read()

            return {name: archive.contents(read, name) for name in archive.files}
    return {
        name: archive.contents(lambda _: path.read_bytes(), name)
        for name in archive.files
    }
