"""Prompts of flux-tiny's world for an ablation sweep, drawn by a fixed seed.

python -m flux.tiny.prompts > json/prompt-tiny.json
"""

import json

import numpy as np

from flux.tiny.captions import plain_caption
from flux.tiny.scenes import sample_scene


def draw_prompts(count: int = 64, seed: int = 64) -> list[dict[str, str | int]]:
    """`count` unlike prompts, each with the seed of its noise, as a sweep's spec takes them."""
    rng = np.random.default_rng((seed, 7))
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[plain_caption(sample_scene(rng))] = None
    return [{"prompt": text, "seed": i} for i, text in enumerate(texts)]


def as_file(prompts: list[dict[str, str | int]]) -> str:
    """JSON with a line for each prompt."""
    lines = ",\n".join(f"    {json.dumps(prompt)}" for prompt in prompts)
    return f'{{\n  "prompts": [\n{lines}\n  ]\n}}\n'


if __name__ == "__main__":
    print(as_file(draw_prompts()), end="")
