"""Images to learn from and to be measured on: folders of photos, benchmarks, synthetic dead leaves, patches."""

from srcourse.data.dead_leaves import DeadLeaves
from srcourse.data.patches import PatchBank
from srcourse.data.photos import Benchmark, Pair, benchmarks, pairs, photos, samples

__all__ = ["Benchmark", "DeadLeaves", "Pair", "PatchBank", "benchmarks", "pairs", "photos", "samples"]
