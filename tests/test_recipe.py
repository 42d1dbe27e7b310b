"""Recipes that fit the data: enough steps, batches that small data can fill, and a learning rate scaled to them."""

import json
from pathlib import Path

import pytest

from pretrim.cli import main
from pretrim.errors import UsageError
from pretrim.train import Recipe, preset
from pretrim.train.recipe import MOST_EPOCHS, PRESETS, STEPS, fitted


@pytest.mark.parametrize("images", [2, 16, 17, 50, 100, 486, 600, 1_000, 1_458, 5_000, 8_000, 45_000, 1_281_167])
def test_recipes_have_enough_steps_or_the_maximum_number_of_epochs(images: int) -> None:
    recipe = Recipe(**fitted(images))
    steps = recipe.epochs * max(images // recipe.batch_size, 1)
    assert steps >= STEPS or recipe.epochs == MOST_EPOCHS
    assert 16 <= recipe.batch_size <= 128 and recipe.epochs >= Recipe.epochs
    assert recipe.learning_rate / recipe.batch_size == pytest.approx(Recipe.learning_rate / Recipe.batch_size)


def test_more_images_give_larger_batches_and_fewer_epochs() -> None:
    recipes = [fitted(images) for images in (100, 500, 1_000, 2_000, 4_000, 8_000, 50_000)]
    batches = [recipe["batch_size"] for recipe in recipes]
    assert batches == sorted(batches) and len(set(batches)) >= 4
    assert recipes[-1] == {"epochs": 30, "batch_size": 128, "learning_rate": 0.1}, "the plain recipe"


def test_requested_values_are_kept_and_the_others_adapt_to_them() -> None:
    assert preset("photos", 600, changes={"epochs": 3}).epochs == 3
    recipe = preset("photos", 600, changes={"batch_size": 64})
    assert (recipe.batch_size, recipe.learning_rate, recipe.epochs) == (64, 0.05, MOST_EPOCHS)
    assert preset("photos", 600, changes={"batch_size": 64, "learning_rate": 0.3}).learning_rate == 0.3
    assert preset("digits", 1_458, changes={"batch_size": 32}).learning_rate == 0.025
    assert preset("photos", 600, fine_tune=True).learning_rate == pytest.approx(0.00125)


def test_a_known_recipe_is_used_only_for_the_number_of_images_it_was_measured_with() -> None:
    assert preset("digits", 1_458) == Recipe(**PRESETS["digits"].changes) == preset("digits")
    assert preset("digits", 300) == Recipe(**fitted(300))
    assert preset("photos") == Recipe()


@pytest.mark.parametrize("batch_size", [-1, 0, 1])
def test_batch_sizes_below_2_are_refused(batch_size: int) -> None:
    with pytest.raises(UsageError, match=f"Expected batch_size to be at least 2, but got {batch_size}"):
        preset("photos", 600, changes={"batch_size": batch_size})


def test_compress_and_sweep_fit_the_recipe_to_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "digits", "--input", "1x8x8", "--max-images", "100", "--epochs", "1"]
    with pytest.raises(SystemExit):
        main(["compress", "resnet20", *options, "--macs", "0.5x", "-o", str(tmp_path / "run"), "--json"])
    captured = capsys.readouterr()
    recipe = json.loads(captured.out)["results"]["recipe"]
    assert (recipe["batch_size"], recipe["learning_rate"]) == (16, 0.0125)
    assert "training, slim: 1 epoch, batches of 16, learning rate 0.0125; cpu" in captured.err
    with pytest.raises(SystemExit):
        main(["sweep", "resnet20", *options, "--modes", "uniform", "--budget-fraction", "0.5", "--no-dense", "-o",
              str(tmp_path / "study"), "--json"])  # fmt: skip
    (trial,) = json.loads(capsys.readouterr().out)
    study = json.loads((tmp_path / "study" / "trials" / trial["key"] / "run.json").read_text())
    assert study["results"]["epochs"][0]["learning_rate"] < 0.0125 and len(study["results"]["epochs"]) == 1
