"""Components: the variants of one kind, such as the objectives, and how each is registered.

A kind is a direct subclass of `Component`. Defining a configuration class below it, with a `name`, registers the
component: YAML can choose it from then on. The code that does the work may need torch, so it lives in another package
and says with `Implementations.implements` which configuration it belongs to. Nothing else lists components by name:
what others must know of one stands as a `ClassVar` on its configuration class.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any, ClassVar, Generic, TypeGuard, TypeVar, Union, cast

from pydantic import Field, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from lethe.config.base import Frozen

T = TypeVar("T")
U = TypeVar("U")


class Component(Frozen):
    """The base of every kind of component. `registered`: the kind's components by name, in the order of definition."""

    registered: ClassVar[dict[str, type[Any]]]

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Register a class that has a `name`. Raises ValueError where another component has that name."""
        super().__pydantic_init_subclass__(**options)
        if is_kind(cls):
            cls.registered = {}
        elif "name" in cls.model_fields:
            name = str(cls.model_fields["name"].default)
            if name in cls.registered:
                raise ValueError(f"{cls.__name__}: the name {name!r} belongs to {cls.registered[name].__name__}")
            cls.registered[name] = cls


def is_kind(annotation: object) -> TypeGuard[type[Component]]:
    """Return whether `annotation` is a kind of component, such as `Objective`, and no single component."""
    return isinstance(annotation, type) and Component in annotation.__bases__


class ByName:
    """Marks a field, `Annotated[KIND, ByName()]`, whose `name` chooses among the components registered by then.

    Errors and dumped values are those of pydantic's discriminated union over these components.
    """

    def __get_pydantic_core_schema__(self, kind: type[Component], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a schema that validates with the union of the components that are registered at that moment."""
        return core_schema.no_info_plain_validator_function(lambda value: _union(kind).validate_python(value))


class AsRegistered:
    """Marks a field, `Annotated[MODEL, AsRegistered()]`, whose model gains fields as components register: values are
    validated with the fields that it has by then."""

    def __get_pydantic_core_schema__(self, model: type[Frozen], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a schema that validates with the model's schema of that moment."""
        return core_schema.no_info_plain_validator_function(lambda value: model.model_validate(value))


_unions: dict[tuple[type[Component], ...], TypeAdapter[Any]] = {}


def _union(kind: type[Component]) -> TypeAdapter[Any]:
    components = tuple(kind.registered.values())
    if components not in _unions:
        union: Any = Union[components]  # noqa: UP007, its members are known at run time only
        _unions[components] = TypeAdapter(Annotated[union, Field(discriminator="name")])
    return _unions[components]


class Implementations(Generic[T]):
    """The implementations of a kind of component: classes or functions of one package, by configuration class."""

    def __init__(self, package: str) -> None:
        """`package`: dotted name of the package (or module) whose modules call `implements` when they are imported."""
        self.package = package
        self._by_config: dict[type[Frozen], T] = {}

    def implements(self, config: type[Frozen]) -> Callable[[U], U]:
        """Decorate the implementation of the component that `config` configures. Raises ValueError for a second one."""

        def register(implementation: U) -> U:
            if config in self._by_config:
                raise ValueError(f"{config.__name__} has an implementation: {self._by_config[config]}")
            # A decorator that asked for T would hide the decorated class from type checkers: U is a T.
            self._by_config[config] = cast(T, implementation)
            return implementation

        return register

    def of(self, config: Frozen | type[Frozen]) -> T:
        """Return the implementation of a component. Raises LookupError where no module of the package has one."""
        model = config if isinstance(config, type) else type(config)
        if model not in self._by_config:
            self.all()
        if model not in self._by_config:
            raise LookupError(f"{model.__name__}: no module of {self.package} implements it")
        return self._by_config[model]

    def all(self) -> Mapping[type[Frozen], T]:
        """Import every module of the package and return all implementations by configuration class."""
        package = import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            import_module(f"{self.package}.{module.name}")
        return self._by_config
