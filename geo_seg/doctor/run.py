"""`python train.py mode=check`: looks at a data set without training."""

import sys
from pathlib import Path

from rich.console import Console

from geo_seg.config.training import TrainConfig
from geo_seg.doctor.contact_sheet import check_misregistration, draw_samples, draw_sheet
from geo_seg.doctor.examine import examine
from geo_seg.doctor.findings import add_findings, suggest_config
from geo_seg.doctor.page import print_report, write_page

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
    found = examine(config.dataset, config.seed, config.augment.border(config.dataset.window))
    add_findings(found)
    found.suggestions = suggest_config(found, config.loss["name"])
    samples = draw_samples(found)
    check_misregistration(found, samples)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    draw_sheet(found, samples, path / SHEET)
    write_page(found, path / PAGE, samples)
    print_report(found, console)
    console.print(f"page  {path / PAGE}\nsheet {path / SHEET}", markup=False, soft_wrap=True)
    if found.problems:
        sys.exit(1)
