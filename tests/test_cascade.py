"""The cascade table: rules that exclude each other, and steps whose needs can be met."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.naming import PRODUCT_CODES, STATIC_CODES
from archive.select import Level
from recipes.recipe import Recipe
from tasks.cascade import RECIPES, RULES, STEPS, STEPS_BY_TAG, CascadeStep, Rule, Tag, recipe_of

WORDS = sorted({word for rule in RULES for word in (*rule.words, *rule.without, *rule.type.split(","))} | {"", "DOME"})
CATEGORIES = sorted({catg for rule in RULES for catg in rule.catg} | {"", "OTHER"})


def example_of(rule: Rule) -> tuple[str, str]:
    """A DPR.CATG and DPR.TYPE that the rule is meant for."""
    return rule.catg[0], rule.type or ",".join(rule.words) or "ANYTHING"


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_each_rule_matches_its_own_frames_alone(rule: Rule) -> None:
    for catg in rule.catg:
        assert [other for other in RULES if other.matches(catg, example_of(rule)[1])] == [rule]


@pytest.mark.parametrize(("one", "other"), list(combinations(RULES, 2)), ids=lambda rule: rule.tag)
def test_no_two_rules_can_match_one_frame(one: Rule, other: Rule) -> None:
    """Whatever the type says: categories differ, or the types do, or one wants a word that the other forbids."""
    apart = not set(one.catg) & set(other.catg)
    for rule, against in ((one, other), (other, one)):
        if rule.type:
            apart |= not against.matches(against.catg[0], rule.type)
        else:
            apart |= bool(set(rule.words) & set(against.without))
    assert apart


@given(catg=st.sampled_from(CATEGORIES), words=st.lists(st.sampled_from(WORDS), max_size=6))
def test_any_mixture_of_words_matches_one_rule_at_most(catg: str, words: list[str]) -> None:
    assert sum(rule.matches(catg, ",".join(words)) for rule in RULES) <= 1


def test_every_tag_but_unknown_has_a_rule() -> None:
    assert {rule.tag for rule in RULES} == set(Tag) - {Tag.UNKNOWN}


def test_no_tag_is_reduced_twice() -> None:
    assert len(STEPS_BY_TAG) == len(STEPS)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_what_a_step_needs_is_made_before_it_or_static(step: CascadeStep) -> None:
    before = {catg for earlier in STEPS[: STEPS.index(step)] for catg in earlier.makes}
    later = {catg for other in STEPS[STEPS.index(step) :] for catg in other.makes}
    for need in step.needs:
        assert need.catg in before | STATIC_CODES.keys()
        assert need.catg not in later


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_levels_widen_and_get_worse(step: CascadeStep) -> None:
    for need in step.needs:
        for better, worse in pairwise(need.levels):
            assert (better.days, better.level) < (worse.days, worse.level)
            assert better.level < worse.level
        assert need.levels[0].level == 0


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_product_has_a_code(step: CascadeStep) -> None:
    assert set(step.makes) - set(step.statics) <= PRODUCT_CODES.keys()
    assert set(step.statics) <= STATIC_CODES.keys() & set(step.makes)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_table_and_recipe_say_the_same(recipe: Recipe) -> None:
    step = next(step for step in STEPS if step.recipe is recipe)
    assert (recipe.raw[0], recipe.minimum, recipe.makes) == (step.raw, step.minimum, step.makes)
    assert {need.catg for need in step.needs if not need.optional} == set(recipe.needed)
    assert {need.catg for need in step.needs if need.optional} == set(recipe.optional)


def test_bias_window_is_that_of_the_workflow_rules() -> None:
    """OCA-W takes a MASTER_BIAS from 3 days before to 3 days after: level 1 here."""
    need = next(need for need in STEPS_BY_TAG[Tag.FLAT].needs if need.catg == "MASTER_BIAS")
    assert Level(3.0, 1) in need.levels


def test_a_recipe_that_is_not_there_yet_is_told_by_name() -> None:
    assert recipe_of("muse_bias") is RECIPES["muse_bias"]
    with pytest.raises(LookupError, match="no recipe muse_nothing yet"):
        recipe_of("muse_nothing")
