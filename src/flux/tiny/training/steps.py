"""How long each stage trains, with its minutes on two busy cores; the model card has the measured ones."""

STEPS = {
    "autoencoder": 5000,  # 40 min
    "text": 700,  # 8 min
    "flow_small": 600,  # the first steps of `flow`, on small canvases alone
    "flow": 9000,  # 180 min
    "distil": 320,  # 8 min
    "judge": 700,  # 6 min
    "dino": 400,  # 6 min
    "decoder": 1500,  # 15 min
}
