"""Refuse to publish from a repository whose address the pages do not name.

usage: address.py [ADDRESS]

ADDRESS is that of the repository; in GitHub Actions it is known without. The pages link to the
address in _config.yml (repository.url): if that is not this one, readers who follow "edit",
"Colab" or the clone command would end elsewhere.
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
WHAT_TO_DO = "edit repository.url in _config.yml, run `make derived`, and commit what changes"


def canonical(address):
    """Return (host, owner, name) of an address, so that two spellings of it are equal."""
    parts = urlsplit(address.strip())
    path = parts.path.strip("/").removesuffix(".git").split("/")
    if parts.scheme not in ("http", "https") or not parts.netloc or len(path) != 2 or "" in path:
        raise ValueError(f"address: wanted https://HOST/OWNER/NAME, got {address!r}")
    return tuple(part.lower() for part in (parts.netloc, *path))  # GitHub minds no case


def present(arguments, environ):
    """Return the address of the repository, as it was given or as GitHub Actions says it."""
    if len(arguments) == 1:
        return arguments[0]
    missing = [name for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY") if not environ.get(name)]
    if arguments or missing:
        raise ValueError(f"wanted one address, or {' and '.join(missing)} set, got {arguments}")
    return f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}"


def check(address, root=ROOT):
    """Return the address in _config.yml; raise if it is another than the one given."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    written = (config.get("repository") or {}).get("url")
    if not written:
        raise ValueError(f"_config.yml: wanted repository.url, got none; {WHAT_TO_DO}")
    if canonical(written) != canonical(address):
        raise ValueError(
            f"_config.yml: wanted repository.url {address}, got {written}; {WHAT_TO_DO}"
        )
    return written


if __name__ == "__main__":
    try:
        print(check(present(sys.argv[1:], os.environ)))
    except ValueError as error:
        sys.exit(f"address.py: {error}")
