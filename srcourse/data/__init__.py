"""Images to learn from and to be measured on: folders of photos, benchmarks, synthetic dead leaves, patches."""

from srcourse.data.dead_leaves import DeadLeaves
from srcourse.data.patches import PatchBank
from srcourse.data.photos import (
    TEST_SAMPLES,
    TRAINING_SAMPLES,
    Benchmark,
    Pair,
    Photos,
    benchmarks,
    pairs,
    photos,
    samples,
    training_samples,
)
from srcourse.data.prepared import PreparedPhotos, is_prepared, prepare, prepared
from srcourse.data.ratings import Rating, Ratings, ava, distort, ratings, score_distribution, synthetic_ratings, tid2013

__all__ = [
    "TEST_SAMPLES",
    "TRAINING_SAMPLES",
    "Benchmark",
    "DeadLeaves",
    "Pair",
    "PatchBank",
    "Photos",
    "PreparedPhotos",
    "Rating",
    "Ratings",
    "ava",
    "benchmarks",
    "distort",
    "is_prepared",
    "pairs",
    "photos",
    "prepare",
    "prepared",
    "ratings",
    "samples",
    "score_distribution",
    "synthetic_ratings",
    "tid2013",
    "training_samples",
]
