"""The parts of a model: what each is called, and what may name it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part of a model: its title in messages, its variable, its folder in a clone in diffusers layout."""

    title: str
    env_var: str
    folder: str = ""


FLOW = Part("flow model", "FLUX_MODEL", "transformer")
AE = Part("autoencoder", "FLUX_AE", "vae")
LORA = Part("LoRA", "FLUX_LORA")
REDUX = Part("image projector", "FLUX_REDUX")
T5 = Part("T5 text encoder", "FLUX_T5", "text_encoder_2")
CLIP = Part("CLIP text encoder", "FLUX_CLIP", "text_encoder")
PARTS = {part.env_var: part for part in (FLOW, AE, LORA, REDUX, T5, CLIP)}
