"""[prepare.params]: keyword-only parameters of documents(), typed by their annotations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field

from core.config import Fraction
from core.data.params import bind
from core.errors import UserError

OFFERED = {"rng": "the rng", "raw_dir": "raw", "dataset_dir": "data", "folder": "here"}


def place_of(key: str) -> str:
    return f"config.toml:7 {key}"


def bound(function: Callable[..., Any], **params: Any) -> Any:
    arguments = bind(function, OFFERED, params, place_of)
    return function(*arguments.args, **arguments.kwargs)


def error_of(function: Callable[..., Any], **params: Any) -> UserError:
    with pytest.raises(UserError) as error:
        bound(function, **params)
    return error.value


def test_positional_parameters_are_offered_by_name() -> None:
    def documents(folder, rng):
        return folder, rng

    assert bound(documents) == ("here", "the rng")
    assert bound(lambda: 3) == 3


def documents(
    rng,
    *,
    alphabet: str = "abc",
    max_letters: int = 3,
    chance: float = 0.5,
    upper: bool = False,
    words: list[str] = [],  # noqa: B006
    span: tuple[int, int] = (1, 2),
    kind: Literal["a", "b"] = "a",
    limit: Optional[int] = None,  # noqa: UP045
    weights: dict[str, float] | None = None,
    free=None,
) -> dict[str, Any]:
    return {key: value for key, value in locals().items() if key != "rng"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alphabet", "xyz"),
        ("max_letters", 5),
        ("chance", 0.25),
        ("upper", True),
        ("words", ["a", "b"]),
        ("kind", "b"),
        ("limit", 3),
        ("weights", {"a": 0.5}),
        ("free", [1, "2"]),
    ],
)
def test_values_of_the_annotated_type_pass(key: str, value: Any) -> None:
    assert bound(documents, **{key: value})[key] == value


def test_toml_lists_become_tuples_and_ints_widen_to_float() -> None:
    assert bound(documents, span=[3, 4])["span"] == (3, 4)
    chance = bound(documents, chance=1)["chance"]
    assert chance == 1.0
    assert isinstance(chance, float)
    assert bound(documents, weights={"a": 1})["weights"] == {"a": 1.0}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_letters", "3", 'prepare.params.max_letters = "3": input should be a valid integer'),
        ("max_letters", 2.0, "prepare.params.max_letters = 2.0: input should be a valid integer"),
        ("max_letters", True, "prepare.params.max_letters = true: input should be a valid integer"),
        ("chance", True, "prepare.params.chance = true: input should be a valid number"),
        ("upper", 1, "prepare.params.upper = 1: input should be a valid boolean"),
        ("alphabet", ["a"], 'prepare.params.alphabet = ["a"]: input should be a valid string'),
        ("words", ["a", 1], 'prepare.params.words = ["a", 1]: [1] input should be a valid string'),
        ("span", [1, 2, 3], "prepare.params.span = [1, 2, 3]: tuple should have at most 2 items"),
        ("kind", "c", "prepare.params.kind = \"c\": input should be 'a' or 'b'"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(key: str, value: Any, message: str) -> None:
    error = error_of(documents, **{key: value})
    assert error.message.startswith(message)
    assert error.place == f"config.toml:7 prepare.params.{key}"
    assert (
        error.remedy == 'Give "a" or "b".'
        if key == "kind"
        else error.remedy.startswith(f"documents() declares {key}: ")
    )


def test_bounds_are_said_in_words() -> None:
    """Python writes such a type as Annotated[float, FieldInfo(annotation=NoneType, ...)]."""

    def documents(rng, *, share: Fraction = 0.0, layers: Annotated[int, Field(ge=1, le=8)] = 1): ...

    assert error_of(documents, share=1.0).remedy == "Give a number from 0 to below 1."
    assert error_of(documents, layers=9).remedy == "Give a whole number from 1 to 8."


def test_an_unknown_key_gets_the_nearest_known_one() -> None:
    error = error_of(documents, alfabet="abc")
    assert error.message == "unknown key 'prepare.params.alfabet'"
    assert error.place == "config.toml:7 prepare.params.alfabet"
    assert error.remedy.startswith("Did you mean 'alphabet'?")


def test_a_key_for_a_function_without_settings() -> None:
    def documents(rng): ...

    assert error_of(documents, size=3).remedy.startswith("documents() has no keyword-only parameters.")


def test_a_parameter_without_default_must_be_given() -> None:
    def documents(rng, *, words: list[str]): ...

    error = error_of(documents)
    assert error.message == "prepare.params.words is missing, and documents() has no default for it"
    assert "[prepare.params]" in error.remedy
    assert error.place == "config.toml:7 prepare.params"


def test_an_unknown_positional_parameter_is_refused() -> None:
    def documents(rng, alphabet="abc"): ...

    error = error_of(documents)
    assert error.message == "documents() has a positional parameter 'alphabet', which is not offered"
    assert error.remedy.startswith("Offered: rng, raw_dir, dataset_dir, folder.")
    assert "test_params.py:" in error.place


def test_an_annotation_that_no_toml_value_fits() -> None:
    class Thing: ...

    def documents(*, thing: Any = None): ...

    documents.__annotations__["thing"] = Thing
    assert "and no value in config.toml can have that type" in error_of(documents, thing=1).message


def test_annotations_of_offered_parameters_are_not_looked_at() -> None:
    def documents(rng: NotImportedHere, *, size: int = 1):  # type: ignore[name-defined]  # noqa: F821
        return size

    assert bound(documents, size=4) == 4


def test_open_ended_settings_take_any_key() -> None:
    assert bound(lambda *, a=1, **others: (a, others), a=2, b=3) == (2, {"b": 3})


@example(2**53 + 1)
@given(
    st.recursive(
        st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        st.lists,
        max_leaves=5,
    )
)
def test_any_value_either_has_the_type_or_is_refused(value: Any) -> None:
    for key in ("alphabet", "max_letters", "chance", "upper", "words"):
        try:
            got = bound(documents, **{key: value})[key]
        except UserError:
            continue
        widened = key == "chance" and type(value) is int  # beyond 2^53 to the nearest float, as float() does
        assert got == (float(value) if widened else value)
        assert type(got) is (float if widened else type(value))
