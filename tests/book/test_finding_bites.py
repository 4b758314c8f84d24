"""Each rule of find_rules, fed a good page and pages that it must catch."""

import find_rules as rules
import pytest
from find_rules import ADDRESS, AUTHORS, CITATION, CONFIG, REPOSITORY
from PIL import Image

SENTENCE = "How a page looks that is told of well, and what each rule would say of one that is not."
HERE = f"{ADDRESS}book/good.html"
PROPERTIES = {
    "article:modified_time": "2026-11-25T10:00:00+00:00",
    "og:title": "A title",
    "og:url": HERE,
    "og:description": SENTENCE,
    "og:site_name": CONFIG["title"],
    "og:image": f"{ADDRESS}card.png",
    "og:image:alt": "A title, and a picture",
    "og:image:width": "1146",
    "og:image:height": "600",
    "twitter:card": "summary_large_image",
    "citation_title": "A title",
    "citation_author": AUTHORS[0],
    "citation_publication_date": "2026/11/25",
    "citation_fulltext_html_url": HERE,
}
TAGS = "\n".join(f'<meta name="{name}" content="{text}">' for name, text in PROPERTIES.items())
GOOD = f"""<!DOCTYPE html><html lang="en"><head><title>A title</title>
<meta name="description" content="{SENTENCE}"><link rel="canonical" href="{HERE}">
{TAGS}</head><body><div class="article-header-buttons"><div class="dropdown-source-buttons">
<a href="{REPOSITORY}/edit/{CONFIG["repository"]["branch"]}/book/good.md">Edit this page</a>
<a href="{REPOSITORY}/issues/new?title=book/good%3A+&amp;body={HERE}">Report an error</a>
</div></div>
<article><h1><span class="section-number">3. </span>A title<a href="#">#</a></h1>
<div class="cell">1</div>
<details class="lop-cite"><summary>Cite this page</summary>
<p>{AUTHORS[0]}: “A title”, version {CITATION["version"]}, 2026. {HERE} (changed 2026-11-25)</p>
<pre>@misc{{good,
  author = {{{{{AUTHORS[0]}}}}},
  title = {{{{A title}}}},
  year = {{2026}},
  url = {{{HERE}}},
}}
</pre></details></article>
<footer><p class="last-updated">Last updated on 2026-11-25.</p></footer></body></html>"""


@pytest.fixture
def look(tmp_path):
    """Return a function that writes the good page, with a replacement, and applies a rule."""

    def look(rule, old="", new=""):
        assert old in GOOD
        page = tmp_path / "book" / "good.html"
        page.parent.mkdir()
        page.write_text(GOOD.replace(old, new) if old else GOOD, encoding="utf-8")
        Image.new("L", (1146, 600)).save(tmp_path / "card.png")
        return rule(page, tmp_path)

    return look


@pytest.mark.parametrize("rule", rules.RULES)
def test_a_good_page_passes(look, rule):
    assert look(rule) == []


@pytest.mark.parametrize(
    ("new", "finding"),
    [
        ("Too short.", "characters"),
        (f"{SENTENCE[:-1]}, {SENTENCE[:-1]}, {SENTENCE}", "characters"),
        (SENTENCE.replace("page", "*page*"), "markup"),
        (SENTENCE.replace("page", "<b>page</b>"), "markup"),
        (SENTENCE.replace(", and", ". And"), "not one sentence"),
        (SENTENCE[:-1], "not one sentence"),
        (SENTENCE.replace("a page", "this page"), "speaks of itself"),
        ('a"><meta name="description" content="b', "two"),
    ],
)
def test_a_bad_description_is_found(look, new, finding):
    old = f'name="description" content="{SENTENCE}"'
    found = look(rules.describe, old, f'name="description" content="{new}"')
    assert any(finding in wrong for wrong in found)


@pytest.mark.parametrize("name", [*PROPERTIES, "canonical"])
def test_a_tag_that_is_missing_is_found(look, name):
    rule = rules.dated if name.startswith("article") else rules.head
    rule = rules.card if name.endswith(("width", "height")) else rule
    assert look(rule, f'"{name}"', '"nothing"')


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (rules.head, f'canonical" href="{ADDRESS}', 'canonical" href="/'),
        (rules.head, 'og:title" content="A title', 'og:title" content="3. A title'),
        (rules.head, f'og:description" content="{SENTENCE}', 'og:description" content="Else'),
        (rules.head, "2026/11/25", "25 Nov 2026"),
        (rules.head, '<div class="cell">', "<div>"),
        (rules.card, f"{ADDRESS}card.png", f"{ADDRESS}none.png"),
        (rules.card, "<article>", '<article><img src="../card.png">'),
        (rules.dated, "2026-11-25.", "Nov 25, 2026."),
        (rules.dated, "2026-11-25.", "2026-11-24."),
        (rules.dated, "2026-11-25", "2999-11-25"),
        (rules.links_back, "book/good.md", "good.md"),
        (rules.links_back, "book/good%3A", "book%3A"),
        (rules.links_back, f"body={HERE}", "body=Your%20issue%20content%20here."),
        (rules.links_back, f"{REPOSITORY}/issues", "https://example.org/issues"),
        (rules.links_back, "</div></div>", f'<a href="{REPOSITORY}">Repository</a></div></div>'),
        (rules.cited, "lop-cite", "nothing"),
        (rules.cited, '"lop-cite"', '"lop-cite" open'),
        (rules.cited, "@misc{good,", "@misc{good"),
        (rules.cited, "  title = {{A title}}", "  title = {{A % title}"),
        (rules.cited, "  title = {{A title}}", "  title = {{Another}}"),
        (rules.cited, "year = {2026}", "year = {1999}"),
        (rules.cited, f"{{{{{AUTHORS[0]}}}}}", "{Nobody}"),
        (rules.cited, "(changed 2026-11-25)", ""),
    ],
)
def test_a_broken_page_is_found(look, rule, old, new):
    assert look(rule, old, new)
