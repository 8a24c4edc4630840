"""The command geo_seg: its subcommands, and what train.py and inference.py run."""
