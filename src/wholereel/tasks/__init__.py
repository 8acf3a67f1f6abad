"""What one step computes: tasks with their heads, losses and scores."""

from __future__ import annotations

from wholereel.tasks.classification import ClassificationTask
from wholereel.tasks.create import STREAM_TASKS, TASKS, AnyTask, create_task

__all__ = ["STREAM_TASKS", "TASKS", "AnyTask", "ClassificationTask", "create_task"]
