"""How exact are the weights that a model is kept in? Which are quantised, how, and in how many bytes?"""
