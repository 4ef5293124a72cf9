"""Rated images: labels, the two real data sets as they come, and pseudo-opinions that only a formula gave."""

import pytest
import torch

import srcourse as sr
from conftest import SHARED
from srcourse import data
from srcourse.data.ratings import DISTORTIONS, pseudo_opinion, score_distribution
from srcourse.models import mean_score


def test_a_label_is_the_gaussians_mass():
    label = data.score_distribution(torch.tensor([5.5, 3.0, 1.0]), torch.tensor([1.5, 0.8, 0.3]))
    assert label.shape == (3, 10) and torch.allclose(label.sum(1), torch.ones(3))
    assert torch.allclose(label[0], label[0].flip(0), atol=1e-6)  # symmetric about 5.5
    assert mean_score(label[1]).item() == pytest.approx(3.0, abs=0.01)
    # 3 ± half a score at a deviation of 0.8: erf(0.5 / (0.8·√2))
    assert label[1, 2].item() == pytest.approx(torch.erf(torch.tensor(0.5 / (0.8 * 2**0.5))).item(), abs=1e-6)
    assert label[2, 0] > 0.95  # what lies beyond the scale goes to its end
    for mean, deviation in ((0.5, 1.0), (11.0, 1.0), (5.0, 0.0)):
        with pytest.raises(ValueError, match="means from 1 to 10 and positive deviations"):
            data.score_distribution(mean, deviation)


def test_standard_errors_taken_for_deviations_leave_one_score():
    """The trap: TID2013's 0.13 is the error of a mean over 36 people."""
    trapped, right = (data.score_distribution(6.0, 0.13 * factor) for factor in (1, 6))
    assert trapped.max() > 0.99 and right.max() < 0.6


@pytest.fixture
def tid(tmp_path):
    """Four references of one distortion, as the site packs them: capitals vary."""
    names = [f"{'I' if i % 2 else 'i'}{i:02d}_01_1.bmp" for i in range(1, 5)]
    for i, name in enumerate(names):
        sr.images.write(tmp_path / "distorted_images" / name.lower().replace("i", "I"), torch.full((3, 8, 8), i / 10))
    (tmp_path / "mos_with_names.txt").write_text("".join(f"{i}.2 {name}\n" for i, name in enumerate(names)))
    (tmp_path / "mos_std.txt").write_text("0.13\n" * 4)
    return tmp_path


def test_tid2013_comes_as_its_site_packs_it(tid):
    ratings = data.tid2013(tid)
    assert ratings.names == ["i04_01_1.bmp", "i01_01_1.bmp", "i02_01_1.bmp", "i03_01_1.bmp"]  # P002's validation comes last
    assert mean_score(ratings.distributions).tolist() == pytest.approx([4.2, 1.2, 2.2, 3.2], abs=0.25)
    assert ratings[0].image[0, 0, 0] == pytest.approx(0.3, abs=0.01) and ratings[1].name == "i01_01_1.bmp"
    assert data.tid2013(tid, observers=1).distributions.max() > ratings.distributions.max()
    assert len(ratings[1:]) == 3 and ratings[1:].names == ratings.names[1:]
    for observers in (0, -36, float("nan")):
        with pytest.raises(ValueError, match=rf"observers is {observers}: expected how many people saw each image, about 36"):
            data.tid2013(tid, observers=observers)
    (tid / "distorted_images" / "I02_01_1.bmp").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no i02_01_1\.bmp"):
        data.tid2013(tid)
    (tid / "mos_std.txt").write_text("0.13\n")
    with pytest.raises(ValueError, match=r"4 lines and mos_std\.txt 1"):
        data.tid2013(tid)
    with pytest.raises(FileNotFoundError, match=r"mos_with_names\.txt is not there"):
        data.tid2013(tid / "nowhere")


def test_tid2013s_means_come_from_about_36_people():
    """Each mean is a sum of whole numbers over its observers: find how many, for the real list."""
    file = SHARED / "tid2013" / "tid2013_name_mos_std.txt"
    if not file.is_file():
        pytest.skip(f"no {file}")
    means = torch.tensor([float(line.split()[1]) for line in file.read_text().splitlines()], dtype=torch.float64)
    observers = torch.arange(20, 60)
    sums = means[:, None] * observers
    fits = ((sums - sums.round()).abs() < 5.1e-6 * observers).double().mean(0)  # given to five digits after the point
    assert 30 <= observers[fits.argmax()] <= 40


def test_ava_comes_as_its_site_packs_it(tmp_path):
    lines = ["1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396", "2 953958 10 7 15 26 26 21 10 8 1 2 15 21 1396"]
    (tmp_path / "AVA.txt").write_text("\n".join(lines))
    for identity in ("953619", "953958"):
        sr.images.write(tmp_path / "images" / f"{identity}.jpg", torch.rand(3, 16, 24))
    ratings = data.ava(tmp_path)
    assert ratings.names == ["953619", "953958"] and ratings[1].image.shape == (3, 16, 24)
    assert torch.allclose(ratings.distributions[0], torch.tensor([0, 1, 5, 17, 38, 36, 15, 6, 5, 1.0]) / 124)
    (tmp_path / "images" / "953958.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of AVA's 2 images are not in"):
        data.ava(tmp_path)
    (tmp_path / "AVA.txt").write_text("1 953619 0 1 x")
    with pytest.raises(ValueError, match="line 1: expected a number, an image and ten counts"):
        data.ava(tmp_path)


# --- pseudo-opinions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_stronger_distortions_are_further_from_the_photo(kind):
    photo = sr.images.sample("chelsea")[:, :120, :120]
    errors = [(data.distort(photo, kind, level) - photo).square().mean().item() for level in (0.1, 0.4, 0.7, 1.0)]
    assert errors == sorted(errors) and errors[-1] > 3 * errors[0]
    assert data.distort(photo, kind, 0.5).shape == photo.shape


def test_synthetic_ratings_are_functions_of_seed_and_number(leaves):
    one, two, other = (data.synthetic_ratings(leaves, 12, size=48, seed=s) for s in (0, 0, 1))
    assert one.names == two.names != other.names
    for i in (0, 7):
        assert torch.equal(one[i].image, two[i].image) and one[i].image.shape == (3, 48, 48)
        level = float(one.names[i].split()[1])
        assert mean_score(one[i].distribution).item() == pytest.approx(pseudo_opinion(level)[0], abs=0.25)
    assert {name.split()[0] for name in data.synthetic_ratings(leaves, 40, size=48).names} == set(DISTORTIONS)
    with pytest.raises(ValueError, match="photo 0 is smaller than 96 pixels"):
        data.synthetic_ratings(leaves, 2)
    with pytest.raises(ValueError, match="a level from 0 to 1"):
        data.distort(leaves[0], "fog", 0.5)


def test_one_mean_or_deviation_serves_all_and_lengths_must_fit():
    several = score_distribution(5.0, torch.tensor([0.5, 2.0]))
    assert torch.equal(several[1], score_distribution(5.0, 2.0)[0])
    with pytest.raises(ValueError, match="2 means and 3 deviations"):
        score_distribution(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="positive deviations"):
        score_distribution(5.0, float("inf"))
    with pytest.raises(ValueError, match="there are no photos: expected at least one"):
        data.synthetic_ratings([], 3)
    with pytest.raises(ValueError, match="count is 0"):
        data.synthetic_ratings([torch.rand(3, 96, 96)], 0)
