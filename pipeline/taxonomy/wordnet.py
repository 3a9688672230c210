"""Nouns of WordNet, read from the files of its database: which thing is a kind of which.

The files are ``index.noun`` and ``data.noun`` of WordNet 3 (wndb(5WN)), as they lie in /usr/share/wordnet where
Debian's package wordnet-base is installed, or in the folder ``dict`` of Princeton's archive. Names such as n02084071
are offsets into those of version 3.0, which ImageNet goes by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from nstudent.errors import DataError
from nstudent.taxonomy.proposal import Group

_OFFSET = re.compile(r"n(\d{8})(?:[-_ ].*)?")
_SENSE = re.compile(r"(.+)\.n\.(\d{1,2})")
_UPWARDS = ("@", "@i")
"""Pointers to what a thing is a kind of, and to what a named one is an instance of."""
_MAX_FILE_BYTES = 64 << 20
_GLOSS_LENGTH = 70


@dataclass(frozen=True)
class Synset:
    """A meaning that one or several nouns have."""

    offset: str
    """Eight digits."""
    words: tuple[str, ...]
    """With blanks between words."""
    gloss: str
    above: tuple[str, ...]
    """Offsets of what it is a kind of."""


class WordNet:
    """The nouns of a database."""

    def __init__(self, folder: Path) -> None:
        """Read the database in a folder.

        Raises:
            DataError: It holds none, or one that cannot be read.
        """
        self._folder = folder
        self._senses: dict[str, tuple[str, ...]] = {}
        self._synsets: dict[str, Synset] = {}
        try:
            for fields in self._rows("index.noun"):
                # lemma pos synset_cnt p_cnt [symbols] sense_cnt tagsense_cnt [offsets]
                self._senses[fields[0]] = tuple(fields[-int(fields[2]) :])
            for fields in self._rows("data.noun"):
                self._synsets[fields[0]] = _synset(fields)
        except (ValueError, IndexError) as error:
            raise DataError(f"{folder} holds no database of WordNet that can be read: {error}") from error

    def _rows(self, name: str) -> Iterator[list[str]]:
        path = self._folder / name
        if not path.is_file():
            raise DataError(
                f"{self._folder} holds no {name} of WordNet: name the folder of its database, such as "
                "/usr/share/wordnet (Debian: apt install wordnet-base)"
            )
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise DataError(f"{path} is too large for a file of WordNet")
        for line in path.read_text(encoding="utf-8").splitlines():
            # The licence, at the head of a file, is indented.
            if line.strip() and not line.startswith(" "):
                yield line.split(" | ")[0].split() + ([line.split(" | ", 1)[1]] if " | " in line else [])

    def find(self, name: str) -> list[Synset]:
        """The meanings of a name, the most frequent first; none if there is no such noun.

        Args:
            name: A noun in the singular or plural, with blanks, ``_`` or ``-``; of several with commas between them
                the first that is known. Or a synset: ``dog.n.01`` or ``n02084071``, also with a word behind it, as
                folders of ImageNet's images are called (``n02085620-Chihuahua``).
        """
        if match := _OFFSET.fullmatch(name):
            return [self._synsets[match[1]]] if match[1] in self._synsets else []
        if match := _SENSE.fullmatch(name):
            offsets = self._senses.get(_lemma(match[1]), ())
            number = int(match[2]) - 1
            return [self._synsets[offsets[number]]] if 0 <= number < len(offsets) else []
        for spelling in _spellings(name):
            if spelling in self._senses:
                return [self._synsets[offset] for offset in self._senses[spelling] if offset in self._synsets]
        return []

    def name_of(self, synset: Synset) -> str:
        """The name of a meaning: its first word, and the number of the meaning among those of the word."""
        lemma = _lemma(synset.words[0])
        senses = self._senses.get(lemma, ())
        return f"{lemma}.n.{senses.index(synset.offset) + 1:02}" if synset.offset in senses else f"n{synset.offset}"

    def upwards(self, synset: Synset) -> list[Synset]:
        """What it is a kind of, up to the root, itself first; of several the one that is named first.

        Raises:
            DataError: The database goes round in a circle, or names what it does not hold.
        """
        path, seen = [synset], {synset.offset}
        while path[-1].above:
            offset = path[-1].above[0]
            if offset in seen or offset not in self._synsets:
                raise DataError(f"{self._folder} is damaged: there is no way up from {self.name_of(synset)}")
            path.append(self._synsets[offset])
            seen.add(offset)
        return path


def _synset(fields: Sequence[str]) -> Synset:
    # offset lex_filenum ss_type w_cnt [word lex_id] p_cnt [symbol offset pos source/target] gloss
    words = int(fields[3], 16)
    first = 4 + 2 * words
    pointers = [fields[first + 1 + 4 * number :][:3] for number in range(int(fields[first]))]
    above = tuple(offset for symbol, offset, pos in pointers if symbol in _UPWARDS and pos == "n")
    named = tuple(word.replace("_", " ") for word in fields[4:first:2])
    gloss = fields[-1].split(";")[0].strip() if len(fields) > first + 1 + 4 * len(pointers) else ""
    return Synset(fields[0], named, gloss, above)


def _lemma(word: str) -> str:
    return "_".join(word.replace("_", " ").split()).lower()


def _spellings(name: str) -> Iterator[str]:
    """What a name may be called in the index: as it is, with blanks for hyphens, in the singular."""
    for part in (name, *name.split(",")):
        for word in (part, part.replace("-", " ")):
            lemma = _lemma(word)
            yield lemma
            for ending, singular in (("ies", "y"), ("es", ""), ("s", "")):
                if lemma.endswith(ending) and len(lemma) > len(ending) + 1:
                    yield lemma.removesuffix(ending) + singular


@dataclass(frozen=True)
class KindTree:
    """The classes and what they are kinds of, without what divides nothing."""

    name: str
    note: str
    classes: tuple[str, ...]
    below: tuple[KindTree, ...]


def described(wordnet: WordNet, synset: Synset) -> str:
    """A meaning in a line: its name, and the beginning of its gloss."""
    gloss = synset.gloss if len(synset.gloss) <= _GLOSS_LENGTH else f"{synset.gloss[:_GLOSS_LENGTH].rstrip()}..."
    return f"{wordnet.name_of(synset)}: {gloss}"


def kinds_of(wordnet: WordNet, meanings: dict[str, Synset]) -> KindTree:
    """The tree over some classes that WordNet has, from the first thing that divides them down.

    Args:
        wordnet: The database.
        meanings: The meaning of each class, by its name.
    """
    children: dict[str, dict[str, None]] = {}
    synsets: dict[str, Synset] = {}
    of_synset: dict[str, list[str]] = {}
    for name, meaning in meanings.items():
        of_synset.setdefault(meaning.offset, []).append(name)
        path = wordnet.upwards(meaning)
        for below, above in pairwise(path):
            children.setdefault(above.offset, {})[below.offset] = None
        synsets |= {each.offset: each for each in path}
    # Several roots only in a database that is not Princeton's.
    roots = [offset for offset in synsets if not any(offset in below for below in children.values())]

    def built(offset: str) -> KindTree:
        own = tuple(KindTree(name, "", (name,), ()) for name in of_synset.get(offset, ()))
        below = (*own, *(built(child) for child in children.get(offset, ())))
        if len(below) == 1:
            return below[0]
        synset = synsets[offset]
        classes = tuple(name for each in below for name in each.classes)
        return KindTree(synset.words[0], described(wordnet, synset), classes, below)

    trees = tuple(built(root) for root in roots)
    return trees[0] if len(trees) == 1 else KindTree("all", "", tuple(meanings), trees)


def divided(tree: KindTree, size: int, begun: Sequence[KindTree]) -> list[KindTree]:
    """A division into so many groups, or a few more where the last one that is divided falls into several.

    The group with the most classes is divided into what is below it, again and again.

    Args:
        tree: All classes.
        size: Number of groups.
        begun: Groups to go on from, of a coarser division; none: all classes are one.
    """
    groups = list(begun) or [tree]
    while len(groups) < size:
        number = max(range(len(groups)), key=lambda each: (len(groups[each].below) > 0, len(groups[each].classes)))
        if not groups[number].below:
            break
        groups[number : number + 1] = groups[number].below
    return groups


def proposed_kinds(tree: KindTree, sizes: Sequence[int], notes: dict[str, str]) -> tuple[Group, ...]:
    """Groups of classes, level by level.

    Args:
        tree: All classes.
        sizes: Number of groups of each level above the classes, coarse first.
        notes: What is to be known of each class, by its name.
    """
    levels: list[list[KindTree]] = []
    for size in sizes:
        levels.append(divided(tree, size, levels[-1] if levels else ()))

    def below(names: frozenset[str], level: int) -> tuple[Group, ...]:
        if level == len(levels):
            return tuple(Group(name, notes.get(name, "")) for name in tree.classes if name in names)
        inside = [each for each in levels[level] if names.issuperset(each.classes)]
        words = [each.name for each in inside]
        return tuple(
            Group(
                each.name if words.count(each.name) == 1 else f"{each.name} of {each.classes[0]}",
                each.note,
                below(frozenset(each.classes), level + 1),
            )
            for each in inside
        )

    return below(frozenset(tree.classes), 0)
