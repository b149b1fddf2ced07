"""Registries of detectors and quality methods. Importing this module imports none of them.

A new one is a module that registers a factory with its name and options:

    @dataclass(frozen=True)
    class ToyOptions:
        gain: float = option(1.0, "Factor of the quality.", above=0)

    @register_method("toy", options=ToyOptions)
    def toy(settings: Settings, embedder: Embedder) -> QualityEstimator:
        \"\"\"Toy quality: the brightness of the crop.\"\"\"
        ...

Another package names that module in an entry point: `toy = "package.module"` in the group
`faceqan_toolkit.methods` or `faceqan_toolkit.detectors`. It is imported when the name is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, TypeVar

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.fields import check, check_options, parse_option, suggestion

F = TypeVar("F", bound=Callable[..., Any])


class Named(Protocol):
    """An entry of a registry: its name, and the module that registered it."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def module(self) -> str: ...  # noqa: D102


P = TypeVar("P", bound=Named)


@dataclass(frozen=True)
class NoOptions:
    """No options."""


@dataclass(frozen=True)
class Part:
    """A registered detector or quality method.

    Attributes:
        kind: "detector" or "method".
        name: value of `--detector` or `--method`.
        make: factory or class, see `register_detector` and `register_method`.
        options: frozen dataclass of its own options, see `fields.option`.
        uses: optional settings that it uses; others are refused if they are changed.
        defaults: its defaults of settings whose default is None.
        title: name in tables and figures.
    """

    kind: str
    name: str
    make: Callable[..., Any]
    options: type[Any]
    uses: tuple[str, ...]
    defaults: Mapping[str, Any]
    title: str

    @property
    def module(self) -> str:
        """The module that registered it."""
        return self.make.__module__

    @property
    def fields(self) -> Mapping[str, Field[Any]]:
        """The fields of its options by name."""
        return {item.name: item for item in fields(self.options)}

    def make_options(self, values: Mapping[str, Any]) -> Any:
        """Return its options; SettingsError for an unknown name or an invalid value."""
        for name in values:
            if name not in self.fields:
                known = ", ".join(self.fields) or "none"
                raise SettingsError(
                    f"{self.kind} {self.name} has no option {name}"
                    f"{suggestion(name, self.fields)} (its options: {known})"
                )
        options = self.options(**values)
        check_options(options)
        return options

    def parse(self, pairs: Iterable[str]) -> dict[str, Any]:
        """Return values of its options from texts "NAME=VALUE"; see `make_options` for errors."""
        values: dict[str, Any] = {}
        for pair in pairs:
            name, equals, text = pair.partition("=")
            check(bool(equals), f"{self.kind}-option", pair, "NAME=VALUE")
            name = name.strip().replace("-", "_")
            item = self.fields.get(name)
            values[name] = parse_option(self.options, item, text) if item else text
        self.make_options(values)
        return values


class Entries(Mapping[str, P]):
    """Entries of one kind by name, in the order they were registered.

    Args:
        kind: noun for messages; entry points are in the group "faceqan_toolkit.<kind>s".
        modules: names of modules that register the built-in entries; imported when first needed.
    """

    def __init__(self, kind: str, *modules: str) -> None:
        self.kind = kind
        self._modules = modules
        self._parts: dict[str, P] = {}

    def add(self, part: P) -> None:
        """Add an entry; raise ValueError if another module has registered its name."""
        before = self._parts.get(part.name)
        if before and before.module != part.module:
            raise ValueError(f"{self.kind} {part.name} is registered twice")
        self._parts[part.name] = part

    def find(self, name: str) -> P:
        """Return an entry; SettingsError if it is unknown, or its package cannot be imported."""
        if not isinstance(name, str) or name not in self:
            check(False, self.kind, name, f"one of {', '.join(self)}")
        return self[name]

    @property
    def imported(self) -> tuple[P, ...]:
        """The entries that are imported: the built-in ones, and others that were used."""
        for module in self._modules:
            import_module(module)
        return tuple(self._parts.values())

    def __getitem__(self, name: str) -> P:
        point = self._names()[name]
        if point is not None:
            self._import_offered(point)
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names()  # the one of Mapping would import it

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> dict[str, EntryPoint | None]:
        """Return all names, with the entry point of those that are not imported yet."""
        names: dict[str, EntryPoint | None] = {part.name: None for part in self.imported}
        for name, point in _entry_points(f"faceqan_toolkit.{self.kind}s").items():
            names.setdefault(name, point)
        return names

    def _import_offered(self, point: EntryPoint) -> None:
        what = f"{self.kind} {point.name}"
        try:
            point.load()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise SettingsError(f"{what}: {point.value} cannot be imported: {told}") from error
        if point.name not in self._parts:
            raise SettingsError(f"{what}: importing {point.value} does not register it")


class Registry(Entries[Part]):
    """Detectors or quality methods by name."""

    def register(
        self, name: str, *, options: type[Any] = NoOptions, uses: Iterable[str] = (),
        title: str = "", **defaults: Any,
    ) -> Callable[[F], F]:  # fmt: skip
        """Return a decorator that registers a factory or class, see `Part`."""

        def decorate(make: F) -> F:
            self.add(Part(self.kind, name, make, options, tuple(uses), defaults, title or name))
            return make

        return decorate


@cache
def _entry_points(group: str) -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


DETECTORS = Registry("detector", "faceqan_toolkit.detection")
METHODS = Registry("method", "faceqan_toolkit.quality.registry")


def register_detector(
    name: str, *, min_confidence: float, max_side: int, options: type[Any] = NoOptions,
    uses: Iterable[str] = (),
) -> Callable[[F], F]:  # fmt: skip
    """Return a decorator that registers a face detector.

    The decorated factory or class takes the `Settings` and returns a `detection.base.Detector`.
    Its docstring documents the detector.

    Args:
        name: value of `--detector`.
        min_confidence: its default of that setting, in [0, 1].
        max_side: its default of that setting, pixels; 0 for the photo's own size.
        options: frozen dataclass of its own options, in `settings.detection.options`.
        uses: the settings it uses among those that only some detectors use (`one_based`).
    """
    return DETECTORS.register(
        name, options=options, uses=uses, min_confidence=min_confidence, max_side=max_side
    )


def register_method(
    name: str, *, options: type[Any] = NoOptions, uses: Iterable[str] = (), title: str = ""
) -> Callable[[F], F]:
    """Return a decorator that registers a quality method.

    The decorated factory or class takes the `Settings` and the recognition model (an `Embedder`)
    and returns a `QualityEstimator`. Its docstring documents the method.

    Args:
        name: value of `--method`.
        options: frozen dataclass of its own options, in `settings.quality.options`.
        uses: FaceQAN's settings that it uses as well, for instance "seed".
        title: name in tables and figures; `name` by default.
    """
    return METHODS.register(name, options=options, uses=uses, title=title)
