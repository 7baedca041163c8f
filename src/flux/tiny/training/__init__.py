"""How flux-tiny is made: `python -m flux.tiny.training` trains every part from nothing."""
