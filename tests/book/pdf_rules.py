"""What the printed book must satisfy, as functions from a PDF to the list of what is wrong."""

import re

LINE = re.compile(r"^(.+?) (\d+)$")
LIGATURES = str.maketrans({"ﬁ": "fi", "ﬂ": "fl", "ﬀ": "ff", "ﬃ": "ffi", "ﬄ": "ffl"})


def squeezed(text):
    """Return a text without white space and ligatures, which printing adds and takes away."""
    return re.sub(r"\s", "", text.translate(LIGATURES))


def drawn(node):
    """Return how much is drawn on a page, or in a form on it, in bytes; a picture is enough."""
    content = node.get_contents() if "/Contents" in node else None
    size = len(content.get_data()) if content is not None else 0
    for each in node.get("/Resources", {}).get("/XObject", {}).values():
        form = each.get_object()
        if form["/Subtype"] == "/Form":
            size += len(form.get_data()) + drawn(form)
        else:
            size += 9999
    return size


def blank_pages(reader, least=3000):
    """List the pages on which hardly more is drawn than the running head and the number."""
    return [number for number, page in enumerate(reader.pages, 1) if drawn(page) < least]


def annotations(reader):
    """Yield every link of every page."""
    for page in reader.pages:
        for annotation in page.get("/Annots", []):
            if annotation.get_object().get("/Subtype") == "/Link":
                yield annotation.get_object()


def dead_links(reader):
    """List links to a place that is not in the book, or to a file of the machine that printed."""
    places = {name.removeprefix("/") for name in reader.named_destinations}
    dead = []
    for link in annotations(reader):
        if "/Dest" in link:
            if str(link["/Dest"]).removeprefix("/") not in places:
                dead.append(str(link["/Dest"]))
        elif not re.match(r"https?://|mailto:", str(link.get("/A", {}).get("/URI", ""))):
            dead.append(str(link.get("/A")))
    return dead


def figures(reader):
    """List the alternative texts of the figures that are printed, page after page."""
    found, waiting = [], [reader.trailer["/Root"]["/StructTreeRoot"]]
    while waiting:
        node = waiting.pop().get_object()
        if not isinstance(node, dict):
            continue
        if node.get("/S") == "/Figure" and "/Alt" in node:
            found.append(node["/Alt"])
        below = node["/K"] if "/K" in node else []  # pypdf's own access, which follows references
        waiting += reversed(below) if isinstance(below, list) else [below]
    return found


def outline(reader, entries=None):
    """List the outline as pairs of a title and its page, from 1."""
    found = []
    for entry in reader.outline if entries is None else entries:
        if isinstance(entry, list):
            found += outline(reader, entry)
        else:
            found.append((entry.title, reader.get_destination_page_number(entry) + 1))
    return found


def listed(reader):
    """List the lines of the table of contents as pairs of a title and a page."""
    pages = [page for title, page in outline(reader)[:2]]  # of the contents, and what follows
    lines = [
        line
        for number in range(pages[0], pages[1])
        for line in reader.pages[number - 1].extract_text().splitlines()
    ]
    return [(found[1], int(found[2])) for line in lines if (found := LINE.match(line))]


def wrong_pages(reader, pairs):
    """List the titles that are not printed on the page that is said of them."""
    texts = {}
    wrong = []
    for title, page in pairs:
        if page not in texts:
            text = reader.pages[page - 1].extract_text() if page <= len(reader.pages) else ""
            # not the running head, the first line, which has the title on every page
            texts[page] = squeezed(text.partition("\n")[2])
        if squeezed(title) not in texts[page]:
            wrong.append((title, page))
    return wrong
