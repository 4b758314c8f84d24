"""Each rule of find_rules, fed a good page and pages that it must catch."""

import find_rules as rules
import numpy as np
import pytest
from find_rules import ADDRESS, CITATION, CONFIG, REPOSITORY
from PIL import Image

SENTENCE = "How a page looks that is told of well, and what each rule would say of one that is not."
HERE = f"{ADDRESS}book/good.html"
AUTHOR = CITATION["authors"][0]["name"]
VERSION = CITATION["version"]
GOOD = f"""<!DOCTYPE html><html lang="en"><head><title>A title</title>
<meta name="description" content="{SENTENCE}">
<link rel="canonical" href="{HERE}">
<meta property="article:modified_time" content="2026-11-25T10:00:00+00:00">
<meta property="og:title" content="A title"><meta property="og:url" content="{HERE}">
<meta property="og:description" content="{SENTENCE}">
<meta property="og:site_name" content="{CONFIG["title"]}">
<meta property="og:image" content="{ADDRESS}card.png">
<meta property="og:image:alt" content="A title, and a picture">
<meta property="og:image:width" content="1200"><meta property="og:image:height" content="630">
<meta name="twitter:card" content="summary_large_image">
<meta name="citation_title" content="A title"><meta name="citation_author" content="{AUTHOR}">
<meta name="citation_publication_date" content="2026/11/25">
<meta name="citation_fulltext_html_url" content="{HERE}">
</head><body><div class="article-header-buttons"><div class="dropdown-source-buttons">
<a href="{REPOSITORY}/edit/{CONFIG["repository"]["branch"]}/book/good.md">Edit this page</a>
<a href="{REPOSITORY}/issues/new?title=book/good%3A+&amp;body={HERE}">Report an error</a>
</div></div>
<article><h1><span class="section-number">3. </span>A title<a href="#">#</a></h1>
<div class="cell">1</div>
<details class="lop-cite"><summary>Cite this page</summary>
<p>{AUTHOR}: “A title”, version {VERSION}, 2026. {HERE} (last changed 2026-11-25)</p>
<pre>@misc{{good,
  author = {{{{{AUTHOR}}}}},
  title = {{{{A title}}}},
  year = {{2026}},
  url = {{{HERE}}},
}}
</pre></details></article>
<footer><p class="last-updated">Last updated on 2026-11-25.</p></footer></body></html>"""


@pytest.fixture
def look(tmp_path):
    """Return a function that writes the good page, with replacements, and applies a rule."""
    count = iter(range(100))

    def look(rule, *replacements, card=None):
        text = GOOD
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        root = tmp_path / str(next(count))  # a page is parsed once
        (root / "book").mkdir(parents=True)
        page = root / "book" / "good.html"
        page.write_text(text, encoding="utf-8")
        picture = np.full((630, 1200), 255, dtype=np.uint8) if card is None else card
        Image.fromarray(picture).save(root / "card.png")
        one = rule in (rules.describe, rules.dated)
        return rule(page) if one else rule(page, root)

    return look


RULES = [
    rules.describe,
    rules.placed,
    rules.card,
    rules.dated,
    rules.links_back,
    rules.cited,
    rules.scholarly,
]


@pytest.mark.parametrize("rule", RULES)
def test_a_good_page_passes(look, rule):
    assert look(rule) == []


@pytest.mark.parametrize(
    ("new", "finding"),
    [
        ("Too short.", "characters"),
        (f"{SENTENCE[:-1]}, {SENTENCE[:-1]}, {SENTENCE}", "characters"),
        (SENTENCE.replace("page", "*page*"), "markup"),
        (SENTENCE.replace("page", "$x$"), "markup"),
        (SENTENCE.replace("page", "<b>page</b>"), "markup"),
        (SENTENCE.replace(", and", ". And"), "not one sentence"),
        (SENTENCE[:-1], "not one sentence"),
        (SENTENCE.replace("a page", "this page"), "speaks of itself"),
    ],
)
def test_a_bad_description_is_found(look, new, finding):
    found = look(
        rules.describe, (f'description" content="{SENTENCE}', f'description" content="{new}')
    )
    assert any(finding in wrong for wrong in found)


