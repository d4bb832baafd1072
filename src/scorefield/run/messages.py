"""What a parser could not read, in one line: which key, which value, what belongs there, and what was probably meant.

jsonargparse says where a value fits no type by naming every type that was tried, level by level. The innermost level says what
is wrong; the keys and the classes on the way there say where.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import isabstract, signature
from pathlib import Path
from typing import Any, get_args

from scorefield.run.defaults import constructor_types, import_class

ALIKE = 0.75  # of what is most probably one word, misspelled
LONGEST = 60  # characters of a value that are shown
KINDS = {
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"},
    **dict.fromkeys(("list", "tuple", "Sequence"), "a list, such as [1, 2]"),
    **dict.fromkeys(("dict", "Mapping"), "a mapping, such as {a: 1}"),
}
FILE = re.compile(r"[/\\~]|\.(ya?ml|json|np[yz]|nc|zarr|h5|hdf5|zip|png|jpe?g|tiff?|mat|csv|txt|pt|pth|safetensors)$")


@dataclass(frozen=True)
class Known:
    """What there is, to say what was probably meant.

    Attributes:
        program: the program and the verb.
        options: of the command line, with their dashes.
        types: of the options, by their dotted names.
        recipes: names of the recipes that come with the package.
    """

    program: str
    options: Collection[str]
    types: Mapping[str, Any] = field(default_factory=dict)
    recipes: Collection[str] = ()


@dataclass(frozen=True)
class Place:
    """Where a message is about.

    Attributes:
        text: the message, without line breaks.
        key: the dotted name of the value that cannot be used.
        owner: the innermost class that is known to be meant, of which the last part of the key is an argument; or None.
        tail: what the message says about the value itself.
    """

    text: str
    key: str
    owner: str | None
    tail: str

    @property
    def value(self) -> str:
        """The value as it was given, shortened."""
        patterns = (
            r"NestedArg\(key='[^']*', val='?(.*?)'?\)(?: - Expected|$)",
            r"Got value: (.*?)(?: - Expected a| Given value| Subclass types|$)",
        )
        found = [match[1] for pattern in patterns if (match := re.search(pattern, self.text))]
        found += re.findall(r"Given value: (.*?)(?: - Expected a <class 'NoneType'> Given|$)", self.tail)[:1]
        return shortened(found[0].strip("'")) if found else ""

    def kinds(self, known: Known) -> list[type]:
        """The classes that can stand here."""
        if self.owner is None:
            return classes_in(known.types.get(self.key))
        return classes_in(constructor_types(import_class(self.owner)).get(self.key.rpartition(".")[2]))


def explain(message: str, known: Known) -> str:
    """One line about what a parser says."""
    text = re.sub(r"\s+", " ", message).strip()
    keys = [key for key in re.findall(r'Parser key "([^"]+)"', text) if key]
    path = [key for number, key in enumerate(keys) if key not in keys[:number]]
    owners = re.findall(r"given class_path '([\w.]+)': Parser key", text)
    tail = text.rpartition("Parser key ")[2].partition(": ")[2] if keys else text
    place = Place(text, ".".join(path), owners[-1] if owners else None, tail)
    for pattern, say in SAYINGS:
        if found := re.search(pattern, tail):
            return say(place, found, known)
    return shortened(text, 280)


def _unknown_option(place: Place, found: re.Match[str], known: Known) -> str:
    word = found[1].partition("=")[0]
    if place.key:
        return _unknown_argument(place, found, known)
    if not word.startswith("-"):
        return f"There is one argument too many: {shortened(found[1])}. {known.program} --help shows what there is."
    options = {*known.options, *(f"--{name}" for name in below(known.types))} if "." in word else known.options
    return f"There is no option {shortened(word)}. {meant(word, options, f'{known.program} --help lists them.')}"


def _unknown_argument(place: Place, found: re.Match[str], known: Known) -> str:
    word = found[found.lastindex or 0].lstrip("-").partition("=")[0]
    owner = re.search(r"given class_path '([\w.]+)': (?:Option|Key|unrecognized)", place.tail)
    key = ".".join(filter(None, (place.key, word)))
    given = f" ({place.value})" if place.value else ""
    if owner is None:
        options = [option.lstrip("-") for option in known.options if option.lstrip("-").startswith(place.key)]
        return f"{key}{given}: there is no such key. {meant(key, options, '')}"
    names = list(signature(import_class(owner[1])).parameters)
    everything = f"It has {', '.join(names[:8])}." if names else "It has none."
    return f"{key}{given}: {short(owner[1])} has no argument {word}. {meant(word, names, everything)}"


def _unknown_key(place: Place, found: re.Match[str], known: Known) -> str:
    names = [option[2:] for option in known.options if option.startswith(f"--{found[1]}.")]
    return f"There is no {found[1]}.{found[2]}. {meant(f'{found[1]}.{found[2]}', names, f'There are {listed(names)}.')}"


def _unknown_class(place: Place, found: re.Match[str], known: Known) -> str:
    word, kinds = found[1], place.kinds(known)
    kind = " or ".join(kind.__name__ for kind in kinds) or "class"
    if word in known.recipes:
        return f"{place.key}: {word} is a recipe, not a {kind}: give {word}.yaml to take the recipe's {place.key}."
    if FILE.search(word):
        word = shortened(word)
        if Path(word).exists():
            return (
                f"{place.key}: {word} is a file, not a {kind}: name the {kind} that reads it, or a YAML file that does."
            )
        return f"{place.key}: there is no file or folder {word}, and no {kind} of this name."
    if missing := re.search(r"No module named '[^']+'|module '[^']+' has no attribute '[^']+'", place.tail):
        return f"{place.key}: {shortened(word)} cannot be imported: {missing[0]}."
    names = known_classes(kinds)
    return f"{place.key}: there is no {kind} {shortened(word)}. {meant(word, names, f'There are {listed(names)}.')}"


def _wrong_class(place: Place, found: re.Match[str], known: Known) -> str:
    names = known_classes(place.kinds(known))
    return f"{place.key}: {shortened(found[1])} is not a {short(found[2])}. There are {listed(names)}."


def _no_class_yet(place: Place, found: re.Match[str], known: Known) -> str:
    names = known_classes(place.kinds(known))
    inside = re.search(r"NestedArg\(key='([^']*)', val=", place.text)
    given = f" before its arguments ({inside[1]} = {place.value})" if inside else ""
    return f"{place.key} needs the name of a {short(found[1])}{given}: {listed(names)}."


def _missing(place: Place, found: re.Match[str], known: Known) -> str:
    names = found[1].split(" - ")[0].split(", ")
    owner = re.search(r"given class_path '([\w.]+)': the following", place.tail)
    if owner:
        options = " ".join(f"--{place.key}.{name} {name.upper()}" for name in names)
        return f"{place.key}: {short(owner[1])} needs {', '.join(names)}: add {options}."
    shown = [f"--{name}" if f"--{name}" in known.options else name.upper() for name in names]
    return f"{known.program} needs {' and '.join(shown)}: {known.program} --help shows how it is called."


def _no_value(place: Place, found: re.Match[str], known: Known) -> str:
    return f"{found[1]} needs a value."


def _no_mapping(place: Place, found: re.Match[str], known: Known) -> str:
    key = place.key or "A group"
    return f"{key} is no single value, not {shortened(found[1])}: set --{key}.NAME, or give a YAML file with all of it."


def _wrong_type(place: Place, found: re.Match[str], known: Known) -> str:
    expected = re.findall(
        r"Expected an? (?:<class '([^']+)'>|typing\.(Literal\[.*?\]))", place.tail.split("Given value")[0]
    )
    kinds = [KINDS.get(short(kind), short(kind)) if kind else literal[8:-1] for kind, literal in expected]
    return f"{place.key} must be {' or '.join(dict.fromkeys(kinds))}, not {place.value or 'what is given'}."


def _wrong_mapping(place: Place, found: re.Match[str], known: Known) -> str:
    given = f", but {place.value}" if place.value else ""
    return f"{place.key} has to be a {short(found[1])}, by class_path and init_args{given}."


Saying = Callable[[Place, "re.Match[str]", Known], str]
SAYINGS: tuple[tuple[str, Saying], ...] = (  # the first that fits what is said of the value counts
    (r"[Uu]nrecognized arguments?: (\S+)", _unknown_option),
    (r"(?:Option|Key) '([\w.]+)' is not", _unknown_argument),
    (r"Group '([\w.]+)' does not accept option '(\w+)'", _unknown_key),
    (r"dot import path string: (\S+)", _unknown_class),
    (r"Unexpected import path format: (\S+)", _unknown_class),
    (r"given class_path '([^']+)': (?:No module|module '|.* has no attribute)", _unknown_class),
    (r"Import path (\S+) does not correspond to a subclass of (\w+)", _wrong_class),
    (r"Expected an instantiatable class, but ([\w.]+) is abstract", _no_class_yet),
    (r"the following arguments are required: (.*?)(?: - Expected|$)", _missing),
    (r"argument (\S+): expected \w+ arguments?", _no_value),
    (r"Unable to load config [\"']([^\"']*)", _no_mapping),
    (r"Not a valid subclass of (\w+)", _wrong_mapping),
    (r"Expected an? (?:<class|typing)", _wrong_type),
)


# ----------------------------------------------------------------------------------------------------------------- words
def meant(word: str, names: Iterable[str], otherwise: str) -> str:
    """A question for the name that was probably meant, or something else to say."""
    names = sorted(names)
    longer = [name for name in names if name.startswith(word)]
    close = longer[:1] or _within(word, names) or difflib.get_close_matches(word, names, n=1, cutoff=0.55)
    return f"Did you mean {close[0]}?" if close else otherwise


def _within(word: str, names: Sequence[str]) -> list[str]:
    """Of dotted names, the one whose first and last parts are spelled like those of a word: train.optimiser.lr for train.lr."""
    dashes, parts = word[: len(word) - len(word.lstrip("-"))], word.lstrip("-").split(".")
    if len(parts) < 2:
        return []

    def likeness(name: str) -> float:
        """0 where it has no such parts, else how much the parts are alike; less for every other part."""
        own = name.removeprefix(dashes).split(".")
        if len(own) < len(parts):
            return 0.0
        pairs = ((parts[0], own[0]), (parts[-1], own[-1]))
        ratios = [difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs]
        return sum(ratios) - 0.05 * (len(own) - len(parts)) if min(ratios) >= ALIKE else 0.0

    best = max(names, key=likeness, default="")
    return [best] if best and likeness(best) else []


def below(types: Mapping[str, Any]) -> set[str]:
    """The dotted names of the arguments of all classes that can stand for some keys."""
    return {
        f"{key}.{name}"
        for key, kind in types.items()
        if (kinds := classes_in(kind))
        for found in classes_of(kinds)
        for name in signature(found).parameters
    }


def listed(names: Collection[str]) -> str:
    """Some names in a row."""
    return ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "") if names else "none that are known here"


def shortened(text: str, longest: int = LONGEST) -> str:
    """A text cut to a length."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def short(path: str) -> str:
    """The name at the end of a dotted path."""
    return path.rpartition(".")[2]


# --------------------------------------------------------------------------------------------------------------- classes
def known_classes(kinds: Collection[type] = ()) -> set[str]:
    """Their names."""
    return {kind.__name__ for kind in classes_of(kinds)}


def classes_of(kinds: Collection[type] = ()) -> set[type]:
    """The classes of scorefield that are loaded, not abstract, and of one of the kinds if there are any."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("scorefield.")]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    ours = {kind for kind in found if kind.__module__.startswith("scorefield.") and not isabstract(kind)}
    return {kind for kind in ours if not kinds or issubclass(kind, tuple(kinds))}


def classes_in(annotation: Any) -> list[type]:
    """The classes in a type, however nested, but for those of the standard library."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [] if annotation.__module__.split(".")[0] in sys.stdlib_module_names else [annotation]
    return [kind for part in get_args(annotation) for kind in classes_in(part)]
