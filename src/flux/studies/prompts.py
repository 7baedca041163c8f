"""The one reader of prompts: texts, objects with a seed of their own, or a file of them, for every study."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

from flux.confined import is_confined
from flux.flags import Typed
from flux.prompts import ENDINGS, YAML, FileRow, prompt_file, prompt_rows
from flux.studies.reading import SpecError, one_line, problems_of
from flux.studies.spec import (
    AfterValidator,
    BeforeValidator,
    Field,
    Problem,
    Section,
    Seed,
    Several,
    Text,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    bare,
    folder_of,
    refusal,
    whole_text,
)

STANDS_ALONE = "a file of prompts stands alone: name one, or give texts"


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _typed_file(value: Any, info: ValidationInfo) -> Any:
    return _one_prompt(value, info) if isinstance(value, Typed) else value


Prompt = Annotated[Text, AfterValidator(_not_blank), BeforeValidator(_typed_file)]
"""A prompt of a list, where a blank one is a slip; a single one may be empty."""


class PromptItem(Section):
    """A prompt and its seed."""

    text_key: ClassVar[str] = "prompt"

    prompt: Prompt = Field(description="what the picture shows")
    seed: Seed | None = Field(None, description="of its noise; null: the spec's seed plus the prompt's index")


class PromptFile(Section):
    """What a file of prompts holds. columns: of a table, beside prompt and seed; others are left alone."""

    columns: ClassVar[tuple[str, ...]] = ()

    prompts: Several[PromptItem] = Field(description="a list of prompts, each with its seed")


def read_prompts(path: Path, kind: type[PromptFile] = PromptFile) -> tuple[PromptItem, ...]:
    """The prompts in a file, see `flux.prompts`. SpecError, one line, names file, line, mistake."""
    try:
        data = prompt_rows(path, kind.columns)
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None
    rows = data if isinstance(data, list) else []
    lines = [row.line for row in rows if isinstance(row, FileRow)]
    values = [row.value if isinstance(row, FileRow) else row for row in rows]
    try:
        whole = {"prompts": values} if isinstance(data, list) else data
        return kind.model_validate(whole, context=path.parent).prompts
    except ValidationError as error:
        problems = [at_line(problem, lines) for problem in problems_of(kind, error)]
        rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise SpecError(one_line(problems[:3], str(path)) + rest) from None


def at_line(problem: Problem, lines: list[int]) -> Problem:
    """With the line of the file in the place of the prompt's number, where the file has lines."""
    if not lines or len(problem.path) < 2:
        return problem
    return problem._replace(path=(f"line {lines[problem.path[1]]}", *problem.path[2:]))


def prompts_of(
    value: Any, info: ValidationInfo, kind: type[PromptFile] = PromptFile
) -> tuple[PromptItem, ...] | None:
    """The prompts of the file that a text names, alone or as the only entry of a list; None for any other.

    Raises ValueError for a file that is not there or not read, and for one that stands among texts.
    """
    alone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    if isinstance(alone, str):
        path = _file_of(alone, info)
        return None if path is None else read_prompts(path, kind)
    if isinstance(value, list | tuple):
        for entry in value:
            if isinstance(entry, str) and _names_file(entry, info):
                raise refusal([Problem((), STANDS_ALONE, entry)])
    return None


def _file_of(text: str, info: ValidationInfo) -> Path | None:
    """As `prompt_file`; where specs are confined no text names a file, and none is looked for."""
    if not is_confined():
        return prompt_file(text, folder_of(text, info))
    if Path(text).suffix.lower() in (*ENDINGS, *YAML):
        raise ValueError("names a file of prompts, and none is read here: give the prompts themselves")
    return None


def _names_file(text: str, info: ValidationInfo) -> bool:
    try:
        return _file_of(text, info) is not None
    except ValueError:
        return True


def from_file(
    kind: Any,
    *,
    alone: Any = (str, dict),
    entry: Callable[[PromptItem], Any] = lambda item: item,
    file: type[PromptFile] = PromptFile,
) -> WrapValidator:
    """For a list of `kind`: the path of a file may stand in its place, whose prompts become entries.

    alone: types of values that are no list, name no file, and count as the only entry of one. file: what such
    a file holds.
    """

    def read(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
        items = prompts_of(value, info, file)
        if items is not None:
            return handler([entry(item) for item in items])
        if isinstance(value, alone) and not isinstance(value, list | tuple):
            return bare(value, [value], handler)
        return handler(value)

    return WrapValidator(read, json_schema_input_type=str | Several[kind])


def _one_prompt(value: Any, info: ValidationInfo) -> Any:
    items = prompts_of(value, info) if isinstance(value, str) else None
    if items is None:
        return value
    if len(items) > 1:
        raise ValueError(f"holds {len(items)} prompts, and here stands one")
    if items[0].seed is not None:
        raise ValueError("holds a prompt with a seed, which has a key of its own here")
    return items[0].prompt


OnePrompt = Annotated[Text, BeforeValidator(_one_prompt)]
"""A single prompt, or the path of a file that holds one."""


def item_or_text(value: Any, kind: type[PromptItem], info: ValidationInfo) -> str | PromptItem:
    """A text, or an object of a kind that says more than a text."""
    if isinstance(value, str):
        return _not_blank(whole_text(value))
    if not isinstance(value, dict | PromptItem):
        raise ValueError("must be text")
    item = value if isinstance(value, PromptItem) else kind.model_validate(value, context=info.context)
    return item.prompt if item == type(item)(prompt=item.prompt) else item
