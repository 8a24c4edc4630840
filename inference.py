"""Map rasters with a trained model: python inference.py checkpoint=... input=... output=...

The same as `geo_seg predict ...`.
"""

from geo_seg.commands.main import run_script

# shells complete the words of a script only where they find the text @hydra.main in it
if __name__ == "__main__":
    run_script("predict")
