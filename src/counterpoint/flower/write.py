"""What a consortium needs to start: the app, the server's folder, and one for each site."""

import json
from collections.abc import Mapping
from pathlib import Path

from counterpoint.encryption import make_key, write_key
from counterpoint.files import new_folder, write_text
from counterpoint.remote.plan import Plan
from counterpoint.remote.server_file import SETTINGS
from counterpoint.remote.site_file import example, settings_file

KEY = "local/encryption.key"
"""The encryption key in a site's folder."""

APP = """\
# An app of Flower without any code: server and sites run what Counterpoint has brought them.
# Start it by: flwr run FOLDER CONNECTION

[project]
name = {name}
version = "1.0.0"
description = "A run of Counterpoint: settings, and no code"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "counterpoint"

[tool.flwr.app.components]
serverapp = "counterpoint.flower.server:app"
clientapp = "counterpoint.flower.client:app"

[tool.flwr.app.config]
min-sites = {min_sites}  # that must take part in every round; 0: all of them
deadline = {deadline}  # seconds that a site has for a round; 0: no limit
plan = {plan}
"""

README = """\
# {name}

A run of Counterpoint on Flower. This app has settings, and no code: it needs Counterpoint at the
server and at every site.
"""

PROXY = """\
# Flower's SuperLink has everything on one port, and does not ask who submits an app whose code all
# sites then run. This lets sites reach what they need, and nobody anything else from outside.

server {{
    listen {port} ssl;
    server_name {host};
    ssl_certificate     /etc/counterpoint/server.crt;
    ssl_certificate_key /etc/counterpoint/server.key;

    location /v1/fleet/ {{
        proxy_pass https://127.0.0.1:{inner};
        proxy_ssl_trusted_certificate /etc/counterpoint/ca.crt;
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        client_max_body_size 32m;
        proxy_read_timeout 300s;
    }}

    location / {{
        return 403;
    }}
}}
"""


def write_app(folder: Path, plan: Plan, min_sites: int = 0, deadline: int = 0) -> Path:
    """Write an app of Flower that does a run.

    Args:
        folder: of the app.
        plan: of the run.
        min_sites: sites that must take part in every round; all where 0.
        deadline: seconds that a site has for a round; 0 for no limit.
    """
    text = APP.format(
        name=quoted(plan.name),
        min_sites=min_sites,
        deadline=deadline,
        plan=quoted(json.dumps(plan.as_dict(), ensure_ascii=False)),
    )
    write_text(folder / "pyproject.toml", text)
    write_text(folder / "README.md", README.format(name=plan.name))
    return folder


def quoted(text: str) -> str:
    r"""A text as TOML has it.

    >>> quoted('a "b"')
    '"a \\"b\\""'
    """
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_consortium(
    folder: Path,
    plan: Plan,
    *,
    host: str,
    port: int,
    data: Mapping[str, str | None],
    min_sites: int,
    deadline: int,
) -> None:
    """Write a consortium's folder: the app, the server's folder, and one for each site.

    Raises:
        SettingsError: if there is something in the folder already.
    """
    plan.require_enough(min_sites)
    key = make_key() if plan.settings.encrypt else None
    proxy = PROXY.format(host=host, port=port, inner=port + 1)
    with new_folder(folder) as aside:
        write_app(aside / "app", plan, min_sites, deadline)
        write_text(aside / "server" / "local" / SETTINGS, "runs: runs\n")
        write_text(aside / "server" / "nginx.conf", proxy)
        for client in plan.sites:
            place = aside / "sites" / client
            text = example(client, data, KEY if key else None)
            write_text(place / "local" / settings_file(client), text)
            if key:
                write_key(place / KEY, key)
