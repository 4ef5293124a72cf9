"""Going on with a run: whether what is here now is what it was trained with."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from srcourse.training.loading import parse

# What may differ between a run and its continuation: how long it goes, and what is only watched.
_FREE_TO_CHANGE = {"steps", "minutes", "log_every", "validate_every", "checkpoint_every", "patience", "keep", "title", "device"}


def image_fingerprint(image: torch.Tensor) -> str:
    """Eight letters that change with any of an image's values."""
    return hashlib.sha256(image.contiguous().cpu().numpy()).hexdigest()[:8]


def refuse_another_run(out: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """``ValueError`` that names the first difference, if a checkpoint's state is not of the same recipe, photos and judges.

    Both hold "recipe", "data" (the patches' fingerprint), "photos" and "validation" ([name, fingerprint] of each) and "judges"; `then`
    lacks what an older version did not write.
    """
    recipe = now["recipe"]
    try:  # a recipe of an older version lacks fields: they had their defaults
        former = parse(then["recipe"]).model_dump(mode="json")
    except ValueError as error:
        if str(error).startswith("a recipe has no key"):
            raise ValueError(f"{out} was trained by another version of srcourse ({error}): choose another folder") from None
        former = then["recipe"]
    changed = next((key for key in recipe if key not in _FREE_TO_CHANGE and recipe[key] != former.get(key)), None)
    if changed is not None:
        difference = _difference(changed, former.get(changed), recipe[changed])
        raise ValueError(f"{out} was trained with another recipe ({difference}): choose another folder")
    if then["data"] != now["data"] or then.get("validation", now["validation"]) != now["validation"]:
        before = then.get("photos", []) + then.get("validation", [])
        which = f" ({_changed(before, now['photos'] + now['validation'])})" * bool(before)
        raise ValueError(f"{out} was trained on other photos than these{which}: resume with the same ones, or choose another folder")
    if then.get("judges", now["judges"]) != now["judges"]:
        raise ValueError(f"{out} was trained with another judge or feature network: put that one back, or choose another folder")


def _changed(before: list[list[str]], photos: list[list[str]]) -> str:
    """Which of the photos, [name, fingerprint] each, is not as before."""
    names, now = ([name for name, _ in some] for some in (before, photos))
    for some, others, how in ((names, now, "is missing"), (now, names, "is new")):
        for name in some:
            if name not in others:
                return f"{name} {how}"
    return next((f"{a[0]} changed" for a, b in zip(before, photos, strict=False) if a != b), "their number or order changed")


def _difference(key: str, then: Any, now: Any) -> str:
    """The first field that differs, in words: "loss_weights.adversarial was 0.1, now 0.2"."""
    if isinstance(then, dict) and isinstance(now, dict):
        inner = next(name for name in {**then, **now} if then.get(name) != now.get(name))
        return _difference(f"{key}.{inner}", then.get(inner), now.get(inner))
    return f"{key} was {then}, now {now}"
