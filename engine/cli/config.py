"""`aflow config show`: every setting, and where it came from."""

import json

import click

from engine.cli.options import session, verb
from engine.cli.tables import table
from engine.settings import SETTINGS


@verb("show", examples="aflow config show --sources\naflow config show --profile prod", json=True)
@click.option("--sources", is_flag=True, help="Where each value came from.")
def show(sources: bool) -> None:
    """Show every setting."""
    now = session()
    config = now.config
    if now.json:
        fields = {
            key: {"value": getattr(config, key), "source": config.source(key)} for key in SETTINGS
        }
        print(json.dumps({"schema": "aflow/config/1", "settings": fields}))
        return
    head = ("KEY", "VALUE", "SOURCE") if sources else ("KEY", "VALUE")
    rows = (
        (key, _shown(getattr(config, key)), config.source(key))[: len(head)] for key in SETTINGS
    )
    for line in table(head, rows):
        print(line)


def _shown(value: object) -> str:
    return "" if value is None else str(value)


command = click.Group(
    "config",
    help="Show settings and where each came from.",
    commands=dict[str, click.Command](show=show),
)
