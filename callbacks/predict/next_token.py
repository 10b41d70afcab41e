"""Answers of a language model to prompts: its next token, and the rank of the token that should come next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import pyarrow
import torch
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.known_prompts import best_other_logit, other_answers, target_rank
from twinlens.attribution.protocols import Batch
from twinlens.attribution.readouts import TokenReadout
from twinlens.callbacks.passes.example_columns import RUNNER_UP, SPELLED
from twinlens.models.language_model import LanguageModel

COLUMNS = ("prediction", RUNNER_UP, "target_prob", "target_rank")
"""Stored beside the split's own columns."""
FILTERED_BY = ("target_logit", "best_other_logit")
"""What the filter of known prompts reads beside ranks."""


class NextTokens:
    """Reads predictions of one split's prompts off a language model's scores.

    Args:
        rows: the split, with `type`, `label` and `answer_ids`.
        answer: `first`: probabilities are those of an answer's first token; `full`: of all its tokens, the exponential
            of their summed log-probability.
    """

    def __init__(self, rows: datasets.Dataset, answer: str = "first") -> None:
        self.types: list[str] = list(rows["type"][:])
        self.answers = other_answers(self.types, torch.tensor(rows["label"][:], dtype=torch.int64))
        self.answer_ids: list[list[int]] | None = list(rows["answer_ids"][:]) if answer == "full" else None

    def of_batch(self, model: LanguageModel, batch: Batch, scores: Tensor) -> dict[str, Tensor]:
        """What the scores say, each [prompts].

        Args:
            scores: logits of the next token, float32 [prompts, vocabulary].

        Returns:
            `prediction`: the token that ranks first; `runner_up`: the second; `target_prob`, `target_rank` and
            `target_logit` of the token that should come next, without an answer of the predicted one: probability (of
            the whole answer where that is asked), 1 + the number of tokens with a higher logit, and its logit;
            `best_other_logit`: the highest logit of another answer of the prompt's type, −∞ where there is none.
        """
        prediction, labels = scores.argmax(-1), batch["labels"]
        behind = scores.scatter(-1, prediction[:, None], -torch.inf).argmax(-1)
        target = torch.where(labels >= 0, labels, prediction)
        logit = scores.gather(-1, target[:, None])[:, 0]
        log_prob = logit - scores.logsumexp(-1)
        types = [self.types[row] for row in batch["index"].tolist()]
        if self.answer_ids is not None:
            log_prob = log_prob + self._rest(model, batch)
        return {
            "prediction": prediction,
            RUNNER_UP: behind,
            "target_prob": log_prob.exp(),
            "target_rank": target_rank(scores, target),
            "target_logit": logit,
            "best_other_logit": best_other_logit(scores, target, types, self.answers),
        }

    def _rest(self, model: LanguageModel, batch: Batch) -> Tensor:
        """Summed log-probability of each answer behind its first token, [prompts]; one forward each."""
        assert self.answer_ids is not None
        sums = []
        for row, index in enumerate(batch["index"].tolist()):
            answer = torch.tensor(self.answer_ids[index], dtype=torch.int64, device=batch["input_ids"].device)
            if len(answer) < 2:
                sums.append(torch.zeros((), device=answer.device))
                continue
            prompt = batch["input_ids"][row][batch["attention_mask"][row].bool()]
            ids = torch.cat([prompt, answer[:-1]])[None]
            hidden = model.hidden({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[0, len(prompt) :]
            log_probs = model.scores(hidden).float().log_softmax(-1)
            sums.append(log_probs.gather(-1, answer[1:, None]).sum())
        return torch.stack(sums)


def with_next_tokens(rows: datasets.Dataset, said: dict[str, Tensor], tokenizer: Any) -> pyarrow.Table:
    """The split's own columns with `readout`, `COLUMNS` and `SPELLED` beside them.

    A prompt without an answer has no label, and no text for it.
    """
    table = rows.with_format("arrow")[:]
    table = table.append_column("readout", pyarrow.array([TokenReadout.name] * len(rows)))
    for name in COLUMNS:
        table = table.append_column(name, pyarrow.array(said[name].numpy()))
    for name, ids in zip(SPELLED, (said["prediction"].tolist(), rows["label"][:]), strict=True):
        written = [tokenizer.decode([number]).strip() if number >= 0 else "" for number in ids]
        table = table.append_column(name, pyarrow.array(written))
    return table


def renumbered(rows: datasets.Dataset, kept: Sequence[int]) -> datasets.Dataset:
    """Some rows of a split as a split of their own: `index` counts them, `source_index` stays."""
    table: Any = rows.select(list(kept)).with_format("arrow")[:]
    place = table.column_names.index("index")
    numbers = pyarrow.array(range(len(kept)), table.schema.field("index").type)
    return datasets.Dataset(table.set_column(place, "index", numbers))
