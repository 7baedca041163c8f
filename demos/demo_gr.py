"""A page to make and edit pictures on, in a browser: everything on it is a spec that the other demos take.

    python demos/demo_gr.py --name flux-tiny --device cpu
    python demos/demo_gr.py --name flux-dev --weights /path/to/FLUX.1-dev --offload
    python demos/demo_gr.py --host 0.0.0.0 --user anna:secret     for others too, who log in

options:
  --name NAME             the model; flux-tiny
  --device, --dtype       where it runs, and in which precision; auto
  --weights FOLDER        all its weights, such as a clone of FLUX.1-dev
  --offload               keep on the device only the part that is at work
  --host, --port          where the page is; 127.0.0.1 and the first free port from 7860 on
  --share                 a public address by Gradio's tunnel; needs --user
  --user NAME:PASSWORD    who may come in
  --output FOLDER         runs go into its folder page; output
  --most_pixels, --most_steps, --most_pictures     of one job; for others' jobs 1600000, 50 and 16
  --most_upload           MiB of a file; 32
  --track_usage           upstream's; nothing is tracked
  --dry_run               say what would be opened, and open nothing
"""

import sys

from flux.entry import Console


def main(argv: list[str] | tuple[str, ...] = ()) -> int:
    from flux.app.page import open_page

    return open_page(__doc__, argv)


if __name__ == "__main__":
    with Console():
        sys.exit(main(sys.argv[1:]))
