"""The two memories: collaborative (all clips of a video, in any order) and cached (causal)."""

from wholereel.memory.cached import Attended, CachedState, cache_step
from wholereel.memory.collaborative import CollaborativeMemory
from wholereel.memory.state import CollaborativeState, MaxState, TokenState, VideoState

__all__ = [
    "CollaborativeMemory",
    "VideoState",
    "CollaborativeState",
    "MaxState",
    "TokenState",
    "CachedState",
    "Attended",
    "cache_step",
]
