"""How long each stage trains. Two cores of a current server take about the minutes given."""

STEPS = {
    "autoencoder": 3000,  # 20 min
    "text": 500,  # 2 min
    "flow_small": 1000,  # part of flow: the first steps on small canvases alone
    "flow": 6000,  # 80 min
    "distil": 600,  # 12 min
    "judge": 1500,  # 6 min
    "dino": 600,  # 4 min
}
