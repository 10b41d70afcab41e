"""Entries of a group that are to run."""

from __future__ import annotations

from omegaconf import OmegaConf

from twinlens.conf.checking.plain_values import chosen


def test_options_of_an_evaluation_that_is_not_chosen_are_left_out() -> None:
    config = OmegaConf.create({"evaluation": {"a": {"_target_": "x", "k": 1}, "b": {"k": 2}}, "method": None})
    assert list(chosen(config, "evaluation")) == ["a"]
    assert chosen(config, "method") == {}
