"""SVG files that look the same and weigh half."""

import hashlib
import re
import string
from collections import Counter
from itertools import chain, count

__all__ = ["compact"]


def compact(text: str) -> str:
    """Shorten what matplotlib writes as SVG.

    It writes coordinates to a millionth of a point, groups and names everything, gives every
    glyph and marker a long name, and repeats its style wherever it stands. Coordinates to a
    hundredth are enough, most groups do nothing, short names do, and a style has to be said once.

    Parameters
    ----------
    text : str
        The file.

    Returns
    -------
    str
        SVG whose names and classes occur in no other figure, so that several can stand in one
        document.

    Examples
    --------
    >>> compact('<svg><g><g id="axes"><path d="M 0.123456 1"/></g></g></svg>')
    '<svg><path d="M 0.12 1"/></svg>'
    """
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", re.sub(r">\s+<", "><", text))
    text = re.sub(r' d="([^"]*)"', lambda path: f' d="{_short_path(path[1])}"', text)
    text = re.sub(r' [xy]="[^"]*"|translate\([^)]*\)', lambda n: _two_decimals(n[0]), text)
    text = _without_bare_groups(text).replace("xlink:href", "href")
    # Some notebooks put all their figures into one document: names must not meet there.
    mark = "f" + hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:4]
    return _styles_once(_short_names(text, mark), mark)


def _without_bare_groups(text: str) -> str:
    start, *pieces = re.split(r"(</?g(?: [^>]*)?(?<!/)>)", text)  # not what closes itself
    kept, bare = [start], []
    for tag, between in zip(pieces[::2], pieces[1::2], strict=True):
        if tag != "</g>":
            bare.append(tag == "<g>")
        dropped = bare[-1]
        if tag == "</g>":
            bare.pop()
        kept.append(between if dropped and tag in ("<g>", "</g>") else tag + between)
    return "".join(kept)


def _named(found: list[str], mark: str) -> dict[str, str]:
    """Give each of these a short name, the shortest to the most frequent."""
    letters = string.ascii_letters
    names = (f"{mark}{number}{letter}" for number in chain([""], count()) for letter in letters)
    return {item: next(names) for item, _ in Counter(found).most_common()}


def _short_names(text: str, mark: str) -> str:
    short = _named(re.findall(r'(?:href="#|url\(#)([^")]+)', text), mark)
    mention = re.compile(r'(id="|href="#|url\(#)([^")]+)')
    return mention.sub(lambda found: found[1] + short.get(found[2], found[2]), text)


def _styles_once(text: str, mark: str) -> str:
    if "</style>" not in text:
        return text
    styles = re.findall(r' style="([^"]*)"', text)
    classes = _named([style for style in styles if styles.count(style) > 1], mark)

    def shortened(found: re.Match) -> str:
        return f' class="{classes[found[1]]}"' if found[1] in classes else found[0]

    text = re.sub(r' style="([^"]*)"', shortened, text)
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    return text.replace("</style>", rules + "</style>", 1)


def _two_decimals(text: str) -> str:
    return re.sub(r"(\.\d\d)\d+", r"\1", text)


def _short_path(path: str) -> str:
    # A command goes on until another letter comes, and a line follows a move by itself.
    short, command = [], ""
    for step in _two_decimals(path).split("\n"):
        letter = step[:1]
        goes_on = letter in "LQC" and (letter == command or (command, letter) == ("M", "L"))
        short.append(step[1:].strip() if goes_on else step.strip())
        command = letter
    return " ".join(filter(None, short))
