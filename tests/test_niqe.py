"""NIQE: against the published scores and plain NumPy, monotone in distortion; its loss has a true gradient."""

import http.server
import importlib.util
import io
import sys
import threading

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.ndimage import correlate
from scipy.stats import gennorm, spearmanr

import srcourse as sr
from conftest import ROOT, SHARED
from srcourse.metrics.niqe import NIQE, aggd, block_features, fit_pristine, load_pristine, mscn, pristine_card, save_pristine


def script(name):
    """A module of data_scripts/ or benchmarks/, which are no packages."""
    path = next(path for folder in ("data_scripts", "benchmarks") if (path := ROOT / folder / f"{name}.py").exists())
    spec = importlib.util.spec_from_file_location(f"_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official():
    path = SHARED / "niqe" / "modelparameters.mat"
    if not path.is_file():
        pytest.skip(f"no official NIQE model in {path}")
    return NIQE(path)


def blurred(image, sigma):
    return torchvision.transforms.functional.gaussian_blur(image, 2 * int(4 * sigma) + 1, sigma)


def noisy(image, sigma):
    return (image + sigma / 255 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(sr.images.to_uint8(image).permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255


# --- against the truth ------------------------------------------------------------------------------------------


def test_the_published_scores(official, benchmarks_folder):
    baboon = sr.images.read(benchmarks_folder / "Set14" / "HR" / "baboon.png")
    assert official(baboon) == pytest.approx(5.7296, abs=0.0005)
    for name, expected in (("Set5", 8.54), ("Set14", 7.72)):  # P002 table 2: 8.540 and 7.764
        (benchmark,) = sr.data.benchmarks(benchmarks_folder / name, 4)
        scores = [official(sr.degradation.upscale(pair.lr, 4), border=4) for pair in benchmark]
        assert np.mean(scores) == pytest.approx(expected, abs=0.03)


def test_both_forms_of_the_official_model_are_the_same(official):
    other = NIQE(SHARED / "niqe" / "niqe_pris_params.npz")
    assert torch.allclose(official.mean, other.mean) and torch.allclose(official.covariance, other.covariance)


def test_scores_are_those_of_plain_numpy():
    plain = script("niqe")
    leaves = sr.data.DeadLeaves(seed=3, size=224)
    batch = torch.stack([leaves[i] for i in range(3)])
    metric = NIQE()
    pristine = metric.mean.numpy(), metric.covariance.numpy()
    expected = [plain.plain_niqe(rgb, *pristine) for rgb in batch[..., 4:204, 4:204].numpy()]
    assert metric.scores(batch[..., :208, :208], border=4).numpy() == pytest.approx(expected, abs=1e-6)


def test_mscn_is_the_definition():
    luma = torch.rand(1, 40, 50, dtype=torch.float64) * 255
    axis = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    window = np.outer(axis, axis) / axis.sum() ** 2
    y = luma[0].numpy()
    mean = correlate(y, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(y**2, window, mode="nearest") - mean**2))
    coefficients, sigma = mscn(luma)
    assert np.allclose(coefficients[0].numpy(), (y - mean) / (deviation + 1), atol=1e-9)
    assert np.allclose(sigma[0].numpy(), deviation, atol=1e-6)
    assert (mscn(torch.full((1, 20, 20), 77.7, dtype=torch.float64))[0] == 0).all()  # rounding noise is no structure


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 4.0])
def test_aggd_finds_the_distribution_that_samples_come_from(shape):
    """Generalised Gaussian samples of known shape, their right side stretched to another scale."""
    x = torch.from_numpy(gennorm.rvs(shape, scale=1.0, size=400_000, random_state=0))
    sides = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    x = torch.where(sides < 0.75, x.abs() * 3, -x.abs())  # α asymmetric: P(right) = β_r / (β_l + β_r) = 3/4
    found, left, right = aggd(x)
    assert found == pytest.approx(shape, rel=0.03)
    assert left == pytest.approx(1, rel=0.03) and right == pytest.approx(3, rel=0.03)


# --- what it is for ---------------------------------------------------------------------------------------------

# textures and a starry sky are not what NIQE's photographs are like: only strong steps are ordered on all
LEVELS = {"blur": (blurred, (1, 2, 3)), "noise": (noisy, (10, 20, 40)), "jpeg": (jpeg, (70, 20, 10))}
BIG = [name for name in sr.images.SAMPLES if min(sr.images.sample(name).shape[-2:]) >= 192]


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("name", BIG)
def test_stronger_distortion_scores_worse(name, kind):
    photo = sr.images.sample(name)
    photo = photo[:, : 96 * 8, : 96 * 8]
    distort, levels = LEVELS[kind]
    scores = [sr.metrics.niqe(distort(photo, level)) for level in levels]
    assert scores == sorted(scores), scores


