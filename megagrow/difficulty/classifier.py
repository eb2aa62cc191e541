"""Trains a transformer classifier of levels: from pretrained weights, or small and from scratch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.difficulty.distilbert import encode, pad, quiet_transformers
from megagrow.difficulty.model_files import model_folder, weight_files
from megagrow.errors import DataError, TrainingError

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ALPHABET = 500
# Batches that are sorted by length together: less padding, and still in random order.
_SORTED_BATCHES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to train."""

    epochs: int = 2
    """Passes over the documents."""
    max_length: int = 512
    """Ids of a text that are read."""
    batch_size: int = 16
    """Texts in a batch."""
    learning_rate: float = 5e-5
    """Largest learning rate: reached after a tenth of the steps, falling linearly to 0."""
    weight_decay: float = 0.01
    """AdamW's, on matrices."""
    seed: int = 1
    """Of new weights, dropout and the order of the documents."""
    device: str = "auto"
    """`auto` for CUDA where there is one, or a torch device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How training goes."""

    documents: int
    """Documents seen, each epoch counted."""
    total: int
    """Documents to see."""
    loss: float
    """Cross-entropy of the last batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier:
    """A model of the transformers library with its tokenizer."""

    model: Any
    """`...ForSequenceClassification`."""
    tokenizer: Any
    """Its tokenizer."""

    def save(self, folder: Path) -> None:
        """Writes Hugging Face's layout, weights as safetensors; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def pretrained(source: str, levels: Sequence[str], *, max_length: int, seed: int) -> Classifier:
    """A pretrained model with a new head for these levels.

    Args:
        source: folder or hub id, such as `distilbert/distilbert-base-uncased`.
        levels: names, easiest first.
        max_length: ids of a text that are to be read.
        seed: of the new head's weights.

    Raises:
        DataError: as `check_pretrained`, or the model cannot be loaded.
    """
    folder = check_pretrained(source, max_length=max_length)
    with quiet_transformers() as transformers, _seeded(seed):
        try:
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False,
                num_labels=len(levels), ignore_mismatched_sizes=True, **_names(levels),
            )  # fmt: skip
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{source}: cannot be trained from: {error}") from None
    return Classifier(model=model.float(), tokenizer=tokenizer)


def check_pretrained(source: str, *, max_length: int) -> Path:
    """Looks for a pretrained model without loading its weights; returns its folder.

    Args:
        source: folder, or hub id, which is fetched.
        max_length: ids of a text that are to be read.

    Raises:
        DataError: it is missing, has no safetensors or no settings, or reads fewer ids.
    """
    folder = model_folder(source)
    weight_files(folder, "torch")
    with quiet_transformers() as transformers:
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{source}: cannot be trained from: {error}") from None
    longest = getattr(config, "max_position_embeddings", max_length)
    if max_length > longest:
        raise DataError(f"{source} reads {longest} ids at most: --max-length {longest} or less")
    return folder


def from_scratch(
    texts: Sequence[str],
    levels: Sequence[str],
    *,
    layers: int,
    hidden_size: int,
    vocab_size: int,
    max_length: int,
    seed: int,
) -> Classifier:
    """A new DistilBERT with random weights, and a WordPiece vocabulary from the texts.

    Args:
        texts: text for the vocabulary; the same texts give the same one.
        levels: names, easiest first.
        layers: transformer layers.
        hidden_size: width; a multiple of 32, which is the width of a head.
        vocab_size: ids wanted.
        max_length: ids of a text that are to be read.
        seed: of the weights.

    Raises:
        DataError: sizes that make no model.
    """
    check_shape(layers, hidden_size)
    vocabulary = wordpiece(texts, vocab_size)
    with quiet_transformers() as transformers, _seeded(seed):
        tokenizer = transformers.BertTokenizerFast(vocab=vocabulary, model_max_length=max_length)
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        config = transformers.DistilBertConfig(
            vocab_size=len(vocabulary), n_layers=layers, dim=hidden_size,
            n_heads=hidden_size // 32, hidden_dim=4 * hidden_size,
            max_position_embeddings=max_length, num_labels=len(levels), **_names(levels),
        )  # fmt: skip
        model = transformers.DistilBertForSequenceClassification(config)
    return Classifier(model=model, tokenizer=tokenizer)


