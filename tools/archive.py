"""Pack the built pages into one zip that is read from a folder, without a network.

usage: archive.py [FOLDER_OF_THE_BUILT_PAGES [ZIP]]
"""

import re
import shutil
import sys
import tempfile
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
LEFT_OUT = [".buildinfo", ".doctrees", "reports", "objects.inv", "sitemap.xml", "robots.txt"]
LEFT_OUT += ["lop-book*", "social_previews", "locales", "*webpack-macros.html", "*.map"]
# Hints to fetch the icons' fonts early, in a way that browsers refuse where pages are files. The
# style fetches them as well.
PRELOAD = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')
README = """{title}

Open index.html in a browser: the whole book is in this folder and needs no network.

Code: BSD-3-Clause, see LICENSE. Text and figures: CC BY 4.0, see LICENSE-TEXT.md.
The book's sources, to run and to change: {address}
"""


def main(html=HTML, path=ZIP):
    """Pack the built pages of one folder."""
    if not (html / "index.html").is_file():
        sys.exit("There is no book yet: make book")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    readme = README.format(title=config["title"], address=config["repository"]["url"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / FOLDER
        shutil.copytree(html, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for page in folder.rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            page.write_text(PRELOAD.sub("", text), encoding="utf-8")
        for name in LICENCES:
            shutil.copy(ROOT / name, folder)
        (folder / "README.txt").write_text(readme, encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.make_archive(str(path.with_suffix("")), "zip", place, FOLDER)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
