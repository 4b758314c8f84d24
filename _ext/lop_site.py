"""Where the book stands on the web, and what tells of it: canonical links, descriptions, dates.

* **One address.** :func:`site_address` derives it from the repository's, unless ``html.baseurl``
  in ``_config.yml`` names another. Canonical links, the sitemap and ``robots.txt`` follow.
* **A sentence for each page.** The front matter's ``description`` becomes the page's; Jupyter
  Book 2 knows the same key.
* **When a page was changed.** sphinx-last-updated-by-git asks git when it reads a page, which is
  before that page's own commit; :func:`ask_git_again` asks in every build.
* **A way back, and away.** :func:`name_buttons` says in plain words what the header's links do,
  and :func:`offer_whole_book` adds the downloads that lie beside the pages.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode
from xml.etree import ElementTree

from sphinx.errors import ConfigError

# An archive without git has no dates, and a clone without history none that are true.
NO_DATES = ["git.subprocess_error", "git.command_not_found", "git.too_shallow"]
REPOSITORY = re.compile(r"https://(?P<host>[\w.-]+)/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)/?")


# --- The address -------------------------------------------------------------------------


def site_address(config):
    """Return where the book is published, with a slash at the end; "" if nothing says where."""
    if config.html_baseurl:
        if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", config.html_baseurl):
            raise ConfigError(
                "html.baseurl in _config.yml must be like https://book.example.org/, "
                f"got {config.html_baseurl!r}"
            )
        return config.html_baseurl.rstrip("/") + "/"
    url = config.html_theme_options.get("repository_url")
    if url is None:  # a book without a repository is published nowhere
        return ""
    parts = REPOSITORY.fullmatch(str(url))
    if parts is None:
        raise ConfigError(
            f"repository.url in _config.yml must be like https://github.com/OWNER/NAME, got {url!r}"
        )
    if parts["host"] != "github.com":
        raise ConfigError(
            f"repository.url in _config.yml is at {parts['host']}, and only for github.com is it "
            "known where the pages are: say it as html.baseurl"
        )
    host = f"{parts['owner'].lower()}.github.io"
    return f"https://{host}/" + ("" if parts["name"].lower() == host else f"{parts['name']}/")


def address_said(settings):
    """Return the same from _config.yml as it was read, for tools that run without Sphinx."""
    config = SimpleNamespace(
        html_baseurl=(settings.get("html") or {}).get("baseurl", ""),
        html_theme_options={"repository_url": settings["repository"]["url"]},
    )
    return site_address(config)


def use_address(app, config):
    """Give Sphinx the address, from which it makes the canonical links."""
    config.html_baseurl = site_address(config)


def page_address(app, pagename):
    """Return the full address of a page."""
    return app.config.html_baseurl + app.builder.get_target_uri(pagename)


def write_site_files(app, exception):
    """Write what search engines look for, and the page that leads from the root to the first.

    sphinx-sitemap would list the pages only that this build has written.
    """
    if exception or not app.config.html_baseurl or app.builder.format != "html":
        return
    out, address = Path(app.outdir), app.config.html_baseurl
    pages = ElementTree.Element("urlset", xmlns="http://www.sitemaps.org/schemas/sitemap/0.9")
    for docname in sorted(app.env.found_docs):
        page = ElementTree.SubElement(pages, "url")
        ElementTree.SubElement(page, "loc").text = page_address(app, docname)
        if changed := last_changed(app.env, docname):
            ElementTree.SubElement(page, "lastmod").text = f"{changed:%Y-%m-%d}"
    ElementTree.indent(pages)
    ElementTree.ElementTree(pages).write(
        out / "sitemap.xml", encoding="utf-8", xml_declaration=True
    )
    # Read at the root of a host only: of use where html.baseurl is a domain of the book's own.
    robots = f"User-agent: *\nAllow: /\n\nSitemap: {address}sitemap.xml\n"
    (out / "robots.txt").write_text(robots, encoding="utf-8")
    if app.config.root_doc != "index":
        first = app.builder.get_target_uri(app.config.root_doc)
        title = escape(app.env.titles[app.config.root_doc].astext())
        (out / "index.html").write_text(
            f'<!DOCTYPE html>\n<html lang="{app.config.language}">\n<meta charset="utf-8">\n'
            f"<title>{title}</title>\n"
            f'<meta http-equiv="refresh" content="0; url={first}">\n'
            f'<link rel="canonical" href="{escape(address + first)}">\n'
            f'<p><a href="{first}">{title}</a></p>\n',
            encoding="utf-8",
        )


# --- A page's sentence -------------------------------------------------------------------


def description_of(app, pagename):
    """Return the sentence in the front matter of a page, in one line; "" if it has none."""
    found = app.env.metadata.get(pagename, {}).get("description", "")
    return " ".join(str(found).split())


def describe(app, pagename, templatename, context, doctree):
    """Put the page's sentence where search engines look for it."""
    if text := description_of(app, pagename):
        context["metatags"] += f'<meta name="description" content="{escape(text)}" />\n'


