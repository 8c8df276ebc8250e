"""Data files: found in a folder, in the cache, or downloaded and checked."""

import csv
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from urllib.parse import urlsplit

import pooch
import pyarrow.parquet
import pytest
import requests

from prunefair import data, publishers
from prunefair.data import check_contents, data_file, data_folder
from prunefair.fairness.ratings import load_ratings
from prunefair.publishers import ARCHIVES, FILES, archive_contents

HELD = data_folder()
LARGE = ("ml-25m", "ml-32m")  # too large to be held beside a checkout
HELD_NAMES = [name for name in FILES if not name.startswith(LARGE)]
needs_data = pytest.mark.skipif(HELD is None, reason="no data folder")


def archive_of(name, *, hub=False):
    """The publisher's own archive of `name`, or the hub's copy."""
    own = [a for a in ARCHIVES if (a.repository is not None) == hub]
    return next(archive for archive in own if name in archive.files)


def held_bytes(name):
    return (HELD / name).read_bytes()


def rows_in(contents):
    return [json.loads(line) for line in contents.decode().split("\n") if line]


def rows_of(name):
    return rows_in(held_bytes(name))


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def question(row):
    return row["context"].removeprefix("Question: ").removesuffix("\nAnswer:")


def piqa_members():
    rows = rows_of("zeroshot/piqa.jsonl")
    features = [
        {"goal": question(r), "sol1": r["choices"][0], "sol2": r["choices"][1]}
        for r in rows
    ]
    labels = "".join(f"{r['gold']}\n" for r in rows).encode()
    folder = "physicaliqa-train-dev"
    return {f"{folder}/dev.jsonl": lines(features), f"{folder}/dev-labels.lst": labels}


def arc_members():
    members = {}
    for name, part in [("arc_easy", "ARC-Easy"), ("arc_challenge", "ARC-Challenge")]:
        rows = []
        for number, row in enumerate(rows_of(f"zeroshot/{name}.jsonl")):
            labels = "1234567" if number % 9 == 0 else "ABCDEFG"  # both are in use
            choices = [
                {"text": text, "label": label}
                for text, label in zip(row["choices"], labels)
            ]
            stem = {"stem": question(row), "choices": choices}
            rows.append({"question": stem, "answerKey": labels[row["gold"]]})
        members[f"ARC-V1-Feb2018-2/{part}/{part}-Test.jsonl"] = lines(rows)
    return members


def before_cleaning(text):
    """A text that cleaning turns into `text`."""
    text = re.sub(" {2,}", lambda spaces: 2 * spaces[0], text)
    return f"[header]{text}[step]"


def hellaswag_lines():
    rows = []
    for row in rows_of("zeroshot/hellaswag.jsonl"):
        label, context = row["context"].split(": ", 1)
        endings = [before_cleaning(choice) for choice in row["choices"]]
        rows.append(
            {
                "activity_label": label,
                "ctx": before_cleaning(context),
                "endings": endings,
                "label": row["gold"],
            }
        )
    return lines(rows)


def winogrande_members():
    rows = []
    for row in rows_of("zeroshot/winogrande.jsonl"):
        first, second = row["contexts"]
        common = 0
        while common < min(len(first), len(second)) and first[common] == second[common]:
            common += 1
        rows.append(
            {
                "sentence": f"{first[:common]}_ {row['continuation']}",
                "option1": first[common:],
                "option2": second[common:],
                "answer": str(row["gold"] + 1),
            }
        )
    return {"winogrande_1.1/dev.jsonl": lines(rows)}


def mmlu_members():
    members = {}
    for name in FILES:
        if name.startswith("mmlu/"):
            stem = name.removeprefix("mmlu/").removesuffix(".jsonl")
            table = io.StringIO(newline="")
            for row in rows_of(name):
                answer = "ABCD"[row["gold"]]
                csv.writer(table).writerow([row["question"], *row["choices"], answer])
            folder = stem.rsplit("_", 1)[1]
            members[f"data/{folder}/{stem}.csv"] = table.getvalue().encode()
    return members


