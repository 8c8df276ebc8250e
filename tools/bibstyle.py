"""Sphinx extension: the bibliography has the labels of the text and typeset titles.

A label is the author and the year, as citations have them; works of the same authors
and year are told apart by a letter.  Titles stay as `references.bib` writes them, with
their mathematics, and every work ends with its links.
"""

import re
from collections import Counter

from docutils import nodes
from pybtex.plugin import register_plugin
from pybtex.richtext import Tag, Text
from pybtex.style.formatting.unsrt import Style
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.template import field, sentence, tag
from pybtex_docutils import Backend


def title_of(latex: str) -> Text:
    """A title with its formulae."""
    title = Text()
    for i, part in enumerate(re.split(r"\{?\$([^$]+)\$\}?", latex)):
        if i % 2:
            title += Tag("math", part)
        else:  # the parser of LaTeX drops spaces at the beginning
            title += Text(" " * part.startswith(" "), Text.from_latex(part))
    return title


def authors(entry) -> str:
    """Authors as in a citation."""
    persons = entry.persons["author"]
    names = [" ".join(map(str, person.rich_last_names)) for person in persons]
    if len(names) > 2 or names[-1] == "others":
        return f"{names[0]} et al."
    return " and ".join(names)


class Labels(BaseLabelStyle):
    """Author and year."""

    def format_labels(self, sorted_entries):
        """A label for each work, in order."""
        labels = [f"{authors(e)}, {e.fields['year']}" for e in sorted_entries]
        count, seen = Counter(labels), Counter()
        for label in labels:
            letter = chr(ord("a") + seen[label]) if count[label] > 1 else ""
            seen[label] += 1
            yield label + letter


class BookStyle(Style):
    """As `unsrt`, sorted, with the labels and titles of this book."""

    default_sorting_style = "author_year_title"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.format_labels = Labels().format_labels

    def format_title(self, e, which_field, as_sentence=True):
        """The title as it is written."""
        title = field(which_field, apply_func=title_of, raw=True)
        return sentence[title] if as_sentence else title

    def format_btitle(self, e, which_field, as_sentence=True):
        """The title of a book, as it is written."""
        title = tag("em")[field(which_field, apply_func=title_of, raw=True)]
        return sentence[title] if as_sentence else title


def setup(app):
    """Make the style known."""
    Backend.tags["math"] = nodes.math
    register_plugin("pybtex.style.formatting", "book", BookStyle)
    return {"parallel_read_safe": True}
