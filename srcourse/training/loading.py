"""Recipes from YAML files and changes on the command line; what is wrong in them is told in one line."""

import os
import reprlib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from srcourse.training.recipe import Recipe


def recipes() -> dict[str, str]:
    """The recipes that ship with the course: name → title."""
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["title"] for path in sorted(_folder().glob("*.yaml"))}


def recipe_text(name: str) -> str:
    """The YAML of a recipe that ships with the course, comments included: to change in a file of one's own.

    ``FileNotFoundError`` for an unknown name.
    """
    if name not in recipes():
        raise FileNotFoundError(f"there is no recipe {name!r}: expected one of {', '.join(recipes())}")
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(name: str | os.PathLike, *, overrides: list[str] | None = None, **fields: Any) -> Recipe:
    """Load a recipe, with changes.

    Parameters
    ----------
    name : str or path
        One of `recipes()`, a YAML file, or a run's folder, whose recipe it was trained with.
    overrides : list of "key=value"
        Dotted keys, values in YAML: ``["model.blocks=4", "data.batch=8"]``. Another ``model.name`` forgets the recipe's
        options of its network.
    **fields
        Fields of `Recipe` by name: ``scale=2, steps=200``; a dict changes the part's keys that it names.

    Returns
    -------
    Recipe
        With the file's patch cut to a multiple of the scale.

    Raises
    ------
    FileNotFoundError
        For an unknown recipe.
    ValueError
        For a key that does not exist or a value that does not fit, in one line that names it.

    Examples
    --------
    >>> load_recipe("srresnet", scale=2, steps=200, overrides=["model.blocks=4"]).model.options
    {'blocks': 4}
    """
    path = Path(name)
    if (path / "recipe.json").is_file():
        path = path / "recipe.json"
    elif path.suffix not in (".yaml", ".yml", ".json"):  # JSON is YAML, too
        path = _folder() / f"{name}.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"there is no recipe {str(name)!r}: expected one of {', '.join(recipes())}, a .yaml file or a run's folder")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no recipe: expected keys and values such as 'model:' and 'steps:'")
    values.setdefault("name", path.stem)
    data = values.get("data")
    patch, own_scale = data.get("patch") if isinstance(data, dict) else None, values.get("scale")
    for key, value in fields.items():
        _merge(values, {key: value})
    # names first: another network forgets the recipe's options, not those that are set beside it
    for text in sorted(overrides or [], key=lambda text: not text.partition("=")[0].strip().endswith(".name")):
        key, separator, value = text.partition("=")
        if key.strip() in fields:
            raise ValueError(f"{key.strip()} is given twice: as --{key.strip()} and as --set {text}")
        if not separator or not key.strip():
            raise ValueError(f"cannot read the override {text!r}: expected key=value, such as model.blocks=4")
        try:
            nested = yaml.load(value, _EachKeyOnce)
        except yaml.constructor.ConstructorError as error:
            raise ValueError(f"cannot read the value in {text!r}: {error.problem}") from None
        except yaml.YAMLError:
            raise ValueError(f"cannot read the value in {text!r}: expected a number, a word, true, false or null") from None
        if isinstance(nested, str):
            nested = _number(nested)
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _merge(values, nested)
    scale = values.get("scale")
    if isinstance(scale, int) and scale > 0 and isinstance(patch, int) and values["data"] is data and data.get("patch") == patch:
        if values.get("method") == "multi-scale" and isinstance(own_scale, int) and own_scale > 0:
            patch = patch // own_scale * scale  # LR patches stay as large as the file has them
        data["patch"] = patch - patch % scale  # the file's own patch: P000's 128 is 126 at ×3
    return parse(values)


class _EachKeyOnce(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: else the first value would be dropped without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As PyYAML does it, once the keys were looked at."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values; ``ValueError`` in one line for the first key or value that is wrong."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key says more than the one it stands for
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            part = type(Recipe.model_construct())
            for step in first["loc"][:-1]:
                part = part.model_fields[str(step)].annotation
            raise ValueError(f"a recipe has no key {key!r}: expected one of {', '.join(part.model_fields)}") from None
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] in ("model_type", "dict_type"):
            problem = "expected keys and values, as in {name: srresnet}"
        raise ValueError(f"recipe: {key}: {problem}, got {reprlib.repr(first['input'])}" if key else f"recipe: {problem}") from None


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        before = values.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if value.get("name", before.get("name")) != before.get("name"):
                before.clear()  # another network: the options were the former one's
            _merge(values[key], value)
        else:
            values[key] = value


def _number(text: str) -> Any:
    """YAML takes 1e-4 for a word; a person means a number."""
    try:
        return float(text)
    except ValueError:
        return text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _folder() -> Path:
    return Path(str(resources.files("srcourse"))) / "recipes"
