"""The kit as pytest classes, one test for every check. pytest itself is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cxrx.specs import ExplainerSpec, ModelSpec
from cxrx.testing import explainers, models
from cxrx.testing.outcome import Outcome
from cxrx.testing.placement import PLACEMENT

if TYPE_CHECKING:
    from cxrx.models.model import Model


class ExplainerConformance:
    """Subclass it in a test module (``class TestMine(ExplainerConformance)``) and set `name` or `spec`.

    Attributes
    ----------
    name
        Of a registered explainer.
    spec
        The explainer itself, in place of a name.
    options
        Values that replace defaults of its options, e.g. fewer steps.
    """

    name: ClassVar[str] = ""
    spec: ClassVar[ExplainerSpec | None] = None
    options: ClassVar[Mapping[str, Any]] = {}

    def model(self) -> Model | None:
        """Return the model to try it on; None: tiny networks of the kit."""
        return None

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Make one test of every check."""
        if "check" in metafunc.fixturenames:
            metafunc.parametrize("check", [explainers.DECLARATION, *explainers.CHECKS, *PLACEMENT])

    def test_contract(self, check: str) -> None:
        """The explainer keeps this part of the contract."""
        spec = self.spec if self.spec is not None else _registered("explainers", self.name)
        _assert_passed(explainers.check_explainer(spec, self.model(), self.options, only=[check]))


class ModelConformance:
    """Subclass it in a test module (``class TestMine(ModelConformance)``) and set `name` or `spec`.

    Attributes
    ----------
    name
        Of a registered model.
    spec
        The model's spec itself, in place of a name.
    """

    name: ClassVar[str] = ""
    spec: ClassVar[ModelSpec | None] = None

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Make one test of every check."""
        if "check" in metafunc.fixturenames:
            metafunc.parametrize("check", [models.DECLARATION, "build", *models.CHECKS])

    def test_contract(self, check: str) -> None:
        """The model keeps this part of the contract."""
        spec = self.spec if self.spec is not None else _registered("models", self.name)
        _assert_passed(models.check_model(spec, only=[check]))


def _registered(kind: str, name: str) -> Any:
    from cxrx.registry import load

    return getattr(load(), kind).find(name)


def _assert_passed(outcomes: list[Outcome]) -> None:
    failed = [f"{outcome.subject}: {outcome.check}: {outcome.message}" for outcome in outcomes if not outcome.passed]
    if failed or not outcomes:
        raise AssertionError("\n".join(failed) or "nothing was checked")
