"""How long each stage trains; the model card has the minutes that it took."""

STEPS = {
    "autoencoder": 5000,
    "text": 1500,
    "flow_small": 600,  # the first steps of `flow`, on small canvases alone
    "flow": 9000,
    "distil": 500,
    "judge": 900,
    "dino": 400,
    "decoder": 800,
}
