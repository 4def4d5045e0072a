"""Until 1.0, the former place of what authors of connectors import from `wsbridge.connector`."""

from wsbridge._common.moved import moved

__all__ = []

__getattr__ = moved(
    __name__,
    dict.fromkeys(
        ["MAX_HEAD", "MAX_SIZE", "FrameError", "MessageAssembler", "declared", "size_limit"], "wsbridge.connector"
    ),
)
