"""The models by name: shapes, files on the hub, and the settings each is meant to be run with."""

from dataclasses import dataclass, replace

from flux.model import FluxParams
from flux.modules.autoencoder import AutoEncoderParams
from flux.tiny import config as tiny


@dataclass
class ModelSpec:
    """A model: shapes, files on the hub, and the settings it is meant to be run with.

    lora_*: a LoRA over the flow model, its rank and usual scale.
    flow_name: the model whose flow file and autoencoder this one takes, if not its own.
    t5, clip, t5_length, clip_length: the text encoders on the hub, and the tokens they read.
    shift: whether the schedule depends on the size of the picture.
    guidance: the usual one, None for a model without guidance embedding.
    embedded: the weights come with the package, laid out as a clone of FLUX.1-dev.
    usage_slug: the name in usage reports, None for a model whose use is not reported.
    """

    params: FluxParams
    ae_params: AutoEncoderParams
    repo_id: str
    repo_flow: str
    repo_ae: str
    lora_repo_id: str | None = None
    lora_filename: str | None = None
    lora_rank: int = 128
    lora_scale: float = 0.85
    flow_name: str | None = None
    t5: str = "google/t5-v1_1-xxl"
    clip: str = "openai/clip-vit-large-patch14"
    t5_length: int = 512
    clip_length: int = 77
    shift: bool = True
    num_steps: int = 50
    guidance: float | None = 3.5
    embedded: bool = False
    usage_slug: str | None = None


FLUX_DEV = ModelSpec(
    params=FluxParams(
        in_channels=64,
        out_channels=64,
        vec_in_dim=768,
        context_in_dim=4096,
        hidden_size=3072,
        mlp_ratio=4.0,
        num_heads=24,
        depth=19,
        depth_single_blocks=38,
        axes_dim=[16, 56, 56],
        theta=10_000,
        qkv_bias=True,
        guidance_embed=True,
    ),
    ae_params=AutoEncoderParams(
        resolution=256,
        in_channels=3,
        ch=128,
        out_ch=3,
        ch_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        z_channels=16,
        scale_factor=0.3611,
        shift_factor=0.1159,
    ),
    repo_id="black-forest-labs/FLUX.1-dev",
    repo_flow="flux1-dev.safetensors",
    repo_ae="ae.safetensors",
    usage_slug="flux-1-dev",
)


def _on_hub(title: str, **changes) -> ModelSpec:
    """FLUX.1 [dev] with the files of another repository, such as `Fill-dev`."""
    repo_id, repo_flow = f"black-forest-labs/FLUX.1-{title}", f"flux1-{title.lower()}.safetensors"
    return replace(FLUX_DEV, repo_id=repo_id, repo_flow=repo_flow, **changes)


def _by_lora(model: ModelSpec, title: str) -> ModelSpec:
    """FLUX.1 [dev] with the LoRA that turns it into `model`."""
    return replace(
        model,
        flow_name="flux-dev",
        repo_id=FLUX_DEV.repo_id,
        repo_flow=FLUX_DEV.repo_flow,
        lora_repo_id=f"black-forest-labs/FLUX.1-{title}-lora",
        lora_filename=f"flux1-{title.lower()}-lora.safetensors",
    )


_CONTROL = replace(FLUX_DEV.params, in_channels=128)
_CANNY = _on_hub("Canny-dev", params=_CONTROL, guidance=30.0, usage_slug="flux-tools")
_DEPTH = _on_hub("Depth-dev", params=_CONTROL, guidance=10.0, usage_slug="flux-tools")

configs = {
    "flux-dev": FLUX_DEV,
    "flux-dev-krea": _on_hub("Krea-dev", usage_slug="flux-1-krea-dev"),
    "flux-schnell": _on_hub(
        "schnell",
        params=replace(FLUX_DEV.params, guidance_embed=False),
        t5_length=256,
        shift=False,
        num_steps=4,
        guidance=None,
        usage_slug=None,
    ),
    "flux-dev-canny": _CANNY,
    "flux-dev-canny-lora": _by_lora(_CANNY, "Canny-dev"),
    "flux-dev-depth": _DEPTH,
    "flux-dev-depth-lora": _by_lora(_DEPTH, "Depth-dev"),
    # The repository's file is an image projector; see flux.modules.image_embedders.
    "flux-dev-redux": _on_hub("Redux-dev", flow_name="flux-dev", guidance=2.5, usage_slug="flux-tools"),
    "flux-dev-fill": _on_hub(
        "Fill-dev",
        params=replace(FLUX_DEV.params, in_channels=384),
        t5_length=128,
        guidance=30.0,
        usage_slug="flux-tools",
    ),
    "flux-dev-kontext": _on_hub("Kontext-dev", num_steps=30, guidance=2.5, usage_slug="flux-1-kontext-dev"),
    "flux-tiny": ModelSpec(
        params=tiny.FLOW,
        ae_params=tiny.AE,
        repo_id="flux-tiny",
        repo_flow="flux1-tiny.safetensors",
        repo_ae="ae.safetensors",
        t5="flux-tiny",
        clip="flux-tiny",
        t5_length=tiny.TEXT_LENGTH,
        clip_length=tiny.TEXT_LENGTH,
        num_steps=16,
        embedded=True,
    ),
}


def spec_of(name: str) -> ModelSpec:
    """The row of `configs`; ValueError, with the choices, for a name that is not there."""
    if name not in configs:
        raise ValueError(f"model {name!r} is unknown: the models are {', '.join(configs)}")
    return configs[name]