def wikitext_members():
    return {
        f"wikitext-2/wiki.{part}.tokens": held_bytes(f"wikitext2/{part}.txt")
        for part in ("test", "valid")
    }


def movielens_members():
    return {
        f"ml-latest-small/{name}": held_bytes(f"movielens/{name}")
        for name in ("ratings.csv", "movies.csv")
    }


def arc_table(name):
    rows = []
    for number, row in enumerate(rows_of(name)):
        labels = list("1234567" if number % 9 == 0 else "ABCDEFG")
        labels = labels[: len(row["choices"])]
        choices = {"text": row["choices"], "label": labels}
        answer = labels[row["gold"]]
        rows.append(
            {"question": question(row), "choices": choices, "answerKey": answer}
        )
    return rows


def piqa_table(name):
    keys = ("sol1", "sol2")
    return [
        {"goal": question(r), "label": r["gold"]} | dict(zip(keys, r["choices"]))
        for r in rows_of(name)
    ]


def mmlu_table(name):
    split = name.rsplit("_", 1)[1]
    return [
        {
            "subject": file.removeprefix("mmlu/").rsplit("_", 1)[0],
            "question": row["question"],
            "choices": row["choices"],
            "answer": row["gold"],
        }
        for file in FILES
        if file.startswith("mmlu/") and file.endswith(split)
        for row in rows_of(file)
    ]


def wikitext_table(name):
    lines = held_bytes(name).decode().splitlines(keepends=True)
    return [{"text": line if line.strip() else ""} for line in lines]


TABLES = {
    "zeroshot/piqa.jsonl": piqa_table,
    "zeroshot/arc_easy.jsonl": arc_table,
    "zeroshot/arc_challenge.jsonl": arc_table,
    "zeroshot/hellaswag.jsonl": lambda name: rows_in(hellaswag_lines()),
    "zeroshot/winogrande.jsonl": lambda name: rows_in(
        winogrande_members()["winogrande_1.1/dev.jsonl"]
    ),
    "mmlu/philosophy_dev.jsonl": mmlu_table,
    "mmlu/philosophy_test.jsonl": mmlu_table,
    "wikitext2/test.txt": wikitext_table,
    "wikitext2/valid.txt": wikitext_table,
}


def parquet(rows):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


MEMBERS = {
    "zeroshot/piqa.jsonl": piqa_members,
    "zeroshot/arc_easy.jsonl": arc_members,
    "zeroshot/winogrande.jsonl": winogrande_members,
    "mmlu/philosophy_dev.jsonl": mmlu_members,
    "wikitext2/test.txt": wikitext_members,
    "movielens/ratings.csv": movielens_members,
    "zeroshot/hellaswag.jsonl": hellaswag_lines,
}


def download_of(name):
    """Bytes of a download with the publisher's layout, made from the held files."""
    members = MEMBERS[name]()
    if isinstance(members, bytes):
        return members
    buffer = io.BytesIO()
    if archive_of(name).url.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as file:
            for member, contents in members.items():
                file.writestr(member, contents)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as file:
            for member, contents in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(contents)
                file.addfile(info, io.BytesIO(contents))
    return buffer.getvalue()


