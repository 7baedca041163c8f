"""LoRAs: small files that change a model. Which layers, how strong, merged or live.

`choice`: what is asked for; `plan`: what a file's header says; `layouts`: a file for each way to name layers;
`reading`: its numbers; `applying`: into a model and out again. The first three need no torch.
"""