def test_the_courses_model_ranks_as_the_official_one(official, benchmarks_folder):
    ours, theirs, own = [], [], NIQE()
    for benchmark in sr.data.benchmarks(benchmarks_folder, 4):
        for pair in benchmark:
            bicubic = sr.degradation.upscale(pair.lr, 4).clamp(0, 1)
            for image in (pair.hr, bicubic, jpeg(pair.hr, 10), noisy(pair.hr, 15), blurred(pair.hr, 1.5)):
                if min(image.shape[-2:]) >= 200:
                    ours.append(own(image, border=4))
                    theirs.append(official(image, border=4))
    assert len(ours) >= 60
    assert spearmanr(ours, theirs).statistic >= 0.92


def test_the_courses_model_says_what_it_is_from():
    card = pristine_card()
    assert "464" in card["photos"] and "BSDS500" in card["description"]
    mean, covariance = load_pristine("course")
    assert mean.shape == (36,) and torch.allclose(covariance, covariance.T) and torch.linalg.eigvalsh(covariance)[0] > 0


# --- shapes, batches, errors ------------------------------------------------------------------------------------


def test_a_batch_is_its_images_and_the_rest_of_the_image_does_not_count():
    leaves = sr.data.DeadLeaves(seed=5, size=200)
    batch = torch.stack([leaves[i] for i in range(3)])
    metric = NIQE()
    scores = metric.scores(batch)
    assert scores.tolist() == [metric(image) for image in batch]
    assert sr.metrics.niqe(batch) == pytest.approx(scores.mean().item())
    changed = batch.clone()
    changed[..., 192:, :] = 0  # 200 pixels are two blocks and a rest that nothing looks at
    assert torch.equal(metric.scores(changed), scores)
    luma = sr.images.rgb_to_y(sr.images.quantize(batch[0].double()))
    assert metric(luma) == pytest.approx(scores[0].item(), abs=1e-6)


def test_an_image_without_structure_has_no_score():
    assert np.isnan(sr.metrics.niqe(torch.full((3, 192, 192), 0.5)))


