"""`python train.py mode=check`: looks at a data set without training."""

import sys
from pathlib import Path

from rich.console import Console

from geo_seg.config.training import TrainConfig
from geo_seg.doctor.contact_sheet import draw_samples, draw_sheet, judge_shift
from geo_seg.doctor.examine import examine
from geo_seg.doctor.findings import judge, suggestions
from geo_seg.doctor.page import show, write_page

PAGE, SHEET = "check.html", "contact_sheet.png"


def check(config: TrainConfig, folder: str | Path) -> None:
    """Examines the data set, prints what was found and writes check.html and contact_sheet.png.

    Ends the process with exit code 1 where there is something to mend.

    Args:
        config: its data set and seed.
        folder: the run folder.

    Raises:
        ConfigError: the configuration contradicts itself.
        DataError: there is no scene to look at.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    found = examine(config.dataset, config.seed, config.augment.margin(config.dataset.window))
    judge(found)
    found.suggestions = suggestions(found, config.loss["name"])
    samples = draw_samples(found)
    judge_shift(found, samples)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    draw_sheet(found, samples, path / SHEET)
    write_page(found, path / PAGE, samples)
    show(found, console)
    console.print(f"page  {path / PAGE}\nsheet {path / SHEET}", markup=False, soft_wrap=True)
    if found.problems:
        sys.exit(1)
