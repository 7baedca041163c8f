"""The FLUX flow model: 19 double and 38 single stream blocks for FLUX.1, any number by `FluxParams`."""

import torch
from torch import Tensor, nn

from flux.hooks import Hooks
from flux.models import FluxParams, Layers
from flux.modules.dtypes import cast_for
from flux.modules.layers import (
    DoubleStreamBlock,
    EmbedND,
    LastLayer,
    MLPEmbedder,
    SingleStreamBlock,
    timestep_embedding,
)
from flux.modules.lora import LinearLora, replace_linear_with_lora


class Flux(nn.Module):
    """Predicts the velocity `noise - clean` of a packed latent, from text, timestep and guidance."""

    def __init__(self, params: FluxParams):
        super().__init__()
        self.params = params
        self.in_channels = params.in_channels
        self.out_channels = params.out_channels
        self.hidden_size = params.hidden_size
        self.num_heads = params.num_heads
        if params.hidden_size % params.num_heads:
            raise ValueError(
                f"hidden_size {params.hidden_size} is not divisible by num_heads {params.num_heads}"
            )
        head_dim = params.hidden_size // params.num_heads
        if sum(params.axes_dim) != head_dim:
            raise ValueError(f"axes_dim {params.axes_dim} must add up to the width of a head, {head_dim}")

        hidden, heads = params.hidden_size, params.num_heads
        self.pe_embedder = EmbedND(dim=head_dim, theta=params.theta, axes_dim=params.axes_dim)
        self.img_in = nn.Linear(params.in_channels, hidden, bias=True)
        self.time_in = MLPEmbedder(in_dim=256, hidden_dim=hidden)
        self.vector_in = MLPEmbedder(params.vec_in_dim, hidden)
        self.guidance_in = (
            MLPEmbedder(in_dim=256, hidden_dim=hidden) if params.guidance_embed else nn.Identity()
        )
        self.txt_in = nn.Linear(params.context_in_dim, hidden)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(hidden, heads, mlp_ratio=params.mlp_ratio, qkv_bias=params.qkv_bias)
            for _ in range(params.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(hidden, heads, mlp_ratio=params.mlp_ratio)
            for _ in range(params.depth_single_blocks)
        )
        self.final_layer = LastLayer(hidden, 1, params.out_channels)

    def forward(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        hooks: Hooks | None = None,
        pe: Tensor | None = None,
    ) -> Tensor:
        """One evaluation. Each part is fed in the dtype of its own parameters, see `flux.modules.dtypes`.

        img: packed latent (B, L_img, in_channels); img_ids: (B, L_img, 3); txt: (B, L_txt, context_in_dim);
        txt_ids: (B, L_txt, 3); timesteps: (B,) from 1 (noise) to 0; y: pooled text (B, vec_in_dim);
        guidance: (B,), needed by a guidance-distilled model. pe: the RoPE table of txt_ids and img_ids, as
        `pe_embedder` gives it, where it is made once for many evaluations.
        Returns the velocity, (B, L_img, out_channels). Raises ValueError for tensors that are not sequences,
        missing guidance, or hooks on layers the model lacks.
        """
        if img.ndim != 3 or txt.ndim != 3:
            shapes = f"{tuple(img.shape)} and {tuple(txt.shape)}"
            raise ValueError(f"img and txt must be (batch, tokens, channels); got {shapes}")
        vec = steering_vector(self, timesteps, y, guidance)
        if pe is None:
            pe = self.pe_embedder(torch.cat((txt_ids, img_ids), dim=1))
        img = cast_for(self.img_in(cast_for(img, self.img_in)), self.double_blocks, self.single_blocks)
        txt = self.txt_in(cast_for(txt, self.txt_in)).to(img.dtype)
        vec = vec.to(img.dtype)
        txt_len = txt.shape[1]
        plan = (hooks or Hooks()).bind(layers_of(self), txt_len, pe)

        # Layers that are left out are left out here, so that blocks of a client's own need not know how.
        for layer, block in enumerate(self.double_blocks):
            if not plan.skips(layer):
                img, txt = block(img=img, txt=txt, vec=vec, pe=pe, **plan.of_block(layer))
                img, txt = plan.after(layer, img, txt)
        x = torch.cat((txt, img), dim=1)
        for layer, block in enumerate(self.single_blocks, start=len(self.double_blocks)):
            if not plan.skips(layer):
                x = block(x, vec=vec, pe=pe, **plan.of_block(layer))
                x = plan.after_joint(layer, x)
        return self.final_layer(cast_for(x[:, txt_len:], self.final_layer), cast_for(vec, self.final_layer))


# No methods of `Flux`, whose subclasses have attributes by all kinds of names.


def layers_of(model: Flux) -> Layers:
    """The layers that a model has."""
    return Layers(len(model.double_blocks), len(model.single_blocks))


def steering_vector(model: Flux, timesteps: Tensor, y: Tensor, guidance: Tensor | None) -> Tensor:
    """What steers every modulation: timestep, guidance and pooled text, added up, (B, hidden)."""
    vec = model.time_in(cast_for(timestep_embedding(timesteps, 256), model.time_in))
    if model.params.guidance_embed:
        if guidance is None:
            raise ValueError("this model is guidance-distilled: pass guidance, a tensor of one value per row")
        vec = vec + model.guidance_in(cast_for(timestep_embedding(guidance, 256), model.guidance_in))
    return vec + model.vector_in(cast_for(y, model.vector_in))


class FluxLoraWrapper(Flux):
    """A flow model with low-rank updates in its linear layers, for the Canny and Depth LoRA files."""

    def __init__(self, lora_rank: int = 128, lora_scale: float = 1.0, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.lora_rank = lora_rank
        replace_linear_with_lora(self, max_rank=lora_rank, scale=lora_scale)

    def set_lora_scale(self, scale: float) -> None:
        for module in self.modules():
            if isinstance(module, LinearLora):
                module.set_scale(scale=scale)
