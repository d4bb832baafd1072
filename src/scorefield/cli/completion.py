"""Scripts by which shells complete the command line: verbs, options, values that are few, and the names of recipes and models.

They hold all they say, so that a key costs no start of Python: `scorefield completion bash` is called once for each version.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

from scorefield.cli.console import VOLUME
from scorefield.cli.parsing import arguments_of, description
from scorefield.foundation.errors import InputError, brief
from scorefield.run.configuration import recipes
from scorefield.run.shipped import known_models
from scorefield.run.verb import names_of

SHELLS = ("bash", "zsh", "fish")
HELP = """usage: scorefield completion bash|zsh|fish

  bash: scorefield completion bash > ~/.local/share/bash-completion/completions/scorefield
  zsh:  scorefield completion zsh > ~/.scorefield.zsh; echo 'source ~/.scorefield.zsh' >> ~/.zshrc     (after compinit)
  fish: scorefield completion fish > ~/.config/fish/completions/scorefield.fish"""


@dataclass(frozen=True)
class Words:
    """What may be given to a verb.

    Attributes:
        summary: what it does.
        options: with the values of each, where these are few.
        first: names that its first argument may be, beside files.
    """

    summary: str
    options: Mapping[str, Sequence[str]]
    first: Sequence[str]


def completion(arguments: Sequence[str], verbs: Mapping[str, tuple[str, str]]) -> str:
    """The script of a shell, or how to use it. InputError for shells that are not known.

    Args:
        arguments: the name of a shell.
        verbs: each with its room and its class.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        return HELP
    if len(arguments) > 1 or arguments[0] not in SHELLS:
        close = difflib.get_close_matches(arguments[0], SHELLS, n=1)
        raise InputError(
            f"There is no completion for {brief(' '.join(arguments))}: give {f'{close[0]}' if close else ', '.join(SHELLS)}."
        )
    found = {name: _words(getattr(import_module(f"scorefield.{room}"), kind)) for name, (room, kind) in verbs.items()}
    found["completion"] = Words("Print the script by which a shell completes scorefield", {}, SHELLS)
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments[0]](found)


def _words(verb: type[Any]) -> Words:
    names = {"recipe": list(recipes()), "run": list(known_models()), "name": list(known_models())}
    options: dict[str, Sequence[str]] = {}
    first: Sequence[str] | None = None
    for field, kind in arguments_of(verb):
        if field.metadata.get("positional"):
            first = names.get(field.name, []) if first is None else first
        else:
            options |= dict.fromkeys(names_of(field), _values(kind))
    options |= dict.fromkeys((*VOLUME, "--help"), ())
    return Words(description(verb).partition(". ")[0].partition(": ")[0], options, first or [])


def _values(kind: Any) -> list[str]:
    """The words that a type of an option allows, if they are few."""
    literals = (
        [kind] if get_origin(kind) is Literal else [part for part in get_args(kind) if get_origin(part) is Literal]
    )
    return [str(value) for literal in literals for value in get_args(literal)]


def _bash(found: Mapping[str, Words]) -> str:
    cases = "\n".join(f"    {_quoted(name)}) {_case(words)} ;;" for name, words in found.items() if " " not in name)
    groups: dict[str, dict[str, Words]] = {}
    for name, words in found.items():
        group, _, second = name.partition(" ")
        if second:
            groups.setdefault(group, {})[second] = words
    nested = "\n".join(_bash_group(group, inner) for group, inner in groups.items())
    first = sorted({name.partition(" ")[0] for name in found})
    return f"""# bash completion of scorefield
_scorefield() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" place=2 options="" names="" values=""
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then COMPREPLY=($(compgen -W "{" ".join(first)}" -- "$word")); return; fi
  case "${{COMP_WORDS[1]}}" in
{cases}
{nested}
  esac
  if [[ -n $values ]]; then COMPREPLY=($(compgen -W "$values" -- "$word"))
  elif [[ $word == -* ]]; then COMPREPLY=($(compgen -W "$options" -- "$word"))
  elif [[ $COMP_CWORD -eq $place ]]; then COMPREPLY=($(compgen -W "$names" -- "$word") $(compgen -f -- "$word"))
  else COMPREPLY=($(compgen -f -- "$word")); fi
}}
complete -o filenames -F _scorefield scorefield"""


def _case(words: Words) -> str:
    """What is known once the verb is."""
    several = "".join(f" {name}) values='{' '.join(values)}' ;;" for name, values in words.options.items() if values)
    chosen = f' case "$before" in{several} esac' if several else ""
    return f"options='{' '.join(words.options)}' names='{' '.join(words.first)}';{chosen}"


def _bash_group(group: str, inner: Mapping[str, Words]) -> str:
    """A verb of two words."""
    cases = " ".join(f"{name}) {_case(words)} ;;" for name, words in inner.items())
    return f"""    {group}) names='{" ".join(inner)}'
      if [[ $COMP_CWORD -gt 2 ]]; then place=3; case "${{COMP_WORDS[2]}}" in {cases} esac; fi ;;"""


def _zsh(found: Mapping[str, Words]) -> str:
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash(found)}"


def _fish(found: Mapping[str, Words]) -> str:
    return "\n".join(["# fish completion of scorefield", *_fish_lines(found)])


def _fish_lines(found: Mapping[str, Words]) -> Iterator[str]:
    for name, words in found.items():
        group, _, second = name.partition(" ")
        if second:
            yield f"complete -c scorefield -f -n '__fish_seen_subcommand_from {group}' -a {second} -d {_quoted(words.summary)}"
        yield f"complete -c scorefield -f -n __fish_use_subcommand -a {group} -d {_quoted('' if second else words.summary)}"
        seen = f"-n '__fish_seen_subcommand_from {second or group}'"
        for option, values in words.options.items():
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            yield f"complete -c scorefield {seen} {kind}" + f" -x -a '{' '.join(values)}'" * bool(values)
        if words.first:
            yield f"complete -c scorefield {seen} -a '{' '.join(words.first)}'"


def _quoted(text: str) -> str:
    """For any of the shells."""
    return "'" + text.replace("'", "").replace("\\", "") + "'"