# --- When a page was changed -------------------------------------------------------------


def last_changed(env, docname):
    """Return when git says that a page was changed, in UTC; None if it does not know."""
    timestamp, _ = getattr(env, "git_last_updated", {}).get(docname) or (None, True)
    return None if timestamp is None else datetime.fromtimestamp(int(timestamp), UTC)


def expect_no_dates(app, config):
    """Build as strictly as ever where git knows nothing, and leave the dates out."""
    config.suppress_warnings = [*config.suppress_warnings, *NO_DATES]


def forget_dates(app, env):
    """Let sphinx-last-updated-by-git, which comes next, ask for every page."""
    env.lop_dates = {docname: last_changed(env, docname) for docname in env.found_docs}
    env.git_last_updated = dict.fromkeys(env.found_docs)


def ask_git_again(app, env):
    """Write the pages anew whose date is another than the last build knew."""
    old = env.__dict__.pop("lop_dates")
    return sorted(name for name in old if last_changed(env, name) != old[name])


def keep_source_links(app, pagename, templatename, context, doctree):
    """Keep the links to a page's source where there is no git to ask."""
    if app.env.git_last_updated.get(pagename) is None:
        app.env.git_last_updated[pagename] = (None, True)


# --- The header's links ------------------------------------------------------------------


def name_buttons(app, pagename, templatename, context, doctree):
    """Say what the theme's links to the repository are for, and which page a report is about."""
    for group in context.get("header_buttons", []):
        if group.get("label") == "source-buttons":
            group["tooltip"] = "Edit this page or report an error"
        for button in group.get("buttons", []):
            if button.get("label") == "source-edit-button":
                button.update(text="Edit this page", tooltip="Propose a change of the source")
            if button.get("label") == "source-issues-button":
                button.update(text="Report an error", tooltip="Open an issue about this page")
                if "?title=" in button["url"]:  # as GitHub has it
                    about = {"title": f"{pagename}: ", "body": page_address(app, pagename)}
                    base = button["url"].partition("?")[0]
                    button["url"] = escape(f"{base}?{urlencode(about, safe='/:')}")


# What is published beside the pages, by `make pdf` and `make archive`.
WHOLE_BOOK = {"Whole book (.pdf)": "lop-book.pdf", "Whole site (.zip)": "lop-book-html.zip"}


def offer_whole_book(app, pagename, templatename, context, doctree):
    """Let the menu of downloads end with the whole book, which lies where the site is."""
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons" and app.config.html_baseurl:
            group["buttons"] += [
                {
                    "type": "link",
                    "text": text,
                    "url": app.config.html_baseurl + file,
                    "tooltip": "Download it from the published site",
                    "icon": "fas fa-book",
                    "label": "download-book-button",
                }
                for text, file in WHOLE_BOOK.items()
            ]


def setup(app):
    """Connect everything above."""
    app.setup_extension("sphinx_last_updated_by_git")
    app.connect("config-inited", use_address)
    app.connect("config-inited", expect_no_dates)
    app.connect("env-updated", forget_dates, priority=490)  # theirs has 500
    app.connect("env-updated", ask_git_again, priority=510)
    app.connect("html-page-context", keep_source_links, priority=400)
    app.connect("html-page-context", describe, priority=400)  # before lop_card
    app.connect("html-page-context", name_buttons, priority=600)  # the theme adds them at 501
    app.connect("html-page-context", offer_whole_book, priority=600)
    app.connect("build-finished", write_site_files, priority=400)  # before another index.html
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
