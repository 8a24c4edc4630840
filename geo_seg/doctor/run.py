"""`python train.py mode=check`: examine a data set without training."""

import sys
from pathlib import Path

from rich.console import Console

from geo_seg.config.training import TrainConfig
from geo_seg.doctor.contact_sheet import check_misregistration, draw_samples, draw_sheet
from geo_seg.doctor.examine import examine
from geo_seg.doctor.findings import add_findings, describe_weaker_warps, suggest_config
from geo_seg.doctor.page import print_report, write_page

PAGE, SHEET = "check.html", "contact_sheet.png"


def check(config: TrainConfig, folder: str | Path) -> None:
    """Examine the data set, print the findings and write check.html and contact_sheet.png.

    Exits with code 1 if there are problems to fix.

    Args:
        config: data set, augmentation and seed.
        folder: the run folder.

    Raises:
        ConfigError: the configuration contradicts itself.
        DataError: no scene can be read.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    report = examine(config.dataset, config.seed, config.augment.border(config.dataset.window))
    add_findings(report)
    report.warnings += describe_weaker_warps(report, config.augment)
    report.suggestions = suggest_config(report, config.loss["name"])
    samples = draw_samples(report)
    check_misregistration(report, samples)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    draw_sheet(report, samples, path / SHEET)
    write_page(report, path / PAGE, samples)
    print_report(report, console)
    console.print(f"page  {path / PAGE}\nsheet {path / SHEET}", markup=False, soft_wrap=True)
    if report.problems:
        sys.exit(1)
