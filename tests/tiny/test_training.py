"""Training is repeatable and survives interruption; every stage runs, at toy size."""

import numpy as np
import pytest
import torch

from flux.tiny.judge import Judge
from flux.tiny.training import autoencoder, data, dino, flow, judge, text
from flux.tiny.training.device import CPU, moved
from flux.tiny.training.evaluate import score_readings, summary
from flux.tiny.training.loop import Drawn, Stage, warmup_cosine
from flux.tiny.training.muon import FloatMuon


def _stage(folder, steps: int, **options) -> Stage:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)

    def draw(rng, step):
        return Drawn(None, rng.normal(size=(8, 4)))

    def loss(kind, x):
        x = x.float()
        return (model(x) - x.sum(dim=1, keepdim=True) + 0.01 * torch.randn(8, 1)).square().mean(), {"x": 1.0}

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return Stage("toy", folder, model, [optimizer], draw, loss, steps, ema_decay=0.9, warmup=2, **options)


def test_another_training_in_the_folder_is_refused_in_one_line(tmp_path, capsys):
    from flux.tiny.scenes import WORLD
    from flux.tiny.training.command import RECIPE, claim, main

    own = {"world": WORLD, "recipe": RECIPE, "seed": 0, "scale": 1.0}
    claim(tmp_path / "new", own)
    claim(tmp_path / "new", own)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "flow.ckpt").touch()
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "training.json").write_text('{"world": 2, "seed": 0, "scale": 1.0}\n')
    unlike = (("new", 1, "seed 0, not 1"), ("old", 0, "an earlier version"), ("shipped", 0, "recipe None"))
    for folder, seed, said in unlike:
        with pytest.raises(SystemExit) as stopped:
            main(str(tmp_path / folder), str(tmp_path / "out"), seed=seed)
        lines = capsys.readouterr().err.strip().splitlines()
        assert stopped.value.code == 2 and len(lines) == 1 and said in lines[0] and "--work" in lines[0]
    with pytest.raises(SystemExit, match="2"):
        main(str(tmp_path / "none"), str(tmp_path / "out"), scale=-1)
    assert "--scale is -1" in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert not (tmp_path / "out").exists()


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, monkeypatch):
    whole = _stage(tmp_path / "whole", 40).run()

    monkeypatch.setattr("flux.tiny.training.loop.SAVE_EVERY_SECONDS", 0.0)
    stage = _stage(tmp_path / "cut", 40)
    plain, calls = stage.loss, iter(range(1000))

    def interrupted(kind, x):
        if next(calls) == 23:
            raise KeyboardInterrupt
        return plain(kind, x)

    stage.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    resumed = _stage(tmp_path / "cut", 40).run()
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)


def test_a_checkpoint_of_a_gpu_is_gone_on_from_on_a_cpu(tmp_path, monkeypatch):
    """There the optimisers' rates are tensors and their steps can be recorded, which a CPU refuses."""
    monkeypatch.setattr("flux.tiny.training.loop.SAVE_EVERY_SECONDS", 0.0)
    whole = _stage(tmp_path / "whole", 40).run()
    cut = _stage(tmp_path / "cut", 40)
    plain, calls = cut.loss, iter(range(1000))
    cut.loss = lambda kind, x: plain(kind, x) if next(calls) < 23 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        cut.run()
    state = torch.load(cut.checkpoint, weights_only=True)
    for group in state["optimizers"][0]["param_groups"]:
        group |= {"lr": torch.tensor(group["lr"]), "capturable": True}
    torch.save(state, cut.checkpoint)
    assert torch.equal(_stage(tmp_path / "cut", 40).run().weight, whole.weight)


def test_a_stage_learns_and_logs(tmp_path):
    stage = _stage(tmp_path, 200)
    stage.run()
    assert stage.history[-1]["loss"] < 0.05 * stage.history[0]["loss"]


