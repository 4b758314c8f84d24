"""Take the article out of each built page, as it goes on paper.

What needs a screen goes: buttons, marks at headings, code that the page folds away. Solutions
and the answers of quizzes move to the end of their chapter, as in a book on paper: there they do
not give the exercise away.
"""

import copy
import posixpath
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, NavigableString
from sphinx_external_toc.parsing import parse_toc_yaml

# What does nothing on paper. A noscript's content is the still picture of a live figure.
SCREEN_ONLY = "a.headerlink, button, input, select, script, canvas, .toctree-wrapper, .lop-cite"
LISTED = ".level-0, .level-1, .level-2"  # headings in the table of contents


class Chapter(NamedTuple):
    """A page of the book: its name, and the caption of the part that it opens, if any."""

    name: str
    part: str | None
    within: bool  # whether it stands in a part


def chapters(root):
    """List the pages in the order of the table of contents, nested ones after their parent."""
    site = parse_toc_yaml(root / "_toc.yml")
    found = [Chapter(site.root.docname, None, False)]

    def follow(document, caption, opens):
        for tree in document.subtrees:
            caption, opens = tree.caption or caption, tree.caption or opens
            for name in tree.files():
                found.append(Chapter(name, opens, caption is not None))
                opens = None
                follow(site[name], caption, None)

    follow(site.root, None, None)
    return found


def place(name, anchor=""):
    """Return the id, in the one document, of an anchor on a page, or of the page."""
    whole = f"{name}--{anchor}" if anchor else name
    return re.sub(r"[^\w.-]", "-", whole, flags=re.ASCII)


def take_article(html, chapter, names):
    """Return a page's article as it goes on paper."""
    path = html / f"{chapter.name}.html"
    if not path.is_file():
        raise FileNotFoundError(f"wanted every page of _toc.yml, but {path} is missing: make book")
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    article = soup.select_one("article.bd-article")
    article.attrs = {"class": ["bd-article", "chapter"], "id": place(chapter.name)}
    for element in article.select(SCREEN_ONLY):
        element.decompose()
    for element in article.find_all("noscript"):
        element.unwrap()
    collect_answers(soup, article)
    unfold(article)
    for formula in article.select("span.math"):  # no line begins with the comma after a formula
        after = formula.next_sibling
        stop = re.match(r"[.,;:!?)\]’”]+", after) if isinstance(after, NavigableString) else None
        if stop:
            after.replace_with(after[stop.end() :])
            formula.wrap(soup.new_tag("span", attrs={"class": "keep"})).append(stop.group())
    for image in article.select("img[src]"):
        if not urlsplit(image["src"]).scheme:
            image["src"] = (path.parent / unquote(image["src"])).resolve().as_uri()
    join(article, chapter.name, names)
    shift_headings(soup, article, chapter)
    return article


def unfold(article):
    """Drop the folded source of figures, and open whatever else is folded.

    Source that draws nothing defines what is used below, so it is printed.
    """
    for details in article.select("details.hide"):
        cell = details.find_parent("div", class_="cell")
        if details.select_one(".cell_input") and cell and cell.select_one(".cell_output img"):
            details.decompose()
    for details in article.find_all("details"):
        if details.summary:
            details.summary.decompose()
        details.name, details.attrs = "div", {}
    for cell in article.select("div.cell"):
        if not cell.get_text(strip=True) and not cell.find(["img", "svg"]):
            cell.decompose()


def name_after(soup, title, words, target):
    """Let a title end with a link to what it answers."""
    link = soup.new_tag("a", href=f"#{target['id']}")
    link.extend(words)
    title.append(link)


def collect_answers(soup, article):
    """Move the answers of quizzes, and solutions, to the end, each named after its question."""
    moved = []
    for number, quiz in enumerate(article.select("div.quiz"), 1):
        quiz["id"] = f"quiz-{number}"
        answers = copy.copy(quiz)
        answers.attrs = {"class": ["admonition", "answers"]}
        title = answers.select_one(".admonition-title")
        name_after(soup, title, list(title.contents), quiz)
        for option in quiz.select("details"):
            for answer in option.find_all(recursive=False)[1:]:
                answer.decompose()
        for option in [*quiz.select("details"), *answers.select("details")]:
            option.name, option.attrs, option.summary.name = "div", {"class": "option"}, "p"
        moved.append(answers)
    for solution in article.select("div.solution"):
        exercise = solution.find_previous("div", class_="exercise")
        title = solution.select_one(".admonition-title")
        number = exercise.select_one(".caption-number") if exercise else None
        if number and title.get_text(strip=True) == "Solution":
            title.string = "Solution of "
            name_after(soup, title, [number.get_text(strip=True)], exercise)
        moved.append(solution.extract())
    if moved:
        section, heading = soup.new_tag("section"), soup.new_tag("h2")
        heading.string = "Solutions"
        section.extend([heading, *moved])
        article.find("section").append(section)


def join(article, name, names):
    """Make ids unique in the document, and links between pages links within it."""
    seen = set()
    for element in article.find_all(id=True):
        if element["id"] in seen:  # sphinx-proof gives each theorem's content the same one
            del element["id"]
            continue
        seen.add(element["id"])
        element["id"] = place(name, element["id"])
    for anchor in article.find_all("a"):
        anchor.attrs = {key: anchor[key] for key in ("href", "class", "id") if key in anchor.attrs}
        parts = urlsplit(anchor.get("href", ""))
        if parts.scheme or parts.netloc:
            continue
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
        target = target.removesuffix(".html") if parts.path else name
        if target in names and "href" in anchor.attrs:
            anchor["href"] = "#" + place(target, unquote(parts.fragment))
        else:  # a page that is not in the book: the index, a download
            anchor.unwrap()


def shift_headings(soup, article, chapter):
    """Say by class what a heading is; below a part, move it down one level for the outline."""
    for level in range(5, 0, -1):
        for heading in article.find_all(f"h{level}"):
            heading["class"] = [f"level-{level}"]
            heading.name = f"h{level + chapter.within}"
    if chapter.part:
        part = soup.new_tag("h1", attrs={"class": "level-0"})
        part.string = chapter.part
        article.insert(0, part)
    for number, heading in enumerate(article.select(LISTED)):
        # its own place: a section begins before its heading, at times on the page before
        heading["id"] = place(chapter.name, f"heading-{number}")