def check_shape(layers: int, hidden_size: int) -> None:
    """What `from_scratch` can make.

    Raises:
        DataError: it is none of that.
    """
    if layers < 1 or hidden_size < 32 or hidden_size % 32:
        raise DataError(
            f"a model of {layers} layers and width {hidden_size} cannot be made: --layers 1 or "
            "more, and --hidden-size a multiple of 32"
        )


def wordpiece(texts: Sequence[str], vocab_size: int) -> dict[str, int]:
    """A WordPiece vocabulary, lower case, in BERT's manner; the same texts give the same one.

    Raises:
        DataError: `vocab_size` cannot hold the characters of the texts.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=True)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    characters = sorted(
        (each for each in counts if not each.isspace()), key=lambda each: (-counts[each], each)
    )[:_ALPHABET]
    # The trainer numbers "##x" in the order of a hash map, which ties are then broken by: they are
    # given to it, in order, as if they were special tokens.
    pieces = [f"##{each}" for each in sorted(characters)]
    if vocab_size < len(_SPECIAL) + 2 * len(pieces):
        raise DataError(
            f"a vocabulary of {vocab_size} does not hold these texts' characters: "
            f"ask for {len(_SPECIAL) + 2 * len(pieces)} or more"
        )
    engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizer
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*_SPECIAL, *pieces], show_progress=False,
        initial_alphabet=sorted(characters), limit_alphabet=len(characters),
    )  # fmt: skip
    engine.train_from_iterator(texts, trainer)
    ids: dict[str, int] = engine.get_vocab()
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def train(
    classifier: Classifier,
    texts: Sequence[str],
    labels: NDArray[np.int64],
    settings: Settings,
    progress: Callable[[Progress], object] = lambda _: None,
) -> list[float]:
    """Trains the model in place; the same on a CPU for the same seed.

    Args:
        classifier: what to train.
        texts: documents.
        labels: level number of each, shape [documents].
        settings: how.
        progress: told after every step.

    Returns:
        Loss of each step.

    Raises:
        TrainingError: the loss is not finite.
    """
    import torch

    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu")
        if settings.device == "auto"
        else settings.device
    )
    model = classifier.model.to(device).train()
    ids = encode(classifier.tokenizer, texts, settings.max_length)
    optimizer, schedule = _optimizer(model, settings, len(texts))
    losses: list[float] = []
    seen = 0
    with _seeded(settings.seed):
        for batch in _batches([len(each) for each in ids], settings):
            padded, mask = pad(
                [ids[index] for index in batch], classifier.tokenizer.pad_token_id or 0
            )
            inputs = [torch.from_numpy(each).to(device) for each in (padded, mask, labels[batch])]
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(input_ids=inputs[0], attention_mask=inputs[1]).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), inputs[2])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss is {losses[-1]} after {len(losses)} steps: lower --learning-rate "
                    f"({settings.learning_rate:g})"
                )
            seen += len(batch)
            progress(Progress(documents=seen, total=settings.epochs * len(texts), loss=losses[-1]))
    model.eval()
    return losses


def _optimizer(model: Any, settings: Settings, documents: int) -> tuple[Any, Any]:
    import torch

    steps = settings.epochs * -(-documents // settings.batch_size)
    warmup = max(1, steps // 10)
    decayed = [each for each in model.parameters() if each.ndim >= 2]
    others = [each for each in model.parameters() if each.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay},
         {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / (steps - warmup + 1))),
    )
    return optimizer, schedule


def _batches(lengths: Sequence[int], settings: Settings) -> Iterator[NDArray[np.int64]]:
    """Indices of each batch of all epochs, shuffled; texts of like length together."""
    generator = np.random.default_rng(settings.seed)
    sizes = np.asarray(lengths)
    for _ in range(settings.epochs):
        order = generator.permutation(sizes.size)
        batches = []
        window = _SORTED_BATCHES * settings.batch_size
        for start in range(0, order.size, window):
            part = order[start : start + window]
            part = part[np.argsort(sizes[part], kind="stable")]
            batches += [
                part[first : first + settings.batch_size]
                for first in range(0, part.size, settings.batch_size)
            ]
        for index in generator.permutation(len(batches)):
            yield batches[index]


def _names(levels: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(levels)),
        "label2id": {name: index for index, name in enumerate(levels)},
    }


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws torch's random numbers from this seed, and puts the generators back."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
