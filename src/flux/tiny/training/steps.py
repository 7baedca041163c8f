"""How long each stage trains, with its minutes on two busy cores; the model card has the measured ones."""

STEPS = {
    "autoencoder": 4000,  # 30 min
    "text": 500,  # 5 min
    "flow_small": 600,  # the first steps of `flow`, on small canvases alone
    "flow": 2800,  # 60 min
    "distil": 260,  # 8 min
    "judge": 700,  # 6 min
    "dino": 400,  # 6 min
    "decoder": 800,  # 10 min
}
