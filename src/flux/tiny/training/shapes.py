"""The shapes that a training makes. Those of `configs["flux-tiny"]` belong to the weights that ship; when
weights of this training ship, the record takes these over."""

from dataclasses import replace

from flux.models import configs

SHIPPED = configs["flux-tiny"]

AE_PARAMS = replace(SHIPPED.ae_params, ch=32, ch_mult=[1, 2, 4, 4])
"""Wider where the picture is small, so it costs little: with 32 channels in 32 groups a norm forgets how
bright a channel is, and all but the finest level now have more."""

RECORDS = {"flux-tiny": replace(SHIPPED, ae_params=AE_PARAMS)}
"""The model as this training makes it, for `flux.weights.load`."""
