"""When each frame of a video is shown, also where its container does not say.

Decoders give frames in the order in which they are shown. Packets come in the order in which they are decoded, and AVI knows
times in that order only; what FFmpeg makes of them jumps back and forth where there are B-frames. But every packet becomes one
frame, so the times of the packets, sorted, are those of the frames.
"""

from __future__ import annotations

import heapq


class Clock:
    """Gives frames their times (seconds), which always increase.

    Parameters
    ----------
    frames_per_second
        Mean rate, for what has no time at all; None if it is not known.
    trusted
        Whether the times of decoded frames are those at which they are shown (mp4, Matroska), or only those of packets in
        order of decoding (AVI, bare streams).
    """

    def __init__(self, frames_per_second: float | None, *, trusted: bool) -> None:
        self._step_s = 1 / frames_per_second if frames_per_second and frames_per_second > 0 else None
        self._trusted = trusted
        self._waiting: list[float] = []
        self._last: float | None = None
        self.guessed = 0
        """Frames whose time the stream did not give."""

    def packet(self, time_s: float | None) -> None:
        """Note the time of a packet that holds a picture, before it is decoded."""
        if time_s is not None:
            heapq.heappush(self._waiting, time_s)

    def frame(self, time_s: float | None) -> float | None:
        """The time of the next frame, which says ``time_s`` of itself; None only where nothing is known."""
        earliest = heapq.heappop(self._waiting) if self._waiting else None
        candidates = (time_s, earliest) if self._trusted else (earliest, time_s)
        time = next((candidate for candidate in candidates if self._is_later(candidate)), None)
        if time is None:
            self.guessed += 1
            if self._step_s is None:
                return None
            time = 0.0 if self._last is None else self._last + self._step_s
        self._last = time
        return time

    def _is_later(self, time_s: float | None) -> bool:
        return time_s is not None and (self._last is None or time_s > self._last)
