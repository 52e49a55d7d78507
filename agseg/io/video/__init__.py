"""Ultrasound clips: cine loops, video files and stills, all as a ``FrameSource``; and the video that is written."""
