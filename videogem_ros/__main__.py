"""``python -m videogem_ros`` is ``videogem-ros``."""

from videogem_ros.cli import main

if __name__ == "__main__":
    main(prog_name="videogem-ros")
