"""Bind a table of params, such as [prepare.params], to the keyword-only parameters of a function, with its types checked."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from core.errors import UserError, did_you_mean

SECTION = "prepare.params"
PlaceOf = Callable[[str], str]
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def wants(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a positional parameter of this name."""
    parameter = inspect.signature(function).parameters.get(name)
    return parameter is not None and parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def keyword_only(function: Callable[..., Any]) -> set[str]:
    """Names of the parameters of a function that are keys of a table of params."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def bind(
    function: Callable[..., Any], offered: Mapping[str, Any], params: Mapping[str, Any], place_of: PlaceOf
) -> inspect.BoundArguments:
    """The arguments of a function: positional parameters from `offered`, by name; keyword-only ones from `params`, checked.

    place_of(key): the file and line of a dotted config key, or "". Raises UserError for a positional parameter
    that is not offered, an unknown or missing key, and a value that does not match the annotation.
    """
    signature = inspect.signature(function)
    positional = [parameter for parameter in signature.parameters.values() if parameter.kind in POSITIONAL]
    for parameter in positional:
        if parameter.name not in offered:
            raise UserError(
                f"{title(function)} has a positional parameter '{parameter.name}', which is not offered",
                place=source_of(function),
                remedy=f"Offered: {', '.join(offered)}. Put a setting of your own after a *: "
                f"def {function.__name__}({next(iter(offered))}, *, {parameter.name}).",
            )
    values = keywords(function, params, SECTION, place_of)
    return signature.bind(*(offered[parameter.name] for parameter in positional), **values)


def keywords(
    function: Callable[..., Any], params: Mapping[str, Any], section: str, place_of: PlaceOf = lambda key: ""
) -> dict[str, Any]:
    """The keyword arguments of a function or class from the table `section`, checked against its keyword-only parameters.

    Raises UserError for an unknown or missing key, and for a value that does not match the annotation.
    """
    parameters = inspect.signature(function).parameters.values()
    settings = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    names = [parameter.name for parameter in settings]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    for name in params:
        if name not in names and not takes_any:
            key = f"{section}.{name}"
            remedy = f"{title(function)} has no keyword-only parameters. The keys of the table are these parameters."
            if names:
                remedy = f"{did_you_mean(name, names)} The keys are the parameters after * of {title(function)}."
            raise UserError(f"unknown key '{key}'", place=place_of(key) or key, remedy=remedy)
    for parameter in settings:
        if parameter.default is parameter.empty and parameter.name not in params:
            raise UserError(
                f"{section}.{parameter.name} is missing, and {title(function)} has no default for it",
                place=place_of(section) or source_of(function),
                remedy=f"Set it under [{section}] in config.toml, or give the parameter a default.",
            )
    types = annotated(function, names)
    return {
        name: checked(function, f"{section}.{name}", value, types.get(name, Any), place_of)
        for name, value in params.items()
    }


def annotated(function: Callable[..., Any], names: list[str]) -> dict[str, Any]:
    """Types of some parameters. The others are not evaluated: they may name what only a type checker imports."""
    body = body_of(function)
    written = {name: note for name, note in inspect.get_annotations(body).items() if name in names}
    hints: dict[str, Any] = typing.get_type_hints(
        SimpleNamespace(__annotations__=written), getattr(body, "__globals__", {}), include_extras=True
    )
    return hints


def checked(function: Callable[..., Any], key: str, value: Any, annotation: Any, place_of: PlaceOf) -> Any:
    """A value of the annotated type. int widens to float, a list becomes a tuple or set; nothing else is converted."""
    name, wanted = key.rpartition(".")[2], inspect.formatannotation(annotation)
    try:
        # TOML has no tuples. In strict mode, pydantic turns a list into one only when it reads JSON.
        return TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part!r}]" for part in first["loc"] if isinstance(part, int))
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise UserError(
            f"{key} = {json.dumps(value, default=str, ensure_ascii=False)}: {where + ' ' if where else ''}{message}",
            place=place_of(key) or key,
            remedy=f"Give {words}."
            if (words := in_words(annotation))
            else f"{title(function)} declares {name}: {wanted}.",
        ) from None
    except (PydanticSchemaGenerationError, PydanticUserError):
        raise UserError(
            f"{title(function)} declares {name}: {wanted}, and no value in config.toml can have that type",
            place=source_of(function),
            remedy="A setting may be int, float, str, bool, list, tuple, dict, Literal or Optional of these.",
        ) from None


BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "to below {}"}
SINGLE = {int: "a whole number", float: "a number", str: "a text"}


def in_words(annotation: Any) -> str:
    """A type that Python writes in an unreadable way, such as: a number from 0 to below 1. "" for others."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(json.dumps(part) for part in parts)
    if typing.get_origin(annotation) is not typing.Annotated:
        return ""
    limits = [limit for mark in parts[1:] for limit in (getattr(mark, "metadata", None) or [mark])]
    bounds = [
        text.format(getattr(limit, key)) for key, text in BOUNDS.items() for limit in limits if hasattr(limit, key)
    ]
    return " ".join([SINGLE.get(parts[0]) or in_words(parts[0]) or inspect.formatannotation(parts[0]), *bounds])


def title(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def body_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, without decorators; of a class its __init__."""
    body: Callable[..., Any] = inspect.unwrap(function)
    return vars(body).get("__init__", body) if inspect.isclass(body) else body


def source_of(function: Callable[..., Any]) -> str:
    """File and line where a function is defined."""
    body = body_of(function)
    code = getattr(body, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str(getattr(body, "__module__", title(function)))
