"""How long each stage trains, with its minutes on two busy cores; the model card has the measured ones."""

STEPS = {
    "autoencoder": 3000,
    "text": 700,  # 13 min
    "flow_small": 600,  # the first steps of `flow`, on small canvases alone
    "flow": 9000,  # 190 min
    "distil": 320,  # 10 min
    "judge": 700,  # 5 min
    "dino": 400,  # 3 min
    "decoder": 1500,  # 10 min
}
