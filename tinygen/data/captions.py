"""Captions: a small grammar over what can be measured on an image, so that "is it as asked for?" has an answer.

    a dark wide sneaker        a slim gray pair of trousers        a boot that is light and broad

A caption says three things: what is shown, how bright it is, and how wide; each in several words, in any order. Bright
and wide are meant for its kind: a wide sneaker is wider than most sneakers. One combination of each kind is held out:
no image of it is trained on, and no caption says it, until it is asked for.
"""

from __future__ import annotations

import difflib
import itertools

import numpy as np

BRIGHTNESS = (("dark", "dim"), ("medium", "gray"), ("bright", "light"))  # thirds of a kind's images
WIDTH = (("narrow", "slim"), ("wide", "broad"))  # halves
NOUNS: dict[str, tuple[tuple[str, ...], ...]] = {  # of each class, for the data sets that captions can be written for
    "none": (("image", "picture"),),
    "digits": (
        ("zero", "nought"), ("one",), ("two",), ("three",), ("four",), ("five",), ("six",), ("seven",), ("eight",),
        ("nine",),
    ),
    "fashion-mnist": (
        ("t-shirt", "top"), ("pair of trousers", "pair of pants"), ("pullover", "sweater"), ("dress", "gown"),
        ("coat", "overcoat"), ("sandal", "open shoe"), ("shirt", "blouse"), ("sneaker", "trainer"), ("bag", "handbag"),
        ("boot", "ankle boot"),
    ),
}  # fmt: skip
LONGEST = 10  # words in a caption
LIT = 0.1  # of full brightness: from where a pixel belongs to what is shown
ROWS = 5000  # images that are measured at once


