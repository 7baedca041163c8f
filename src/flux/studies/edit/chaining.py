"""The links of a chain: which picture each edit goes on from, and its files. Imports no torch."""

from dataclasses import dataclass

from flux.studies.edit.jobs import MADE, EditJob, jobs_of
from flux.studies.edit.spec import EditSpec


@dataclass(frozen=True, eq=False)
class ChainLink:
    """An edit of a chain. after: the link that it goes on from; None for the chain's source."""

    job: EditJob
    after: "ChainLink | None"

    @property
    def number(self) -> int:
        return self.job.number

    @property
    def source_prompt(self) -> str:
        """What the picture shows that it goes on from."""
        return self.job.source.prompt if self.after is None else self.after.job.edit.prompt

    @property
    def source_file(self) -> str:
        return self.job.file("source") if self.after is None else self.after.job.file("edit")

    @property
    def line(self) -> list["ChainLink"]:
        """All links from the source to this one."""
        return [*([] if self.after is None else self.after.line), self]

    @property
    def latents(self) -> str:
        """The file of its latents."""
        return f"latents/{self.job.file('edit').removesuffix('.png')}.safetensors"

    @property
    def source_latents(self) -> str:
        return "latents/source.safetensors" if self.after is None else self.after.latents

    @property
    def pictures(self) -> list[str]:
        """The files of the pictures that it makes; the first link makes the source's too."""
        kinds = MADE if self.job.spec.method is not None else ("edit", "mask")
        shown = self.job.shown if self.number == 1 else ()
        return [self.job.file(kind) for kind in (*shown, *kinds)]

    @property
    def kept(self) -> list[str]:
        """The files of the latents that it makes."""
        return [*([self.source_latents] if self.number == 1 else []), self.latents]


def links_of(spec: EditSpec) -> list[ChainLink]:
    """The links of a spec with a chain, each behind the one that it goes on from."""
    links: list[ChainLink] = []
    for job in jobs_of(spec):
        after = job.number - 1 if job.edit.after is None else job.edit.after
        links.append(ChainLink(job, links[after - 1] if after else None))
    return links
