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
SCREEN_ONLY = (
    "a.headerlink, button, input, select, textarea, script, template, canvas, iframe, "
    "video, audio, .toctree-wrapper, .lop-cite"
)
LISTED = ".level-0, .level-1, .level-2"  # headings in the table of contents
SHORT = 12  # lines of code that stay together on a page


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
    article.attrs = {"class": ["chapter"], "id": place(chapter.name)}
    still(article)
    answers = take_answers(soup, article)
    unfold(article)
    collect_solutions(soup, article, answers)
    keep_together(soup, article)
    for image in article.select("img[src]"):
        if not urlsplit(image["src"]).scheme:
            image["src"] = (path.parent / unquote(image["src"])).resolve().as_uri()
    own_ids(article, chapter.name)
    link(article, chapter.name, names)
    shift_headings(soup, article, chapter)
    return article


def still(article):
    """Leave of live elements what shows without a script, and drop what only a screen needs."""
    for element in article.select(SCREEN_ONLY):
        element.decompose()
    for element in article.find_all("noscript"):
        element.unwrap()
    for element in article.find_all(lambda tag: "-" in tag.name and not tag.find_parent("svg")):
        element.name = "div"  # a custom element, which nothing defines here


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
        details.name = "div"
        details.attrs = {}
    for cell in article.select("div.cell"):
        if not cell.get_text(strip=True) and not cell.find(["img", "svg"]):
            cell.decompose()


def take_answers(soup, article):
    """Make lists of the options of each quiz; return their answers, named after the question."""
    taken = []
    for number, quiz in enumerate(article.select("div.quiz"), 1):
        quiz["id"] = f"quiz-{number}"
        options, answers = (soup.new_tag("ol", attrs={"class": "options"}) for _ in range(2))
        quiz.select_one("details").insert_before(options)
        for option in quiz.select("details"):
            summary = option.summary.extract()
            summary.name = "li"
            options.append(summary)
            option.name, option.attrs = "li", {}
            answers.append(option.extract())
        title = soup.new_tag("p", attrs={"class": "admonition-title"})
        named = soup.new_tag("a", href=f"#{quiz['id']}")
        question = quiz.select_one(".admonition-title")
        named.extend(copy.copy(child) for child in question.contents)
        title.append(named)
        block = soup.new_tag("div", attrs={"class": "admonition answers"})
        block.extend([title, answers])
        taken.append(block)
    return taken


def collect_solutions(soup, article, answers):
    """Move answers and solutions to the end of the chapter, each named after its exercise."""
    solutions = article.select("div.solution")
    if not answers and not solutions:
        return
    section = soup.new_tag("section", id="solutions-of-the-chapter")
    heading = soup.new_tag("h2")
    heading.string = "Solutions"
    section.extend([heading, *answers])
    for solution in solutions:
        exercise = solution.find_previous("div", class_="exercise")
        title = solution.select_one(".admonition-title")
        number = exercise.select_one(".caption-number") if exercise else None
        if number and title.get_text(strip=True) == "Solution":
            title.clear()
            named = soup.new_tag("a", href=f"#{exercise['id']}")
            named.string = number.get_text(strip=True)
            title.extend(["Solution of ", named])
        section.append(solution.extract())
    article.find("section").append(section)


def keep_together(soup, article):
    """Mark what is short enough to stay on one page; leave no comma alone at a line's start."""
    for pre in article.find_all("pre"):
        if pre.get_text().count("\n") <= SHORT:
            pre["class"] = [*pre.get("class", []), "short"]
    for formula in article.select("span.math"):
        after = formula.next_sibling
        stop = re.match(r"[.,;:!?)\]’”]+", after) if isinstance(after, NavigableString) else None
        if stop:
            after.replace_with(after[stop.end() :])
            keep = formula.wrap(soup.new_tag("span", attrs={"class": "keep"}))
            keep.append(stop.group())


def own_ids(article, name):
    """Make ids unique in the document: prefixed by the page, and the second of two dropped."""
    seen = set()
    for element in article.find_all(id=True):
        if element["id"] in seen:  # sphinx-proof gives each theorem's content the same one
            del element["id"]
            continue
        seen.add(element["id"])
        element["id"] = place(name, element["id"])


def link(article, name, names):
    """Turn links between pages into links within the document; keep those to other sites."""
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
