"""`aflow show FLOW`: its graph as text, JSON or a drawing."""

import json
from pathlib import Path

import click

from engine.cli.flow_options import FlowVerb, flow_of_command
from engine.cli.options import session


def _show(svg: Path | None) -> None:
    from engine.cli.graph_text import fields_of, text_of
    from engine.flow.lint import graph_of
    from engine.flow.parameters import parameters_of

    flow = flow_of_command()
    graph = graph_of(flow)
    doc = flow.__doc__ or ""
    if svg is not None:
        from engine.cli.graph_svg import svg_of

        svg.write_text(svg_of(graph))
        click.echo(f"{svg} written", err=True)
    parameters = parameters_of(flow).values()
    if session().json:
        told = [{"name": p.name, "type": p.type_name, "help": p.help} for p in parameters]
        print(json.dumps({**fields_of(graph, doc=doc), "parameters": told}))
    elif svg is None:
        for line in text_of(graph, doc=doc):
            print(line)
        for parameter in parameters:
            print(f"  --{parameter.name} {parameter.type_name.upper()}  {parameter.help or ''}")


command = FlowVerb(
    "show",
    examples="aflow show flow.py\naflow show flow.py --svg flow.svg",
    json=True,
    params=[
        click.Option(
            ["--svg"],
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write a drawing to this file.",
        )
    ],
    callback=_show,
    help="Show a flow's graph, its steps in the order of the source, and its parameters.",
)
