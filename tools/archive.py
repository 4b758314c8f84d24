"""Pack the built pages into one zip that is read from a folder, without a network.

usage: archive.py [FOLDER_OF_THE_BUILT_PAGES [ZIP]]

The same pages make the same bytes: names are sorted, and dates and permissions fixed.
"""

import re
import sys
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
ZIP = ROOT / "build" / "lop-book-html.zip"
FOLDER = "lop-book"
LICENCES = ("LICENSE", "LICENSE-TEXT.md")
# What no page asks for: notes of Sphinx for itself or for other books, reports of failed cells,
# what search engines and social networks ask for, sources of scripts for debuggers, what the theme
# needs while it builds, and what is published beside the pages, this archive itself among it.
LEFT_OUT = re.compile(
    r"^(\.buildinfo|\.doctrees/.*|reports/.*|objects\.inv|sitemap\.xml|robots\.txt|lop-book.*"
    r"|_images/social_previews/.*|_static/locales/.*|_static/[\w-]*webpack-macros\.html|.*\.map)$"
)
# Hints to fetch the icons' fonts early, in a way that browsers refuse where pages are files. The
# style fetches them as well.
PRELOAD = re.compile(rb'<link rel="preload" as="font"[^>]*>\s*')
README = """{title}

Open index.html in a browser: the whole book is in this folder and needs no network.

Code: BSD-3-Clause, see LICENSE. Text and figures: CC BY 4.0, see LICENSE-TEXT.md.
The book's sources, to run and to change: {address}
"""


def packed(html):
    """List the files of the built pages that a reader needs, by their name in the folder."""
    files = {path.relative_to(html).as_posix(): path for path in html.rglob("*") if path.is_file()}
    pages = [
        path.read_text(encoding="utf-8") for name, path in files.items() if name.endswith(".html")
    ]
    shown = {name for page in pages for name in re.findall(r"_images/[^\"'#?]+", page)}
    # Sphinx keeps the figures of earlier builds
    return {
        name: path
        for name, path in files.items()
        if not LEFT_OUT.match(name) and (not name.startswith("_images/") or name in shown)
    }


def archive(html, path, root=ROOT):
    """Write the zip; return the names in it."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    readme = README.format(title=config["title"], address=config["repository"]["url"])
    contents = {name: file.read_bytes() for name, file in packed(html).items()}
    for name in contents:
        if name.endswith(".html"):
            contents[name] = PRELOAD.sub(b"", contents[name])
    contents |= {name: (root / name).read_bytes() for name in LICENCES}
    contents["README.txt"] = readme.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packing:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(f"{FOLDER}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = 0o644 << 16
            packing.writestr(entry, contents[name])
    return sorted(contents)


def main(html=HTML, path=ZIP):
    """Pack the built pages of one folder."""
    if not (html / "index.html").is_file():
        sys.exit("There is no book yet: make book")
    names = archive(html, path)
    print(f"{path}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
