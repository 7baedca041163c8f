"""How is a picture edited? One file per method, all of one contract.

A method is a function over models and a request that yields a step (such as `EditStep`) for every step of
sampling it takes, with the step's index and, when they are done, pictures by row:

    for step in edit_steps(models, request):
        show(step.step.index)                       # the caller owns progress
        for row, picture in step.pictures.items():  # and saves pictures as they come
            save(row, picture)

The request is frozen and says all that decides the pictures: prompts, seed, sampling, and how each edit looks
at its source. The method writes nothing and prints nothing; how it injects is a plan of hooks.
"""
