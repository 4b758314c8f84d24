"""The address of the published site."""


def site_address(config):
    owner, name = config.html_theme_options["repository_url"].split("/")[-2:]
    return f"https://{owner}.github.io/{name}/"
