"""The one document that is printed: what is taken from the pages, and what becomes of it."""

import one_document
import pytest
from articles import Chapter, place, take_article
from bs4 import BeautifulSoup

PAGE = "<html><body><nav>no</nav><article class='bd-article'>{}</article></body></html>"


@pytest.fixture
def take(tmp_path):
    """Return a function from the HTML of an article to what is printed of it."""

    def take(body, name="part/one", part=None):
        path = tmp_path / f"{name}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAGE.format(f"<section id='top'>{body}</section>"), encoding="utf-8")
        return take_article(tmp_path, Chapter(name, part, True), {name, "part/two"})

    return take


def test_what_needs_a_screen_goes(take):
    article = take("<p>a<a class='headerlink' href='#top'>#</a></p><button>b</button><script>c")
    assert article.get_text(strip=True) == "a"


def test_a_live_figure_leaves_its_still_picture(take):
    live = "<div><script>x</script><noscript><img alt='still' src='x.svg'></noscript></div>"
    assert take(live).find("img").parent.name == "div"


@pytest.mark.parametrize(
    ("output", "left"), [("<div class='cell_output'><img alt='y' src='y'></div>", ""), ("", "x")]
)
def test_folded_source_is_printed_where_it_draws_nothing(take, output, left):
    source = (
        "<details class='hide'><summary>Show</summary><div class='cell_input'>x</div></details>"
    )
    article = take(f"<div class='cell'>{source}{output}</div>")
    assert article.get_text(strip=True) == left
    assert bool(article.select_one("img")) == bool(output)


def test_other_folds_are_opened(take):
    article = take("<details><summary>Show</summary><p>inside</p></details>")
    assert article.get_text(strip=True) == "inside" and not article.find("details")


def test_solutions_stand_at_the_end_named_after_their_exercise(take):
    exercise = (
        "<div class='exercise' id='e{0}'><p><span class='caption-number'>Exercise {0} </span>"
    )
    solution = "</div><div class='solution'><p class='admonition-title'>Solution</p>s{0}</div>"
    body = "".join((exercise + solution).format(n) for n in (1, 2))
    article = take(f"<h1>Title</h1>{body}<h2>Summary</h2>")
    titles = [" ".join(e.get_text().split()) for e in article.select("h2, h3, .admonition-title")]
    ending = ["Summary", "Solutions", "Solution of Exercise 1", "Solution of Exercise 2"]
    assert titles == ["Title", *ending]
    (link,) = article.select("div.solution")[1].select("a")
    assert article.find(id=link["href"][1:]).get_text(strip=True) == "Exercise 2"


def test_a_quiz_keeps_its_options_and_its_answers_stand_at_the_end(take):
    option = "<details class='option'><summary>To {0}</summary><p>{1}. Why {0}.</p></details>"
    options = option.format("one", "No") + option.format("two", "Yes")
    quiz = f"<div class='quiz admonition'><p class='admonition-title'>How far?</p>{options}</div>"
    article = take(f"{quiz}{quiz}<h2>Summary</h2>")
    first, second = article.select("div.quiz")
    assert [e.get_text() for e in second.select(".option")] == ["To one", "To two"]
    assert "Why" not in first.get_text() and not article.find(["details", "summary"])
    titles = [e.get_text() for e in article.select("h3, .admonition-title")]
    assert titles == ["How far?"] * 2 + ["Summary", "Solutions"] + ["How far?"] * 2
    answers = article.select("div.answers")[1]
    assert article.find(id=answers.a["href"][1:]) is second
    told = [e.get_text() for e in answers.select(".option")]
    assert told == ["To oneNo. Why one.", "To twoYes. Why two."]


def test_links_lead_into_the_document_or_out_of_it(take):
    article = take(
        "<a href='two.html#x%C3%A9'>a</a><a href='#top'>b</a><a href='two.html'>c</a>"
        "<a href='../genindex.html'>d</a><a href='https://example.org/'>e</a>"
    )
    assert [link["href"] for link in article.find_all("a")] == [
        "#" + place("part/two", "xé"),
        "#" + place("part/one", "top"),
        "#part-two",
        "https://example.org/",
    ]
    assert article.get_text() == "abcde"


def test_ids_are_unique_and_plain(take):
    article = take("<p id='x/y'></p><div id='same'></div><div id='same'></div>")
    ids = [element["id"] for element in article.find_all(id=True)]
    assert ids == ["part-one--top", "part-one--x-y", "part-one--same"]


def test_a_part_stands_above_its_first_chapter(take):
    article = take("<h1>Title</h1><h2>Section</h2>", part="Part")
    assert [(e.name, e.get_text()) for e in article.select(one_document.LISTED)] == [
        ("h1", "Part"),
        ("h2", "Title"),
        ("h3", "Section"),
    ]


def test_no_line_begins_with_the_comma_after_a_formula(take):
    article = take("<p><span class='math'>x</span>, and <span class='math'>y</span> too</p>")
    assert [e.get_text() for e in article.select(".keep")] == ["x,"]
    assert article.p.get_text() == "x, and y too"


def test_formulas_in_a_title_are_told_as_typed():
    heading = BeautifulSoup(r"<h1>3. A <span>\(\rho\)</span></h1>", "html.parser").h1
    assert one_document.title_of(heading) == r"3. A \rho"


def test_a_page_that_was_not_built_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"every page of _toc.yml.*one\.html.*make book"):
        take_article(tmp_path, Chapter("one", None, False), {"one"})
