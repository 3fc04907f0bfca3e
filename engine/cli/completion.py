"""`aflow completion SHELL`: the script that teaches a shell to ask `aflow __complete`."""

import click

from engine.cli.options import verb

_BASH = """
_aflow() {
    local line=${COMP_LINE:0:COMP_POINT} words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local current=${words[-1]} IFS=$'\\n'
    COMPREPLY=($(aflow __complete "${words[@]:1}" 2>/dev/null))
    # Bash takes @ and : for the end of a word, and replaces only what follows the last of them.
    COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*[@:=]}"}"}")
}
complete -o default -F _aflow aflow
"""

_ZSH = """
#compdef aflow
_aflow() {
    local -a found
    found=("${(@f)$(aflow __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -Q -- "${found[@]}"
    else
        _files
    fi
}
compdef _aflow aflow
"""

_FISH = """
function __aflow_complete
    set -l words (commandline -opc) (commandline -ct)
    aflow __complete $words[2..-1] 2>/dev/null
end
complete -c aflow -f -n 'not string match -q -- "*.py" (commandline -ct)' -a '(__aflow_complete)'
complete -c aflow -F -n '__fish_seen_subcommand_from run check show'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@verb(
    "completion",
    examples="""
aflow completion bash >> ~/.bashrc
aflow completion zsh > "${fpath[1]}/_aflow"
aflow completion fish > ~/.config/fish/completions/aflow.fish
""",
)
@click.argument("shell", type=click.Choice(sorted(_SCRIPTS)))
def command(shell: str) -> None:
    """Print a completion script for a shell. It offers commands, options, runs, steps and tasks."""
    print(_SCRIPTS[shell].strip())
