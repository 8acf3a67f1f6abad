"""What one step computes: tasks with their heads, losses and scores."""

from __future__ import annotations

from wholereel.tasks.classification import ClassificationTask
from wholereel.tasks.detection import DetectionTask

__all__ = ["TASKS"]

TASKS: dict[str, type[ClassificationTask] | type[DetectionTask]] = {
    "classify": ClassificationTask,
    "detect": DetectionTask,
}
