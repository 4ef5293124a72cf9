"""Training: recipes (one YAML file per experiment), the engine that all methods share, and one file per method."""

from srcourse.training.engine import TrainingError
from srcourse.training.estimate import Estimate, estimate
from srcourse.training.loading import load_recipe, recipes
from srcourse.training.recipe import Recipe
from srcourse.training.run import Run, train

__all__ = ["Estimate", "Recipe", "Run", "TrainingError", "estimate", "load_recipe", "recipes", "train"]
