"""Config: named values of a program, which can be kept from changes."""

from __future__ import annotations

import difflib
import json
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any


class Config:
    """Named values, as attributes and as entries of a dict; ``freeze`` keeps them as they are.

    Raises ValueError for a change of a frozen one, AttributeError for a name that there is not.
    """

    _config: dict[str, Any]
    _frozen: bool

    def __init__(self, **kwargs: Any) -> None:
        object.__setattr__(self, "_config", kwargs)
        object.__setattr__(self, "_frozen", False)

    @property
    def frozen(self) -> bool:
        """Whether it is kept from changes."""
        return self._frozen

    def freeze(self) -> None:
        """From now on it cannot be changed."""
        object.__setattr__(self, "_frozen", True)

    def unfreeze(self) -> None:
        """It can be changed again."""
        object.__setattr__(self, "_frozen", False)

    def _check(self) -> dict[str, Any]:
        if self._frozen:
            raise ValueError("Cannot mutate attribute(s) because the config is frozen.")
        return self._config

    # As a dict

    def as_dict(self) -> dict[str, Any]:
        """A dict of the values."""
        return dict(self._config)

    def to_json(self) -> str:
        """The values as JSON."""
        return json.dumps(self._config)

    def keys(self) -> KeysView[str]:
        return self._config.keys()

    def values(self) -> ValuesView[Any]:
        return self._config.values()

    def items(self) -> ItemsView[str, Any]:
        return self._config.items()

    def get(self, keyname: str, value: Any = None) -> Any:
        return self._config.get(keyname, value)

    def pop(self, *args: Any) -> Any:
        return self._check().pop(*args)

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._check().update(*args, **kwargs)

    def __getitem__(self, key: str) -> Any:
        return self._config[key]

    def __setitem__(self, key: str, item: Any) -> None:
        self._check()[key] = item

    def __delitem__(self, key: str) -> None:
        del self._check()[key]

    def __len__(self) -> int:
        return len(self._config)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._config))

    def __contains__(self, item: object) -> bool:
        return item in self._config

    def __repr__(self) -> str:
        return f"<Config {self._config}>"

    # As attributes

    def __setattr__(self, name: str, value: Any) -> None:
        self._check()[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._config:
            return self._config[name]
        near = difflib.get_close_matches(name, self._config, 1, 0.7)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise AttributeError(f"Unknown attribute: '{name}'.{hint}")
