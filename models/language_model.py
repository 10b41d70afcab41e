"""The LightningModule of data with the vocabulary as readout: a causal language model as it is, or being trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError, require_finite
from twinlens.attribution.protocols import Batch
from twinlens.attribution.readouts import TokenReadout
from twinlens.models.adapters import AdapterUse
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.causal import load_language_model, save_language_model
from twinlens.models.forwards import answer_positions, at_positions, backbone_arguments
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.padding import aligned, unaligned
from twinlens.models.readouts import readout_change
from twinlens.models.recipe import Schedule, adamw
from twinlens.models.residual import ResidualEngine
from twinlens.models.residual_identities import build_residual
from twinlens.models.windows import by_window, in_parts


class LanguageModel(LightningModule):
    """A causal language model whose scores are those of the next token behind a prompt.

    Trained with cross-entropy over all tokens of the training rows, or those that a `loss_mask` names; validated on
    prompts by the first token of their answers (`labels`): `validation/accuracy` is the share of answers that rank
    first; or on documents by their perplexity.

    Args:
        name: short name, used in results and paths.
        tokenizer: tokenizer of the model; a padding token may lie beyond the model's vocabulary.
        path: directory or hub id of the checkpoint; None starts from `architecture`.
        architecture: transformers configuration values (with `model_type`) of a model from scratch.
        model_type: architecture the checkpoint must have; None accepts any decoder.
        tokenizer_path: where the tokenizer is loaded from when not from `path`.
        learning_rate, weight_decay: of AdamW.
        warmup_fraction: share of the training steps in which the learning rate rises linearly from zero.
        schedule: `constant`, or `linear` decay to zero after the warm-up.
        batch_size, max_epochs, gradient_clip_val: the training recipe beside the optimiser's; data.batch_size and the
            Trainer's settings of the same name follow it unless given.
        attention: attention implementation of transformers.
        trust_remote_code: run code from the checkpoint's repository.
        adapter: of a checkpoint that is a PEFT adapter: `keep` its matrices as layers, which alone are trained with the
            head, or `merge` them into the base.
        dtype: type in which the weights are read: `float32`, `bfloat16`, or `auto`, the checkpoint's own.
        seed: draws the parameters of a model from scratch.

    Raises:
        UserError: see `load_language_model`, and `twinlens.models.readouts.readout_change`.
    """

    def __init__(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        path: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        model_type: str | None = None,
        tokenizer_path: str | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.0,
        schedule: Schedule = "constant",
        batch_size: int = 64,
        max_epochs: int = 5,
        gradient_clip_val: float | None = None,
        attention: str = "sdpa",
        trust_remote_code: bool = False,
        adapter: AdapterUse = "keep",
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        self.tokenizer = tokenizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.schedule: Schedule = schedule
        loaded: Any = load_language_model(
            path, architecture, model_type, tokenizer, seed, attention, trust_remote_code, adapter, dtype
        )
        self.lm, origin = loaded
        self.weights_in = next(self.lm.base_model.parameters()).dtype
        self.change = readout_change(self.lm, self.head, path)
        # none is new, so that only weights from a pickle are worth a line
        self.weights_told = origin.told(path) if path is not None and origin.read else None
        self.known = MeanMetric()
        self.document_loss = MeanMetric()

    # -- parts ---------------------------------------------------------------------------------------------------

    @property
    def backbone(self) -> Any:
        """The language model without readout."""
        return self.lm.base_model

    @property
    def head(self) -> nn.Module:
        """The last linear layer, [..., hidden] → [..., vocabulary]; the readout behind it may have a scale or a cap."""
        return self.lm.get_output_embeddings()

    @property
    def whole_readout(self) -> nn.Module:
        """From the final hidden state to the model's own logits."""
        return self.change.of(self.head)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary, which is the number of scores."""
        return int(self.lm.get_output_embeddings().out_features)

    def engine(self, tests: bool = False) -> LastTokenEngine:
        """The verified last-token engine over this model's current weights; lists are tested with the same one."""
        return LastTokenEngine(build_anatomy(self.backbone), self.whole_readout, TokenReadout.name)

    def residual_engine(self) -> ResidualEngine:
        """The verified engine over the residual stream at this model's current weights.

        Raises:
            UserError: a model without additive residual stream.
        """
        return build_residual(build_anatomy(self.backbone), self.whole_readout, vocabulary=True)

    def save(self, folder: Path) -> None:
        """Write safetensors, configuration and tokenizer."""
        save_language_model(self.lm, self.tokenizer, folder)

    # -- forward -------------------------------------------------------------------------------------------------

    def hidden(self, batch: Batch, at_once: bool = False) -> Tensor:
        """Final hidden states, [batch, tokens, hidden]; of documents in windows, each window read by itself, and one
        behind the other where nothing is kept for a backward, so that a long document takes no more than a short one.

        Args:
            batch: of sequences, or of documents with `window`.
            at_once: all windows in one forward; in a fit over several devices each has to run as many as the others.

        Raises:
            UserError: a prompt longer than the model.
        """
        windows = by_window(batch)
        self._refuse_too_long(int(windows["attention_mask"].sum(-1).max()))
        n = len(windows["input_ids"]) if at_once or torch.is_grad_enabled() else len(batch["input_ids"])
        parts = [self._states(part) for part in in_parts(windows, n)]
        states = parts[0] if len(parts) == 1 else torch.cat(parts)
        return states.reshape(*batch["input_ids"].shape, states.shape[-1])

    def _states(self, sequences: Batch) -> Tensor:
        arguments = backbone_arguments(self.backbone, aligned(self.backbone, sequences))
        states: Tensor = self.backbone(**arguments, use_cache=False).last_hidden_state
        return unaligned(self.backbone, sequences, states)

    def features(self, batch: Batch) -> Tensor:
        """Final hidden state at the answer position, the readout's input: [batch, hidden]."""
        return at_positions(self.hidden(batch), answer_positions(batch["attention_mask"]))

    def forward(self, batch: Batch) -> Tensor:
        """Scores of the next token, [batch, vocabulary]."""
        return self.scores(self.features(batch))

    def scores(self, features: Tensor) -> Tensor:
        """From the readout's inputs, [..., hidden], to scores, [..., vocabulary]."""
        return self.whole_readout(features)

    def _refuse_too_long(self, tokens: int) -> None:
        longest = getattr(self.lm.config, "max_position_embeddings", None)
        if longest is not None and tokens > longest:
            raise UserError(
                f"a prompt has {tokens} tokens, but model={self.name} has {longest} positions; expected at most as "
                f"many: set data.max_length={longest} or leave the prompt out."
            )

    def token_losses(self, batch: Batch, at_once: bool = False) -> tuple[Tensor, Tensor]:
        """Cross-entropy of every token that counts, zero at all others, and which tokens predict one that counts.

        All tokens behind the first count, but where the batch has a `loss_mask` those alone; the first of a window
        never does. Both [batch, tokens − 1] (of documents in windows [batch, windows · (tokens of each − 1)]); a text's
        sum is its share of the training loss. `at_once`: see `hidden`.
        """
        hidden, predicts, next_ids = self._before_counted(batch, at_once)
        scores = self.scores(hidden).float()
        losses = cross_entropy(scores.flatten(0, 1), next_ids.flatten(), reduction="none").view_as(next_ids) * predicts
        n = len(batch["input_ids"])
        return losses.reshape(n, -1), predicts.reshape(n, -1)

    def mean_states(self, batch: Batch) -> Tensor:
        """Mean of the final hidden states that predict tokens that count, see `token_losses`, [batch, hidden]."""
        hidden, predicts, _ = self._before_counted(batch)
        n = len(batch["input_ids"])
        total = (hidden * predicts[..., None]).reshape(n, -1, hidden.shape[-1]).sum(1)
        return total / predicts.reshape(n, -1).sum(1, keepdim=True).clamp_min(1)

    def _before_counted(self, batch: Batch, at_once: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Final hidden states of all tokens that another one follows in their window, [windows, tokens − 1, hidden];
        which of them predict one that counts, and the ids behind them, [windows, tokens − 1] each."""
        windows = by_window(batch)
        hidden = self.hidden(batch, at_once).view(*windows["input_ids"].shape, -1)[:, :-1]
        # of a window without a token not even its padding is read
        mask = batch["attention_mask"].bool().view_as(windows["input_ids"])
        predicts = mask[:, :-1] & mask[:, 1:]
        if "loss_mask" in batch:
            predicts = predicts & windows["loss_mask"][:, 1:].bool()
        return hidden, predicts, windows["input_ids"][:, 1:]

    # -- training ------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of every token that counts, see `token_losses`, over all processes."""
        losses, predicts = self.token_losses(batch)
        require_finite(losses.detach(), f"the training loss in step {self.global_step}", batch["index"])
        loss = losses.sum() / _over_processes(predicts.sum())
        self.log("train/loss", loss, prog_bar=True, batch_size=len(losses))
        if "loss_mask" in batch:
            self.log("train/perplexity", loss.detach().exp(), batch_size=len(losses))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Of prompts the rank of their answers' first tokens; of documents (with `loss_mask`) their perplexity."""
        if "loss_mask" in batch:
            losses, predicts = self.token_losses(batch, at_once=True)
            require_finite(losses, "the validation loss", batch["index"])
            self.document_loss.update(losses.sum() / predicts.sum(), predicts.sum())
            return
        scores, labels = self(batch).float(), batch["labels"]
        losses = cross_entropy(scores, labels, reduction="none")
        require_finite(losses, "the validation loss", batch["index"])
        self.known.update((scores.argmax(-1) == labels).float())
        self.log("validation/loss", losses.mean(), batch_size=len(losses), sync_dist=True)
        self.log("validation/accuracy", self.known, prog_bar=True, batch_size=len(losses))

    def on_validation_epoch_end(self) -> None:
        """Perplexity of documents: the exponential of their tokens' mean loss, whatever the batches."""
        if self.document_loss.update_called:
            loss = self.document_loss.compute()
            self.log("validation/loss", loss)
            self.log("validation/perplexity", loss.exp(), prog_bar=True)
            self.document_loss.reset()

    def configure_optimizers(self) -> Any:
        return adamw(self, self.learning_rate, self.weight_decay, self.warmup_fraction, self.schedule)


def _over_processes(counted: Tensor) -> Tensor:
    """Tokens of a step, the mean over processes: their gradients are averaged, so that every token weighs the same."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return counted
    total = counted.float()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
