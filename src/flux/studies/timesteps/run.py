"""Demo 1: one picture at every timestep, as noise that clears and as the model's estimate of the end."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import partial

from flux.conditions import Conditions
from flux.generate import at_work, decode, encode, sample_steps
from flux.hooks import AttentionMaps, Hooks
from flux.pictures.files import to_pil
from flux.studies.cost import Work
from flux.studies.picture_run import KeptFile, Picture, PictureRun, Progress, look_at
from flux.studies.references import References
from flux.studies.run import sampling_of
from flux.studies.timesteps.files import PICTURE, WATCHED, files_of
from flux.studies.timesteps.maps import drawn
from flux.studies.timesteps.report import report, timesteps
from flux.studies.timesteps.spec import LayerSpec
from flux.studies.watch.report import data_file
from flux.studies.watch.watching import watching
from flux.weights.load import Models


def work(spec: LayerSpec) -> Work:
    kept = [] if spec.watch is None else [data_file(WATCHED)]
    notes = [] if spec.reference is None else [spec.reference.in_words]
    return Work(files_of(spec).all(), [1], [spec.prompt], 2 * spec.steps + 1, kept=kept, notes=notes)


def pictures(spec: LayerSpec, models: Models, missing: AbstractSet[str]) -> Iterator[Progress]:
    """Sample once, then decode what is missing, and draw the attention maps."""
    files, attention = files_of(spec), AttentionMaps()
    watched = None if spec.watch is None else watching(spec.watch, spec, models, [0], [spec.prompt])
    hooks = Hooks(inject=dict.fromkeys(files.maps, attention)) if files.maps else None
    hooks = hooks if watched is None else watched.behind(hooks)
    sampling, offload = sampling_of(spec), spec.model.offload
    size = (spec.width, spec.height)
    seen = References(spec, models, [(spec.reference, size)]).of(spec.reference, size)
    conditions = Conditions(references=() if seen is None else (seen,))
    texts = encode(models, [spec.prompt], offload=offload)
    tokens = {}  # packed latents (1, L, 64) by the file they are decoded into
    how = {"hooks": hooks, "offload": offload, "conditions": conditions}
    for step in sample_steps(models, texts, [spec.prompt], [spec.seed], sampling, **how):
        tokens[files.noisy[step.index]] = step.before
        tokens[files.estimates[step.index]] = step.estimate
        tokens[PICTURE] = step.after
        preview = partial(look_at, models, step.estimate, sampling, offload)
        yield Progress(step.index, steps=step.steps, preview=preview)
    if watched is not None:
        kept = watched.picture(0, timesteps(spec)[:-1])
        yield Progress(pictures=[KeptFile(data_file(WATCHED), kept.to_bytes())])
    about = {"prompt": spec.prompt, "seed": str(spec.seed)}
    with at_work(models.device, offload, models.ae):
        for file in sorted(missing & tokens.keys()):
            image = to_pil(decode(models, tokens[file], sampling)[0])
            yield Progress(pictures=[Picture(file, image, about)])
    for layer, names in files.maps.items():
        maps = [drawn(attention.maps[layer, step], spec.width, spec.height) for step in range(len(names))]
        yield Progress(pictures=[Picture(file, image) for file, image in zip(names, maps, strict=True)])


RUN = PictureRun(work, pictures, report)