def test_bad_input_gets_one_line(tmp_path, monkeypatch):
    for call, words in {
        lambda: sr.metrics.niqe(torch.rand(3, 96, 96)): "96×96 pixels, too small for NIQE: expected at least 96×192",
        lambda: sr.metrics.niqe(torch.rand(3, 196, 98), border=4): "188×90 pixels within a border of 4",
        lambda: sr.metrics.niqe(torch.rand(2, 200, 200)): "expected an image",
        lambda: sr.metrics.niqe(torch.full((3, 200, 200), float("nan"))): "NaN",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("SRCOURSE_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"'official' is not here .*run data_scripts/niqe_official\.py once"):
        NIQE("official")
    with pytest.raises(FileNotFoundError, match="expected 'course', 'official' or a file"):
        NIQE(tmp_path / "none.npz")
    (tmp_path / "a.safetensors").write_text("no")
    np.savez(tmp_path / "b.npz", mu_pris_param=np.zeros(35), cov_pris_param=np.eye(36))
    np.savez(tmp_path / "c.npz", something=np.zeros(35))
    (tmp_path / "d.txt").write_text("no")
    (tmp_path / "e.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:300])
    (tmp_path / "f.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    for name in ("a.safetensors", "b.npz", "c.npz", "d.txt", "e.npz", "f.mat"):
        with pytest.raises(ValueError, match="is no pristine model"):
            NIQE(tmp_path / name)


# --- fitting and fetching ---------------------------------------------------------------------------------------


def test_fitting_keeps_sharp_blocks_and_survives_a_file(tmp_path):
    leaves = sr.data.DeadLeaves(seed=7, size=384)
    photos = [leaves[i] for i in range(20)]
    soft = photos[0].clone()
    soft[..., :192] = blurred(soft, 5)[..., :192]  # a photo half out of focus: those blocks must not count
    mean, covariance = fit_pristine([*photos, soft, torch.rand(3, 40, 40)])
    kept = []
    for photo in [*photos, soft]:
        luma = sr.images.to_uint8(sr.images.rgb_to_y(sr.images.to_uint8(photo).double() / 255)).double()
        features, sharpness = block_features(luma)
        kept.append(features[0][sharpness[0] > 0.75 * sharpness.max()])
    assert all(len(rows) <= 8 for rows in kept[-1:]) and torch.allclose(torch.cat(kept).mean(0), mean)
    save_pristine(tmp_path / "p.safetensors", mean, covariance, {"photos": 21})
    metric = NIQE(tmp_path / "p.safetensors")
    assert torch.equal(metric.mean, mean) and torch.equal(metric.covariance, covariance)
    assert pristine_card(tmp_path / "p.safetensors") == {"photos": 21}
    with pytest.raises(ValueError, match="sharp blocks: expected at least 100"):
        fit_pristine(photos[:2])


@pytest.mark.parametrize("halves", [True, False])
def test_photos_of_a_pixel_are_told_as_all_that_are_too_small(halves, tmp_path):
    sr.images.write(tmp_path / "photos" / "pixel.png", torch.rand(3, 1, 1))
    with pytest.raises(ValueError, match=r"have 0 sharp blocks: expected at least 100 .*, in photos of at least 96×192 pixels$"):
        script("fit_niqe").main(tmp_path / "photos", out=tmp_path / "p.safetensors", halves=halves, description="a pixel")


def test_the_fitting_script_works_as_its_help_says(tmp_path):
    leaves = sr.data.DeadLeaves(seed=7, size=384)
    for i in range(16):
        sr.images.write(tmp_path / "photos" / f"{i}.png", leaves[i])
    script("fit_niqe").main(tmp_path / "photos", out=tmp_path / "p.safetensors", halves=True, description="leaves")
    assert pristine_card(tmp_path / "p.safetensors")["photos"] == "16, at full and half size"
    assert NIQE(tmp_path / "p.safetensors")(leaves[0]) > 0


def test_the_official_model_is_fetched_checked_and_not_twice(tmp_path, monkeypatch):
    import hashlib

    monkeypatch.setenv("SRCOURSE_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "model.npz", mu_pris_param=np.arange(36.0), cov_pris_param=np.eye(36))
    content, asked = (tmp_path / "model.npz").read_bytes(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fetch, address = script("niqe_official").fetch, f"http://127.0.0.1:{server.server_port}/niqe.npz"
    try:
        with pytest.raises(ValueError, match="hash"):
            fetch(address, "0" * 64)
        assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
        for _ in range(2):
            fetch(address, hashlib.sha256(content).hexdigest())
        assert len(asked) == 2  # the refused one, and the first good one
        assert NIQE("official").mean.tolist() == list(range(36))
    finally:
        server.shutdown()
        server.server_close()


# --- the loss ---------------------------------------------------------------------------------------------------


def test_the_loss_is_niqe_of_one_image():
    metric, loss = NIQE(), sr.losses.NaturalnessLoss()
    for name in ("astronaut", "chelsea", "coffee"):
        photo = sr.images.sample(name)
        assert loss(photo[None]).item() == pytest.approx(metric(photo, quantize=False), rel=0.02)


def test_the_loss_pools_as_asked():
    leaves = sr.data.DeadLeaves(seed=5, size=192)
    batch = torch.stack([leaves[i] for i in range(3)])
    loss = sr.losses.NaturalnessLoss(pool="image")
    assert loss(batch).item() == pytest.approx(np.mean([loss(image[None]).item() for image in batch]), rel=1e-4)
    patches = batch[..., :96, :96]
    assert torch.isfinite(sr.losses.NaturalnessLoss()(patches))
    with pytest.raises(ValueError, match="fewer than two blocks of 96"):
        loss(patches)
    for options, words in (({"block": 15}, "even number"), ({"pool": "none"}, "'batch' or 'image'")):
        with pytest.raises(ValueError, match=words):
            sr.losses.NaturalnessLoss(**options)
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
        loss(batch[0])


def test_the_losses_gradient_is_true():
    loss = sr.losses.NaturalnessLoss(block=16)
    x = torch.rand(1, 3, 32, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(loss, (x,), fast_mode=True)
    small = torch.rand(1, 1, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v: loss(x.detach() + 0.1 * torch.nn.functional.interpolate(v, (32, 48), mode="bilinear")), (small,)
    )


def test_the_shape_is_the_equations_root():
    from srcourse.losses.naturalness import shape_of_ratio, smooth_aggd

    shapes = torch.tensor([0.21, 0.5, 1.0, 2.0, 3.3333, 9.9], dtype=torch.float64)
    ratios = torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))
    assert torch.allclose(shape_of_ratio(ratios), shapes, rtol=1e-8)
    x = ratios[1:-1].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(shape_of_ratio, (x,))
    samples = torch.randn(5, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) ** 3 + 0.1
    for smooth, table in zip(smooth_aggd(samples), aggd(samples), strict=True):
        assert torch.allclose(smooth, table, atol=1e-3, rtol=1e-3)


def test_descending_the_loss_lowers_the_true_score_of_a_noisy_photo():
    photo = sr.images.sample("chelsea")[:, :192, 100:292]
    start = noisy(photo, 15)
    pixels, loss = start[None].clone().requires_grad_(True), sr.losses.NaturalnessLoss()
    adam = torch.optim.Adam([pixels], lr=2e-3)
    for _ in range(200):
        adam.zero_grad()
        loss(pixels).backward()
        adam.step()
    assert sr.metrics.niqe(pixels.detach()[0]) < 0.5 * sr.metrics.niqe(start)


def test_constant_patches_do_not_break_the_loss():
    x = torch.full((2, 3, 96, 96), 0.5, requires_grad=True)
    value = sr.losses.NaturalnessLoss()(x)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(x.grad).all()


# --- the perceptual index -------------------------------------------------------------------------------------------


def test_the_perceptual_index_is_its_formula():
    photo = sr.images.sample("astronaut")
    assert sr.metrics.perceptual_index(photo, 7.5, border=4) == pytest.approx((10 - 7.5 + sr.metrics.niqe(photo, border=4)) / 2)
    seen = []

    def score(image):
        seen.append(image)
        return torch.tensor(8.0)

    whole = sr.metrics.perceptual_index(photo + 0.001, score, border=4)
    assert whole == pytest.approx((10 - 8 + sr.metrics.niqe(photo + 0.001, border=4)) / 2)
    assert torch.equal(seen[0], sr.images.quantize(photo + 0.001)[:, 4:-4, 4:-4])


def test_the_sr_score_of_pyiqa_is_asked_for_by_need(monkeypatch, tmp_path):
    """A stand-in for pyiqa, which is not a dependency: what it is asked, and that nothing imports it before."""
    calls = []

    class Stand:
        @staticmethod
        def create_metric(name, **options):
            calls.append((name, options))
            if "bad" in options.get("pretrained_model_path", ""):
                raise KeyError("model")
            return lambda batch: batch.mean() * 0 + 6.0

    photo = sr.images.sample("chelsea")
    with pytest.raises(ImportError, match="pip install pyiqa, or pass sr_score as a number"):
        sr.metrics.perceptual_index(photo)
    monkeypatch.setitem(sys.modules, "pyiqa", Stand)
    model, bad = tmp_path / "model.mat", tmp_path / "bad.mat"
    model.write_text("")
    bad.write_text("")
    expected = (10 - 6 + sr.metrics.niqe(photo)) / 2
    assert sr.metrics.perceptual_index(photo) == pytest.approx(expected)
    assert sr.metrics.perceptual_index(photo, model) == pytest.approx(expected)
    assert calls == [("nrqm", {"device": "cpu"}), ("nrqm", {"device": "cpu", "pretrained_model_path": str(model)})]
    with pytest.raises(ValueError, match=r"bad.mat is no SR score model .*expected the .mat of Ma"):
        sr.metrics.perceptual_index(photo, bad)


@pytest.mark.parametrize(
    "score, error, words",
    [
        (float("nan"), ValueError, "the SR score is nan: expected a number"),
        (lambda image: image, ValueError, "expected one number"),
        ("absent.mat", FileNotFoundError, "no SR score model 'absent.mat'"),
        (None, ValueError, "the SR score is None: expected one number"),
    ],
)
def test_a_wrong_sr_score_is_told(score, error, words):
    with pytest.raises(error, match=words):
        sr.metrics.perceptual_index(sr.images.sample("chelsea"), score)


def test_the_perceptual_index_takes_one_colour_image():
    with pytest.raises(ValueError, match=r"expected an image \(3, H, W\)"):
        sr.metrics.perceptual_index(torch.rand(2, 3, 200, 200), 5)


@pytest.mark.parametrize("broken", ["asymmetric", "negative"])
def test_a_matrix_that_is_no_covariance_is_refused(tmp_path, broken):
    mean, covariance = load_pristine("course")
    covariance = covariance.clone()
    if broken == "asymmetric":
        covariance[0, 1] += 1
    else:
        covariance[0, 0] = -1
    save_pristine(tmp_path / "m.safetensors", mean, covariance, {})
    with pytest.raises(ValueError, match="is no pristine model"):
        NIQE(tmp_path / "m.safetensors")
