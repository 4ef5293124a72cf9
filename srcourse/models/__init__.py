"""The networks of the course, by name; weights in and out."""

from srcourse.models.registry import available, count_parameters, create, register
from srcourse.models.score_predictor import mean_score
from srcourse.models.weights import card, load, save, shipped

__all__ = ["available", "card", "count_parameters", "create", "load", "mean_score", "register", "save", "shipped"]
