"""Tests; folders mirror agseg. Their threads wait as the command's do: several processes of them share the processors."""

from agseg.threads import settle_threads

settle_threads()
