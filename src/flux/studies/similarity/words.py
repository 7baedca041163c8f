"""What a sweep says of its layers, in sentences."""

import math

from flux.studies.pages.plots import difference_in_words
from flux.studies.similarity.findings import Findings
from flux.studies.similarity.importance import ROUNDING
from flux.studies.similarity.measures import MEASURES
from flux.studies.similarity.spec import DinoSpec


def sentences(spec: DinoSpec, found: Findings) -> list[str]:
    """The vital layers, the rule, and the noise floor, in words."""
    lines = []
    if found.vital is None:
        lines.append("Layers were skipped in sets alone, so there is no vital set.")
    else:
        vital = [layer for layer in found.layers if found.is_vital(layer)]
        names = [f"{layer.label} ({layer.name})" for layer in vital]
        listed = ", ".join(names) or "none"
        lines.append(f"Vital layers: {listed}. The rule: {_rule(spec, found)}{_among(spec)}.")
    if found.vital and found.vital.in_noise:
        listed = ", ".join(map(str, found.vital.in_noise))
        lines.append(f"Not told from the noise, and so not vital whatever the rule says: {listed}.")
    if found.floor is None:
        lines.append("The noise floor was not measured: the sweep drew no reference twice.")
    else:
        lines.append(f"{_noise(found)} A layer that changes no more than that is never vital.")
    counts = sorted({figure.n for figure in found.single.values()})
    if len(counts) > 1:
        lines.append(
            f"Layers were measured over unlike numbers of prompts, {counts[0]} to {counts[-1]}: compare "
            "their means with care, or finish the sweep first."
        )
    if found.unmeasured:
        lines.append(f"Not measured, as their pictures are missing: {', '.join(found.unmeasured)}.")
    return lines


def _noise(found: Findings) -> str:
    several = len(found.noise) > 1
    made = f"{len(found.noise)} references were" if several else "one reference was"
    start = f"The noise floor is {difference_in_words(found.floor)}: {made} made again in another order, and"
    if found.floor <= ROUNDING:
        return f"{start} no difference is more than rounding."
    mean = difference_in_words(math.fsum(found.noise) / len(found.noise))
    differ = f"differ by so much at most, on average by {mean}" if several else "differs by so much"
    return f"{start} {differ}."


def _rule(spec: DinoSpec, found: Findings) -> str:
    rule, measure = spec.rule(), MEASURES[found.metric]
    if rule.name == "similarity":
        return f"mean {measure} below {rule.value:g}"
    if rule.name == "vitality":
        return f"1 − mean {measure} above {rule.value:g}"
    if rule.name == "top":
        return f"the {rule.value:g} layers of lowest mean {measure}"
    if found.vital.threshold is None:
        return "below the largest gap, and there is no gap"
    return f"mean {measure} below the largest gap, whose middle is {found.vital.threshold:.4g}"


def _among(spec: DinoSpec) -> str:
    return "" if spec.among == "all" else f", among {spec.among.removesuffix('.*')} stream blocks alone"


def shortened(text: str, length: int) -> str:
    """A text in one line of at most `length` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
