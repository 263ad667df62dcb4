"""Plain YAML files in which no name comes twice, and what is wrong in them said in a line."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError


class OnceEach(yaml.SafeLoader):
    """Plain YAML in which no name may come twice: which of its values was meant?"""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping of a node."""
        names = [key.value for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if "<<" not in names and key.value in names[:place]:
                raise yaml.MarkedYAMLError(None, None, f"'{key.value}' is twice", key.start_mark)
        return super().construct_mapping(node, deep)


UNREADABLE = (OSError, UnicodeDecodeError, yaml.YAMLError)
"""What :func:`read_yaml` raises."""


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file; raises one of `UNREADABLE`."""
    return yaml.load(path.read_text(encoding="utf-8"), OnceEach)


def what_does_not_fit(error: ValidationError | TypeError) -> str:
    """Say in one line which value of a file is not what it should be."""
    if isinstance(error, TypeError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def what_is_wrong(error: Exception) -> str:
    """Say in one line where a text is not what it should be: YAML, TOML, or text at all.

    >>> try: yaml.safe_load("a: 1\\nb: [2")
    ... except yaml.YAMLError as error: print(what_is_wrong(error))
    line 2, column 6: expected ',' or ']', but got '<stream end>'
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError | yaml.reader.ReaderError):
        return "it is damaged, or no text"
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.MarkedYAMLError) and mark:
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())
