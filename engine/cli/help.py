"""`aflow help [TOPIC]`: pages that no single command's help is the place for."""

import click

from engine.cli.options import verb
from engine.config import did_you_mean
from engine.errors import NotFoundError

TOPICS = {
    "exit-codes": """
Exit codes

    0  all went well
    1  the run failed: the flow's own code, or a fault in the flow
    2  the command was called wrongly, or a parameter does not fit
    3  a setting, a plugin or the environment is wrong
    4  not allowed: credentials are missing or refused
    5  not found: no such flow, run, step, task or artifact
    6  infrastructure: a store, an executor or a service did not work
    7  a configured limit would be passed
   70  a bug in aflow
  124  a time-out
  129  its terminal was closed (SIGHUP)
  130  interrupted (Ctrl-C)
  141  whoever read its output went away
  143  terminated (SIGTERM, SIGHUP)

`aflow logs -f RUN` and `aflow status --exit-code RUN` end with the code of the run.
""",
    "runs": """
Naming a run

  01JF3Q8W2V0ABCDE      its id
  01JF3                 the start of its id, if no other run's starts so
  TrainFlow/01JF3       the same, among the runs of one flow
  @latest               the run that was started last
  TrainFlow/@latest     the run of TrainFlow that was started last
  @latest-failed        the last one that failed or was interrupted
  -1, -2                the last one, the one before it

A step, a task and an artifact follow after slashes: @latest/train/3/score.
A task's id is its index in each foreach around it, joined by dots; 0 outside of any.
""",
    "limits": """
Limits

  name of a flow, step, task, run or artifact    128 characters: letters, digits, _ - .
  tag                                            256 bytes, 100 to a run
  parameter                                      1 MiB
  foreach                                        no cap; above max_num_splits_guard (1,000,000)
                                                 only with --max-num-splits
  attempts of a task                             no cap; @retry(times=...)
  value kept inside a task's record              1 KiB serialized; larger ones are files of
                                                 their own, shared by equal values
  message between a task and its driver          64 KiB; larger ones go through the store
""",
    "config": """
Settings

The strongest first:
  an option, such as --max-workers 8
  a variable, such as AFLOW_MAX_WORKERS=8
  the profile chosen by --profile NAME or AFLOW_PROFILE: [profile.NAME] of any file
  aflow.toml, or [tool.aflow] of pyproject.toml, in or above the working directory
  $XDG_CONFIG_HOME/aflow/config.toml
  /etc/aflow/config.toml
  the default

--config-file FILE reads that file alone; --no-config reads none.
"local" as a datastore or as metadata, Metaflow's word, stands for the default.
`aflow config show --sources` tells each value and where it came from.
Flow parameters may be given as AFLOW_PARAMETER_NAME.
""",
    "environment": """
Variables

  AFLOW_DATASTORE, AFLOW_METADATA, AFLOW_MAX_WORKERS ...   any setting; see `aflow help config`
  AFLOW_PARAMETER_NAME    a flow parameter
  AFLOW_PROFILE           the profile
  AFLOW_CONFIG_FILE       the only settings file to read
  AFLOW_NO_CONFIG=1       read no settings files
  AFLOW_DEBUG=1           show tracebacks
  NO_COLOR, FORCE_COLOR   never or always colour; --color beats both
  TERM=dumb, CI           no colour and no animation
""",
    "json": """
JSON

With --json, stdout holds JSON and nothing else; fields are added and never change meaning.
`aflow run --json` prints an object a line: run-began, task-launched, task-output, task-done,
task-failed, and at the end result. Each has "schema": "aflow/run/1".
An error is one object on stderr: {"code", "message", "hint", "details"}.
Times are ISO 8601, UTC.
""",
}


@verb("help", examples="aflow help exit-codes\naflow help runs")
@click.argument("topic", required=False)
def command(topic: str | None) -> None:
    """Read about exit codes, limits and more. TOPIC may be a command as well."""
    from engine.cli.commands import VERBS, load_verb

    parent = click.get_current_context().parent
    if topic is None:
        print(parent.get_help() if parent else "")
        print("\nTopics: " + ", ".join(TOPICS))
    elif topic in TOPICS:
        print(TOPICS[topic].strip())
    elif topic in VERBS:
        with click.Context(load_verb(topic), info_name=topic, parent=parent) as context:
            print(context.get_help())
    else:
        close = did_you_mean(topic, [*TOPICS, *VERBS])
        hint = f"did you mean {close!r}?" if close else "topics: " + ", ".join(TOPICS)
        raise NotFoundError(f"there is no help on {topic!r}", hint=hint)
