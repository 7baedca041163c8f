"""Stop when it is decided: whether a layer's mean similarity is above or below a threshold, round by round.

    rounds = plan_rounds(0.95, 0.95, [8, 16, 32, 64], prompts=64)
    rounds.decide(similarities_of_the_first_8, look=0)      # None: go on
    rounds.decide(similarities_of_the_first_16, look=1)     # Decision("below", ...): this layer costs no more

A group-sequential two-sided one-sample t-test of mean similarity against the threshold. How often the data
may be looked at is paid for by alpha spending (Lan & DeMets, Biometrika 70, 1983): with 1 - confidence as
alpha, the boundaries of the looks are such that a mean that equals the threshold leaves the interval at any
of them with probability alpha. On the z scale they come from recursive numerical integration (Armitage,
McPherson & Rowe, JRSS A 132, 1969; Jennison & Turnbull, Group Sequential Methods, 2000, ch. 19). They are
carried over to Student's t with n - 1 degrees of freedom at the same significance level (Jennison &
Turnbull, ch. 11.4). The intervals are repeated confidence intervals (Jennison & Turnbull, JRSS B 51, 1989).

The spending is Pocock-type, alpha ln(1 + (e - 1) n / N). The last look spends what is left, but no picture
hangs on it: what is undecided there falls to the mean of all prompts, as in a full sweep. So the early looks
may have most of alpha; O'Brien-Fleming-type spending would keep it for the end, and with 8 prompts ask for a
t of 48.

The test is not distribution-free, and cannot be made so: bounds that hold for any distribution of a given
range (Hoeffding, empirical Bernstein) are wider than what there is to decide with 64 pictures. Nor is the
plain t-test good enough here: similarities end at 1, most prompts lie near it and a few far below, and 8
prompts often hold none of those few. Two corrections:

- an interval is the hull of Student's and of Hall's, which allows for skewness by a monotone cubic (JRSS B
  54, 1992; Johnson's modified t, JASA 73, 1978, is its quadratic part, and turns back where skewness is
  strong);
- no layer is called above the threshold before so many prompts that one kind of prompt in ten (`RARE`)
  would have been among them with probability `confidence`: 29 prompts for 0.95.

`benchmarks/rounds.py` measures what each of them is good for. The prompts of a sweep are taken in an order
that has nothing to do with what they say, since the first 8 stand for all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flux.extras import need

ABOVE, BELOW = "above", "below"
ROUNDING = 1e-6
"""An interval is never narrower to either side: differences up to this are those of single precision."""

RARE = 0.1
"""The share of prompts in which a layer that is called above the threshold may matter unseen."""

NODES = (200, 1000)
"""The fewest and most of the Gauss-Legendre rule for an integral; many where looks are close together."""

FARTHEST = 37.0
"""The largest z; what is beyond has a probability that no number stands for."""


@dataclass(frozen=True)
class Look:
    """prompts: how many are in by then. level: two-sided significance level; 0 where nothing is tested."""

    prompts: int
    level: float


@dataclass(frozen=True)
class Decision:
    """Where a layer's mean similarity lies: `above` the threshold, or on it, or `below`.

    decided: whether its interval has left the threshold; if not, the mean of all prompts decides.
    prompts: of the look. n, mean, low, high: of the similarities there; the interval is infinite for n = 1.
    """

    verdict: str
    decided: bool
    prompts: int
    n: int
    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        """With null for the ends of an infinite interval."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {**asdict(self), "low": low, "high": high}


@dataclass(frozen=True)
class Rounds:
    """A plan of looks. patience: prompts before a layer can be called above. skewed: Hall's interval too."""

    threshold: float
    confidence: float
    looks: tuple[Look, ...]
    patience: int = 0
    skewed: bool = True

    def decide(self, similarities: Sequence[float], look: int) -> Decision | None:
        """The decision at a look, from 0; None: not yet. At the last look there always is one.

        similarities: of the look's prompts to their references; fewer where cells have failed, at least one.
        Raises ValueError for no value and for values that are not finite.
        """
        values = np.asarray(similarities, dtype=np.float64)
        if values.ndim != 1 or not len(values):
            raise ValueError("similarities must be a list with at least one number")
        if not np.isfinite(values).all():
            raise ValueError(f"similarities must be finite numbers; got {values[~np.isfinite(values)][0]}")
        n, mean = len(values), math.fsum(values) / len(values)
        low, high = map(float, interval(values, critical(self.looks[look].level, n), skewed=self.skewed))
        verdict = ABOVE if mean >= self.threshold else BELOW
        decided = high < self.threshold or (low > self.threshold and n >= self.patience)
        if not decided and look < len(self.looks) - 1:
            return None
        return Decision(verdict, decided, self.looks[look].prompts, n, mean, low, high)