class Publisher:
    """Stands in for the network: `serve` says what an address answers."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.answers = {}
        self.requested = []

    def __call__(self, *args, **kwargs):
        def download(url, output_file, pooch):
            self.requested.append(url)
            if url not in self.answers:
                raise requests.ConnectionError("no route")
            with open(output_file, "wb") as file:
                file.write(self.answers[url])

        return download

    def serve(self, name, contents, *, checksum=True, hub=False):
        """Serve `contents` for an archive of `name`, its checksum known if asked."""
        archive = archive_of(name, hub=hub)
        self.answers[archive.url] = contents
        if checksum and archive.sha256:
            digest = hashlib.sha256(contents).hexdigest()
            changed = dataclasses.replace(archive, sha256=digest)
            archives = tuple(changed if a is archive else a for a in data.ARCHIVES)
            self.monkeypatch.setattr(data, "ARCHIVES", archives)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a data folder that holds nothing."""
    monkeypatch.setenv("PRUNEFAIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNEFAIR_DATA", str(tmp_path / "empty"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def publisher(cache, monkeypatch):
    publisher = Publisher(monkeypatch)
    monkeypatch.setattr(pooch, "HTTPDownloader", publisher)
    return publisher


def left_behind(cache):
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file())


@needs_data
@pytest.mark.parametrize("name", HELD_NAMES)
def test_every_held_file_has_the_known_header_and_rows(name):
    assert data_file(name) == HELD / name


@needs_data
@pytest.mark.parametrize(
    "name", ["movielens/ratings.csv", "wikitext2/test.txt", "wikitext2/valid.txt"]
)
def test_the_held_file_is_the_published_one_to_the_byte(name):
    contents = held_bytes(name)
    assert len(contents) == FILES[name].size
    assert hashlib.sha256(contents).hexdigest() == FILES[name].sha256


def test_every_file_has_two_addresses_on_two_hosts():
    for name in FILES:
        urls = [archive.url for archive in ARCHIVES if name in archive.files]
        assert len({urlsplit(url).netloc for url in urls}) == len(urls) == 2
        assert all(url.startswith("https://") for url in urls)


def test_every_download_is_pinned_by_a_checksum_or_a_commit():
    for archive in ARCHIVES:
        if archive.sha256 is not None:
            assert len(bytes.fromhex(archive.sha256)) == 32
        if archive.repository is not None:
            assert len(bytes.fromhex(archive.revision)) == 20
            assert archive.revision in archive.url
        assert archive.sha256 or archive.revision


def test_a_mirror_of_the_hub_is_used():
    code = (
        "from prunefair.publishers import ARCHIVES\n"
        "print(*(a.url for a in ARCHIVES if a.repository))"
    )
    mirrored = os.environ | {"HF_ENDPOINT": "https://mirror.example"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env=mirrored, capture_output=True, check=True).stdout
    urls = out.decode().split()
    assert urls and all(url.startswith("https://mirror.example/") for url in urls)


def test_a_file_of_the_folder_comes_before_cache_and_network(tmp_path, publisher):
    name = "mmlu/philosophy_dev.jsonl"
    row = json.dumps({"question": "?", "choices": list("abcd"), "gold": 0}) + "\n"
    for folder in (tmp_path / "cache" / "data", tmp_path / "empty"):
        (folder / "mmlu").mkdir(parents=True)
        (folder / name).write_text(5 * row)
        assert data_file(name) == folder / name
    assert publisher.requested == []


@needs_data
@pytest.mark.parametrize("name", MEMBERS)
def test_downloads_become_the_held_files_to_the_byte(
    name, cache, publisher, monkeypatch
):
    if name == "movielens/ratings.csv":  # held movies.csv is not the published one
        movies = held_bytes("movielens/movies.csv")
        known = dataclasses.replace(
            FILES["movielens/movies.csv"],
            size=len(movies),
            sha256=hashlib.sha256(movies).hexdigest(),
        )
        monkeypatch.setitem(FILES, "movielens/movies.csv", known)
    publisher.serve(name, download_of(name))
    assert data_file(name) == cache / name
    assert left_behind(cache) == sorted(archive_of(name).files)
    for other in archive_of(name).files:
        assert data_file(other).read_bytes() == held_bytes(other)
    urls = [a.url for a in data.ARCHIVES if name in a.files]
    asked = urls[: 1 + urls.index(archive_of(name).url)]
    assert publisher.requested == asked  # in order, once for all files of the archive


@needs_data
@pytest.mark.parametrize("name", TABLES)
def test_the_copy_of_the_hub_becomes_the_held_file_to_the_byte(name, cache, publisher):
    publisher.serve(name, parquet(TABLES[name](name)), hub=True)
    assert data_file(name) == cache / name
    archive = archive_of(name, hub=True)
    assert left_behind(cache) == sorted(archive.files)
    for other in archive.files:
        assert (cache / other).read_bytes() == held_bytes(other)
    assert publisher.requested[-1] == archive.url


@needs_data
def test_a_second_address_mends_a_first_one_that_gives_something_else(cache, publisher):
    name = "wikitext2/test.txt"
    publisher.serve(name, b"<html>moved</html>", checksum=False)
    publisher.serve(name, parquet(wikitext_table(name)), hub=True)
    assert data_file(name).read_bytes() == held_bytes(name)
    assert len(publisher.requested) == 2


@needs_data
def test_a_second_address_that_gives_another_text_is_refused_too(cache, publisher):
    name = "wikitext2/test.txt"
    rows = wikitext_table(name)
    longest = max(rows, key=lambda row: len(row["text"]))
    longest["text"] = longest["text"].replace("e", "a", 1)
    publisher.serve(name, parquet(rows), hub=True)
    with pytest.raises(ValueError, match="has the SHA-256"):
        data_file(name)
    publisher.serve(name, b"no Parquet", hub=True)
    with pytest.raises(ValueError, match="another layout"):
        data_file(name)
    assert left_behind(cache) == []


@pytest.mark.parametrize("dataset", LARGE)
def test_a_large_set_is_downloaded_checked_and_loaded(
    dataset, cache, publisher, monkeypatch
):
    members = {
        "ratings.csv": b"userId,movieId,rating,timestamp\n2,5,4.0,9\n1,6,0.5,8\n",
        "movies.csv": b"movieId,title,genres\n5,A,War\n6,B,IMAX|War\n",
    }
    for name, contents in members.items():
        known = dataclasses.replace(
            FILES[f"{dataset}/{name}"], rows=2, size=len(contents), sha256=None
        )
        monkeypatch.setitem(FILES, f"{dataset}/{name}", known)
    archive = zipped({f"{dataset}/{k}": v for k, v in members.items()})
    publisher.serve(f"{dataset}/ratings.csv", archive)
    loaded = load_ratings(dataset=dataset)
    assert loaded.users.tolist() == [2, 1] and loaded.genres == ("IMAX", "War")
    assert publisher.requested == [
        f"https://files.grouplens.org/datasets/movielens/{dataset}.zip"
    ]
    assert left_behind(cache) == [f"{dataset}/movies.csv", f"{dataset}/ratings.csv"]


@pytest.mark.parametrize("dataset", LARGE)
def test_a_truncated_large_set_is_refused(dataset, cache, publisher):
    rows = b"userId,movieId,rating,timestamp\n1,5,4.0,9\n"
    members = {"ratings.csv": rows, "movies.csv": b"movieId,title,genres\n5,A,War\n"}
    archive = zipped({f"{dataset}/{k}": v for k, v in members.items()})
    publisher.serve(f"{dataset}/ratings.csv", archive)
    size = FILES[f"{dataset}/ratings.csv"].size
    with pytest.raises(ValueError, match=f"{dataset}.zip has 42 bytes, not {size}"):
        data_file(f"{dataset}/ratings.csv")
    assert left_behind(cache) == []


def test_missing_data_without_network_is_one_error_with_its_remedy(cache, publisher):
    with pytest.raises(FileNotFoundError) as caught:
        data_file("wikitext2/test.txt")
    message = str(caught.value)
    assert message.startswith("wikitext2/test.txt is not in ")
    assert "PRUNEFAIR_DATA" in message and "connect to a network" in message
    assert "\n" not in message
    assert left_behind(cache) == []


def test_a_corrupted_download_leaves_nothing_behind(cache, publisher):
    publisher.serve("wikitext2/test.txt", b"<html>moved</html>", checksum=False)
    with pytest.raises(ValueError, match="does not have the SHA-256.*nothing was kept"):
        data_file("wikitext2/test.txt")
    assert left_behind(cache) == [] and list(cache.iterdir()) == []


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for member, contents in members.items():
            file.writestr(member, contents)
    return buffer.getvalue()


def test_an_archive_with_another_layout_is_refused(cache, publisher):
    publisher.serve("wikitext2/test.txt", zipped({"wiki.test.tokens": b"text\n"}))
    with pytest.raises(ValueError, match="another layout"):
        data_file("wikitext2/test.txt")
    assert left_behind(cache) == []


@needs_data
def test_one_changed_byte_in_the_archive_is_refused_and_so_is_its_neighbour(
    cache, publisher
):
    members = wikitext_members()
    changed = bytearray(members["wikitext-2/wiki.valid.tokens"])
    changed[1000] ^= 1
    members["wikitext-2/wiki.valid.tokens"] = bytes(changed)
    publisher.serve("wikitext2/test.txt", zipped(members))
    digest = FILES["wikitext2/valid.txt"].sha256
    message = (
        f"wikitext2/valid.txt .* has the SHA-256 .*, not {digest}; .*PRUNEFAIR_DATA"
    )
    with pytest.raises(ValueError, match=message):
        data_file("wikitext2/test.txt")
    assert left_behind(cache) == []


@needs_data
def test_a_file_of_another_size_is_refused(cache, publisher):
    members = wikitext_members()
    members["wikitext-2/wiki.test.tokens"] += b"\n"
    publisher.serve("wikitext2/test.txt", zipped(members))
    message = "has 1256450 bytes, not 1256449; .*nothing was kept; set PRUNEFAIR_DATA"
    with pytest.raises(ValueError, match=message):
        data_file("wikitext2/test.txt")


@needs_data
def test_a_converted_file_that_lost_a_row_is_refused(cache, publisher):
    members = piqa_members()
    short = {k: v[: v.rstrip(b"\n").rindex(b"\n") + 1] for k, v in members.items()}
    publisher.serve("zeroshot/piqa.jsonl", zipped(short))
    with pytest.raises(ValueError, match="1837 rows instead of 1838"):
        data_file("zeroshot/piqa.jsonl")
    assert left_behind(cache) == []


@pytest.mark.parametrize("place", ["/proc/cache", "file"])
def test_a_cache_that_cannot_be_written_is_named(place, cache, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PRUNEFAIR_CACHE", str(tmp_path / place))
    monkeypatch.setattr(pooch, "retrieve", pytest.fail)
    message = "^the cache .PRUNEFAIR_CACHE. is .*cannot be written .*PRUNEFAIR_DATA"
    with pytest.raises(OSError, match=message) as error:
        data_file("wikitext2/test.txt")
    assert len(str(error.value)) < 300


def test_a_full_disk_during_a_download_leaves_nothing(cache, monkeypatch):
    def full(*arguments, path, **options):
        (path / "part").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pooch, "retrieve", full)
    with pytest.raises(OSError, match="^the cache .*No space left"):
        data_file("wikitext2/test.txt")
    assert list(data.cache_folder().rglob("*")) == [data.cache_folder() / "data"]


def test_labels_and_questions_must_be_as_many(tmp_path):
    archive = archive_of("zeroshot/piqa.jsonl")
    members = {
        "physicaliqa-train-dev/dev.jsonl": b'{"goal": "g", "sol1": "a", "sol2": "b"}\n',
        "physicaliqa-train-dev/dev-labels.lst": b"0\n1\n",
    }
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(members))
    with pytest.raises(ValueError, match="zip"):
        archive_contents(archive, path)


def test_a_truncated_file_in_the_folder_is_named_with_its_remedy(tmp_path, cache):
    folder = tmp_path / "empty" / "movielens"
    folder.mkdir(parents=True)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,9\n")
    with pytest.raises(ValueError, match="ratings.csv from .* has 1 rows .*replace it"):
        data_file("movielens/ratings.csv")
    (folder / "ratings.csv").write_text("<html>\n")
    with pytest.raises(ValueError, match="begins with the columns <html> instead of"):
        data_file("movielens/ratings.csv")


@pytest.mark.parametrize("contents", [b"", b"[1]\n", b"not json\n", b"7\n"])
def test_lines_without_the_known_keys_are_refused(contents):
    with pytest.raises(ValueError, match="zeroshot/piqa.jsonl from here begins"):
        check_contents("zeroshot/piqa.jsonl", contents, where="here")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"name is 'wikitext'; .*wikitext2/test.txt"):
        data_file("wikitext")


def test_hellaswag_text_loses_its_tags_and_keeps_other_brackets():
    clean = publishers._without_tags
    assert clean(" How to swim [title] Float [at home]. [step] Breathe  out. ") == (
        "How to swim. Float [at home]. Breathe out."
    )
