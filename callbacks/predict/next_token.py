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
LOG_PROB = "target_log_prob"
"""Column of the summed log-probability of a whole answer, whose probability may be too small to be told from 0."""
ACCEPTED = "accepted_ids"
"""Column of the tokens of all answers that a prompt accepts; there where a row lists several."""
CHOSEN = "accepted"
FILTERED_BY = ("target_logit", "best_other_logit")
"""What the filter of known prompts reads beside ranks."""


class NextTokens:
    """Reads predictions of one split's prompts off a language model's scores.

    Args:
        rows: the split, with `type` and `answer_ids`, or the tokens of every answer where a row accepts several.
        answer: `first`: probabilities are those of an answer's first token; `full`: of all its tokens, the exponential
            of their summed log-probability.
    """

    def __init__(self, rows: datasets.Dataset, answer: str = "first") -> None:
        self.types: list[str] = list(rows["type"][:]) if "type" in rows.column_names else [""] * len(rows)
        self.accepted = accepted_answers(rows)
        self.answers = other_answers(self.types, [first_tokens(answers) for answers in self.accepted])
        self.of_whole = answer == "full"

    def of_batch(self, model: LanguageModel, batch: Batch, scores: Tensor) -> dict[str, Tensor]:
        """What the scores say, each [prompts].

        Args:
            scores: logits of the next token, float32 [prompts, vocabulary].

        Returns:
            `prediction`: the token that ranks first; `runner_up`: the second; `accepted`: place of the answer that the
            model finds the most probable by its first token, the first of equal ones, of those that a prompt accepts;
            `target_prob`, `target_rank` and `target_logit` of that token, without an answer of the predicted one:
            probability (of the whole answer where that is asked), 1 + the number of tokens with a higher logit, and its
            logit; `target_log_prob` of whole answers; `best_other_logit`: the highest logit of another answer of the
            prompt's type, −∞ where there is none.
        """
        prediction, rows = scores.argmax(-1), batch["index"].tolist()
        behind = scores.scatter(-1, prediction[:, None], -torch.inf).argmax(-1)
        own = [first_tokens(self.accepted[row]) for row in rows]
        chosen = [int(scores[place, tokens].argmax()) if tokens else 0 for place, tokens in enumerate(own)]
        labels = [tokens[at] if tokens else -1 for tokens, at in zip(own, chosen, strict=True)]
        asked = torch.tensor(labels, dtype=torch.int64, device=scores.device)
        target = torch.where(asked >= 0, asked, prediction)
        logit = scores.gather(-1, target[:, None])[:, 0]
        log_prob = logit - scores.logsumexp(-1)
        types = [self.types[row] for row in rows]
        # of a prompt without an answer the predicted token is its own
        own = [tokens or [int(target[place])] for place, tokens in enumerate(own)]
        if self.of_whole:
            log_prob = log_prob + self._rest(model, batch, chosen)
        return {
            "prediction": prediction,
            RUNNER_UP: behind,
            CHOSEN: torch.tensor(chosen, device=scores.device),
            "target_prob": log_prob.exp(),
            **({LOG_PROB: log_prob} if self.of_whole else {}),
            "target_rank": target_rank(scores, target),
            "target_logit": logit,
            "best_other_logit": best_other_logit(scores, own, types, self.answers),
        }

    def _rest(self, model: LanguageModel, batch: Batch, chosen: Sequence[int]) -> Tensor:
        """Summed log-probability of each chosen answer behind its first token, [prompts]; one forward each."""
        sums = []
        for row, index in enumerate(batch["index"].tolist()):
            accepted = self.accepted[index]
            tokens = accepted[chosen[row]] if accepted else []
            answer = torch.tensor(tokens, dtype=torch.int64, device=batch["input_ids"].device)
            if len(answer) < 2:
                sums.append(torch.zeros((), device=answer.device))
                continue
            prompt = batch["input_ids"][row][batch["attention_mask"][row].bool()]
            ids = torch.cat([prompt, answer[:-1]])[None]
            hidden = model.hidden({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[0, len(prompt) :]
            log_probs = model.scores(hidden).float().log_softmax(-1)
            sums.append(log_probs.gather(-1, answer[1:, None]).sum())
        return torch.stack(sums)


def accepted_answers(rows: datasets.Dataset) -> list[list[list[int]]]:
    """Tokens of every answer that each prompt accepts: those that its row lists, or the only one; none without any."""
    if ACCEPTED in rows.column_names:
        return list(rows[ACCEPTED][:])
    if "answer_ids" not in rows.column_names:  # data of somebody's own, with the first token alone
        return [[[label]] if label >= 0 else [] for label in rows["label"][:]]
    return [[ids] if ids else [] for ids in rows["answer_ids"][:]]


def first_tokens(answers: Sequence[Sequence[int]]) -> list[int]:
    """Ids of the first tokens of answers."""
    return [ids[0] for ids in answers]


def with_next_tokens(rows: datasets.Dataset, said: dict[str, Tensor], tokenizer: Any) -> pyarrow.Table:
    """The split's own columns with `readout`, `COLUMNS` and `SPELLED` beside them.

    A prompt without an answer has no label, and no text for it. Where one accepts several, its label, `answer_ids`
    and `answer` are those of the chosen one.
    """
    table = rows.with_format("arrow")[:]
    answers = [
        accepted[at] if accepted else []
        for accepted, at in zip(accepted_answers(rows), said[CHOSEN].tolist(), strict=True)
    ]
    labels = [ids[0] if ids else -1 for ids in answers]
    if ACCEPTED in rows.column_names:
        texts = [
            tokenizer.decode(ids).strip() if len(accepted) > 1 else text
            for text, ids, accepted in zip(rows["answer"][:], answers, rows[ACCEPTED][:], strict=True)
        ]
        for name, column in (("label", labels), ("answer_ids", answers), ("answer", texts)):
            place = table.column_names.index(name)
            table = table.set_column(place, name, pyarrow.array(column, table.schema.field(name).type))
    table = table.append_column("readout", pyarrow.array([TokenReadout.name] * len(rows)))
    for name in (*COLUMNS, *([LOG_PROB] if LOG_PROB in said else [])):
        table = table.append_column(name, pyarrow.array(said[name].numpy()))
    for name, ids in zip(SPELLED, (said["prediction"].tolist(), labels), strict=True):
        written = [tokenizer.decode([number]).strip() if number >= 0 else "" for number in ids]
        table = table.append_column(name, pyarrow.array(written))
    return table


def renumbered(rows: datasets.Dataset, kept: Sequence[int]) -> datasets.Dataset:
    """Some rows of a split as a split of their own: `index` counts them, `source_index` stays."""
    table: Any = rows.select(list(kept)).with_format("arrow")[:]
    place = table.column_names.index("index")
    numbers = pyarrow.array(range(len(kept)), table.schema.field("index").type)
    return datasets.Dataset(table.set_column(place, "index", numbers))
