"""A second sweep beside the first: each layer by the figures of both, as a scatter with its layers' names.

Skipping against carrying is the picture that tells the story: what a picture needs is not what an edit takes
over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flux.extras import need
from flux.studies.folder import RunFolder
from flux.studies.pages.plots import Point, scatter_plot
from flux.studies.pages.render import PagePicture
from flux.studies.run import precision_in_words
from flux.studies.similarity.findings import Layer, findings
from flux.studies.similarity.inputs import model_layers
from flux.studies.similarity.measures import MEASURES, Figures, Pair
from flux.studies.similarity.probed import axis, probed
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.cells import Group
from flux.studies.sweep.folder import Sweep
from flux.studies.tables import csv_text

PLOT, TABLE = "beside.png", "beside.csv"
FEWEST = 3
"""Of fewer layers than these there is no rank correlation."""


@dataclass(frozen=True)
class Side:
    """What a sweep says of its layers. spec: with the metric that counts. words: what the figures are."""

    spec: DinoSpec
    sweep: Sweep
    figures: Mapping[Pair, Figures]

    @property
    def words(self) -> str:
        metric = self.spec.metrics[0]
        words = f"importance: 1 − mean {MEASURES[metric]}" if self.sweep.skips else axis(self.sweep, metric)
        quantised = "precision" in self.sweep.setting
        return f"{words}, weights in {precision_in_words(self.sweep.setting)}" if quantised else words

    def by_layers(self) -> dict[Group, tuple[Layer, float]]:
        """Of layers as wholes, in all steps: the figure by which this sweep's page ranks them."""
        metric = self.spec.metrics[0]
        if self.sweep.skips:
            layers: Sequence[Layer] = findings(self.spec, self.sweep, self.figures).layers
        else:
            layers = probed(self.spec, self.sweep, self.figures).parts
        return {
            layer.part.layers: (
                layer,
                layer.figures[metric].vitality if self.sweep.skips else layer.figures[metric].mean,
            )
            for layer in layers
            if metric in layer.figures and layer.part.head is None and layer.part.window is None
        }


@dataclass(frozen=True)
class TwoSweeps:
    """Two sweeps of one model. other: what is drawn along the x axis."""

    this: Side
    other: Side

    def report(self, run: RunFolder) -> tuple[PagePicture, str]:
        """Write the scatter and its table; returns the picture, and what it says, in a sentence.

        Raises ValueError, one line, where the two sweeps have no layer in common.
        """
        one, other = self.this.by_layers(), self.other.by_layers()
        common = [layers for layers in one if layers in other]
        if not common:
            raise ValueError(
                f"{self.other.sweep.path} has no layer as a whole that {self.this.sweep.path} has too"
            )
        points = [Point(one[key][0].label, one[key][0].kind, other[key][1], one[key][1]) for key in common]
        this, that = self.this.sweep.probe.name, self.other.sweep.probe.name
        title = f"{self.this.sweep.recipe['model']['name']}: {that} and {this}"
        run.write_bytes(PLOT, scatter_plot(points, title=title, x=self.other.words, y=self.this.words))
        rows = [
            [point.label, one[key][0].name, point.x, point.y]
            for key, point in zip(common, points, strict=True)
        ]
        run.write_text(TABLE, csv_text(["layers", "names", that, this if this != that else "this"], rows))
        picture = PagePicture(PLOT, f"Each layer by {that}, to the right, and by {this}, upwards")
        return picture, _sentence(points, that, this, self.other.words)


def _sentence(points: Sequence[Point], that: str, this: str, words: str) -> str:
    start = f"Beside {that} ({words})"
    if len(points) < FEWEST:
        return f"{start}: {len(points)} layers are too few for a rank correlation."
    stats = need("scipy.stats", "similarity", "a rank correlation")
    rank = float(stats.spearmanr([p.x for p in points], [p.y for p in points]).statistic)
    if rank != rank:
        return f"{start}: all layers are equal in one of the two."
    return f"{start}: the rank correlation of {this} with it is {rank:.2f} over {len(points)} layers."


def check_beside(this: Sweep, other: Sweep) -> None:
    """Raises ValueError, one line, for sweeps that are not to be held against each other."""
    names = [sweep.recipe["model"]["name"] for sweep in (other, this)]
    model_layers(other)
    if names[0] != names[1]:
        raise ValueError(f"{other.path} is a sweep of {names[0]}, and {this.path} one of {names[1]}")
    if other.path == this.path:
        raise ValueError(f"{other.path} is the sweep itself: name another one to hold it against")
