"""SVG files that look the same and weigh half: a page of many figures stays below its limit."""

import hashlib
import re
from collections import Counter
from string import ascii_letters

__all__ = ["compact"]

_SHORT = [a + b for a in ("", *ascii_letters) for b in ascii_letters]


def compact(text: str) -> str:
    """Return what matplotlib writes as SVG in about half of its bytes.

    It writes coordinates to a millionth of a point, groups and names everything, and repeats its
    style wherever it stands. Coordinates to a hundredth are enough, most groups do nothing, and a
    style has to be said once. Names and classes occur in no other figure, so that several can
    stand in one document.

    Parameters
    ----------
    text : str
        The file.

    Examples
    --------
    >>> compact('<svg><g><g id="axes"><path d="M 0.123456 1.50 L 2 3"/></g></g></svg>')
    '<svg><path d="M0.12 1.5L2 3"/></svg>'
    """
    text = re.sub(r"(?s)<!--.*?-->|<!DOC.*?>|<metadata>.*?</metadata>", "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", re.sub(r">\s+<", "><", text))
    text = re.sub(
        r'(?<= [dxy])="[^"]*"|(?<=translate)\([^)]*\)',
        lambda found: re.sub(r'(-?\d+\.\d+)|\s*([A-Za-z"])\s*', _shorter, found[0]),
        text.replace("xlink:href", "href"),
    )
    text = re.sub(r'(<use href="[^"]*") transform="translate\(([^ )]+) ([^ )]+)\)"', _placed, text)
    text = _without_bare_groups(text)

    mark = "f" + hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:4]
    names = _named(re.findall(r'(?:href="#|url\(#)([^")]+)', text), mark)
    text = re.sub(r'(id="|href="#|url\(#)([^")]+)', lambda x: x[1] + names.get(x[2], x[2]), text)
    styles = re.findall(r' style="([^"]*)"', text)
    classes = _named([style for style in styles if styles.count(style) > 1], mark)
    for style, name in classes.items():
        text = text.replace(f' style="{style}"', f' class="{name}"')
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    return text.replace("</style>", f"{rules}</style>", 1)


def _shorter(found: re.Match[str]) -> str:
    return f"{round(float(found[1]), 2):.7g}" if found[1] else found[2]


def _placed(use: re.Match[str]) -> str:
    return f'{use[1]} x="{use[2]}"' + (f' y="{use[3]}"' if use[3] != "0" else "")


def _without_bare_groups(text: str) -> str:
    bare: list[bool] = []

    def kept(tag: re.Match[str]) -> str:
        if tag[0] != "</g>":
            bare.append(tag[0] == "<g>")
        return "" if (bare.pop() if tag[0] == "</g>" else bare[-1]) else tag[0]

    return re.sub(r"</?g(?: [^>]*[^/])?>", kept, text)  # not what closes itself


def _named(found: list[str], mark: str) -> dict[str, str]:
    """Return a short name for each of these, the shortest for the most frequent."""
    frequent = [name for name, _ in Counter(found).most_common()]
    return {name: mark + short for name, short in zip(frequent, _SHORT, strict=False)}
