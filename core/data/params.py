"""Bind [prepare.params] and the offered values to the parameters of a function of prepare.py."""

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


def wants(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a positional parameter of this name."""
    parameter = inspect.signature(function).parameters.get(name)
    return parameter is not None and parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def bind(
    function: Callable[..., Any], offered: Mapping[str, Any], params: Mapping[str, Any], place_of: PlaceOf
) -> inspect.BoundArguments:
    """The arguments of a function: positional parameters from `offered`, by name; keyword-only ones from `params`, checked.

    place_of(key): the file and line of a dotted config key, or "". Raises UserError for a positional parameter
    that is not offered, an unknown or missing key, and a value that does not match the annotation.
    """
    signature = inspect.signature(function)
    of_kind = {kind: [p for p in signature.parameters.values() if p.kind is kind] for kind in inspect._ParameterKind}
    settings = of_kind[inspect.Parameter.KEYWORD_ONLY]
    names = [parameter.name for parameter in settings]
    positional = of_kind[inspect.Parameter.POSITIONAL_ONLY] + of_kind[inspect.Parameter.POSITIONAL_OR_KEYWORD]
    for parameter in positional:
        if parameter.name not in offered:
            raise UserError(
                f"{title(function)} has a positional parameter '{parameter.name}', which is not offered",
                place=source_of(function),
                remedy=f"Offered: {', '.join(offered)}. Put a setting of your own after a *: "
                f"def {function.__name__}({next(iter(offered))}, *, {parameter.name}).",
            )
    for name in params:
        if name not in names and not of_kind[inspect.Parameter.VAR_KEYWORD]:
            key = f"{SECTION}.{name}"
            advice = did_you_mean(name, names) or f"{title(function)} has no keyword-only parameters."
            raise UserError(
                f"unknown key '{key}'",
                place=place_of(key) or key,
                remedy=f"{advice} The keys are the parameters after * of {title(function)} in prepare.py.",
            )
    for parameter in settings:
        if parameter.default is parameter.empty and parameter.name not in params:
            raise UserError(
                f"{SECTION}.{parameter.name} is missing, and {title(function)} has no default for it",
                place=place_of(SECTION) or source_of(function),
                remedy=f"Set it under [{SECTION}] in config.toml, or give the parameter a default.",
            )
    types = annotated(function, names)
    values = {name: checked(function, name, value, types.get(name, Any), place_of) for name, value in params.items()}
    return signature.bind(*(offered[parameter.name] for parameter in positional), **values)


def annotated(function: Callable[..., Any], names: list[str]) -> dict[str, Any]:
    """Types of some parameters. The others are not evaluated: they may name what only a type checker imports."""
    written = {name: note for name, note in inspect.get_annotations(function).items() if name in names}
    hints: dict[str, Any] = typing.get_type_hints(
        SimpleNamespace(__annotations__=written), getattr(function, "__globals__", {}), include_extras=True
    )
    return hints


def checked(function: Callable[..., Any], name: str, value: Any, annotation: Any, place_of: PlaceOf) -> Any:
    """A value of the annotated type. int widens to float, a list becomes a tuple or set; nothing else is converted."""
    key = f"{SECTION}.{name}"
    wanted = inspect.formatannotation(annotation)
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
            remedy=f"{title(function)} declares {name}: {wanted}.",
        ) from None
    except (PydanticSchemaGenerationError, PydanticUserError):
        raise UserError(
            f"{title(function)} declares {name}: {wanted}, and no value in config.toml can have that type",
            place=source_of(function),
            remedy="A setting may be int, float, str, bool, list, tuple, dict, Literal or Optional of these.",
        ) from None


def title(function: Callable[..., Any]) -> str:
    return f"{function.__name__}()"


def source_of(function: Callable[..., Any]) -> str:
    """File and line where a function is defined."""
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
