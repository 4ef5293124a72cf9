"""The checks behind the exercises: ``exercises.check("02.1", my_psnr)`` says TODO, FAIL with a hint, or PASS."""

from srcourse.exercises.checking import all_exercises, check, progress

__all__ = ["all_exercises", "check", "progress"]
