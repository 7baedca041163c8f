"""A script as people write it for upstream's package, whose arguments are a prompt and a folder.

It knows of no names but upstream's.
"""

import os
import sys

import torch

from flux.sampling import denoise, get_noise, get_schedule, prepare, unpack
from flux.util import configs, load_ae, load_clip, load_flow_model, load_t5, save_image

NAME = "flux-dev"
WIDTH, HEIGHT, STEPS, GUIDANCE, SEED = 128, 128, 8, 3.5, 1


@torch.inference_mode()
def main(prompt: str, folder: str) -> None:
    if NAME not in configs:
        raise ValueError(f"no such model: {NAME}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    os.makedirs(folder, exist_ok=True)

    t5 = load_t5(device, max_length=512)
    clip = load_clip(device)
    model = load_flow_model(NAME, device=device)
    ae = load_ae(NAME, device=device)

    noise = get_noise(1, HEIGHT, WIDTH, device=device, dtype=torch.bfloat16, seed=SEED)
    inputs = prepare(t5, clip, noise, prompt=prompt)
    timesteps = get_schedule(STEPS, inputs["img"].shape[1], shift=NAME != "flux-schnell")
    tokens = denoise(model, **inputs, timesteps=timesteps, guidance=GUIDANCE)
    latent = unpack(tokens.float(), HEIGHT, WIDTH)
    with torch.autocast(device_type=device.type, dtype=torch.bfloat16):
        picture = ae.decode(latent)
    save_image(None, NAME, os.path.join(folder, "img_{idx}.jpg"), 0, picture, True, prompt)


if __name__ == "__main__":
    main(*sys.argv[1:])