def test_learning_rate_warms_up_and_falls():
    rates = [warmup_cosine(step, 100, 10, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1, abs=0.01)


def test_muons_steps_are_orthogonal_for_matrices_and_kernels():
    torch.manual_seed(0)
    for shape in ((8, 24), (24, 8), (8, 4, 3, 3)):
        p = torch.nn.Parameter(torch.zeros(shape))
        p.grad = torch.randn(shape)
        FloatMuon([p], lr=0.1).step()
        singular = torch.linalg.svdvals(-p.detach().flatten(1)) / 0.1 / max(1, shape[0] / p[0].numel()) ** 0.5
        assert singular.min() > 0.5 and singular.max() < 1.3


def test_muon_agrees_with_torchs():
    """On matrices, where torch has it too, up to the rounding of its bfloat16."""
    torch.manual_seed(0)
    pair = [torch.nn.Linear(32, 16, bias=False) for _ in range(2)]
    pair[1].load_state_dict(pair[0].state_dict())
    ours = FloatMuon(pair[0].parameters(), lr=0.02, weight_decay=0.01)
    theirs = torch.optim.Muon(pair[1].parameters(), lr=0.02, momentum=0.95, weight_decay=0.01)
    start = pair[0].weight.detach().clone()
    for _ in range(3):
        gradient = torch.randn(16, 32)
        for linear, optimizer in zip(pair, (ours, theirs), strict=True):
            linear.weight.grad = gradient.clone()
            optimizer.step()
    moved = (pair[0].weight - start).norm()
    assert (pair[0].weight - pair[1].weight).norm() < 0.02 * moved


def test_a_share_of_the_crops_shows_rainy_skies(tmp_path, monkeypatch):
    """Pictures whose pixels are their own number and row tell where a crop is from."""
    truth = data.scenes(0, 12, 128, 128)
    rainy = np.flatnonzero([scene.weather == "rainy" for scene in truth])
    images = np.zeros((12, 128, 128, 3), np.uint8)
    images[..., 0] = np.arange(12)[:, None, None]
    images[..., 1] = np.arange(128)[None, :, None]
    rng = np.random.default_rng(0)
    for shows in autoencoder.CROPS:
        monkeypatch.setattr(autoencoder, "CROPS", {shows: 1.0})
        crops = np.stack([autoencoder._crop(images, truth, rainy, rng) for _ in range(60)])
        assert crops.shape == (60, 64, 64, 3)
        only_rain = set(crops[:, 0, 0, 0].tolist()) <= set(rainy.tolist())
        assert only_rain == (shows == "rain") and (crops[:, 0, 0, 1].max() < 20) == (shows == "rain")


@pytest.fixture
def toy(monkeypatch):
    """Small sets of pictures, no compilation."""
    monkeypatch.setattr(autoencoder, "PICTURES", 12)
    monkeypatch.setattr(judge, "PICTURES", 12)
    monkeypatch.setattr(judge, "DECODED", 4)
    monkeypatch.setattr(dino, "PICTURES", 12)
    monkeypatch.setattr(text, "SCENES", 60)
    monkeypatch.setattr(text, "CAPTIONS", 300)
    monkeypatch.setattr(flow, "SMALL", flow.Canvas(64, 6, 4, 0.3))
    monkeypatch.setattr(flow, "WHOLE", flow.Canvas(128, 6, 4, 0.9))
    monkeypatch.setattr(flow, "compile_blocks", lambda flow: None)


def test_every_stage_runs(tmp_path, toy):
    work, repo = tmp_path / "work", tmp_path / "repo"
    ae = autoencoder.train(work, steps=2, batch=4)
    images = np.asarray(data.pictures(work, 0, 12, 128, 128))
    z = ae.encode(data.to_model(images))
    assert z.std(dim=(0, 2, 3)).sub(1).abs().max() < 0.2
    text.train(work, repo, steps=2, batch=8)
    teacher = flow.train(work, repo, ae, steps=4, small_steps=2)
    student = flow.distil(work, repo, ae, teacher, steps=2)
    assert all(torch.isfinite(p).all() for p in student.parameters())
    whole = flow.load_examples(flow.WHOLE, work, ae, 0)
    pairs = np.asarray(data.paired_pictures(work, 0, 6, 128))
    before = [p.clone() for p in ae.encoder.parameters()]
    autoencoder.polish_decoder(work, ae, pairs, whole.scenes, whole.latents, steps=2)
    assert all(torch.equal(a, b) for a, b in zip(before, ae.encoder.parameters(), strict=True))
    assert isinstance(judge.train(work, ae, steps=2, batch=4), Judge)
    model = dino.train(work, repo, steps=2, batch=4)
    assert model.config.hidden_size == 96 and (repo / "dino" / "preprocessor_config.json").is_file()


def test_pairs_of_a_batch_share_noise_time_and_wording():
    from flux.tiny.training.layouts import paired_scenes

    truth = paired_scenes(0, 40, 128)
    empty = {name: np.full((40, 64), -1, np.int8) for name in (*flow.LABELS, "scenery")}
    latents = np.arange(40, dtype=np.float16)[:, None, None] * np.ones((1, 64, 64), np.float16)
    examples = flow.Examples(flow.Canvas(128, 40, 12, 0.9), truth, latents, empty)
    batch = moved(flow.draw(examples, np.random.default_rng(0), 0.3), CPU)
    t, noise = flow.times_and_noise(batch, 0.9)
    number = batch.clean[:, 0, 0].long()
    assert batch.same.tolist() == [0, 1, 2, 0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert (number[:3] ^ 1).tolist() == number[3:6].tolist()
    assert torch.equal(t[:3], t[3:6]) and torch.equal(noise[:3], noise[3:6])
    assert len(set(t.tolist())) == 9 and not torch.equal(noise[0], noise[6])
    # Where one has another colour, its caption has another word, and no more.
    colours = [i for i in range(0, 40, 2) if len({len(s.things) for s in truth[i : i + 2]}) == 1]
    unlike = []
    for i in colours:
        words = [flow._caption(scene, 3).split() for scene in truth[i : i + 2]]
        unlike.append(sum(a != b for a, b in zip(*words, strict=False)))
    assert np.median(unlike) <= 2


def test_what_is_made_part_by_part_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "PART", 4)
    made = []

    def rows(part):
        if part.start == 8 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(part)
        return np.arange(10)[part]

    with pytest.raises(KeyboardInterrupt):
        flow._kept(tmp_path, "rows", 10, rows)
    made.append("again")
    assert flow._kept(tmp_path, "rows", 10, rows).tolist() == list(range(10))
    assert made == [slice(0, 4), slice(4, 8), "again", slice(8, 10)]


def test_rescaled_guidance_keeps_the_contrast_of_the_captioned_picture():
    torch.manual_seed(0)
    clean, noise, plain = torch.randn(3, 2, 16, 64)
    t = torch.tensor([0.5, 0.9])
    mixed = torch.lerp(clean, noise, t[:, None, None])
    captioned, plain = noise - clean, noise - 0.2 * plain
    none = flow.guided(plain, captioned, torch.ones(2), mixed, t)
    assert torch.allclose(none, captioned, atol=1e-5)

    def contrast(velocity):
        return (mixed - t[:, None, None] * velocity).std(dim=(1, 2))

    strong = plain + 4 * (captioned - plain)
    rescaled = flow.guided(plain, captioned, torch.full((2,), 4.0), mixed, t)
    wanted, before, after = (contrast(v) for v in (captioned, strong, rescaled))
    assert (before > 1.2 * wanted).all()
    assert torch.allclose(after, before + flow.RESCALE * (wanted - before), rtol=1e-4)


def test_the_text_encoders_are_told_what_a_caption_says():
    from flux.tiny.scenes import KINDS, Scene, Thing
    from flux.tiny.training.wordings import Wording

    cars = tuple(Thing("car", "red", "big", False, x, 100) for x in (30, 90))
    sign = Thing("sign", "blue", "small", True, 60, 100, letter="K")
    scene = Scene("night", "snow", (*cars, sign), 128, 128, weather="rainy")
    said = text._labels(scene, Wording("", sky=False, sizes=(True, True, False)))
    car, sign, cat = (KINDS.index(kind) for kind in ("car", "sign", "cat"))
    assert (said["sky"], said["ground"], said["weather"]) == (3, 2, 2)
    assert [said["count"][i] for i in (car, sign, cat)] == [2, 1, 0]
    assert [said["size"][i] for i in (car, sign, cat)] == [1, 2, -1]
    assert [said["letter"][i] for i in (car, sign)] == [-1, 1] and said["hat"][sign] == 1


def test_normalising_latents_leaves_the_autoencoder_as_it_was(tmp_path):
    torch.manual_seed(0)
    from flux.models import configs
    from flux.modules.autoencoder import AutoEncoder

    ae = AutoEncoder(configs["flux-tiny"].ae_params).eval()
    images = np.asarray(data.pictures(tmp_path, 0, 12, 128, 128))
    x = data.to_model(images[:2])
    with torch.no_grad():
        before = ae(x)
        after = autoencoder.normalised(ae, images)(x)
    assert torch.allclose(before, after, atol=1e-4)


def test_scores_count_wrong_missing_and_extra_things():
    from flux.tiny.judge import FoundThing, Reading
    from flux.tiny.scenes import Scene, Thing

    scene = Scene("day", "sand", (Thing("car", "red", "big", False, 60, 100),), 128, 128)
    right = FoundThing("car", "red", "big", False, 60, 76, 0.9)
    wrong = FoundThing("boat", "blue", "small", True, 20, 76, 0.9)
    exact = summary(score_readings([Reading("day", "sand", (right,))], [scene]))
    assert exact["attributes"] == 1 and exact["extra"] == 0 and exact["missing"] == 0
    doubled = summary(score_readings([Reading("night", "sand", (wrong, right))], [scene]))
    assert doubled["sky"] == 0 and doubled["kind"] == 1 and doubled["extra"] == 1
    none = summary(score_readings([Reading("day", "sand", ())], [scene]))
    assert none["kind"] == 0 and none["missing"] == 1


def test_a_summary_says_how_sure_it_is():
    from flux.tiny.training.evaluate import wilson_interval

    assert wilson_interval(0, 10)[0] == 0 and wilson_interval(10, 10)[1] == 1
    assert wilson_interval(9, 10) == pytest.approx((0.596, 0.982), abs=1e-3)  # as in textbooks
    figures = summary({"sky": [1, 0], "kind": [1, 1], "extra": [2], "missing": [0]})
    assert figures["cases"] == {"attributes": 4, "sky": 2, "kind": 2}
    assert figures["attributes"] == 0.75 and figures["extra"] == 2 and figures["pictures"] == 1
    low, high = figures["intervals"]["sky"]
    assert low < 0.5 < high


def test_scenes_to_ask_with_hold_enough_of_each_detail():
    from flux.tiny.scenes import is_held_out
    from flux.tiny.training.evaluate import held_out_scenes

    scenes = held_out_scenes(10, cases=8)
    assert scenes[:10] == held_out_scenes(10) and all(is_held_out(scene) for scene in scenes)
    for kind in ("figure", "sign"):
        assert sum(thing.kind == kind for scene in scenes for thing in scene.things) >= 8


def test_saturated_pixels_are_counted():
    from flux.tiny.training.evaluate import saturated_shares

    x = torch.zeros(2, 3, 4, 4)
    x[0, 1, 0] = 1.5  # one channel of a row is too bright
    x[1, :, 0, 0] = -1.0
    assert saturated_shares(x) == [0.25, 1 / 16]


def test_rains_contrast_is_measured_where_nothing_else_differs():
    from flux.tiny.scenes import SKIES, sample_scene
    from flux.tiny.training.evaluate import streaks_kept

    rng = np.random.default_rng(0)
    truth = [sample_scene(rng) for _ in range(6)]
    assert {scene.sky for scene in truth} <= set(SKIES)
    assert streaks_kept(lambda x: x, truth) == pytest.approx(1)
    assert streaks_kept(lambda x: 0.5 * x + 0.1, truth) == pytest.approx(0.5)
    flat = streaks_kept(lambda x: x.mean(dim=-1, keepdim=True).expand_as(x), truth)
    assert flat < 0.4


def test_phrasings_are_judged_by_what_they_say():
    from flux.tiny.judge import FoundThing, Reading
    from flux.tiny.scenes import Scene, Thing

    scene = Scene(None, "sand", (Thing("car", "red", None, None, 0, 0),) * 2, 128, 128, weather=None)
    cars = tuple(FoundThing("car", "red", size, True, x, 76, 0.9) for size, x in (("big", 30), ("small", 90)))
    both = summary(score_readings([Reading("night", "sand", cars, "rainy")], [scene]))
    assert both["attributes"] == 1 and both["cases"]["attributes"] == 5 and both["missing"] == 0
    one = summary(score_readings([Reading("night", "sand", cars[:1], "rainy")], [scene]))
    assert one["missing"] == 1 and one["attributes"] == 3 / 5


def test_clip_is_saved_under_the_names_of_the_official_files(tmp_path):
    """transformers 5 writes them without their prefix, and 4 then finds none."""
    from safetensors import safe_open
    from transformers import CLIPTextConfig, CLIPTextModel

    from flux.tiny.training.export import save_clip
    from flux.util import TINY_WEIGHTS

    shape = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=20, max_position_embeddings=7, **shape)).eval()
    save_clip(clip, tmp_path)
    again = CLIPTextModel.from_pretrained(tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(again(input_ids=ids).pooler_output, clip(input_ids=ids).pooler_output)
    for folder in (tmp_path, TINY_WEIGHTS / "text_encoder"):
        with safe_open(folder / "model.safetensors", "pt") as file:
            assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118


def test_the_card_compares_vital_layers_with_as_many_of_the_least_important(tmp_path):
    import json
    from types import SimpleNamespace

    from flux.tiny.training.card import VITAL_SET, edit_sets

    models = SimpleNamespace(flow=SimpleNamespace(double_blocks=[None], single_blocks=[None] * 3))
    assert set(edit_sets(models, tmp_path)) == {"none", "default", "all"}
    found = {"layers": [0, "single.1"], "similarity": [0.2, 0.9, 0.5, 0.95]}
    (tmp_path / VITAL_SET).write_text(json.dumps(found))
    (tmp_path / VITAL_SET).write_text(json.dumps(found | {"layers": []}))
    assert "vital" not in edit_sets(models, tmp_path)
    (tmp_path / VITAL_SET).write_text(json.dumps(found))
    sets = edit_sets(models, tmp_path)
    assert sets["vital"] == (0, 2) and sets["least important"] == (1, 3)
    assert sets["vital single blocks"] == (1, 2)
    assert sets["all"] == (0, 1, 2, 3) and sets["none"] == ()


def test_the_card_says_how_sure_it_is_and_what_is_not_understood():
    import json

    from flux.tiny.training.card import as_markdown
    from flux.util import TINY_WEIGHTS

    score = {"sky": [1, 0], "letter": [1] * 100, "extra": [0], "missing": [0]}
    card = json.loads((TINY_WEIGHTS / "card.json").read_text())
    asked = card["generated"]["3.5"] | {"clipped": 0.005}
    asked |= {name: summary(score)[name] for name in ("cases", "intervals")}
    edit = {"pairs": 8} | dict.fromkeys(
        [f"{key}{end}" for key in ("kept_db", "made", "others") for end in ("", "_interval")], 0.5
    )
    card |= {
        "streaks_kept": 0.876,
        "generated": card["generated"] | {"3.5": asked},
        "phrasings": {
            "pictures": 2,
            "understood": 0.5,
            "attributes": 0.9,
            "not_understood": ["night, and so on"],
        },
        "edits_of_things": {"none": {"layers": [], "added": edit, "removed": edit, "all": edit}},
    }
    page = as_markdown(card)
    assert "it keeps 88% of the contrast of rain by day" in page and "0.5% of the pictures" in page
    assert "| letter | 0.846 | 0.963 to 1.000 | 100 |" in page
    assert "50% are understood" in page and "- night, and so on" in page
    assert "| none | added | 0.5 ± 0.5 | 0.50 ± 0.50 | 0.50 ± 0.50 | 8 |" in page
    assert "| none | sky |" in page and "## One layer at a time" in page


def test_an_interval_of_a_mean_is_that_of_a_table_book():
    from flux.tiny.training.card import mean_and_interval

    mean, half = mean_and_interval([1.0, 0.0, 1.0, 1.0])
    assert mean == 0.75 and half == pytest.approx(1.96 * 0.5 / 2)
    assert mean_and_interval([3.0]) == (3.0, 0.0)


def test_the_card_tells_whether_important_layers_keep_more():
    from flux.tiny.training.card import layer_lines, rank_correlation, with_importance

    assert rank_correlation([0.1, 0.5, 0.2], [10, 30, 20]) == pytest.approx(1)
    assert rank_correlation([0.1, 0.5, 0.2], [3, 1, 2]) == pytest.approx(-1)
    table = {"pairs": 3, "gained_db": [1.0, -0.25], "made": [0.5, 1.0]}
    assert layer_lines(table)[1:] == ["| 0 | - | +1.0 | 0.50 |", "| 1 | - | -0.2 | 1.00 |"]
    # The double block matters most and keeps nothing; of the single blocks the important one keeps more.
    table = {"pairs": 3, "gained_db": [0.0, 2.0, 1.0], "made": [1.0, 0.5, 1.0]}
    known = layer_lines(table | with_importance(table["gained_db"], [0.4, 0.8, 0.9], depth=1))
    assert known[1].startswith("| 0 | 0.400 |")
    found = layer_lines(table | {"vital": [0], "rule": "gap", "prompts": 3})
    assert "0, by the rule `gap`" in found[0] and found[2:] == layer_lines(table)[1:]
    assert known[-1].endswith("gained: -0.50; of the single blocks alone: 1.00.")


def test_scenes_are_the_same_whatever_the_number_of_cores(monkeypatch):
    """Two processes, one process; a longer list begins with the shorter one."""
    from flux.tiny.training import layouts, processes

    def drawn(workers: int, count: int) -> tuple:
        monkeypatch.setattr(processes, "cores", lambda: workers)
        return layouts.paired_scenes.__wrapped__(3, count, 64)

    monkeypatch.setattr(processes, "FEW", 200)
    together = drawn(2, 1100)
    assert len(together) == 1100 and drawn(1, 1100) == together
    assert drawn(1, 40) == together[:40] and len(set(together)) > 1000


def test_what_is_drawn_ahead_is_what_is_drawn_in_turn(tmp_path):
    stage = _stage(tmp_path, 6)
    alone = list(stage._drawn(2, "cpu"))
    ahead = list(stage._drawn(2, "cuda"))
    assert len(alone) == 4
    for (seed, one), (other_seed, other) in zip(alone, ahead, strict=True):
        assert seed == other_seed and one.kind == other.kind and np.array_equal(one.arrays, other.arrays)


def test_a_thing_is_learned_where_a_word_names_it():
    """The loss over all tokens is that over the tokens that name things, taken out one by one."""
    from torch.nn import functional as F

    from flux.tiny.scenes import KINDS

    torch.manual_seed(0)
    names = text.THING_CLASSES
    logits = torch.randn(3, 7, sum(names.values()) + text.MOST_ALIKE)
    kinds = torch.full((3, 7), -1)
    kinds[0, 2], kinds[0, 5], kinds[2, 0] = 1, 3, 6
    truth = {name: torch.randint(-1, classes, (3, len(KINDS))) for name, classes in names.items()}
    truth["count"] = torch.randint(1, 3, (3, len(KINDS)))
    expected = 0.0
    sizes = [*names.values(), text.MOST_ALIKE]
    for i, name in enumerate([*names, "count"]):
        values = []
        for row, place in ((0, 2), (0, 5), (2, 0)):
            kind = int(kinds[row, place])
            target = {"kind": kind, "count": int(truth["count"][row, kind]) - 1}
            target = target.get(name, int(truth[name][row, kind]))
            if target >= 0:
                part = logits[row, place].split(sizes)[i]
                values.append(F.cross_entropy(part[None], torch.tensor([target])))
        expected = expected + sum(values) / max(1, len(values))
    assert text.thing_loss(logits, kinds, truth) == pytest.approx(float(expected), rel=1e-5)


def test_a_tokenizer_leaves_nothing_to_chance(tmp_path):
    """Two processes hash the same words in another order."""
    import subprocess
    import sys

    program = (
        "import sys; from pathlib import Path; from flux.tiny.training import tokenizers;"
        "tokenizers.train_clip(['a red cat', 'two white boats at night'], Path(sys.argv[1]), 16)"
    )
    for name in ("one", "other"):
        subprocess.run([sys.executable, "-c", program, tmp_path / name], check=True)
    one, other = ((tmp_path / name / "tokenizer.json").read_text() for name in ("one", "other"))
    assert one == other


@pytest.mark.gpu
def test_a_recorded_training_is_the_plain_one(tmp_path, monkeypatch):
    """The same steps one by one and as CUDA graphs, the flow model's and the autoencoder's."""
    from flux.tiny.training import graphs

    def trained(folder, warm_ups: int) -> list[torch.Tensor]:
        monkeypatch.setattr(graphs, "WARM_UPS", warm_ups)
        ae = autoencoder.train(folder, steps=12, batch=4, device=torch.device("cuda"))
        text.train(folder, folder / "repo", steps=8, batch=8, device=torch.device("cuda"))
        flow_model = flow.train(folder, folder / "repo", ae, steps=16, small_steps=4)
        return [p.detach().cpu() for model in (ae, flow_model) for p in model.parameters()]

    monkeypatch.setattr(autoencoder, "PICTURES", 12)
    monkeypatch.setattr(text, "SCENES", 60)
    monkeypatch.setattr(text, "CAPTIONS", 300)
    monkeypatch.setattr(flow, "SMALL", flow.Canvas(64, 6, 4, 0.3))
    monkeypatch.setattr(flow, "WHOLE", flow.Canvas(128, 6, 4, 0.9))
    plain, recorded = trained(tmp_path / "plain", 1000), trained(tmp_path / "recorded", 3)
    for one, other in zip(plain, recorded, strict=True):
        assert (one - other).norm() <= 1e-2 * one.norm() + 1e-4
