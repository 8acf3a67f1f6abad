"""The two memories: collaborative (all clips of a video, in any order) and cached (causal)."""

from wholereel.memory.collaborative import CollaborativeMemory
from wholereel.memory.state import CollaborativeState, MaxState, TokenState, VideoState

__all__ = ["CollaborativeMemory", "CollaborativeState", "MaxState", "TokenState", "VideoState"]