def plan_rounds(
    threshold: float,
    confidence: float,
    rounds: Sequence[int],
    prompts: int,
    *,
    spending: str = "pocock",
    skewed: bool = True,
    rare: float = RARE,
) -> Rounds:
    """The looks at the first prompts of a sweep: those of `rounds` that are fewer than all, and at all.

    confidence: 1 - alpha of each layer, between 0 and 1. rounds: ascending. spending: "pocock" or
    "obrien-fleming". rare: 0 for no patience. Raises ValueError; ImportError where scipy is missing.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; got {confidence}")
    if not math.isfinite(threshold):
        raise ValueError(f"threshold must be a finite number; got {threshold}")
    if prompts < 1:
        raise ValueError(f"there must be a prompt at least; got {prompts}")
    ascending = all(a < b for a, b in zip(rounds, rounds[1:], strict=False))
    if not rounds or rounds[0] < 1 or not ascending:
        raise ValueError(f"rounds must be ascending numbers of prompts; got {list(rounds)}")
    counts = [count for count in rounds if count < prompts] + [prompts]
    tested = [count for count in counts if count > 1]
    alpha = 1 - confidence
    bounds = boundaries([count / prompts for count in tested], alpha, spending)
    normal = _scipy("special")
    levels = dict(zip(tested, (2 * float(normal.ndtr(-bound)) for bound in bounds), strict=True))
    return Rounds(
        threshold,
        confidence,
        tuple(Look(count, levels.get(count, 0.0)) for count in counts),
        patience=math.ceil(math.log(alpha) / math.log1p(-rare)) if rare else 0,
        skewed=skewed,
    )


def critical(level: float, n: int) -> float:
    """The t that n values exceed, to either side, with probability `level`; infinite where there is none."""
    return float(_scipy("stats").t.isf(level / 2, n - 1)) if n > 1 and level > 0 else math.inf


def interval(values: np.ndarray, critical: float, *, skewed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the interval of the mean of values (n, ...): two arrays (...).

    critical: standard errors to either side. skewed: the hull of Student's interval and Hall's.
    """
    n, mean = len(values), values.mean(axis=0)
    if not math.isfinite(critical):
        return np.full_like(mean, -math.inf), np.full_like(mean, math.inf)
    apart = values - mean
    sd = np.sqrt(np.square(apart).sum(axis=0) / (n - 1))
    half = critical / math.sqrt(n)
    below, above = np.full_like(mean, half), np.full_like(mean, half)
    if skewed:
        skewness = (apart**3).mean(axis=0) / np.where(sd > 0, sd, 1.0) ** 3
        below = np.maximum(below, _hall(skewness, half, n))
        above = np.maximum(above, -_hall(skewness, -half, n))
    return mean - np.maximum(below * sd, ROUNDING), mean + np.maximum(above * sd, ROUNDING)


def _hall(skewness: np.ndarray, half: float, n: int) -> np.ndarray:
    """How many standard deviations the mean is from where Hall's statistic, over root n, is `half`.

    The statistic is root n times u + g u^2 / 3 + g^2 u^3 / 27 + g / (6 n): a cube, so that it can be solved.
    """
    g = np.where(np.abs(skewness) > 1e-6, skewness, 1e-6)
    return 3 / g * (np.cbrt(1 + g * (half - g / (6 * n))) - 1)


def boundaries(fractions: Sequence[float], alpha: float, spending: str = "pocock") -> list[float]:
    """The z beyond which, to either side, each look decides. fractions: of the information, ascending to 1.

    The probability that a standard Brownian motion leaves at look k, and not before, is what `spending` adds
    there: alpha_k - alpha_(k-1).
    """
    if spending not in SPENDING:
        raise ValueError(f"spending must be one of {', '.join(SPENDING)}; got {spending!r}")
    special, optimize = _scipy("special"), _scipy("optimize")
    steps = [math.sqrt(b - a) for a, b in zip([0.0, *fractions], fractions, strict=False)]
    found: list[float] = []
    spent = 0.0
    # Where the motion may be after the last look, and the probability that it is there.
    points, mass = np.zeros(1), np.ones(1)
    for fraction, step, following in zip(fractions, steps, [*steps[1:], 1.0], strict=False):
        total, root = SPENDING[spending](fraction, alpha), math.sqrt(fraction)

        def excess(z: float, points=points, mass=mass, step=step, end=root, add=total - spent) -> float:
            leave = special.ndtr((-z * end - points) / step) + special.ndtr((points - z * end) / step)
            return float(mass @ leave) - add

        far = excess(FARTHEST) >= 0
        bound = FARTHEST if far else float(optimize.brentq(excess, 0.0, FARTHEST, xtol=1e-10))
        count = np.clip(4 * bound * root / min(step, following), *NODES)
        nodes, weights = np.polynomial.legendre.leggauss(int(count))
        new = nodes * bound * root
        density = np.exp(-(((new[:, None] - points) / step) ** 2) / 2) / (math.sqrt(2 * math.pi) * step)
        points, mass = new, (density @ mass) * weights * bound * root
        spent = total
        found.append(bound)
    return found


def _pocock(fraction: float, alpha: float) -> float:
    return alpha * math.log1p((math.e - 1) * fraction)


def _obrien_fleming(fraction: float, alpha: float) -> float:
    """Of both sides together; each side spends half of alpha."""
    normal = _scipy("special")
    return 4 * float(normal.ndtr(normal.ndtri(alpha / 4) / math.sqrt(fraction)))


SPENDING: dict[str, Callable[[float, float], float]] = {
    "pocock": _pocock,
    "obrien-fleming": _obrien_fleming,
}
"""How much of alpha may be spent by a fraction of the information."""


def _scipy(part: str) -> Any:
    return need(f"scipy.{part}", "similarity", "stopping when it is decided")