class Captions:
    """The captions of a data set's images.

    What a caption says is three integers, its attributes: the class, the brightness 0 to 2, the width 0 or 1.

    Attributes:
        sayings: of each attribute, of each value, the words for it.
        sizes: how many values each attribute has.
        words: all of them; a caption's numbers are indices into these, 0 being none.

    Raises ValueError for nouns that aren't of NOUNS.
    """

    def __init__(self, nouns: str = "none") -> None:
        if nouns not in NOUNS:
            raise ValueError(f"nouns must be one of {', '.join(NOUNS)}, got {nouns!r}")
        self.sayings = NOUNS[nouns], BRIGHTNESS, WIDTH
        self.sizes = tuple(map(len, self.sayings))
        said = (" ".join(synonyms) for synonyms in itertools.chain(*self.sayings))
        self.words = ("", *dict.fromkeys(["a", "an", "that", "is", "and", *" ".join(said).split()]))
        self._numbers = {word: i for i, word in enumerate(self.words)}

    # -- attributes

    def held_out(self, attributes: np.ndarray) -> np.ndarray:
        """Whether attributes (N, 3) are the combination that is held out of its class, (N,): one of six in turn."""
        return attributes[:, 1] * self.sizes[2] + attributes[:, 2] == attributes[:, 0] % 6

    def draw(self, n: int, rng: np.random.Generator, held_out: bool = False) -> np.ndarray:
        """n attributes (n, 3) at random, all alike, of the combinations that are held out, or of all others."""
        every = np.array(list(itertools.product(*map(range, self.sizes))))
        chosen = every[self.held_out(every) == held_out]
        return chosen[rng.integers(0, len(chosen), n)]

    def others(self, attributes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Attributes (N, 3) that differ from the given ones in at least one, each in half of all, and not held out."""
        found, sizes = attributes.copy(), np.array(self.sizes)
        wrong = np.ones(len(found), bool)
        while n := int(wrong.sum()):
            by = np.where(rng.random((n, 3)) < 0.5, 1 + rng.integers(0, np.maximum(sizes - 1, 1), (n, 3)), 0)
            found[wrong] = (attributes[wrong] + by) % sizes
            wrong = (found == attributes).all(axis=1) | self.held_out(found)
        return found

    # -- words

    def write(self, attributes: np.ndarray, rng: np.random.Generator) -> list[str]:
        """A caption that says so, for each of attributes (N, 3): which words, and in which order, is drawn."""
        picks = rng.random((len(attributes), 5))
        return [self._sentence(row, pick) for row, pick in zip(attributes.tolist(), picks.tolist(), strict=True)]

    def _sentence(self, attributes: list[int], picks: list[float]) -> str:
        synonyms = (of[value] for of, value in zip(self.sayings, attributes, strict=True))
        noun, *adjectives = (s[int(pick * len(s))] for s, pick in zip(synonyms, picks, strict=False))
        if picks[3] < 0.5:
            adjectives.reverse()
        text = f"{' '.join(adjectives)} {noun}" if picks[4] < 0.75 else f"{noun} that is {' and '.join(adjectives)}"
        return f"{'an' if text[0] in 'aeiou' and text[:4] != 'one ' else 'a'} {text}"

    def meant(self, caption: str) -> tuple[int, ...]:
        """What a caption says of each attribute, the longest words first; -1 for nothing."""
        text, found = f" {caption} ", []
        for of in self.sayings:
            known = sorted(((s, i) for i, synonyms in enumerate(of) for s in synonyms), key=lambda pair: -len(pair[0]))
            found.append(next((i for s, i in known if f" {s} " in text), -1))
        return tuple(found)

    def numbers(self, captions: list[str]) -> np.ndarray:
        """Captions as the numbers of their words, (N, LONGEST) int64, zeros before the first word.

        Raises ValueError for a word that there isn't, for more words than LONGEST, and for none.
        """
        rows = np.zeros((len(captions), LONGEST), np.int64)
        for row, caption in zip(rows, captions, strict=True):
            words = caption.lower().replace(",", " ").replace(".", " ").split()
            if not 0 < len(words) <= LONGEST:
                raise ValueError(f"caption must have 1 to {LONGEST} words, got {len(words)}: {caption[:80]!r}")
            row[-len(words) :] = [self._number(word) for word in words]
        return rows

    def _number(self, word: str) -> int:
        if word not in self._numbers:
            near = difflib.get_close_matches(word, self.words[1:], 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"caption: no word {word!r} is known{hint}; there are {', '.join(self.words[1:])}")
        return self._numbers[word]

    def texts(self, numbers: np.ndarray) -> list[str]:
        """Rows of words' numbers (N, LONGEST) as captions."""
        return [" ".join(self.words[i] for i in row if i) for row in numbers]

    # -- images

    def edges(self, images: np.ndarray, classes: np.ndarray | None, levels: int) -> np.ndarray:
        """Between which measures the words of each class change, (classes, 3): two of brightness, one of width.

        Args:
            images: (N, C, H, W), 0 .. levels - 1. classes: (N,); None where there is one noun for all.

        Raises ValueError if all images are of held-out combinations, as only images are that hardly differ.
        """
        parts = (measure(images[i : i + ROWS] / (levels - 1)) for i in range(0, len(images), ROWS))
        found = np.concatenate(list(parts))
        kinds = self._kinds(len(images), classes)
        edges = np.empty((self.sizes[0], 3))
        for kind in range(len(edges)):
            own = found[kinds == kind] if (kinds == kind).any() else found
            edges[kind] = [*np.quantile(own[:, 0], (1 / 3, 2 / 3)), np.quantile(own[:, 1], 0.5)]
        if self.held_out(self._attributes(found, kinds, edges)).all():
            raise ValueError("captions need images that differ in brightness or width, and these don't")
        return edges

    def describe(self, images: np.ndarray, classes: np.ndarray | None, edges: np.ndarray) -> np.ndarray:
        """The attributes of images (N, C, H, W) from 0 to 1, of known classes: (N, 3)."""
        return self._attributes(measure(images), self._kinds(len(images), classes), edges)

    def _kinds(self, n: int, classes: np.ndarray | None) -> np.ndarray:
        return np.zeros(n, np.int64) if classes is None or self.sizes[0] == 1 else classes

    def _attributes(self, measured: np.ndarray, kinds: np.ndarray, edges: np.ndarray) -> np.ndarray:
        brightness = (measured[:, :1] > edges[kinds, :2]).sum(axis=1)
        return np.stack([kinds, brightness, measured[:, 1] > edges[kinds, 2]], axis=1).astype(np.int64)


def measure(images: np.ndarray) -> np.ndarray:
    """Of images (N, C, H, W) from 0 to 1: how bright what is shown is, and how wide, as shares of the most: (N, 2).

    Shown is what is brighter than a tenth; its width is the mean over the rows that have any of it.
    """
    light = images.mean(axis=1, dtype=np.float64)
    shown = light > LIT
    pixels, rows = shown.sum(axis=(1, 2)), shown.any(axis=2).sum(axis=1)
    brightness = (light * shown).sum(axis=(1, 2)) / np.maximum(pixels, 1)
    return np.stack([brightness, pixels / np.maximum(rows, 1) / images.shape[3]], axis=1)
