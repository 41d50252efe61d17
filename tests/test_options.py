from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrx.errors import UsageError
from cxrx.explainers.specs import BUILTIN_EXPLAINERS
from cxrx.export.specs import PngOptions
from cxrx.options import describe_options, options_dict, parse_options
from cxrx.specs import ExplainerSpec
from cxrx.training.pretrain import PretrainOptions
from cxrx.training.recipes import Recipe

SPECS = {spec.name: spec for spec in BUILTIN_EXPLAINERS}


@dataclass(frozen=True)
class Options:
    steps: int = 50
    sigma: float = 0.1
    flip: bool = False
    name: str = "x"
    rule: Literal["mean", "max"] = "mean"
    areas: tuple[float, ...] = (0.1,)
    words: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


SPEC = ExplainerSpec("mine", build=lambda _: None, options=Options)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, Options()),
        ({"steps": "200"}, Options(steps=200)),
        ({"steps": 200}, Options(steps=200)),
        ({"steps": "999999"}, Options(steps=999_999)),
        ({"sigma": "1e-2"}, Options(sigma=0.01)),
        ({"sigma": 2}, Options(sigma=2.0)),
        ({"flip": "yes"}, Options(flip=True)),
        ({"flip": "False"}, Options(flip=False)),
        ({"flip": True}, Options(flip=True)),
        ({"name": "a b"}, Options(name="a b")),
        ({"rule": "max"}, Options(rule="max")),
        ({"areas": "0.05,0.1"}, Options(areas=(0.05, 0.1))),
        ({"areas": "0.05 0.1"}, Options(areas=(0.05, 0.1))),
        ({"areas": [0.05, 0.1]}, Options(areas=(0.05, 0.1))),
        ({"areas": 0.2}, Options(areas=(0.2,))),
        ({"words": "a b, c,"}, Options(words=("a b", "c"))),
        ({"words": ["a, b"]}, Options(words=("a, b",))),
        ({"seed": "none"}, Options()),
        ({"seed": "3"}, Options(seed=3)),
        ({"seed": None}, Options()),
    ],
)
def test_values_get_the_type_of_their_field(given_, expected):
    parsed = parse_options(SPEC.options, given_, SPEC.name)
    assert parsed == expected
    assert [type(value) for value in options_dict(parsed).values()] == [
        type(value) for value in options_dict(expected).values()
    ]


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"stepz": "1"}, "mine has no option 'stepz'; it has steps, sigma"),
        ({"steps": "2.5"}, "mine: steps must be a whole number, not '2.5'"),
        ({"steps": 2.0}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"steps": "many"}, "whole number"),
        ({"steps": "0"}, "mine: steps must be at least 1"),
        ({"sigma": "wide"}, "a number"),
        ({"sigma": "nan"}, "a number"),
        ({"sigma": True}, "a number"),
        ({"flip": "perhaps"}, "true or false"),
        ({"flip": 2}, "true or false"),
        ({"name": 3}, "text"),
        ({"rule": "median"}, "mean | max"),
        ({"areas": "a,b"}, "areas must be a number"),
        ({"seed": "x"}, "whole number"),
    ],
)
def test_what_does_not_fit_is_told(given_, sentence):
    with pytest.raises(UsageError) as caught:
        parse_options(SPEC.options, given_, SPEC.name)
    assert sentence in str(caught.value)


def test_the_nearest_option_is_told():
    with pytest.raises(UsageError) as caught:
        parse_options(SPEC.options, {"stepz": 1}, SPEC.name)
    assert caught.value.hint == "did you mean steps?"


def test_a_method_without_options_says_so():
    with pytest.raises(UsageError, match="saliency has no options"):
        parse_options(SPECS["saliency"].options, {"n": 3}, SPECS["saliency"].name)


def test_a_preset_gives_its_values_and_is_overridden_by_given_ones():
    spec = SPECS["extremal"]
    published = parse_options(spec.options, {"preset": "published"}, spec.name)
    assert (published.steps, published.area_on, published.stop) == (800, "padded", False)
    mixed = parse_options(spec.options, {"preset": "published", "steps": "400"}, spec.name)
    assert (mixed.steps, mixed.area_on, mixed.preset) == (400, "padded", "published")
    assert parse_options(spec.options, {}, spec.name) == spec.options()
    with pytest.raises(UsageError, match=r"fast \| published"):
        parse_options(spec.options, {"preset": "quick"}, spec.name)


@pytest.mark.parametrize("spec", BUILTIN_EXPLAINERS, ids=lambda spec: spec.name)
def test_options_survive_json_and_text(spec):
    plain = json.loads(json.dumps(options_dict(spec.options())))
    assert parse_options(spec.options, plain, spec.name) == spec.options()
    as_text = {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in plain.items()
    }
    assert parse_options(spec.options, as_text, spec.name) == spec.options()
    assert [name for name, _, _ in describe_options(spec.options)] == list(plain)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 1_000_000))
def test_numbers_survive_text(sigma, steps):
    parsed = parse_options(SPEC.options, {"sigma": repr(sigma), "steps": repr(steps)}, SPEC.name)
    assert (parsed.sigma, parsed.steps) == (sigma, steps)


@pytest.mark.parametrize("kind", [*(spec.options for spec in BUILTIN_EXPLAINERS), Recipe, PretrainOptions, PngOptions])
def test_no_whole_number_is_without_bounds(kind):
    for name, words, _ in describe_options(kind):
        for value in ("99999999999", "9" * 30, f"-{'9' * 30}") if words.startswith("a whole number") else ():
            if name.endswith("seed") and value == "99999999999":
                assert getattr(parse_options(kind, {name: value}), name) == 99999999999
                continue
            with pytest.raises(UsageError, match=r"must lie between|must be"):
                parse_options(kind, {name: value})