@pytest.mark.parametrize(
    "new", ["", '<meta name="description" content="a"><meta name="description"']
)
def test_no_description_or_two_are_found(look, new):
    assert look(rules.describe, ('<meta name="description"', new or "<meta"))


BROKEN = [
    (rules.placed, f'canonical" href="{ADDRESS}', 'canonical" href="/'),
    (rules.placed, f'url" content="{HERE}', f'url" content="{ADDRESS}'),
    (rules.card, 'og:title" content="A title', 'og:title" content="3. A title'),
    (rules.card, f"{ADDRESS}card.png", "/card.png"),
    (rules.card, f"{ADDRESS}card.png", f"{ADDRESS}none.png"),
    (rules.card, 'content="A title, and a picture"', 'content=""'),
    (rules.card, 'content="1200"', 'content="1146"'),
    (rules.card, '<meta name="twitter:card" content="summary_large_image">', ""),
    (rules.card, "<article>", '<article><img src="../card.png">'),
    (rules.card, f'og:description" content="{SENTENCE}', 'og:description" content="Else'),
    (rules.dated, "2026-11-25.", "Nov 25, 2026."),
    (rules.dated, "2026-11-25.", "2026-11-24."),
    (rules.dated, "2026-11-25", "2999-11-25"),
    (rules.dated, '<p class="last-updated">Last updated on 2026-11-25.</p>', ""),
    (rules.links_back, "book/good.md", "good.md"),
    (rules.links_back, "book/good%3A", "book%3A"),
    (rules.links_back, f"body={HERE}", "body=Your%20issue%20content%20here."),
    (rules.links_back, f"{REPOSITORY}/issues", "https://example.org/issues"),
    (rules.links_back, "</div></div>", f'<a href="{REPOSITORY}">Repository</a></div></div>'),
    (rules.links_back, "dropdown-source-buttons", "nothing"),
    (rules.cited, "lop-cite", "nothing"),
    (rules.cited, '"lop-cite"', '"lop-cite" open'),
    (rules.cited, "@misc{good,", "@misc{good"),
    (rules.cited, "  title = {{A title}}", "  title = {{A % title}"),
    (rules.cited, "  title = {{A title}}", "  title = {{Another}}"),
    (rules.cited, f"  url = {{{HERE}", f"  url = {{{ADDRESS}"),
    (rules.cited, "year = {2026}", "year = {1999}"),
    (rules.cited, f"{{{{{AUTHOR}}}}}", "{Nobody}"),
    (rules.cited, f"version {VERSION}", "version 99"),
    (rules.cited, "(last changed 2026-11-25)", ""),
    (rules.cited, f"<p>{AUTHOR}:", "<p>"),
    (rules.scholarly, "2026/11/25", "25 Nov 2026"),
    (rules.scholarly, '<meta name="citation_author"', "<meta"),
    (rules.scholarly, f'html_url" content="{HERE}', f'html_url" content="{ADDRESS}'),
    (rules.scholarly, '<div class="cell">', "<div>"),
]


@pytest.mark.parametrize(("rule", "old", "new"), BROKEN)
def test_a_broken_page_is_found(look, rule, old, new):
    assert look(rule, (old, new))


@pytest.mark.parametrize(
    ("place", "finding"),
    [
        (np.s_[300, 760:770], "the right"),
        (np.s_[300, 60:70], "the left"),
        (np.s_[535:545, 300], "the foot"),
    ],
)
def test_text_that_leaves_its_place_on_a_card_is_found(look, place, finding):
    card = np.full((630, 1200), 255, dtype=np.uint8)
    card[place] = 0
    assert look(rules.card, card=card) == [f"the text runs into {finding} of the card"]
