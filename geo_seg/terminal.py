"""What is shown to whoever watches."""

import os

from rich.console import Console


def shows_bars(console: Console) -> bool:
    """Whether progress bars have somebody to look at them: a terminal, and not CI."""
    return console.is_terminal and os.environ.get("CI", "").lower() not in {"true", "1"}
