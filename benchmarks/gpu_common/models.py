"""Models with random weights, made where they are used: how long a step takes does not depend on weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flux.hooks import Hooks
from flux.model import Flux, FluxParams
from flux.sampling import image_ids

from .scale import Setup


@contextmanager
def made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """New parameters are born on the device and in the dtype: no copy on the CPU, none in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def random_model(build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> nn.Module:
    with made_on(device, dtype):
        model = build()
    return model.eval().requires_grad_(False)


def waiting_flow(params: FluxParams, device: torch.device, dtype: torch.dtype) -> Flux:
    """Our model on the CPU. Each tensor is drawn on the device, as a CPU would take a minute for all of
    them, and leaves it at once: the device never holds more than one."""
    with torch.device("meta"):
        model = Flux(params)
    state = {
        key: random_tensor(key, tensor.shape, device, dtype).cpu()
        for key, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def random_tensor(key: str, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    if key.endswith("scale"):  # of a norm
        return torch.ones(shape, device=device, dtype=dtype)
    bound = shape[-1] ** -0.5
    return torch.empty(shape, device=device, dtype=dtype).uniform_(-bound, bound)


def diffusers_model(params: FluxParams) -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=params.in_channels,
        num_layers=params.depth,
        num_single_layers=params.depth_single_blocks,
        attention_head_dim=params.hidden_size // params.num_heads,
        num_attention_heads=params.num_heads,
        joint_attention_dim=params.context_in_dim,
        pooled_projection_dim=params.vec_in_dim,
        guidance_embeds=params.guidance_embed,
        axes_dims_rope=tuple(params.axes_dim),
    )


BUILD = {"ours": Flux, "diffusers": diffusers_model}


def blocks_of(name: str, model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model, in order."""
    if name == "ours":
        return [*model.double_blocks, *model.single_blocks]
    return [*model.transformer_blocks, *model.single_transformer_blocks]


def inputs_of(setup: Setup, batch: int) -> dict[str, Tensor]:
    """Random arguments of `Flux.forward`."""
    scale = setup.scale
    params, (h, w) = scale.params, scale.grid
    place = {"device": setup.device, "dtype": setup.dtype}
    return {
        "img": torch.randn(batch, h * w, params.in_channels, **place),
        "img_ids": image_ids(h, w).to(setup.device).expand(batch, -1, -1),
        "txt": torch.randn(batch, scale.txt_len, params.context_in_dim, **place),
        "txt_ids": torch.zeros(batch, scale.txt_len, 3, device=setup.device),
        "timesteps": torch.full((batch,), 0.7, **place),
        "y": torch.randn(batch, params.vec_in_dim, **place),
        "guidance": torch.full((batch,), 3.5, **place),
    }


def step_of(
    name: str, model: nn.Module, inputs: dict[str, Tensor], hooks: Hooks | None = None
) -> Callable[[], Tensor]:
    """One Euler step as a call without arguments."""
    if name == "ours":
        return lambda: inputs["img"] - 0.05 * model(**inputs, hooks=hooks)
    arguments = {
        "hidden_states": inputs["img"],
        "encoder_hidden_states": inputs["txt"],
        "pooled_projections": inputs["y"],
        "timestep": inputs["timesteps"],
        "guidance": inputs["guidance"],
        # diffusers takes the ids of one row for all.
        "img_ids": inputs["img_ids"][0],
        "txt_ids": inputs["txt_ids"][0],
    }
    return lambda: inputs["img"] - 0.05 * model(**arguments, return_dict=False)[0]
