# %% [markdown]
# # Build and pretrain a small TN-BERT
#
# From raw text to a pretrained encoder with Expand/Condense networks in its feed-forward parts, in a minute on a
# processor: data, model, training, a look at what it learned, a SavedModel. This page is
# `examples/pretrain_tn_bert.py`, a notebook as a script: run it, or open it with jupytext. At full size the same
# calls take a corpus, `bert_models.build("tn_bert")` and the recipe as it is.

# %%
import itertools
import tempfile
from pathlib import Path

import keras
import numpy as np

import bert_models
from bert_models.pretraining.pipeline import write_pretraining_data
from bert_models.pretraining.recipes import RECIPES
from bert_models.pretraining.settings import DataSettings
from bert_models.training import curve

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Text and vocabulary
#
# A line is a sentence, an empty line ends a document. The words of a sentence depend on each other, so there is
# something to learn: cats purr, dogs bark.

# %%
SOUNDS = {"cat": "purrs", "dog": "barks", "cow": "moos", "bird": "sings"}
PLACES = {"cat": "sofa", "dog": "yard", "cow": "meadow", "bird": "tree"}
documents = [
    f"the {size} {animal} {SOUNDS[animal]} .\nit lives near the {PLACES[animal]} .\nthe {animal} is {mood} .\n"
    for animal, size, mood in itertools.product(SOUNDS, ("big", "small", "old"), ("happy", "tired", "hungry"))
]
(folder / "corpus.txt").write_text("\n".join(documents), encoding="utf-8")
words = sorted({word for document in documents for word in document.split()})
(folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), encoding="utf-8")
tokenizer = bert_models.load_tokenizer(folder)
print(len(documents), "documents,", tokenizer.vocab_size, "tokens in the vocabulary")

# %% [markdown]
# ## Pretraining data
#
# Pairs of sentences, 15 % of the tokens masked, each document ten times with other masks.

# %%
settings = DataSettings(max_length=24, duplicates=10, num_shards=2)
info = write_pretraining_data([folder / "corpus.txt"], folder / "data", tokenizer, settings)
print(info["counts"]["examples"], "examples,", info["counts"]["predictions"], "masked tokens")

# %% [markdown]
# ## The encoder
#
# TN-BERT with 2 layers of 64 features, in blocks of 16 (at full size: 12 layers, 768 features, blocks of 128),
# beside its dense twin.

# %%
sizes = {"num_layers": 2, "hidden_size": 64, "num_heads": 4, "vocab_size": tokenizer.vocab_size, "max_positions": 32}
encoder = bert_models.build("tn_bert", feed_forward=bert_models.ExpandCondense(block_size=16), **sizes)
dense = bert_models.build("bert_en_uncased_L-12_H-768_A-12", **sizes)
print(f"TN-BERT: {encoder.count_params():,} parameters, dense: {dense.count_params():,}")
print("cores of a layer:", [tuple(core.shape) for core in encoder.get_layer("block_0").feed_forward.intermediate.cores])

# %% [markdown]
# ## Training
#
# The recipe is BERT's, shortened. What it leaves in the folder lets a second call go on where the first one ended.

# %%
recipe = RECIPES["tn_bert"].on(settings, steps=600).scaled(600, batch_size=32, peak=4e-3)
model = bert_models.pretrain(encoder, folder / "data", folder / "run", recipe, every=200)
lines = curve.read(folder / "run" / "curve.jsonl")
for line in lines:
    print(f"step {line['step']:3}: masked tokens {line['masked_accuracy']:.0%} right, loss {line['masked_loss']:.2f}")

# %% [markdown]
# ## What it learned
#
# The masked word of a new sentence.

# %%
text = "the old dog [MASK] ."
pieces = ["[CLS]", *text.split(), "[SEP]"]
vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
ids = np.array([[vocabulary.index(piece) for piece in pieces]], "int32")
batch = {
    "input_word_ids": ids,
    "input_mask": np.ones_like(ids),
    "input_type_ids": np.zeros_like(ids),
    "masked_lm_positions": np.array([[pieces.index("[MASK]")]], "int32"),
}
logits = np.array(model.mlm(batch)["mlm_logits"])[0, 0]
print(text, "->", vocabulary[int(logits.argmax())])

# %% [markdown]
# ## A SavedModel
#
# With the interface of TF Hub, so that code which was written for the cards runs on it.

# %%
bert_models.export(encoder, folder / "tn_bert", mlm=model.mlm, vocab=folder / "vocab.txt")
again = bert_models.load(folder / "tn_bert")
print("loaded again:", again.count_params() == encoder.count_params())
