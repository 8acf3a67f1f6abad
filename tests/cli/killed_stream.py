"""`wholereel` that is killed by its N-th clip: `python killed_stream.py N WORD...`. No handler, no cleaning up."""

from __future__ import annotations

import os
import signal
import sys

from wholereel.cli.main import main
from wholereel.inference.stream_track import Engine

if __name__ == "__main__":
    limit, calls = int(sys.argv[1]), []
    judge_clips = Engine.judge_clips

    def dying(self, tracks, clips):
        calls.append(len(clips))
        if len(calls) == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return judge_clips(self, tracks, clips)

    Engine.judge_clips = dying
    main(sys.argv[2:])
