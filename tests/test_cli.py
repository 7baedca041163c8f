"""The command line, run in this process on flux-tiny, or on random weights in its place while it has none."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image
from torch import nn

from flux import cli
from flux.conditions import Conditions, Negative, Regions, box_region
from flux.generate import Sampling, generate
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.photos.conditions import open_conditions
from flux.photos.wanted import StartPhoto, Wanted
from flux.util import TINY_WEIGHTS, Models, configs

TINY = configs["flux-tiny"]
A_CAT, A_BOAT = "a big red cat on the grass at night", "a small blue boat on the water by day"


class StandInEncoder(nn.Module):
    """Random numbers that depend on the prompt alone, in the shape of T5's or CLIP's output."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, text: list[str]) -> torch.Tensor:
        seeds = (zlib.crc32(prompt.encode()) for prompt in text)
        return torch.stack(
            [torch.randn(self.shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )


def stand_in(name: str, **options) -> Models:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow, ae = Flux(TINY.params), AutoEncoder(TINY.ae_params)
    return Models(
        name=name,
        flow=flow.eval(),
        ae=ae.eval(),
        t5=StandInEncoder((TINY.t5_length, TINY.params.context_in_dim)),
        clip=StandInEncoder((TINY.params.vec_in_dim,)),
        device=torch.device("cpu"),
        dtype=torch.float32,
        spec=TINY,
    )


@pytest.fixture(scope="module")
def tiny() -> Models:
    if (TINY_WEIGHTS / TINY.repo_flow).is_file():
        return cli.load_models("flux-tiny", device="cpu")
    return stand_in("flux-tiny")


@pytest.fixture
def run(tiny, tmp_path, monkeypatch, capsys):
    """`run("--seed 1", "--prompt", "a cat")` in tmp_path: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "load_models", lambda name, **options: tiny)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.app(
            [part for word in words for part in (word.split() if word.startswith("-") else [word])]
        )
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def seen(monkeypatch) -> list[cli.SamplingOptions]:
    """Pictures are not made; what they would be made from is noted here."""
    options = []

    def make_picture(models, one, *, offload=False):
        options.append(one)
        return torch.zeros(1, 3, one.height, one.width)

    monkeypatch.setattr(cli, "make_picture", make_picture)
    return options


def output(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "output").iterdir())


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def typed(monkeypatch, *lines: str) -> None:
    """What the user types, line by line, and then closes the terminal."""
    remaining = iter(lines)

    def answer(question: str) -> str:
        try:
            return next(remaining)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)


# Pictures


def test_both_forms_make_the_same_picture(run, tmp_path):
    options = ("--name flux-tiny --seed 42 --num_steps 2 --device cpu", "--prompt", A_CAT)
    assert run(*options)[0] == 0
    code, out, _ = run("t2i", *options)
    assert code == 0 and "seed 42, 128 x 128, 2 steps: a big red cat" in out and "img_1.jpg" in out
    assert output(tmp_path) == ["img_0.jpg", "img_1.jpg"]
    assert pixels(tmp_path / "output/img_0.jpg") == pixels(tmp_path / "output/img_1.jpg")
    with Image.open(tmp_path / "output/img_0.jpg") as picture:
        assert picture.size == (128, 128)
        exif = picture.getexif()
        assert exif[ExifTags.Base.Software] == "AI generated;txt2img;flux"
        assert exif[ExifTags.Base.Model] == "flux-tiny"
        assert exif[ExifTags.Base.ImageDescription] == A_CAT


def test_prompts_between_bars(run, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output/img_7.jpg").touch()
    code, out, _ = run("--name flux-tiny --seed 1 --num_steps 1", "--prompt", f" {A_CAT} |{A_BOAT}| ")
    assert code == 0 and out.count("seed 1,") == 2
    assert output(tmp_path) == ["img_7.jpg", "img_8.jpg", "img_9.jpg"]
    for number, prompt in ((8, A_CAT), (9, A_BOAT)):
        with Image.open(tmp_path / f"output/img_{number}.jpg") as picture:
            assert picture.getexif()[ExifTags.Base.ImageDescription] == prompt
    assert pixels(tmp_path / "output/img_8.jpg") != pixels(tmp_path / "output/img_9.jpg")


def test_seed_is_drawn_printed_and_good_for_the_same_picture(run, tmp_path):
    _, out, _ = run("--name flux-tiny --num_steps 1", "--prompt", A_CAT)
    seed = out.split("seed ")[1].split(",")[0]
    run(f"--name flux-tiny --num_steps 1 --seed {seed}", "--prompt", A_CAT)
    run("--name flux-tiny --num_steps 1", "--prompt", A_CAT)
    first, again, other = (pixels(tmp_path / f"output/img_{i}.jpg") for i in range(3))
    assert first == again != other


def test_a_picture_of_another_process_is_not_replaced(run, seen, tmp_path, monkeypatch):
    """Both have picked the same number; the first picture that is whole has it."""
    monkeypatch.setattr(cli, "next_index", lambda folder: 0)
    assert "saved output/img_0.jpg" in run("--name flux-tiny --seed 1", "--prompt", "a")[1]
    first = (tmp_path / "output" / "img_0.jpg").read_bytes()
    code, out, _ = run("--name flux-tiny --seed 2", "--prompt", "b | c")
    assert code == 0 and "saved output/img_1.jpg" in out and "saved output/img_2.jpg" in out
    assert (tmp_path / "output" / "img_0.jpg").read_bytes() == first and len(output(tmp_path)) == 3


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_one_line(run, seen, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    code, out, err = run(f"--name flux-tiny --output_dir {place}")
    assert code == 2 and err.count("\n") == 1 and f"{place} cannot be written (" in err and seen == []
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_with_braces_and_no_metadata(run, tmp_path):
    code, out, _ = run("--name flux-tiny --num_steps 1 --output_dir a{b}/c --noadd_sampling_metadata")
    assert code == 0 and "a{b}/c/img_0.jpg" in out
    with Image.open(tmp_path / "a{b}/c/img_0.jpg") as picture:
        assert ExifTags.Base.ImageDescription not in picture.getexif()


def test_nsfw_picture_is_not_saved(run, tmp_path, monkeypatch, seen):
    loaded_for = []
    score = {"flagged": 0.9}

    def load(device):
        loaded_for.append(device)
        return lambda image: [{"label": "nsfw", "score": score["flagged"]}]

    monkeypatch.setattr(cli, "load_nsfw_classifier", load)
    code, out, _ = run("--name flux-dev --width 64 --height 64")
    assert code == 0 and "NSFW" in out and output(tmp_path) == [] and loaded_for == [torch.device("cpu")]
    score["flagged"] = 0.84
    run("--name flux-dev --width 64 --height 64")
    assert output(tmp_path) == ["img_0.jpg"]
    run("--name flux-tiny")
    assert len(loaded_for) == 2, "flux-tiny needs no check"


# Settings


def test_defaults_are_the_models_own_for_flux_tiny(run, seen):
    run("--name flux-tiny --seed 5")
    assert seen == [cli.SamplingOptions(cli.TINY_PROMPT, 128, 128, TINY.num_steps, 3.5, 5)]


def test_a_value_given_is_taken_even_if_it_is_upstreams_default(run, seen):
    run("--name flux-tiny --width 1360 --height 768 --guidance 2.5 --seed 5", "--prompt", str(cli.PROMPT))
    assert seen == [cli.SamplingOptions(cli.PROMPT, 1360, 768, TINY.num_steps, 2.5, 5)]


@pytest.mark.parametrize("name, steps", [("flux-dev", 50), ("flux-schnell", 4), ("flux-dev-krea", 50)])
def test_defaults_are_upstreams_for_flux_1(run, seen, monkeypatch, name, steps):
    monkeypatch.setattr(cli, "load_nsfw_classifier", lambda device: None)
    run(f"--name {name} --seed 5")
    assert seen == [cli.SamplingOptions(cli.PROMPT, 1360, 768, steps, 2.5, 5)]


def test_sizes_are_rounded_down_and_it_is_said(run, seen):
    _, out, _ = run("--name flux-tiny --width 1080 --height 719")
    assert (seen[0].width, seen[0].height) == (1072, 704)
    assert "width 1080 becomes 1072" in out and "height 719 becomes 704" in out


@pytest.mark.parametrize("prompt", ["a cat, a dog", "cat,dog", "no # sign", "[1, 2]", "7", "", "True"])
def test_prompt_is_taken_as_typed(run, seen, prompt):
    assert run("--name flux-tiny", "--prompt", prompt)[0] == 0
    assert seen[0].prompt == prompt


@pytest.mark.parametrize(
    "words, expected",
    [
        (("--num-steps 3",), {"num_steps": 3}),
        (("--num_steps=3", "--guidance=4"), {"num_steps": 3, "guidance": 4.0}),
        (("-s 9 -w 64 -g 1.5",), {"seed": 9, "width": 64, "guidance": 1.5}),
    ],
)
def test_spellings_of_flags(run, seen, words, expected):
    code, _, err = run("--name flux-tiny", *[w for w in words])
    assert code == 0, err
    assert {key: getattr(seen[0], key) for key in expected} == expected


def test_loading_gets_what_was_asked_for(run, seen, tiny, monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "load_models", lambda name, **options: calls.append((name, options)) or tiny)
    run("--name flux-tiny --device cpu --dtype bfloat16 --weights /models/12 --offload")
    run("--name flux-tiny")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    always = {"prompts": [cli.TINY_PROMPT], "lora": None, "lora_live": False}
    one = {"device": "cpu", "dtype": "bfloat16", "weights": "/models/12", "offload": True}
    other = {"device": default, "dtype": "auto", "weights": None, "offload": False}
    assert calls == [("flux-tiny", one | always), ("flux-tiny", other | always)]


# The order of work


@pytest.mark.parametrize("offload", [True, False])
def test_text_first_then_flow_then_decoder(tiny, monkeypatch, offload):
    turns = []

    def noted(part: str, work: Callable) -> Callable:
        return lambda *args, **options: turns.append((part, options["offload"])) or work(*args, **options)

    for part in ("encode", "sample_steps", "decode"):
        monkeypatch.setattr(cli, part, noted(part, getattr(cli, part)))
    picture = cli.make_picture(tiny, cli.SamplingOptions(A_CAT, 48, 32, 1, 3.5, 0), offload=offload)
    assert picture.shape == (1, 3, 32, 48) and picture.dtype == torch.float32
    assert turns == [(part, offload) for part in ("encode", "sample_steps", "decode")]


# The loop


def test_loop(run, seen, monkeypatch):
    typed(monkeypatch, "/w 100", "/h 64", "/s 3", "/n 2", "/g 1.5", A_BOAT, "", "a | b", "/q", "never")
    code, out, _ = run("--name flux-tiny --seed 1 --loop", "--prompt", A_CAT)
    assert code == 0
    assert [one.prompt for one in seen] == [A_CAT, A_BOAT, A_BOAT, "a", "b"]
    assert seen[1] == cli.SamplingOptions(A_BOAT, 96, 64, 2, 1.5, 3)
    assert seen[2].seed not in (1, 3), "a seed is for one picture"
    assert "width 100 becomes 96" in out and "height is 64" in out


def test_h_is_height_with_a_number_and_help_without(monkeypatch, capsys):
    start = cli.SamplingOptions("a", 64, 64, 1, 1.0, None)
    typed(monkeypatch, "/h", "/help", "/h 32", "/h512", "b")
    assert cli.parse_prompt(start) == cli.SamplingOptions("b", 64, 512, 1, 1.0, None)
    assert capsys.readouterr().out.count(cli.LOOP_HELP) == 2


def test_mistakes_in_the_loop_are_said_and_change_nothing(monkeypatch, capsys):
    start = cli.SamplingOptions("a", 64, 64, 1, 1.0, None)
    typed(monkeypatch, "/w abc", "/w 7", "/n 0", "/foo 1", "/", "")
    assert cli.parse_prompt(start) == start
    out = capsys.readouterr().out
    assert "width must be a whole number between 16 and 8192; got 'abc'" in out and "got 7" in out
    assert "num_steps must be" in out and "there is no /foo" in out


def test_closing_the_terminal_ends_the_loop(monkeypatch):
    typed(monkeypatch)
    assert cli.parse_prompt(cli.SamplingOptions("a", 64, 64, 1, 1.0, None)) is None


# Prompts and seeds


def test_a_file_of_prompts_is_drawn_prompt_by_prompt(run, seen, tmp_path):
    (tmp_path / "p.csv").write_text(f'caption,seed\n"{A_CAT} | or not",\n{A_BOAT},7\n')
    (tmp_path / "p.txt").write_text(f"{A_CAT}\n{A_BOAT}\n")
    assert run("--name flux-tiny --seed 3 --prompt p.csv")[0] == 0
    assert [(one.prompt, one.seed) for one in seen] == [(f"{A_CAT} | or not", 3), (A_BOAT, 7)]
    seen.clear()
    assert run("--name flux-tiny --prompt p.txt")[0] == 0
    assert [one.prompt for one in seen] == [A_CAT, A_BOAT]


def test_models_are_loaded_for_the_prompts_of_the_file(run, seen, tiny, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "load_models", lambda name, **options: asked.append(options["prompts"]) or tiny)
    (tmp_path / "p.txt").write_text(f"{A_CAT}\n{A_BOAT}\n")
    run("--name flux-tiny --prompt p.txt")
    run("--name flux-tiny", "--prompt", f"{A_CAT} | {A_BOAT}")
    run("--name flux-tiny --loop --prompt p.txt")
    assert asked == [[A_CAT, A_BOAT], [A_CAT, A_BOAT], None]


def test_a_file_named_in_the_loop(run, seen, monkeypatch, tmp_path):
    (tmp_path / "p.txt").write_text(f"{A_CAT}\n{A_BOAT}\n")
    typed(monkeypatch, "none.txt", "p.txt", "/q")
    code, out, _ = run("--name flux-tiny --loop --prompt first")
    assert code == 0 and "none.txt: no such file" in out
    assert [one.prompt for one in seen] == ["first", A_CAT, A_BOAT]


def test_seed_minus_one_is_drawn_and_shown(run, seen):
    seeds = []
    for _ in range(2):
        _, out, _ = run("--name flux-tiny --seed -1", "--prompt", A_CAT)
        seeds.append(seen[-1].seed)
        assert f"seed {seeds[-1]}," in out and 0 <= seeds[-1] < 2**32
    assert seeds[0] != seeds[1]


def test_a_size_that_flux_tiny_cannot_draw_is_noted_once(run, seen):
    _, _, err = run("--name flux-tiny --width 256", "--prompt", "a | b")
    assert err == "note: flux-tiny draws 128 x 128: of 256 x 128 stripes come out\n"
    assert run("--name flux-tiny --width 128")[2] == ""


# Mistakes


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ("--name flux-nano",),
            "'flux-nano' is not a model; choose one of flux-tiny, flux-dev, flux-dev-krea",
        ),
        (("--name flux-dev-fill",), "'flux-dev-fill' starts from a picture"),
        (
            ("--name flux-tiny --hieght 64",),
            "unknown option --hieght, did you mean --height? options: --name, --width, --height",
        ),
        (("--name flux-tiny --prompt",), "--prompt: needs a value"),
        (("t2i", "--name flux-tiny -x 64"), "unknown option -x"),
        (("--name flux-tiny -n 4",), "unknown option -n"),
        (("--name flux-tiny --prompt a", "cat"), "unexpected word 'cat'"),
        (("--name flux-tiny --width 15",), "width must be a whole number between 16 and 8192; got 15"),
        (("--name flux-tiny --height tall",), "height must be a whole number"),
        (("--name flux-tiny --width 64.5",), "got 64.5"),
        (("--name flux-tiny --num_steps 0",), "num_steps must be a whole number between 1 and 1000"),
        (("--name flux-tiny --seed x",), "seed must be a whole number"),
        (
            ("--name flux-tiny --seed -2",),
            "seed must be a whole number between 0 and 9223372036854775807, or -1",
        ),
        (("--name flux-tiny --seed 9223372036854775808",), "or -1 to draw one; got 9223372036854775808"),
        (
            ("--name flux-tiny --num_steps 1001",),
            "num_steps must be a whole number between 1 and 1000; got 1001",
        ),
        (("--name flux-tiny --num_steps 3 --num_steps 4",), "--num_steps: given twice"),
        (("--name flux-tiny -w 64 --width 64",), "--width: given twice"),
        (("--name flux-tiny --width 16000000",), "width must be a whole number between 16 and 8192"),
        (("--name flux-tiny --guidance 1e308",), "guidance must be a number between 0 and 100; got 1e+308"),
        (("--name flux-tiny --guidance nan",), "guidance must be a number between 0 and 100; got nan"),
        (("--name flux-tiny", "--num_steps", "9" * 5000), "num_steps must be a whole number"),
        (
            ("--name flux-tiny", "--width", "[" * 900),
            "width must be a whole number between 16 and 8192; got '[[[",
        ),
        (("--name flux-tiny", "--" + "k" * 5000, "1"), "unknown option --kkk"),
        (("--name", "k" * 5000), "is not a model"),
        (("--name flux-tiny --prompt none.txt",), "none.txt: no such file"),
        (("--name flux-tiny --prompt taken",), "is a file, and prompts are read from .txt"),
        (("--name flux-tiny --prompt p.yaml",), "YAML is not read"),
        (
            ("--name flux-tiny", "--prompt", "half \ud800"),
            "prompt must be text: it holds half of a surrogate pair",
        ),
        (
            ("--name flux-tiny --seed 99999999999999999999",),
            "or -1 to draw one; got 9999",
        ),
        (("--name flux-tiny --guidance high",), "guidance must be a number"),
        (("--name flux-tiny --offload maybe",), "offload is either on or off"),
        (("--name flux-tiny --trt",), "TensorRT engines are not carried"),
        (("--name", "flux-tiny", "--noloop=3"), "--noloop: takes no value"),
        (("paint",), "there is no command 'paint'; commands: t2i, control, fill, kontext, redux"),
        (("--name flux-tiny --output_dir taken",), "taken"),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, seen, words, message):
    (tmp_path / "taken").touch()
    code, _, err = run(*words)
    assert code == 2 and message in err and len(err) < 600
    assert err.startswith("flux: ") and err.count("\n") == 1 and err.endswith("\n")
    assert not seen and not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "error, said",
    [
        (ValueError("two\nlines"), "two lines"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to"), "the GPU is out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "machine is out of memory"),
        (MemoryError(), "machine is out of memory"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might"), "the GPU is out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"), "the GPU is out of memory"),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"),
            "the GPU failed (CUDA error: an illegal memory access was encountered): stopped; if it fails "
            "again, restart the machine",
        ),
        (ModuleNotFoundError("No module named 'sentencepiece'"), "sentencepiece"),
        (KeyboardInterrupt(), "stopped"),
    ],
)
def test_what_goes_wrong_on_the_way(run, monkeypatch, error, said):
    def make_picture(*args, **kwargs):
        raise error

    monkeypatch.setattr(cli, "make_picture", make_picture)
    code, _, err = run("--name flux-tiny")
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert said in err and err.count("\n") == 1


def test_faults_of_ours_are_not_hidden(run, monkeypatch):
    def make_picture(*args, **kwargs):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(cli, "make_picture", make_picture)
    with pytest.raises(RuntimeError, match="shapes"):
        run("--name flux-tiny")


def test_main_raises_when_called_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="TensorRT"):
        cli.main("flux-tiny", trt=True)


def test_warnings_are_one_line(run, monkeypatch):
    import warnings

    def make_picture(models, one, **kwargs):
        warnings.warn("something\nwas cut", stacklevel=2)
        return torch.zeros(1, 3, 16, 16)

    monkeypatch.setattr(cli, "make_picture", make_picture)
    shown = warnings.showwarning
    _, _, err = run("--name flux-tiny")
    assert "note: something was cut\n" in err
    assert warnings.showwarning is shown


def test_help(run):
    for words in ((), ("--help",), ("-h",), ("t2i", "--help")):
        code, out, err = run(*words)
        assert code == 0 and err == "" and out.startswith("usage: python -m flux")
        assert "--name flux-dev-krea\n" in out and "--width 1360\n" in out and "--offload False\n" in out


def test_single_letters_mean_what_they_mean_upstream():
    assert cli.options_in(["-w", "64", "-d=cpu"]) == {"width": 64, "device": "cpu"}


# From more than a prompt

FEW = "--name flux-tiny --seed 3 --num_steps 2 --width 64 --height 32 --device cpu"


@pytest.fixture
def shown(run, tmp_path, monkeypatch):
    """`shown("--true_cfg 2", ...)`: the pictures that are made, RGB (3, 32, 64), and what is printed."""
    pictures = []
    make = cli.make_picture

    def keep(models, options, **how):
        pictures.append(make(models, options, **how))
        return pictures[-1]

    monkeypatch.setattr(cli, "make_picture", keep)

    def show(*words):
        pictures.clear()
        code, out, err = run(FEW, *words)
        assert code == 0, err
        return [each[0] for each in pictures], out

    return show


def expected(tiny, prompt=A_CAT, seed=3, conditions=None):
    sampling = Sampling(2, TINY.guidance, 64, 32)
    return generate(tiny, [prompt], [seed], sampling, conditions=conditions)[0]


def test_two_prompts_each_with_one_for_t5(shown, tiny):
    made, out = shown("--prompt", f"{A_CAT} | {A_BOAT}", "--prompt_2", f"{A_BOAT} | {A_CAT}")
    for picture, (first, second) in zip(made, ((A_CAT, A_BOAT), (A_BOAT, A_CAT)), strict=True):
        torch.testing.assert_close(picture, expected(tiny, first, 3, Conditions(prompts_2=(second,))))


@pytest.mark.parametrize("passes", ["", " --two_passes"])
def test_a_negative_prompt(shown, tiny, passes):
    (made,), _ = shown("--prompt", A_CAT, "--negative_prompt", A_BOAT, "--true_cfg 2.5" + passes)
    wanted = expected(tiny, conditions=Conditions(negative=Negative(A_BOAT, 2.5)))
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-3)
    assert (made - expected(tiny)).abs().max() > 0.05


def test_several_pictures_of_a_prompt(shown, tiny, tmp_path):
    made, out = shown("--prompt", A_CAT, "--per_prompt 2")
    assert "seed 3," in out and "seed 4," in out and output(tmp_path) == ["img_0.jpg", "img_1.jpg"]
    for picture, seed in zip(made, (3, 4), strict=True):
        torch.testing.assert_close(picture, expected(tiny, seed=seed))


def test_a_picture_to_start_from_and_a_mask(shown, tiny, tmp_path):
    levels = (torch.rand(64, 128, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    Image.fromarray(levels).save(tmp_path / "photo.png")
    (whole,), _ = shown("--prompt", A_CAT, "--image photo.png --strength 0.5")
    sampling = Sampling(2, TINY.guidance, 64, 32)
    start = StartPhoto(tmp_path / "photo.png", 0.5)
    conditions = open_conditions(tiny, Wanted(start=start), sampling)
    torch.testing.assert_close(whole, expected(tiny, conditions=conditions))
    (inside,), _ = shown("--prompt", A_CAT, "--image photo.png --strength 0.5 --mask 0,0,64,64")
    masked = replace(start, mask=(0, 0, 64, 64))
    conditions = open_conditions(tiny, Wanted(start=masked), sampling)
    torch.testing.assert_close(inside, expected(tiny, conditions=conditions))
    assert (inside - whole).abs().max() > 0.05


def test_regions(shown, tiny):
    words = ("--region", f"0,0,32,32: {A_CAT}", f"32,0,64,32: {A_BOAT}", "--region_layers double.*")
    (made,), _ = shown("--prompt", A_BOAT, *words)
    parts = box_region(A_CAT, (0, 0, 32, 32), (64, 32)), box_region(A_BOAT, (32, 0, 64, 32), (64, 32))
    regions = Regions(parts, ("double.*",))
    torch.testing.assert_close(made, expected(tiny, A_BOAT, conditions=Conditions(regions=regions)))


@pytest.mark.parametrize(
    "words, said",
    [
        (["--negative_prompt", "x"], "negative_prompt guides nothing by itself: give true_cfg too"),
        (["--true_cfg", "2"], "true_cfg guides away from a negative_prompt, and there is none"),
        (["--true_cfg", "abc"], "true_cfg must be a number; got 'abc'"),
        (["--strength", "0.5"], "strength is for a picture to start from: give image too"),
        (["--mask", "0,0,4,4"], "mask is for a picture to start from: give image too"),
        (["--image", "none.png"], "image: no such file: none.png"),
        (["--image", "photo.png", "--strength", "0"], "strength 0 leaves no step of 2"),
        (["--image", "photo.png", "--start_rule", "mine"], "choose from upstream, diffusers"),
        (["--image", "text.png"], "text.png: it is no picture of a kind that Pillow draws"),
        (["--image", "photo.png", "--mask", "photo.png"], "photo.png: a mask that is white all over keeps"),
        (["--region", "0,0,9"], "region '0,0,9' must be a box or a mask's file"),
        (["--region", "0,0,9,9: a", "--region_layers", "99"], "region_layers: layer 99 does not exist"),
        (["--region", "0,0,4,4: a"], "covers half of no token of 16 x 16 pixels"),
        (["--prompt", "a|b", "--prompt_2", "a|b|c"], "prompt_2 has 3 texts for 2 prompts"),
        (["--per_prompt", "0"], "per_prompt must be a whole number between 1 and 1000; got 0"),
    ],
)
def test_what_makes_no_sense_is_said_before_weights_load(run, words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "load_models", lambda *_, **__: pytest.fail("weights were loaded"))
    Image.new("RGB", (64, 64), "white").save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("no picture")
    code, out, err = run(FEW, *words)
    assert code == 2 and said in err and err.count("\n") == 1


def test_another_prompt_in_the_loop_leaves_what_t5_read_behind(run, seen, monkeypatch):
    typed(monkeypatch, "", A_BOAT)
    assert run(FEW, "--loop", "--prompt", A_CAT, "--prompt_2", "x")[0] == 0
    assert [(each.prompt, each.prompt_2) for each in seen] == [(A_CAT, "x"), (A_CAT, "x"), (A_BOAT, None)]
