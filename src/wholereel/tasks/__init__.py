"""What one step computes: tasks with their heads, losses and scores."""

from __future__ import annotations

from wholereel.tasks.classification import ClassificationTask

__all__ = ["TASKS"]

TASKS: dict[str, type[ClassificationTask]] = {
    "classify": ClassificationTask,
}
