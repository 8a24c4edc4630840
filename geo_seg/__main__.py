"""The command geo_seg as `python -m geo_seg`."""

from geo_seg.commands.main import main

if __name__ == "__main__":
    main()
