"""Train a model: python train.py dataset=... model=... loss=...; the same as `geo_seg train ...`."""

from geo_seg.commands.main import run_script

# shells complete the words of a script only where they find the text @hydra.main in it
if __name__ == "__main__":
    run_script("train")
