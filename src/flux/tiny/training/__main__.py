"""Train flux-tiny from nothing, or go on where an interrupted training stopped.

    python -m flux.tiny.training --work .train --out my-flux-tiny

Stages run in order and each is resumed from its checkpoint in `--work`; `--out` receives the parts as they
finish, in the layout of a FLUX repository, and the model card at the end. `--scale 0.01` shortens every
stage, to try it. The result is used by naming its folder: `--weights my-flux-tiny`.
"""

from pathlib import Path

import fire

from flux.tiny.training import autoencoder, card, dino, flow, judge, text
from flux.tiny.training.export import save_autoencoder, save_flow, save_judge
from flux.tiny.training.steps import STEPS


def main(work: str = ".train", out: str = "flux-tiny", seed: int = 0, scale: float = 1.0) -> None:
    """Run every stage. work: checkpoints and rendered pictures. out: the parts. scale: share of the steps."""
    folder, repo = Path(work), Path(out)
    steps = {name: max(2, round(count * scale)) for name, count in STEPS.items()}

    ae = autoencoder.train(folder, steps["autoencoder"], seed)
    text.train(folder, repo, steps["text"], seed)
    teacher = flow.train(folder, repo, ae, steps["flow"], steps["flow_small"], seed)
    student = flow.distil(folder, repo, ae, teacher, steps["distil"], seed)
    save_flow(student, repo)
    save_judge(judge.train(folder, ae, steps["judge"], seed), repo)
    dino.train(folder, repo, steps["dino"], seed)
    latents = flow.load_examples(flow.WHOLE, folder, ae, seed).latents
    save_autoencoder(autoencoder.polish_decoder(folder, ae, latents, steps["decoder"], seed), repo)
    card.write(folder, repo)


if __name__ == "__main__":
    fire.Fire(main)
