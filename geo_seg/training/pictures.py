"""Predictions beside images and labels, for the report."""

from pathlib import Path

import numpy as np
import torch

from geo_seg.data.datamodule import SceneDataModule
from geo_seg.report import Picture, draw_picture
from geo_seg.tiling import Window
from geo_seg.training.module import SegmentationModule

_SIDE = 768  # pixels of a picture: a forward pass that any machine can hold
_MOST = 6  # pictures in a report


def picture_scenes(
    module: SegmentationModule, data: SceneDataModule, split: str, folder: Path
) -> list[Picture]:
    """Predicts the middle of some scenes or of their first parts; draws image, label, prediction, errors.

    Args:
        module: trained.
        data: where the scenes are.
        split: "val" or "test".
        folder: where the PNGs go.

    Returns:
        A picture per scene, evenly chosen among the scenes of the split.
    """
    scenes = data.scenes[split]
    reader = data.reader(split)
    chosen = np.unique(np.linspace(0, len(scenes) - 1, min(_MOST, len(scenes))).round().astype(int))
    folder.mkdir(parents=True, exist_ok=True)
    module.eval()
    drawn = []
    for index in chosen.tolist():
        header = scenes[index].image
        whole = Window(0, 0, header.height, header.width)
        area = scenes[index].parts[0] if scenes[index].parts else whole
        height, width = min(area.height, _SIDE), min(area.width, _SIDE)
        top, left = area.row + (area.height - height) // 2, area.col + (area.width - width) // 2
        window = Window(top, left, height, width)
        image, labels, valid = reader.read((index, window))
        with torch.inference_mode():
            logits = module(
                torch.from_numpy(image).unsqueeze(0).to(module.device),
                torch.from_numpy(valid).unsqueeze(0).to(module.device),
            )
        predicted = module.task.decode(logits)[0].cpu().numpy()
        file = folder / f"{split}_{index + 1}.png"
        draw_picture(file, image, labels, predicted, valid, module.facts, scenes[index].name)
        drawn.append(Picture(scenes[index].name, file))
    return drawn
