"""`dspex completion`: print the script that lets a shell complete commands, options, and names of pools."""

from __future__ import annotations

import click

from .printing import print_json, print_line
from .shared_options import command

SHELLS = {
    "bash": ("~/.bashrc", 'eval "$(dspex completion bash)"'),
    "zsh": ("~/.zshrc", 'eval "$(dspex completion zsh)"'),
    "fish": ("~/.config/fish/completions/dspex.fish", "dspex completion fish | source"),
}
VARIABLE = "_DSPEX_COMPLETE"


@command("completion", more="Names of pools and supervisors are those that run when the key is pressed.")
@click.argument("shell", type=click.Choice(list(SHELLS)), help="The shell.")
def completion(shell: str, as_json: bool) -> None:
    """Print it, with the line that loads it for good."""
    from click.shell_completion import ShellComplete, get_completion_class

    from .command_group import root

    made = get_completion_class(shell)
    assert made is not None
    script = ShellComplete.source(made(root, {}, "dspex", VARIABLE))  # asks no shell its version
    file, line = SHELLS[shell]
    if as_json:
        print_json({"shell": shell, "file": file, "line": line, "script": script})
        return
    print_line(f"# For every new shell, write into {file}:\n#     {line}\n{script}")


def complete(instruction: str) -> int:
    """Answer a shell that completes a word; the exit code."""
    from click.shell_completion import shell_complete

    from .command_group import root

    return shell_complete(root, {}, "dspex", VARIABLE, instruction)
