"""The LightningModule: language model plus readout (classes or choices), trained with cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError, require_finite
from twinlens.attribution.protocols import Batch
from twinlens.models.adapters import AdapterUse
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.backbone import load_classifier, save_classifier
from twinlens.models.choice import ChoiceEngine, Choices, edited_by, flat_sequences, output_names
from twinlens.models.encoder_anatomy import encoder_anatomy
from twinlens.models.encoder_engine import EncoderEngine, refuse_residual
from twinlens.models.encoders import last_states, reads_first
from twinlens.models.forwards import answer_positions, at_positions, backbone_arguments, first_positions
from twinlens.models.heads import HeadKind
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.loaded_weights import Origin
from twinlens.models.padding import aligned
from twinlens.models.recipe import Schedule, adamw
from twinlens.models.residual import ResidualEngine
from twinlens.models.residual_identities import build_residual


class TextClassifier(LightningModule):
    """A causal language model with a classification or multiple-choice head on the last token.

    In multiple choice the head gives one score per sequence, and a question's scores are those of its choices.

    Attributes:
        weights_in: type in which the language model's weights were read.
        papers, licence: what to cite, as keys of `callbacks/share/references.bib`, and the checkpoint's licence by its
            name on the hub; an entry `… if SETTING=VALUE|VALUE` holds for some values of a setting alone.
        weights_told: one line about which weights are new, not used or read from a pickle; None: nothing is to be said.

    Args:
        name: short name, used in results and paths.
        label_names: class names in the order of the head's rows.
        tokenizer: tokenizer of the model; its vocabulary may exceed the checkpoint's by the padding token.
        path: directory or hub id of the checkpoint; None starts from `architecture`.
        architecture: transformers configuration values (with `model_type`) of a model from scratch.
        model_type: architecture the checkpoint must have; None accepts any decoder.
        tokenizer_path: where the tokenizer is loaded from when not from `path`.
        head: `linear` (one map without bias, transformers' own) or `mlp`.
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
        seed: draws the parameters that the checkpoint does not have.
        n_choices: sequences of a question in multiple choice, where `label_names` are the choices; None: classes.
        as_it_is: the checkpoint is a trained classifier whose weights and vocabulary stay as they are.
        reads: the form of input that it is trained with (`template`, `max_length`, `bos`), which is saved with it;
            None: nothing is said of it.
        choices: whose neurons an attribution edits: those of the `predicted` choice's sequence with the other choices'
            scores fixed, or the same neuron in the sequences of `all` choices at once; `predicted_edit_all`: scores are
            of the first kind, tests of neuron lists of the second.
    """

    papers: ClassVar[tuple[str, ...]] = (
        "zhang2022opt if name=opt125m",
        "zhang2022opt if path=facebook/opt-125m",
        "biderman2023pythia if name=pythia410m",
        "biderman2023pythia if path=EleutherAI/pythia-410m",
        "workshop2022bloom if name=bloom560m",
        "workshop2022bloom if path=bigscience/bloom-560m",
        "radford2019gpt2 if name=gpt2|gpt2large",
        "radford2019gpt2 if path=gpt2|gpt2-large",
        "touvron2023llama if name=llama7b",
        "touvron2023llama if path=huggyllama/llama-7b",
        "hu2022lora if adapter=lora",
    )
    licence: ClassVar[tuple[str, ...]] = (
        "other if name=opt125m|llama7b",
        "apache-2.0 if name=pythia410m",
        "bigscience-bloom-rail-1.0 if name=bloom560m",
        "mit if name=gpt2|gpt2large",
    )

    def __init__(
        self,
        name: str,
        label_names: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        path: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        model_type: str | None = None,
        tokenizer_path: str | None = None,
        head: HeadKind = "linear",
        learning_rate: float = 1e-5,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.0,
        schedule: Schedule = "constant",
        batch_size: int = 8,
        max_epochs: int = 5,
        gradient_clip_val: float | None = None,
        attention: str = "sdpa",
        trust_remote_code: bool = False,
        adapter: AdapterUse = "keep",
        dtype: str = "float32",
        seed: int = 0,
        n_choices: int | None = None,
        choices: Choices = "predicted",
        as_it_is: bool = False,
        reads: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.label_names = list(label_names)
        self.tokenizer = tokenizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.schedule: Schedule = schedule
        self.n_choices = n_choices
        self.choices: Choices = choices
        self.reads = None if as_it_is else reads
        outputs = output_names(label_names, n_choices)
        loaded: Any = load_classifier(
            path,
            architecture,
            model_type,
            head,
            outputs,
            tokenizer,
            seed,
            attention,
            trust_remote_code,
            adapter,
            as_it_is,
            dtype,
        )
        self.lm, origin = loaded
        self.weights_in = next(self.lm.base_model.parameters()).dtype
        self.weights_told = _told(origin, path, as_it_is)
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(len(label_names), average="micro"),
                "macro_f1": MulticlassF1Score(len(label_names), average="macro"),
            }
        )
        self.validation_metrics = metrics.clone(prefix="validation/")

    # -- parts ---------------------------------------------------------------------------------------------------

    @property
    def backbone(self) -> Any:
        """The language model without head."""
        return self.lm.base_model

    @property
    def head(self) -> nn.Module:
        """From the final hidden state at the answer position, [..., hidden], to scores, [..., classes or 1]."""
        return self.lm.score

    def engine(self, tests: bool = False) -> LastTokenEngine | ChoiceEngine:
        """The verified last-token engine over this model's current weights.

        Args:
            tests: whether neuron lists are tested with it, which may edit other choices' sequences than their scores.
        """
        engine = self._engine(self.head)
        if self.n_choices is None:
            return engine
        return ChoiceEngine(engine, self.n_choices, edited_by(self.choices, tests))

    def feature_engine(self) -> LastTokenEngine:
        """The engine of one sequence whose scores are what the head reads, [..., hidden], as `features` gives it."""
        return self._engine(nn.Identity())

    def _engine(self, head: nn.Module) -> LastTokenEngine:
        if reads_first(self.lm):
            return EncoderEngine(encoder_anatomy(self.backbone), nn.Sequential(self.lm.entry, head))
        return LastTokenEngine(build_anatomy(self.backbone), head)

    def residual_engine(self) -> ResidualEngine:
        """The verified engine over the residual stream at this model's current weights.

        In multiple choice it explains the sequence of one choice, with the other choices' scores as constants.

        Raises:
            UserError: a model without additive residual stream; choices=all, which no score over one stream serves.
        """
        if self.n_choices is not None and self.choices == "all":
            raise UserError(
                "choices=all edits the neurons of all choices' sequences at once, but scores over the residual stream "
                "read one sequence; expected choices=predicted: set it or choose method=ig."
            )
        if reads_first(self.lm):
            raise refuse_residual(self.lm.config.model_type)
        return build_residual(build_anatomy(self.backbone), self.head)

    def save(self, folder: Path) -> None:
        """Write safetensors, configuration and tokenizer."""
        save_classifier(self.lm, self.tokenizer, folder, self.reads)

    # -- forward -------------------------------------------------------------------------------------------------

    def features(self, batch: Batch) -> Tensor:
        """Final hidden state at the answer position, the head's input: [batch, hidden] or [batch, choices, hidden].

        Of an encoder the classification token's, behind what its head has before its linear layers.
        """
        if batch["input_ids"].dim() == 3:
            return self.features(flat_sequences(batch)).unflatten(0, batch["input_ids"].shape[:2])
        batch = aligned(self.backbone, batch)
        arguments = backbone_arguments(self.backbone, batch)
        if reads_first(self.lm):
            states = last_states(self.lm, arguments)
            return self.lm.entry(at_positions(states, first_positions(batch["attention_mask"])))
        hidden = self.backbone(**arguments, use_cache=False).last_hidden_state
        return at_positions(hidden, answer_positions(batch["attention_mask"]))

    def forward(self, batch: Batch) -> Tensor:
        """Scores, [batch, classes]; in multiple choice the classes are the choices."""
        return self.scores(self.features(batch))

    def scores(self, features: Tensor) -> Tensor:
        """From head inputs, [batch, hidden] or [batch, choices, hidden], to scores, [batch, classes]."""
        return self.head(features).flatten(1)

    # -- training ------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = cross_entropy(self(batch).float(), batch["labels"], reduction="none")
        require_finite(losses.detach(), f"the training loss in step {self.global_step}", batch["index"])
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(losses))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self(batch).float()
        losses = cross_entropy(scores, batch["labels"], reduction="none")
        require_finite(losses, "the validation loss", batch["index"])
        self.validation_metrics.update(scores, batch["labels"])
        self.log("validation/loss", losses.mean(), batch_size=len(losses), sync_dist=True)
        self.log_dict(self.validation_metrics, prog_bar=True, batch_size=len(losses))

    def configure_optimizers(self) -> Any:
        return adamw(self, self.learning_rate, self.weight_decay, self.warmup_fraction, self.schedule)


def _told(origin: Origin, path: str | None, as_it_is: bool) -> str | None:
    """One line about weights that are new or not used; None where there is nothing to say."""
    return None if path is None or (as_it_is and not (origin.unused or origin.read)) else origin.told(path)
