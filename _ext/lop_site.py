"""Where the book stands on the web, and what tells of it: canonical links, dates, the header.

* **One address.** :func:`site_address` derives it from the repository's, unless ``html.baseurl``
  in ``_config.yml`` names another. Canonical links, the sitemap and ``robots.txt`` follow.
* **When a page was changed.** sphinx-last-updated-by-git asks git when it reads a page, which is
  before that page's own commit; :func:`forget_dates` has it ask in every build.
* **A way back, and away.** :func:`name_buttons` says in plain words what the header's links do,
  and adds the downloads that lie beside the pages.
"""

import re
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

from sphinx.errors import ConfigError

REPOSITORY = re.compile(r"https://([\w.-]+)/([\w.-]+)/([\w.-]+?)/?")
# What is published beside the pages, by `make pdf` and `make archive`.
WHOLE_BOOK = {"Whole book (.pdf)": "lop-book.pdf", "Whole site (.zip)": "lop-book-html.zip"}
SITEMAP = """<?xml version="1.0" encoding="utf-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
{}</urlset>
"""


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
    host, owner, name = parts.groups()
    if host != "github.com":
        raise ConfigError(
            f"repository.url in _config.yml is at {host}, and only for github.com is it "
            "known where the pages are: say it as html.baseurl"
        )
    pages = f"{owner.lower()}.github.io"
    return f"https://{pages}/" + ("" if name.lower() == pages else f"{name}/")


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


def last_changed(env, docname):
    """Return when git says that a page was changed, in UTC; None if it does not know."""
    timestamp, _ = getattr(env, "git_last_updated", {}).get(docname) or (None, True)
    return None if timestamp is None else datetime.fromtimestamp(int(timestamp), UTC)


def write_sitemap(app, exception):
    """Write what search engines look for.

    sphinx-sitemap would list the pages only that this build has written.
    """
    if exception or not app.config.html_baseurl or app.builder.format != "html":
        return
    pages = ""
    for docname in sorted(app.env.found_docs):
        changed = last_changed(app.env, docname)
        day = f"<lastmod>{changed:%Y-%m-%d}</lastmod>" if changed else ""
        pages += f"<url><loc>{page_address(app, docname)}</loc>{day}</url>\n"
    Path(app.outdir, "sitemap.xml").write_text(SITEMAP.format(pages), encoding="utf-8")
    # Read at the root of a host only: of use where html.baseurl is a domain of the book's own.
    robots = f"User-agent: *\nAllow: /\n\nSitemap: {app.config.html_baseurl}sitemap.xml\n"
    Path(app.outdir, "robots.txt").write_text(robots, encoding="utf-8")


def forget_dates(app, env):
    """Let sphinx-last-updated-by-git, which comes next, ask for every page."""
    env.lop_dates, env.git_last_updated = env.git_last_updated, dict.fromkeys(env.found_docs)


def date_anew(app, env):
    """Write the pages anew whose date is another than the last build knew."""
    old = env.__dict__.pop("lop_dates")
    return sorted(name for name in old if env.git_last_updated[name] != old[name])


def keep_source_links(app, pagename, templatename, context, doctree):
    """Keep the links to a page's source on a machine without git."""
    if app.env.git_last_updated.get(pagename) is None:
        app.env.git_last_updated[pagename] = (None, True)


def name_buttons(app, pagename, templatename, context, doctree):
    """Say what the theme's links are for, and offer the whole book, which lies by the site."""
    site = app.config.html_baseurl
    groups = {group.get("label"): group for group in context.get("header_buttons", [])}
    if source := groups.get("source-buttons"):
        source["tooltip"] = "Edit this page or report an error"
        for button in source["buttons"]:
            if button["label"] == "source-edit-button":
                button.update(text="Edit this page", tooltip="Propose a change of the source")
            if button["label"] == "source-issues-button":
                button.update(text="Report an error", tooltip="Open an issue about this page")
                about = {"title": f"{pagename}: ", "body": page_address(app, pagename)}
                base = button["url"].partition("?")[0]
                button["url"] = escape(f"{base}?{urlencode(about, safe='/:')}")
    if site and (downloads := groups.get("download-buttons")):
        downloads["buttons"] += [
            {
                "type": "link",
                "text": text,
                "url": site + file,
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
    app.connect("env-updated", forget_dates, priority=490)  # theirs has 500
    app.connect("env-updated", date_anew, priority=510)
    app.connect("html-page-context", keep_source_links, priority=400)
    app.connect("html-page-context", name_buttons, priority=600)  # the theme adds them at 501
    app.connect("build-finished", write_sitemap)
